//! What the server and its models say of themselves.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use caudal_tasks::{Provider, ServedModel, Unavailable};
use serde::Serialize;

use crate::{
    app::App,
    docs::schemas,
    http::{
        Path,
        door::{self, Answer},
    },
    problem::Problem,
    route::Route,
};

/// What the server is.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ServerMetadata {
    name: &'static str,
    version: &'static str,
    /// Extensions of the protocol that work here.
    extensions: [&'static str; 1],
}

/// What a model takes and gives.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ModelMetadata {
    name: String,
    versions: [String; 1],
    platform: &'static str,
    /// What runs its operators: `cpu`, `openvino`, `cuda`, `tensorrt` or `xnnpack`.
    provider: &'static str,
    /// The provider that was wanted and did not work; the other one is its declared fallback.
    #[serde(skip_serializing_if = "Option::is_none")]
    instead_of: Option<&'static str>,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct TensorMetadata {
    name: String,
    #[schema(value_type = schemas::Datatype)]
    datatype: &'static str,
    /// -1 where any length fits.
    shape: Vec<i64>,
}

/// Whether a model serves. Triton's clients look at the status alone.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ModelReadiness<'a> {
    name: &'a str,
    ready: bool,
}

impl ModelMetadata {
    fn new(model: &ServedModel) -> Self {
        let tensors = |tensors: &[caudal_tasks::TensorSpec]| {
            let tensor = |tensor: &caudal_tasks::TensorSpec| TensorMetadata {
                name: tensor.name.clone(),
                datatype: tensor.dtype.name(),
                shape: tensor.dims.iter().map(|dim| dim.fixed_length().map_or(-1, |length| length as i64)).collect(),
            };
            tensors.iter().map(tensor).collect()
        };
        Self {
            name: model.name.clone(),
            versions: [model.version.to_string()],
            platform: "onnxruntime_onnx",
            provider: model.runs_on.provider.name(),
            instead_of: model.runs_on.instead_of.map(Provider::name),
            inputs: tensors(&model.spec.inputs),
            outputs: tensors(&model.spec.outputs),
        }
    }
}

/// Server metadata.
#[utoipa::path(get, path = "/v2", operation_id = "get_server_metadata", tag = "tensors", responses((status = 200, body = ServerMetadata)))]
pub(crate) async fn server_metadata(State(app): State<Arc<App>>, request: Request) -> Response {
    let metadata =
        ServerMetadata { name: "caudal", version: env!("CARGO_PKG_VERSION"), extensions: ["model_repository"] };
    door::ask(&app, Route::ServerMetadata, &request, |_| Ok(Answer::json(&metadata)))
}

/// Model metadata: inputs and outputs.
#[utoipa::path(
    get,
    path = "/v2/models/{model}",
    operation_id = "get_model_metadata",
    tag = "tensors",
    params(("model" = String, Path, description = "name or alias of a model; POST /v2/repository/index lists them")),
    responses((status = 200, body = ModelMetadata), (status = 404, body = super::ErrorAnswer)),
)]
pub(crate) async fn model_metadata(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
    request: Request,
) -> Response {
    metadata(app, request, model, None).await
}

/// Metadata of one model version.
#[utoipa::path(
    get,
    path = "/v2/models/{model}/versions/{version}",
    operation_id = "get_model_version_metadata",
    tag = "tensors",
    params(("model" = String, Path, description = "name or alias of a model; POST /v2/repository/index lists them"), ("version" = String, Path, description = "the version, a number")),
    responses((status = 200, body = ModelMetadata), (status = 404, body = super::ErrorAnswer)),
)]
pub(crate) async fn model_metadata_of(
    State(app): State<Arc<App>>,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Response {
    metadata(app, request, model, Some(version)).await
}

async fn metadata(app: Arc<App>, request: Request, model: String, version: Option<String>) -> Response {
    if app.catalog.now().resting(&model).is_none() {
        return door::ask(&app, Route::ModelMetadata, &request, |app| {
            Ok(Answer::json(&ModelMetadata::new(&*app.catalog.get(&model, version.as_deref())?)))
        });
    }
    // What it takes and gives is known when it is in memory.
    door::work(app, Route::ModelMetadata, request, |app, visit, _| async move {
        let model = app.catalog.demand(&model, version.as_deref(), visit.id.as_str(), Some(&visit.call.trace)).await?;
        Ok(Answer::json(&ModelMetadata::new(&model)))
    })
    .await
}

/// Model readiness: 200 or 503.
#[utoipa::path(
    get,
    path = "/v2/models/{model}/ready",
    operation_id = "check_model_ready",
    tag = "tensors",
    params(("model" = String, Path, description = "name or alias of a model; POST /v2/repository/index lists them")),
    responses((status = 200, body = ModelReadiness, description = "it is ready"), (status = 404, body = super::ErrorAnswer), (status = 503, description = "it is not ready, or the server is shutting down")),
)]
pub(crate) async fn model_ready(State(app): State<Arc<App>>, Path(model): Path<String>, request: Request) -> Response {
    door::ask(&app, Route::ModelReady, &request, |app| ready(app, &model, None))
}

/// Readiness of one model version: 200 or 503.
#[utoipa::path(
    get,
    path = "/v2/models/{model}/versions/{version}/ready",
    operation_id = "check_model_version_ready",
    tag = "tensors",
    params(("model" = String, Path, description = "name or alias of a model; POST /v2/repository/index lists them"), ("version" = String, Path, description = "the version, a number")),
    responses((status = 200, body = ModelReadiness, description = "it is ready"), (status = 404, body = super::ErrorAnswer), (status = 503, description = "it is not ready, or the server is shutting down")),
)]
pub(crate) async fn model_ready_of(
    State(app): State<Arc<App>>,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Response {
    door::ask(&app, Route::ModelReady, &request, |app| ready(app, &model, Some(&version)))
}

fn ready(app: &App, model: &str, version: Option<&str>) -> Result<Answer, Problem> {
    match app.catalog.get(model, version) {
        // It would serve.
        Ok(_) | Err(Unavailable::Resting(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = !app.is_draining();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(Answer::json(&ModelReadiness { name: model, ready }).status(status))
}
