//! What one thread counted of one section. Only that thread writes, so counting takes no locked instruction; everybody
//! may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::buckets::{self, BUCKETS};

/// One time through a section.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passage {
    /// From its beginning to its end, in nanoseconds.
    pub(crate) elapsed: u64,
    /// What of that was spent in sections within.
    pub(crate) within: u64,
    /// What of that nobody worked.
    pub(crate) waited: u64,
    /// Bytes allocated meanwhile.
    pub(crate) allocated: u64,
}

#[derive(Debug)]
pub(crate) struct Cells {
    count: AtomicU64,
    total: AtomicU64,
    own: AtomicU64,
    waited: AtomicU64,
    allocated: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    counts: [AtomicU64; BUCKETS],
}

fn add(cell: &AtomicU64, value: u64) {
    cell.store(cell.load(Relaxed).wrapping_add(value), Relaxed);
}

impl Cells {
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
            counts: [const { AtomicU64::new(0) }; BUCKETS],
        })
    }

    pub(crate) fn pass(&self, passage: Passage) {
        let Passage { elapsed, within, waited, allocated } = passage;
        add(&self.count, 1);
        add(&self.total, elapsed);
        add(&self.own, elapsed.saturating_sub(within + waited));
        add(&self.waited, waited);
        add(&self.allocated, allocated);
        if elapsed < self.min.load(Relaxed) {
            self.min.store(elapsed, Relaxed);
        }
        if elapsed > self.max.load(Relaxed) {
            self.max.store(elapsed, Relaxed);
        }
        add(&self.counts[buckets::index(elapsed)], 1);
    }
}

/// What all threads counted of one section.
#[derive(Debug, Clone)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) total: u64,
    pub(crate) own: u64,
    pub(crate) waited: u64,
    pub(crate) allocated: u64,
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) counts: Vec<u64>,
}

impl Default for Sum {
    fn default() -> Self {
        Self { count: 0, total: 0, own: 0, waited: 0, allocated: 0, min: u64::MAX, max: 0, counts: vec![0; BUCKETS] }
    }
}

impl Sum {
    pub(crate) fn add(&mut self, cells: &Cells) {
        self.count += cells.count.load(Relaxed);
        self.total += cells.total.load(Relaxed);
        self.own += cells.own.load(Relaxed);
        self.waited += cells.waited.load(Relaxed);
        self.allocated += cells.allocated.load(Relaxed);
        self.min = self.min.min(cells.min.load(Relaxed));
        self.max = self.max.max(cells.max.load(Relaxed));
        self.counts.iter_mut().zip(&cells.counts).for_each(|(sum, count)| *sum += count.load(Relaxed));
    }
}
