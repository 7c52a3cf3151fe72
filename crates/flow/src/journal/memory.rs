//! Runs kept in this process: gone when it ends.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::ready};
use uuid::Uuid;

use super::{Glance, Line, Listing, MAX_RECOVERIES, Reply, Runs, lines::recoveries};
use crate::error::RunError;

/// Runs that are over and still told of.
const OVER: usize = 1_000;
/// What stands before a hash in place of a value.
const INSTEAD: &str = "{\"$blob\":\"";

#[derive(Debug)]
struct Kept {
    begun: Bytes,
    lines: Vec<Line>,
    time: i64,
    last_time: i64,
    /// Counts runs in the order in which they were made.
    number: u64,
}

impl Kept {
    fn is_over(&self) -> bool {
        self.lines.last().is_some_and(|line| &*line.kind == "ended")
    }
}

#[derive(Debug, Default)]
struct Shelf {
    runs: HashMap<Box<str>, Kept>,
    /// Large values, and how often they were kept.
    blobs: HashMap<Box<str>, (Bytes, usize)>,
    over: VecDeque<Box<str>>,
    made: u64,
}

impl Shelf {
    /// Lets go of the large values that only a run which is gone had.
    fn forget(&mut self, gone: &Kept) {
        let bodies = gone.lines.iter().map(|line| &line.body).chain([&gone.begun]);
        for hash in bodies.flat_map(|body| hashes(body)) {
            if let Some((_, times)) = self.blobs.get_mut(hash) {
                *times = times.saturating_sub(1);
                if *times == 0 {
                    self.blobs.remove(hash);
                }
            }
        }
    }
}

/// The hashes that stand in place of values.
fn hashes(body: &[u8]) -> impl Iterator<Item = &str> {
    let text = std::str::from_utf8(body).unwrap_or_default();
    text.split(INSTEAD).skip(1).filter_map(|rest| rest.split('"').next())
}

/// Runs kept in this process.
#[derive(Debug, Clone, Default)]
pub struct MemoryRuns(Arc<Mutex<Shelf>>);

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

impl MemoryRuns {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runs for MemoryRuns {
    fn create(&self, id: &str, begun: Bytes) -> Reply<()> {
        let mut shelf = self.shelf();
        if shelf.runs.contains_key(id) {
            return ready(Err(RunError::Exists(id.into()))).boxed();
        }
        shelf.made += 1;
        let kept = Kept { begun, lines: Vec::new(), time: now(), last_time: now(), number: shelf.made };
        shelf.runs.insert(id.into(), kept);
        ready(Ok(())).boxed()
    }

    fn append(&self, id: &str, expected: u64, lines: Vec<Line>) -> Reply<()> {
        let mut shelf = self.shelf();
        let Some(kept) = shelf.runs.get_mut(id) else { return ready(Err(RunError::Unknown(id.into()))).boxed() };
        if kept.lines.len() as u64 != expected {
            return ready(Err(RunError::Taken)).boxed();
        }
        let over = lines.iter().any(|line| &*line.kind == "ended");
        kept.lines.extend(lines);
        kept.last_time = now();
        if over {
            shelf.over.push_back(id.into());
            if shelf.over.len() > OVER
                && let Some(oldest) = shelf.over.pop_front()
                // One that was taken up again is not over.
                && shelf.runs.get(&oldest).is_some_and(Kept::is_over)
            {
                let gone = shelf.runs.remove(&oldest);
                gone.iter().for_each(|gone| shelf.forget(gone));
            }
        }
        ready(Ok(())).boxed()
    }

    fn read(&self, id: &str) -> Reply<Option<(Bytes, Vec<Line>)>> {
        let found = self.shelf().runs.get(id).map(|kept| (kept.begun.clone(), kept.lines.clone()));
        ready(Ok(found)).boxed()
    }

    fn list(&self, limit: u32, offset: u64) -> Reply<Listing> {
        let shelf = self.shelf();
        let mut runs: Vec<(&str, &Kept)> = shelf.runs.iter().map(|(id, kept)| (&**id, kept)).collect();
        runs.sort_by_key(|(_, kept)| std::cmp::Reverse(kept.number));
        let glance = |(id, kept): (&str, &Kept)| Glance {
            id: id.into(),
            begun: kept.begun.clone(),
            time: kept.time,
            last_time: kept.last_time,
            lines: kept.lines.len() as u64,
            last: kept.lines.last().cloned(),
            resumed: kept.lines.iter().rfind(|line| &*line.kind == "resumed").cloned(),
            recoveries: recoveries(kept.lines.iter().rev()).min(MAX_RECOVERIES),
        };
        let total = runs.len() as u64;
        let some = runs.into_iter().skip(offset as usize).take(limit as usize).map(glance).collect();
        ready(Ok(Listing { runs: some, total })).boxed()
    }

    fn keep(&self, hash: &str, bytes: Bytes) -> Reply<()> {
        self.shelf().blobs.entry(hash.into()).or_insert((bytes, 0)).1 += 1;
        ready(Ok(())).boxed()
    }

    fn kept(&self, hash: &str) -> Reply<Option<Bytes>> {
        ready(Ok(self.shelf().blobs.get(hash).map(|(bytes, _)| bytes.clone()))).boxed()
    }

    fn attend(&self, _: Uuid) -> Reply<()> {
        ready(Ok(())).boxed()
    }

    /// All who know of these runs are in this process.
    fn attended(&self, name: Uuid) -> Reply<bool> {
        ready(Ok(!name.is_nil())).boxed()
    }
}
