//! Append-only streams of records: durable when acknowledged, in order, and chained so that what is removed,
//! changed or moved shows. What a record means is its owner's.

mod chain;
mod record;

pub use chain::{Digest, leaf, link, origin};
pub use record::{Head, NewRecord, Record, Stream, StreamId, Time};
