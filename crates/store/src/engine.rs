//! What every engine of the store does.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::{
    chain::Digest,
    error::StoreError,
    figures::Figures,
    record::{Head, NewRecord, Record, Stream, StreamId, Time},
};

/// What comes of asking a store.
pub type Reply<T> = BoxFuture<'static, Result<T, StoreError>>;

/// Append-only streams of records.
///
/// What is acknowledged is on disk. Records of one append stand one after the other, all of them or none. Whoever
/// drops a reply leaves what was asked to its fate: it may be done, and it may not.
pub trait Store: Send + Sync + 'static {
    /// Makes a stream; [`StoreError::Exists`] if there is one of that name.
    fn create(&self, new: NewStream) -> Reply<Stream>;

    /// Appends to a stream.
    fn append(&self, append: Append) -> Reply<Appended>;

    /// One stream.
    fn stream(&self, id: &StreamId) -> Reply<Option<Stream>>;

    /// Streams of a space.
    fn streams(&self, list: List) -> Reply<Page>;

    /// Records of a stream in order. Those that were moved to an archive are not here.
    fn read(&self, id: &StreamId, range: Range) -> Reply<Vec<Record>>;

    /// Where the record of that name stands, if there is one, archived or not.
    fn find(&self, id: Uuid) -> Reply<Option<(StreamId, u64)>>;

    /// Keeps what a stream's records come to, in place of what was kept before, unless that is newer. With `replace` a
    /// newer one goes too: it was found to be wrong.
    fn keep_snapshot(&self, id: &StreamId, snapshot: Snapshot, replace: bool) -> Reply<()>;

    /// What was kept last of what a stream's records come to.
    fn snapshot(&self, id: &StreamId) -> Reply<Option<Snapshot>>;

    /// Takes note of an archive: the records that it holds are here no more, all of them or none. The room that they
    /// take is given back little by little. An archive without parts is one that is known and whose file was written
    /// again: what is known of that file is replaced.
    fn seal(&self, archive: Archive) -> Reply<()>;

    /// The archives, oldest first.
    fn archives(&self) -> Reply<Vec<ArchiveNote>>;

    /// Which archives hold records of a stream, in order of these.
    fn sealed(&self, id: &StreamId) -> Reply<Vec<Sealed>>;

    /// Writes a whole and consistent copy while others go on.
    fn backup(&self, to: PathBuf, progress: Progress) -> Reply<()>;

    /// Asks the engine to look through what it has written for damage.
    fn check(&self) -> Reply<Vec<String>>;

    /// How it does.
    fn figures(&self) -> Figures;

    /// Tells of appends to a stream: at once of this process's, and with PostgreSQL within about 250 ms of others'.
    /// What it tells at first, before any append, may be how far the stream has come already.
    fn follow(&self, id: &StreamId) -> tokio::sync::watch::Receiver<u64>;

    /// Holds a name for as long as this store is open: a process says so that it is there. It is given back when the
    /// process ends, however it ends; with PostgreSQL, within half a minute of a machine that went silent.
    fn hold(&self, name: Uuid) -> Reply<()>;

    /// Whether any process holds that name.
    fn held(&self, name: Uuid) -> Reply<bool>;
}

/// Is told how much of how much is done.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// A stream that is to be made.
#[derive(Debug, Clone)]
pub struct NewStream {
    /// Which.
    pub id: StreamId,
    /// What its owner says about it.
    pub meta: Bytes,
}

/// Records that are to be appended.
#[derive(Debug, Clone)]
pub struct Append {
    /// To which stream.
    pub stream: StreamId,
    /// The sequence that the stream must stand at, if the caller depends on it.
    pub expected: Option<u64>,
    /// By which the same append, sent again, is recognised: it is then not done again.
    pub key: Option<Key>,
    /// What is appended; not empty.
    pub records: Vec<NewRecord>,
}

impl Append {
    /// Bytes that it brings.
    pub(crate) fn bytes(&self) -> usize {
        self.records.iter().map(|record| record.kind.len() + record.meta.len() + record.body.len() + 200).sum()
    }
}

/// By which an append is recognised when it is sent again.
#[derive(Debug, Clone)]
pub struct Key {
    /// As the caller names it; unique within the stream.
    pub name: Box<str>,
    /// SHA-256 of what was asked, so that another append with the same key is not taken for it.
    pub request: [u8; 32],
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// The sequence of its first record.
    pub first: u64,
    /// The sequence of its last record.
    pub last: u64,
    /// When it was appended: the time of all its records.
    pub time: Time,
    /// The chain's link of its last record.
    pub chain: [u8; 32],
    /// Whether it had been done before, under the same key.
    pub repeated: bool,
}

/// Which streams are wanted.
#[derive(Debug, Clone)]
pub struct List {
    /// Of which space.
    pub space: Box<str>,
    /// In which order.
    pub order: Order,
    /// How many at most.
    pub limit: u32,
    /// How many are left out before.
    pub offset: u64,
    /// Only those whose records may go to an archive: more than are sealed, and none since then.
    pub idle_since: Option<Time>,
}

/// In which order streams are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Those made last first.
    #[default]
    Newest,
    /// Those made first first.
    Oldest,
    /// Those with most records first.
    Longest,
    /// Those with fewest records first.
    Shortest,
}

/// Some streams of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// The streams.
    pub streams: Vec<Stream>,
    /// How many there are in all.
    pub total: u64,
}

/// Which records are wanted.
#[derive(Debug, Clone)]
pub struct Range {
    /// Those after this sequence.
    pub after: u64,
    /// How many at most.
    pub limit: u32,
    /// About how many bytes at most; one record is always given.
    pub bytes: usize,
    /// Of this kind alone.
    pub kind: Option<Box<str>>,
}

impl Range {
    /// `limit` records after `after`.
    pub fn after(after: u64, limit: u32) -> Self {
        Self { after, limit, bytes: 16 << 20, kind: None }
    }
}

/// What the records of a stream come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Up to which sequence.
    pub sequence: u64,
    /// As its owner writes it.
    pub body: Bytes,
}

/// An archive that has been written and verified.
#[derive(Debug, Clone)]
pub struct Archive {
    /// What is known of it.
    pub note: ArchiveNote,
    /// Which records it holds.
    pub parts: Vec<ArchivePart>,
}

/// The records of a stream that an archive holds.
#[derive(Debug, Clone)]
pub struct ArchivePart {
    /// Of which stream.
    pub stream: StreamId,
    /// The sequence of the first.
    pub first: u64,
    /// The stream's head at the last: the stream must have this link there, or nothing is sealed.
    pub last: Head,
}

/// What is known of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveNote {
    /// Its file's name, unique.
    pub file: Box<str>,
    /// When it was sealed.
    pub time: Time,
    /// How many records it holds.
    pub records: u64,
    /// How many bytes its file has.
    pub bytes: u64,
    /// SHA-256 of its file.
    pub digest: [u8; 32],
}

/// Records of a stream that are in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The archive's file.
    pub file: Box<str>,
    /// The sequence of the first.
    pub first: u64,
    /// The sequence of the last.
    pub last: u64,
    /// The link of the last.
    pub chain: Digest,
}
