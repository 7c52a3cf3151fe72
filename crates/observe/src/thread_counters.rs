//! Counters of one section in one thread. Only that thread writes them, so counting needs no locked instruction; any
//! thread may read them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::buckets::{self, BUCKET_COUNT};

/// The timing of one pass through a section.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SectionTiming {
    /// Nanoseconds from its start to its end.
    pub(crate) elapsed: u64,
    /// Part of that spent in nested sections.
    pub(crate) nested: u64,
    /// Part of that spent waiting.
    pub(crate) waited: u64,
    /// Bytes allocated.
    pub(crate) allocated: u64,
}

#[derive(Debug)]
pub(crate) struct ThreadCounters {
    count: AtomicU64,
    total: AtomicU64,
    own: AtomicU64,
    waited: AtomicU64,
    allocated: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    counts: [AtomicU64; BUCKET_COUNT],
}

fn add_relaxed(cell: &AtomicU64, value: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(value), Relaxed);
}

impl ThreadCounters {
    pub(crate) fn new() -> Box<Self> {
        let zero = || AtomicU64::new(0);
        Box::new(Self {
            count: zero(),
            total: zero(),
            own: zero(),
            waited: zero(),
            allocated: zero(),
            min: AtomicU64::new(u64::MAX),
            max: zero(),
            counts: [const { AtomicU64::new(0) }; BUCKET_COUNT],
        })
    }

    pub(crate) fn record_timing(&self, timing: SectionTiming) {
        let SectionTiming { elapsed, nested, waited, allocated } = timing;
        add_relaxed(&self.count, 1);
        add_relaxed(&self.total, elapsed);
        add_relaxed(&self.own, elapsed.saturating_sub(nested + waited));
        add_relaxed(&self.waited, waited);
        add_relaxed(&self.allocated, allocated);
        if elapsed < self.min.load(Relaxed) {
            self.min.store(elapsed, Relaxed);
        }
        if elapsed > self.max.load(Relaxed) {
            self.max.store(elapsed, Relaxed);
        }
        add_relaxed(&self.counts[buckets::bucket_index(elapsed)], 1);
    }
}

/// Sums over the threads' counters of one section.
#[derive(Debug, Clone)]
pub(crate) struct CounterSums {
    pub(crate) count: u64,
    pub(crate) total: u64,
    pub(crate) own: u64,
    pub(crate) waited: u64,
    pub(crate) allocated: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) counts: Vec<u64>,
}

impl Default for CounterSums {
    fn default() -> Self {
        Self {
            count: 0,
            total: 0,
            own: 0,
            waited: 0,
            allocated: 0,
            min: u64::MAX,
            max: 0,
            counts: vec![0; BUCKET_COUNT],
        }
    }
}

impl CounterSums {
    pub(crate) fn add_counters(&mut self, counters: &ThreadCounters) {
        self.count += counters.count.load(Relaxed);
        self.total += counters.total.load(Relaxed);
        self.own += counters.own.load(Relaxed);
        self.waited += counters.waited.load(Relaxed);
        self.allocated += counters.allocated.load(Relaxed);
        self.min = self.min.min(counters.min.load(Relaxed));
        self.max = self.max.max(counters.max.load(Relaxed));
        self.counts.iter_mut().zip(&counters.counts).for_each(|(sum, count)| *sum += count.load(Relaxed));
    }
}
