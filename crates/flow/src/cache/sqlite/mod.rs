//! A shelf in a file of SQLite's, which several processes may share and which outlasts them.
//!
//! It is a cache and nothing else: the file may be deleted at any time, a damaged one is set aside, and one of another
//! form is emptied. So it stands apart from the record, which only ever grows. Threads of its own read and write; who runs
//! steps never waits for a write, and for a read only as long as that takes.

mod file;
mod reader;
mod writer;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use caudal_store::Clock;
use futures_util::{
    FutureExt,
    future::{BoxFuture, ready},
};

use self::{reader::Readers, writer::Writer};
use super::{Answered, Shelf, Shelved};
use crate::key::Key;

/// Uses of answers that are known and not yet written; beyond, they are not noted.
const MOST_USES: usize = 4_096;

/// How a shelf is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database's file. Its folder is made.
    pub file: PathBuf,
    /// Bytes of answers that are kept, about: the least recently used go first.
    pub bytes: u64,
    /// What answers depend on that keys do not tell, as the program's version: what was put there by others of it is not
    /// found.
    pub about: Vec<u8>,
    /// Tells the time.
    pub clock: Clock,
}

impl Options {
    /// Room for `bytes` of answers in `folder`.
    pub fn within(folder: &Path, bytes: u64) -> Self {
        Self { file: folder.join("flow-cache.db"), bytes, about: Vec::new(), clock: Clock::system() }
    }
}

/// Why there is no shelf.
#[derive(Debug, thiserror::Error)]
#[error("no answers are remembered in {}: {cause}", file.display())]
pub struct ShelfError {
    /// The file.
    pub file: PathBuf,
    cause: Box<str>,
}

/// A shelf in a file.
pub struct SqliteShelf {
    about: [u8; 32],
    /// They go before the writer does, which writes what they noted.
    readers: Readers,
    writer: Writer,
}

impl SqliteShelf {
    /// Opens the file, which is made if it is not there.
    pub fn open(options: Options) -> Result<Self, ShelfError> {
        let failed = |cause: String| ShelfError { file: options.file.clone(), cause: cause.into() };
        let connection = file::open(&options.file).map_err(failed)?;
        let common = Arc::new(Common {
            file: options.file.clone(),
            clock: options.clock,
            warned: AtomicBool::new(false),
            over: AtomicBool::new(false),
            uses: Mutex::default(),
        });
        let writer = Writer::start(connection, options.bytes, &common).map_err(failed)?;
        let readers = Readers::start(&common, writer.waker()).map_err(failed)?;
        Ok(Self { about: *blake3::hash(&options.about).as_bytes(), readers, writer })
    }

    /// The key under which an answer stands.
    fn place(&self, key: &Key) -> Key {
        let mut hash = blake3::Hasher::new_keyed(&self.about);
        *hash.update(key).finalize().as_bytes()
    }
}

impl Shelf for SqliteShelf {
    fn get(&self, key: &Key) -> BoxFuture<'static, Option<Shelved>> {
        match self.readers.ask(self.place(key)) {
            Some(found) => async move { found.await.ok().flatten() }.boxed(),
            None => ready(None).boxed(),
        }
    }

    fn put(&self, key: &Key, answer: Answered, ttl: Option<Duration>) {
        self.writer.put(self.place(key), answer, ttl);
    }
}

/// What the threads share.
struct Common {
    file: PathBuf,
    clock: Clock,
    warned: AtomicBool,
    /// Whether the file was found damaged: it is left alone from then on.
    over: AtomicBool,
    /// When answers were used, as far as that is not written yet.
    uses: Mutex<HashMap<Key, i64>>,
}

impl Common {
    /// Notes that an answer was used; true for the first of those that are not written yet.
    fn used(&self, key: Key, now: i64) -> bool {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        let first = uses.is_empty();
        if uses.len() < MOST_USES {
            uses.insert(key, now);
        }
        first
    }

    fn take_uses(&self) -> HashMap<Key, i64> {
        std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Tells of a failure, once; what is damaged is set aside for the next process to make anew.
    fn failed(&self, error: &rusqlite::Error) {
        if file::is_damage(error) && !self.over.swap(true, Relaxed) {
            file::set_aside(&self.file);
        }
        if !self.warned.swap(true, Relaxed) {
            let file = self.file.display();
            tracing::warn!("the cache of steps in {file} fails, and is done without: {error}");
        }
    }
}

/// What stands beside an answer, so that no other is taken for it however the file is damaged.
fn guard(key: &Key, body: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new_keyed(key).update(body).finalize().as_bytes()
}
