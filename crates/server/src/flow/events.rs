//! A run followed live: server-sent events (HTML Living Standard, 9.2).

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
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
        door::{self, Visitor},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// How long a follower hears nothing at most.
const SILENCE: Duration = Duration::from_secs(15);
/// How often it is looked whether a run about which nothing is heard is over.
const LOOK: Duration = Duration::from_millis(50);

/// Follows a run: what has happened, then what happens, and how it ends.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}/events",
    operation_id = "follow_run",
    tag = "pipelines",
    params(("id" = String, Path, description = "the id of the run")),
    responses((status = 200, body = String, content_type = "text/event-stream", description = "server-sent events: step_started, step_retried, step_said, budget, step_finished, and at last run_finished"), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn follow(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::RunEvents, request, false, async |app: Arc<App>, _: Visitor, request: Request| {
        Parameters::of(request.uri(), &[])?;
        let mut follower = Follower {
            app: Arc::clone(&app),
            id: id.clone(),
            said: VecDeque::new(),
            entries: Vec::new(),
            handle: None,
            told: None,
            heard: Instant::now(),
            over: false,
        };
        match app.flows.engine().live(&id) {
            Some(handle) => follower.join(handle),
            None => follower.tell_all(&*app.flows.report(&id).await?),
        }
        let events = stream::unfold(follower, |mut follower| async {
            let said = follower.next().await?;
            Some((Ok::<_, std::convert::Infallible>(said), follower))
        });
        Ok::<_, Problem>(flowing(Body::from_stream(events)))
    })
    .await
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
    heard: Instant,
    over: bool,
}

fn event(kind: &str, data: &impl Serialize) -> Bytes {
    let mut out = format!("event: {kind}\ndata: ").into_bytes();
    // Plain data, written to memory.
    let _ = serde_json::to_writer(&mut out, data);
    out.extend_from_slice(b"\n\n");
    out.into()
}

impl Follower {
    fn join(&mut self, handle: Handle) {
        let (entries, told) = handle.watch();
        (self.entries, self.told, self.handle) = (entries, Some(told), Some(handle));
        for place in 0..self.entries.len() {
            let ended = self.entries[place].status != Status::Running;
            self.step(if ended { "step_finished" } else { "step_started" }, place);
        }
    }

    fn tell_all(&mut self, report: &Report) {
        self.said.extend(report.steps.iter().map(|step| event("step_finished", step)));
        self.end(report);
    }

    fn end(&mut self, report: &Report) {
        let kind = if report.status == "paused" { "run_paused" } else { "run_finished" };
        self.said.push_back(event(kind, report));
        self.over = true;
    }

    fn step(&mut self, kind: &str, place: usize) {
        if let Some(step) = StepReport::of(&self.entries, place) {
            self.said.push_back(event(kind, &step));
        }
    }

    fn take(&mut self, happened: Event) {
        let place = happened.place.index();
        if let Some(handle) = &self.handle {
            // Entries are only ever added, and this one is among those there are now.
            while self.entries.len() <= place {
                let Some(entry) = handle.entry_at(self.entries.len()) else { break };
                self.entries.push(entry);
            }
            if let (Some(entry), Some(known)) = (handle.entry_at(place), self.entries.get_mut(place)) {
                *known = entry;
            }
        }
        let path = caudal_flow::path(&self.entries, happened.place);
        match happened.what {
            What::Started => self.step("step_started", place),
            What::Ended => self.step("step_finished", place),
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
                Err(_) if self.handle.as_ref().is_some_and(Handle::over) => self.handle = None,
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
                }
                Ok(Err(broadcast::error::RecvError::Closed)) => match self.app.flows.report(&self.id).await {
                    Ok(report) => self.end(&report),
                    Err(_) => return None,
                },
            }
        }
    }
}
