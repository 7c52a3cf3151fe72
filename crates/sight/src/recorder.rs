//! Flight recorder: the latest and the slowest requests of each route.

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

/// Number of the latest requests that are retained per route and shard.
pub const MAX_LATEST_PER_ROUTE: usize = 256;
/// Number of the slowest requests that are retained per route, window and shard; two windows are retained.
pub const MAX_SLOWEST_PER_ROUTE: usize = 32;
/// Length of a window in which the slowest requests are collected.
const SLOWEST_WINDOW: Duration = Duration::from_secs(300);
/// Number of requests that a capture retains per shard.
const MAX_CAPTURED_PER_SHARD: usize = 4_000;
/// Number of shards: groups of threads that write without contention.
const SHARD_COUNT: usize = 8;

/// A finished request as the recorder retains it, without its payload.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// Its request id.
    pub id: Box<str>,
    /// Its status code.
    pub status: u16,
    /// Its error, if it failed.
    pub error: Option<ErrorKind>,
    /// A number for its connection; never published.
    pub connection: u64,
    /// The model that it used.
    pub model: Option<ModelId>,
    /// Bytes of its body, if declared.
    pub received_bytes: Option<u64>,
    /// Bytes of its response.
    pub sent_bytes: u64,
    /// The time of each stage.
    pub stamps: StageTimes,
    /// The trace that it was exported as.
    pub trace_id: Option<TraceId>,
    /// The steps of the pipeline that ran for it.
    pub steps: Option<Arc<PipelineSteps>>,
}

#[derive(Debug, Default)]
struct Shard {
    routes: Vec<RouteRecords>,
    captured: Vec<RequestRecord>,
}

/// State of a capture, in which every request is retained.
#[derive(Debug, Default)]
struct CaptureState {
    active: AtomicBool,
    ended: AtomicU64,
}

#[derive(Debug, Default)]
struct RouteRecords {
    latest: VecDeque<RequestRecord>,
    /// Slowest first; of the current window and of the one before.
    slowest: [Vec<RequestRecord>; 2],
    window_start: Option<Instant>,
}

/// Retains finished requests.
#[derive(Debug)]
pub struct Recorder {
    /// Names of the routes.
    routes: Vec<&'static str>,
    shards: Vec<Mutex<Shard>>,
    capture: CaptureState,
    /// The same moment on both clocks.
    epoch: (Instant, SystemTime),
}

/// The shard of the calling thread.
fn thread_shard() -> usize {
    static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static THREAD_SHARD: Cell<Option<usize>> = const { Cell::new(None) };
    }
    THREAD_SHARD.with(|own| {
        own.get().unwrap_or_else(|| {
            let shard = NEXT_SHARD.fetch_add(1, Relaxed) % SHARD_COUNT;
            own.set(Some(shard));
            shard
        })
    })
}

impl Recorder {
    /// A recorder of requests to `routes`.
    pub fn new(routes: impl IntoIterator<Item = &'static str>) -> Self {
        let shards = (0..SHARD_COUNT).map(|_| Mutex::default()).collect();
        Self {
            routes: routes.into_iter().collect(),
            shards,
            capture: CaptureState::default(),
            epoch: (Instant::now(), SystemTime::now()),
        }
    }

    /// Retains a request to the route with index `route`.
    pub fn record_request(&self, route: usize, record: RequestRecord) {
        let mut shard = lock_shard(&self.shards[thread_shard()]);
        if self.capture.active.load(Relaxed) {
            self.capture.ended.fetch_add(1, Relaxed);
            if shard.captured.len() < MAX_CAPTURED_PER_SHARD {
                shard.captured.push(record.clone());
            }
        }
        if shard.routes.len() <= route {
            shard.routes.resize_with(route + 1, RouteRecords::default);
        }
        shard.routes[route].insert_record(record);
    }

    /// Retains every request from now on, up to 4,000 per shard; none if a capture is in progress.
    pub fn start_capture(&self) -> Option<Capture<'_>> {
        if self.capture.active.swap(true, Relaxed) {
            return None;
        }
        self.capture.ended.store(0, Relaxed);
        Some(Capture(self))
    }

    /// The retained requests that match `query`.
    pub fn list_requests(&self, query: &RequestQuery) -> Vec<RequestView> {
        let mut found = Vec::new();
        for (route, name) in self.routes.iter().enumerate() {
            if query.route.as_deref().is_some_and(|wanted| wanted != *name) {
                continue;
            }
            for shard in &self.shards {
                let shard = lock_shard(shard);
                let Some(records) = shard.routes.get(route) else { continue };
                let all: Box<dyn Iterator<Item = &RequestRecord>> = match query.slowest {
                    true => Box::new(records.slowest.iter().flatten()),
                    false => Box::new(records.latest.iter()),
                };
                found.extend(all.filter(|record| query.matches_record(record)).map(|record| (*name, record.clone())));
            }
        }
        match query.slowest {
            true => found.sort_by_key(|(_, record)| Reverse(record.stamps.total())),
            false => found.sort_by_key(|(_, record)| Reverse(record.stamps.start())),
        }
        found.truncate(query.limit);
        found.into_iter().map(|(route, record)| self.request_view(route, record)).collect()
    }

    /// The request `id` and those that shared its run, as far as they are retained.
    pub fn find_request(&self, id: &str) -> Option<(RequestView, Vec<RequestView>)> {
        let mut found = None;
        self.for_each_record(|route, record| {
            if *record.id == *id {
                found = Some((route, record.clone()));
            }
        });
        let (route, record) = found?;
        if let (Some(asked), Some(run)) = (&record.model, record.stamps.run()) {
            let mut others = Vec::<(&str, RequestRecord)>::new();
            let shared = |other: &RequestRecord| {
                other.id != record.id
                    && other.model.as_ref() == Some(asked)
                    && other.stamps.run().is_some_and(|other| other.number == run.number)
            };
            self.for_each_record(|route, other| {
                if shared(other) && others.iter().all(|(_, known)| known.id != other.id) {
                    others.push((route, other.clone()));
                }
            });
            let others = others.into_iter().map(|(route, record)| self.request_view(route, record)).collect();
            return Some((self.request_view(route, record), others));
        }
        Some((self.request_view(route, record), Vec::new()))
    }

    fn for_each_record(&self, mut see: impl FnMut(&'static str, &RequestRecord)) {
        for shard in &self.shards {
            for (name, route) in self.routes.iter().zip(&lock_shard(shard).routes) {
                route.latest.iter().chain(route.slowest.iter().flatten()).for_each(|record| see(name, record));
            }
        }
    }

    fn request_view(&self, route: &'static str, record: RequestRecord) -> RequestView {
        let began = record.stamps.start().saturating_duration_since(self.epoch.0);
        let unix = (self.epoch.1 + began).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        RequestView::new(route, record, began, unix)
    }
}

/// Captures every request until it is dropped.
#[derive(Debug)]
pub struct Capture<'a>(&'a Recorder);

impl Capture<'_> {
    /// The captured requests and the number of requests that ended, which may be larger.
    pub fn finish(self) -> (Vec<RequestRecord>, u64) {
        let ended = self.0.capture.ended.load(Relaxed);
        let record = self.0.shards.iter().flat_map(|shard| std::mem::take(&mut lock_shard(shard).captured)).collect();
        (record, ended)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        self.0.capture.active.store(false, Relaxed);
        self.0.shards.iter().for_each(|shard| lock_shard(shard).captured = Vec::new());
    }
}

fn lock_shard(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RouteRecords {
    fn insert_record(&mut self, record: RequestRecord) {
        let now = record.stamps.start();
        if self.window_start.is_none_or(|turned| now.saturating_duration_since(turned) >= SLOWEST_WINDOW) {
            self.slowest.swap(0, 1);
            self.slowest[0].clear();
            self.window_start = Some(now);
        }
        let (slowest, took) = (&mut self.slowest[0], record.stamps.total());
        if slowest.len() < MAX_SLOWEST_PER_ROUTE || slowest.last().is_some_and(|last| took > last.stamps.total()) {
            let place = slowest.partition_point(|other| other.stamps.total() >= took);
            slowest.truncate(MAX_SLOWEST_PER_ROUTE - 1);
            slowest.insert(place, record.clone());
        }
        if self.latest.len() == MAX_LATEST_PER_ROUTE {
            self.latest.pop_front();
        }
        self.latest.push_back(record);
    }
}

/// A filter of requests.
#[derive(Debug, Clone)]
pub struct RequestQuery {
    /// Only requests of this route.
    pub route: Option<String>,
    /// Only requests of this model.
    pub model: Option<String>,
    /// Only this status, or with one digit, this class of status codes.
    pub status: Option<u16>,
    /// The slowest first; else the latest.
    pub slowest: bool,
    /// Maximum number of requests.
    pub limit: usize,
}

impl RequestQuery {
    fn matches_record(&self, record: &RequestRecord) -> bool {
        let model = |wanted: &String| record.model.as_ref().is_some_and(|asked| *asked.name == **wanted);
        let status = |wanted: u16| record.status == wanted || (wanted < 10 && record.status / 100 == wanted);
        self.model.as_ref().is_none_or(model) && self.status.is_none_or(status)
    }
}

/// A request as the admin routes serve it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RequestView {
    /// Its request id.
    pub request_id: String,
    /// The trace that it was exported as.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// Method and path template.
    pub route: &'static str,
    /// Its status code.
    pub status: u16,
    /// Its error code, if it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    /// Arrival, in seconds since 1970.
    pub at: f64,
    /// Arrival, in microseconds since the recorder was created.
    #[serde(skip)]
    pub began_us: f64,
    /// Milliseconds from arrival to response.
    pub total_ms: f64,
    /// The model that it used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The model's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Bytes of its body, if declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    /// Bytes of its response.
    pub sent_bytes: u64,
    /// The run that it was part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchView>,
    /// Its stages, in order.
    pub stages: Vec<StageView>,
    /// The pipeline that ran for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<PipelineView>,
}

/// A pipeline run as the admin routes serve it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PipelineView {
    /// The run's id.
    pub run_id: String,
    /// The pipeline's name.
    pub pipeline: String,
    /// Its steps, in the order of their start.
    pub steps: Vec<StepView>,
}

/// A step as the admin routes serve it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepView {
    /// Its path within the run.
    pub path: String,
    /// Its step kind.
    pub kind: &'static str,
    /// Its final status.
    pub status: &'static str,
    /// Its start, in milliseconds after the request's arrival.
    pub start_ms: f64,
    /// Its duration in milliseconds.
    pub ms: f64,
}

impl StepView {
    fn from_stamp(step: &StepTiming) -> Self {
        let StepTiming { path, kind, status, began, took, .. } = step;
        Self { path: path.to_string(), kind, status, start_ms: as_millis(*began), ms: as_millis(*took) }
    }
}

/// A run of a model as the admin routes serve it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BatchView {
    /// Sequential number of the model's run.
    pub number: u64,
    /// Number of entries in it.
    pub requests: usize,
    /// Number of rows in it.
    pub rows: usize,
    /// The reason why the batch was closed.
    pub reason: &'static str,
}

/// The time spent at one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageView {
    /// The stage.
    pub stage: &'static str,
    /// Its start, in milliseconds after the arrival.
    pub start_ms: f64,
    /// Its duration in milliseconds.
    pub ms: f64,
}

fn as_millis(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

impl RequestView {
    fn new(route: &'static str, record: RequestRecord, began: Duration, unix: Duration) -> Self {
        let RequestRecord {
            id,
            status,
            error,
            model: asked,
            received_bytes: received,
            sent_bytes: sent,
            stamps,
            trace_id,
            steps,
            ..
        } = record;
        let mut start = Duration::ZERO;
        let stretch = |(stage, spent): (Stage, Duration)| {
            let from = start;
            start += spent;
            StageView { stage: stage.name(), start_ms: as_millis(from), ms: as_millis(spent) }
        };
        Self {
            request_id: id.into(),
            trace_id: trace_id.map(|trace| trace.to_string()),
            route,
            status,
            error: error.map(ErrorKind::code),
            at: unix.as_secs_f64(),
            began_us: began.as_nanos() as f64 / 1e3,
            total_ms: as_millis(stamps.total()),
            version: asked.as_ref().map(|asked| asked.version.to_string()),
            model: asked.map(|asked| asked.name.to_string()),
            received_bytes: received,
            sent_bytes: sent,
            batch: stamps.run().map(|run| BatchView {
                number: run.number,
                requests: run.requests,
                rows: run.rows,
                reason: run.why,
            }),
            stages: stamps.iter().map(stretch).collect(),
            pipeline: steps.map(|steps| PipelineView {
                run_id: steps.run.to_string(),
                pipeline: steps.pipeline.to_string(),
                steps: steps.steps.iter().map(StepView::from_stamp).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_types::{Run, Trace};
    use std::thread;

    fn record_of(id: &str, start: Instant, took: Duration, run: Option<u64>) -> RequestRecord {
        let trace = Trace::new(start);
        if let Some(number) = run {
            trace.run_at(Run { number, requests: 2, rows: 2, why: "full" }, start);
        }
        trace.enter_at(Stage::Encode, start + took);
        let asked = Some(ModelId { name: "m".into(), version: 1 });
        RequestRecord {
            id: id.into(),
            status: 200,
            error: None,
            connection: 0,
            model: asked,
            received_bytes: Some(9),
            sent_bytes: 3,
            stamps: trace.stage_times(),
            trace_id: None,
            steps: None,
        }
    }

    fn any_request() -> RequestQuery {
        RequestQuery { route: None, model: None, status: None, slowest: false, limit: usize::MAX }
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn recorder_keeps_latest_and_slowest_within_limits() {
        let recorder = Recorder::new(["a", "b"]);
        let start = Instant::now();
        for i in 0..1000u32 {
            recorder.record_request(1, record_of(&i.to_string(), start + i * MS, (1000 - i) * MS, None));
        }
        let latest = recorder.list_requests(&any_request());
        assert_eq!((latest.len(), &*latest[0].request_id, latest[0].route), (MAX_LATEST_PER_ROUTE, "999", "b"));
        let slowest = recorder.list_requests(&RequestQuery { slowest: true, ..any_request() });
        assert_eq!(
            (slowest.len(), &*slowest[0].request_id, &*slowest[31].request_id),
            (MAX_SLOWEST_PER_ROUTE, "0", "31")
        );
        assert_eq!(recorder.list_requests(&RequestQuery { route: Some("a".to_owned()), ..any_request() }), []);
        assert!(recorder.find_request("5").is_some() && recorder.find_request("500").is_none());
    }

    #[test]
    fn recorder_evicts_slow_requests_after_two_windows() {
        let recorder = Recorder::new(["a"]);
        let start = Instant::now();
        let ids = |recorder: &Recorder| {
            let slowest = recorder.list_requests(&RequestQuery { slowest: true, ..any_request() });
            slowest.into_iter().map(|record| record.request_id).collect::<Vec<_>>()
        };
        recorder.record_request(0, record_of("first", start, 900 * MS, None));
        recorder.record_request(0, record_of("second", start + SLOWEST_WINDOW, MS, None));
        assert_eq!(ids(&recorder), ["first", "second"]);
        recorder.record_request(0, record_of("third", start + 2 * SLOWEST_WINDOW, 2 * MS, None));
        assert_eq!(ids(&recorder), ["third", "second"]);
    }

    #[test]
    fn find_request_returns_requests_of_same_run_across_threads() {
        let recorder = Recorder::new(["a", "b"]);
        let start = Instant::now();
        recorder.record_request(0, record_of("one", start, 2 * MS, Some(7)));
        thread::scope(|scope| {
            scope.spawn(|| recorder.record_request(1, record_of("two", start, 3 * MS, Some(7))));
            scope.spawn(|| recorder.record_request(1, record_of("other", start, 3 * MS, Some(8))));
        });
        let (one, with) = recorder.find_request("one").unwrap();
        assert_eq!(one.batch.unwrap().reason, "full");
        assert_eq!(with.iter().map(|with| &*with.request_id).collect::<Vec<_>>(), ["two"]);
        assert_eq!(with[0].stages, [StageView { stage: "infer", start_ms: 0.0, ms: 3.0 }]);
    }
}
