//! A key of the cache needs no memory of its own once a thread is warm.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use caudal_flow::{Canonical, Value, key_of, value};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator that counts is one")]
// SAFETY: it is the system's, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(work: impl Fn()) -> u64 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

#[test]
fn hashing_and_writing_allocate_nothing_once_warm() {
    let text = "x".repeat(1_000);
    let input = value!({"text": text, "list": [1, 2.5, true, null, "y"], "map": {"a": {"b": "c"}}});
    let key = |value: &Value| key_of(|to| value.write(to)).expect("plain data");
    let first = key(&input);
    assert_eq!(count(|| assert_eq!(key(&input), first)), 0);
    let large = value!({"text": "y".repeat(500_000)});
    key(&large);
    assert_eq!(count(|| assert_ne!(key(&large), first)), 0, "the buffer has grown once");
}

#[test]
fn to_hold_a_value_twice_is_to_count() {
    let input = value!({"text": "x".repeat(1_000), "list": [1, 2, 3]});
    assert_eq!(count(|| drop(input.clone())), 0);
}
