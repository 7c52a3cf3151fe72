//! The embedded engine: SQLite with a write-ahead log, one thread that writes, a few that read.

mod backup;
mod held;
mod reader;
mod rows;
mod schema;
mod settle;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, future::ready};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    clock::Clock,
    engine::{
        Append, Appended, Archive, ArchiveNote, List, NewStream, Page, Progress, Range, Reply, Sealed, Snapshot, Store,
    },
    error::StoreError,
    figures::{Figures, Gauges},
    followers::Followers,
    jobs::Job,
    record::{Record, Stream, StreamId},
};
use held::Holds;
use reader::Readers;
use writer::Writer;

/// How long a connection waits for another process's write to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Rows removed in one go once an archive holds them: others write in between.
const SWEPT: u32 = 2_000;

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database's file.
    pub file: PathBuf,
    /// Threads that read.
    pub readers: usize,
    /// Appends that may wait.
    pub waiting: usize,
    /// Bytes that these may have.
    pub waiting_bytes: usize,
    /// Whether a commit waits for the disk. Without, what was acknowledged can be lost when the machine fails.
    pub flush: bool,
    /// Pages of 8 KB of the write-ahead log after which it is written back to the database.
    pub log_pages: u32,
    /// Tells the time.
    pub clock: Clock,
}

impl Options {
    /// The usual for a database in `folder`.
    pub fn within(folder: &Path) -> Self {
        Self {
            file: folder.join("caudal.db"),
            readers: 2,
            waiting: 10_000,
            waiting_bytes: 64 << 20,
            flush: true,
            log_pages: 8_000,
            clock: Clock::system(),
        }
    }
}

/// The store on SQLite.
#[derive(Debug)]
pub struct Sqlite {
    file: PathBuf,
    /// They go before the writer does: who closes the database last writes the log back and removes it.
    readers: Readers,
    writer: Writer,
    gauges: Arc<Gauges>,
    followers: Arc<Followers>,
    holds: Holds,
}

impl Sqlite {
    /// Opens the database, which is made if it is not there.
    pub fn open(options: Options) -> Result<Self, StoreError> {
        if let Some(folder) = options.file.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| StoreError::ReadOnly(format!("{}: {error}", folder.display())))?;
        }
        settle::settle(&options.file)?;
        let (gauges, followers) = (Arc::<Gauges>::default(), Arc::<Followers>::default());
        let writer = Writer::start(&options, Arc::clone(&gauges), Arc::clone(&followers))?;
        let readers = Readers::start(&options.file, options.readers.max(1), &gauges)?;
        let holds = Holds::beside(&options.file);
        Ok(Self { file: options.file, writer, readers, gauges, followers, holds })
    }

    /// Puts a backup where the database stood, or is to stand. Nobody may have it open.
    pub fn restore(from: &Path, to: &Path) -> Result<(), StoreError> {
        backup::restore(from, to)
    }
}

impl Store for Sqlite {
    fn create(&self, new: NewStream) -> Reply<Stream> {
        self.writer.ask(0, |reply| Job::Create(new, reply))
    }

    fn append(&self, append: Append) -> Reply<Appended> {
        self.writer.ask(append.bytes(), |reply| Job::Append(append, reply))
    }

    fn stream(&self, id: &StreamId) -> Reply<Option<Stream>> {
        let id = id.clone();
        self.readers.ask("stream", move |connection| reader::stream(connection, &id))
    }

    fn streams(&self, list: List) -> Reply<Page> {
        self.readers.ask("streams", move |connection| reader::streams(connection, &list))
    }

    fn read(&self, id: &StreamId, range: Range) -> Reply<Vec<Record>> {
        let id = id.clone();
        self.readers.ask("read", move |connection| reader::read(connection, &id, &range))
    }

    fn find(&self, id: Uuid) -> Reply<Option<(StreamId, u64)>> {
        self.readers.ask("find", move |connection| reader::find(connection, id))
    }

    fn keep_snapshot(&self, id: &StreamId, snapshot: Snapshot) -> Reply<()> {
        let id = id.clone();
        self.writer.ask(snapshot.body.len(), |reply| Job::Snapshot(id, snapshot, reply))
    }

    fn snapshot(&self, id: &StreamId) -> Reply<Option<Snapshot>> {
        let id = id.clone();
        self.readers.ask("snapshot", move |connection| reader::snapshot(connection, &id))
    }

    fn seal(&self, archive: Archive) -> Reply<()> {
        self.writer.ask(0, |reply| Job::Seal(archive, reply))
    }

    fn archives(&self) -> Reply<Vec<ArchiveNote>> {
        self.readers.ask("archives", reader::archives)
    }

    fn sealed(&self, id: &StreamId) -> Reply<Vec<Sealed>> {
        let id = id.clone();
        self.readers.ask("sealed", move |connection| reader::sealed(connection, &id))
    }

    fn backup(&self, to: PathBuf, progress: Progress) -> Reply<()> {
        let from = self.file.clone();
        self.readers.aside(move || backup::backup(&from, &to, &*progress))
    }

    fn check(&self) -> Reply<Vec<String>> {
        let file = self.file.clone();
        self.readers.aside(move || reader::check(&connect(&file, Access::Read)?))
    }

    fn figures(&self) -> Figures {
        let (waiting, waiting_bytes) = self.writer.waiting();
        let connections = self.readers.count() + 1;
        let figures = self.gauges.figures("sqlite");
        Figures {
            waiting,
            waiting_bytes,
            connections_max: connections,
            connections,
            connections_awaited: self.readers.awaited(),
            ..figures
        }
    }

    fn follow(&self, id: &StreamId) -> watch::Receiver<u64> {
        self.followers.follow(id)
    }

    fn hold(&self, name: Uuid) -> Reply<()> {
        ready(self.holds.hold(name)).boxed()
    }

    fn held(&self, name: Uuid) -> Reply<bool> {
        ready(self.holds.held(name)).boxed()
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write { flush: bool, log_pages: u32 },
}

fn connect(file: &Path, access: Access) -> Result<Connection, StoreError> {
    let flags = match access {
        Access::Read => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Access::Write { .. } => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(fault)?;
    connection.busy_timeout(PATIENCE).map_err(fault)?;
    connection.set_prepared_statement_cache_capacity(64);
    let set = |name: &str, value: &dyn rusqlite::ToSql| connection.pragma_update(None, name, value).map_err(fault);
    match access {
        Access::Read => {
            set("query_only", &true)?;
            set("cache_size", &-16_384)?;
            // SQLite opens the log with the first look. Whoever has it open keeps its index alive: a group whose flush
            // failed is not in that, and is written over by the next one, even if the writer has to come anew.
            connection.query_row("select count(*) from sqlite_schema", [], |_| Ok(())).map_err(fault)?;
        }
        Access::Write { flush, log_pages } => {
            set("page_size", &8192)?;
            set("journal_mode", &"wal")?;
            set("synchronous", &if flush { "full" } else { "off" })?;
            set("wal_autocheckpoint", &log_pages)?;
            set("journal_size_limit", &(128i64 << 20))?;
            set("cache_size", &-65_536)?;
        }
    }
    Ok(connection)
}

/// What a fault of SQLite's is to us.
fn fault(error: rusqlite::Error) -> StoreError {
    let rusqlite::Error::SqliteFailure(code, message) = error else {
        return match error {
            // A value that is none of ours.
            rusqlite::Error::FromSqlConversionFailure(_, _, error) => match error.downcast::<StoreError>() {
                Ok(error) => *error,
                Err(error) => StoreError::Damaged(error.to_string()),
            },
            rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::IntegralValueOutOfRange(..) => {
                StoreError::Damaged(error.to_string())
            }
            error => StoreError::Io(error.to_string()),
        };
    };
    let words = message.unwrap_or_else(|| code.to_string());
    match code.code {
        ErrorCode::DiskFull => StoreError::DiskFull,
        ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied => StoreError::ReadOnly(words),
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Damaged(words),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            StoreError::Unreachable("another process has been writing for 10 s".to_owned())
        }
        ErrorCode::ConstraintViolation => StoreError::Duplicate,
        _ => StoreError::Io(format!("{words} (SQLite {})", code.extended_code)),
    }
}
