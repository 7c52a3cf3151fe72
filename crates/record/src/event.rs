//! An event: as the folds see it, and as the world does.

use caudal_store::{Record, Time};
use uuid::Uuid;

use crate::{hash::Hex, time::iso};

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

/// Appends the event that `record` keeps to `out` as JSON: system A's fields, and beside them its place and its link in the
/// chain. Payload and metadata stand as they are kept, byte by byte.
pub fn write(out: &mut Vec<u8>, consultation: &str, record: &Record) {
    let text = |out: &mut Vec<u8>, name: &str, value: &str| {
        out.extend_from_slice(name.as_bytes());
        string(out, value);
    };
    out.extend_from_slice(b"{\"event_id\": \"");
    out.extend_from_slice(record.id.hyphenated().encode_lower(&mut [0; 36]).as_bytes());
    text(out, "\", \"consultation_id\": ", consultation);
    out.extend_from_slice(b", \"sequence\": ");
    out.extend_from_slice(record.sequence.to_string().as_bytes());
    text(out, ", \"timestamp\": ", &iso(record.time));
    text(out, ", \"event_type\": ", &record.kind);
    out.extend_from_slice(b", \"payload\": ");
    out.extend_from_slice(&record.body);
    out.extend_from_slice(b", \"metadata\": ");
    out.extend_from_slice(&record.meta);
    text(out, ", \"audit_hash\": ", &Hex(record.digest).to_string());
    text(out, ", \"chain_hash\": ", &Hex(record.chain).to_string());
    out.push(b'}');
}

/// Appends `text` to `out` as a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail, and a string is always JSON.
    let _ = serde_json::to_writer(out, text);
}
