//! Where a consultation stands after 10,000 events, and the note made of it.
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;

use bytes::Bytes;
use caudal_record::canonical::{canonical, sha256};
use caudal_record::event::Event;
use caudal_record::kinds::Kind;
use caudal_record::soap::SoapView;
use caudal_record::state::State;
use caudal_record::verify::Verifier;
use caudal_store::{Record, StreamId, link, origin};
use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use uuid::Uuid;

/// Kinds and payloads of a consultation, over and over: mostly messages, of about 300 bytes.
fn events(count: usize) -> Vec<(&'static str, Vec<u8>)> {
    let text =
        "Paciente refiere dolor torácico opresivo de 2 h de evolución, irradiado al brazo izquierdo.\n".repeat(3);
    let event = |index: usize| -> (&'static str, Value) {
        match index % 10 {
            0 => ("EXTRACTION_STARTED", json!({ "iteration": index, "context_message_count": index })),
            1 => (
                "EXTRACTION_COMPLETED",
                json!({ "iteration": index, "completeness": 55.5, "extraction_data": { "note": text } }),
            ),
            2 => (
                "SYMPTOMS_UPDATED",
                json!({ "primary_symptoms": ["dolor torácico", index.to_string()], "severity": "severe" }),
            ),
            3 => ("LLM_CALL_INITIATED", json!({ "decision_id": index.to_string(), "query_text": text })),
            4 => ("LLM_CALL_COMPLETED", json!({ "decision_id": (index - 1).to_string(), "decision_result": text })),
            5 => {
                ("MESSAGE_UPDATED", json!({ "message_id": (index / 20 * 10 + 8).to_string(), "updated_content": text }))
            }
            _ => (
                "MESSAGE_RECEIVED",
                json!({ "message_id": index.to_string(), "message_content": text, "message_role": "user" }),
            ),
        }
    };
    (0..count).map(event).map(|(kind, payload)| (kind, canonical(payload.to_string().as_bytes()).unwrap())).collect()
}

fn replay(c: &mut Criterion) {
    let events = events(10_000);
    let fold = || {
        let mut state = State::default();
        for (index, (kind, payload)) in events.iter().enumerate() {
            let sequence = index as u64 + 1;
            state.apply(&Event { sequence, time: index as i64, id: Uuid::from_u128(index as u128), kind, payload });
        }
        state
    };
    c.bench_function("state/10,000 events", |bencher| bencher.iter(fold));
    let state = fold();
    c.bench_function("state/its note", |bencher| bencher.iter(|| SoapView::of(black_box(&state))));
    let written = serde_json::to_vec(&state).unwrap();
    println!("a snapshot has {} bytes", written.len());
    c.bench_function("state/snapshot read", |bencher| {
        bencher.iter(|| serde_json::from_slice::<State>(black_box(&written)).unwrap());
    });
    c.bench_function("kinds/check of 10,000 payloads", |bencher| {
        bencher.iter(|| {
            events.iter().filter(|(kind, payload)| Kind::from_name(kind).unwrap().check(payload).is_ok()).count()
        });
    });
}

/// A stream of 10,000 records read again, every hash computed anew.
fn verify(c: &mut Criterion) {
    let stream = StreamId::new("consultation", "c-1");
    let mut before = origin(&stream, 0, b"");
    let mut records = Vec::new();
    for (index, (kind, payload)) in events(10_000).into_iter().enumerate() {
        let (sequence, digest) = (index as u64 + 1, sha256(&payload));
        let (id, meta) = (Uuid::from_u128(index as u128), Bytes::from_static(br#"{"user_id": "dra. lopez"}"#));
        let mut record =
            Record { sequence, time: 0, id, kind: kind.into(), meta, body: payload.into(), digest, chain: before };
        record.chain = link(&before, &record.leaf());
        before = record.chain;
        records.push(record);
    }
    c.bench_function("verify/10,000 records", |bencher| {
        bencher.iter(|| {
            let mut verifier = Verifier::new(stream.clone(), 0, b"");
            records.iter().for_each(|record| verifier.check(record).unwrap());
            verifier.root()
        });
    });
}

criterion_group!(benches, replay, verify);
criterion_main!(benches);
