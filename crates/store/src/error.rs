//! What goes wrong in a store.

use std::{borrow::Cow, path::PathBuf};

use caudal_types::{ErrorKind, Explain};

use crate::record::StreamId;

/// Why a store did not do what was asked.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// No such stream.
    #[error("there is no {} {}", .0.space, .0.name)]
    NoStream(StreamId),
    /// A stream of that name is there.
    #[error("there is a {} {} already", .0.space, .0.name)]
    Exists(StreamId),
    /// The stream does not stand where the caller thought.
    #[error("the {} is at version {actual}, not at {expected}", .stream.space)]
    Version {
        /// Which stream.
        stream: StreamId,
        /// Where the caller thought that it stands.
        expected: u64,
        /// Where it stands.
        actual: u64,
    },
    /// The key stands for another append.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// A record of that name is there.
    #[error("there is a record with that id already")]
    Duplicate,
    /// Too many appends wait.
    #[error("{waiting} appends wait already")]
    Full {
        /// How many wait.
        waiting: usize,
    },
    /// The disk has no room left.
    #[error("the disk has no room left for the record")]
    DiskFull,
    /// The folder or file cannot be written.
    #[error("the record cannot be written: {0}")]
    ReadOnly(String),
    /// The disk failed, so nothing is known to be kept.
    #[error("the disk failed: {0}")]
    Io(String),
    /// The database's file is not the one that was opened.
    #[error("the database's file was removed or replaced while it was open: {0}")]
    Vanished(String),
    /// The database is damaged.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The database cannot be reached, or went away.
    #[error("the database cannot be reached: {0}")]
    Unreachable(String),
    /// Another process holds the database.
    #[error("another process uses {}", .0.display())]
    InUse(PathBuf),
    /// The database was made by a newer version.
    #[error("the database has the form {found}, and this version knows forms up to {known}")]
    Newer {
        /// Its form.
        found: u32,
        /// The newest form that is known here.
        known: u32,
    },
    /// What is to be sealed is not what the stream holds.
    #[error("the archive does not hold what the {} {} holds", .0.space, .0.name)]
    NotSealed(StreamId),
    /// The engine cannot do it.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl Explain for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoStream(_) => ErrorKind::NotFound,
            Self::Exists(_) | Self::Duplicate => ErrorKind::Exists,
            Self::Version { .. } => ErrorKind::VersionConflict,
            Self::KeyReused => ErrorKind::KeyReused,
            Self::Full { .. } => ErrorKind::TooManyRequests,
            Self::DiskFull => ErrorKind::DiskFull,
            Self::ReadOnly(_) | Self::Io(_) | Self::Vanished(_) | Self::Unreachable(_) | Self::InUse(_) => {
                ErrorKind::StoreUnavailable
            }
            Self::Damaged(_) | Self::NotSealed(_) => ErrorKind::RecordDamaged,
            Self::Newer { .. } | Self::Unsupported(_) => ErrorKind::NotBuiltIn,
            Self::Closed => ErrorKind::ShuttingDown,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::NoStream(_) => "check the id; a listing tells which there are".into(),
            Self::Exists(_) => "choose another id".into(),
            Self::Duplicate => "each record has an id of its own: send another record under another id".into(),
            Self::Version { actual, .. } => {
                format!("read what was appended meanwhile, then send expected_version {actual}").into()
            }
            Self::KeyReused => "send a new Idempotency-Key with a new request".into(),
            Self::Full { .. } => "try again after Retry-After".into(),
            Self::DiskFull => "make room on the disk, or seal and move archives; then it goes on by itself".into(),
            Self::ReadOnly(_) => "let the server's user write to the data folder; then it goes on by itself".into(),
            Self::Io(_) => "look at the disk; nothing that was acknowledged is lost; send this again, under the same Idempotency-Key".into(),
            Self::Unreachable(_) => "try again after Retry-After; nothing that was acknowledged is lost".into(),
            Self::InUse(_) => "one server at a time: stop the other, or take another --data-dir".into(),
            Self::Vanished(_) => "put the file back, or restore a backup, and start the server again".into(),
            Self::Damaged(_) => "caudal record verify --all tells what is damaged; restore it from a backup".into(),
            Self::NotSealed(_) => "nothing was removed; seal again".into(),
            Self::Newer { .. } => "take a newer version of caudal".into(),
            Self::Unsupported(_) => "use the database's own tools for it".into(),
            Self::Closed => "send the request to another instance of the server".into(),
        }
    }
}
