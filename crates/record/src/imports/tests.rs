//! Events of other systems, translated.

use super::*;
use serde_json::{Value, json};

fn read(json: &str) -> (NewRecord, Value, Value) {
    let foreign = Foreign { given: "session_1", name: "session_1", from: "corpus.h5", at: "now" };
    let mut ingest = Ingest::new("import", "UTC");
    let own = event_id(json);
    let id = own.unwrap_or_else(|| derived("session_1", 1, json));
    let record = foreign.read(&mut ingest, json, id, own.is_some()).unwrap().record;
    let [body, meta] = [&record.body, &record.meta].map(|text| serde_json::from_slice(text).unwrap());
    (record, body, meta)
}

#[test]
fn nothing_that_an_event_said_is_lost() {
    let id = "8a6e0804-2bd0-4672-b79d-d97027f9071a";
    let event = json!({
        "event_id": id, "consultation_id": "session_1", "event_type": "MESSAGE_RECEIVED", "mood": "calm",
        "payload": {"message": "Hola"}, "metadata": {"user_id": "dr", "imported_at": "1999"},
        "timestamp": "2025-10-29T10:00:00+00:00", "audit_hash": "ab",
    });
    let (record, body, meta) = read(&event.to_string());
    assert_eq!((&*record.kind, record.id.to_string().as_str()), ("MESSAGE_RECEIVED", id));
    assert_eq!(body, json!({"message": "Hola"}));
    let expected = json!({
        "imported_at": "now", "imported_from": "corpus.h5", "original_timestamp": "2025-10-29T10:00:00+00:00",
        "occurred_at": "2025-10-29T10:00:00.000000Z",
        "original_audit_hash": "ab", "original_members": {"mood": "calm"}, "user_id": "dr",
        "original_metadata": {"imported_at": "1999"}, "source": "import", "timezone": "UTC",
    });
    assert_eq!(meta, expected);
}

#[test]
fn event_keeps_the_time_that_its_file_says() {
    let time = |event: Value| read(&event.to_string()).2["occurred_at"].clone();
    let at = json!("2025-10-29T16:00:00.000000Z");
    assert_eq!(time(json!({"timestamp": "2025-10-29T10:00:00-06:00"})), at);
    assert_eq!(time(json!({"created_at": "2025-10-29T16:00:00"})), at);
    assert_eq!(time(json!({"timestamp": 1_761_753_600})), at);
    assert_eq!(time(json!({"timestamp": 1_761_753_600_000_i64})), at);
    assert_eq!(time(json!({"timestamp": "soon", "metadata": {"timestamp": "2025-10-29T16:00:00Z"}})), at);
    let earlier = json!({"imported_at": "2025-12-01T00:00:00Z", "occurred_at": "2025-10-29T16:00:00Z"});
    assert_eq!(time(json!({"timestamp": "2025-12-01T00:00:00Z", "metadata": earlier})), at, "imported twice");
    assert_eq!(time(json!({"timestamp": "soon"})), Value::Null);
    let (record, ..) = read(&json!({"timestamp": "2025-10-29T10:00:00-06:00"}).to_string());
    assert_eq!(crate::event::occurred(&record.meta).map(iso), at.as_str().map(str::to_owned));
}

#[test]
fn types_that_are_not_ours_get_a_namespace() {
    let kind = |name: &str, payload: Value| {
        let (record, _, meta) = read(&json!({"event_type": name, "payload": payload}).to_string());
        (record.kind.to_string(), meta["original_event_type"].clone())
    };
    assert_eq!(kind("VITALS_SEEN", json!({})), ("imported:VITALS_SEEN".into(), json!("VITALS_SEEN")));
    assert_eq!(kind("clinic:NOTE", json!({})), ("clinic:NOTE".into(), Value::Null));
    assert_eq!(kind("two words", json!({})), ("imported:two_words".into(), json!("two words")));
    // One of ours that does not hold what it must.
    assert_eq!(kind("URGENCY_CLASSIFIED", json!({})).0, "imported:URGENCY_CLASSIFIED");
    assert_eq!(kind("MESSAGE_RECEIVED", json!("x")).0, "imported:MESSAGE_RECEIVED");
}

#[test]
fn what_is_no_json_is_kept_as_it_is() {
    for text in ["a text", r#"{"a": NaN}"#, r#"{"a": 1, "a": 2}"#, "[1]"] {
        let (record, body, _) = read(text);
        assert_eq!((&*record.kind, &body["text"]), ("imported:TEXT", &json!(text)));
    }
}

#[test]
fn names_become_names_that_can_be() {
    assert_eq!(our_name("session_1"), "session_1");
    for given in ["señora x", "", "../../etc", "..", &"x".repeat(300)] {
        assert!(named(&our_name(given)).is_ok(), "{given}: {}", our_name(given));
    }
    assert_ne!(our_name("a b"), our_name("a_b"));
}
