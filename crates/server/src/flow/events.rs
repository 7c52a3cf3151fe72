//! A run followed live: server-sent events (HTML Living Standard, 9.2).

use std::{
    collections::VecDeque,
    fmt::Display,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use bytes::Bytes;
use caudal_flow::{Entry, Event, Handle, Report, Status, StepReport, What};
use futures_util::stream;
use serde::Serialize;
use serde_json::json;
use tokio::{sync::broadcast, time::timeout};

use super::flowing;
use crate::{
    admin::Parameters,
    app::App,
    http::{
        Path,
        door::{self, Answer, Visitor},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// How long a follower hears nothing at most.
const SILENCE: Duration = Duration::from_secs(15);
/// How often it is looked whether a run about which nothing is heard is over.
const LOOK: Duration = Duration::from_millis(50);

/// Streams the events of a run (SSE): past events, then new ones, and the outcome.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}/events",
    operation_id = "follow_run",
    tag = "pipelines",
    params(
        ("id" = String, Path, description = "the id of the run"),
        ("Last-Event-ID" = Option<String>, Header, description = "the last id that was received, as browsers send it when they come back: only what came after it is sent"),
    ),
    responses(
        (status = 200, body = String, content_type = "text/event-stream", description = "server-sent events: step_started, step_retried, step_said, budget, step_finished, and at last run_finished; those that begin or end a step or the run have an id"),
        (status = 204, description = "the run is over, and Last-Event-ID says that its end was received: there is no more to come"),
        (status = "4XX", body = ErrorAnswer),
        (status = "5XX", body = ErrorAnswer),
    ),
)]
pub(crate) async fn follow(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::RunEvents, request, false, async |app: Arc<App>, _: Visitor, request: Request| {
        Parameters::of(request.uri(), &[])?;
        let received = Received::of(request.headers());
        let mut follower = Follower {
            app: Arc::clone(&app),
            id: id.clone(),
            said: VecDeque::new(),
            entries: Vec::new(),
            handle: None,
            told: None,
            change: 0,
            heard: Instant::now(),
            over: false,
        };
        match app.flows.engine().live(&id) {
            Some(handle) => follower.join(handle, &received),
            None => {
                let report = app.flows.report(&id).await?;
                let ended = matches!(report.status, "completed" | "failed" | "cancelled");
                match received {
                    Received::End(end) if end == end_id(&report) && ended => {
                        return Ok::<_, Problem>(Answer::empty(StatusCode::NO_CONTENT));
                    }
                    // It may be resumed, so its follower comes back once more.
                    Received::End(end) if end == end_id(&report) => follower.wait(),
                    received => follower.tell_all(&report, &received),
                }
            }
        }
        let events = stream::unfold(follower, |mut follower| async {
            let said = follower.next().await?;
            Some((Ok::<_, std::convert::Infallible>(said), follower))
        });
        Ok::<_, Problem>(flowing(Body::from_stream(events)))
    })
    .await
}

/// What a follower that comes back has received.
enum Received {
    Nothing,
    /// All up to this change of a step.
    Change(u64),
    /// The run's end of this id.
    End(String),
}

impl Received {
    fn of(headers: &HeaderMap) -> Self {
        let Some(last) = headers.get("last-event-id").and_then(|value| value.to_str().ok()) else {
            return Self::Nothing;
        };
        match last.parse() {
            Ok(change) => Self::Change(change),
            Err(_) => Self::End(last.to_owned()),
        }
    }

    fn change(&self) -> u64 {
        match self {
            Self::Change(change) => *change,
            _ => 0,
        }
    }
}

struct Follower {
    app: Arc<App>,
    id: String,
    said: VecDeque<Bytes>,
    /// The entries as they are known here: for their names.
    entries: Vec<Entry>,
    /// A hold on the run, so that what is told late can be looked up; let go when it is over, for then its end is told.
    handle: Option<Handle>,
    told: Option<broadcast::Receiver<Event>>,
    /// The last change of a step that was told.
    change: u64,
    heard: Instant,
    over: bool,
}

/// The id of how a run ended or why it waits. A run that is resumed may do so again.
fn end_id(report: &Report) -> String {
    let mut hasher = DefaultHasher::new();
    let Report { status, output, error, prompts, .. } = report;
    serde_json::to_string(&(status, output, error, prompts)).unwrap_or_default().hash(&mut hasher);
    format!("end-{:016x}", hasher.finish())
}

/// An event that a follower need not know of when it comes back.
fn event(kind: &str, data: &impl Serialize) -> Bytes {
    written(String::new(), kind, data)
}

fn numbered(id: impl Display, kind: &str, data: &impl Serialize) -> Bytes {
    written(format!("id: {id}\n"), kind, data)
}

fn written(id: String, kind: &str, data: &impl Serialize) -> Bytes {
    let mut out = format!("{id}event: {kind}\ndata: ").into_bytes();
    // Plain data, written to memory.
    let _ = serde_json::to_writer(&mut out, data);
    out.extend_from_slice(b"\n\n");
    out.into()
}

impl Follower {
    fn join(&mut self, handle: Handle, received: &Received) {
        let (entries, told) = handle.watch();
        (self.entries, self.told, self.handle) = (entries, Some(told), Some(handle));
        self.change = received.change();
        // Of what is over by now, the end says all.
        self.pull(|entry, ended| ended || entry.status == Status::Running);
    }

    /// Tells each step that began or ended since the last change that was told, if it is `wanted`.
    fn pull(&mut self, wanted: impl Fn(&Entry, bool) -> bool) {
        let Some(handle) = self.handle.clone() else { return };
        for change in handle.changes_after(self.change) {
            self.change = change.number;
            self.learn(&handle, change.place.index());
            let Some(entry) = self.entries.get(change.place.index()) else { continue };
            if wanted(entry, change.ended)
                && let Some(step) = StepReport::of(&self.entries, change.place.index())
            {
                let kind = if change.ended { "step_finished" } else { "step_started" };
                self.said.push_back(numbered(change.number, kind, &step));
            }
        }
    }

    /// Looks up an entry and those before it. Entries are only ever added.
    fn learn(&mut self, handle: &Handle, place: usize) {
        while self.entries.len() <= place {
            let Some(entry) = handle.entry_at(self.entries.len()) else { return };
            self.entries.push(entry);
        }
        if let (Some(entry), Some(known)) = (handle.entry_at(place), self.entries.get_mut(place)) {
            *known = entry;
        }
    }

    fn tell_all(&mut self, report: &Report, received: &Received) {
        let mut steps: Vec<&StepReport> = report.steps.iter().collect();
        steps.sort_by_key(|step| step.changed);
        for step in steps.into_iter().filter(|step| step.changed == 0 || step.changed > received.change()) {
            self.said.push_back(match step.changed {
                0 => event("step_finished", step),
                number => numbered(number, "step_finished", step),
            });
        }
        self.end(report);
    }

    fn end(&mut self, report: &Report) {
        let kind = if report.status == "paused" { "run_paused" } else { "run_finished" };
        self.said.push_back(numbered(end_id(report), kind, report));
        self.over = true;
    }

    /// Says nothing new.
    fn wait(&mut self) {
        self.said.push_back(Bytes::from_static(b": nothing has happened since\n\n"));
        self.over = true;
    }

    fn take(&mut self, happened: Event) {
        if let Some(handle) = self.handle.clone() {
            self.learn(&handle, happened.place.index());
        }
        let path = caudal_flow::path(&self.entries, happened.place);
        match happened.what {
            What::Started | What::Ended => self.pull(|_, _| true),
            What::Said(text) => self.said.push_back(event("step_said", &json!({"path": path, "text": text}))),
            What::Retried { error, wait } => {
                let data = json!({"path": path, "error": error.message, "code": error.fault.code(), "wait_ms": wait.as_millis() as u64});
                self.said.push_back(event("step_retried", &data));
            }
            What::Budget(usage) => {
                let data = json!({"path": path, "tokens_in": usage.tokens_in, "tokens_out": usage.tokens_out, "cost_usd": usage.dollars()});
                self.said.push_back(event("budget", &data));
            }
        }
    }

    /// What is to be said next; nothing once the run is over or the server goes down.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(said) = self.said.pop_front() {
                return Some(said);
            }
            if self.over || self.app.is_draining() {
                return None;
            }
            let Some(told) = &mut self.told else { return None };
            let wait = if self.handle.is_some() { LOOK } else { SILENCE };
            match timeout(wait, told.recv()).await {
                Err(_) if self.handle.as_ref().is_some_and(Handle::over) => {
                    self.pull(|_, _| true);
                    self.handle = None;
                }
                Err(_) if self.heard.elapsed() < SILENCE => {}
                Err(_) => {
                    self.heard = Instant::now();
                    return Some(Bytes::from_static(b": still here\n\n"));
                }
                Ok(Ok(happened)) => {
                    self.heard = Instant::now();
                    self.take(happened);
                }
                Ok(Err(broadcast::error::RecvError::Lagged(missed))) => {
                    self.said.push_back(event("missed", &json!({"events": missed})));
                    self.pull(|_, _| true);
                }
                Ok(Err(broadcast::error::RecvError::Closed)) => match self.app.flows.report(&self.id).await {
                    Ok(report) => self.end(&report),
                    Err(_) => return None,
                },
            }
        }
    }
}
