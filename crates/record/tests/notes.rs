//! Notes of who reads what while another program holds the database's write lock: reads go on, and nothing is lost.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{path::Path, sync::Arc, time::Duration};

use caudal_record::{Access, AuditBacklog, Consultations, NewConsultation};
use caudal_store::{
    Record,
    sqlite::{Options, Sqlite},
};
use serde_json::{Value, json};

fn open(folder: &Path) -> Consultations {
    let store = Arc::new(Sqlite::open(Options { flush: false, ..Options::within(folder) }).unwrap());
    Consultations::new(store, Some(folder.to_owned()), 1_000).with_audit_reserve()
}

async fn note(record: &Consultations, number: usize, details: Value) {
    let access = Access {
        operation: "EVENTS_READ",
        consultation_id: Some("c".to_owned()),
        user: Some("dra".to_owned()),
        from: None,
        request_id: format!("{number}"),
        details,
    };
    record.note(access).await.unwrap();
}

/// Another program that writes: it holds the lock until this is dropped.
fn lock(folder: &Path) -> rusqlite::Connection {
    let other = rusqlite::Connection::open(folder.join("caudal.db")).unwrap();
    other.execute_batch("begin immediate").unwrap();
    other
}

async fn all_recorded(record: &Consultations) {
    for _ in 0..2_000 {
        if record.audit_backlog().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?} still waits", record.audit_backlog());
}

fn payload(entry: &Record) -> Value {
    serde_json::from_slice(&entry.body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_wait_for_another_programs_lock_and_reads_do_not() {
    let place = tempfile::tempdir().unwrap();
    let record = open(place.path());
    let new = NewConsultation { user_id: "a".to_owned(), consultation_id: Some("c".to_owned()), ..Default::default() };
    record.make(&new, None).await.unwrap();
    note(&record, 0, Value::Null).await;
    let other = lock(place.path());
    for number in 1..=5 {
        note(&record, number, Value::Null).await;
        assert_eq!(record.find("c").await.unwrap().name(), "c");
    }
    assert_eq!(record.audit_backlog(), AuditBacklog { notes: 5, unnoted: 0 });
    drop(other);
    all_recorded(&record).await;
    let (total, mut entries) = record.noted(100, 0).await.unwrap();
    entries.reverse();
    let requests: Vec<_> = entries.iter().map(|entry| payload(entry)["request_id"].clone()).collect();
    assert_eq!((total, requests), (6, vec![json!("0"), json!("1"), json!("2"), json!("3"), json!("4"), json!("5")]));
    assert!(entries[2..].iter().all(|entry| payload(entry)["noted_at"].is_string()), "it says when it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_beyond_the_reserve_are_counted_and_the_count_is_recorded() {
    let place = tempfile::tempdir().unwrap();
    let record = open(place.path());
    note(&record, 0, Value::Null).await;
    let other = lock(place.path());
    for number in 1..=8 {
        note(&record, number, json!({"filler": "x".repeat(200_000)})).await;
    }
    let AuditBacklog { notes, unnoted } = record.audit_backlog();
    assert_eq!(notes as u64 + unnoted, 8);
    assert!(notes > 2 && unnoted > 2, "{notes} notes, {unnoted} without");
    drop(other);
    all_recorded(&record).await;
    let (total, entries) = record.noted(100, 0).await.unwrap();
    assert_eq!(total as usize, 1 + notes + 1);
    let counted = entries.iter().find(|entry| &*entry.kind == "READS_NOT_NOTED").map(payload).unwrap();
    assert_eq!(counted["details"]["count"], unnoted);
    assert!(counted["details"]["since"].is_string() && counted["details"]["until"].is_string(), "{counted}");
}
