//! Runs: listed, told of, taken up, broken off.

use std::{collections::HashMap, sync::Arc};

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_flow::Value;
use caudal_record::time::iso;
use serde::Deserialize;
use serde_json::json;

use super::{place, run, told};
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

/// Most runs of one answer.
const MOST: u32 = 200;

/// Lists runs that are kept, the latest first.
#[utoipa::path(
    get,
    path = "/api/v1/runs",
    tag = "pipelines",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 200; default 50"),
        ("offset" = Option<u64>, Query),
        ("status" = Option<String>, Query, description = "of those looked at, only these: running, paused, completed, failed, cancelled, interrupted"),
    ),
    responses((status = 200, body = serde_json::Value), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(app, Route::RunList, request, false, async |app: Arc<App>, _: Visitor, request: Request| {
        let parameters = Parameters::of(request.uri(), &["limit", "offset", "status"])?;
        let limit = parameters.number("limit", 50, 1, MOST)?;
        let offset = parameters.number("offset", 0, 0, u64::from(u32::MAX))?;
        let words = ["any", "running", "paused", "completed", "failed", "cancelled", "interrupted"];
        let wanted = parameters.word("status", &words)?;
        let listing = app.flows.engine().runs().list(limit, offset).await?;
        let mut runs = Vec::with_capacity(listing.runs.len());
        for run in &listing.runs {
            let (pipeline, status) = app.flows.engine().status(run).await?;
            if wanted != "any" && wanted != status {
                continue;
            }
            runs.push(json!({
                "run_id": run.id,
                "pipeline": pipeline,
                "status": status,
                "created_at": iso(run.time),
                "updated_at": iso(run.last_time),
                "location": place(&run.id),
            }));
        }
        Ok(Answer::json(&json!({"total": listing.total, "offset": offset, "returned_count": runs.len(), "runs": runs})))
    })
    .await
}

/// Tells of a run.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}",
    tag = "pipelines",
    params(("id" = String, Path)),
    responses((status = 200, body = serde_json::Value), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::Run, request, false, async |app: Arc<App>, _: Visitor, request: Request| {
        Parameters::of(request.uri(), &[])?;
        Ok(told(&*app.flows.report(&id).await?))
    })
    .await
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Said {
    answer: Option<Value>,
    #[serde(deserialize_with = "crate::json::null_is_absent")]
    answers: HashMap<Arc<str>, Value>,
    #[serde(deserialize_with = "crate::json::null_is_absent")]
    force: bool,
}

/// Takes a run up: with an answer, where it waits for one; after a failure or a crash, where it was left.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/resume",
    tag = "pipelines",
    params(("id" = String, Path), ("wait" = Option<bool>, Query, description = "false: 202 at once")),
    request_body(content = serde_json::Value, content_type = "application/json", description = "{answer} where one step asks, or {answers: {path: answer}}; {force: true} takes it from a process that is there and does nothing"),
    responses((status = 200, body = serde_json::Value), (status = 202, body = serde_json::Value), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn resume(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::RunResume, request, false, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let waits = run::waits(request.uri(), request.headers())?;
        let mut said: Said = run::order(&app, request, "send {\"answer\": …}, or {\"answers\": {\"path\": …}}").await?;
        if let Some(answer) = said.answer.take() {
            said.answers.insert("".into(), answer);
        }
        let going = app.flows.resume(&id, said.answers, said.force).await?;
        run::answer(&app, &visitor, going, waits).await
    })
    .await
}

/// Breaks a run off.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/cancel",
    tag = "pipelines",
    params(("id" = String, Path)),
    responses((status = 200, body = serde_json::Value), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::RunCancel, request, false, async |app: Arc<App>, _: Visitor, request: Request| {
        Parameters::of(request.uri(), &[])?;
        app.flows.cancel(&id).await?;
        Ok::<_, Problem>(Answer::json(&json!({"run_id": id, "status": "cancelled"})).location(&place(&id)))
    })
    .await
}
