//! A CPU profile attributes time to ONNX Runtime, which is built without frame pointers.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use caudal_engine::{Backend, LoadOptions};
use caudal_engine_ort::{OnnxRuntime, locate_library};
use caudal_profiler::Recording;
use caudal_types::TensorView;

/// CPU time of this thread, by the scheduler's own count.
fn process_cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

#[inline(never)]
fn spin_for(time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        black_box((0..1000u64).fold(1, |number, next| black_box(number ^ next)));
    }
}

#[test]
fn library_share_equals_its_cpu_time() {
    let (library, source) = locate_library(None).expect("run `cargo xtask setup` first");
    let backend = OnnxRuntime::load_library(&library, source).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/nanodet/1/model.onnx");
    let model = backend.load_model(&file, &LoadOptions::for_cpu(1)).unwrap();
    let mut instance = model.create_instance(1).unwrap();
    let input = &model.spec().inputs[0];
    let told = input.to_string();
    let sizes = told.split(['[', ']']).nth(1).unwrap();
    let shape: Vec<usize> = sizes.split(", ").map(|size| size.parse().unwrap_or(1)).collect();
    let bytes = vec![0; shape.iter().product::<usize>() * 4];
    let mut run = || {
        let input = TensorView { dtype: input.dtype, shape: &shape, bytes: &bytes };
        instance.run(&[input], &mut |outputs| assert!(black_box(outputs.len()) > 0)).unwrap();
    };
    run();
    let recording = Recording::start(1000).unwrap();
    let (mut in_library, before) = (0.0, process_cpu_seconds());
    while process_cpu_seconds() - before < 4.0 {
        let began = process_cpu_seconds();
        run();
        in_library += process_cpu_seconds() - began;
        spin_for(Duration::from_millis(7));
    }
    let truth = in_library / (process_cpu_seconds() - before);
    let profile = recording.finish().unwrap();
    let thread = "library_share_e";
    let own = profile.share_where(|stack| stack.frames[0] == thread);
    let found = profile
        .share_where(|stack| stack.frames[0] == thread && stack.frames.iter().any(|name| name.contains("onnxruntime")))
        / own;
    println!("in ONNX Runtime: {:.1} % of CPU time, {:.1} % of samples", 100.0 * truth, 100.0 * found);
    assert!((0.3..0.95).contains(&truth), "it should have been about half: {truth:.3}");
    assert!((truth - found).abs() < 0.03, "{truth:.3} of CPU time, {found:.3} of samples");
    println!(
        "{:.1} % of stacks do not reach their thread's beginning",
        100.0 * profile.truncated as f64 / profile.total_count() as f64
    );
}
