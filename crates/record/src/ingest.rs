//! From the bytes of an append to a record: parsed once, checked, hashed, and written nowhere else.

use bytes::{Bytes, BytesMut};
use caudal_store::NewRecord;
use caudal_types::{Stage, Trace};
use uuid::Uuid;

use crate::{
    canonical::{Canonicaliser, Fault, JsonError, sha256},
    error::RecordError,
    event,
    kinds::Kind,
};

/// Makes records of bodies. Keeps its working memory from one to the next.
#[derive(Debug)]
pub struct Ingest {
    canonicaliser: Canonicaliser,
    /// Canonical bytes, handed out piece by piece.
    memory: BytesMut,
    scratch: Vec<u8>,
    source: &'static str,
    timezone: Box<str>,
    /// What was said last about an event, and of whom: most events of a stream have it in common.
    last: Option<Said>,
}

#[derive(Debug)]
struct Said {
    user: Option<Box<str>>,
    session: Option<Box<str>>,
    meta: Bytes,
}

/// An event that may be appended.
#[derive(Debug, Clone)]
pub struct Ingested {
    /// What will be kept.
    pub record: NewRecord,
    /// The sequence at which the consultation must stand.
    pub expected: Option<u64>,
}

impl Ingest {
    /// One that says that events come from `source`, and that the clinic is in `timezone`.
    pub fn new(source: &'static str, timezone: &str) -> Self {
        Self {
            canonicaliser: Canonicaliser::default(),
            memory: BytesMut::new(),
            scratch: Vec::new(),
            source,
            timezone: timezone.into(),
            last: None,
        }
    }

    /// Reads one event: `{"event_type": …, "payload": {…}, "user_id": …}`.
    ///
    /// # Errors
    /// It is no JSON, or not of a kind that can be recorded.
    pub fn event(&mut self, body: &[u8], trace: Option<&Trace>) -> Result<Ingested, RecordError> {
        let enter = |stage| {
            if let Some(trace) = trace {
                trace.enter(stage);
            }
        };
        enter(Stage::Ingest);
        self.scratch.clear();
        let envelope = self.canonicaliser.envelope(body, &mut self.scratch)?;
        enter(Stage::Segment);
        let payload = &self.scratch[envelope.payload.clone()];
        if let Some(kind) = Kind::read(&envelope.event_type)? {
            kind.check(payload)?;
        }
        let id = match &envelope.event_id {
            None => Uuid::now_v7(),
            Some(id) => Uuid::try_parse(id).map_err(|_| RecordError::EventId(id.as_ref().into()))?,
        };
        enter(Stage::Hash);
        let digest = sha256(payload);
        let (kind, expected) = (envelope.event_type.as_ref().into(), envelope.expected_version);
        let (user, session) = (envelope.user_id.as_deref(), envelope.session_id.as_deref());
        let body = hand_out(&mut self.memory, payload);
        let known = self.last.as_ref().filter(|said| {
            envelope.metadata.is_none() && said.user.as_deref() == user && said.session.as_deref() == session
        });
        let meta = match known {
            Some(said) => said.meta.clone(),
            None => {
                let given = envelope.metadata.clone().map(|range| self.scratch[range].to_vec());
                let meta = said(&mut self.canonicaliser, given.as_deref(), user, session, self.source, &self.timezone)?;
                if given.is_none() {
                    let (user, session) = (user.map(Into::into), session.map(Into::into));
                    self.last = Some(Said { user, session, meta: meta.clone() });
                }
                meta
            }
        };
        Ok(Ingested { record: NewRecord { id, kind, meta, body, digest }, expected })
    }
}

/// A piece of `memory` that holds `bytes`: pieces share what is allocated, so a stream of small ones costs little.
fn hand_out(memory: &mut BytesMut, bytes: &[u8]) -> Bytes {
    const PIECE: usize = 64 << 10;
    if memory.capacity() - memory.len() < bytes.len() {
        memory.reserve(bytes.len().max(PIECE));
    }
    memory.extend_from_slice(bytes);
    memory.split().freeze()
}

/// What is said about an event: what its sender says, who that is, and where it came in.
fn said(
    canonicaliser: &mut Canonicaliser,
    given: Option<&[u8]>,
    user: Option<&str>,
    session: Option<&str>,
    source: &str,
    timezone: &str,
) -> Result<Bytes, JsonError> {
    let mut text = given.map_or_else(|| b"{}".to_vec(), <[u8]>::to_vec);
    let has = |name: &str| given.is_some_and(|given| has_member(given, name));
    let own = [("source", Some(source)), ("timezone", Some(timezone)), ("user_id", user), ("session_id", session)];
    for (name, value) in own {
        // What the envelope says of who and when is what counts: said twice, it is refused below.
        let optional = matches!(name, "source" | "timezone");
        let Some(value) = value.filter(|_| !(optional && has(name))) else { continue };
        text.pop();
        if text.len() > 1 {
            text.extend_from_slice(b", ");
        }
        event::string(&mut text, name);
        text.extend_from_slice(b": ");
        event::string(&mut text, value);
        text.push(b'}');
    }
    let mut meta = Vec::with_capacity(text.len());
    canonicaliser.value(&text, &mut meta).map_err(|error| match error.fault {
        // A place in a text that nobody sent tells nobody anything.
        Fault::DuplicateKey(_) => JsonError { at: 0, ..error },
        _ => error,
    })?;
    Ok(meta.into())
}

/// Whether the canonical object has a member of that name at its top.
fn has_member(object: &[u8], name: &str) -> bool {
    let members: Result<std::collections::BTreeMap<std::borrow::Cow<'_, str>, &serde_json::value::RawValue>, _> =
        serde_json::from_slice(object);
    members.is_ok_and(|members| members.contains_key(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ingest(body: &str) -> Result<NewRecord, RecordError> {
        Ingest::new("caudal", "UTC").event(body.as_bytes(), None).map(|ingested| ingested.record)
    }

    #[test]
    fn an_event_is_kept_in_its_canonical_form() {
        let body = r#"{"event_type":"MESSAGE_RECEIVED","payload":{"z":1,"message":"¿Qué tal?"},"user_id":"dr"}"#;
        let record = ingest(body).unwrap();
        assert_eq!(&record.body[..], r#"{"message": "¿Qué tal?", "z": 1}"#.as_bytes());
        assert_eq!(&record.meta[..], br#"{"source": "caudal", "timezone": "UTC", "user_id": "dr"}"#);
        assert_eq!(record.digest, sha256(&record.body));
        assert_eq!(&*record.kind, "MESSAGE_RECEIVED");
    }

    #[test]
    fn what_a_sender_says_about_an_event_is_kept_beside() {
        let body = r#"{"event_type":"MESSAGE_RECEIVED","payload":{"message":"x"},"user_id":"a","session_id":"s",
                       "metadata":{"source":"ward 3","bed":7}}"#;
        let expected = r#"{"bed": 7, "session_id": "s", "source": "ward 3", "timezone": "UTC", "user_id": "a"}"#;
        assert_eq!(&ingest(body).unwrap().meta[..], expected.as_bytes());
        // Who it was stands in one place.
        let twice =
            r#"{"event_type":"MESSAGE_RECEIVED","payload":{"message":"x"},"user_id":"a","metadata":{"user_id":"b"}}"#;
        assert!(ingest(twice).is_err());
    }

    #[test]
    fn what_was_said_of_one_sender_is_not_said_of_the_next() {
        let mut ingest = Ingest::new("caudal", "UTC");
        for user in ["a", "b", "b", "a"] {
            let body = format!(r#"{{"event_type":"MESSAGE_RECEIVED","payload":{{"message":"x"}},"user_id":"{user}"}}"#);
            let meta = ingest.event(body.as_bytes(), None).unwrap().record.meta;
            assert_eq!(meta, format!(r#"{{"source": "caudal", "timezone": "UTC", "user_id": "{user}"}}"#));
        }
    }
}
