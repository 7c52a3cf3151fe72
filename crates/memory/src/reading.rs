//! Memory readings: the machine and this process (/proc), control groups, and GPUs.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{cgroup::Cgroups, gpu::Gpus};

/// Used and total bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MemoryUsage {
    /// Bytes that are not available without reclaiming them from other users.
    pub used: u64,
    /// Total bytes.
    pub limit: u64,
}

impl MemoryUsage {
    /// Used share in percent, from 0 to 100 and rarely a little more.
    pub fn percent(self) -> f64 {
        self.used as f64 / self.limit.max(1) as f64 * 100.0
    }

    /// Free bytes.
    pub fn free_bytes(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// A control group with a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupUsage {
    /// Path in the hierarchy, as far as this process sees it.
    pub path: String,
    /// Usage without memory that the kernel would reclaim before it kills.
    #[serde(flatten)]
    pub usage: MemoryUsage,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Name.
    pub name: String,
    /// Memory used by all processes.
    #[serde(flatten)]
    pub usage: MemoryUsage,
}

/// The owner of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The machine.
    System,
    /// This process.
    Process,
    /// The control group nearest to its limit.
    Cgroup,
    /// The fullest GPU.
    Gpu,
}

impl Scope {
    /// Name in labels and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Gpu => "gpu",
        }
    }
}

/// A reading of all memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Reading {
    /// The machine; `None` if the kernel does not report it.
    pub system: Option<MemoryUsage>,
    /// Resident bytes of this process.
    pub process: u64,
    /// The control group nearest to its limit, of this process's groups with a limit.
    pub cgroup: Option<CgroupUsage>,
    /// The GPUs with a driver.
    pub gpus: Vec<Gpu>,
}

impl Reading {
    /// The limit that would be reached first.
    pub fn tightest_limit(&self) -> Option<(Scope, MemoryUsage)> {
        let system = self.system.map(|usage| (Scope::System, usage));
        let cgroup = self.cgroup.as_ref().map(|group| (Scope::Cgroup, group.usage));
        system.into_iter().chain(cgroup).max_by(|(_, a), (_, b)| a.percent().total_cmp(&b.percent()))
    }

    /// Bytes that can be allocated before `percent` of the machine's or the control group's memory is in use.
    pub fn bytes_until(&self, percent: f64) -> Option<u64> {
        let left = |usage: MemoryUsage| ((usage.limit as f64 * percent / 100.0) as u64).saturating_sub(usage.used);
        self.system.into_iter().chain(self.cgroup.as_ref().map(|group| group.usage)).map(left).min()
    }

    /// The fullest GPU.
    pub fn fullest_gpu(&self) -> Option<&Gpu> {
        self.gpus.iter().max_by(|a, b| a.usage.percent().total_cmp(&b.usage.percent()))
    }
}

/// Sources of readings.
pub struct Sources {
    proc: PathBuf,
    cgroups: Cgroups,
    gpus: Gpus,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("proc", &self.proc).field("cgroups", &self.cgroups).finish_non_exhaustive()
    }
}

impl Sources {
    /// This machine. The GPU driver is searched once, here.
    pub fn local_machine() -> Self {
        Self { gpus: Gpus::discover(), ..Self::with_root(Path::new("/")) }
    }

    /// A machine whose `/proc` and `/sys` are below `root`, without GPUs.
    pub fn with_root(root: &Path) -> Self {
        Self { proc: root.join("proc"), cgroups: Cgroups::discover(root, "memory"), gpus: Gpus::disabled() }
    }

    /// Takes a reading.
    pub fn take_reading(&self) -> Reading {
        let system = self.system_usage();
        Reading {
            process: self.process_bytes(),
            cgroup: self.cgroups.tightest_group(system.map(|system| system.limit)),
            gpus: self.gpus.read_all(),
            system,
        }
    }

    /// Resident bytes of this process.
    pub fn process_bytes(&self) -> u64 {
        read_kib(&self.proc.join("self/status"), ["VmRSS:"]).map_or(0, |[resident]| resident * 1024)
    }

    /// Memory that the kernel can provide without swapping counts as free.
    fn system_usage(&self) -> Option<MemoryUsage> {
        let [total, available] = read_kib(&self.proc.join("meminfo"), ["MemTotal:", "MemAvailable:"])?;
        Some(MemoryUsage { used: total.saturating_sub(available) * 1024, limit: total * 1024 })
    }
}

/// The numbers of `keys` in `file`, in KiB.
fn read_kib<const N: usize>(file: &Path, keys: [&str; N]) -> Option<[u64; N]> {
    let text = fs::read_to_string(file).ok()?;
    let mut numbers = [0; N];
    for (number, key) in numbers.iter_mut().zip(keys) {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        *number = line.split_whitespace().next()?.parse().ok()?;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_machine_has_a_reading() {
        let reading = Sources::local_machine().take_reading();
        let system = reading.system.unwrap();
        assert!(system.limit > system.used && system.used > 0);
        assert!(reading.process > 100_000 && reading.process < system.limit);
        assert!(reading.tightest_limit().is_some());
    }

    #[test]
    fn tightest_limit_is_the_one_reached_first() {
        let group = |used| Some(CgroupUsage { path: "/a".to_owned(), usage: MemoryUsage { used, limit: 100 } });
        let system = Some(MemoryUsage { used: 500, limit: 1000 });
        let of = |cgroup| Reading { system, cgroup, ..Default::default() }.tightest_limit().unwrap().0;
        assert_eq!(of(group(49)), Scope::System);
        assert_eq!(of(group(51)), Scope::Cgroup);
        assert_eq!(of(None), Scope::System);
        assert_eq!(Reading::default().tightest_limit(), None);
        let room = |used| Reading { system, cgroup: group(used), ..Default::default() }.bytes_until(90.0);
        assert_eq!((room(60), room(95), Reading::default().bytes_until(90.0)), (Some(30), Some(0), None));
    }

    #[test]
    fn missing_files_give_an_empty_reading() {
        let nowhere = tempfile::tempdir().unwrap();
        assert_eq!(Sources::with_root(nowhere.path()).take_reading(), Reading::default());
    }
}
