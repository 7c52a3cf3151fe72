//! Instance thread: takes a batch, collects its rows, runs it, and distributes the outputs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use caudal_engine::{Instance, Interrupt, ModelSpec, RunError};
use caudal_types::{Run, Stage, TensorView};

use crate::{
    BatchClosedBy, Failure, OutputRows, QueueStats, buffer::BatchBuffer, job::panic_message, queue::QueueShared,
    state::Entry, stats::EntryTimes,
};

/// Serves `queue`, each batch on a free instance, until it is closed and empty or has too many threads.
pub(crate) fn serve_queue(queue: &QueueShared) {
    while let Some(batch) = queue.next_batch() {
        queue.run_batch(batch);
    }
}

/// Time of formation and close reason of a batch.
#[derive(Clone, Copy)]
pub(crate) struct BatchMeta {
    pub(crate) formed: Instant,
    pub(crate) stop: BatchClosedBy,
}

/// One instance with the buffer of its batches.
pub(crate) struct BatchRunner {
    instance: Box<dyn Instance>,
    buffer: BatchBuffer,
}

impl BatchRunner {
    pub(crate) fn new(instance: Box<dyn Instance>, spec: &ModelSpec) -> Self {
        Self { instance, buffer: BatchBuffer::new(spec) }
    }

    pub(crate) fn interrupt_handle(&self) -> Arc<dyn Interrupt> {
        self.instance.interrupt_handle()
    }

    /// Runs `entries` together; if that fails, each separately, so that only the entry at fault fails. Returns whether
    /// the run succeeded.
    pub(crate) fn run_entries(&mut self, queue: &QueueShared, entries: Vec<Entry>, meta: BatchMeta) -> bool {
        let (mut entries, rows) = self.fill_buffer(queue, entries, meta.formed);
        if entries.is_empty() {
            return false;
        }
        match self.run_model(queue, &mut entries, rows, meta) {
            Ok(()) => true,
            Err(RunError::Interrupted) => {
                entries.into_iter().for_each(|entry| entry.job.send_failure(Failure::Abandoned));
                false
            }
            Err(RunError::Failed(_)) if entries.len() > 1 => {
                for entry in entries {
                    self.run_entries(queue, vec![entry], BatchMeta { formed: Instant::now(), ..meta });
                }
                false
            }
            Err(RunError::Failed(reason)) => {
                QueueStats::increment(&queue.stats.failed);
                entries.into_iter().for_each(|entry| entry.job.send_failure(Failure::Failed(reason.clone())));
                false
            }
        }
    }

    /// Lets each entry write its rows; an entry that cannot fails alone and leaves no gap.
    fn fill_buffer(&mut self, queue: &QueueShared, entries: Vec<Entry>, formed: Instant) -> (Vec<Entry>, usize) {
        let expected: usize = entries.iter().map(|entry| entry.request.rows).sum();
        let length = |entry: &Entry| entry.job.shapes().first().and_then(|shape| shape.get(1)).copied();
        let ragged = entries.iter().filter(|entry| entry.request.tokens > 0);
        let longest = ragged.filter_map(length).max();
        let mut rows = 0;
        let mut filled = Vec::with_capacity(entries.len());
        for entry in entries {
            let own = entry.request.rows;
            if entry.job.is_abandoned() {
                continue;
            }
            entry.trace.enter_at(Stage::Prepare, formed);
            if filled.is_empty() {
                self.buffer.begin_batch(entry.job.shapes(), longest, own, expected);
            }
            if (0..queue.spec.inputs.len())
                .all(|input| entry.job.try_write_rows(input, self.buffer.next_rows(input, own)))
            {
                self.buffer.commit_rows(own);
                rows += own;
                filled.push(entry);
            } else {
                QueueStats::increment(&queue.stats.failed);
                entry.job.send_failure(Failure::Failed("preparing the input failed".to_owned()));
            }
        }
        (filled, rows)
    }

    /// Runs the buffered rows and answers `entries`, which remain if the run fails.
    fn run_model(
        &mut self,
        queue: &QueueShared,
        entries: &mut Vec<Entry>,
        rows: usize,
        meta: BatchMeta,
    ) -> Result<(), RunError> {
        let BatchMeta { formed, stop } = meta;
        let Self { instance, buffer } = self;
        // A single entry gets the whole output, whatever its first dimension counts.
        let joined = queue.joined && entries.len() > 1;
        let prepared = Instant::now();
        let number = queue.stats.runs.fetch_add(1, Relaxed);
        let run = Run { number, requests: entries.len(), rows, why: stop.name() };
        entries.iter().for_each(|entry| entry.trace.run_at(run, prepared));
        let views = buffer.batch_views(joined.then_some(rows));
        if let Some(recent) = &queue.recent {
            recent.record_run(&views);
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
                let times = EntryTimes { arrived: entry.trace.start(), ready: entry.since, formed, prepared, inferred };
                entry.job.send_answer(OutputRows::new(outputs, own), &entry.trace, &times, stats);
            }
        };
        let run = catch_unwind(AssertUnwindSafe(|| instance.run(&views, &mut answer)));
        let run = run.unwrap_or_else(|panic| Err(RunError::Failed(panic_message(&*panic).to_owned())));
        match odd {
            Some(reason) => Err(RunError::Failed(reason)),
            None => run,
        }
    }
}
