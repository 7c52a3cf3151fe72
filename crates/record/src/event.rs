//! An event, as the folds see it.

use caudal_store::{Record, Time};
use uuid::Uuid;

/// An event of a consultation.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Its place in the stream, from 1.
    pub sequence: u64,
    /// When it was appended.
    pub time: Time,
    /// Its own name.
    pub id: Uuid,
    /// Its type, as sent.
    pub kind: &'a str,
    /// Its payload in canonical form.
    pub payload: &'a [u8],
}

impl<'a> From<&'a Record> for Event<'a> {
    fn from(record: &'a Record) -> Self {
        let Record { sequence, time, id, kind, body, .. } = record;
        Self { sequence: *sequence, time: *time, id: *id, kind, payload: body }
    }
}
