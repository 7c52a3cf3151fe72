//! State that is kept beside the events: used only where the events made it, whatever stands in the database.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use caudal_record::{Consultations, Ingest, NewConsultation, soap::SoapView, stream_of};
use caudal_store::{
    Snapshot, Store,
    sqlite::{Options, Sqlite},
};
use serde_json::json;

/// Events after which the state is kept.
const EVERY: u64 = 5;

/// A record in a folder of its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Consultations {
        open(self.0.path())
    }
}

fn open(folder: &Path) -> Consultations {
    let store = Arc::new(Sqlite::open(Options { flush: false, ..Options::within(folder) }).unwrap());
    Consultations::new(store, Some(folder.to_owned()), EVERY)
}

async fn make(record: &Consultations, name: &str) {
    let new = NewConsultation { user_id: "a".to_owned(), consultation_id: Some(name.to_owned()), ..Default::default() };
    record.make(&new, None).await.unwrap();
}

async fn say(record: &Consultations, name: &str, kind: &str, payload: serde_json::Value) {
    let event = json!({"event_type": kind, "payload": payload}).to_string();
    let event = Ingest::new("test", "UTC").event(event.as_bytes(), None).unwrap();
    record.append(name, vec![event.record], None, None).await.unwrap();
}

/// A consultation of so many messages and an allergy.
async fn fill(record: &Consultations, name: &str, messages: u64) {
    make(record, name).await;
    say(record, name, "CONTEXT_UPDATED", json!({"allergies": ["penicillin"]})).await;
    for number in 0..messages {
        say(record, name, "MESSAGE_RECEIVED", json!({"message": format!("{number}")})).await;
    }
}

/// What the note and the state say of a consultation.
async fn told(record: &Consultations, name: &str) -> String {
    let (_, state) = record.state(name).await.unwrap();
    json!({"state": state, "soap": SoapView::of(&state)}).to_string()
}

/// What is kept of a consultation, once it is.
async fn kept(store: &dyn Store, name: &str, sequence: u64) -> Snapshot {
    for _ in 0..500 {
        match store.snapshot(&stream_of(name)).await.unwrap() {
            Some(kept) if kept.sequence >= sequence => return kept,
            _ => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
    panic!("nothing is kept of {name} at {sequence}");
}

/// The store writes its own guard, as one does who edits the database and knows how.
async fn forge(record: &Consultations, name: &str, sequence: u64, change: impl FnOnce(&mut Vec<u8>)) {
    let kept = kept(&**record.store(), name, 1).await;
    let mut body = kept.body.to_vec();
    change(&mut body);
    let forged = Snapshot { sequence, body: Bytes::from(body) };
    record.store().keep_snapshot(&stream_of(name), forged, true).await.unwrap();
}

fn replace(body: &mut Vec<u8>, old: &str, new: &str) {
    let text = body.windows(old.len()).position(|part| part == old.as_bytes()).unwrap();
    body.splice(text..text + old.len(), new.bytes());
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn kept_state_that_was_edited_is_found_discarded_and_rebuilt() {
    run(async {
        let place = Place::new();
        let record = place.open();
        fill(&record, "c", EVERY).await;
        let right = told(&record, "c").await;
        forge(&record, "c", EVERY + 1, |body| replace(body, "penicillin", "none known")).await;

        let verdict = record.verify("c", None).await.unwrap();
        assert!(!verdict.valid && verdict.fault.unwrap().contains("kept beside the events"));
        assert_eq!(told(&record, "c").await, right, "a read shows what the events make");
        kept(&**record.store(), "c", EVERY + 1).await;
        let rebuilt = async || record.verify("c", None).await.unwrap().valid;
        for _ in 0..500 {
            if rebuilt().await {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("it is not rebuilt");
    });
}

#[test]
fn kept_state_of_another_place_is_not_used() {
    run(async {
        let place = Place::new();
        let record = place.open();
        fill(&record, "c", 2 * EVERY).await;
        let right = told(&record, "c").await;
        // Of another consultation.
        fill(&record, "other", EVERY - 2).await;
        say(&record, "other", "CONTEXT_UPDATED", json!({"allergies": ["latex"]})).await;
        told(&record, "other").await;
        let theirs = kept(&**record.store(), "other", 1).await;
        record.store().keep_snapshot(&stream_of("c"), theirs.clone(), true).await.unwrap();
        assert!(!record.verify("c", None).await.unwrap().valid);
        assert_eq!(told(&record, "c").await, right);
        // Moved along the stream.
        kept(&**record.store(), "c", 1).await;
        forge(&record, "c", 3, |_| ()).await;
        assert_eq!(told(&record, "c").await, right);
    });
}

#[test]
fn kept_state_that_is_older_is_continued() {
    run(async {
        let place = Place::new();
        let record = place.open();
        fill(&record, "c", EVERY).await;
        told(&record, "c").await;
        let older = kept(&**record.store(), "c", 1).await;
        for number in 0..EVERY {
            say(&record, "c", "MESSAGE_RECEIVED", json!({"message": format!("later {number}")})).await;
        }
        say(&record, "c", "CONTEXT_UPDATED", json!({"allergies": ["none"]})).await;
        let right = told(&record, "c").await;
        record.store().keep_snapshot(&stream_of("c"), older, true).await.unwrap();
        assert_eq!(told(&record, "c").await, right);
        assert!(record.verify("c", None).await.unwrap().valid, "an older state is no fault");
    });
}

#[test]
fn kept_state_of_another_key_is_no_fault_and_not_used() {
    run(async {
        let place = Place::new();
        let record = place.open();
        fill(&record, "c", EVERY).await;
        let right = told(&record, "c").await;
        kept(&**record.store(), "c", 1).await;
        drop(record);
        std::fs::remove_file(place.0.path().join("head.key")).unwrap();
        let record = place.open();
        assert!(record.verify("c", None).await.unwrap().valid);
        assert_eq!(told(&record, "c").await, right);
    });
}
