//! What the kernel says about this process.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Kernel clock ticks a second in `/proc/*/stat`: 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// CPU time of this process so far.
pub(crate) fn cpu_time() -> Duration {
    let ticks: f64 = ticks().skip(11).take(2).sum();
    Duration::from_secs_f64(ticks / TICKS)
}

/// The numbers of `/proc/self/stat` that follow the program's name and state, from the fourth field on; the name stands
/// in parentheses, and may hold anything.
fn ticks() -> impl Iterator<Item = f64> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest).to_owned();
    let fields: Vec<f64> = after_name.split_whitespace().map(|field| field.parse().unwrap_or(0.0)).collect();
    fields.into_iter()
}

/// What the kernel counts of this process; none where it does not say.
#[derive(Debug)]
pub(crate) struct State {
    /// Bytes.
    pub(crate) resident: Option<u64>,
    /// Bytes.
    pub(crate) virtual_memory: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) open_files: Option<u64>,
    pub(crate) max_files: Option<u64>,
    /// Seconds since 1970.
    pub(crate) started: Option<u64>,
}

impl State {
    pub(crate) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key).map(str::to_owned));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        };
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        let booted = number(&fs::read_to_string("/proc/stat").unwrap_or_default(), "btime ");
        let started = ticks().nth(19).map(|ticks| (ticks / TICKS) as u64);
        Self {
            resident: number(&status, "VmRSS:").map(|kib| kib * 1024),
            virtual_memory: number(&status, "VmSize:").map(|kib| kib * 1024),
            threads: number(&status, "Threads:"),
            open_files: open_files(),
            max_files: number(&limits, "Max open files"),
            started: booted.zip(started).map(|(booted, started)| booted + started),
        }
    }
}

/// Kernels since 6.2 tell by the folder's size; for older ones its entries are counted.
fn open_files() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        count => Some(count),
    }
}

/// How busy this process is, measured between one reader and the next: no clock runs for it in between.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    last: Mutex<Reading>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    cpu: Duration,
    percent: f64,
}

impl CpuMeter {
    pub(crate) fn start() -> Self {
        Self { last: Mutex::new(Reading { at: Instant::now(), cpu: cpu_time(), percent: 0.0 }) }
    }

    /// CPU time per time since the last reading, 100 being one core. Readers within a second share a reading.
    pub(crate) fn percent(&self) -> f64 {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = last.at.elapsed();
        if passed >= Duration::from_secs(1) {
            let cpu = cpu_time();
            let percent = cpu.saturating_sub(last.cpu).as_secs_f64() / passed.as_secs_f64() * 100.0;
            *last = Reading { at: Instant::now(), cpu, percent };
        }
        last.percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_memory_and_has_used_the_cpu() {
        assert!(caudal_tasks::resident_bytes() > 100_000);
        let until = Instant::now() + Duration::from_millis(30);
        while Instant::now() < until {}
        assert!(cpu_time() >= Duration::from_millis(10));
        let State { resident, threads, open_files, max_files, started, .. } = State::now();
        assert!(resident > Some(100_000) && threads >= Some(1) && open_files > Some(2) && max_files >= open_files);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(started.unwrap().abs_diff(now) < 3600, "{started:?}");
    }
}
