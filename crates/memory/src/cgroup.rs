//! Control groups, version 1 and 2: how near this process is to being killed.
//!
//! The kernel kills in whichever group of the path upward reaches its limit, whoever in it took the memory: so all of
//! them are read, and the one nearest to its limit counts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::reading::{Group, Use};

/// Where the groups of this process are told.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// `/proc/self/cgroup`: read anew each time, for a service manager may move the process.
    own: PathBuf,
    mount: Option<Mount>,
    controller: &'static str,
}

#[derive(Debug)]
struct Mount {
    version: Version,
    /// Where the hierarchy is mounted.
    at: PathBuf,
    /// Which of its groups is mounted there: not the topmost within most containers.
    shows: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroups {
    /// The hierarchy below `root` that accounts for what `controller` of version 1 is about: `memory` or `cpu`.
    pub(crate) fn find(root: &Path, controller: &'static str) -> Self {
        let text = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
        let mounts: Vec<Mount> = text.lines().filter_map(|line| mount(line, root, controller)).collect();
        // Where both are mounted, version 1 accounts for it if it is there at all.
        let mount = mounts.into_iter().min_by_key(|mount| mount.version == Version::Two);
        Self { own: root.join("proc/self/cgroup"), mount, controller }
    }

    /// The group that is nearest to its limit, of those that have one. A limit that is no less than `machine` is none.
    pub(crate) fn tightest(&self, machine: Option<u64>) -> Option<Group> {
        let (mount, inside) = self.place()?;
        let groups = inside.ancestors().filter_map(|path| {
            let usage = usage(&mount.at.join(path), mount.version, machine.unwrap_or(u64::MAX))?;
            Some(Group { path: Path::new("/").join(path).display().to_string(), usage })
        });
        groups.max_by(|a, b| a.usage.percent().total_cmp(&b.usage.percent()))
    }

    /// Where the hierarchy is mounted, and the path of this process's group in it.
    fn place(&self) -> Option<(&Mount, PathBuf)> {
        let mount = self.mount.as_ref()?;
        let own = self.path(mount.version)?;
        let own = Path::new(&own);
        // What lies above the mounted group cannot be seen from here.
        let inside = own.strip_prefix(&mount.shows).or_else(|_| own.strip_prefix("/")).unwrap_or(Path::new(""));
        Some((mount, inside.to_owned()))
    }

    /// A file of this process's own group.
    pub(crate) fn file(&self, name: &str) -> Option<String> {
        let (mount, inside) = self.place()?;
        fs::read_to_string(mount.at.join(inside).join(name)).ok()
    }

    /// The path of this process's group: `4:memory:/a/b` in version 1, `0::/a/b` in version 2.
    fn path(&self, version: Version) -> Option<String> {
        let text = fs::read_to_string(&self.own).ok()?;
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            let ours = match version {
                Version::One => controllers.split(',').any(|controller| controller == self.controller),
                Version::Two => controllers.is_empty(),
            };
            ours.then(|| path.to_owned())
        })
    }
}

/// A line of mountinfo: `35 31 0:32 /shown /mounted/at rw - cgroup cgroup rw,memory`.
fn mount(line: &str, root: &Path, controller: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let version = match (kind.next()?, kind.nth(1).unwrap_or_default()) {
        ("cgroup2", _) => Version::Two,
        ("cgroup", options) if options.split(',').any(|option| option == controller) => Version::One,
        _ => return None,
    };
    let mut place = place.split(' ').skip(3);
    let (shows, at) = (place.next()?.to_owned(), place.next()?);
    Some(Mount { version, at: root.join(at.trim_start_matches('/')), shows })
}

/// What the group in `folder` uses of its limit, if it has one that is less than `machine`.
fn usage(folder: &Path, version: Version, machine: u64) -> Option<Use> {
    let text = |file: &str| fs::read_to_string(folder.join(file)).ok();
    // "max" is no number, and no limit.
    let number = |file: &str| text(file)?.trim().parse::<u64>().ok();
    let limit = match version {
        Version::One => number("memory.limit_in_bytes"),
        // Above `high` nobody is killed, but all are held back until hardly anything moves.
        Version::Two => number("memory.max").into_iter().chain(number("memory.high")).min(),
    };
    // Before anything else is read: statistics take the kernel longer than all the rest.
    let limit = limit.filter(|limit| *limit < machine)?;
    let used = number(match version {
        Version::One => "memory.usage_in_bytes",
        Version::Two => "memory.current",
    })?;
    let reclaimable = reclaimable(&text("memory.stat").unwrap_or_default(), version);
    Some(Use { used: used.saturating_sub(reclaimable), limit })
}

/// Bytes of a group that the kernel takes back before it kills: pages of files that nobody has mapped. Those that are
/// mapped and in use (programs, libraries, weights) could be taken back too, but only to be read again at once.
fn reclaimable(stat: &str, version: Version) -> u64 {
    let of = |key: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    // In version 1 the plain names leave out the groups below.
    let [inactive, active, mapped] = match version {
        Version::One => ["total_inactive_file", "total_active_file", "total_mapped_file"],
        Version::Two => ["inactive_file", "active_file", "file_mapped"],
    }
    .map(of);
    inactive + active.saturating_sub(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sources;

    const MIB: u64 = 1 << 20;

    /// A machine made of files.
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

        fn two(&self, path: &str, current: u64, max: &str, stat: &str) -> &Self {
            let folder = format!("sys/fs/cgroup{path}");
            self.file(&format!("{folder}/memory.current"), &format!("{current}\n"))
                .file(&format!("{folder}/memory.max"), &format!("{max}\n"))
                .file(&format!("{folder}/memory.stat"), stat)
        }

        fn one(&self, path: &str, usage: u64, limit: u64, stat: &str) -> &Self {
            let folder = format!("sys/fs/cgroup/memory{path}");
            self.file(&format!("{folder}/memory.usage_in_bytes"), &format!("{usage}\n"))
                .file(&format!("{folder}/memory.limit_in_bytes"), &format!("{limit}\n"))
                .file(&format!("{folder}/memory.stat"), stat)
        }

        fn check(&self, expected: Option<(&str, u64, u64)>) {
            let found = Sources::below(self.0.path()).read().cgroup;
            let found = found.as_ref().map(|group| (&group.path[..], group.usage.used, group.usage.limit));
            assert_eq!(found, expected);
        }
    }

    const TWO: &str = "28 1 0:25 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const ONE: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const UNLIMITED: u64 = 9_223_372_036_854_771_712;

    #[test]
    fn the_machine_and_the_process_are_read() {
        let machine = Machine::new("", "");
        let reading = Sources::below(machine.0.path()).read();
        assert_eq!(reading.system, Some(Use { used: 2 << 30, limit: 8 << 30 }));
        assert_eq!((reading.process, reading.cgroup), (MIB, None));
    }

    #[test]
    fn version_two_without_what_the_kernel_would_take_back() {
        let stat = format!(
            "anon 1\nfile 2\nfile_mapped {}\ninactive_file {}\nactive_file {}\n",
            10 * MIB,
            100 * MIB,
            30 * MIB
        );
        let machine = Machine::new(TWO, "0::/system.slice/caudal.service\n");
        machine.two("/system.slice/caudal.service", 400 * MIB, &(512 * MIB).to_string(), &stat);
        machine.two("/system.slice", 500 * MIB, "max", "");
        machine.check(Some(("/system.slice/caudal.service", 280 * MIB, 512 * MIB)));
    }

    #[test]
    fn of_nested_groups_the_one_nearest_to_its_limit_counts() {
        let machine = Machine::new(TWO, "0::/a/b/c\n");
        machine.two("/a/b/c", 100 * MIB, &(200 * MIB).to_string(), "");
        machine.two("/a/b", 100 * MIB, "max", "");
        machine.two("/a", 900 * MIB, &(1000 * MIB).to_string(), "");
        machine.check(Some(("/a", 900 * MIB, 1000 * MIB)));
        machine.two("/a", 300 * MIB, &(1000 * MIB).to_string(), "");
        machine.check(Some(("/a/b/c", 100 * MIB, 200 * MIB)));
        machine.file("sys/fs/cgroup/a/b/memory.high", &(104 * MIB).to_string());
        machine.check(Some(("/a/b", 100 * MIB, 104 * MIB)));
    }

    #[test]
    fn no_limit_is_none_and_neither_is_one_larger_than_the_machine() {
        let machine = Machine::new(TWO, "0::/a\n");
        machine.two("/a", MIB, "max", "").check(None);
        machine.two("/a", MIB, &(9u64 << 30).to_string(), "").check(None);
        let machine = Machine::new(ONE, "4:memory:/a\n0::/\n");
        machine.one("/a", MIB, UNLIMITED, "").one("", MIB, UNLIMITED, "").check(None);
    }

    #[test]
    fn version_one_counts_the_groups_below() {
        let machine = Machine::new(ONE, "9:name=systemd:/\n4:cpu,memory:/pod/box\n0::/\n");
        let stat =
            |inactive: u64| format!("inactive_file 7\ntotal_inactive_file {inactive}\ntotal_active_file {}\n", 5 * MIB);
        machine.one("/pod/box", 90 * MIB, 100 * MIB, &stat(20 * MIB));
        machine.one("/pod", 120 * MIB, 400 * MIB, &stat(0));
        machine.one("", 900 * MIB, UNLIMITED, "");
        machine.check(Some(("/pod/box", 65 * MIB, 100 * MIB)));
    }

    #[test]
    fn within_a_container_the_mounted_group_is_the_topmost() {
        // Docker without a namespace of groups: the path is the host's, the mount shows the container's own.
        let shown = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let machine = Machine::new(shown, "4:memory:/docker/abc/inner\n");
        machine.one("", 80 * MIB, 100 * MIB, "").one("/inner", MIB, 90 * MIB, "");
        machine.check(Some(("/", 80 * MIB, 100 * MIB)));
        // With one: the path is the namespace's.
        let machine = Machine::new(TWO, "0::/\n");
        machine.two("", 80 * MIB, &(100 * MIB).to_string(), "").check(Some(("/", 80 * MIB, 100 * MIB)));
    }
}
