//! What the kernel says about this process.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Kernel clock ticks a second in `/proc/*/stat`: 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in parentheses, and may hold anything.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS)
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
    }
}
