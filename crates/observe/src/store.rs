//! Storage of section counters: each thread counts for itself, and readers sum them up.

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
    thread_counters::{CounterSums, SectionTiming, ThreadCounters},
};

/// Maximum number of sections. A program has some dozens; each costs 13 KiB, plus 5 KiB per thread that enters it.
pub const MAX_SECTIONS: usize = 512;
/// Number of recent times stored per section.
pub const MAX_RECENT_TIMES: usize = 1000;

/// All sections and threads.
#[derive(Default)]
struct SectionStore {
    sections: Vec<(&'static Section, Arc<RecentTimes>)>,
    threads: Vec<Arc<Shard>>,
    /// Sums of ended threads.
    ended_threads: HashMap<usize, CounterSums>,
}

static SECTION_STORE: Mutex<Option<SectionStore>> = Mutex::new(None);

/// The latest times of a section, of all threads.
#[derive(Debug)]
pub(crate) struct RecentTimes {
    next: AtomicU64,
    values: [AtomicU64; MAX_RECENT_TIMES],
}

impl RecentTimes {
    fn record_recent(&self, value: u64) {
        let slot = self.next.fetch_add(1, Relaxed);
        self.values[slot as usize % MAX_RECENT_TIMES].store(value, Relaxed);
    }

    /// The times, oldest first.
    fn to_ordered(&self) -> Vec<u64> {
        let next = self.next.load(Relaxed) as usize;
        let slots = next.saturating_sub(MAX_RECENT_TIMES)..next;
        slots.map(|slot| self.values[slot % MAX_RECENT_TIMES].load(Relaxed)).collect()
    }
}

/// The counters of one thread.
#[derive(Debug)]
struct Shard {
    counters: [OnceLock<SectionCounters>; MAX_SECTIONS],
}

#[derive(Debug)]
struct SectionCounters {
    counters: Box<ThreadCounters>,
    recent: Arc<RecentTimes>,
}

/// The counting state of the current thread.
pub(crate) struct Local {
    shard: Arc<Shard>,
    /// Nanoseconds spent in ended sections that are nested in the open one.
    pub(crate) nested: Cell<u64>,
}

thread_local! {
    static THREAD_LOCAL: Local = Local::new();
}

/// Calls `f` with the state of this thread; returns `None` while the thread ends.
pub(crate) fn with_local<T>(f: impl FnOnce(&Local) -> T) -> Option<T> {
    THREAD_LOCAL.try_with(f).ok()
}

fn lock_store() -> MutexGuard<'static, Option<SectionStore>> {
    SECTION_STORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers `section` and returns its number; `None` if there are too many.
pub(crate) fn register_section(section: &'static Section) -> Option<usize> {
    let mut store = lock_store();
    let sections = &mut store.get_or_insert_default().sections;
    if let Some(number) = sections.iter().position(|(known, _)| std::ptr::eq(*known, section)) {
        return Some(number);
    }
    let number = sections.len();
    if number == MAX_SECTIONS {
        return None;
    }
    let values = [const { AtomicU64::new(0) }; MAX_RECENT_TIMES];
    sections.push((section, Arc::new(RecentTimes { next: AtomicU64::new(0), values })));
    Some(number)
}

impl Local {
    fn new() -> Self {
        let shard = Arc::new(Shard { counters: [const { OnceLock::new() }; MAX_SECTIONS] });
        lock_store().get_or_insert_default().threads.push(Arc::clone(&shard));
        Self { shard, nested: Cell::new(0) }
    }

    pub(crate) fn record_timing(&self, number: usize, timing: SectionTiming) {
        let Some(slot) = self.shard.counters.get(number) else { return };
        let counted = slot.get_or_init(|| {
            let recent = Arc::clone(&lock_store().get_or_insert_default().sections[number].1);
            SectionCounters { counters: ThreadCounters::new(), recent }
        });
        counted.counters.record_timing(timing);
        counted.recent.record_recent(timing.elapsed);
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let mut store = lock_store();
        let Some(store) = &mut *store else { return };
        store.threads.retain(|shard| !Arc::ptr_eq(shard, &self.shard));
        for (number, counted) in self.shard.counted_sections() {
            store.ended_threads.entry(number).or_default().add_counters(&counted.counters);
        }
    }
}

impl Shard {
    fn counted_sections(&self) -> impl Iterator<Item = (usize, &SectionCounters)> {
        self.counters.iter().enumerate().filter_map(|(number, slot)| Some((number, slot.get()?)))
    }
}

/// Statistics of one section.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The section.
    pub section: &'static Section,
    /// Number of passes.
    pub count: u64,
    /// Total nanoseconds.
    pub total: u64,
    /// Nanoseconds of its own work: without nested sections and waiting.
    pub own: u64,
    /// Nanoseconds spent waiting.
    pub waited: u64,
    /// Allocated bytes; 0 if the allocator is not counted (see [`crate::count_allocations`]).
    pub allocated: u64,
    /// The shortest time.
    pub min: u64,
    /// The longest time.
    pub max: u64,
    /// Distribution of all times.
    pub times: Snapshot,
    /// The last [`MAX_RECENT_TIMES`] times, oldest first.
    pub recent: Vec<u64>,
}

impl Summary {
    /// Mean time in nanoseconds.
    pub fn mean(&self) -> u64 {
        self.total / self.count.max(1)
    }

    /// Latest time.
    pub fn last(&self) -> u64 {
        self.recent.last().copied().unwrap_or(0)
    }
}

/// Statistics of every registered section.
pub fn summaries() -> Vec<Summary> {
    let store = lock_store();
    let Some(store) = &*store else { return Vec::new() };
    let mut sums = store.ended_threads.clone();
    for (number, counted) in store.threads.iter().flat_map(|shard| shard.counted_sections()) {
        sums.entry(number).or_default().add_counters(&counted.counters);
    }
    let summary = |(number, (section, recent)): (usize, &(&'static Section, Arc<RecentTimes>))| {
        let CounterSums { count, total, own, waited, allocated, min, max, counts } = sums.remove(&number)?;
        let times = Snapshot::from_counts(counts, total);
        Some(Summary { section, count, total, own, waited, allocated, min, max, times, recent: recent.to_ordered() })
    };
    store.sections.iter().enumerate().filter_map(summary).collect()
}
