//! Heap profiles and leaks, in a build with jemalloc, such as `cargo test --workspace`.
#![cfg(feature = "jemalloc")]
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{hint::black_box, sync::Mutex};

use caudal_profiler::{Format, Kind, Profile, ProfileDiff, heap_profile};

static LEAKED_BLOCKS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
const LEAK_BYTES: u64 = 96 << 20;

#[inline(never)]
fn leak_blocks() {
    let blocks = (0..LEAK_BYTES >> 16).map(|at| vec![at as u8; 1 << 16]);
    LEAKED_BLOCKS.lock().unwrap().extend(black_box(blocks));
}

#[inline(never)]
fn allocate_and_free() {
    let blocks: Vec<Vec<u8>> = (0..1000).map(|at| vec![at as u8; 1 << 16]).collect();
    black_box(blocks);
}

/// A heap profile, written to pprof and parsed again.
fn round_trip_profile() -> Profile {
    let profile = heap_profile().unwrap();
    let read = Profile::from_bytes(&Format::Pprof.write(&profile).unwrap()).unwrap();
    assert_eq!((read.kind, &read.stacks), (Kind::Heap, &profile.stacks));
    read
}

#[test]
fn profile_diff_names_a_leak() {
    let before = round_trip_profile();
    leak_blocks();
    allocate_and_free();
    let after = round_trip_profile();
    let diff = ProfileDiff::new(before, after);
    let grown = diff.grown_functions();
    let leak = grown.iter().find(|growth| growth.name.contains("leak_blocks")).unwrap();
    let share = leak.by as f64 / LEAK_BYTES as f64;
    println!("{:.1} MB leaked, {:.1} MB found", LEAK_BYTES as f64 / 1e6, leak.by as f64 / 1e6);
    assert!((0.7..1.3).contains(&share), "{share:.3} of the leak");
    assert!(
        !grown.iter().any(|growth| growth.name.contains("allocate_and_free")),
        "freed memory is not a leak: {grown:?}"
    );
    let deepest = grown.iter().take(5).any(|growth| growth.name.contains("leak_blocks"));
    assert!(deepest || grown[0].by <= leak.by * 11 / 10, "it is among the first: {grown:?}");
    let svg = String::from_utf8(diff.flamegraph().unwrap()).unwrap();
    assert!(svg.contains("leak_blocks"));
}
