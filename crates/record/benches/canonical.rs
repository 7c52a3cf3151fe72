//! From the bytes that came to the hash of what they say: bodies of 1, 10 and 100 KB, as a consultation sends them.
#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::hint::black_box;

use caudal_record::canonical::{Canonicaliser, sha256};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};

/// An event whose body has about `size` bytes: notes in Spanish with line breaks, lists of findings with numbers, and
/// keys in the order in which people write them.
fn body(size: usize) -> Vec<u8> {
    let note = "Paciente femenina de 54 años acude por dolor torácico opresivo de 2 h de evolución, irradiado al brazo \
                izquierdo. Refiere náusea y diaforesis; niega disnea.\nAntecedentes: \"hipertensión\" en tratamiento.";
    let finding = |index: usize| {
        json!({
            "nombre": format!("hallazgo {index}"), "valor": 36.5 + index as f64 / 10.0, "unidad": "°C", "normal": index.is_multiple_of(3),
            "fecha": "2026-11-21T08:30:00-06:00", "codigo": index * 7, "notas": [note[..60].to_owned(), "sin cambios"],
        })
    };
    let build = |parts: usize| {
        json!({
            "event_type": "EXTRACTION_COMPLETED",
            "payload": {
                "message": note,
                "role": "user",
                "history": (0..parts).map(|part| if part % 2 == 0 { finding(part) } else { note.into() }).collect::<Vec<Value>>(),
                "confidence": 0.93,
            },
            "user_id": "dra.lopez",
        })
        .to_string()
    };
    let mut parts = 0;
    while build(parts + 1).len() <= size {
        parts += 1;
    }
    build(parts).into_bytes()
}

fn to_the_hash(c: &mut Criterion) {
    let mut group = c.benchmark_group("canonical");
    for (name, size) in [("1 KB", 1_100), ("10 KB", 10_500), ("100 KB", 100_000)] {
        let body = body(size);
        println!("{name}: {} bytes", body.len());
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut work = Canonicaliser::default();
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("envelope and hash", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                let payload = work.envelope(black_box(&body), &mut out).unwrap().payload;
                sha256(&out[payload])
            });
        });
        let payload = out.clone();
        group.bench_function(BenchmarkId::new("its own form again, and hash", name), |bencher| {
            bencher.iter(|| {
                out.clear();
                work.value(black_box(&payload), &mut out).unwrap()
            });
        });
        group.bench_function(BenchmarkId::new("the hash alone", name), |bencher| {
            bencher.iter(|| sha256(black_box(&payload)));
        });
        group.bench_function(BenchmarkId::new("serde_json's tree, written and hashed", name), |bencher| {
            bencher.iter(|| {
                let value: Value = serde_json::from_slice(black_box(&body)).unwrap();
                sha256(&serde_json::to_vec(&value["payload"]).unwrap())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, to_the_hash);
criterion_main!(benches);
