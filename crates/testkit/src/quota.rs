//! A control group with a CPU quota.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// A group of processes with a quota; gone when dropped.
#[derive(Debug)]
pub struct Quota(PathBuf);

impl Quota {
    /// Microseconds in which the quota may be used up.
    pub const PERIOD_US: u64 = 100_000;

    /// One of `cpus` cores, in cgroup v1 or v2, if this machine lets us.
    pub fn new(cpus: f64) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("caudal-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let make = |parent: &str, file: &str, value: String| {
            let folder = Path::new(parent).join(&name);
            fs::create_dir(&folder).ok()?;
            let made = Self(folder);
            fs::write(made.0.join(file), value).ok()?;
            Some(made)
        };
        let quota = (cpus * Self::PERIOD_US as f64) as u64;
        make("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us", quota.to_string())
            .or_else(|| make("/sys/fs/cgroup", "cpu.max", format!("{quota} {}", Self::PERIOD_US)))
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.0
    }

    /// Puts `process` into it.
    pub fn take(&self, process: u32) {
        fs::write(self.0.join("cgroup.procs"), process.to_string()).unwrap();
    }

    /// Periods so far, those in which the kernel held the group back, and for how many nanoseconds.
    pub fn periods(&self) -> (u64, u64, u64) {
        let stat = fs::read_to_string(self.0.join("cpu.stat")).unwrap();
        let value = |name: &str| {
            let line = stat.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let nanos = value("throttled_time ") + 1000 * value("throttled_usec ");
        (value("nr_periods "), value("nr_throttled "), nanos)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        // The processes in it are gone, or soon.
        let end = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
    }
}
