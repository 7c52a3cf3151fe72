//! Control groups, version 1 and 2: usage and limits of this process's groups.
//!
//! The kernel kills processes in any group on the path whose limit is reached, whichever of them took the memory. So
//! all of them are read, and the one nearest to its limit counts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::reading::{CgroupUsage, MemoryUsage};

/// The control groups of this process.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// `/proc/self/cgroup`, read each time, because a service manager may move the process.
    own: PathBuf,
    mount: Option<Mount>,
    controller: &'static str,
}

#[derive(Debug)]
struct Mount {
    version: Version,
    /// Mount point of the hierarchy.
    at: PathBuf,
    /// The group that is mounted there; inside most containers it is not the root group.
    mounted_group: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Cgroups {
    /// Finds the hierarchy below `root` with the version 1 `controller` `memory` or `cpu`, or version 2.
    pub(crate) fn discover(root: &Path, controller: &'static str) -> Self {
        let text = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
        let mounts: Vec<Mount> = text.lines().filter_map(|line| parse_mount(line, root, controller)).collect();
        // If both are mounted, version 1 has the controller if it is listed there.
        let mount = mounts.into_iter().min_by_key(|mount| mount.version == Version::V2);
        Self { own: root.join("proc/self/cgroup"), mount, controller }
    }

    /// The group nearest to its limit, of those with a limit below `machine`.
    pub(crate) fn tightest_group(&self, machine: Option<u64>) -> Option<CgroupUsage> {
        let (mount, inside) = self.own_group()?;
        let groups = inside.ancestors().filter_map(|path| {
            let usage = group_usage(&mount.at.join(path), mount.version, machine.unwrap_or(u64::MAX))?;
            Some(CgroupUsage { path: Path::new("/").join(path).display().to_string(), usage })
        });
        groups.max_by(|a, b| a.usage.percent().total_cmp(&b.usage.percent()))
    }

    /// The mount of the hierarchy, and the path of this process's group in it.
    fn own_group(&self) -> Option<(&Mount, PathBuf)> {
        let mount = self.mount.as_ref()?;
        let own = self.own_path(mount.version)?;
        let own = Path::new(&own);
        // Groups above the mounted one are not visible.
        let inside = own.strip_prefix(&mount.mounted_group).or_else(|_| own.strip_prefix("/")).unwrap_or(Path::new(""));
        Some((mount, inside.to_owned()))
    }

    /// Reads a file of this process's own group.
    pub(crate) fn read_file(&self, name: &str) -> Option<String> {
        let (mount, inside) = self.own_group()?;
        fs::read_to_string(mount.at.join(inside).join(name)).ok()
    }

    /// Path of this process's group: `4:memory:/a/b` in version 1, `0::/a/b` in version 2.
    fn own_path(&self, version: Version) -> Option<String> {
        let text = fs::read_to_string(&self.own).ok()?;
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let is_own = match version {
                Version::V1 => controllers.split(',').any(|controller| controller == self.controller),
                Version::V2 => controllers.is_empty(),
            };
            is_own.then(|| path.to_owned())
        })
    }
}

/// Parses a line of mountinfo: `35 31 0:32 /mounted/group /mount/point rw - cgroup cgroup rw,memory`.
fn parse_mount(line: &str, root: &Path, controller: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let version = match (kind.next()?, kind.nth(1).unwrap_or_default()) {
        ("cgroup2", _) => Version::V2,
        ("cgroup", options) if options.split(',').any(|option| option == controller) => Version::V1,
        _ => return None,
    };
    let mut place = place.split(' ').skip(3);
    let (mounted_group, at) = (place.next()?.to_owned(), place.next()?);
    Some(Mount { version, at: root.join(at.trim_start_matches('/')), mounted_group })
}

/// Usage and limit of the group in `folder`, if its limit is below `machine`.
fn group_usage(folder: &Path, version: Version, machine: u64) -> Option<MemoryUsage> {
    let text = |file: &str| fs::read_to_string(folder.join(file)).ok();
    // "max" is not a number, and means no limit.
    let number = |file: &str| text(file)?.trim().parse::<u64>().ok();
    let limit = match version {
        Version::V1 => number("memory.limit_in_bytes"),
        // Above `memory.high` processes are not killed, but throttled so much that they hardly run.
        Version::V2 => number("memory.max").into_iter().chain(number("memory.high")).min(),
    };
    // First the limit, because reading the statistics takes the kernel longer than everything else.
    let limit = limit.filter(|limit| *limit < machine)?;
    let used = number(match version {
        Version::V1 => "memory.usage_in_bytes",
        Version::V2 => "memory.current",
    })?;
    let reclaimable = reclaimable_bytes(&text("memory.stat").unwrap_or_default(), version);
    Some(MemoryUsage { used: used.saturating_sub(reclaimable), limit })
}

/// Bytes that the kernel reclaims before it kills: unmapped pages of files. Mapped pages in use (programs, libraries,
/// weights) could be reclaimed as well, but would be read again immediately.
fn reclaimable_bytes(stat: &str, version: Version) -> u64 {
    let of = |key: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    // In version 1 the plain names exclude child groups.
    let [inactive, active, mapped] = match version {
        Version::V1 => ["total_inactive_file", "total_active_file", "total_mapped_file"],
        Version::V2 => ["inactive_file", "active_file", "file_mapped"],
    }
    .map(of);
    inactive + active.saturating_sub(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sources;

    const MIB: u64 = 1 << 20;

    /// A machine whose files are in a temporary directory.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(mountinfo: &str, own: &str) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            machine
                .file("proc/self/mountinfo", mountinfo)
                .file("proc/self/cgroup", own)
                .file("proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 6291456 kB\n")
                .file("proc/self/status", "Name:\tcaudal\nVmRSS:\t    1024 kB\n");
            machine
        }

        fn file(&self, name: &str, text: &str) -> &Self {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        fn add_v2(&self, path: &str, current: u64, max: &str, stat: &str) -> &Self {
            let folder = format!("sys/fs/cgroup{path}");
            self.file(&format!("{folder}/memory.current"), &format!("{current}\n"))
                .file(&format!("{folder}/memory.max"), &format!("{max}\n"))
                .file(&format!("{folder}/memory.stat"), stat)
        }

        fn add_v1(&self, path: &str, usage: u64, limit: u64, stat: &str) -> &Self {
            let folder = format!("sys/fs/cgroup/memory{path}");
            self.file(&format!("{folder}/memory.usage_in_bytes"), &format!("{usage}\n"))
                .file(&format!("{folder}/memory.limit_in_bytes"), &format!("{limit}\n"))
                .file(&format!("{folder}/memory.stat"), stat)
        }

        fn check(&self, expected: Option<(&str, u64, u64)>) {
            let found = Sources::with_root(self.0.path()).take_reading().cgroup;
            let found = found.as_ref().map(|group| (&group.path[..], group.usage.used, group.usage.limit));
            assert_eq!(found, expected);
        }
    }

    const MOUNTINFO_V2: &str = "28 1 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const MOUNTINFO_V1: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const UNLIMITED: u64 = 9_223_372_036_854_771_712;

    #[test]
    fn reading_has_machine_and_process_memory() {
        let machine = Machine::new("", "");
        let reading = Sources::with_root(machine.0.path()).take_reading();
        assert_eq!(reading.system, Some(MemoryUsage { used: 2 << 30, limit: 8 << 30 }));
        assert_eq!((reading.process, reading.cgroup), (MIB, None));
    }

    #[test]
    fn v2_usage_excludes_reclaimable_memory() {
        let stat = format!(
            "anon 1\nfile 2\nfile_mapped {}\ninactive_file {}\nactive_file {}\n",
            10 * MIB,
            100 * MIB,
            30 * MIB
        );
        let machine = Machine::new(MOUNTINFO_V2, "0::/system.slice/caudal.service\n");
        machine.add_v2("/system.slice/caudal.service", 400 * MIB, &(512 * MIB).to_string(), &stat);
        machine.add_v2("/system.slice", 500 * MIB, "max", "");
        machine.check(Some(("/system.slice/caudal.service", 280 * MIB, 512 * MIB)));
    }

    #[test]
    fn nested_groups_report_the_one_nearest_to_its_limit() {
        let machine = Machine::new(MOUNTINFO_V2, "0::/a/b/c\n");
        machine.add_v2("/a/b/c", 100 * MIB, &(200 * MIB).to_string(), "");
        machine.add_v2("/a/b", 100 * MIB, "max", "");
        machine.add_v2("/a", 900 * MIB, &(1000 * MIB).to_string(), "");
        machine.check(Some(("/a", 900 * MIB, 1000 * MIB)));
        machine.add_v2("/a", 300 * MIB, &(1000 * MIB).to_string(), "");
        machine.check(Some(("/a/b/c", 100 * MIB, 200 * MIB)));
        machine.file("sys/fs/cgroup/a/b/memory.high", &(104 * MIB).to_string());
        machine.check(Some(("/a/b", 100 * MIB, 104 * MIB)));
    }

    #[test]
    fn missing_and_too_large_limits_are_ignored() {
        let machine = Machine::new(MOUNTINFO_V2, "0::/a\n");
        machine.add_v2("/a", MIB, "max", "").check(None);
        machine.add_v2("/a", MIB, &(9u64 << 30).to_string(), "").check(None);
        let machine = Machine::new(MOUNTINFO_V1, "4:memory:/a\n0::/\n");
        machine.add_v1("/a", MIB, UNLIMITED, "").add_v1("", MIB, UNLIMITED, "").check(None);
    }

    #[test]
    fn v1_usage_includes_child_groups() {
        let machine = Machine::new(MOUNTINFO_V1, "9:name=systemd:/\n4:cpu,memory:/pod/box\n0::/\n");
        let stat =
            |inactive: u64| format!("inactive_file 7\ntotal_inactive_file {inactive}\ntotal_active_file {}\n", 5 * MIB);
        machine.add_v1("/pod/box", 90 * MIB, 100 * MIB, &stat(20 * MIB));
        machine.add_v1("/pod", 120 * MIB, 400 * MIB, &stat(0));
        machine.add_v1("", 900 * MIB, UNLIMITED, "");
        machine.check(Some(("/pod/box", 65 * MIB, 100 * MIB)));
    }

    #[test]
    fn mounted_group_is_the_root_inside_a_container() {
        // Docker without a cgroup namespace: the path is the host's, the mount is of the container's own group.
        let shown = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let machine = Machine::new(shown, "4:memory:/docker/abc/inner\n");
        machine.add_v1("", 80 * MIB, 100 * MIB, "").add_v1("/inner", MIB, 90 * MIB, "");
        machine.check(Some(("/", 80 * MIB, 100 * MIB)));
        // With one: the path is relative to the namespace.
        let machine = Machine::new(MOUNTINFO_V2, "0::/\n");
        machine.add_v2("", 80 * MIB, &(100 * MIB).to_string(), "").check(Some(("/", 80 * MIB, 100 * MIB)));
    }
}
