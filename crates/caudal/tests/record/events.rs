//! Consultations made, events appended, one or several.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use caudal_testkit::http::post;
use serde_json::{Value, json};

use crate::{JSON, SHARED, all, append, batch, count, either, fill, keyed, make, message, read, refused, well, whole};

#[test]
fn a_consultation_is_made_once_under_one_key() {
    let server = SHARED.get();
    let body = r#"{"user_id":"dra","patient_stub":{"age":40}}"#;
    let first = server.post_json("/consultations", body);
    assert_eq!(first.status, 201);
    let first = first.json();
    for field in ["consultation_id", "session_id", "created_at"] {
        assert!(!first[field].as_str().unwrap().is_empty(), "{first}");
    }
    assert_ne!(first["consultation_id"], well(&server.post_json("/consultations", body))["consultation_id"]);

    let made = well(&keyed(&server, "/consultations", "visit-1", body));
    assert!(made.get("repeated").is_none());
    let again = keyed(&server, "/consultations", "visit-1", body);
    assert_eq!((again.status, &again.json()["repeated"]), (201, &json!(true)));
    for field in ["consultation_id", "session_id", "created_at"] {
        assert_eq!(again.json()[field], made[field]);
    }
    let other = keyed(&server, "/consultations", "visit-1", r#"{"user_id":"dra","patient_stub":{"age":41}}"#);
    refused(&other, 422, "idempotency_key_reused");
    // Somebody else's key is another key.
    let stranger = well(&keyed(&server, "/consultations", "visit-1", r#"{"user_id":"dr"}"#));
    assert_ne!(stranger["consultation_id"], made["consultation_id"]);

    let named = r#"{"user_id":"dra","consultation_id":"ward-3.bed:7_a","session_id":"s-1"}"#;
    let answer = well(&server.post_json("/consultations", named));
    assert_eq!((&answer["consultation_id"], &answer["session_id"]), (&json!("ward-3.bed:7_a"), &json!("s-1")));
    refused(&server.post_json("/consultations", named), 409, "exists");
    let about = &read(&server, "/consultations/ward-3.bed:7_a")["consultation"]["about"];
    assert_eq!(*about, json!({"user_id": "dra", "session_id": "s-1"}));
}

#[test]
fn what_is_appended_is_told_with_its_hashes() {
    let server = SHARED.get();
    let id = make(&server);
    // The expected hash is that of Python: sha256(json.dumps(payload, sort_keys=True, ensure_ascii=False).encode()).
    let body = r#"{"event_type":"MESSAGE_RECEIVED","user_id":"dra","session_id":"s","metadata":{"bed":7},"payload":
        {"z":[1,2.50,-0.0,1e22,1e-7,12345678901234567890123],
         "message":"¿Qué «ñ» \u0007\u0000\u007f\n\ud83d\ude00 \/?","a":{"ü":null,"b":true,"a\"":[]}}}"#;
    let answer = append(&server, &id, body);
    let one = well(&answer);
    assert_eq!(answer.status, 201);
    assert_eq!((&one["sequence"], &one["event_count"], &one["consultation_id"]), (&json!(1), &json!(1), &json!(id)));
    assert_eq!(one["audit_hash"], "aa6d70ae575c4c17e5296bf8cab3b76218d53cd5401c2afeeb324b7b220e8aee");
    assert!(one["timestamp"].as_str().unwrap().ends_with('Z') && one.get("repeated").is_none(), "{one}");
    let timing = answer.header("server-timing");
    for stage in ["ingest", "segment", "hash", "persist"] {
        assert!(timing.split(", ").any(|part| part.starts_with(&format!("{stage};dur="))), "{timing}");
    }

    let told = read(&server, &format!("/consultations/{id}/events/1"));
    for field in ["event_id", "sequence", "timestamp", "audit_hash", "chain_hash"] {
        assert_eq!(told[field], one[field], "{field}");
    }
    let metadata = json!({"bed": 7, "session_id": "s", "source": "caudal", "timezone": "UTC", "user_id": "dra"});
    assert_eq!(told["metadata"], metadata);
    assert_eq!(told["payload"]["message"], "¿Qué «ñ» \u{7}\u{0}\u{7f}\n😀 /?");
    // As they were sent, digit by digit; a JSON parser would round them.
    let text = server.get(&format!("/consultations/{id}/events/1")).text();
    assert!(text.contains("[1, 2.5, -0.0, 1e+22, 1e-07, 12345678901234567890123]"), "{text}");

    let second = well(&append(&server, &id, &message(2)));
    assert_eq!((&second["sequence"], &second["event_count"]), (&json!(2), &json!(2)));
    assert_ne!(second["chain_hash"], one["chain_hash"]);
    assert_eq!(read(&server, &format!("/consultations/{id}"))["consultation"]["chain_hash"], second["chain_hash"]);
    assert_eq!(whole(&server, &id), 2);
}

#[test]
fn the_same_request_under_the_same_key_is_done_once() {
    let server = SHARED.get();
    let id = make(&server);
    let (one, several) = (format!("/consultations/{id}/events"), format!("/consultations/{id}/events/batch"));
    let first = well(&keyed(&server, &one, "k-1", &message(1)));
    well(&append(&server, &id, &message(2)));
    let again = keyed(&server, &one, "k-1", &message(1));
    assert_eq!(again.status, 201);
    let mut expected = first.clone();
    expected["repeated"] = true.into();
    assert_eq!(again.json(), expected, "the first answer, whatever came since");
    refused(&keyed(&server, &one, "k-1", &message(9)), 422, "idempotency_key_reused");

    let body = format!(r#"{{"events":[{},{}]}}"#, message(3), message(4));
    let first = well(&keyed(&server, &several, "k-2", &body));
    well(&append(&server, &id, &message(5)));
    let mut again = well(&keyed(&server, &several, "k-2", &body));
    assert_eq!(again["repeated"].take(), true);
    again.as_object_mut().unwrap().remove("repeated");
    assert_eq!(again, first);
    refused(
        &keyed(&server, &several, "k-2", &format!(r#"{{"events":[{}]}}"#, message(3))),
        422,
        "idempotency_key_reused",
    );
    assert_eq!(crate::numbers(&all(&server, &id)), [1, 2, 3, 4, 5]);

    refused(&keyed(&server, &one, "", &message(1)), 400, "invalid_parameter");
    refused(&keyed(&server, &one, &"k".repeat(256), &message(1)), 400, "invalid_parameter");
    assert_eq!(count(&server, &id), 5);
}

#[test]
fn many_who_send_the_same_at_once_record_it_once() {
    let server = SHARED.get();
    let id = make(&server);
    let path = format!("/consultations/{id}/events");
    let answers: Vec<Value> = thread::scope(|scope| {
        let senders: Vec<_> =
            (0..8).map(|_| scope.spawn(|| well(&keyed(&server, &path, "one", &message(1))))).collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| answer["event_id"] == answers[0]["event_id"]), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer.get("repeated").is_none()).count(), 1);
    assert_eq!(count(&server, &id), 1);
}

#[test]
fn a_batch_is_recorded_whole_or_not_at_all() {
    let server = SHARED.get();
    let id = make(&server);
    let events = |bad: &str| format!(r#"{{"events":[{},{},{bad}]}}"#, message(1), message(2));
    let words = refused(&batch(&server, &id, &events(r#"{"event_type":"NONE","payload":{}}"#)), 422, "invalid_event");
    assert!(words.contains("event 2 of the batch") && words.contains("none was recorded"), "{words}");
    let bad = batch(&server, &id, &events(r#"{"event_type":"MESSAGE_RECEIVED","payload":{"message":7}}"#));
    refused(&bad, 422, "invalid_event");
    assert_eq!(bad.json()["error"]["details"]["event"], 2);
    refused(&batch(&server, &id, &events(r#"{"event_type":"a:B","payload":{"a":1,"a":2}}"#)), 400, "invalid_json");
    refused(&batch(&server, &id, r#"{"events":[]}"#), 400, "empty_body");
    assert_eq!(count(&server, &id), 0);

    let good = well(&batch(&server, &id, &events(&message(3))));
    assert_eq!(
        (&good["first_sequence"], &good["last_sequence"], &good["event_count"]),
        (&json!(1), &json!(3), &json!(3))
    );
    let told = all(&server, &id);
    for (sent, told) in good["events"].as_array().unwrap().iter().zip(&told) {
        for field in ["event_id", "sequence", "audit_hash"] {
            assert_eq!(sent[field], told[field]);
        }
    }
    assert_eq!((crate::numbers(&told), whole(&server, &id)), (vec![1, 2, 3], 3));
}

#[test]
fn who_expects_another_version_is_told_the_real_one() {
    let server = SHARED.get();
    let id = make(&server);
    let at = |version: u64| message(1).replacen('{', &format!(r#"{{"expected_version":{version},"#), 1);
    assert_eq!(append(&server, &id, &at(0)).status, 201);
    let conflict = append(&server, &id, &at(0));
    refused(&conflict, 409, "version_conflict");
    assert!(conflict.json()["error"]["hint"].as_str().unwrap().contains("expected_version 1"), "{}", conflict.text());
    assert_eq!(append(&server, &id, &at(1)).status, 201);
    let several = |version: u64| format!(r#"{{"events":[{0},{0}],"expected_version":{version}}}"#, message(1));
    refused(&batch(&server, &id, &several(1)), 409, "version_conflict");
    assert_eq!(batch(&server, &id, &several(2)).status, 201);
    refused(&append(&server, &id, &at(u64::MAX)), 409, "version_conflict");
    assert_eq!(count(&server, &id), 4);
}

#[test]
fn types_are_ours_or_say_whose_they_are() {
    let server = SHARED.get();
    let id = make(&server);
    let event = |name: &str| format!(r#"{{"event_type":"{name}","payload":{{"message":"x"}}}}"#);
    let unknown = append(&server, &id, &event("MESSAGE_RECIEVED"));
    let words = refused(&unknown, 422, "invalid_event");
    assert!(words.contains("did you mean MESSAGE_RECEIVED?"), "{words}");
    assert_eq!(unknown.text().matches("MESSAGE_RECEIVED").count(), 1, "it is suggested once: {}", unknown.text());
    refused(&append(&server, &id, &event("clinic:")), 422, "invalid_event");
    refused(&append(&server, &id, &event("")), 422, "invalid_event");
    for own in ["clinic:TRIAGE_NOTE", "org.example.note"] {
        assert_eq!(append(&server, &id, &event(own)).status, 201);
    }
    let types: Vec<_> = all(&server, &id).iter().map(|event| event["event_type"].clone()).collect();
    assert_eq!(types, ["clinic:TRIAGE_NOTE", "org.example.note"]);
}

#[test]
fn an_event_has_its_own_name_once() {
    let server = SHARED.get();
    let (id, other) = (make(&server), make(&server));
    let name = "0191d2a0-0000-7000-8000-00000000a001";
    let body = message(1).replacen('{', &format!(r#"{{"event_id":"{name}","#), 1);
    let first = append(&server, &id, &body);
    assert_eq!((first.status, &well(&first)["event_id"]), (201, &json!(name)));
    let elsewhere = append(&server, &other, &body);
    refused(&elsewhere, 409, "exists");
    assert_eq!(elsewhere.json()["error"]["details"], json!({"event_id": name}), "not where it is");
    refused(&append(&server, &id, &body.replace(name, "seven")), 400, "invalid_parameter");
    let changed = append(&server, &id, &body.replace("Hola 1", "Hola 2"));
    let words = refused(&changed, 409, "exists");
    assert!(words.contains("other content"), "{words}");
    assert_eq!(changed.json()["error"]["details"], json!({"event_id": name, "sequence": 1}));
    let hint = changed.json()["error"]["hint"].as_str().unwrap().to_owned();
    assert!(hint.contains("another event under another event_id"), "{hint}");
    let again = message(2).replacen('{', &format!(r#"{{"event_id":"{name}","#), 1);
    let twice = batch(&server, &id, &format!(r#"{{"events":[{},{again}]}}"#, message(2)));
    let words = refused(&twice, 409, "exists");
    assert!(words.starts_with("event 1 of the batch: ") && words.ends_with("none was recorded"), "{words}");
    assert_eq!(twice.json()["error"]["details"], json!({"event_id": name, "event": 1, "sequence": 1}));
    assert_eq!((count(&server, &id), count(&server, &other)), (1, 0));
    assert_eq!(read(&server, &format!("/consultations/{id}/events/{name}"))["sequence"], 1);
}

/// The body of a message with an id of its own.
fn named(number: u64, id: &str) -> String {
    message(number).replacen('{', &format!(r#"{{"event_id":"{id}-0000-7000-8000-{number:012}","#), 1)
}

#[test]
fn event_that_is_sent_again_is_answered_with_its_sequence() {
    let server = SHARED.get();
    let id = make(&server);
    let body = named(1, "0191d2a1");
    let first = append(&server, &id, &body);
    fill(&server, &id, 2);
    let again = append(&server, &id, &body);
    assert_eq!((first.status, again.status), (201, 200));
    let mut expected = first.json();
    expected["repeated"] = true.into();
    assert_eq!(again.json(), expected);
    // Also where the first request moved the consultation past the version that both expect.
    let versioned = named(2, "0191d2a1").replacen('{', r#"{"expected_version":3.0,"#, 1);
    assert_eq!(append(&server, &id, &versioned).status, 201);
    let again = append(&server, &id, &versioned);
    assert_eq!((again.status, &again.json()["sequence"]), (200, &json!(4)), "{}", again.text());
    let other = named(3, "0191d2a1").replacen('{', r#"{"expected_version":3,"#, 1);
    refused(&append(&server, &id, &other), 409, "version_conflict");

    let events = |numbers: std::ops::Range<u64>| {
        let events: Vec<_> = numbers.map(|number| named(number, "0191d2a1")).collect();
        format!(r#"{{"events":[{}]}}"#, events.join(","))
    };
    let first = batch(&server, &id, &events(10..13));
    let again = batch(&server, &id, &events(10..13));
    assert_eq!((first.status, again.status), (201, 200), "{}", again.text());
    let mut expected = first.json();
    expected["repeated"] = true.into();
    assert_eq!(again.json(), expected);
    let partly = batch(&server, &id, &events(12..15));
    let words = refused(&partly, 409, "exists");
    assert!(words.contains("is recorded already, with the sequence 7"), "{words}");
    let twice = format!(r#"{{"events":[{0},{0}]}}"#, named(20, "0191d2a1"));
    assert!(refused(&batch(&server, &id, &twice), 409, "exists").contains("event 1 of the batch"));
    assert_eq!((count(&server, &id), whole(&server, &id)), (7, 7));
}

#[test]
fn version_may_be_written_as_a_float_and_bodies_begin_with_a_mark() {
    let server = SHARED.get();
    let id = make(&server);
    let at = |version: &str, number| message(number).replacen('{', &format!(r#"{{"expected_version":{version},"#), 1);
    assert_eq!(append(&server, &id, &at("0.0", 1)).status, 201);
    let several = |version: &str| format!(r#"{{"expected_version":{version},"events":[{}]}}"#, message(2));
    assert_eq!(batch(&server, &id, &several("1.0")).status, 201);
    refused(&append(&server, &id, &at("1.5", 3)), 400, "invalid_parameter");
    refused(&batch(&server, &id, &several("1.5")), 400, "invalid_parameter");
    refused(&batch(&server, &id, &several("\"2\"")), 400, "invalid_parameter");
    assert_eq!(append(&server, &id, &format!("\u{feff}{}", message(3))).status, 201);
    assert_eq!(batch(&server, &id, &format!("\u{feff}{}", several("3"))).status, 201);
    let made = server.post_json("/consultations", "\u{feff}{\"user_id\":\"dra\"}");
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(count(&server, &id), 4);
}

#[test]
fn many_writers_leave_no_gap() {
    let server = SHARED.get();
    let (id, over) = (make(&server), AtomicBool::new(false));
    let sequences = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for writer in 0..32 {
            let (server, id, over, sequences) = (&server, &id, &over, &sequences);
            scope.spawn(move || {
                let (mut connection, path) = (server.connect(), format!("/consultations/{id}/events"));
                let mut mine = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let body = message(writer);
                    let answer = connection.ask(&post(&path, &[JSON], body.as_bytes())).unwrap();
                    assert_eq!(answer.status, 201, "{}", answer.text());
                    mine.push(answer.json()["sequence"].as_u64().unwrap());
                }
                assert!(mine.is_sorted(), "what one appends after the other stays in order");
                sequences.lock().unwrap().extend(mine);
            });
        }
        thread::sleep(either(Duration::from_secs(2), Duration::from_secs(60)));
        over.store(true, Ordering::Relaxed);
    });
    let mut sequences = sequences.into_inner().unwrap();
    sequences.sort_unstable();
    println!("{} events by 32 writers", sequences.len());
    assert!(sequences.iter().copied().eq(1..=sequences.len() as u64), "a sequence was given twice, or left out");
    assert_eq!(whole(&server, &id), sequences.len() as u64);
}

#[test]
fn a_batch_holds_ten_thousand_and_no_more() {
    let server = SHARED.get();
    let id = make(&server);
    fill(&server, &id, 10_000);
    let events = vec![r#"{"event_type":"a:B","payload":{}}"#; 10_001].join(",");
    refused(&batch(&server, &id, &format!(r#"{{"events":[{events}]}}"#)), 400, "too_many_parts");
    assert_eq!(count(&server, &id), 10_000);
}
