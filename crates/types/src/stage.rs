//! The stations of a request and the time it spent at each: the one truth about time.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A station on the way of a request, in the order in which it is passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// From the request's head to the last byte of its body, admission included.
    Receive,
    /// A model that was not in memory is loaded.
    Load,
    /// The server is administered: models are changed, memory is cleaned up.
    Admin,
    /// From bytes to events: parsed, checked, brought into their canonical form.
    Ingest,
    /// What sort of event each is, and whether it is whole.
    Segment,
    /// Hashed.
    Hash,
    /// The record is read and checked, and states are replayed from it.
    Store,
    /// Until it is on disk.
    Persist,
    /// A pipeline's steps run.
    Flow,
    /// Waiting for a decode thread, or for memory to receive an upload in.
    Wait,
    /// From compressed bytes to pixels at the model's size, or from JSON to tensors.
    Decode,
    /// Waiting in the model's queue.
    Queue,
    /// The row is written into the batch.
    Prepare,
    /// The model runs.
    Infer,
    /// From the model's output to an answer: boxes picked, duplicates removed.
    Finish,
    /// From the answer to bytes.
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

    /// The stage's name, as it stands in headers, metrics and answers.
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
    /// Its name.
    pub name: Arc<str>,
    /// Its version.
    pub version: u64,
}

/// The run of a model that a request was part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Counts the model's runs; whoever has the same number shared it.
    pub number: u64,
    /// Requests, or parts of such, that shared it.
    pub requests: usize,
    /// Rows of all of them.
    pub rows: usize,
    /// Why no more did.
    pub why: &'static str,
}

/// A step of a pipeline that ran for a request.
#[derive(Debug, Clone, PartialEq)]
pub struct StepStamp {
    /// Its name within the pipeline's run: the names on the way to it, with slashes between.
    pub path: Box<str>,
    /// What sort of step it is.
    pub kind: &'static str,
    /// How it ended.
    pub status: &'static str,
    /// When it began, after the request's arrival.
    pub began: Duration,
    /// How long it took.
    pub took: Duration,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether its answer was remembered.
    pub remembered: bool,
}

/// The steps of a pipeline's run that a request waited for.
#[derive(Debug, Clone, PartialEq)]
pub struct Steps {
    /// The run's name.
    pub run: Box<str>,
    /// The pipeline's name.
    pub pipeline: Box<str>,
    /// The steps, in the order in which they began.
    pub steps: Box<[StepStamp]>,
}

/// Where the time of a request went: to enter a stage is to leave the one before, so there is no gap.
#[derive(Debug, Clone, Copy)]
pub struct Stamps {
    start: Instant,
    last: Instant,
    stage: Stage,
    spent: [Duration; Stage::ALL.len()],
    run: Option<Run>,
}

impl Stamps {
    /// A request that arrived at `start`, and is being received.
    pub fn new(start: Instant) -> Self {
        Self { start, last: start, stage: Stage::Receive, spent: [Duration::ZERO; Stage::ALL.len()], run: None }
    }

    /// A request of which only the whole time is known, from `start` to `end`.
    pub fn whole(start: Instant, end: Instant) -> Self {
        Self { last: end.max(start), ..Self::new(start) }
    }

    /// Enters `stage` at `moment`; a moment before the last one counts as that.
    pub fn enter(&mut self, stage: Stage, moment: Instant) {
        self.spent[self.stage as usize] += moment.saturating_duration_since(self.last);
        self.last = self.last.max(moment);
        self.stage = stage;
    }

    /// Time spent at `stage`, up to the moment at which the present stage was entered.
    pub fn spent(&self, stage: Stage) -> Duration {
        self.spent[stage as usize]
    }

    /// When the request arrived.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The last run that it was part of.
    pub fn run(&self) -> Option<Run> {
        self.run
    }

    /// From arrival to the moment at which the present stage was entered: the sum of all stages.
    pub fn total(&self) -> Duration {
        self.last - self.start
    }

    /// The stages that took any time, in order.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::ALL.into_iter().map(|stage| (stage, self.spent(stage))).filter(|(_, spent)| !spent.is_zero())
    }

    /// Of two ways that left one request, the one it waits for: the one that is behind, or came last.
    fn behind(self, other: Self) -> Self {
        match other.stage.cmp(&self.stage).then(self.last.cmp(&other.last)) {
            std::cmp::Ordering::Less => other,
            _ => self,
        }
    }
}

/// The stamps of a request on its way, shared by all who have it in their hands: whenever it ends, however it ends,
/// they tell where its time went.
#[derive(Debug, Clone)]
pub struct Trace {
    start: Instant,
    way: Arc<Mutex<Way>>,
}

#[derive(Debug)]
struct Way {
    stamps: Stamps,
    asked: Option<ModelId>,
    steps: Option<Arc<Steps>>,
    closed: bool,
}

impl Trace {
    /// The trace of a request that arrived at `start`.
    pub fn new(start: Instant) -> Self {
        Self::from(Stamps::new(start))
    }

    fn from(stamps: Stamps) -> Self {
        Self { start: stamps.start, way: Arc::new(Mutex::new(Way { stamps, asked: None, steps: None, closed: false })) }
    }

    fn way(&self) -> MutexGuard<'_, Way> {
        self.way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the request arrived.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// The request enters `stage` now.
    pub fn enter(&self, stage: Stage) {
        self.enter_at(stage, Instant::now());
    }

    /// The request entered `stage` at `moment`. Once it has its answer, what others still do for it counts no more.
    pub fn enter_at(&self, stage: Stage, moment: Instant) {
        let mut way = self.way();
        if !way.closed {
            way.stamps.enter(stage, moment);
        }
    }

    /// The request is about `asked`.
    pub fn ask(&self, asked: &ModelId) {
        self.way().asked = Some(asked.clone());
    }

    /// The model that it asks, once that is known.
    pub fn asked(&self) -> Option<ModelId> {
        self.way().asked.clone()
    }

    /// A pipeline ran for the request.
    pub fn pass(&self, steps: Steps) {
        self.way().steps = Some(Arc::new(steps));
    }

    /// The steps of the pipeline that ran for it.
    pub fn steps(&self) -> Option<Arc<Steps>> {
        self.way().steps.clone()
    }

    /// The model runs from `moment` on, for this request among others.
    pub fn run_at(&self, run: Run, moment: Instant) {
        let mut way = self.way();
        if !way.closed {
            way.stamps.enter(Stage::Infer, moment);
            way.stamps.run = Some(run);
        }
    }

    /// The stage at which the request is now.
    pub fn stage(&self) -> Stage {
        self.way().stamps.stage
    }

    /// The stage at which the request waits for its answer; none once it has it, though that may still be sent.
    pub fn stage_in_progress(&self) -> Option<Stage> {
        let way = self.way();
        (!way.closed).then_some(way.stamps.stage)
    }

    /// Spends the time until the guard is dropped at `stage`; then the request is back at the stage before.
    pub fn during(&self, stage: Stage) -> During<'_> {
        let before = self.stage();
        self.enter(stage);
        During { trace: self, before }
    }

    /// What is known so far.
    pub fn stamps(&self) -> Stamps {
        self.way().stamps
    }

    /// The request has its answer now: what is known at the end.
    pub fn close(&self) -> Stamps {
        let mut way = self.way();
        if !way.closed {
            let stage = way.stamps.stage;
            way.stamps.enter(stage, Instant::now());
            way.closed = true;
        }
        way.stamps
    }

    /// Parts this request into `parts` that go their ways at the same time.
    pub fn part(&self, parts: usize) -> Parts<'_> {
        let stamps = self.stamps();
        Parts { whole: self, parts: (0..parts).map(|_| Self::from(stamps)).collect() }
    }
}

/// A stay at a stage, until this is dropped.
#[derive(Debug)]
#[must_use = "the stay ends when this is dropped"]
pub struct During<'a> {
    trace: &'a Trace,
    before: Stage,
}

impl Drop for During<'_> {
    fn drop(&mut self) {
        self.trace.enter(self.before);
    }
}

/// The traces of the parts of one request. When they go, finished or not, the whole has come as far as the part that
/// is behind all others: the critical path.
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
        let behind = self.parts.iter().map(Trace::stamps).reduce(Stamps::behind);
        let mut way = self.whole.way();
        if let Some(behind) = behind.filter(|_| !way.closed) {
            way.stamps = behind;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn stages_add_up_to_the_total() {
        let start = Instant::now();
        let mut stamps = Stamps::new(start);
        for (i, stage) in Stage::ALL.into_iter().enumerate() {
            stamps.enter(stage, start + i as u32 * 3 * MS);
        }
        // The last was entered after all others had their 3 ms.
        stamps.enter(Stage::Encode, start + (Stage::ALL.len() as u32 - 1) * 3 * MS + 9 * MS);
        assert_eq!(stamps.iter().map(|(_, spent)| spent).sum::<Duration>(), stamps.total());
        assert_eq!((stamps.spent(Stage::Infer), stamps.spent(Stage::Encode)), (3 * MS, 9 * MS));
    }

    #[test]
    fn a_moment_from_the_past_takes_no_time_and_does_not_turn_the_clock_back() {
        let start = Instant::now();
        let mut stamps = Stamps::new(start);
        stamps.enter(Stage::Queue, start + 5 * MS);
        stamps.enter(Stage::Prepare, start + 2 * MS);
        assert_eq!(stamps.spent(Stage::Queue), Duration::ZERO);
        assert_eq!(stamps.total(), 5 * MS);
    }

    #[test]
    fn a_request_given_up_spent_its_time_where_it_was() {
        let start = Instant::now() - 50 * MS;
        let trace = Trace::new(start);
        let elsewhere = trace.clone();
        trace.enter_at(Stage::Queue, start + 10 * MS);
        let end = trace.close();
        assert_eq!(end.spent(Stage::Receive), 10 * MS);
        assert!(end.spent(Stage::Queue) >= 40 * MS, "{end:?}");
        elsewhere.enter(Stage::Infer);
        assert_eq!(trace.close().total(), end.total(), "what others still do counts no more");
    }

    #[test]
    fn a_request_in_parts_waits_for_the_one_that_is_behind() {
        let start = Instant::now() - 50 * MS;
        let whole = Trace::new(start);
        let parts = whole.part(3);
        parts[0].enter_at(Stage::Encode, start + 30 * MS);
        parts[1].enter_at(Stage::Queue, start + 10 * MS);
        parts[1].enter_at(Stage::Encode, start + 40 * MS);
        parts[2].enter_at(Stage::Encode, start + 20 * MS);
        drop(parts);
        assert_eq!(whole.stamps().spent(Stage::Queue), 30 * MS, "all are done: the last to come");
        let parts = whole.part(2);
        parts[0].enter_at(Stage::Encode, start + 49 * MS);
        parts[1].enter_at(Stage::Infer, start + 45 * MS);
        drop(parts);
        assert!(whole.close().spent(Stage::Infer) >= 5 * MS, "the second still ran");
    }

    #[test]
    fn during_ends_where_the_request_was_before() {
        let start = Instant::now() - 50 * MS;
        let trace = Trace::new(start);
        trace.enter_at(Stage::Store, start + 10 * MS);
        let receiving = trace.during(Stage::Receive);
        assert_eq!(trace.stage(), Stage::Receive);
        drop(receiving);
        assert_eq!(trace.stage(), Stage::Store);
        assert!(trace.stamps().spent(Stage::Store) >= 40 * MS, "{trace:?}");
    }

    #[test]
    fn names_stand_in_the_order_of_the_road() {
        let indices: Vec<_> = Stage::ALL.iter().map(|stage| *stage as usize).collect();
        assert_eq!(indices, (0..Stage::ALL.len()).collect::<Vec<_>>());
    }
}
