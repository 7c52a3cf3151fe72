//! What the kernel says of memory: the machine's, this process's, its control groups'; and the driver of the GPUs'.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{cgroup::Cgroups, gpu::Gpus};

/// Bytes that are used of those there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Use {
    /// Bytes that could not be had without taking them from somebody.
    pub used: u64,
    /// Bytes that there are.
    pub limit: u64,
}

impl Use {
    /// How much of it is used, 0 to 100 and rarely a little more.
    pub fn percent(self) -> f64 {
        self.used as f64 / self.limit.max(1) as f64 * 100.0
    }

    /// Bytes that are left.
    pub fn free(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// A control group with a limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// Its path in the hierarchy, as far as this process can see it.
    pub path: String,
    /// Without what the kernel would take back before it kills.
    #[serde(flatten)]
    pub usage: Use,
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Its memory, whoever uses it.
    #[serde(flatten)]
    pub usage: Use,
}

/// Whose memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The machine's.
    System,
    /// This process's.
    Process,
    /// The control group's that is nearest to its limit.
    Cgroup,
    /// The GPU's that is fullest.
    Gpu,
}

impl Scope {
    /// Its name, as it stands in labels and words.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Gpu => "gpu",
        }
    }
}

/// One look at all memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Reading {
    /// The machine; none where the kernel does not say.
    pub system: Option<Use>,
    /// Resident bytes of this process.
    pub process: u64,
    /// Of the control groups that this process is in and that have a limit: the one nearest to it.
    pub cgroup: Option<Group>,
    /// The GPUs whose driver is there.
    pub gpus: Vec<Gpu>,
}

impl Reading {
    /// Where the kernel would run out first.
    pub fn tightest(&self) -> Option<(Scope, Use)> {
        let system = self.system.map(|usage| (Scope::System, usage));
        let cgroup = self.cgroup.as_ref().map(|group| (Scope::Cgroup, group.usage));
        system.into_iter().chain(cgroup).max_by(|(_, a), (_, b)| a.percent().total_cmp(&b.percent()))
    }

    /// Bytes that may still be taken before `percent` of the machine's memory, or of the control group's, are in use.
    pub fn room(&self, percent: f64) -> Option<u64> {
        let left = |usage: Use| ((usage.limit as f64 * percent / 100.0) as u64).saturating_sub(usage.used);
        self.system.into_iter().chain(self.cgroup.as_ref().map(|group| group.usage)).map(left).min()
    }

    /// The fullest GPU.
    pub fn fullest_gpu(&self) -> Option<&Gpu> {
        self.gpus.iter().max_by(|a, b| a.usage.percent().total_cmp(&b.usage.percent()))
    }
}

/// Where readings come from.
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
    /// This machine. The driver of its GPUs is asked for once, here: without one there are none.
    pub fn here() -> Self {
        Self { gpus: Gpus::find(), ..Self::below(Path::new("/")) }
    }

    /// A machine whose `/proc` and `/sys` lie below `root`, without GPUs.
    pub fn below(root: &Path) -> Self {
        Self { proc: root.join("proc"), cgroups: Cgroups::find(root, "memory"), gpus: Gpus::none() }
    }

    /// Looks.
    pub fn read(&self) -> Reading {
        let system = self.system();
        Reading {
            process: self.process(),
            cgroup: self.cgroups.tightest(system.map(|system| system.limit)),
            gpus: self.gpus.read(),
            system,
        }
    }

    /// Resident bytes of this process.
    pub fn process(&self) -> u64 {
        kib(&self.proc.join("self/status"), ["VmRSS:"]).map_or(0, |[resident]| resident * 1024)
    }

    /// What the kernel thinks could be had without swapping is not used.
    fn system(&self) -> Option<Use> {
        let [total, available] = kib(&self.proc.join("meminfo"), ["MemTotal:", "MemAvailable:"])?;
        Some(Use { used: total.saturating_sub(available) * 1024, limit: total * 1024 })
    }
}

/// The numbers that stand behind `keys` in `file`.
fn kib<const N: usize>(file: &Path, keys: [&str; N]) -> Option<[u64; N]> {
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
    fn this_machine_has_memory_and_this_process_holds_some() {
        let reading = Sources::here().read();
        let system = reading.system.unwrap();
        assert!(system.limit > system.used && system.used > 0);
        assert!(reading.process > 100_000 && reading.process < system.limit);
        assert!(reading.tightest().is_some());
    }

    #[test]
    fn where_the_kernel_would_run_out_first_counts() {
        let group = |used| Some(Group { path: "/a".to_owned(), usage: Use { used, limit: 100 } });
        let system = Some(Use { used: 500, limit: 1000 });
        let of = |cgroup| Reading { system, cgroup, ..Default::default() }.tightest().unwrap().0;
        assert_eq!(of(group(49)), Scope::System);
        assert_eq!(of(group(51)), Scope::Cgroup);
        assert_eq!(of(None), Scope::System);
        assert_eq!(Reading::default().tightest(), None);
        let room = |used| Reading { system, cgroup: group(used), ..Default::default() }.room(90.0);
        assert_eq!((room(60), room(95), Reading::default().room(90.0)), (Some(30), Some(0), None));
    }

    #[test]
    fn a_machine_that_says_nothing_is_no_fault() {
        let nowhere = tempfile::tempdir().unwrap();
        assert_eq!(Sources::below(nowhere.path()).read(), Reading::default());
    }
}
