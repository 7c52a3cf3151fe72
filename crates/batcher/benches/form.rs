//! Benchmark of forming one batch from the waiting entries.

use std::{hint::black_box, time::Instant};

use caudal_batcher::{Policy, WaitingEntry, form_batch};
use caudal_types::Deadline;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn form(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("form_batch");
    let now = Instant::now();
    let shapes = vec![vec![1, 64]];
    for waiting in [1usize, 8, 32, 128] {
        let policy = Policy {
            max_batch_size: 32,
            preferred_batch_sizes: Vec::new(),
            ragged: None,
            max_queue_delay: std::time::Duration::ZERO,
            max_queue_size: 256,
            max_queue_bytes: 1 << 30,
            by_priority: Default::default(),
            run_in_place: 0,
        };
        group.bench_with_input(BenchmarkId::from_parameter(waiting), &waiting, |bencher, waiting| {
            bencher.iter(|| {
                let entry = WaitingEntry {
                    rows: 1,
                    shapes: &shapes,
                    deadline: Deadline::NEVER,
                    since: now,
                    expires: None,
                    ragged: false,
                };
                let entries = (0..*waiting).map(|key| (key, entry));
                form_batch(black_box(entries), &policy, now, std::time::Duration::ZERO)
            });
        });
    }
}

criterion_group!(benches, form);
criterion_main!(benches);
