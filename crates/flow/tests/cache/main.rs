//! The cache of steps: one contract for the memory alone and with a shelf of SQLite's behind it, then what a shelf adds:
//! it outlasts its process, and nothing that befalls its file befalls a run.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod child;
mod contract;
mod file;
mod shelf;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use caudal_flow::{Answered, Canonical, Found, Key, Map, Shelf, ShelfOptions, SqliteShelf, StepCache, Value};
use caudal_store::Clock;

const HOUR: Duration = Duration::from_secs(3_600);
const ROOM: u64 = 64 << 20;

fn key(number: u64) -> Key {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&number.to_le_bytes());
    key
}

fn answer(value: impl Into<Value>) -> Answered {
    Answered { value: value.into(), changes: Map::default() }
}

/// The bytes of a value: the same only where sorts and bits are.
fn bits(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    value.write(&mut bytes).unwrap();
    bytes
}

/// Asks for an answer that would be `made`.
async fn ask(cache: &StepCache, number: u64, made: impl Into<Value>) -> (Value, Found) {
    let made = answer(made);
    let (answered, found) = cache.get(key(number), None, async { Ok::<_, ()>(made) }).await.unwrap();
    (answered.value, found)
}

/// Waits until it is so.
#[track_caller]
fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < end, "it never came about: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A clock that stands until it is put forward.
#[derive(Clone)]
struct Hand(Arc<AtomicI64>);

impl Hand {
    fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_700_000_000_000_000)))
    }

    fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, Relaxed);
    }

    fn clock(&self) -> Clock {
        let hand = self.clone();
        Clock::new(move || hand.0.load(Relaxed))
    }
}

fn open(folder: &Path) -> SqliteShelf {
    SqliteShelf::open(ShelfOptions::within(folder, ROOM)).unwrap()
}

fn open_at(folder: &Path, bytes: u64, hand: &Hand) -> SqliteShelf {
    SqliteShelf::open(ShelfOptions { clock: hand.clock(), ..ShelfOptions::within(folder, bytes) }).unwrap()
}

async fn found(shelf: &SqliteShelf, number: u64) -> Option<Value> {
    shelf.get(&key(number)).await.map(|shelved| shelved.answer.value)
}
