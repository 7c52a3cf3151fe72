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

use super::{error::ArchiveError, hdf5, names};

/// Strings that are read at once.
const ROWS: u64 = 256;
/// The group in which consultations stand.
const CONSULTATIONS: &str = "consultations";

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
    /// An event, as it stands in the file.
    Event(String),
    /// Something that is not carried over.
    Skipped(String),
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
        ArchiveError::Damaged { what, .. } => (Why::Damaged, what.clone()),
        ArchiveError::Hdf5 { words, .. } => (Why::Other, words.clone()),
        other => (Why::Other, other.to_string()),
    };
    Said::Failed { why, words }
}

enum Stopped {
    Output(io::Error),
    File(ArchiveError),
}

type Tell<'a> = &'a mut dyn FnMut(&Said) -> io::Result<()>;

fn read(file: &Path, tell: Tell<'_>) -> Result<(), Stopped> {
    let wrong = |error| Stopped::File(ArchiveError::hdf5(file)(error));
    let hdf5 = hdf5::File::open(file).map_err(wrong)?;
    let root = hdf5.root().map_err(wrong)?;
    for name in root.names().map_err(wrong)? {
        if name != CONSULTATIONS {
            tell(&Said::Skipped(name)).map_err(Stopped::Output)?;
        }
    }
    if !root.has(CONSULTATIONS).map_err(wrong)? {
        return Err(wrong(hdf5::Failed(format!("it has no group {CONSULTATIONS}"))));
    }
    let (group, mut events) = (root.group(CONSULTATIONS).map_err(wrong)?, 0);
    for name in group.names().map_err(wrong)? {
        let consultation = group.group(&name).map_err(wrong)?;
        // Names of ours are escaped; those of others stay as they are.
        let known = names::unescape(&name).unwrap_or_else(|| name.clone());
        tell(&Said::Consultation(known)).map_err(Stopped::Output)?;
        for part in consultation.names().map_err(wrong)? {
            if part != "events" {
                tell(&Said::Skipped(format!("{CONSULTATIONS}/{name}/{part}"))).map_err(Stopped::Output)?;
                continue;
            }
            let set = consultation.dataset("events").map_err(wrong)?;
            let length = set.length().map_err(wrong)?;
            for start in (0..length).step_by(ROWS as usize) {
                for text in set.strings(start, ROWS.min(length - start) as usize).map_err(wrong)? {
                    let text = String::from_utf8(text);
                    let text = text.map_err(|_| wrong(hdf5::Failed(format!("an event of {name} is not UTF-8"))))?;
                    tell(&Said::Event(text)).map_err(Stopped::Output)?;
                }
            }
            events += length;
        }
    }
    tell(&Said::Done(events)).map_err(Stopped::Output)
}
