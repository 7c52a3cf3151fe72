//! State kept beside the events, so that a read need not replay all of them, and its seal: a keyed hash that binds it to
//! its consultation and to the chain. A state that the events did not make has no seal that fits, and is never shown.

use bytes::Bytes;
use caudal_store::{Digest, Record, Snapshot, Stream, link};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::state::State;

/// The form of what is kept. It changes whenever the same events come to something else.
const FORM: u8 = 2;
/// Bytes before the state: form, key id, link, seal.
const HEAD: usize = 1 + 8 + 32 + 32;

/// The key that seals kept states.
#[derive(Clone, Copy)]
pub(crate) struct StateKey {
    secret: Digest,
    id: [u8; 8],
}

impl std::fmt::Debug for StateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StateKey")
    }
}

/// A state as of some event, and the chain's link at that event.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeptState {
    pub(crate) state: State,
    pub(crate) link: Digest,
}

/// What a kept state is worth.
#[derive(Debug, PartialEq)]
pub(crate) enum Opened {
    /// This key sealed it for this consultation.
    Good(Box<KeptState>),
    /// It has another form, or another key sealed it: it is not used.
    Foreign,
    /// It says that this key sealed it, and it did not, or not for this consultation.
    Forged,
}

#[derive(Serialize)]
struct Written<'a> {
    state: &'a State,
}

#[derive(Deserialize)]
struct Read {
    state: State,
}

impl StateKey {
    /// The key that follows from a signing key's secret. Nothing of that secret can be learned from it.
    pub(crate) fn of(secret: &[u8; 32]) -> Self {
        let derive = |purpose: &str| -> Digest {
            let mut hash = Sha256::new();
            hash.update(purpose);
            hash.update(secret);
            hash.finalize().into()
        };
        let [a, b, c, d, e, f, g, h, ..] = derive("caudal state key id 1\0");
        Self { secret: derive("caudal state key 1\0"), id: [a, b, c, d, e, f, g, h] }
    }

    /// The seal of `body` as the state of `stream` at `sequence`, where the chain has the link `link`.
    fn seal(&self, stream: &Stream, sequence: u64, link: &Digest, body: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).ok()?;
        let (sequence, created) = (sequence.to_be_bytes(), stream.created.to_be_bytes());
        let (space, name, origin) = (stream.id.space.as_bytes(), stream.id.name.as_bytes(), stream.origin());
        let parts: [&[u8]; 8] = [b"caudal state 2", space, name, &created, &origin, &sequence, link, body];
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        Some(mac)
    }

    /// A state of `stream`, sealed.
    pub(crate) fn close(&self, stream: &Stream, kept: &KeptState) -> Option<Snapshot> {
        let sequence = kept.state.sequence;
        let json = serde_json::to_vec(&Written { state: &kept.state }).ok()?;
        let seal: Digest = self.seal(stream, sequence, &kept.link, &json)?.finalize().into_bytes().into();
        let mut body = Vec::with_capacity(HEAD + json.len());
        body.push(FORM);
        body.extend_from_slice(&self.id);
        body.extend_from_slice(&kept.link);
        body.extend_from_slice(&seal);
        body.extend_from_slice(&json);
        Some(Snapshot { sequence, body: Bytes::from(body) })
    }

    /// What was kept of `stream`, if this key sealed it.
    pub(crate) fn open(&self, stream: &Stream, snapshot: &Snapshot) -> Opened {
        let Some((head, json)) = snapshot.body.split_at_checked(HEAD) else { return Opened::Foreign };
        let (id, link, seal) = (&head[1..9], &head[9..41], &head[41..]);
        if head[0] != FORM || *id != self.id {
            return Opened::Foreign;
        }
        let Ok(link) = Digest::try_from(link) else { return Opened::Foreign };
        let Some(mac) = self.seal(stream, snapshot.sequence, &link, json) else { return Opened::Foreign };
        if mac.verify_slice(seal).is_err() {
            return Opened::Forged;
        }
        match serde_json::from_slice::<Read>(json) {
            Ok(Read { state }) if state.sequence == snapshot.sequence => {
                Opened::Good(Box::new(KeptState { state, link }))
            }
            _ => Opened::Foreign,
        }
    }
}

impl KeptState {
    /// Whether `next`, the event after the state, continues the chain that the state was made of.
    pub(crate) fn precedes(&self, next: &Record) -> bool {
        next.sequence == self.state.sequence + 1 && link(&self.link, &next.leaf()) == next.chain
    }
}

#[cfg(test)]
mod tests {
    use caudal_store::{Head, StreamId};

    use super::*;

    fn stream(name: &str, meta: &'static str) -> Stream {
        let head = Head { sequence: 9, time: 5, chain: [9; 32] };
        let meta = Bytes::from_static(meta.as_bytes());
        Stream { id: StreamId::new("consultation", name), meta, created: 5, head, sealed: 0 }
    }

    fn kept(sequence: u64) -> KeptState {
        KeptState { state: State { sequence, event_count: sequence, ..State::default() }, link: [7; 32] }
    }

    #[test]
    fn kept_state_opens_as_it_was_closed() {
        let (key, stream) = (StateKey::of(&[1; 32]), stream("a", "{}"));
        let snapshot = key.close(&stream, &kept(4)).unwrap();
        assert_eq!(key.open(&stream, &snapshot), Opened::Good(Box::new(kept(4))));
    }

    #[test]
    fn kept_state_that_was_changed_or_moved_is_forged() {
        let (key, own) = (StateKey::of(&[1; 32]), stream("a", "{}"));
        let snapshot = key.close(&own, &kept(4)).unwrap();
        for place in 9..snapshot.body.len() {
            let mut body = snapshot.body.to_vec();
            body[place] ^= 1;
            let changed = Snapshot { sequence: 4, body: body.into() };
            assert_eq!(key.open(&own, &changed), Opened::Forged, "byte {place}");
        }
        let moved = Snapshot { sequence: 5, ..snapshot.clone() };
        assert_eq!(key.open(&own, &moved), Opened::Forged, "another sequence");
        assert_eq!(key.open(&stream("b", "{}"), &snapshot), Opened::Forged, "another consultation");
        assert_eq!(key.open(&stream("a", "{\"user_id\":\"b\"}"), &snapshot), Opened::Forged, "another beginning");
    }

    #[test]
    fn kept_state_of_another_key_or_form_is_not_used() {
        let (key, own) = (StateKey::of(&[1; 32]), stream("a", "{}"));
        let snapshot = StateKey::of(&[2; 32]).close(&own, &kept(4)).unwrap();
        assert_eq!(key.open(&own, &snapshot), Opened::Foreign);
        let old = Snapshot { sequence: 4, body: Bytes::from_static(b"{\"form\":1,\"state\":{}}") };
        assert_eq!(key.open(&own, &old), Opened::Foreign);
    }
}
