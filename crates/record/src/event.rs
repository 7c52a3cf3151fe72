//! An event, as the folds see it and as it is shown.

use caudal_store::{Record, StreamId, Time};
use serde::Serialize;
use uuid::Uuid;

use crate::hash::Hash;
use crate::raw::Raw;
use crate::time::{iso, parse};

/// An event of a consultation.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Its place in the stream, from 1.
    pub sequence: u64,
    /// When it happened: an imported event's own time, else when it was appended.
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
        let Record { sequence, time, id, kind, body, meta, .. } = record;
        let time = occurred(meta).unwrap_or(*time);
        Self { sequence: *sequence, time, id: *id, kind, payload: body }
    }
}

/// An event as answers and exports show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EventView {
    /// Its own name.
    pub event_id: Uuid,
    /// The consultation it belongs to.
    pub consultation_id: String,
    /// Its place in the stream, from 1.
    pub sequence: u64,
    /// When it was appended, for people.
    pub timestamp: String,
    /// The same as it was hashed: microseconds since 1970.
    pub time: Time,
    /// When it happened, where it was imported and had a time of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<String>,
    /// Its type.
    pub event_type: String,
    /// What it says.
    pub payload: Raw,
    /// What is said about it.
    pub metadata: Raw,
    /// SHA-256 of the payload's canonical form.
    pub audit_hash: Hash,
    /// The link of the chain that it makes.
    pub chain_hash: Hash,
}

impl EventView {
    /// How `record` of a stream is shown.
    pub fn of(stream: &StreamId, record: &Record) -> Self {
        Self {
            event_id: record.id,
            consultation_id: stream.name.as_ref().into(),
            sequence: record.sequence,
            timestamp: iso(record.time),
            time: record.time,
            occurred_at: occurred(&record.meta).map(iso),
            event_type: record.kind.as_ref().into(),
            payload: Raw::json_or_text(&record.body),
            metadata: Raw::json_or_text(&record.meta),
            audit_hash: record.digest.into(),
            chain_hash: record.chain.into(),
        }
    }
}

/// The name under which an import writes an event's own time into its metadata.
pub(crate) const OCCURRED_AT: &str = "occurred_at";

/// The own time of an event whose metadata are `meta`: only an import says one.
pub(crate) fn occurred(meta: &[u8]) -> Option<Time> {
    #[derive(serde::Deserialize)]
    struct Said<'a> {
        #[serde(borrow)]
        occurred_at: std::borrow::Cow<'a, str>,
        #[serde(rename = "imported_at")]
        _imported_at: serde::de::IgnoredAny,
    }
    // Most events have none, and need not be parsed to know it.
    memchr::memmem::find(meta, OCCURRED_AT.as_bytes())?;
    let said: Said<'_> = serde_json::from_slice(meta).ok()?;
    parse(&said.occurred_at)
}

/// Appends `text` to `out` as a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail, and a string is always JSON.
    let _ = serde_json::to_writer(out, text);
}
