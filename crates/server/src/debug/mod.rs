//! What the process is doing with its processor and its memory, for whoever administers the server.

mod operators;
mod params;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_profiler::{Format, ProfileError, Recording};
use caudal_types::{ErrorKind, Explain};

use crate::{
    app::App,
    docs::schemas,
    http::door::{self, Answer},
    problem::{ErrorAnswer, Problem},
    route::Route,
};
use operators::Operators;
use params::{HeapParams, ProfileParams};

/// How often a profile looks whether the server goes down.
const LOOK: Duration = Duration::from_millis(100);

impl From<ProfileError> for Problem {
    fn from(error: ProfileError) -> Self {
        Self::new(error.kind(), error.to_string(), error.hint())
    }
}

/// Profiles the CPU time of the server's threads, in pprof's format. The profile ends early when the client disconnects
/// or the server shuts down.
#[utoipa::path(
    get,
    path = "/debug/pprof/profile",
    operation_id = "profile_cpu",
    tag = "admin",
    params(ProfileParams),
    responses(
        (status = 200, content_type = "application/octet-stream", body = inline(schemas::Binary)),
        (status = "4XX", body = ErrorAnswer),
    ),
)]
pub(crate) async fn profile(State(app): State<Arc<App>>, request: Request) -> Response {
    cpu(app, Route::Profile, request, Format::Pprof).await
}

/// The CPU profile as a flame graph: an SVG to zoom and search in a browser.
#[utoipa::path(
    get,
    path = "/debug/pprof/flamegraph",
    operation_id = "get_flame_graph",
    tag = "admin",
    params(ProfileParams),
    responses((status = 200, content_type = "image/svg+xml", body = String), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn flamegraph(State(app): State<Arc<App>>, request: Request) -> Response {
    cpu(app, Route::Flamegraph, request, Format::Svg).await
}

/// The CPU profile as text: one collapsed stack per line, with its samples.
#[utoipa::path(
    get,
    path = "/debug/pprof/collapsed",
    operation_id = "get_collapsed_stacks",
    tag = "admin",
    params(ProfileParams),
    responses((status = 200, content_type = "text/plain", body = String), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn collapsed(State(app): State<Arc<App>>, request: Request) -> Response {
    cpu(app, Route::Collapsed, request, Format::Collapsed).await
}

/// Profiles the live heap, ONNX Runtime's memory included, in pprof's format.
#[utoipa::path(
    get,
    path = "/debug/pprof/heap",
    operation_id = "profile_heap",
    tag = "admin",
    params(HeapParams),
    responses(
        (status = 200, content_type = "application/octet-stream", body = inline(schemas::Binary)),
        (status = "4XX", body = ErrorAnswer),
        (status = 501, description = "built without jemalloc", body = ErrorAnswer),
    ),
)]
pub(crate) async fn heap(State(app): State<Arc<App>>, request: Request) -> Response {
    door::stay(app, Route::Heap, request, |_, request| async move {
        let format = params::format(request.uri().query())?.unwrap_or(Format::Pprof);
        written(caudal_profiler::heap_profile, format).await
    })
    .await
}

async fn cpu(app: Arc<App>, route: Route, request: Request, form: Format) -> Response {
    door::stay(app, route, request, |app, request| async move {
        let asked = params::profile(request.uri().query())?;
        // Before anything is sampled: what cannot be is said at once, and these runs are not those that are looked at.
        let operators = match &asked.operators {
            Some(model) => Some(Operators::of(&app, model).await?),
            None => None,
        };
        // Dropped with this future when the client goes: the sampling ends.
        let recording = Recording::start(asked.hz)?;
        let end = Instant::now() + asked.time;
        while Instant::now() < end && !app.is_draining() {
            tokio::time::sleep(LOOK.min(end - Instant::now())).await;
        }
        let take = move || {
            let profile = recording.finish()?;
            Ok(operators.into_iter().fold(profile, |profile, operators| operators.put_into(profile)))
        };
        written(take, asked.format.unwrap_or(form)).await
    })
    .await
}

/// Names and forms take a while: not on a thread that talks to sockets.
async fn written(
    take: impl FnOnce() -> Result<caudal_profiler::Profile, ProfileError> + Send + 'static,
    format: Format,
) -> Result<Answer, Problem> {
    let written = tokio::task::spawn_blocking(move || format.write(&take()?)).await;
    let broken = |_| Problem::new(ErrorKind::Internal, "the profile broke off", "see the server's log");
    Ok(Answer::new(format.content_type(), written.map_err(broken)??))
}
