//! The door that every request passes: on the way in it gets a name, a clock, a deadline and a slot; on the way
//! out its answer gets the time it took, and is counted.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use caudal_sight::RequestRecord;
use caudal_tasks::{Call, within};
use caudal_telemetry::{FinishedRequest, TraceContext};
use caudal_types::{Deadline, ErrorKind, Stage, StageTimes, Trace, TraceId, shorten};
use hyper::body::Body as _;
use serde::Serialize;

use super::{
    Peer, RequestId,
    pack::{self, TakesGzip},
    request_id, span, timing,
    unpack::{self, unpack},
    unsent,
};
use crate::{
    app::{App, Lane, Slot},
    kserve,
    params::Query,
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// What a request carries through the rooms of the server.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) call: Call,
    pub(crate) query: Query,
    pub(crate) id: RequestId,
}

/// Who comes for what is recorded.
#[derive(Debug, Clone)]
pub(crate) struct Visitor {
    pub(crate) call: Call,
    /// Who it is, by their own word.
    pub(crate) user: Option<String>,
    pub(crate) peer: Option<Peer>,
    pub(crate) id: RequestId,
    /// Its place in its trace, if that is told of.
    pub(crate) context: Option<TraceContext>,
}

/// An answer that needs nothing but its headers.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Body,
    retry_after: Option<Duration>,
    disposition: Option<HeaderValue>,
    location: Option<HeaderValue>,
    ignored: Option<HeaderValue>,
}

pub(crate) const JSON: &str = "application/json";
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// Members of a request's body that had no effect.
const IGNORED: HeaderName = HeaderName::from_static("x-ignored-fields");

impl Answer {
    pub(crate) fn new(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self::flowing(content_type, Body::from(body.into()))
    }

    /// One whose body comes bit by bit.
    pub(crate) fn flowing(content_type: &'static str, body: Body) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            body,
            retry_after: None,
            disposition: None,
            location: None,
            ignored: None,
        }
    }

    /// One that a browser keeps as a file of that name.
    pub(crate) fn file(mut self, name: &str) -> Self {
        self.disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).ok();
        self
    }

    pub(crate) fn json(value: &impl Serialize) -> Self {
        Self::new(JSON, serde_json::to_vec(value).expect("answers are plain data"))
    }

    pub(crate) fn empty(status: StatusCode) -> Self {
        Self::new("text/plain; charset=utf-8", Bytes::new()).status(status)
    }

    /// Where what was made is told of.
    pub(crate) fn location(mut self, place: &str) -> Self {
        self.location = HeaderValue::from_str(place).ok();
        self
    }

    /// Which members of the request had no effect.
    pub(crate) fn ignoring(mut self, members: &[String]) -> Self {
        if !members.is_empty() {
            self.ignored = HeaderValue::from_str(&members.join(", ")).ok();
        }
        self
    }

    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Keeps the request's slot, and memory for a large answer, until the answer is sent. A follower of events gives its
    /// slot back now: it may stay for days, and holds next to nothing.
    fn hold_until_sent(mut self, app: &App, slot: Slot) -> Result<Self, Problem> {
        if self.content_type != EVENT_STREAM {
            self.body = unsent::hold(self.body, slot, &app.bodies)?;
        }
        Ok(self)
    }

    /// When the caller may come back.
    pub(crate) fn retry_after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }
}

/// Lets a request for work in: it takes one of the slots, has a deadline, and is turned away while the server
/// goes down.
pub(crate) async fn work<F>(
    app: Arc<App>,
    route: Route,
    request: Request,
    handle: impl FnOnce(Arc<App>, Visit, Request) -> F,
) -> Response
where
    F: Future<Output = Result<Answer, Problem>>,
{
    let mut door = Door::open(&app, route, Kind::Work, &request);
    door.connection = request.extensions().get::<Peer>().map_or(0, Peer::number);
    let mut call = Call::new(door.start);
    door.trace = Some(call.trace.clone());
    let id = door.id.clone();
    let outcome = async {
        let slot = app.admit(route, Lane::Deadline, &call.trace)?;
        call.trace.enter(route.stage());
        let request = unpack(request)?;
        let query = Query::parse(request.uri().query())?;
        if !route.takes_images() {
            query.refuse_image_parameters()?;
        }
        call.deadline = Deadline::after(call.trace.start(), app.settings().request_timeout);
        query.check()?;
        query.apply(&mut call)?;
        let deadline = call.deadline;
        // Boxed, for it is large and would be moved again and again by the layers around it.
        let work = Box::pin(handle(Arc::clone(&app), Visit { call, query, id }, request));
        within(deadline, Problem::late, work).await?.hold_until_sent(&app, slot)
    };
    let outcome = outcome.await;
    door.close(&app, outcome)
}

/// Lets a request for what is recorded in: it takes one of the slots, and has a deadline unless it is `endless`, for what is
/// as long as its sender likes.
pub(crate) async fn keep<F>(
    app: Arc<App>,
    route: Route,
    request: Request,
    endless: bool,
    handle: impl FnOnce(Arc<App>, Visitor, Request) -> F,
) -> Response
where
    F: Future<Output = Result<Answer, Problem>>,
{
    let mut door = Door::open(&app, route, Kind::Work, &request);
    let peer = request.extensions().get::<Peer>().copied();
    door.connection = peer.as_ref().map_or(0, Peer::number);
    let mut call = Call::new(door.start);
    door.trace = Some(call.trace.clone());
    if !endless {
        call.deadline = Deadline::after(call.trace.start(), app.settings().request_timeout);
    }
    let user = request.headers().get("x-user-id").and_then(|user| user.to_str().ok());
    let user = user.map(|user| shorten(user).into_owned());
    let visitor = Visitor { call: call.clone(), user, peer, id: door.id.clone(), context: door.context.clone() };
    let outcome = async {
        let slot = app.admit(route, if endless { Lane::NoDeadline } else { Lane::Deadline }, &call.trace)?;
        call.trace.enter(route.stage());
        let request = unpack(request)?;
        let work = Box::pin(handle(Arc::clone(&app), visitor, request));
        within(call.deadline, Problem::late, work).await?.hold_until_sent(&app, slot)
    };
    let outcome = outcome.await;
    door.close(&app, outcome)
}

/// Lets a question about the server in: it is always answered, whatever else is going on.
pub(crate) fn ask(
    app: &Arc<App>,
    route: Route,
    request: &Request,
    handle: impl FnOnce(&Arc<App>) -> Result<Answer, Problem>,
) -> Response {
    let door = Door::open(app, route, Kind::Question, request);
    let outcome = handle(app);
    door.close(app, outcome)
}

/// Lets in whoever watches the server: for as long as that takes, without a slot or a deadline.
pub(crate) async fn stay<F>(
    app: Arc<App>,
    route: Route,
    request: Request,
    handle: impl FnOnce(Arc<App>, Request) -> F,
) -> Response
where
    F: Future<Output = Result<Answer, Problem>>,
{
    let door = Door::open(&app, route, Kind::Watch, &request);
    let outcome = match unpack(request) {
        Ok(request) => handle(Arc::clone(&app), request).await,
        Err(problem) => Err(problem),
    };
    door.close(&app, outcome)
}

/// Turns away what has found no handler.
pub(crate) fn refuse(app: &App, headers: &HeaderMap, uri: &Uri, problem: Problem) -> Response {
    refuse_at(app, Route::Unknown, headers, uri, problem)
}

/// Turns away a request for `route` that no handler has seen.
pub(crate) fn refuse_at(app: &App, route: Route, headers: &HeaderMap, uri: &Uri, problem: Problem) -> Response {
    Door::of(app, route, Kind::Question, headers, uri).close(app, Err(problem))
}

/// Lets a request through to handlers that know nothing of the door: files of a page.
pub(crate) async fn pass(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let door = Door::open(&app, Route::Docs, Kind::Question, &request);
    let response = next.run(request).await;
    door.sign(&app, response)
}

/// What brings somebody to the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Work, in its turn and within a deadline.
    Work,
    /// A question that is answered at once.
    Question,
    /// Watching, which nobody wonders takes long.
    Watch,
}

struct Door {
    route: Route,
    kind: Kind,
    start: Instant,
    /// Of requests for work.
    trace: Option<Trace>,
    /// Of those that are told of.
    context: Option<TraceContext>,
    id: RequestId,
    path: String,
    /// Bytes of its body, as it says.
    received: Option<u64>,
    gzip: TakesGzip,
    /// The connection that it came by, of requests for work.
    connection: u64,
    /// What it is told went wrong.
    error: Option<ErrorKind>,
}

impl Door {
    fn open(app: &App, route: Route, kind: Kind, request: &Request) -> Self {
        Self::of(app, route, kind, request.headers(), request.uri())
    }

    fn of(app: &App, route: Route, kind: Kind, headers: &HeaderMap, uri: &Uri) -> Self {
        let received = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let (id, path) = (RequestId::of(headers), uri.path().to_owned());
        let context = app.tracer.as_ref().and_then(|tracer| span::begin(tracer, headers, kind == Kind::Work));
        Self {
            route,
            kind,
            start: Instant::now(),
            trace: None,
            context,
            id,
            path,
            received,
            gzip: TakesGzip::of(headers),
            connection: 0,
            error: None,
        }
    }

    fn close(mut self, app: &App, outcome: Result<Answer, Problem>) -> Response {
        let answer = outcome.unwrap_or_else(|problem| {
            if let Some(trace) = &self.trace {
                trace.enter(Stage::Encode);
            }
            app.metrics.count_error(problem.kind);
            self.error = Some(problem.kind);
            if problem.status() == StatusCode::INTERNAL_SERVER_ERROR {
                self.log_failure(&problem);
            }
            self.tell(&problem)
        });
        let mut response = Response::new(answer.body);
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
        if let Some(wait) = answer.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if let Some(disposition) = answer.disposition {
            headers.insert(header::CONTENT_DISPOSITION, disposition);
        }
        if let Some(ignored) = answer.ignored {
            headers.insert(IGNORED, ignored);
        }
        if let Some(location) = answer.location {
            headers.insert(header::LOCATION, location);
        }
        if self.error == Some(ErrorKind::UnsupportedEncoding) {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(unpack::ACCEPTED));
        }
        if answer.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        self.sign(app, response)
    }

    /// Puts name and time on a response, and counts it.
    fn sign(mut self, app: &App, response: Response) -> Response {
        let status = response.status();
        let sent = response.body().size_hint().exact().unwrap_or(0);
        let stamps =
            self.trace.as_ref().map_or_else(|| StageTimes::from_total(self.start, Instant::now()), Trace::close);
        if status.is_success() {
            app.metrics.count_stages(self.route, &stamps);
            app.breaches.count(&app.settings().profiling.budgets, self.route, &stamps);
        }
        if let Some(trace) = self.trace.as_ref().filter(|_| caudal_observe::is_enabled()) {
            let (id, status) = (self.id.as_str().into(), status.as_u16());
            let Self { received, connection, error, .. } = self;
            let (asked, trace_id, steps) = (trace.model(), self.trace_id(), trace.pipeline_steps());
            let kept = RequestRecord {
                id,
                status,
                error,
                connection,
                model: asked,
                received_bytes: received,
                sent_bytes: sent,
                stamps,
                trace_id,
                steps,
            };
            app.recorder.record_request(self.route as usize, kept);
        }
        let took = stamps.total();
        app.metrics.count(self.route, status.as_u16(), took);
        let line = self.is_slow(app, took).then(|| app.slow_log.line(Instant::now())).flatten();
        if let Some(suppressed) = line {
            self.log_slow(&stamps, status, suppressed);
        } else {
            tracing::debug!(
                request_id = self.id.as_str(),
                trace_id = self.trace_id().map(tracing::field::display),
                status = status.as_u16(),
                "{} {} took {:.1} ms",
                self.route.method(),
                self.path,
                took.as_secs_f64() * 1e3,
            );
        }
        if let (Some(tracer), Some(context)) = (&app.tracer, self.context.take()) {
            tracer.record_request(self.finished(context, status, sent, stamps));
        }
        let mut response = pack::pack(response, self.route, self.gzip);
        let headers = response.headers_mut();
        headers.insert(request_id::HEADER, self.id.into_header());
        headers.insert(timing::PROCESS_TIME, timing::process_time(took));
        headers.insert(timing::SERVER_TIMING, timing::server_timing(&stamps));
        if app.is_draining() || status == StatusCode::PAYLOAD_TOO_LARGE {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn tell(&self, problem: &Problem) -> Answer {
        let answer = match self.path.starts_with("/v2") {
            true => Answer::json(&kserve::ErrorAnswer::new(problem)),
            false => Answer::json(&ErrorAnswer { error: problem.body(Some(self.id.as_str())) }),
        };
        answer.status(problem.status()).retry_after(problem.retry_after)
    }

    /// What a trace tells of it.
    fn finished(
        &mut self,
        context: TraceContext,
        status: StatusCode,
        sent: u64,
        stamps: StageTimes,
    ) -> FinishedRequest {
        let (method, route) = match self.route {
            // By OpenTelemetry's conventions: one that is not known.
            Route::Unknown => ("_OTHER", None),
            route => (route.method(), Some(route.path())),
        };
        FinishedRequest {
            context,
            method,
            route,
            path: span::path(std::mem::take(&mut self.path)),
            status: status.as_u16(),
            error: self.error.map(ErrorKind::code),
            request_id: self.id.as_str().into(),
            model: self.trace.as_ref().and_then(Trace::model),
            received: self.received,
            sent,
            stamps,
            steps: self.trace.as_ref().and_then(Trace::pipeline_steps),
        }
    }

    /// The trace that tells of it.
    fn trace_id(&self) -> Option<TraceId> {
        self.context.as_ref().map(|context| context.trace)
    }

    /// What is this server's own fault should be found where its owner looks.
    fn log_failure(&self, problem: &Problem) {
        if problem.kind == ErrorKind::StepFailed {
            return self.log_failed_step(problem);
        }
        tracing::error!(
            request_id = self.id.as_str(),
            trace_id = self.trace_id().map(tracing::field::display),
            code = problem.kind.code(),
            "{} {} failed: {}",
            self.route.method(),
            self.path,
            problem.for_log(),
        );
    }

    /// A step's failure may say what the step was given, and that is what a patient said: the log names the step alone. It
    /// may be the caller's doing, so it is no error of this server's.
    fn log_failed_step(&self, problem: &Problem) {
        let detail = |name: &str| problem.details.as_ref()?.get(name)?.as_str();
        tracing::warn!(
            request_id = self.id.as_str(),
            trace_id = self.trace_id().map(tracing::field::display),
            run_id = detail("run_id"),
            step = detail("step"),
            code = detail("step_error").unwrap_or(problem.kind.code()),
            "{} {}: a step failed; GET /api/v1/runs/{{id}} tells why",
            self.route.method(),
            self.path,
        );
    }

    /// Whether it took so long that its owner should know.
    fn is_slow(&self, app: &App, took: Duration) -> bool {
        let run = || {
            let asked = self.trace.as_ref()?.model()?;
            Some(app.catalog.get(&asked.name, None).ok()?.measured.one_row)
        };
        self.kind != Kind::Watch && app.settings().slow_request.is_slow(took, run)
    }

    fn log_slow(&self, stamps: &StageTimes, status: StatusCode, suppressed: u64) {
        let stages: Vec<String> =
            stamps.iter().map(|(stage, spent)| format!("{} {:.1}", stage.name(), spent.as_secs_f64() * 1e3)).collect();
        tracing::warn!(
            request_id = self.id.as_str(),
            trace_id = self.trace_id().map(tracing::field::display),
            status = status.as_u16(),
            suppressed = Some(suppressed).filter(|suppressed| *suppressed > 0),
            "Slow request: {} {} took {:.1} ms ({})",
            self.route.method(),
            self.path,
            stamps.total().as_secs_f64() * 1e3,
            stages.join(", "),
        );
    }
}

/// Retry-After counts whole seconds; less than one would be none.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1000).clamp(1, 3600) as u64
}
