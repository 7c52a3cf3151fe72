//! Which operators of a model take how long.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_tasks::{Operator, OperatorProfile, ServedModel};
use caudal_types::ErrorKind;
use serde::Serialize;

use super::Parameters;
use crate::{
    app::App,
    http::{
        Path,
        door::{self, Answer},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// What a model spends its time on.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct OperatorTimes {
    model: String,
    version: String,
    /// Runs that were watched.
    runs: usize,
    /// A run, with what lies between operators.
    run_ms: f64,
    /// Operators of the same kind together.
    kinds: Vec<OperatorTime>,
    operators: Vec<OperatorTime>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct OperatorTime {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    kind: String,
    provider: String,
    calls: u64,
    total_us: u64,
    ms_per_run: f64,
    /// Its part of a run, from 0 to 1.
    share: f64,
}

fn times(operators: Vec<Operator>, profile: &OperatorProfile, top: usize) -> Vec<OperatorTime> {
    let time = |operator: Operator| OperatorTime {
        ms_per_run: operator.total_us as f64 / profile.runs.max(1) as f64 / 1e3,
        share: operator.total_us as f64 / profile.total_us.max(1) as f64,
        name: operator.name,
        kind: operator.kind,
        provider: operator.provider,
        calls: operator.calls,
        total_us: operator.total_us,
    };
    operators.into_iter().take(top).map(time).collect()
}

/// The operators of `model` in `runs` runs that serve nobody; of one model at a time.
pub(crate) async fn watch(app: &App, model: &str, runs: usize) -> Result<(Arc<ServedModel>, OperatorProfile), Problem> {
    let Ok(turn) = Arc::clone(&app.operators).try_lock_owned() else {
        return Err(Problem::new(
            ErrorKind::ProfileRunning,
            "the operators of a model are being timed already",
            "ask again when that is done",
        ));
    };
    let served = app.catalog.get(model, None)?;
    let catalog = Arc::clone(&app.catalog);
    let watched = tokio::task::spawn_blocking(move || {
        let profile = catalog.operators(&served, runs);
        drop(turn);
        profile.map(|profile| (served, profile))
    });
    Ok(watched.await.expect("watching does not panic")?)
}

/// Opens the model a second time, runs it with an input like that of its warm-up under ONNX Runtime's profiler, and
/// reports the time of each operator. One profile at a time; the model continues to serve meanwhile.
#[utoipa::path(
    get,
    path = "/admin/models/{model}/operators",
    operation_id = "profile_model_operators",
    tag = "admin",
    params(
        ("model" = String, Path, description = "name or alias"),
        ("runs" = Option<usize>, Query, description = "runs to time; default 20", minimum = 1, maximum = 1000),
        ("top" = Option<usize>, Query, description = "operators to list; default 20", minimum = 1, maximum = 10000),
    ),
    responses((status = 200, body = OperatorTimes), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(model): Path<String>, request: Request) -> Response {
    door::stay(app, Route::AdminOperators, request, |app, request| async move {
        let parameters = Parameters::of(request.uri(), &["runs", "top"])?;
        let (runs, top) = (parameters.number("runs", 20, 1, 1000)?, parameters.number("top", 20, 1, 10_000)?);
        let (served, profile) = watch(&app, &model, runs).await?;
        Ok(Answer::json(&OperatorTimes {
            model: served.name.clone(),
            version: served.version.to_string(),
            runs: profile.runs,
            run_ms: profile.total_us as f64 / profile.runs.max(1) as f64 / 1e3,
            kinds: times(profile.by_kind(), &profile, top),
            operators: times(profile.operators.clone(), &profile, top),
        }))
    })
    .await
}
