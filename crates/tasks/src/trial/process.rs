//! The process of a trial: started, watched and ended.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};

use super::Bounds;

/// How often the process is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Most bytes that are read of what it says.
const MOST_SAID: u64 = 32 << 10;

/// How the process ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself, with what it said.
    Exited(ExitStatus, String),
    /// It held too much memory.
    Memory,
    /// It took too long.
    Time,
}

/// A process that ends with this.
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `command` with further `words` within `bounds`: how it ended, and the most memory that it was seen to hold.
pub(super) fn run(command: &[OsString], words: &[OsString], bounds: Bounds) -> io::Result<(Ended, u64)> {
    let (program, first) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    // A group of its own: Ctrl-C is for the server.
    command.args(first).args(words).process_group(0);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let (mut own, began, mut peak) = (Own(child), Instant::now(), 0);
    let status = loop {
        if let Some(status) = own.0.try_wait()? {
            break status;
        }
        peak = held(own.0.id()).max(peak);
        if peak > bounds.memory {
            return Ok((Ended::Memory, peak));
        }
        if began.elapsed() > bounds.time {
            return Ok((Ended::Time, peak));
        }
        thread::sleep(LOOK);
    };
    let mut said = Vec::new();
    if let Some(stdout) = own.0.stdout.take() {
        stdout.take(MOST_SAID).read_to_end(&mut said)?;
    }
    Ok((Ended::Exited(status, String::from_utf8_lossy(&said).into_owned()), peak))
}

/// Memory that the process `id` holds and that is not a file's: 0 once it has ended.
fn held(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kib = |line: &str| {
        let own = ["RssAnon:", "RssShmem:", "VmSwap:"].iter().find_map(|key| line.strip_prefix(key))?;
        own.split_whitespace().next()?.parse::<u64>().ok()
    };
    status.lines().filter_map(kib).sum::<u64>() * 1024
}

/// What the process of a trial does first: it ends with `parent`, and where memory runs out the kernel ends it before all
/// others.
pub fn confine(parent: u32) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // A parent that was gone before that was said will send no signal.
    if getppid().map(|id| id.as_raw_nonzero().get().unsigned_abs()) != Some(parent) {
        return Err(io::Error::other("the process that asked for the trial has gone"));
    }
    // Neither is needed, and a container may forbid both.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}
