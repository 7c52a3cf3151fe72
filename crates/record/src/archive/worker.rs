//! The process that reads somebody's HDF5 file, and nothing else.
//!
//! The HDF5 library crashes on files that were made to crash it, and believes what they say about sizes. So it meets them
//! here, with little memory, a little time, and no file that it could write to; what it finds goes to standard output,
//! an object a line.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::{
    process::{Resource, Rlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};

use super::{
    corpus::{Stopped, read},
    error::ArchiveError,
};

/// What the process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLimits {
    /// Bytes of address space.
    pub memory: u64,
    /// Seconds of CPU time.
    pub seconds: u64,
    /// Seconds of CPU time in which it has to find something more.
    pub patience: u64,
}

/// The exit code of a process that found nothing more for too long.
pub(super) const STUCK: i32 = 75;

/// A line of what it says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Said {
    /// A consultation begins; the events that follow are its.
    Consultation(String),
    /// The attributes of the consultation that begins.
    About(serde_json::Map<String, serde_json::Value>),
    /// An event, as it stands in the file.
    Event(String),
    /// Something that is not carried over.
    Skipped(String),
    /// A consultation of an archive of ours that is not what was written, and why.
    Damaged { consultation: String, words: String },
    /// All has been read: so many events.
    Done(u64),
    /// It could not go on.
    Failed { why: Why, words: String },
}

/// Why it could not, where that has a name of its own.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    NotHdf5,
    OpenElsewhere,
    FilterMissing,
    NotEvents,
    Damaged,
    Other,
}

/// Limits this process for good, reads the events of `file`, and writes them to `to`. To be called first thing in a
/// process of its own.
///
/// # Errors
/// Where the limits cannot be set or nobody reads what is written. What is wrong with the file is said in the output.
pub fn import_worker(file: &Path, limits: WorkerLimits, to: impl Write) -> io::Result<()> {
    let found = Arc::new(AtomicU64::new(0));
    watch(limits.patience, Arc::clone(&found))?;
    confine(limits)?;
    let mut to = BufWriter::new(to);
    let mut tell = |said: &Said| {
        found.fetch_add(1, Relaxed);
        say(&mut to, said)
    };
    match read(file, &mut tell) {
        Ok(()) => {}
        Err(Stopped::Output(error)) => return Err(error),
        Err(Stopped::File(error)) => say(&mut to, &failed(&error))?,
    }
    to.flush()
}

/// Ends the process when it works and finds nothing: files can lead the library round in circles. Time is the processor's,
/// so that a reader who is slow does no harm.
fn watch(patience: u64, found: Arc<AtomicU64>) -> io::Result<()> {
    let worked = || clock_gettime(ClockId::ProcessCPUTime).tv_sec.unsigned_abs();
    let watch = move || {
        let (mut last, mut since) = (0, 0);
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let (now, count) = (worked(), found.load(Relaxed));
            if count != last {
                (last, since) = (count, now);
            } else if now - since >= patience {
                std::process::exit(STUCK);
            }
        }
    };
    std::thread::Builder::new().name("patience".to_owned()).spawn(watch).map(drop)
}

fn confine(limits: WorkerLimits) -> io::Result<()> {
    let most = |most| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::As, most(limits.memory))?;
    setrlimit(Resource::Cpu, most(limits.seconds))?;
    setrlimit(Resource::Core, most(0))?;
    setrlimit(Resource::Fsize, most(0))?;
    Ok(())
}

fn say(to: &mut impl Write, said: &Said) -> io::Result<()> {
    serde_json::to_writer(&mut *to, said)?;
    to.write_all(b"\n")
}

fn failed(error: &ArchiveError) -> Said {
    let (why, words) = match error {
        ArchiveError::NotHdf5 { .. } => (Why::NotHdf5, String::new()),
        ArchiveError::OpenElsewhere { words, .. } => (Why::OpenElsewhere, words.clone()),
        ArchiveError::FilterMissing { words, .. } => (Why::FilterMissing, words.clone()),
        ArchiveError::NotEvents { words, .. } => (Why::NotEvents, words.clone()),
        ArchiveError::Damaged { what, .. } => (Why::Damaged, what.clone()),
        ArchiveError::Hdf5 { words, .. } => (Why::Other, words.clone()),
        other => (Why::Other, other.to_string()),
    };
    Said::Failed { why, words }
}
