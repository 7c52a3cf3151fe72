//! A stream read again, record by record, and everything about it computed anew. It needs neither the store nor the
//! whole stream at once.

use caudal_store::{Digest, Head, Record, StreamId, Time, link, origin};
use uuid::Uuid;

use crate::canonical::{Canonicaliser, JsonError, sha256};
use crate::hash::Hash;
use crate::proof::{HeadFault, SignedHead, Tree, VerifyingKey};

/// Checks the records of a stream in order.
#[derive(Debug)]
pub struct Verifier {
    stream: StreamId,
    head: Head,
    tree: Tree,
    canonicaliser: Canonicaliser,
    form: Vec<u8>,
}

/// The first record that is not as it must be, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {sequence} ({id}): {fault}")]
pub struct BadRecord {
    /// The place that the record claims.
    pub sequence: u64,
    /// Its name.
    pub id: Uuid,
    /// What is wrong.
    pub fault: RecordFault,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Records before it are missing, or it stands there twice.
    #[error("event {expected} should stand here")]
    Sequence {
        /// The place that should follow.
        expected: u64,
    },
    /// It is earlier than the record before it.
    #[error("its time {found} is earlier than that of the event before, {before}")]
    Time {
        /// The time of the record before.
        before: Time,
        /// Its own.
        found: Time,
    },
    /// Its payload is not JSON.
    #[error("its payload is not JSON: {0}")]
    NotJson(JsonError),
    /// Its payload is JSON in another form.
    #[error("its payload is not in canonical form")]
    NotCanonical,
    /// Its payload is not the one that was hashed.
    #[error("its payload's hash is {computed}, recorded is {recorded}")]
    Digest {
        /// What stands in the record.
        recorded: Hash,
        /// What the payload makes.
        computed: Hash,
    },
    /// It does not continue the chain: it was changed, or the record before it was.
    #[error("it makes the link {computed}, recorded is {recorded}")]
    Chain {
        /// What stands in the record.
        recorded: Hash,
        /// What the record and the link before make.
        computed: Hash,
    },
}

/// Why records and a head do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadMismatch {
    /// The head is about another stream.
    #[error("the head is one of {0}")]
    OtherStream(String),
    /// There are more or fewer records.
    #[error("the head tells of {told} events, there are {found}")]
    Count {
        /// What the head says.
        told: u64,
        /// What was read.
        found: u64,
    },
    /// The last link, the root or the time is another.
    #[error("the {what} differs: the head says {told}, the events make {found}")]
    Differs {
        /// Which.
        what: &'static str,
        /// What the head says.
        told: String,
        /// What was computed.
        found: String,
    },
    /// It was not signed as it should be.
    #[error(transparent)]
    Signature(#[from] HeadFault),
}

impl Verifier {
    /// For a stream from its first record on, made at `created` with `meta` said of it.
    pub fn new(stream: StreamId, created: Time, meta: &[u8]) -> Self {
        let head = Head { sequence: 0, time: created, chain: origin(&stream, created, meta) };
        Self::resume(stream, head, Tree::default())
    }

    /// For what follows `head`, whose leaves make `tree`. What is before is taken as given.
    pub fn resume(stream: StreamId, head: Head, tree: Tree) -> Self {
        // What was recorded had the depth that was allowed then.
        Self { stream, head, tree, canonicaliser: Canonicaliser::new(u8::MAX), form: Vec::new() }
    }

    /// Checks the next record.
    ///
    /// # Errors
    /// The first thing that is wrong with it. Nothing is known of what follows such a record.
    pub fn check(&mut self, record: &Record) -> Result<(), BadRecord> {
        self.compute(record).map_err(|fault| BadRecord { sequence: record.sequence, id: record.id, fault })
    }

    fn compute(&mut self, record: &Record) -> Result<(), RecordFault> {
        let expected = self.head.sequence + 1;
        if record.sequence != expected {
            return Err(RecordFault::Sequence { expected });
        }
        if record.time < self.head.time {
            return Err(RecordFault::Time { before: self.head.time, found: record.time });
        }
        let computed = sha256(&record.body);
        if computed != record.digest {
            return Err(RecordFault::Digest { recorded: record.digest.into(), computed: computed.into() });
        }
        let leaf = record.leaf();
        let computed = link(&self.head.chain, &leaf);
        if computed != record.chain {
            return Err(RecordFault::Chain { recorded: record.chain.into(), computed: computed.into() });
        }
        self.form.clear();
        self.canonicaliser.value(&record.body, &mut self.form).map_err(RecordFault::NotJson)?;
        if self.form != record.body {
            return Err(RecordFault::NotCanonical);
        }
        self.head = Head { sequence: record.sequence, time: record.time, chain: computed };
        self.tree.push(leaf);
        Ok(())
    }

    /// How far the records that were checked come.
    pub fn head(&self) -> Head {
        self.head
    }

    /// The root over their leaves.
    pub fn root(&self) -> Digest {
        self.tree.root()
    }

    /// The tree of their leaves.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Whether they are what a store says of the stream.
    ///
    /// # Errors
    /// What differs first.
    pub fn compare(&self, head: &Head) -> Result<(), HeadMismatch> {
        let found = &self.head;
        if head.sequence != found.sequence {
            return Err(HeadMismatch::Count { told: head.sequence, found: found.sequence });
        }
        differ("last link", Hash::from(head.chain), Hash::from(found.chain))?;
        differ("time", head.time, found.time)
    }

    /// Whether they are what a head that was exported says, and, where a key is given, whether that key signed it.
    ///
    /// # Errors
    /// What differs first.
    pub fn compare_signed(&self, head: &SignedHead, key: Option<&VerifyingKey>) -> Result<(), HeadMismatch> {
        if *head.space != *self.stream.space || *head.consultation != *self.stream.name {
            return Err(HeadMismatch::OtherStream(format!("{} {}", head.space, head.consultation)));
        }
        self.compare(&Head { sequence: head.sequence, time: head.time, chain: head.chain_hash.0 })?;
        differ("root", head.root, Hash::from(self.root()))?;
        key.map_or(Ok(()), |key| Ok(head.verify(key)?))
    }
}

fn differ<T: PartialEq + ToString>(what: &'static str, told: T, found: T) -> Result<(), HeadMismatch> {
    if told == found {
        return Ok(());
    }
    Err(HeadMismatch::Differs { what, told: told.to_string(), found: found.to_string() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::canonical::canonical;
    use crate::proof::SigningKey;
    use bytes::Bytes;
    use serde_json::{Value, json};

    /// The stream that tests are about.
    pub(crate) fn stream() -> StreamId {
        StreamId::new("consultation", "c-1")
    }

    /// A stream of records as a store keeps them, one a second.
    pub(crate) fn records(events: &[(&str, Value)]) -> Vec<Record> {
        let mut before = origin(&stream(), 0, b"");
        let mut make = |(index, (kind, payload)): (usize, &(&str, Value))| {
            let body = Bytes::from(canonical(payload.to_string().as_bytes()).unwrap());
            let sequence = index as u64 + 1;
            let mut record = Record {
                sequence,
                time: sequence as i64 * 1_000_000,
                id: Uuid::from_u128(sequence.into()),
                kind: (*kind).into(),
                meta: Bytes::from_static(br#"{"source": "test", "user_id": "dra. L\u00f3pez"}"#),
                digest: sha256(&body),
                body,
                chain: [0; 32],
            };
            record.chain = link(&before, &record.leaf());
            before = record.chain;
            record
        };
        events.iter().enumerate().map(&mut make).collect()
    }

    fn messages(count: usize) -> Vec<Record> {
        let events: Vec<_> =
            (0..count).map(|n| ("MESSAGE_RECEIVED", json!({ "message": format!("ñ {n}"), "n": n }))).collect();
        records(&events)
    }

    fn verify(records: &[Record]) -> Result<Verifier, BadRecord> {
        let mut verifier = Verifier::new(stream(), 0, b"");
        records.iter().try_for_each(|record| verifier.check(record))?;
        Ok(verifier)
    }

    /// What is found when `change` was done to the third of five records.
    fn after(change: impl FnOnce(&mut Record)) -> (u64, RecordFault) {
        let mut records = messages(5);
        change(&mut records[2]);
        let bad = verify(&records).unwrap_err();
        (bad.sequence, bad.fault)
    }

    /// The same, with the record's own hashes made to fit, as one would who knows how.
    fn forged(change: impl FnOnce(&mut Record)) -> (u64, RecordFault) {
        let before = messages(5)[1].chain;
        after(|record| {
            change(record);
            record.digest = sha256(&record.body);
            record.chain = link(&before, &record.leaf());
        })
    }

    #[test]
    fn a_good_stream_is_good() {
        let records = messages(5);
        let verifier = verify(&records).unwrap();
        assert_eq!(verifier.head(), Head { sequence: 5, time: 5_000_000, chain: records[4].chain });
        let leaves: Vec<_> = records.iter().map(Record::leaf).collect();
        assert_eq!(verifier.root(), crate::proof::merkle::root(&leaves));
        let empty = Verifier::new(stream(), 7, b"");
        assert_eq!(empty.compare(&Head { sequence: 0, time: 7, chain: origin(&stream(), 7, b"") }), Ok(()));
    }

    #[test]
    fn whatever_is_changed_shows() {
        let digest = |found: &(u64, RecordFault)| found.0 == 3 && matches!(found.1, RecordFault::Digest { .. });
        let chain = |found: &(u64, RecordFault)| found.0 == 3 && matches!(found.1, RecordFault::Chain { .. });
        assert!(digest(&after(|record| record.body = Bytes::from_static(br#"{"message": "other"}"#))));
        assert!(chain(&after(|record| record.time += 1)));
        assert!(chain(&after(|record| record.id = Uuid::nil())));
        assert!(chain(&after(|record| record.kind = "MESSAGE_DELETED".into())));
        assert!(chain(&after(|record| record.meta = Bytes::from_static(b"{}"))));
        assert!(chain(&after(|record| record.chain[0] ^= 1)));
        assert!(matches!(after(|record| record.digest[0] ^= 1), (3, RecordFault::Digest { .. })));
    }

    #[test]
    fn who_forges_a_record_must_forge_all_that_follow() {
        let body = |text: &'static str| move |record: &mut Record| record.body = Bytes::from_static(text.as_bytes());
        assert!(matches!(forged(body(r#"{"message": "other"}"#)), (4, RecordFault::Chain { .. })));
        // And what is no canonical JSON is found even so.
        assert_eq!(forged(body(r#"{"b":1}"#)), (3, RecordFault::NotCanonical));
        assert!(matches!(forged(body("{")), (3, RecordFault::NotJson(_))));
        assert_eq!(forged(|record| record.time = 1), (3, RecordFault::Time { before: 2_000_000, found: 1 }));
    }

    #[test]
    fn what_is_missing_moved_or_double_shows() {
        let sequence = |records: &[Record]| {
            let bad = verify(records).unwrap_err();
            (bad.sequence, bad.fault)
        };
        let mut records = messages(5);
        let third = records.remove(2);
        assert_eq!(sequence(&records), (4, RecordFault::Sequence { expected: 3 }));
        records.insert(3, third);
        assert_eq!(sequence(&records), (4, RecordFault::Sequence { expected: 3 }));
        let mut records = messages(2);
        records.push(records[1].clone());
        assert_eq!(sequence(&records), (2, RecordFault::Sequence { expected: 3 }));
        // Renumbered, the chain tells.
        let mut records = messages(5);
        records.remove(2);
        records[2].sequence = 3;
        assert!(matches!(sequence(&records), (3, RecordFault::Chain { .. })));
    }

    #[test]
    fn what_is_cut_off_shows_against_a_head() {
        let records = messages(5);
        let whole = verify(&records).unwrap();
        let key = SigningKey::from_bytes(&[7; 32]);
        let head = SignedHead::new(&stream(), &whole.head(), whole.root()).sign(&key);
        assert_eq!(whole.compare_signed(&head, Some(&key.verifying_key())), Ok(()));

        let cut = verify(&records[..4]).unwrap();
        assert_eq!(cut.compare(&whole.head()), Err(HeadMismatch::Count { told: 5, found: 4 }));
        let differs = |head: &SignedHead| match whole.compare_signed(head, None) {
            Err(HeadMismatch::Differs { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(differs(&SignedHead { chain_hash: [0; 32].into(), ..head.clone() }), "last link");
        assert_eq!(differs(&SignedHead { root: [0; 32].into(), ..head.clone() }), "root");
        assert_eq!(differs(&SignedHead { time: 0, ..head.clone() }), "time");
        let other = SignedHead { consultation: "c-2".into(), ..head.clone() };
        assert!(matches!(whole.compare_signed(&other, None), Err(HeadMismatch::OtherStream(_))));
        let stranger = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert_eq!(whole.compare_signed(&head, Some(&stranger)), Err(HeadMismatch::Signature(HeadFault::OtherKey)));
    }

    #[test]
    fn checking_goes_on_where_it_stopped() {
        let records = messages(9);
        let first = verify(&records[..4]).unwrap();
        let mut second = Verifier::resume(stream(), first.head(), first.tree().clone());
        records[4..].iter().try_for_each(|record| second.check(record)).unwrap();
        assert_eq!(second.root(), verify(&records).unwrap().root());
    }
}
