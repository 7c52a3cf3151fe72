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
    docs::schemas,
    http::{
        Path,
        door::{self, Answer, Visitor},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// Most runs of one answer.
const MOST: u32 = 200;

/// Lists stored runs, newest first.
#[utoipa::path(
    get,
    path = "/api/v1/runs",
    operation_id = "list_runs",
    tag = "pipelines",
    params(
        ("limit" = Option<u32>, Query, description = "at most so many; default 50", minimum = 1, maximum = 200),
        ("offset" = Option<u64>, Query, description = "runs to leave out before the first"),
        ("status" = inline(Option<schemas::RunStatus>), Query, description = "of the runs of this page, only those with this status"),
    ),
    responses((status = 200, body = schemas::RunPage), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
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

/// Shows a run.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{id}",
    operation_id = "get_run",
    tag = "pipelines",
    params(("id" = String, Path, description = "the id of the run")),
    responses((status = 200, body = schemas::RunReport), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
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

/// Resumes a run: with an answer if it waits for one, or where it stopped after a failure or a crash.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/resume",
    operation_id = "resume_run",
    tag = "pipelines",
    params(("id" = String, Path, description = "the id of the run"), ("wait" = Option<bool>, Query, description = "false: 202 at once")),
    request_body = Option<schemas::ResumeRequest>,
    responses((status = 200, body = schemas::RunReport), (status = 202, body = schemas::RunPending), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn resume(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::RunResume, request, false, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let waits = run::waits(request.uri(), request.headers())?;
        let mut said: Said =
            run::order(&app, &visitor, request, "send {\"answer\": …}, or {\"answers\": {\"path\": …}}").await?;
        if let Some(answer) = said.answer.take() {
            said.answers.insert("".into(), answer);
        }
        let going = app.flows.resume(&id, said.answers, said.force).await?;
        run::answer(&app, &visitor, going, waits).await
    })
    .await
}

/// Cancels a run.
#[utoipa::path(
    post,
    path = "/api/v1/runs/{id}/cancel",
    operation_id = "cancel_run",
    tag = "pipelines",
    params(("id" = String, Path, description = "the id of the run")),
    responses((status = 200, body = schemas::RunCancelled), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::RunCancel, request, false, async |app: Arc<App>, _: Visitor, request: Request| {
        Parameters::of(request.uri(), &[])?;
        app.flows.cancel(&id).await?;
        Ok::<_, Problem>(Answer::json(&json!({"run_id": id, "status": "cancelled"})).location(&place(&id)))
    })
    .await
}
