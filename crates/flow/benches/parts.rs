//! What the parts of a step cost: clock, buffer, JSON, hash, and an expression.

use std::{hint::black_box, time::Instant};

use caudal_flow::{
    Answered, Canonical, Expression, Formula, Map, Shelf, ShelfOptions, SqliteShelf, Value, View, key_of,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sha2::{Digest, Sha256};

/// An object of about so many bytes as JSON: names, numbers, texts, as steps hand on.
fn object(bytes: usize) -> Value {
    let field = |number: usize| (format!("field_{number:04}"), Value::from(format!("value {number} of some length")));
    Value::Map((0..bytes.div_ceil(45).max(1)).map(field).collect::<Map>())
}

const SIZES: [usize; 4] = [100, 1_000, 10_000, 100_000];

fn clock(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("clock");
    group.bench_function("Instant::now", |bench| bench.iter(Instant::now));
    group.bench_function("SystemTime::now", |bench| bench.iter(std::time::SystemTime::now));
    group.finish();
}

fn buffer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("buffer");
    for bytes in SIZES {
        let value = object(bytes);
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("reused", bytes), |bench| {
            bench.iter(|| key_of(|to| value.write(to)).expect("plain data"));
        });
        group.bench_function(BenchmarkId::new("anew", bytes), |bench| {
            bench.iter(|| {
                let mut buffer = Vec::new();
                value.write(&mut buffer).expect("plain data");
                *blake3::hash(&buffer).as_bytes()
            });
        });
    }
    group.finish();
}

fn json(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("json");
    for bytes in SIZES {
        let value = object(bytes);
        let text = value.to_json();
        let tree: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("read", bytes), |bench| {
            bench.iter(|| Value::from_json(black_box(text.as_bytes())));
        });
        group.bench_function(BenchmarkId::new("read as serde_json has it", bytes), |bench| {
            bench.iter(|| serde_json::from_str::<serde_json::Value>(black_box(&text)));
        });
        group.bench_function(BenchmarkId::new("write", bytes), |bench| bench.iter(|| value.to_json()));
        let mut canonical = Vec::new();
        group.bench_function(BenchmarkId::new("write canonical", bytes), |bench| {
            bench.iter(|| {
                canonical.clear();
                value.write(&mut canonical)
            });
        });
        group.bench_function(BenchmarkId::new("hand on", bytes), |bench| bench.iter(|| value.clone()));
        group.bench_function(BenchmarkId::new("copy as serde_json has it", bytes), |bench| bench.iter(|| tree.clone()));
    }
    group.finish();
}

fn hash(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash");
    for bytes in SIZES {
        let data = vec![7u8; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("blake3", bytes), |bench| bench.iter(|| blake3::hash(black_box(&data))));
        group
            .bench_function(BenchmarkId::new("sha256", bytes), |bench| bench.iter(|| Sha256::digest(black_box(&data))));
    }
    group.finish();
}

fn expression(criterion: &mut Criterion) {
    let (output, context) = (object(1_000), Map::default());
    let parsed = Expression::parse("output.field_0001 == 'x' or output.get('none') == none").expect("an expression");
    criterion.bench_function("expression", |bench| bench.iter(|| parsed.value(&View::of(&output, &context))));
}

/// An answer taken off the shelf: asked of another thread, read, checked against its hash, made a value.
fn shelf(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || SqliteShelf::open(ShelfOptions::within(folder.path(), 64 << 20)).expect("a shelf");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let filled = open();
    for number in 0..1_000u32 {
        let answer = Answered { value: object(1_000), changes: Map::default() };
        filled.put(blake3::hash(&number.to_le_bytes()).as_bytes(), answer, None);
    }
    // What was handed over is written before it is closed.
    drop(filled);
    let (shelf, mut number) = (open(), 0u32);
    let mut group = criterion.benchmark_group("shelf");
    group.bench_function("hit of 1 KB", |bench| {
        bench.iter(|| {
            number = (number + 1) % 1_000;
            let key = *blake3::hash(&number.to_le_bytes()).as_bytes();
            runtime.block_on(shelf.get(&key)).expect("what was put there")
        });
    });
    group.bench_function("miss", |bench| bench.iter(|| runtime.block_on(shelf.get(&[7; 32])).is_none()));
    group.finish();
}

criterion_group!(parts, clock, buffer, json, hash, expression, shelf);
criterion_main!(parts);
