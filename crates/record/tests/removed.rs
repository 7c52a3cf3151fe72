//! Events that were removed from the database behind its back: reads notice, not the check alone.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{sync::Arc, time::Duration};

use caudal_record::{Consultations, Ingest, NewConsultation, RecordError, stream_of};
use caudal_store::{
    Range, StoreError,
    sqlite::{Options, Sqlite},
};

fn damaged<T: std::fmt::Debug>(read: Result<T, RecordError>) {
    assert!(matches!(read, Err(RecordError::Store(StoreError::Damaged(_)))), "{read:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn last_event_that_was_removed_is_noticed_by_every_read_that_needs_it() {
    let place = tempfile::tempdir().unwrap();
    let store = Arc::new(Sqlite::open(Options { flush: false, ..Options::within(place.path()) }).unwrap());
    let record = Consultations::new(store, Some(place.path().to_owned()), 1);
    let new = NewConsultation { user_id: "a".to_owned(), consultation_id: Some("c".to_owned()), ..Default::default() };
    record.make(&new, None).await.unwrap();
    let event = br#"{"event_type": "MESSAGE_RECEIVED", "payload": {"message": "Hola"}}"#;
    for _ in 0..3 {
        let event = Ingest::new("test", "UTC").event(event, None).unwrap().record;
        record.append("c", vec![event], None, None).await.unwrap();
    }
    // The state is kept beside the events as it is after the last one: no event need be replayed.
    record.state("c").await.unwrap();
    while record.store().snapshot(&stream_of("c")).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let raw = rusqlite::Connection::open(place.path().join("caudal.db")).unwrap();
    assert_eq!(raw.execute("delete from records where sequence = 3 and kind = 'MESSAGE_RECEIVED'", []), Ok(1));

    damaged(record.events("c", Range::after(0, 100)).await);
    damaged(record.events("c", Range::after(2, 1)).await);
    damaged(record.event("c", "3").await);
    damaged(record.state("c").await);
    damaged(record.head("c").await);
    let of_a_kind = Range { kind: Some("MESSAGE_RECEIVED".into()), ..Range::after(0, 100) };
    damaged(record.events("c", of_a_kind).await);
    assert_eq!(record.events("c", Range::after(0, 2)).await.unwrap().len(), 2, "what stands before it is read");
    let verdict = record.verify("c", None).await.unwrap();
    assert_eq!((verdict.valid, verdict.first_bad_event, verdict.events), (false, Some(3), 2));
}
