//! Samples requests at their start, queues them at their end, and exports them on a thread of its own.

use std::{
    collections::VecDeque,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use crate::{
    ExportCounts, ExportError, FinishedRequest, TraceContext, TraceParent, TraceSettings, export_counts::ExportStats,
    exporter::Exporter, spans::trace_request,
};

/// Delay before each retry of an export.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];

/// Maximum delay that a collector may request.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Longer `tracestate` headers are not propagated; 512 characters must be (W3C Trace Context, 3.3.1.5).
const MAX_TRACESTATE_LENGTH: usize = 512;

/// An error that prevents the start of an exporter.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Invalid file of certificates.
    #[error("invalid certificates in {0}: {1}")]
    Certificate(PathBuf, String),
    /// Invalid address of the collector.
    #[error("invalid collector address {0}: {1}")]
    Endpoint(String, String),
    /// A thread or its runtime could not be created.
    #[error("cannot start the OTLP exporter: {0}")]
    Threads(#[from] io::Error),
}

/// Exports requests to a collector. Clones share one exporter.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracer").field(&self.export_counts()).finish()
    }
}

struct Shared {
    settings: TraceSettings,
    state: Mutex<State>,
    /// Signals a new request, or shutdown.
    changed: Condvar,
    /// Signals the end of the thread.
    ended: Condvar,
    stats: ExportStats,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<QueuedRequest>,
    closing: bool,
    ended: bool,
}

/// A request that waits for its export.
struct QueuedRequest {
    request: FinishedRequest,
    /// Its arrival in nanoseconds since 1970.
    began: u64,
}

impl Tracer {
    /// Starts a tracer. An unavailable collector shows at the first export.
    pub fn start(settings: TraceSettings) -> Result<Self, StartError> {
        let mut exporter = Exporter::new(&settings.collector)?;
        let shared = Arc::new(Shared {
            settings,
            state: Mutex::default(),
            changed: Condvar::new(),
            ended: Condvar::new(),
            stats: ExportStats::new("spans"),
        });
        let own = Arc::clone(&shared);
        thread::Builder::new().name("otlp".to_owned()).spawn(move || {
            own.run_export_loop(&mut exporter);
            own.lock_state().ended = true;
            own.ended.notify_all();
        })?;
        Ok(Self(shared))
    }

    /// The trace context of a request with the parent `parent`, if it is sampled. `may_start` allows a trace to start
    /// here; `state` returns the `tracestate` header.
    pub fn sample_request(
        &self,
        parent: Option<TraceParent>,
        may_start: bool,
        state: impl FnOnce() -> String,
    ) -> Option<TraceContext> {
        let trace = self.0.settings.sampler.sample_trace(parent.as_ref(), may_start)?;
        let state = parent.map(|_| state()).filter(|state| state.len() <= MAX_TRACESTATE_LENGTH).unwrap_or_default();
        Some(TraceContext { trace, parent, state: state.into() })
    }

    /// Queues a finished request. Does not block: if the queue is full, it is dropped and counted.
    pub fn record_request(&self, request: FinishedRequest) {
        let ago = Instant::now().saturating_duration_since(request.stamps.start());
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let began = since_1970.saturating_sub(ago).as_nanos() as u64;
        let TraceSettings { queue, batch, stages, .. } = self.0.settings;
        let mut state = self.0.lock_state();
        if state.waiting.len() >= queue || state.closing {
            drop(state);
            self.0.stats.record_dropped(request.span_count(stages));
            return;
        }
        state.waiting.push_back(QueuedRequest { request, began });
        let waiting = state.waiting.len();
        drop(state);
        // The thread waits only for one of these two.
        if waiting == 1 || waiting == batch {
            self.0.changed.notify_one();
        }
    }

    /// Number of spans so far, by result of their export.
    pub fn export_counts(&self) -> ExportCounts {
        self.0.stats.export_counts()
    }

    /// Exports what is queued and accepts no more, within `timeout`. Returns whether all of it was done in time.
    pub fn shut_down(&self, timeout: Duration) -> bool {
        let mut state = self.0.lock_state();
        state.closing = true;
        self.0.changed.notify_all();
        let waited = self.0.ended.wait_timeout_while(state, timeout, |state| !state.ended);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Shared {
    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run_export_loop(&self, exporter: &mut Exporter) {
        while let Some((count, spans)) = self.next_batch() {
            self.stats.record_export(count, self.export_with_retry(exporter, &spans));
        }
    }

    /// The spans of the next export and their number; `None` after shutdown.
    fn next_batch(&self) -> Option<(u64, ExportTraceServiceRequest)> {
        let TraceSettings { batch, delay, stages, .. } = self.settings;
        let state = self.lock_state();
        let idle = |state: &mut State| state.waiting.is_empty() && !state.closing;
        let state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        let few = |state: &mut State| state.waiting.len() < batch && !state.closing;
        let waited = self.changed.wait_timeout_while(state, delay, few);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let taken = state.waiting.len().min(batch);
        let taken: Vec<QueuedRequest> = state.waiting.drain(..taken).collect();
        drop(state);
        let mut spans = Vec::with_capacity(3 * taken.len());
        for QueuedRequest { request, began } in taken {
            request.push_spans(began, stages, &mut spans);
        }
        (!spans.is_empty()).then(|| (spans.len() as u64, trace_request(&self.settings.resource, spans)))
    }

    /// Exports `spans` with retries; without further ones after shutdown.
    fn export_with_retry(
        &self,
        exporter: &mut Exporter,
        spans: &ExportTraceServiceRequest,
    ) -> Result<u64, ExportError> {
        for delay in RETRY_DELAYS {
            match exporter.export(spans) {
                Err(error)
                    if error.retryable
                        && !self.wait_for_retry(error.retry_after.unwrap_or(delay).min(MAX_RETRY_DELAY)) => {}
                done => return done,
            }
        }
        exporter.export(spans)
    }

    /// Waits for `delay`; returns true if shutdown began meanwhile.
    fn wait_for_retry(&self, delay: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock_state(), delay, |state| !state.closing);
        waited.unwrap_or_else(PoisonError::into_inner).0.closing
    }
}
