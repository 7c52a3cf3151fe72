//! What is held, and what leaks. In a build with jemalloc, which `cargo test --workspace` is.
#![cfg(feature = "jemalloc")]
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{hint::black_box, sync::Mutex};

use caudal_profiler::{Difference, Format, Kind, Profile, heap};

static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
const PLANTED: u64 = 96 << 20;

#[inline(never)]
fn keep_for_ever() {
    let blocks = (0..PLANTED >> 16).map(|at| vec![at as u8; 1 << 16]);
    KEPT.lock().unwrap().extend(black_box(blocks));
}

#[inline(never)]
fn give_back() {
    let blocks: Vec<Vec<u8>> = (0..1000).map(|at| vec![at as u8; 1 << 16]).collect();
    black_box(blocks);
}

/// Through its file, as a user compares two.
fn saved() -> Profile {
    let profile = heap().unwrap();
    let read = Profile::read(&Format::Pprof.write(&profile).unwrap()).unwrap();
    assert_eq!((read.kind, &read.stacks), (Kind::Heap, &profile.stacks));
    read
}

#[test]
fn a_planted_leak_is_named_by_what_changed() {
    let before = saved();
    keep_for_ever();
    give_back();
    let after = saved();
    let difference = Difference::new(before, after);
    let grown = difference.grown();
    let planted = grown.iter().find(|growth| growth.name.contains("keep_for_ever")).unwrap();
    let share = planted.by as f64 / PLANTED as f64;
    println!("{:.1} MB planted, {:.1} MB found", PLANTED as f64 / 1e6, planted.by as f64 / 1e6);
    assert!((0.7..1.3).contains(&share), "{share:.3} of what was planted");
    assert!(!grown.iter().any(|growth| growth.name.contains("give_back")), "what was given back is no leak: {grown:?}");
    let deepest = grown.iter().take(5).any(|growth| growth.name.contains("keep_for_ever"));
    assert!(deepest || grown[0].by <= planted.by * 11 / 10, "it stands among the first: {grown:?}");
    let svg = String::from_utf8(difference.flamegraph().unwrap()).unwrap();
    assert!(svg.contains("keep_for_ever"));
}
