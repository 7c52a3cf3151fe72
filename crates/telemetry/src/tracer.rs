//! Decides at a request's start, takes it at its end, and sends what it took on a thread of its own.

use std::{
    collections::VecDeque,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use crate::{Context, Counts, Finished, Parent, SendError, TraceSettings, counts::Tally, send::Sender, spans::export};

/// How long to wait before each further try to send the same spans.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];

/// Longest pause that a collector may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// Longer notes of vendors are not handed on: 512 characters are what must be (W3C Trace Context, 3.3.1.5).
const MAX_STATE: usize = 512;

/// Why nobody can be told.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file of certificates.
    #[error("the certificates in {0} cannot be used: {1}")]
    Certificate(PathBuf, String),
    /// The collector's address.
    #[error("the collector {0} cannot be reached in any way: {1}")]
    Endpoint(String, String),
    /// No thread, or nothing to wait with.
    #[error("no collector can be told: {0}")]
    Threads(#[from] io::Error),
}

/// Tells a collector of requests. All copies are one.
#[derive(Clone)]
pub struct Tracer(Arc<Shared>);

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tracer").field(&self.counts()).finish()
    }
}

struct Shared {
    settings: TraceSettings,
    state: Mutex<State>,
    /// Something came, or nothing more will.
    changed: Condvar,
    /// The thread has ended.
    ended: Condvar,
    tally: Tally,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    closing: bool,
    ended: bool,
}

/// A request that waits to be told of.
struct Waiting {
    finished: Finished,
    /// When it arrived, in nanoseconds since 1970.
    began: u64,
}

impl Tracer {
    /// A tracer that keeps to `settings`. Whether the collector is there shows when there is something to tell.
    pub fn start(settings: TraceSettings) -> Result<Self, StartError> {
        let mut sender = Sender::new(&settings.collector)?;
        let shared = Arc::new(Shared {
            settings,
            state: Mutex::default(),
            changed: Condvar::new(),
            ended: Condvar::new(),
            tally: Tally::of("spans"),
        });
        let own = Arc::clone(&shared);
        thread::Builder::new().name("otlp".to_owned()).spawn(move || {
            own.keep_sending(&mut sender);
            own.state().ended = true;
            own.ended.notify_all();
        })?;
        Ok(Self(shared))
    }

    /// Whether a request is told of whose caller says `parent`, and as what: `begins`, whether a trace may begin with it,
    /// and `state`, what vendors have written beside the parent.
    pub fn begin(&self, parent: Option<Parent>, begins: bool, state: impl FnOnce() -> String) -> Option<Context> {
        let trace = self.0.settings.sampler.trace(parent.as_ref(), begins)?;
        let state = parent.map(|_| state()).filter(|state| state.len() <= MAX_STATE).unwrap_or_default();
        Some(Context { trace, parent, state: state.into() })
    }

    /// Takes a request that is done. It never waits: where there is no room, it is dropped and counted.
    pub fn end(&self, finished: Finished) {
        let ago = Instant::now().saturating_duration_since(finished.stamps.start());
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let began = since_1970.saturating_sub(ago).as_nanos() as u64;
        let TraceSettings { queue, batch, stages, .. } = self.0.settings;
        let mut state = self.0.state();
        if state.waiting.len() >= queue || state.closing {
            drop(state);
            self.0.tally.no_room(finished.count(stages));
            return;
        }
        state.waiting.push_back(Waiting { finished, began });
        let waiting = state.waiting.len();
        drop(state);
        // Only these two change what the thread waits for.
        if waiting == 1 || waiting == batch {
            self.0.changed.notify_one();
        }
    }

    /// What became of spans so far.
    pub fn counts(&self) -> Counts {
        self.0.tally.counts()
    }

    /// Sends what waits and takes no more, within `patience`: whether all of it was done with by then.
    pub fn finish(&self, patience: Duration) -> bool {
        let mut state = self.0.state();
        state.closing = true;
        self.0.changed.notify_all();
        let waited = self.0.ended.wait_timeout_while(state, patience, |state| !state.ended);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep_sending(&self, sender: &mut Sender) {
        while let Some((count, spans)) = self.take() {
            self.tally.note(count, self.deliver(sender, &spans));
        }
    }

    /// The next spans to be sent and how many they are; none when there will be no more.
    fn take(&self) -> Option<(u64, ExportTraceServiceRequest)> {
        let TraceSettings { batch, delay, stages, .. } = self.settings;
        let state = self.state();
        let idle = |state: &mut State| state.waiting.is_empty() && !state.closing;
        let state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
        let few = |state: &mut State| state.waiting.len() < batch && !state.closing;
        let waited = self.changed.wait_timeout_while(state, delay, few);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let taken = state.waiting.len().min(batch);
        let taken: Vec<Waiting> = state.waiting.drain(..taken).collect();
        drop(state);
        let mut spans = Vec::with_capacity(3 * taken.len());
        for Waiting { finished, began } in taken {
            finished.spans(began, stages, &mut spans);
        }
        (!spans.is_empty()).then(|| (spans.len() as u64, export(&self.settings.resource, spans)))
    }

    /// Sends `spans`, several times if need be; once when there is no more time.
    fn deliver(&self, sender: &mut Sender, spans: &ExportTraceServiceRequest) -> Result<u64, SendError> {
        for pause in PAUSES {
            match sender.send(spans) {
                Err(error) if error.again && !self.pause(error.wait.unwrap_or(pause).min(MAX_PAUSE)) => {}
                done => return done,
            }
        }
        sender.send(spans)
    }

    /// Waits for `pause`; gives whether the end came meanwhile.
    fn pause(&self, pause: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), pause, |state| !state.closing);
        waited.unwrap_or_else(PoisonError::into_inner).0.closing
    }
}
