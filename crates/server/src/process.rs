//! What the kernel says about this process.

use std::{
    collections::VecDeque,
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
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

/// How often the CPU time is read, and how many of the last readings are kept: figures are of five seconds.
pub(crate) const TICK: Duration = Duration::from_secs(1);
const KEPT: usize = 5;

/// How busy this process was during the last seconds: the same figure for all readers, however often they read.
#[derive(Debug)]
pub(crate) struct CpuMeter {
    readings: Mutex<VecDeque<Reading>>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    cpu: Duration,
}

impl Reading {
    fn now() -> Self {
        Self { at: Instant::now(), cpu: cpu_time() }
    }
}

impl CpuMeter {
    pub(crate) fn start() -> Self {
        Self { readings: Mutex::new(VecDeque::from([Reading::now()])) }
    }

    fn readings(&self) -> MutexGuard<'_, VecDeque<Reading>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called once in a [`TICK`]: readers do not move the window.
    pub(crate) fn tick(&self) {
        self.add(Reading::now());
    }

    fn add(&self, reading: Reading) {
        let mut readings = self.readings();
        if readings.len() == KEPT {
            readings.pop_front();
        }
        readings.push_back(reading);
    }

    /// CPU time per time during the last five seconds, or since the start if that was later; 100 is one core.
    pub(crate) fn percent(&self) -> f64 {
        self.percent_at(Reading::now())
    }

    fn percent_at(&self, now: Reading) -> f64 {
        let Some(first) = self.readings().front().copied() else { return 0.0 };
        let passed = now.at.saturating_duration_since(first.at).as_secs_f64();
        // Ticks of the kernel's clock are too coarse to say more of a shorter time.
        if passed < 0.1 {
            return 0.0;
        }
        now.cpu.saturating_sub(first.cpu).as_secs_f64() / passed * 100.0
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

    #[test]
    fn cpu_percent_is_of_the_last_seconds_however_often_it_is_read() {
        let start = Instant::now();
        let at = |seconds: u64, cpu_ms: u64| Reading {
            at: start + Duration::from_secs(seconds),
            cpu: Duration::from_millis(cpu_ms),
        };
        let meter = CpuMeter { readings: Mutex::new(VecDeque::from([at(0, 0)])) };
        assert_eq!(meter.percent_at(at(0, 0)), 0.0, "nothing is known yet");
        // A minute at rest, which nobody looked at; then five seconds at 65 %.
        (1..=60).for_each(|second| meter.add(at(second, 0)));
        (1..=5).for_each(|second| meter.add(at(60 + second, second * 650)));
        let first = meter.percent_at(at(66, 6 * 650));
        assert_eq!((first, meter.percent_at(at(66, 6 * 650))), (65.0, 65.0), "a reader does not disturb the next");
        assert_eq!(meter.readings().len(), KEPT);
    }
}
