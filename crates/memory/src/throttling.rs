//! CPU throttling by the control group's quota, from the same control groups as memory.

use std::{path::Path, time::Duration};

use crate::cgroup::Cgroups;

/// Effects of the CPU quota of this process's control group so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which a thread ran.
    pub periods: u64,
    /// Periods in which the quota was used up.
    pub throttled: u64,
    /// Total time during which threads were throttled.
    pub throttled_time: Duration,
}

impl Throttling {
    /// The current counts; `None` without a control group or its statistics.
    pub fn read_current() -> Option<Self> {
        Self::read_below(Path::new("/"))
    }

    fn read_below(root: &Path) -> Option<Self> {
        let stat = Cgroups::discover(root, "cpu").read_file("cpu.stat")?;
        let number = |key: &str| {
            let line = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            line.and_then(|number| number.trim().parse::<u64>().ok())
        };
        // Version 1 counts nanoseconds, version 2 microseconds.
        let nanos = number("throttled_time").or_else(|| Some(number("throttled_usec")? * 1000))?;
        Some(Self {
            periods: number("nr_periods")?,
            throttled: number("nr_throttled")?,
            throttled_time: Duration::from_nanos(nanos),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn check(mountinfo: &str, own: &str, file: &str, stat: &str, expected: Option<(u64, u64, u64)>) {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in [("proc/self/mountinfo", mountinfo), ("proc/self/cgroup", own), (file, stat)] {
            fs::create_dir_all(root.path().join(name).parent().unwrap()).unwrap();
            fs::write(root.path().join(name), text).unwrap();
        }
        let found = Throttling::read_below(root.path());
        let found = found.map(|found| (found.periods, found.throttled, found.throttled_time.as_micros() as u64));
        assert_eq!(found, expected);
    }

    #[test]
    fn throttling_is_read_from_both_versions() {
        let one = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n";
        let stat = "nr_periods 10\nnr_throttled 3\nthrottled_time 5000\n";
        check(one, "2:cpu,cpuacct:/a\n0::/\n", "sys/fs/cgroup/cpu/a/cpu.stat", stat, Some((10, 3, 5)));
        let two = "28 1 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let stat = "usage_usec 1\nnr_periods 10\nnr_throttled 3\nthrottled_usec 7\n";
        check(two, "0::/a\n", "sys/fs/cgroup/a/cpu.stat", stat, Some((10, 3, 7)));
        check(two, "0::/a\n", "sys/fs/cgroup/a/cpu.stat", "usage_usec 1\n", None);
        check("", "", "nothing", "", None);
    }
}
