//! The embedded engine: SQLite with a write-ahead log, one thread that writes, a few that read.

mod backup;
mod held;
mod notify;
mod place;
mod reader;
mod rows;
mod schema;
mod settle;
mod writer;

use std::{
    os::unix::fs::DirBuilderExt as _,
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
    jobs::{Answer, Job},
    record::{Record, Stream, StreamId},
};
use held::Holds;
use notify::ChangeNotifier;
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
    /// None where the database was opened for reading alone. Goes first, as the readers do.
    _notifier: Option<ChangeNotifier>,
    /// They go before the writer does: who closes the database last writes the log back and removes it.
    readers: Readers,
    /// None where the database was opened for reading alone.
    writer: Option<Writer>,
    gauges: Arc<Gauges>,
    followers: Arc<Followers>,
    holds: Holds,
    /// Goes when all that reads it has gone.
    _copy: Option<Copied>,
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
        let notifier = ChangeNotifier::start(&options.file, Arc::clone(&followers))?;
        let holds = Holds::beside(&options.file);
        let notifier = Some(notifier);
        Ok(Self {
            file: options.file,
            _notifier: notifier,
            writer: Some(writer),
            readers,
            gauges,
            followers,
            holds,
            _copy: None,
        })
    }

    /// Opens a database that is there for reading alone, on a disk that nobody can write to. No other process may write to
    /// it meanwhile. What stands in a log beside it can be read only of a copy, which is made in the folder for such.
    pub fn open_to_read(options: Options) -> Result<Self, StoreError> {
        let copy = if settle::has_log(&options.file) { Some(Copied::of(&options.file)?) } else { None };
        let file = copy.as_ref().map_or_else(|| options.file.clone(), |copy| copy.file.clone());
        let access = if copy.is_some() { Access::Read } else { Access::Immutable };
        schema::check(&connect(&file, access)?)?;
        let (gauges, followers) = (Arc::<Gauges>::default(), Arc::<Followers>::default());
        let readers = Readers::start_as(access, &file, options.readers.max(1), &gauges)?;
        let holds = Holds::beside(&options.file);
        Ok(Self { file, _notifier: None, writer: None, readers, gauges, followers, holds, _copy: copy })
    }

    /// Asks the writer, where there is one.
    fn write<T: Send + 'static>(&self, bytes: usize, job: impl FnOnce(Answer<T>) -> Job) -> Reply<T> {
        match &self.writer {
            Some(writer) => writer.ask(bytes, job),
            None => ready(Err(StoreError::ReadOnly("it was opened for reading alone".to_owned()))).boxed(),
        }
    }

    /// How it is read.
    fn reading(&self) -> Access {
        match (&self.writer, &self._copy) {
            (None, None) => Access::Immutable,
            _ => Access::Read,
        }
    }

    /// Puts a backup where the database stood, or is to stand. Nobody may have it open.
    pub fn restore(from: &Path, to: &Path) -> Result<(), StoreError> {
        backup::restore(from, to)
    }
}

impl Store for Sqlite {
    fn create(&self, new: NewStream) -> Reply<Stream> {
        self.write(0, |reply| Job::Create(new, reply))
    }

    fn append(&self, append: Append) -> Reply<Appended> {
        self.write(append.bytes(), |reply| Job::Append(append, reply))
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

    fn keep_snapshot(&self, id: &StreamId, snapshot: Snapshot, replace: bool) -> Reply<()> {
        let id = id.clone();
        self.write(snapshot.body.len(), |reply| Job::Snapshot(id, snapshot, replace, reply))
    }

    fn snapshot(&self, id: &StreamId) -> Reply<Option<Snapshot>> {
        let id = id.clone();
        self.readers.ask("snapshot", move |connection| reader::snapshot(connection, &id))
    }

    fn seal(&self, archive: Archive) -> Reply<()> {
        self.write(0, |reply| Job::Seal(archive, reply))
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
        let (file, access) = (self.file.clone(), self.reading());
        self.readers.aside(move || reader::check(&connect(&file, access)?))
    }

    fn figures(&self) -> Figures {
        let connections = self.readers.count() + usize::from(self.writer.is_some());
        let figures = self.gauges.figures("sqlite", self.writer.as_ref().and_then(Writer::gate));
        Figures { connections_max: connections, connections, connections_awaited: self.readers.awaited(), ..figures }
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
    /// Reading a file that nobody can write to, and that nobody does.
    Immutable,
    Write {
        flush: bool,
        log_pages: u32,
    },
}

fn connect(file: &Path, access: Access) -> Result<Connection, StoreError> {
    if access == Access::Immutable {
        return immutable(file);
    }
    let flags = match access {
        Access::Read | Access::Immutable => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Access::Write { .. } => OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
    };
    let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(fault)?;
    connection.busy_timeout(PATIENCE).map_err(fault)?;
    connection.set_prepared_statement_cache_capacity(64);
    let set = |name: &str, value: &dyn rusqlite::ToSql| connection.pragma_update(None, name, value).map_err(fault);
    match access {
        Access::Immutable => {}
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

fn immutable(file: &Path) -> Result<Connection, StoreError> {
    let name = std::path::absolute(file).map_err(|error| StoreError::Io(format!("{}: {error}", file.display())))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let name = name.as_os_str().as_encoded_bytes().iter().fold(String::new(), |name, byte| match plain(*byte) {
        true => name + &char::from(*byte).to_string(),
        false => name + &format!("%{byte:02x}"),
    });
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(format!("file:{name}?immutable=1"), flags).map_err(fault)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// A copy of a database and its log, in a folder of its own, which goes with it.
#[derive(Debug)]
struct Copied {
    folder: PathBuf,
    file: PathBuf,
}

impl Copied {
    fn of(file: &Path) -> Result<Self, StoreError> {
        let wrong = |error: std::io::Error| StoreError::Io(format!("{} cannot be copied: {error}", file.display()));
        let folder = std::env::temp_dir().join(format!("caudal-{}", Uuid::new_v4()));
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(wrong)?;
        let copied = Self { file: folder.join("caudal.db"), folder };
        std::fs::copy(file, &copied.file).map_err(wrong)?;
        std::fs::copy(settle::beside(file), settle::beside(&copied.file)).map_err(wrong)?;
        Ok(copied)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        // What stays is in the system's folder for such.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
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
