//! KServe v2's model repository extension: which models there are, and how they come and go.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use caudal_tasks::{ChangeError, Entry};
use caudal_types::ErrorKind;
use serde::{Deserialize, Serialize};

use super::members;
use crate::{
    admin,
    app::App,
    docs::schemas,
    http::{
        Path, apart,
        door::{self, Answer, Visit},
    },
    json::without_bom,
    problem::Problem,
    route::Route,
    settings::ModelControl,
};

/// What is asked of the index.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct IndexRequest {
    /// Only models that serve.
    #[serde(deserialize_with = "crate::json::null_is_absent")]
    ready: bool,
}

/// A model of the repository.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Indexed {
    name: String,
    /// The version that serves, or would; absent where the folder holds none.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// Whether it serves.
    #[schema(value_type = schemas::ModelRepositoryState)]
    state: &'static str,
    /// Why it does not serve.
    reason: String,
}

/// What may be said when a model is to come or go.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ChangeRequest {
    /// None is known here; settings stand in `model.yaml`.
    #[schema(value_type = schemas::Members)]
    #[serde(deserialize_with = "crate::json::null_is_absent")]
    parameters: std::collections::BTreeMap<String, serde_json::Value>,
}

/// Why a model is not in memory that nobody has told to go.
const RESTS: &str = "resting: it is loaded when it is asked for";

/// Lists all models of the repository.
#[utoipa::path(
    post,
    path = "/v2/repository/index",
    operation_id = "list_repository_models",
    tag = "admin",
    request_body = Option<IndexRequest>,
    responses((status = 200, body = [Indexed]), (status = "4XX", body = super::ErrorAnswer)),
)]
pub(crate) async fn index(State(app): State<Arc<App>>, request: Request) -> Response {
    door::work(app, Route::RepositoryIndex, request, |app, visit: Visit, request| async move {
        let asked: IndexRequest = read(&app, &visit, request, &["ready"]).await?;
        let folders = app.catalog.folders().map_err(ChangeError::from)?;
        let now = app.catalog.now();
        let one = |(name, version): (String, Option<u64>)| {
            let (version, state, reason) = match now.entry(&name) {
                Some(Entry::Ready(model)) => (Some(model.version), "READY", String::new()),
                Some(Entry::Resting(_)) => (version, "UNAVAILABLE", RESTS.to_owned()),
                Some(Entry::Failed(failed)) => (version, "UNAVAILABLE", failed.reason.clone()),
                None => (version, "UNAVAILABLE", "unloaded".to_owned()),
            };
            Indexed { name, version: version.map(|number| number.to_string()), state, reason }
        };
        let models = folders.into_iter().map(one).filter(|model| !asked.ready || model.state == "READY");
        Ok(Answer::json(&models.collect::<Vec<_>>()))
    })
    .await
}

/// Loads or reloads a model; the previous version serves until the new one is ready.
#[utoipa::path(
    post,
    path = "/v2/repository/models/{model}/load",
    operation_id = "load_model",
    tag = "admin",
    params(("model" = String, Path, description = "its folder's name")),
    request_body = Option<ChangeRequest>,
    responses(
        (status = 200, description = "done"), (status = 400, body = super::ErrorAnswer), (status = 401, body = super::ErrorAnswer),
        (status = 403, body = super::ErrorAnswer), (status = 404, body = super::ErrorAnswer),
    ),
)]
pub(crate) async fn load(State(app): State<Arc<App>>, Path(model): Path<String>, request: Request) -> Response {
    door::work(app, Route::RepositoryLoad, request, |app, visit: Visit, request| async move {
        change(app, visit, request, move |app| app.catalog.load(&model).map(drop)).await
    })
    .await
}

/// Unloads a model: it gets no new requests and completes its current ones. Unloading a model that is not loaded
/// succeeds.
#[utoipa::path(
    post,
    path = "/v2/repository/models/{model}/unload",
    operation_id = "unload_model",
    tag = "admin",
    params(("model" = String, Path, description = "its folder's name")),
    request_body = Option<ChangeRequest>,
    responses(
        (status = 200, description = "done"), (status = 401, body = super::ErrorAnswer), (status = 403, body = super::ErrorAnswer),
        (status = 404, body = super::ErrorAnswer),
    ),
)]
pub(crate) async fn unload(State(app): State<Arc<App>>, Path(model): Path<String>, request: Request) -> Response {
    door::work(app, Route::RepositoryUnload, request, |app, visit: Visit, request| async move {
        change(app, visit, request, move |app| app.catalog.unload(&model)).await
    })
    .await
}

async fn change(
    app: Arc<App>,
    visit: Visit,
    request: Request,
    make: impl FnOnce(&App) -> Result<(), ChangeError> + Send + 'static,
) -> Result<Answer, Problem> {
    let asked: ChangeRequest = read(&app, &visit, request, &["parameters"]).await?;
    if app.settings().model_control != ModelControl::Explicit {
        return Err(Problem::new(
            ErrorKind::Forbidden,
            "loading and unloading models over HTTP is off: model_control_mode is not explicit",
            "start the server with --model-control-mode explicit",
        ));
    }
    let given = asked.parameters.iter().filter(|(_, value)| !value.is_null());
    if let Some(name) = given.map(|(name, _)| name).find(|name| *name != "unload_dependents") {
        let what =
            if name == "config" || name.starts_with("file:") { "a configuration or files" } else { "this parameter" };
        return Err(Problem::parameter(
            format!(
                "the parameter {:?} is not supported: a request to load a model cannot bring {what}",
                caudal_types::shorten(name)
            ),
            "put the files into the model's folder and its settings into model.yaml or config.pbtxt there, then load it without parameters",
        ));
    }
    // It takes its time: not on a thread that talks to sockets.
    let made = apart(visit.id, move || make(&app)).await;
    match made {
        Ok(made) => made.map(|()| Answer::empty(StatusCode::OK)).map_err(Problem::from),
        Err(_) => Err(Problem::new(ErrorKind::Internal, "loading broke off", "see the server's log")),
    }
}

/// Reads the body, an object that has some of the members `known`; no body is as good as `{}`.
async fn read<T: Default + for<'a> Deserialize<'a>>(
    app: &App,
    visit: &Visit,
    request: Request,
    known: &[&'static str],
) -> Result<T, Problem> {
    let body = admin::read(app, &visit.call.trace, request).await?;
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice::<Option<T>>(without_bom(&body)).map(Option::unwrap_or_default).map_err(|error| {
        let text = std::str::from_utf8(&body).unwrap_or_default();
        members::unknown(text, "the request", known).unwrap_or_else(|| {
            Problem::new(
                ErrorKind::InvalidRequest,
                format!("the body is not what is read here: {error}"),
                "send {} or nothing",
            )
        })
    })
}
