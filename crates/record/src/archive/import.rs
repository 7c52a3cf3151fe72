//! Events out of HDF5 files: of archives of ours by their index (`own.rs`), of files of others, and of archives whose index
//! is gone, by a process that may crash (`worker.rs`).

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
};

use super::{
    error::ArchiveError,
    own::Own,
    reader::open_regular,
    worker::{STUCK, Said, Why},
};

/// The hidden command of `caudal` that is that process.
pub const IMPORT_COMMAND: &str = "read-events";

/// What an import may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportLimits {
    /// Bytes of one event.
    pub event: usize,
    /// Bytes of all events.
    pub total: u64,
    /// Seconds of CPU time in which it has to find something more.
    pub patience: u64,
}

impl Default for ImportLimits {
    fn default() -> Self {
        Self { event: 64 << 20, total: 64 << 30, patience: 30 }
    }
}

/// What a file says of a consultation as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Original {
    /// What was said when it was made, where the file is an archive of ours: JSON.
    pub meta: Option<Box<[u8]>>,
    /// Its attributes, such as `created_at`.
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Imported {
    /// A consultation begins; the events that follow are its.
    Consultation {
        /// Its name in the file.
        name: Arc<str>,
        /// What the file says of it.
        original: Original,
    },
    /// An event.
    Event {
        /// The consultation that it stands under.
        consultation: Arc<str>,
        /// Its text as it stands in the file, which may be JSON.
        json: String,
    },
    /// A part of the file that is not carried over: its path within.
    Skipped(String),
    /// A consultation of an archive of ours that is not what was written. None of its events is given out.
    Damaged {
        /// Its name.
        consultation: Arc<str>,
        /// What is wrong with it.
        words: String,
    },
}

/// The contents of a file, as they come.
pub enum Import {
    /// Of an archive of ours.
    Own(Box<Own>),
    /// Of a file of others.
    Foreign(Box<Foreign>),
}

impl Iterator for Import {
    type Item = Result<Imported, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Own(own) => own.next(),
            Self::Foreign(foreign) => foreign.next(),
        }
    }
}

/// The contents of a file of others. Dropped early, it ends the process that reads it.
pub struct Foreign {
    path: PathBuf,
    limits: ImportLimits,
    child: Child,
    from: BufReader<ChildStdout>,
    /// What has been found already and is given out first.
    ahead: VecDeque<Imported>,
    consultation: Arc<str>,
    events: u64,
    bytes: u64,
    over: bool,
}

/// The variable of the environment that tells the HDF5 library whether to lock files.
const LOCKING: &str = "HDF5_USE_FILE_LOCKING";

/// Reads the events of `file` by `program`, which is `caudal`.
///
/// # Errors
/// Where the process cannot be started, or the file is none that events can be read of. What is wrong with it further on comes
/// as the last item.
pub fn import(program: &Path, file: &Path, limits: ImportLimits) -> Result<Import, ArchiveError> {
    // The library's words for it are long.
    open_regular(file)?;
    match Own::open(file) {
        Ok(Some(own)) => Ok(Import::Own(Box::new(own))),
        Ok(None) => foreign(program, file, limits).map(Box::new).map(Import::Foreign),
        // The events may be whole all the same.
        Err(error @ ArchiveError::Damaged { .. }) => {
            foreign(program, file, limits).map(Box::new).map(Import::Foreign).map_err(|_| error)
        }
        Err(error) => Err(error),
    }
}

fn foreign(program: &Path, file: &Path, limits: ImportLimits) -> Result<Foreign, ArchiveError> {
    let mut command = Command::new(program);
    command.arg(IMPORT_COMMAND).arg("--patience").arg(limits.patience.to_string()).arg("--").arg(file).env_clear();
    if let Some(locking) = std::env::var_os(LOCKING) {
        command.env(LOCKING, locking);
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = child.map_err(ArchiveError::io(program, "start it"))?;
    let from = BufReader::new(child.stdout.take().expect("it was piped"));
    let (path, consultation, ahead) = (file.to_owned(), Arc::from(""), VecDeque::new());
    let mut foreign = Foreign { path, limits, child, from, ahead, consultation, events: 0, bytes: 0, over: false };
    // A file that is refused is refused before anything is made of it.
    while let Some(found) = foreign.advance()? {
        let skipped = matches!(found, Imported::Skipped(_));
        foreign.ahead.push_back(found);
        if !skipped {
            return Ok(foreign);
        }
    }
    foreign.over = true;
    Ok(foreign)
}

impl Foreign {
    fn advance(&mut self) -> Result<Option<Imported>, ArchiveError> {
        Ok(Some(match self.said()? {
            Said::Consultation(name) => {
                self.consultation = name.into();
                Imported::Consultation { name: Arc::clone(&self.consultation), original: Original::default() }
            }
            Said::About(attributes) => {
                let original = original(attributes);
                Imported::Consultation { name: Arc::clone(&self.consultation), original }
            }
            Said::Skipped(part) => Imported::Skipped(part),
            Said::Damaged { consultation, words } => Imported::Damaged { consultation: consultation.into(), words },
            Said::Event(json) => {
                self.events += 1;
                Imported::Event { consultation: Arc::clone(&self.consultation), json }
            }
            Said::Done(events) if events == self.events => return Ok(None),
            Said::Done(_) => return Err(self.failed("events went missing on the way")),
            Said::Failed { why, words } => return Err(self.told(why, words)),
        }))
    }

    fn said(&mut self) -> Result<Said, ArchiveError> {
        let mut line = Vec::new();
        // A text may be six times as long in JSON.
        let most = (self.limits.event as u64).saturating_mul(6).saturating_add(64);
        let read = self.from.by_ref().take(most).read_until(b'\n', &mut line);
        read.map_err(ArchiveError::io(&self.path, "read what was found in it"))?;
        self.bytes += line.len() as u64;
        if line.last() != Some(&b'\n') {
            return Err(match line.len() as u64 == most {
                true => self.failed("an event is longer than an import may bring"),
                false => self.ended(),
            });
        }
        if self.bytes > self.limits.total {
            return Err(self.failed("there is more than an import may bring"));
        }
        serde_json::from_slice(&line).map_err(|error| self.failed(format!("it was misread: {error}")))
    }

    /// The process ended before it said that it was done.
    fn ended(&mut self) -> ArchiveError {
        match self.child.wait() {
            Ok(status) if status.code() == Some(STUCK) => {
                self.failed("reading it led nowhere: the file is damaged, or made to harm")
            }
            Ok(status) => {
                self.failed(format!("reading it ended too early ({status}): the file is damaged, or made to harm"))
            }
            Err(error) => self.failed(format!("reading it ended too early: {error}")),
        }
    }

    fn told(&self, why: Why, words: String) -> ArchiveError {
        let path = self.path.clone();
        match why {
            Why::NotHdf5 => ArchiveError::NotHdf5 { path },
            Why::OpenElsewhere => ArchiveError::OpenElsewhere { path, words },
            Why::FilterMissing => ArchiveError::FilterMissing { path, words },
            Why::NotEvents => ArchiveError::NotEvents { path, words },
            Why::Damaged | Why::Other => ArchiveError::Import { path, words },
        }
    }

    fn failed(&self, words: impl Into<String>) -> ArchiveError {
        ArchiveError::Import { path: self.path.clone(), words: words.into() }
    }
}

/// What the attributes of a consultation say. Archives of ours have what was said when it was made among them.
fn original(mut attributes: serde_json::Map<String, serde_json::Value>) -> Original {
    let is_ours = attributes.contains_key("chain_head");
    let meta = if is_ours { attributes.remove("meta") } else { None };
    let meta = meta.and_then(|meta| Some(meta.as_str()?.as_bytes().into()));
    Original { meta, attributes }
}

impl Iterator for Foreign {
    type Item = Result<Imported, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(found) = self.ahead.pop_front() {
            return Some(Ok(found));
        }
        if self.over {
            return None;
        }
        let found = self.advance().transpose();
        self.over = !matches!(found, Some(Ok(_)));
        found
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // It may be done already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
