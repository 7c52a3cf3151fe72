//! Figures of the record: whose time is whose, and what is counted.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use caudal_testkit::{
    Server,
    http::{Answer, get, post},
};
use serde_json::{Value, json};

use crate::{JSON, SHARED, append, fill, keeps, make, message, well};

/// Milliseconds of each stage, by the answer's own word.
fn timing(answer: &Answer) -> Vec<(String, f64)> {
    let each = answer.header("server-timing").split(", ").map(|metric| {
        let (stage, spent) = metric.split_once(";dur=").unwrap();
        (stage.to_owned(), spent.parse().unwrap())
    });
    each.collect()
}

fn spent(answer: &Answer, stages: &[&str]) -> f64 {
    timing(answer).iter().filter(|(stage, _)| stages.contains(&stage.as_str())).map(|(_, spent)| spent).sum()
}

#[test]
fn time_of_the_record_is_never_put_down_to_receive() {
    let server = SHARED.get();
    let id = make(&server);
    fill(&server, &id, 1_500);
    let check = |answer: &Answer, what: &str, stage: &str| {
        assert!((200..300).contains(&answer.status), "{what}: {}", answer.text());
        let (total, receive) = (spent(answer, &["total"]), spent(answer, &["receive"]));
        assert!(receive < 0.5 * total, "{what}: {:?}", timing(answer));
        assert!(spent(answer, &[stage]) > 0.0, "{what}: {:?}", timing(answer));
        let sum: f64 = timing(answer).iter().filter(|(name, _)| name != "total").map(|(_, spent)| spent).sum();
        assert!((sum - total).abs() < 0.02, "{what}: {:?}", timing(answer));
    };
    let paths = ["", "/soap", "/events?limit=1000", "/events/7", "/events/7/receipt", "/head"];
    let consultation = paths.map(|path| format!("/consultations/{id}{path}"));
    let lists = ["/consultations", "/api/timeline/sessions", "/api/timeline/stats", "/api/audit/logs", "/api/v1/runs"];
    let timeline = format!("/api/timeline/sessions/{id}");
    for path in consultation.iter().map(String::as_str).chain(lists).chain([timeline.as_str()]) {
        check(&server.get(path), path, "store");
    }
    let post = |path: &str, body: &str| server.ask(&post(path, &[JSON], body.as_bytes()));
    check(&post(&format!("/consultations/{id}/verify"), ""), "verify", "store");
    let hashes = json!({"items": [{"target_id": id, "expected_hash": "00"}]}).to_string();
    check(&post("/api/timeline/verify-hash", &hashes), "verify-hash", "store");
    let made = post("/api/exports", &json!({"consultation_id": id}).to_string());
    check(&made, "export", "store");
    let export = format!("/api/exports/{}", made.json()["export_id"].as_str().unwrap());
    check(&server.get(&export), "manifest", "store");
    check(&post(&format!("{export}/verify"), ""), "export verify", "store");
    check(&post("/consultations", r#"{"user_id":"dra"}"#), "make", "persist");
    check(&append(&server, &id, &message(1)), "append", "persist");
    let batch = format!(r#"{{"events":[{}]}}"#, message(2));
    check(&post(&format!("/consultations/{id}/events/batch"), &batch), "batch", "persist");
}

fn figures(server: &Server) -> (f64, Value, Value) {
    let told = |path: &str| server.get(path).json();
    (
        server.metric("fi_events_appended_total", ""),
        told("/api/timeline/stats")["events_since_start"].take(),
        told("/health")["record"]["events_appended"].take(),
    )
}

#[test]
fn appended_events_are_counted_and_reads_are_not() {
    let server = keeps(&[]);
    let id = make(&server);
    (0..7).for_each(|number| drop(well(&append(&server, &id, &message(number)))));
    for _ in 0..5 {
        for path in ["", "/soap", "/events", "/events/1"] {
            assert_eq!(server.get(&format!("/consultations/{id}{path}")).status, 200);
        }
    }
    assert_eq!(figures(&server), (7.0, json!(7), json!(7)));
    // What was recorded before under the same key is not recorded again.
    for _ in 0..3 {
        let headers = [JSON, ("Idempotency-Key", "once")];
        let path = format!("/consultations/{id}/events");
        assert_eq!(server.ask(&post(&path, &headers, message(8).as_bytes())).status, 201);
    }
    assert_eq!(figures(&server), (8.0, json!(8), json!(8)));
    assert_eq!(server.metric("fi_buffer_size", ""), 0.0);
    let damaged = server.get("/consultations/nobody/events");
    assert_eq!(damaged.status, 404);
    for kind in ["disk_full", "store_unavailable", "record_damaged", "too_many_requests"] {
        assert_eq!(server.metric("fi_persist_errors_total", kind), 0.0, "{kind}");
    }
}

#[test]
fn explain_names_the_store_while_notes_are_slow() {
    // Nothing is kept to replay from: each note takes all events again.
    let server = keeps(&["--record-snapshot-every", "1000000"]);
    let id = make(&server);
    fill(&server, &id, 6_000);
    let (over, path) = (AtomicBool::new(false), format!("/consultations/{id}/soap"));
    let explained = thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = server.connect();
            while !over.load(Relaxed) {
                assert_eq!(connection.ask(&get(&path)).unwrap().status, 200);
            }
        });
        thread::sleep(Duration::from_millis(300));
        let explained = server.get("/admin/profiling/explain?seconds=1.5").json();
        over.store(true, Relaxed);
        explained
    });
    assert_eq!(explained["limit"], "store_reads", "{explained}");
    let causes = explained["causes"].as_array().unwrap();
    assert!(causes.iter().all(|cause| cause["limit"] != "slow_clients"), "{explained}");
}
