//! A flight recorder: the latest requests of each route and the slowest, as they were.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use caudal_types::{ErrorKind, ModelId, PipelineSteps, Stage, StageTimes, StepTiming, TraceId};
use serde::Serialize;

/// The latest requests of each route that are kept, by group of threads.
pub const LATEST: usize = 256;
/// The slowest of each route that are kept, of this span of time and of the one before, by group of threads.
pub const SLOWEST: usize = 32;
/// How long the slowest are the slowest.
const SPAN: Duration = Duration::from_secs(300);
/// Most requests that are kept while somebody watches, by group of threads.
const WATCHED: usize = 4_000;
/// Groups of threads that write without meeting each other.
const SHARDS: usize = 8;

/// What is kept of a request: never what it carried.
#[derive(Debug, Clone)]
pub struct Kept {
    /// Its name.
    pub id: Box<str>,
    /// Its status code.
    pub status: u16,
    /// Why it failed, if it did.
    pub error: Option<ErrorKind>,
    /// The connection that it came by, as a number. Not shown.
    pub connection: u64,
    /// The model that it asked.
    pub asked: Option<ModelId>,
    /// Bytes of its body, where it said so.
    pub received: Option<u64>,
    /// Bytes of its answer.
    pub sent: u64,
    /// Where its time went.
    pub stamps: StageTimes,
    /// The trace that tells of it.
    pub trace_id: Option<TraceId>,
    /// The steps of the pipeline that ran for it.
    pub steps: Option<Arc<PipelineSteps>>,
}

#[derive(Debug, Default)]
struct Shard {
    routes: Vec<Route>,
    watched: Vec<Kept>,
}

/// Whether somebody keeps all requests for a while, and how many there were.
#[derive(Debug, Default)]
struct Watched {
    on: AtomicBool,
    ended: AtomicU64,
}

#[derive(Debug, Default)]
struct Route {
    latest: VecDeque<Kept>,
    /// Of this span and of the one before, each from the slowest on.
    slowest: [Vec<Kept>; 2],
    turned: Option<Instant>,
}

/// Keeps requests.
#[derive(Debug)]
pub struct Recorder {
    /// Names of the routes.
    routes: Vec<&'static str>,
    shards: Vec<Mutex<Shard>>,
    watched: Watched,
    /// Both at one moment.
    epoch: (Instant, SystemTime),
}

/// The shard of this thread.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    OWN.with(|own| {
        own.get().unwrap_or_else(|| {
            let shard = NEXT.fetch_add(1, Relaxed) % SHARDS;
            own.set(Some(shard));
            shard
        })
    })
}

impl Recorder {
    /// A recorder of requests to `routes`.
    pub fn new(routes: impl IntoIterator<Item = &'static str>) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            routes: routes.into_iter().collect(),
            shards,
            watched: Watched::default(),
            epoch: (Instant::now(), SystemTime::now()),
        }
    }

    /// Keeps a request to the route `route`, by its place among the names.
    pub fn keep(&self, route: usize, kept: Kept) {
        let mut shard = lock(&self.shards[shard()]);
        if self.watched.on.load(Relaxed) {
            self.watched.ended.fetch_add(1, Relaxed);
            if shard.watched.len() < WATCHED {
                shard.watched.push(kept.clone());
            }
        }
        if shard.routes.len() <= route {
            shard.routes.resize_with(route + 1, Route::default);
        }
        shard.routes[route].keep(kept);
    }

    /// Keeps every request from now on, up to 4,000 of each group of threads; none where somebody does already.
    pub fn watch(&self) -> Option<Watching<'_>> {
        if self.watched.on.swap(true, Relaxed) {
            return None;
        }
        self.watched.ended.store(0, Relaxed);
        Some(Watching(self))
    }

    /// What is kept, as `query` says.
    pub fn records(&self, query: &Query) -> Vec<Record> {
        let mut found = Vec::new();
        for (route, name) in self.routes.iter().enumerate() {
            if query.route.as_deref().is_some_and(|wanted| wanted != *name) {
                continue;
            }
            for shard in &self.shards {
                let shard = lock(shard);
                let Some(kept) = shard.routes.get(route) else { continue };
                let all: Box<dyn Iterator<Item = &Kept>> = match query.slowest {
                    true => Box::new(kept.slowest.iter().flatten()),
                    false => Box::new(kept.latest.iter()),
                };
                found.extend(all.filter(|kept| query.fits(kept)).map(|kept| (*name, kept.clone())));
            }
        }
        match query.slowest {
            true => found.sort_by_key(|(_, kept)| Reverse(kept.stamps.total())),
            false => found.sort_by_key(|(_, kept)| Reverse(kept.stamps.start())),
        }
        found.truncate(query.limit);
        found.into_iter().map(|(route, kept)| self.record(route, kept)).collect()
    }

    /// The request `id` and those that shared its run, as far as they are kept.
    pub fn find(&self, id: &str) -> Option<(Record, Vec<Record>)> {
        let mut found = None;
        self.each(|route, kept| {
            if *kept.id == *id {
                found = Some((route, kept.clone()));
            }
        });
        let (route, kept) = found?;
        if let (Some(asked), Some(run)) = (&kept.asked, kept.stamps.run()) {
            let mut others = Vec::<(&str, Kept)>::new();
            let shared = |other: &Kept| {
                other.id != kept.id
                    && other.asked.as_ref() == Some(asked)
                    && other.stamps.run().is_some_and(|other| other.number == run.number)
            };
            self.each(|route, other| {
                if shared(other) && others.iter().all(|(_, known)| known.id != other.id) {
                    others.push((route, other.clone()));
                }
            });
            let others = others.into_iter().map(|(route, kept)| self.record(route, kept)).collect();
            return Some((self.record(route, kept), others));
        }
        Some((self.record(route, kept), Vec::new()))
    }

    fn each(&self, mut see: impl FnMut(&'static str, &Kept)) {
        for shard in &self.shards {
            for (name, route) in self.routes.iter().zip(&lock(shard).routes) {
                route.latest.iter().chain(route.slowest.iter().flatten()).for_each(|kept| see(name, kept));
            }
        }
    }

    fn record(&self, route: &'static str, kept: Kept) -> Record {
        let began = kept.stamps.start().saturating_duration_since(self.epoch.0);
        let unix = (self.epoch.1 + began).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Record::new(route, kept, began, unix)
    }
}

/// Every request is kept, until this is dropped.
#[derive(Debug)]
pub struct Watching<'a>(&'a Recorder);

impl Watching<'_> {
    /// The requests that ended, the first of them if there were very many, and how many ended.
    pub fn finish(self) -> (Vec<Kept>, u64) {
        let ended = self.0.watched.ended.load(Relaxed);
        let kept = self.0.shards.iter().flat_map(|shard| std::mem::take(&mut lock(shard).watched)).collect();
        (kept, ended)
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.watched.on.store(false, Relaxed);
        self.0.shards.iter().for_each(|shard| lock(shard).watched = Vec::new());
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Route {
    fn keep(&mut self, kept: Kept) {
        let now = kept.stamps.start();
        if self.turned.is_none_or(|turned| now.saturating_duration_since(turned) >= SPAN) {
            self.slowest.swap(0, 1);
            self.slowest[0].clear();
            self.turned = Some(now);
        }
        let (slowest, took) = (&mut self.slowest[0], kept.stamps.total());
        if slowest.len() < SLOWEST || slowest.last().is_some_and(|last| took > last.stamps.total()) {
            let place = slowest.partition_point(|other| other.stamps.total() >= took);
            slowest.truncate(SLOWEST - 1);
            slowest.insert(place, kept.clone());
        }
        if self.latest.len() == LATEST {
            self.latest.pop_front();
        }
        self.latest.push_back(kept);
    }
}

/// Which requests are wanted.
#[derive(Debug, Clone)]
pub struct Query {
    /// Those of this route.
    pub route: Option<String>,
    /// Those of this model.
    pub model: Option<String>,
    /// Those with this status, or with one of this hundred.
    pub status: Option<u16>,
    /// The slowest first; else the latest.
    pub slowest: bool,
    /// Most of them.
    pub limit: usize,
}

impl Query {
    fn fits(&self, kept: &Kept) -> bool {
        let model = |wanted: &String| kept.asked.as_ref().is_some_and(|asked| *asked.name == **wanted);
        let status = |wanted: u16| kept.status == wanted || (wanted < 10 && kept.status / 100 == wanted);
        self.model.as_ref().is_none_or(model) && self.status.is_none_or(status)
    }
}

/// A request, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// Its name.
    pub request_id: String,
    /// The trace that tells of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Method and path, without values.
    pub route: &'static str,
    /// Its status code.
    pub status: u16,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// When it arrived, in seconds since 1970.
    pub at: f64,
    /// When it arrived, in microseconds since the recorder began.
    #[serde(skip)]
    pub began_us: f64,
    /// Milliseconds from its arrival to its answer.
    pub total_ms: f64,
    /// The model that it asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Bytes of its body, where it said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// Bytes of its answer.
    pub sent_bytes: u64,
    /// The run that it was part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// Where its time went, in order.
    pub stages: Vec<Stretch>,
    /// The pipeline that ran for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<Passed>,
}

/// A pipeline's run, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Passed {
    /// The run's name.
    pub run_id: String,
    /// The pipeline's.
    pub pipeline: String,
    /// Its steps, in the order in which they began.
    pub steps: Vec<Step>,
}

/// A step, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// Its name within the run.
    pub path: String,
    /// What sort of step it is.
    pub kind: &'static str,
    /// How it ended.
    pub status: &'static str,
    /// When it began, in milliseconds after the request's arrival.
    pub start_ms: f64,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

impl Step {
    fn of(step: &StepTiming) -> Self {
        let StepTiming { path, kind, status, began, took, .. } = step;
        Self { path: path.to_string(), kind, status, start_ms: ms(*began), ms: ms(*took) }
    }
}

/// A run, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Batch {
    /// Counts the model's runs.
    pub number: u64,
    /// Requests, or parts of such, in it.
    pub requests: usize,
    /// Rows in it.
    pub rows: usize,
    /// Why no more were.
    pub reason: &'static str,
}

/// A stretch of the way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stretch {
    /// The stage.
    pub stage: &'static str,
    /// When it began, in milliseconds after the arrival.
    pub start_ms: f64,
    /// How long it took, in milliseconds.
    pub ms: f64,
}

fn ms(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

impl Record {
    fn new(route: &'static str, kept: Kept, began: Duration, unix: Duration) -> Self {
        let Kept { id, status, error, asked, received, sent, stamps, trace_id, steps, .. } = kept;
        let mut start = Duration::ZERO;
        let stretch = |(stage, spent): (Stage, Duration)| {
            let from = start;
            start += spent;
            Stretch { stage: stage.name(), start_ms: ms(from), ms: ms(spent) }
        };
        Self {
            request_id: id.into(),
            trace_id: trace_id.map(|trace| trace.to_string()),
            route,
            status,
            error: error.map(ErrorKind::code),
            at: unix.as_secs_f64(),
            began_us: began.as_nanos() as f64 / 1e3,
            total_ms: ms(stamps.total()),
            version: asked.as_ref().map(|asked| asked.version.to_string()),
            model: asked.map(|asked| asked.name.to_string()),
            received_bytes: received,
            sent_bytes: sent,
            batch: stamps.run().map(|run| Batch {
                number: run.number,
                requests: run.requests,
                rows: run.rows,
                reason: run.why,
            }),
            stages: stamps.iter().map(stretch).collect(),
            pipeline: steps.map(|steps| Passed {
                run_id: steps.run.to_string(),
                pipeline: steps.pipeline.to_string(),
                steps: steps.steps.iter().map(Step::of).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_types::{Run, Trace};
    use std::thread;

    fn kept(id: &str, start: Instant, took: Duration, run: Option<u64>) -> Kept {
        let trace = Trace::new(start);
        if let Some(number) = run {
            trace.run_at(Run { number, requests: 2, rows: 2, why: "full" }, start);
        }
        trace.enter_at(Stage::Encode, start + took);
        let asked = Some(ModelId { name: "m".into(), version: 1 });
        Kept {
            id: id.into(),
            status: 200,
            error: None,
            connection: 0,
            asked,
            received: Some(9),
            sent: 3,
            stamps: trace.stage_times(),
            trace_id: None,
            steps: None,
        }
    }

    fn all() -> Query {
        Query { route: None, model: None, status: None, slowest: false, limit: usize::MAX }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_latest_and_the_slowest_are_kept_and_no_more() {
        let recorder = Recorder::new(["a", "b"]);
        let start = Instant::now();
        for i in 0..1000u32 {
            recorder.keep(1, kept(&i.to_string(), start + i * MS, (1000 - i) * MS, None));
        }
        let latest = recorder.records(&all());
        assert_eq!((latest.len(), &*latest[0].request_id, latest[0].route), (LATEST, "999", "b"));
        let slowest = recorder.records(&Query { slowest: true, ..all() });
        assert_eq!((slowest.len(), &*slowest[0].request_id, &*slowest[31].request_id), (SLOWEST, "0", "31"));
        assert_eq!(recorder.records(&Query { route: Some("a".to_owned()), ..all() }), []);
        assert!(recorder.find("5").is_some() && recorder.find("500").is_none());
    }

    #[test]
    fn old_slow_ones_make_room_after_two_spans() {
        let recorder = Recorder::new(["a"]);
        let start = Instant::now();
        let ids = |recorder: &Recorder| {
            let slowest = recorder.records(&Query { slowest: true, ..all() });
            slowest.into_iter().map(|record| record.request_id).collect::<Vec<_>>()
        };
        recorder.keep(0, kept("first", start, 900 * MS, None));
        recorder.keep(0, kept("second", start + SPAN, MS, None));
        assert_eq!(ids(&recorder), ["first", "second"]);
        recorder.keep(0, kept("third", start + 2 * SPAN, 2 * MS, None));
        assert_eq!(ids(&recorder), ["third", "second"]);
    }

    #[test]
    fn who_shared_a_run_is_found_on_whatever_thread_it_was() {
        let recorder = Recorder::new(["a", "b"]);
        let start = Instant::now();
        recorder.keep(0, kept("one", start, 2 * MS, Some(7)));
        thread::scope(|scope| {
            scope.spawn(|| recorder.keep(1, kept("two", start, 3 * MS, Some(7))));
            scope.spawn(|| recorder.keep(1, kept("other", start, 3 * MS, Some(8))));
        });
        let (one, with) = recorder.find("one").unwrap();
        assert_eq!(one.batch.unwrap().reason, "full");
        assert_eq!(with.iter().map(|with| &*with.request_id).collect::<Vec<_>>(), ["two"]);
        assert_eq!(with[0].stages, [Stretch { stage: "infer", start_ms: 0.0, ms: 3.0 }]);
    }
}
