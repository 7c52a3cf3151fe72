//! Cost of sections and histograms: `cargo bench -p caudal-observe`.

use std::hint::black_box;

use caudal_observe::{Histogram, Section, section, set_enabled};
use criterion::{Criterion, criterion_group, criterion_main};

fn bench_sections(criterion: &mut Criterion) {
    static RECORDED: Section = Section::new("recorded", "bench");
    let mut group = criterion.benchmark_group("observe");
    group.bench_function("section", |bench| bench.iter(|| section!("timed")));
    group.bench_function("section within a section", |bench| {
        bench.iter(|| {
            let _outer = section!("outer");
            black_box(section!("inner"));
        });
    });
    group.bench_function("record", |bench| bench.iter(|| RECORDED.record(black_box(12_345))));
    set_enabled(false);
    group.bench_function("section, switched off", |bench| bench.iter(|| section!("off")));
    set_enabled(true);
    let histogram = Histogram::new();
    group.bench_function("histogram", |bench| bench.iter(|| histogram.record(black_box(12_345))));
    group.finish();
}

criterion_group!(benches, bench_sections);
criterion_main!(benches);
