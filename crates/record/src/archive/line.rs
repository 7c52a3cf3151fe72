//! A record as a line of JSON, the event as readers of such files know it, and back without loss.

use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use caudal_store::{Record, StreamId, Time, link};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Writes the line of `record`, which ends with a newline and has none within.
///
/// Body and meta stand in it byte by byte where they are JSON in one line without space around it; else in base64, under a name of their own. The link of the chain is not in it: it follows from the line, and the one before.
pub(super) fn write(line: &mut Vec<u8>, stream: &StreamId, record: &Record) {
    let mut text = |part: &str| line.extend_from_slice(part.as_bytes());
    text("{\"event_id\": \"");
    text(record.id.as_hyphenated().encode_lower(&mut Uuid::encode_buffer()));
    text("\", ");
    text(&stream_key(&stream.space));
    text(": ");
    text(&quoted(&stream.name));
    text(", \"sequence\": ");
    text(&record.sequence.to_string());
    text(", \"timestamp\": ");
    text(&time(record.time));
    text(", \"event_type\": ");
    text(&quoted(&record.kind));
    verbatim(line, "payload", &record.body);
    verbatim(line, "metadata", &record.meta);
    let mut text = |part: &str| line.extend_from_slice(part.as_bytes());
    text(", \"audit_hash\": \"");
    text(&hex(&record.digest));
    text("\"}\n");
}

/// What a line calls its stream's name: `consultation_id`.
fn stream_key(space: &str) -> String {
    quoted(&if space == "event" { "stream_id".to_owned() } else { format!("{space}_id") })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn verbatim(line: &mut Vec<u8>, name: &str, bytes: &[u8]) {
    let raw = serde_json::from_slice::<&RawValue>(bytes).ok().map(RawValue::get);
    let whole = raw.is_some_and(|raw| raw.len() == bytes.len() && !raw.bytes().any(|byte| byte == b'\n'));
    line.extend_from_slice(b", \"");
    line.extend_from_slice(name.as_bytes());
    if whole {
        line.extend_from_slice(b"\": ");
        line.extend_from_slice(bytes);
    } else {
        line.extend_from_slice(b"_base64\": \"");
        line.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
        line.push(b'"');
    }
}

/// `"2026-11-21T22:36:04.123456Z"`; microseconds as a number where no calendar of four digits has that time.
pub(super) fn time(time: Time) -> String {
    match calendar(time) {
        Some(text) => format!("\"{text}\""),
        None => time.to_string(),
    }
}

fn calendar(time: Time) -> Option<String> {
    const YEAR_10000: u64 = 253_402_300_800_000_000;
    let micros = u64::try_from(time).ok().filter(|micros| *micros < YEAR_10000)?;
    let moment = std::time::UNIX_EPOCH + std::time::Duration::from_micros(micros);
    Some(humantime::format_rfc3339_micros(moment).to_string())
}

pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let (pairs, odd) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let bytes: Vec<u8> =
        pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<_>>()?;
    if odd.is_empty() { bytes.try_into().ok() } else { None }
}

#[derive(Deserialize)]
struct Fields<'a> {
    event_id: Uuid,
    sequence: u64,
    #[serde(borrow)]
    timestamp: &'a RawValue,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    payload: Option<&'a RawValue>,
    payload_base64: Option<&'a str>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    metadata: Option<&'a RawValue>,
    metadata_base64: Option<&'a str>,
    audit_hash: &'a str,
}

/// A value that is `null` is there too.
fn even_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Reads a line back; `before` is the link of the record before. Says in words what is wrong with it.
///
/// The digest is the line's; whether it is that of the body, [`digest_fits`] tells.
pub(crate) fn read(line: &[u8], before: &[u8; 32]) -> Result<Record, String> {
    let fields: Fields<'_> = serde_json::from_slice(line).map_err(|error| format!("no event stands there: {error}"))?;
    let time = moment(fields.timestamp.get().trim_matches('"'));
    let digest = unhex(fields.audit_hash).ok_or("its audit_hash is none")?;
    let body = bytes(fields.payload, fields.payload_base64).ok_or("its payload is missing")?;
    let meta = bytes(fields.metadata, fields.metadata_base64).ok_or("its metadata are missing")?;
    let mut record = Record {
        sequence: fields.sequence,
        time: time.ok_or("its timestamp is none")?,
        id: fields.event_id,
        kind: fields.event_type.into(),
        meta,
        body,
        digest,
        chain: [0; 32],
    };
    record.chain = link(before, &record.leaf());
    Ok(record)
}

/// Whether a record's digest is that of its body.
pub(super) fn digest_fits(record: &Record) -> bool {
    record.digest == <[u8; 32]>::from(Sha256::digest(&record.body))
}

fn bytes(raw: Option<&RawValue>, base64: Option<&str>) -> Option<Bytes> {
    match (raw, base64) {
        (Some(raw), None) => Some(Bytes::copy_from_slice(raw.get().as_bytes())),
        (None, Some(text)) => BASE64_STANDARD.decode(text).ok().map(Bytes::from),
        _ => None,
    }
}

/// The time that [`time`] has written, without its quotation marks.
pub(super) fn moment(text: &str) -> Option<Time> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let since = humantime::parse_rfc3339(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Time::try_from(since.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: &str, meta: &[u8], body: &[u8], time: Time) -> String {
        let digest = Sha256::digest(body).into();
        let (id, stream) = (Uuid::from_u128(7), StreamId::new("consultation", "a\"ñ"));
        let (meta, body) = (Bytes::copy_from_slice(meta), Bytes::copy_from_slice(body));
        let mut record = Record { sequence: 3, time, id, kind: kind.into(), meta, body, digest, chain: [0; 32] };
        record.chain = link(&[9; 32], &record.leaf());
        let mut line = Vec::new();
        write(&mut line, &stream, &record);
        assert_eq!(read(&line, &[9; 32]), Ok(record.clone()));
        assert!(digest_fits(&record));
        let text = String::from_utf8(line).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        text
    }

    #[test]
    fn records_come_back_from_their_lines() {
        let line =
            check("MESSAGE_RECEIVED", br#"{"user_id": "u"}"#, "{\"a\": \"ñ\"}".as_bytes(), 1_764_000_000_123_456);
        let begins = "{\"event_id\": \"00000000-0000-0000-0000-000000000007\", \"consultation_id\": \"a\\\"ñ\", \
                      \"sequence\": 3, \"timestamp\": \"2025-11-24T16:00:00.123456Z\", \"event_type\": \
                      \"MESSAGE_RECEIVED\", \"payload\": {\"a\": \"ñ\"}, \"metadata\": {\"user_id\": \"u\"}, \
                      \"audit_hash\": \"";
        assert_eq!(line.split_at(begins.len()).0, begins);
        for body in ["", " ", "{} ", "{\n}", "null", "\"\\n\"", "not json", "[1,2]", "1e400", "{\"a\":1,\"a\":2}"] {
            check("k\n\"", body.as_bytes(), body.as_bytes(), 0);
        }
        check("", &[0xff, 0], &[0xfe, b'\n'], -1);
        check("k", b"{}", b"{}", Time::MAX);
        check("k", b"{}", b"{}", Time::MIN);
        check("k", b"{}", b"{}", 253_402_300_799_999_999);
    }
}
