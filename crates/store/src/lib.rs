//! Append-only streams of records: durable when acknowledged, in order, and chained so that what is removed,
//! changed or moved shows. What a record means is its owner's.
//!
//! There are two engines, one contract (`tests/contract`): SQLite, in the process, and PostgreSQL, shared by
//! several processes. Both commit what waits in one go (group commit): while the disk flushes one group, the next
//! one gathers.

mod chain;
mod clock;
mod engine;
mod error;
mod figures;
mod followers;
mod guard;
mod jobs;
mod lock;
pub mod postgres;
mod record;
pub mod sqlite;
mod verified;

pub use chain::{Digest, leaf, link, origin};
pub use clock::Clock;
pub use engine::{
    Append, Appended, Archive, ArchiveNote, ArchivePart, Key, List, NewStream, Order, Page, Progress, Range, Reply,
    Sealed, Snapshot, Store,
};
pub use error::StoreError;
pub use figures::{Figures, SpaceFigures, Statement};
pub use lock::{Lock, lock};
pub use record::{Head, NewRecord, Record, Stream, StreamId, Time};
