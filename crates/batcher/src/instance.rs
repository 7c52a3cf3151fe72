//! The thread of one instance: take a batch, put its rows together, run it, hand out the answers.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use caudal_engine::{Instance, Interrupt, ModelSpec, RunError};
use caudal_types::{Run, Stage, TensorView};

use crate::{
    Failure, OutputRows, Stats, Stop, buffer::BatchBuffer, job::panic_words, queue::Inner, state::Entry, stats::Times,
};

/// Serves `queue`, each batch on an instance that is free, until it is closed and empty or has threads to spare.
pub(crate) fn serve(queue: &Inner) {
    while let Some(batch) = queue.next_batch() {
        queue.run(batch);
    }
}

/// When a batch was cut off from what waits, and why there.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) formed: Instant,
    pub(crate) stop: Stop,
}

/// One instance with the memory its batches are put together in.
pub(crate) struct Runner {
    instance: Box<dyn Instance>,
    buffer: BatchBuffer,
}

impl Runner {
    pub(crate) fn new(instance: Box<dyn Instance>, spec: &ModelSpec) -> Self {
        Self { instance, buffer: BatchBuffer::new(spec) }
    }

    pub(crate) fn interrupt(&self) -> Arc<dyn Interrupt> {
        self.instance.interrupt()
    }

    /// Runs `entries` together; where that fails, each by itself, so that the one at fault fails alone.
    /// True when the model ran and answered.
    pub(crate) fn run(&mut self, queue: &Inner, entries: Vec<Entry>, cut: Cut) -> bool {
        let (mut entries, rows) = self.fill(queue, entries, cut.formed);
        if entries.is_empty() {
            return false;
        }
        match self.infer(queue, &mut entries, rows, cut) {
            Ok(()) => true,
            Err(RunError::Interrupted) => {
                entries.into_iter().for_each(|entry| entry.job.fail(Failure::Abandoned));
                false
            }
            Err(RunError::Failed(_)) if entries.len() > 1 => {
                for entry in entries {
                    self.run(queue, vec![entry], Cut { formed: Instant::now(), ..cut });
                }
                false
            }
            Err(RunError::Failed(reason)) => {
                Stats::count(&queue.stats.failed);
                entries.into_iter().for_each(|entry| entry.job.fail(Failure::Failed(reason.clone())));
                false
            }
        }
    }

    /// Lets each entry write its rows; one that cannot fails alone and leaves no hole.
    fn fill(&mut self, queue: &Inner, entries: Vec<Entry>, formed: Instant) -> (Vec<Entry>, usize) {
        let expected: usize = entries.iter().map(|entry| entry.request.rows).sum();
        let length = |entry: &Entry| entry.job.shapes().first().and_then(|shape| shape.get(1)).copied();
        let ragged = entries.iter().filter(|entry| entry.request.tokens > 0);
        let longest = ragged.filter_map(length).max();
        let mut rows = 0;
        let mut filled = Vec::with_capacity(entries.len());
        for entry in entries {
            let own = entry.request.rows;
            if entry.job.abandoned() {
                continue;
            }
            entry.trace.enter_at(Stage::Prepare, formed);
            if filled.is_empty() {
                self.buffer.begin(entry.job.shapes(), longest, own, expected);
            }
            if (0..queue.spec.inputs.len()).all(|input| entry.job.fill(input, self.buffer.next(input, own))) {
                self.buffer.keep(own);
                rows += own;
                filled.push(entry);
            } else {
                Stats::count(&queue.stats.failed);
                entry.job.fail(Failure::Failed("preparing the input failed".to_owned()));
            }
        }
        (filled, rows)
    }

    /// Runs what the buffer holds and answers `entries`, which stay where they are if it fails.
    fn infer(&mut self, queue: &Inner, entries: &mut Vec<Entry>, rows: usize, cut: Cut) -> Result<(), RunError> {
        let Cut { formed, stop } = cut;
        let Self { instance, buffer } = self;
        // Who runs alone gets what the model gives, whatever its first dimension counts.
        let joined = queue.joined && entries.len() > 1;
        let prepared = Instant::now();
        let number = queue.stats.runs.fetch_add(1, Relaxed);
        let run = Run { number, requests: entries.len(), rows, why: stop.name() };
        entries.iter().for_each(|entry| entry.trace.run_at(run, prepared));
        let views = buffer.views(joined.then_some(rows));
        if let Some(recent) = &queue.recent {
            recent.keep(&views);
        }
        let mut odd = None;
        let mut answer = |outputs: &[TensorView<'_>]| {
            let inferred = Instant::now();
            entries.iter().for_each(|entry| entry.trace.enter_at(Stage::Finish, inferred));
            let stats = &queue.stats;
            stats.infer.record((inferred - prepared).as_nanos() as u64);
            stats.batch_rows.record(rows as u64);
            let tokens: usize = entries.iter().map(|entry| entry.request.tokens).sum();
            if tokens > 0 {
                stats.count_tokens(&views[0], tokens);
            }
            if joined && let Some(output) = outputs.iter().find(|output| output.shape.first() != Some(&rows)) {
                odd = Some(format!("it gave {:?} for {rows} rows", output.shape));
                return;
            }
            let mut from = 0;
            for entry in entries.drain(..) {
                let own = joined.then_some((from, entry.request.rows));
                from += entry.request.rows;
                let times = Times { arrived: entry.trace.start(), ready: entry.since, formed, prepared, inferred };
                entry.job.answer(OutputRows::new(outputs, own), &entry.trace, &times, stats);
            }
        };
        let run = catch_unwind(AssertUnwindSafe(|| instance.run(&views, &mut answer)));
        let run = run.unwrap_or_else(|panic| Err(RunError::Failed(panic_words(&*panic).to_owned())));
        match odd {
            Some(reason) => Err(RunError::Failed(reason)),
            None => run,
        }
    }
}
