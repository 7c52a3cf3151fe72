//! What limits the server now, and what would help.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_sight::explain_observation;
use caudal_types::ErrorKind;

use super::Parameters;
use crate::{
    app::App,
    docs::schemas,
    http::door::{self, Answer},
    problem::{ErrorAnswer, Problem},
    route::Route,
    watch::watch,
};

/// Observes the server under its current load and reports what limits it: the causes of waiting by weight, with figures
/// and the setting that would help, and the predicted effect of that and other changes, from a simulation that replays
/// the observed requests through a queueing network.
#[utoipa::path(
    get,
    path = "/admin/profiling/explain",
    operation_id = "explain_load",
    tag = "admin",
    params(
        ("seconds" = Option<f64>, Query, description = "how long to watch; default 5", minimum = 0.5, maximum = 300),
        ("format" = inline(Option<schemas::ExplainFormat>), Query, description = "`json` (default) or `txt`"),
    ),
    responses((status = 200, content((schemas::ExplainAnswer = "application/json"), (String = "text/plain"))), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, request: Request) -> Response {
    door::stay(app, Route::ProfilingExplain, request, |app, request| async move {
        let parameters = Parameters::of(request.uri(), &["seconds", "format"])?;
        let time = Duration::from_secs_f64(parameters.number("seconds", 5.0, 0.5, 300.0)?);
        let format = parameters.word("format", &["json", "txt"])?;
        if !caudal_observe::is_enabled() {
            return Err(Problem::new(
                ErrorKind::NothingSampled,
                "requests are not remembered: enable_profiling is off",
                "switch enable_profiling on",
            ));
        }
        let watched = watch(&app, time).await?;
        // Thousands of requests through a network of queues take a while: not on a thread that talks to sockets.
        let explained = tokio::task::spawn_blocking(move || explain_observation(&watched)).await;
        let explained = explained
            .map_err(|_| Problem::new(ErrorKind::Internal, "the explanation broke off", "see the server's log"))?;
        Ok(match format {
            "txt" => Answer::new("text/plain; charset=utf-8", explained.to_text()),
            _ => Answer::json(&explained),
        })
    })
    .await
}
