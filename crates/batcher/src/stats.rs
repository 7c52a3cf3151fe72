//! What a queue has done so far, for those who report it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use caudal_observe::Histogram;
use caudal_types::TensorView;

use crate::Stop;

/// Running totals of one model; times in nanoseconds.
#[derive(Debug, Default)]
pub struct Stats {
    /// Time from a batch's rows being in place to its outputs.
    pub infer: Histogram,
    /// Rows in each run.
    pub batch_rows: Histogram,
    /// Tokens in each run, padding included, where rows differ in length.
    pub batch_tokens: Histogram,
    /// Those of them that were padding.
    pub padding: AtomicU64,
    /// Runs that were begun.
    pub runs: AtomicU64,
    /// Runs by the reason their batch ended where it did, in the order of [`Stats::STOPS`].
    pub stops: [AtomicU64; 6],
    /// Entries answered.
    pub answered: AtomicU64,
    /// Entries that failed in the model.
    pub failed: AtomicU64,
    /// Entries whose deadline passed before their answer, wherever they were.
    pub late: AtomicU64,
    /// Entries whose caller left before the answer.
    pub abandoned: AtomicU64,
    /// Seats given back before their rows were ready: the picture was no picture, or its sender left.
    pub withdrawn: AtomicU64,
    /// Entries that waited longer than entries of their priority may.
    pub expired: AtomicU64,
    /// Refused because too much waits.
    pub refused_full: AtomicU64,
    /// Refused because the deadline could not be met.
    pub refused_deadline: AtomicU64,
}

/// What a queue holds at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Entries admitted that do not run yet, those still being decoded included.
    pub entries: usize,
    /// Instances that run.
    pub busy_instances: usize,
    /// All instances.
    pub instances: usize,
}

impl Stats {
    /// The reasons counted in `stops`, in order.
    pub const STOPS: [&'static str; 6] = ["drained", "full", "preferred", "no_room", "other_shape", "padding"];

    pub(crate) fn count_stop(&self, stop: Stop) {
        if let Some(i) = Self::STOPS.iter().position(|name| *name == stop.name()) {
            self.stops[i].fetch_add(1, Relaxed);
        }
    }

    /// Counts a run on `input`, of which `tokens` are no padding.
    pub(crate) fn count_tokens(&self, input: &TensorView<'_>, tokens: usize) {
        let all: usize = input.shape.iter().take(2).product();
        self.batch_tokens.record(all as u64);
        self.padding.fetch_add(all.saturating_sub(tokens) as u64, Relaxed);
    }

    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}
