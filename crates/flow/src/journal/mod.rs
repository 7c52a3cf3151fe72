//! Where a run keeps its place: what each step came to, on disk before the next begins.
//!
//! A run that is taken up again goes its way from the beginning, and each step that the journal knows gives what it gave
//! before. So there is no second way in which a run could go on, and nothing but steps' answers needs to be kept.

mod lines;
mod memory;
mod owner;
mod stored;
mod story;
mod values;
mod writing;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use uuid::Uuid;

use crate::error::RunError;

pub(crate) use lines::FORM;
pub use lines::{Begun, Done, Ended, Failure, Line, MAX_RECOVERIES, Paused, Question, Resumed};
pub use memory::MemoryRuns;
pub use owner::Owner;
pub use stored::StoredRuns;
pub use story::Story;
pub(crate) use writing::Journal;

/// What comes of asking where runs are kept.
pub type Reply<T> = BoxFuture<'static, Result<T, RunError>>;

/// Where runs are kept. What is acknowledged is there for good, and whoever appends to a run that others have appended
/// to meanwhile is told [`RunError::Taken`].
pub trait Runs: Send + Sync + 'static {
    /// Makes a run; [`RunError::Exists`] if there is one of that name.
    fn create(&self, id: &str, begun: Bytes) -> Reply<()>;

    /// Appends to a run that has `expected` lines.
    fn append(&self, id: &str, expected: u64, lines: Vec<Line>) -> Reply<()>;

    /// How a run began, and its lines.
    fn read(&self, id: &str) -> Reply<Option<(Bytes, Vec<Line>)>>;

    /// Runs, the latest first: how each began, how many lines it has, its last line, and the last by which it was taken
    /// up.
    fn list(&self, limit: u32, offset: u64) -> Reply<Listing>;

    /// Keeps bytes under the hash of them.
    fn keep(&self, hash: &str, bytes: Bytes) -> Reply<()>;

    /// What was kept under a hash.
    fn kept(&self, hash: &str) -> Reply<Option<Bytes>>;

    /// Says that the owner of that name is there, for as long as this is open.
    fn attend(&self, name: Uuid) -> Reply<()>;

    /// Whether the owner of that name is there.
    fn attended(&self, name: Uuid) -> Reply<bool>;
}

/// Some runs of a list.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The runs.
    pub runs: Vec<Glance>,
    /// How many there are in all.
    pub total: u64,
}

/// What a list tells of a run.
#[derive(Debug, Clone)]
pub struct Glance {
    /// Its name.
    pub id: Box<str>,
    /// How it began.
    pub begun: Bytes,
    /// When, in microseconds since 1970.
    pub time: i64,
    /// When its last line was written.
    pub last_time: i64,
    /// How many lines it has.
    pub lines: u64,
    /// Its last line.
    pub last: Option<Line>,
    /// The last line by which it was taken up.
    pub resumed: Option<Line>,
    /// How often it was recovered since a step was done, at most [`MAX_RECOVERIES`].
    pub recoveries: u32,
}

impl Glance {
    /// Whether it was recovered so often without a step done that it waits for a caller to resume it.
    pub fn is_given_up(&self) -> bool {
        self.recoveries >= MAX_RECOVERIES
    }
}
