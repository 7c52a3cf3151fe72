//! What a queue has done so far, for those who report it.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use caudal_observe::Histogram;
use caudal_types::TensorView;

use crate::Stop;

/// Running totals of one model; times in nanoseconds.
#[derive(Debug, Default)]
pub struct Stats {
    /// Time from a batch's rows being in place to its outputs.
    pub infer: Histogram,
    /// Time that entries which were answered waited, from their rows being ready to their batch.
    pub waited: Histogram,
    /// What these spent elsewhere.
    pub spent: Spent,
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

/// Time that entries which were answered spent, all of them together: those that share a run count it each.
#[derive(Debug, Default)]
pub struct Spent {
    /// While the batch was put together.
    pub prepare: AtomicU64,
    /// While the model ran.
    pub infer: AtomicU64,
    /// Until their answer was made of its outputs.
    pub finish: AtomicU64,
    /// From the request's arrival to then.
    pub whole: AtomicU64,
}

/// When an entry came to each of its stations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// The request's head.
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

    /// Counts an answer that is made now, or the failure to make it.
    pub(crate) fn count_answer(&self, times: &Times, is_ok: bool) {
        if !is_ok {
            return Self::count(&self.failed);
        }
        let nanos = |from: Instant, to: Instant| to.saturating_duration_since(from).as_nanos() as u64;
        let Times { arrived, ready, formed, prepared, inferred } = *times;
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
        Self::count(&self.answered);
    }

    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }
}
