//! Stages of a request, and the time spent in each.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A stage of a request, in the order of processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// From the request's head to the last byte of its body, including admission.
    Receive,
    /// Loading a model that was not in memory.
    Load,
    /// Administration: changing models, cleaning up memory.
    Admin,
    /// From bytes to events: parsing, validation, canonicalisation.
    Ingest,
    /// Detecting the event types and checking completeness.
    Segment,
    /// Hashing.
    Hash,
    /// Reading and verifying the record, and replaying states from it.
    Store,
    /// Writing to disk.
    Persist,
    /// Running a pipeline's steps.
    Flow,
    /// Waiting for a decode thread, or for memory for an upload.
    Wait,
    /// From compressed bytes to pixels at the model's size, or from JSON to tensors.
    Decode,
    /// Waiting in the model's queue.
    Queue,
    /// Writing the row into the batch.
    Prepare,
    /// Running the model.
    Infer,
    /// From the model's output to a result, such as filtered boxes.
    Finish,
    /// From the result to bytes.
    Encode,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 16] = [
        Self::Receive,
        Self::Load,
        Self::Admin,
        Self::Ingest,
        Self::Segment,
        Self::Hash,
        Self::Store,
        Self::Persist,
        Self::Flow,
        Self::Wait,
        Self::Decode,
        Self::Queue,
        Self::Prepare,
        Self::Infer,
        Self::Finish,
        Self::Encode,
    ];

    /// Name of the stage in headers, metrics and responses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Load => "load",
            Self::Admin => "admin",
            Self::Ingest => "ingest",
            Self::Segment => "segment",
            Self::Hash => "hash",
            Self::Store => "store",
            Self::Persist => "persist",
            Self::Flow => "flow",
            Self::Wait => "wait",
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Prepare => "prepare",
            Self::Infer => "infer",
            Self::Finish => "finish",
            Self::Encode => "encode",
        }
    }
}

/// A version of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelId {
    /// Model name.
    pub name: Arc<str>,
    /// Version number.
    pub version: u64,
}

/// The batch run of a model that a request was part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Number of the run, unique per model.
    pub number: u64,
    /// Requests, or parts of requests, in the batch.
    pub requests: usize,
    /// Rows in the batch.
    pub rows: usize,
    /// Reason for closing the batch.
    pub why: &'static str,
}

/// Timing of a pipeline step that ran for a request.
#[derive(Debug, Clone, PartialEq)]
pub struct StepTiming {
    /// Path of the step within the run: step names separated by slashes.
    pub path: Box<str>,
    /// Step kind.
    pub kind: &'static str,
    /// Final status.
    pub status: &'static str,
    /// Start, relative to the request's arrival.
    pub began: Duration,
    /// Duration.
    pub took: Duration,
    /// Number of attempts.
    pub attempts: u32,
    /// True if its output came from the cache.
    pub cached: bool,
}

/// The steps of a pipeline run for which a request waited.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineSteps {
    /// Run id.
    pub run: Box<str>,
    /// Pipeline name.
    pub pipeline: Box<str>,
    /// The steps, in the order of their starts.
    pub steps: Box<[StepTiming]>,
}

/// Time per stage of a request. Entering a stage leaves the previous one, so there is no gap.
#[derive(Debug, Clone, Copy)]
pub struct StageTimes {
    start: Instant,
    last: Instant,
    stage: Stage,
    spent: [Duration; Stage::ALL.len()],
    run: Option<Run>,
}

impl StageTimes {
    /// Times of a request that arrived at `start` and is being received.
    pub fn new(start: Instant) -> Self {
        Self { start, last: start, stage: Stage::Receive, spent: [Duration::ZERO; Stage::ALL.len()], run: None }
    }

    /// Times of a request of which only the total is known, from `start` to `end`.
    pub fn from_total(start: Instant, end: Instant) -> Self {
        Self { last: end.max(start), ..Self::new(start) }
    }

    /// Enters `stage` at `moment`; a moment before the last one counts as the last one.
    pub fn enter(&mut self, stage: Stage, moment: Instant) {
        self.spent[self.stage as usize] += moment.saturating_duration_since(self.last);
        self.last = self.last.max(moment);
        self.stage = stage;
    }

    /// Time spent in `stage`, until the current stage was entered.
    pub fn spent(&self, stage: Stage) -> Duration {
        self.spent[stage as usize]
    }

    /// Arrival of the request.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The last batch run that it was part of.
    pub fn run(&self) -> Option<Run> {
        self.run
    }

    /// Time from the arrival to entering the current stage: the sum of all stages.
    pub fn total(&self) -> Duration {
        self.last - self.start
    }

    /// The stages with a non-zero time, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::ALL.into_iter().map(|stage| (stage, self.spent(stage))).filter(|(_, spent)| !spent.is_zero())
    }

    /// Of two concurrent parts of a request, the one it waits for: the one in an earlier stage, or the later one.
    fn latest_of(self, other: Self) -> Self {
        match other.stage.cmp(&self.stage).then(self.last.cmp(&other.last)) {
            std::cmp::Ordering::Less => other,
            _ => self,
        }
    }
}

/// The timings of one request, shared by all parts of the program that process it, so that they are complete whenever
/// and however it ends.
#[derive(Debug, Clone)]
pub struct Trace {
    start: Instant,
    state: Arc<Mutex<TraceState>>,
}

#[derive(Debug)]
struct TraceState {
    times: StageTimes,
    model: Option<ModelId>,
    steps: Option<Arc<PipelineSteps>>,
    closed: bool,
}

impl Trace {
    /// Timings of a request that arrived at `start`.
    pub fn new(start: Instant) -> Self {
        Self::from_times(StageTimes::new(start))
    }

    fn from_times(times: StageTimes) -> Self {
        Self {
            start: times.start,
            state: Arc::new(Mutex::new(TraceState { times, model: None, steps: None, closed: false })),
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, TraceState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arrival of the request.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Enters `stage` now.
    pub fn enter(&self, stage: Stage) {
        self.enter_at(stage, Instant::now());
    }

    /// Enters `stage` at `moment`. Ignored after [`close`](Self::close): work that outlives the response is not
    /// counted.
    pub fn enter_at(&self, stage: Stage, moment: Instant) {
        let mut state = self.lock_state();
        if !state.closed {
            state.times.enter(stage, moment);
        }
    }

    /// Sets the model that the request uses.
    pub fn set_model(&self, model: &ModelId) {
        self.lock_state().model = Some(model.clone());
    }

    /// The model that the request uses, once known.
    pub fn model(&self) -> Option<ModelId> {
        self.lock_state().model.clone()
    }

    /// Sets the steps of the pipeline that ran for the request.
    pub fn set_pipeline_steps(&self, steps: PipelineSteps) {
        self.lock_state().steps = Some(Arc::new(steps));
    }

    /// The steps of the pipeline that ran for the request.
    pub fn pipeline_steps(&self) -> Option<Arc<PipelineSteps>> {
        self.lock_state().steps.clone()
    }

    /// Starts the batch run `run` at `moment`.
    pub fn run_at(&self, run: Run, moment: Instant) {
        let mut state = self.lock_state();
        if !state.closed {
            state.times.enter(Stage::Infer, moment);
            state.times.run = Some(run);
        }
    }

    /// The current stage.
    pub fn stage(&self) -> Stage {
        self.lock_state().times.stage
    }

    /// The current stage; `None` once the response is complete, although it may still be being sent.
    pub fn stage_in_progress(&self) -> Option<Stage> {
        let state = self.lock_state();
        (!state.closed).then_some(state.times.stage)
    }

    /// Enters `stage` until the guard is dropped, then returns to the previous stage.
    pub fn during(&self, stage: Stage) -> During<'_> {
        let before = self.stage();
        self.enter(stage);
        During { trace: self, before }
    }

    /// The times so far.
    pub fn stage_times(&self) -> StageTimes {
        self.lock_state().times
    }

    /// Ends the timing when the response is complete; returns the final times.
    pub fn close(&self) -> StageTimes {
        let mut state = self.lock_state();
        if !state.closed {
            let stage = state.times.stage;
            state.times.enter(stage, Instant::now());
            state.closed = true;
        }
        state.times
    }

    /// Splits the request into `parts` that are processed concurrently.
    pub fn part(&self, parts: usize) -> Parts<'_> {
        let times = self.stage_times();
        Parts { whole: self, parts: (0..parts).map(|_| Self::from_times(times)).collect() }
    }
}

/// A temporary stage, until this is dropped.
#[derive(Debug)]
#[must_use = "the stage ends when this is dropped"]
pub struct During<'a> {
    trace: &'a Trace,
    before: Stage,
}

impl Drop for During<'_> {
    fn drop(&mut self) {
        self.trace.enter(self.before);
    }
}

/// The timings of the parts of one request. When this is dropped, the request takes the times of the latest part: the
/// critical path.
#[derive(Debug)]
pub struct Parts<'a> {
    whole: &'a Trace,
    parts: Vec<Trace>,
}

impl Deref for Parts<'_> {
    type Target = [Trace];

    fn deref(&self) -> &[Trace] {
        &self.parts
    }
}

impl Drop for Parts<'_> {
    fn drop(&mut self) {
        let latest = self.parts.iter().map(Trace::stage_times).reduce(StageTimes::latest_of);
        let mut state = self.whole.lock_state();
        if let Some(latest) = latest.filter(|_| !state.closed) {
            state.times = latest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn stage_times_add_up_to_the_total() {
        let start = Instant::now();
        let mut times = StageTimes::new(start);
        for (i, stage) in Stage::ALL.into_iter().enumerate() {
            times.enter(stage, start + i as u32 * 3 * MS);
        }
        // The last stage was entered after all others had taken 3 ms.
        times.enter(Stage::Encode, start + (Stage::ALL.len() as u32 - 1) * 3 * MS + 9 * MS);
        assert_eq!(times.iter().map(|(_, spent)| spent).sum::<Duration>(), times.total());
        assert_eq!((times.spent(Stage::Infer), times.spent(Stage::Encode)), (3 * MS, 9 * MS));
    }

    #[test]
    fn entering_a_stage_in_the_past_takes_no_time() {
        let start = Instant::now();
        let mut times = StageTimes::new(start);
        times.enter(Stage::Queue, start + 5 * MS);
        times.enter(Stage::Prepare, start + 2 * MS);
        assert_eq!(times.spent(Stage::Queue), Duration::ZERO);
        assert_eq!(times.total(), 5 * MS);
    }

    #[test]
    fn closed_trace_ignores_later_stages() {
        let start = Instant::now() - 50 * MS;
        let trace = Trace::new(start);
        let elsewhere = trace.clone();
        trace.enter_at(Stage::Queue, start + 10 * MS);
        let end = trace.close();
        assert_eq!(end.spent(Stage::Receive), 10 * MS);
        assert!(end.spent(Stage::Queue) >= 40 * MS, "{end:?}");
        elsewhere.enter(Stage::Infer);
        assert_eq!(trace.close().total(), end.total(), "later stages are not counted");
    }

    #[test]
    fn parts_take_the_times_of_the_latest_one() {
        let start = Instant::now() - 50 * MS;
        let whole = Trace::new(start);
        let parts = whole.part(3);
        parts[0].enter_at(Stage::Encode, start + 30 * MS);
        parts[1].enter_at(Stage::Queue, start + 10 * MS);
        parts[1].enter_at(Stage::Encode, start + 40 * MS);
        parts[2].enter_at(Stage::Encode, start + 20 * MS);
        drop(parts);
        assert_eq!(whole.stage_times().spent(Stage::Queue), 30 * MS, "all parts have finished: the last one counts");
        let parts = whole.part(2);
        parts[0].enter_at(Stage::Encode, start + 49 * MS);
        parts[1].enter_at(Stage::Infer, start + 45 * MS);
        drop(parts);
        assert!(whole.close().spent(Stage::Infer) >= 5 * MS, "the second part was still running");
    }

    #[test]
    fn during_returns_to_the_previous_stage() {
        let start = Instant::now() - 50 * MS;
        let trace = Trace::new(start);
        trace.enter_at(Stage::Store, start + 10 * MS);
        let receiving = trace.during(Stage::Receive);
        assert_eq!(trace.stage(), Stage::Receive);
        drop(receiving);
        assert_eq!(trace.stage(), Stage::Store);
        assert!(trace.stage_times().spent(Stage::Store) >= 40 * MS, "{trace:?}");
    }

    #[test]
    fn all_stages_are_in_order() {
        let indices: Vec<_> = Stage::ALL.iter().map(|stage| *stage as usize).collect();
        assert_eq!(indices, (0..Stage::ALL.len()).collect::<Vec<_>>());
    }
}
