//! Queue statistics: counters and histograms of one model.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use caudal_observe::Histogram;
use caudal_types::TensorView;

use crate::BatchClosedBy;

/// Running totals of one model; times in nanoseconds.
#[derive(Debug, Default)]
pub struct QueueStats {
    /// Time of a run, from complete input rows to its outputs.
    pub infer: Histogram,
    /// Time that answered entries waited, from ready rows to their batch.
    pub waited: Histogram,
    /// Time that answered entries spent elsewhere.
    pub spent: TimeSpent,
    /// Rows in each run.
    pub batch_rows: Histogram,
    /// Tokens in each run, padding included, if rows differ in length.
    pub batch_tokens: Histogram,
    /// Padding tokens among them.
    pub padding: AtomicU64,
    /// Runs that were started.
    pub runs: AtomicU64,
    /// Runs by close reason of their batch, in the order of [`Stats::CLOSE_REASONS`].
    pub stops: [AtomicU64; 6],
    /// Entries answered.
    pub answered: AtomicU64,
    /// Entries that failed in the model.
    pub failed: AtomicU64,
    /// Entries whose deadline passed before their answer.
    pub late: AtomicU64,
    /// Entries whose caller left before the answer.
    pub abandoned: AtomicU64,
    /// Permits returned before their rows were ready: the image was invalid, or its client disconnected.
    pub withdrawn: AtomicU64,
    /// Entries that waited longer than their priority allows.
    pub expired: AtomicU64,
    /// Entries refused because the queue was full.
    pub refused_full: AtomicU64,
    /// Entries refused because their deadline was unreachable.
    pub refused_deadline: AtomicU64,
}

/// Time of answered entries, summed; a run counts for each of its entries.
#[derive(Debug, Default)]
pub struct TimeSpent {
    /// Preparing the batch.
    pub prepare: AtomicU64,
    /// Running the model.
    pub infer: AtomicU64,
    /// Converting the outputs to answers.
    pub finish: AtomicU64,
    /// From the request's arrival to the answer.
    pub whole: AtomicU64,
}

/// Moments in the life of an entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryTimes {
    /// The request's head arrived.
    pub(crate) arrived: Instant,
    /// Its rows were ready.
    pub(crate) ready: Instant,
    /// Its batch was formed.
    pub(crate) formed: Instant,
    /// All rows were in place.
    pub(crate) prepared: Instant,
    /// The model had run.
    pub(crate) inferred: Instant,
}

/// The present load of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueDepth {
    /// Entries admitted that do not run yet, including those being decoded.
    pub entries: usize,
    /// Running instances.
    pub busy_instances: usize,
    /// All instances.
    pub instances: usize,
}

impl QueueStats {
    /// The reasons counted in `stops`, in order.
    pub const CLOSE_REASONS: [&'static str; 6] = ["drained", "full", "preferred", "no_room", "other_shape", "padding"];

    pub(crate) fn count_close_reason(&self, stop: BatchClosedBy) {
        if let Some(i) = Self::CLOSE_REASONS.iter().position(|name| *name == stop.name()) {
            self.stops[i].fetch_add(1, Relaxed);
        }
    }

    /// Counts a run on `input` with `tokens` that are not padding.
    pub(crate) fn count_tokens(&self, input: &TensorView<'_>, tokens: usize) {
        let all: usize = input.shape.iter().take(2).product();
        self.batch_tokens.record(all as u64);
        self.padding.fetch_add(all.saturating_sub(tokens) as u64, Relaxed);
    }

    /// Counts an answer, or the failure to convert it.
    pub(crate) fn count_answer(&self, times: &EntryTimes, is_ok: bool) {
        if !is_ok {
            return Self::increment(&self.failed);
        }
        let nanos = |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos() as u64;
        let EntryTimes { arrived, ready, formed, prepared, inferred } = *times;
        let (now, spent) = (Instant::now(), &self.spent);
        self.waited.record(nanos(ready, formed));
        for (sum, from, to) in [
            (&spent.prepare, formed, prepared),
            (&spent.infer, prepared, inferred),
            (&spent.finish, inferred, now),
            (&spent.whole, arrived, now),
        ] {
            sum.fetch_add(nanos(from, to), Relaxed);
        }
        Self::increment(&self.answered);
    }

    pub(crate) fn increment(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}
