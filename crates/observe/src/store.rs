//! Where sections are counted: by each thread for itself, and together when somebody asks.

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    Section, Snapshot,
    cells::{Cells, Passage, Sum},
};

/// Sections that can be counted at most. A program has some dozens; each costs 13 KiB, and 5 KiB more by thread that
/// passes it.
pub const MOST_SECTIONS: usize = 512;
/// Times that are kept of each section.
pub const RECENT: usize = 1000;

/// All that is known.
#[derive(Default)]
struct Store {
    sections: Vec<(&'static Section, Arc<Recent>)>,
    threads: Vec<Arc<Shard>>,
    /// What threads counted that are no more.
    gone: HashMap<usize, Sum>,
}

static STORE: Mutex<Option<Store>> = Mutex::new(None);

/// The last times of a section, of all threads.
#[derive(Debug)]
pub(crate) struct Recent {
    next: AtomicU64,
    values: [AtomicU64; RECENT],
}

impl Recent {
    fn push(&self, value: u64) {
        let place = self.next.fetch_add(1, Relaxed);
        self.values[place as usize % RECENT].store(value, Relaxed);
    }

    /// From the oldest to the latest.
    fn values(&self) -> Vec<u64> {
        let next = self.next.load(Relaxed) as usize;
        let places = next.saturating_sub(RECENT)..next;
        places.map(|place| self.values[place % RECENT].load(Relaxed)).collect()
    }
}

/// What one thread counts.
#[derive(Debug)]
struct Shard {
    cells: [OnceLock<Counted>; MOST_SECTIONS],
}

#[derive(Debug)]
struct Counted {
    cells: Box<Cells>,
    recent: Arc<Recent>,
}

/// A thread's own view.
pub(crate) struct Local {
    shard: Arc<Shard>,
    /// Nanoseconds spent in sections that ended within the one that is open.
    pub(crate) within: Cell<u64>,
}

thread_local! {
    static LOCAL: Local = Local::new();
}

/// Calls `f` with what this thread counts; not while the thread ends.
pub(crate) fn local<T>(f: impl FnOnce(&Local) -> T) -> Option<T> {
    LOCAL.try_with(f).ok()
}

fn store() -> MutexGuard<'static, Option<Store>> {
    STORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives `section` a number; none if there are too many.
pub(crate) fn register(section: &'static Section) -> Option<usize> {
    let mut store = store();
    let sections = &mut store.get_or_insert_default().sections;
    if let Some(number) = sections.iter().position(|(known, _)| std::ptr::eq(*known, section)) {
        return Some(number);
    }
    let number = sections.len();
    if number == MOST_SECTIONS {
        return None;
    }
    let values = [const { AtomicU64::new(0) }; RECENT];
    sections.push((section, Arc::new(Recent { next: AtomicU64::new(0), values })));
    Some(number)
}

impl Local {
    fn new() -> Self {
        let shard = Arc::new(Shard { cells: [const { OnceLock::new() }; MOST_SECTIONS] });
        store().get_or_insert_default().threads.push(Arc::clone(&shard));
        Self { shard, within: Cell::new(0) }
    }

    pub(crate) fn count(&self, number: usize, passage: Passage) {
        let Some(place) = self.shard.cells.get(number) else { return };
        let counted = place.get_or_init(|| {
            let recent = Arc::clone(&store().get_or_insert_default().sections[number].1);
            Counted { cells: Cells::new(), recent }
        });
        counted.cells.pass(passage);
        counted.recent.push(passage.elapsed);
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let mut store = store();
        let Some(store) = &mut *store else { return };
        store.threads.retain(|shard| !Arc::ptr_eq(shard, &self.shard));
        for (number, counted) in self.shard.counted() {
            store.gone.entry(number).or_default().add(&counted.cells);
        }
    }
}

impl Shard {
    fn counted(&self) -> impl Iterator<Item = (usize, &Counted)> {
        self.cells.iter().enumerate().filter_map(|(number, place)| Some((number, place.get()?)))
    }
}

/// What is known of one section.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The section.
    pub section: &'static Section,
    /// How often it was passed.
    pub count: u64,
    /// Nanoseconds from beginnings to ends, together.
    pub total: u64,
    /// What of that it worked itself: neither sections within it nor waiting.
    pub own: u64,
    /// What of that nobody worked.
    pub waited: u64,
    /// Bytes that were allocated within; none where the allocator does not say (see [`crate::count_allocations`]).
    pub allocated: u64,
    /// The shortest time.
    pub min: u64,
    /// The longest time.
    pub max: u64,
    /// All times.
    pub times: Snapshot,
    /// The last [`RECENT`] times, the latest last.
    pub recent: Vec<u64>,
}

impl Summary {
    /// The mean time, in nanoseconds.
    pub fn mean(&self) -> u64 {
        self.total / self.count.max(1)
    }

    /// The latest time.
    pub fn last(&self) -> u64 {
        self.recent.last().copied().unwrap_or(0)
    }
}

/// What is known of every section that was passed.
pub fn summaries() -> Vec<Summary> {
    let store = store();
    let Some(store) = &*store else { return Vec::new() };
    let mut sums = store.gone.clone();
    for (number, counted) in store.threads.iter().flat_map(|shard| shard.counted()) {
        sums.entry(number).or_default().add(&counted.cells);
    }
    let summary = |(number, (section, recent)): (usize, &(&'static Section, Arc<Recent>))| {
        let Sum { count, total, own, waited, allocated, min, max, counts } = sums.remove(&number)?;
        let times = Snapshot::of(counts, total);
        Some(Summary { section, count, total, own, waited, allocated, min, max, times, recent: recent.values() })
    };
    store.sections.iter().enumerate().filter_map(summary).collect()
}
