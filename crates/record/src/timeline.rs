//! What a timeline shows of events, and the four badges. A badge says `OK` only of what was computed for this answer.

use std::borrow::Cow;

use caudal_store::{Digest, Head, Record, StreamId, link};
use caudal_types::{ErrorKind, Explain, shorten};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::canonical::{canonical, sha256};
use crate::event::occurred;
use crate::hash::Hash;
use crate::kinds::Kind;
use crate::members::text;
use crate::raw::{Raw, is_filled, member};
use crate::time::iso;

/// Most hashes that are compared in one request.
pub const MOST_HASHES: usize = 100;

/// What a badge says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Badge {
    /// It was checked and holds.
    #[serde(rename = "OK")]
    Ok,
    /// It was checked and does not hold.
    #[serde(rename = "FAIL")]
    Fail,
    /// It has not been checked, or cannot be yet.
    #[serde(rename = "PENDING")]
    Pending,
    /// There is nothing to check.
    #[serde(rename = "N/A")]
    NotApplicable,
}

/// The four badges of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Badges {
    /// The payload makes the audit hash, and the event makes its link of the chain out of the link before. `PENDING`
    /// where the link before was not at hand: then the payload alone was checked, and a wrong one is `FAIL` all the same.
    pub hash_verified: Badge,
    /// Its type is ours and the payload holds what the type asks for, in canonical form; or its type is somebody's own,
    /// and the payload is in canonical form.
    pub policy_compliant: Badge,
    /// Whoever recorded it says that something was taken out: `redacted` or `redaction` in its metadata. Caudal takes
    /// nothing out, so `N/A` for all others, never `FAIL`: nobody can tell what should have been taken out.
    pub redaction_applied: Badge,
    /// Who said it is recorded (`user_id` in its metadata) and a head covers it. `PENDING` while no head does.
    pub audit_logged: Badge,
}

impl Badges {
    /// The badges of `record`, with the link before it where it is at hand, and the last head that covers events:
    /// the stream's own, or, for who wants more, the last one that was signed.
    pub fn of(record: &Record, before: Option<&Digest>, covered: Option<&Head>) -> Self {
        let meta = Raw::json_or_text(&record.meta);
        let says = |name| meta.member(name).is_some_and(|value| is_filled(value) && value != "false");
        let (digest, chain) = (sha256(&record.body), before.map(|before| link(before, &record.leaf())));
        Self {
            hash_verified: match chain {
                _ if digest != record.digest => Badge::Fail,
                None => Badge::Pending,
                Some(chain) => flag(chain == record.chain),
            },
            policy_compliant: flag(is_compliant(record)),
            redaction_applied: if says("redacted") || says("redaction") { Badge::Ok } else { Badge::NotApplicable },
            audit_logged: match covered {
                _ if !says("user_id") => Badge::Fail,
                Some(head) if head.sequence >= record.sequence => Badge::Ok,
                _ => Badge::Pending,
            },
        }
    }
}

fn flag(holds: bool) -> Badge {
    if holds { Badge::Ok } else { Badge::Fail }
}

fn is_compliant(record: &Record) -> bool {
    let Ok(kind) = Kind::read(&record.kind) else { return false };
    canonical(&record.body).is_ok_and(|form| form == record.body)
        && kind.is_none_or(|kind| kind.check(&record.body).is_ok())
}

/// An event on a timeline.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TimelineItem {
    /// Its own name.
    pub event_id: Uuid,
    /// The consultation it belongs to.
    pub consultation_id: String,
    /// Its place.
    pub sequence: u64,
    /// When it was appended.
    pub timestamp: String,
    /// When it happened, where it was imported and had a time of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<String>,
    /// Its type.
    pub event_type: String,
    /// Who said it.
    pub user_id: Option<String>,
    /// What it is about, in at most 80 letters: the words of a message, else the names of what it holds.
    pub summary: String,
    /// How many bytes its payload has.
    pub payload_bytes: usize,
    /// SHA-256 of the payload.
    pub audit_hash: Hash,
    /// What was checked.
    pub badges: Badges,
}

impl TimelineItem {
    /// How `record` is shown; see [`Badges::of`].
    pub fn of(stream: &StreamId, record: &Record, before: Option<&Digest>, covered: Option<&Head>) -> Self {
        let user = Raw::json_or_text(&record.meta).member("user_id").and_then(text).map(Cow::into_owned);
        Self {
            event_id: record.id,
            consultation_id: stream.name.as_ref().into(),
            sequence: record.sequence,
            timestamp: iso(record.time),
            occurred_at: occurred(&record.meta).map(iso),
            event_type: record.kind.as_ref().into(),
            user_id: user,
            summary: summary(std::str::from_utf8(&record.body).unwrap_or_default()),
            payload_bytes: record.body.len(),
            audit_hash: record.digest.into(),
            badges: Badges::of(record, before, covered),
        }
    }
}

fn summary(payload: &str) -> String {
    const SAID: [&str; 8] = [
        "message_content",
        "updated_content",
        "message",
        "content",
        "pattern_name",
        "urgency_level",
        "error_message",
        "section",
    ];
    match SAID.iter().find_map(|name| member(payload, name)).and_then(text) {
        Some(said) => shorten(&said).into_owned(),
        None => {
            let names: Vec<_> = crate::members::Members::of(payload).map(|(name, _)| name).take(20).collect();
            shorten(&names.join(", ")).into_owned()
        }
    }
}

/// A hash that somebody expects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedHash {
    /// An event, or a consultation.
    pub target_id: String,
    /// Its audit hash, or the consultation's last link, as 64 hexadecimal digits.
    pub expected_hash: String,
}

/// What came of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComparedHash {
    /// What was asked about.
    pub target_id: String,
    /// Whether it is there and its hash is the expected one.
    pub valid: bool,
    /// What its content makes now; `None` if it is not there.
    pub computed_hash: Option<Hash>,
    /// What was expected.
    pub expected_hash: String,
    /// Whether the two are the same.
    #[serde(rename = "match")]
    pub matches: bool,
    /// Why it is not valid.
    pub error: Option<&'static str>,
}

/// What came of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComparedHashes {
    /// Whether all are valid.
    pub all_valid: bool,
    /// One by one, in the order asked.
    pub items: Vec<ComparedHash>,
    /// How many there were.
    pub total: usize,
    /// How many are valid.
    pub valid: usize,
    /// How many are not.
    pub invalid: usize,
}

/// A request to compare nothing, or too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{found} hashes to compare; from 1 to {MOST_HASHES} are taken")]
pub struct HashCount {
    /// How many there were.
    pub found: usize,
}

impl Explain for HashCount {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidParameter
    }

    fn hint(&self) -> Cow<'static, str> {
        "send items: 1 to 100 objects with target_id and expected_hash".into()
    }
}

/// Checks that so many hashes may be compared in one request.
///
/// # Errors
/// None, or more than [`MOST_HASHES`].
pub fn check_count(found: usize) -> Result<(), HashCount> {
    if (1..=MOST_HASHES).contains(&found) { Ok(()) } else { Err(HashCount { found }) }
}

/// Compares one: `computed` is what the target's content makes now, `None` where there is no such target.
pub fn compare(expected: ExpectedHash, computed: Option<Digest>) -> ComparedHash {
    let ExpectedHash { target_id, expected_hash } = expected;
    let hash = expected_hash.parse::<Hash>();
    let matches = computed.is_some_and(|computed| hash == Ok(Hash::from(computed)));
    let error = match (&hash, computed) {
        (Err(_), _) => Some("expected_hash is not 64 hexadecimal digits"),
        (_, None) => Some("there is no such event or consultation"),
        (Ok(_), Some(_)) => (!matches).then_some("the hash differs"),
    };
    ComparedHash { target_id, valid: matches, computed_hash: computed.map(Hash::from), expected_hash, matches, error }
}

/// Sums up.
pub fn sum_up(items: Vec<ComparedHash>) -> ComparedHashes {
    let (total, valid) = (items.len(), items.iter().filter(|item| item.valid).count());
    ComparedHashes { all_valid: valid == total, items, total, valid, invalid: total - valid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::tests::{records, stream};
    use bytes::Bytes;
    use serde_json::json;

    fn some() -> Vec<Record> {
        records(&[
            ("MESSAGE_RECEIVED", json!({ "message": "Hola" })),
            ("URGENCY_CLASSIFIED", json!({ "urgency_level": "dire" })),
            ("clinic:NOTE", json!({ "uno": 1, "dos": 2 })),
        ])
    }

    fn badges(record: &Record, before: Option<&Digest>, covered: Option<u64>) -> [Badge; 4] {
        let head = covered.map(|sequence| Head { sequence, time: 0, chain: [0; 32] });
        let badges = Badges::of(record, before, head.as_ref());
        [badges.hash_verified, badges.policy_compliant, badges.redaction_applied, badges.audit_logged]
    }

    #[test]
    fn badges_say_what_was_checked() {
        use Badge::{Fail, NotApplicable, Ok, Pending};
        let records = some();
        let first = Some(&records[0].chain);
        // "dire" is no level: the check on the way in would not have taken it.
        assert_eq!(badges(&records[1], first, Some(2)), [Ok, Fail, NotApplicable, Ok]);
        assert_eq!(badges(&records[2], Some(&records[1].chain), Some(2)), [Ok, Ok, NotApplicable, Pending]);
        assert_eq!(badges(&records[2], first, None), [Fail, Ok, NotApplicable, Pending]);
        assert_eq!(badges(&records[0], None, Some(9)), [Pending, Ok, NotApplicable, Ok]);
        let mut changed = records[0].clone();
        changed.body = Bytes::from_static(br#"{"message":"Hola"}"#);
        assert_eq!(badges(&changed, None, Some(9)), [Fail, Fail, NotApplicable, Ok]);
        changed.meta = Bytes::from_static(br#"{"user_id": "", "redacted": true}"#);
        assert_eq!(badges(&changed, None, Some(9)), [Fail, Fail, Ok, Fail]);
    }

    #[test]
    fn an_item_says_what_it_is_about() {
        let item = |record: &Record| serde_json::to_value(TimelineItem::of(&stream(), record, None, None)).unwrap();
        let records = some();
        let message = item(&records[0]);
        assert_eq!((&message["summary"], &message["user_id"]), (&json!("Hola"), &json!("dra. López")));
        assert_eq!(message["badges"]["hash_verified"], "PENDING");
        assert_eq!(message["badges"]["redaction_applied"], "N/A");
        assert_eq!(item(&records[2])["summary"], "dos, uno");
    }

    #[test]
    fn hashes_are_compared() {
        let digest = sha256(b"x");
        let expected = |hash: String| ExpectedHash { target_id: "e".into(), expected_hash: hash };
        let right = Hash::from(digest).to_string();
        let items = vec![
            compare(expected(right.to_uppercase()), Some(digest)),
            compare(expected("00".repeat(32)), Some(digest)),
            compare(expected(right), None),
            compare(expected("x".into()), Some(digest)),
        ];
        let errors: Vec<_> = items.iter().map(|item| item.error.map(|error| &error[..8])).collect();
        assert_eq!(errors, [None, Some("the hash"), Some("there is"), Some("expected")]);
        let sum = sum_up(items);
        assert_eq!((sum.all_valid, sum.total, sum.valid, sum.invalid), (false, 4, 1, 3));
        assert_eq!(check_count(0), Err(HashCount { found: 0 }));
        assert!(check_count(1).is_ok() && check_count(100).is_ok() && check_count(101).is_err());
    }
}
