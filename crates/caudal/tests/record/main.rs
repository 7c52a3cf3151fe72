//! Consultations over HTTP, against a real server with a folder of its own: what is answered is on disk, in order and
//! once; whatever is wrong is said clearly and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod bad;
mod connections;
mod damage;
mod events;
mod figures;
mod kills;
mod proofs;
mod reading;
mod streams;

use std::path::Path;

use caudal_testkit::{
    Server, Shared,
    http::{Answer, Ask, get, post},
};
use serde_json::{Value, json};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");

/// A server for tests that need nothing of their own.
static SHARED: Shared = Shared::new(|| keeps(&[]));

/// Whether this is the full run.
fn full() -> bool {
    std::env::var_os("CAUDAL_TEST_FULL").is_some()
}

/// The first in the suite, the second in full.
fn either<T>(short: T, long: T) -> T {
    if full() { long } else { short }
}

/// A server with a data folder of its own, `data` in its home, and no models.
fn keeps(arguments: &[&str]) -> Server {
    let arguments = [&["--data-dir", "data"], arguments].concat();
    Server::start_at(CAUDAL, Path::new("no-models"), &arguments)
}

/// A server on a data folder that outlives it.
fn keeps_in(folder: &Path) -> Server {
    Server::start_at(CAUDAL, Path::new("no-models"), &["--data-dir", folder.to_str().unwrap()])
}

/// A new consultation.
fn make(server: &Server) -> String {
    let made = server.post_json("/consultations", r#"{"user_id":"dra. López"}"#);
    assert_eq!(made.status, 201, "{}", made.text());
    made.json()["consultation_id"].as_str().unwrap().to_owned()
}

/// The body of a message.
fn message(number: u64) -> String {
    format!(
        r#"{{"event_type":"MESSAGE_RECEIVED","payload":{{"message":"Hola {number}","n":{number}}},"user_id":"dra"}}"#
    )
}

/// Messages `from` to `to`, a line each.
fn lines(from: u64, to: u64) -> String {
    (from..=to).map(|number| message(number) + "\n").collect()
}

fn append(server: &Server, id: &str, body: &str) -> Answer {
    server.post_json(&format!("/consultations/{id}/events"), body)
}

fn batch(server: &Server, id: &str, body: &str) -> Answer {
    server.post_json(&format!("/consultations/{id}/events/batch"), body)
}

/// Posts JSON under an Idempotency-Key.
fn keyed(server: &Server, path: &str, key: &str, body: &str) -> Answer {
    server.ask(&post(path, &[JSON, ("Idempotency-Key", key)], body.as_bytes()))
}

/// Appends `count` messages, as one batch.
fn fill(server: &Server, id: &str, count: u64) {
    let events: Vec<Value> = (1..=count).map(|number| serde_json::from_str(&message(number)).unwrap()).collect();
    let answer = batch(server, id, &json!({"events": events}).to_string());
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// An answer that must be a success, as JSON.
fn well(answer: &Answer) -> Value {
    assert!((200..300).contains(&answer.status), "{}: {}", answer.status, answer.text());
    answer.json()
}

fn read(server: &Server, path: &str) -> Value {
    well(&server.get(path))
}

/// How many events a consultation has.
fn count(server: &Server, id: &str) -> u64 {
    read(server, &format!("/consultations/{id}/events?limit=1"))["event_count"].as_u64().unwrap()
}

/// All events of a consultation, whose sequence has no gap.
fn all(server: &Server, id: &str) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    loop {
        let page = read(server, &format!("/consultations/{id}/events?limit=1000&after={}", events.len()));
        let page = page["events"].as_array().unwrap().clone();
        if page.is_empty() {
            return events;
        }
        for event in page {
            assert_eq!(event["sequence"], events.len() as u64 + 1, "of {id}");
            events.push(event);
        }
    }
}

/// The numbers of messages, in order.
fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["payload"]["n"].as_u64().unwrap()).collect()
}

/// Checks that a consultation is whole, by everything about it computed anew, and tells how many events it has.
fn whole(server: &Server, id: &str) -> u64 {
    let verdict = well(&server.ask(&post(&format!("/consultations/{id}/verify"), &[], b"")));
    assert_eq!(verdict["valid"], true, "{verdict}");
    verdict["events"].as_u64().unwrap()
}

/// Checks an error: status, code, words, advice, the request's name.
fn refused(answer: &Answer, status: u16, code: &str) -> String {
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
    let error = &answer.json()["error"];
    let words = error["message"].as_str().unwrap().to_owned();
    assert!(!words.is_empty() && !error["hint"].as_str().unwrap().is_empty(), "{error}");
    assert_eq!(error["request_id"], answer.header("x-request-id"));
    words
}

fn ask_with<'a>(path: &'a str, headers: &'a [(&'a str, &'a str)]) -> Ask<'a> {
    Ask { headers, ..get(path) }
}
