//! What is kept: records, and the streams they stand in.

use bytes::Bytes;
use uuid::Uuid;

use crate::chain::{self, Digest};

/// Microseconds since 1970-01-01 00:00:00 UTC.
pub type Time = i64;

/// Which stream: what kind of streams it belongs to, and its name among those.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    /// The kind of streams, such as `consultation`.
    pub space: Box<str>,
    /// Its name, unique within the space; 1 to 200 bytes.
    pub name: Box<str>,
}

impl StreamId {
    /// The stream `name` of `space`.
    pub fn new(space: impl Into<Box<str>>, name: impl Into<Box<str>>) -> Self {
        Self { space: space.into(), name: name.into() }
    }
}

/// A record that is to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Its own name, unique in the whole store.
    pub id: Uuid,
    /// What sort of record it is.
    pub kind: Box<str>,
    /// What is said about it, as its owner writes such things.
    pub meta: Bytes,
    /// What it says.
    pub body: Bytes,
    /// SHA-256 of the body.
    pub digest: Digest,
}

/// A record as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place in its stream, from 1, without gaps.
    pub sequence: u64,
    /// When it was appended. Never earlier than the record before it.
    pub time: Time,
    /// Its own name.
    pub id: Uuid,
    /// What sort of record it is.
    pub kind: Box<str>,
    /// What is said about it.
    pub meta: Bytes,
    /// What it says.
    pub body: Bytes,
    /// SHA-256 of the body.
    pub digest: Digest,
    /// The link of the chain that this record makes: see [`chain::link`].
    pub chain: Digest,
}

impl Record {
    /// The hash of everything this record says, its place and time included: see [`chain::leaf`].
    pub fn leaf(&self) -> Digest {
        chain::leaf(self.sequence, self.time, &self.id, &self.kind, &self.meta, &self.digest)
    }
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The sequence of its last record; 0 while it has none.
    pub sequence: u64,
    /// When that was appended; when the stream was made, while it has none.
    pub time: Time,
    /// The last link of the chain; [`chain::origin`] while it has none.
    pub chain: Digest,
}

impl Stream {
    /// The link of the chain before the first record.
    pub fn origin(&self) -> Digest {
        chain::origin(&self.id, self.created, &self.meta)
    }
}

/// A stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Which.
    pub id: StreamId,
    /// What its owner says about it.
    pub meta: Bytes,
    /// When it was made.
    pub created: Time,
    /// How far it has come.
    pub head: Head,
    /// Records up to this sequence may have left the store, for an archive.
    pub sealed: u64,
}
