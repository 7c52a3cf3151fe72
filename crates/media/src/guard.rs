//! What happens between the start of our child and the start of ffmpeg in it.
//!
//! What must be said in the child before ffmpeg runs (die with your parent, leave no core, see nothing but these files)
//! would take `unsafe` code between fork and exec. So the child is our own program first, which says it of itself and
//! then becomes ffmpeg by `exec`, which keeps all of it.
//!
//! The rules about files and sockets are Landlock's: kept by the kernel, whatever a broken decoder is made to do. A
//! kernel without them (before 5.13; before 6.7 for sockets) runs ffmpeg without, and what holds then is what ffmpeg is
//! told: one reader, one protocol.

use std::{
    ffi::{OsStr, OsString},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
    path_beneath_rules,
};
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};

/// The newest rules we know; older kernels keep those that they know.
const RULES: ABI = ABI::V6;
/// What ffmpeg and its libraries read of the system.
const SYSTEM: [&str; 16] = [
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/opt",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/dev/urandom",
    "/dev/zero",
];
/// What hardware encoders talk to.
const DEVICES: [&str; 3] = ["/dev", "/sys", "/proc"];

/// What a child may see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Files and folders that it reads.
    pub(crate) reads: Vec<PathBuf>,
    /// Folders that it writes in.
    pub(crate) writes: Vec<PathBuf>,
    /// Whether it talks to the machine's devices.
    pub(crate) devices: bool,
}

/// The words that make a guard run `program` with `access`, to be followed by the program's own.
pub(crate) fn words(access: &Reach, program: &Path) -> Vec<OsString> {
    let mut words = vec!["--parent".into(), std::process::id().to_string().into()];
    let mut name = |flag: &str, paths: &[PathBuf]| {
        for path in paths {
            words.extend([flag.into(), path.clone().into_os_string()]);
        }
    };
    name("--read", &access.reads);
    name("--write", &access.writes);
    if access.devices {
        words.push("--devices".into());
    }
    words.extend(["--".into(), program.into()]);
    words
}

/// Does what `words` say and becomes the program that they name. Comes back only if that cannot be, with the reason.
pub fn guard(words: &[OsString]) -> String {
    let Some((parent, access, program, arguments)) = parse(words) else {
        return "this is for Caudal's own use".to_owned();
    };
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return format!("ffmpeg could not be tied to its parent: {error}");
    }
    // A parent that was gone before that was said will send no signal.
    if getppid().map(Pid::as_raw_nonzero).map(|pid| pid.get().to_string()) != Some(parent) {
        return "the parent has gone".to_owned();
    }
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    if let Err(error) = restrict(&access, &program) {
        return format!("ffmpeg could not be kept from other files: {error}");
    }
    let error = Command::new(&program).args(arguments).exec();
    format!("{} cannot be run: {error}", program.display())
}

fn parse(words: &[OsString]) -> Option<(String, Reach, PathBuf, &[OsString])> {
    let (mut parent, mut access, mut rest) = (None, Reach::default(), words);
    loop {
        let (flag, after) = rest.split_first()?;
        rest = after;
        if flag == "--" {
            let (program, arguments) = rest.split_first()?;
            return Some((parent?, access, program.into(), arguments));
        }
        if flag == "--devices" {
            access.devices = true;
            continue;
        }
        let (value, after) = rest.split_first()?;
        rest = after;
        match flag.to_str()? {
            "--parent" => parent = value.to_str().map(str::to_owned),
            "--read" => access.reads.push(value.into()),
            "--write" => access.writes.push(value.into()),
            _ => return None,
        }
    }
}

/// Whether this kernel keeps rules about files at all. Asked on a thread of its own, which is all that they bind.
pub fn kernel_guards() -> bool {
    let asked = std::thread::spawn(|| restrict(&Reach::default(), Path::new("/")));
    asked.join().is_ok_and(|status| status.is_ok_and(|status| status != RulesetStatus::NotEnforced))
}

fn restrict(access: &Reach, program: &Path) -> Result<RulesetStatus, RulesetError> {
    let system = SYSTEM.iter().map(OsStr::new).chain([program.as_os_str()]);
    let reads = system.chain(access.reads.iter().map(|path| path.as_os_str()));
    let devices = if access.devices { &DEVICES[..] } else { &["/dev/null"][..] };
    let writes = access.writes.iter().map(|path| path.as_os_str()).chain(devices.iter().map(OsStr::new));
    let restricted = Ruleset::default()
        .handle_access(AccessFs::from_all(RULES))?
        .handle_access(AccessNet::from_all(RULES))?
        .scope(Scope::from_all(RULES))?
        .create()?
        .add_rules(path_beneath_rules(reads, AccessFs::from_read(RULES)))?
        .add_rules(path_beneath_rules(writes, AccessFs::from_all(RULES)))?
        .restrict_self()?;
    Ok(restricted.ruleset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_were_said() {
        let access = Reach { reads: vec!["/a b".into(), "--".into()], writes: vec!["/out".into()], devices: true };
        let mut said = words(&access, Path::new("/usr/bin/ffmpeg"));
        said.extend(["-i".into(), "--read".into()]);
        let (parent, heard, program, arguments) = parse(&said).unwrap();
        assert_eq!((parent, heard), (std::process::id().to_string(), access));
        assert_eq!((program, arguments), ("/usr/bin/ffmpeg".into(), &["-i".into(), "--read".into()][..]));
    }

    #[test]
    fn half_a_command_runs_nothing() {
        assert!(guard(&[]).contains("own use"));
        assert!(guard(&["--parent".into(), "1".into(), "--".into()]).contains("own use"));
        assert!(guard(&["--shell".into(), "sh".into(), "--".into(), "sh".into()]).contains("own use"));
    }
}
