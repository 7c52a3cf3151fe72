//! KServe v2 (Open Inference Protocol): tensors in, tensors out, as JSON.

mod answer;
pub(crate) mod metadata;
mod numbers;
mod request;

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use caudal_tasks::{ServedModel, within};
use caudal_types::{Deadline, ErrorKind};
use serde::Serialize;

use crate::{
    app::App,
    http::{
        body::{self, BodyLimits},
        door::{self, Answer, Visit},
    },
    problem::Problem,
    route::Route,
};

/// An error, as KServe tells it: one sentence.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorAnswer {
    error: String,
}

impl ErrorAnswer {
    pub(crate) fn new(problem: &Problem) -> Self {
        Self { error: format!("{}: {}; {}", problem.kind.code(), problem.message, problem.hint) }
    }
}

/// Runs a model on tensors.
///
/// `parameters.timeout` (microseconds) and `parameters.priority` (1 is the highest) are honoured.
#[utoipa::path(
    post,
    path = "/v2/models/{model}/infer",
    tag = "tensors",
    params(("model" = String, Path, description = "name or alias")),
    request_body(content = request::InferRequest, content_type = "application/json"),
    responses((status = 200, body = answer::InferAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn infer(State(app): State<Arc<App>>, Path(model): Path<String>, request: Request) -> Response {
    door::work(app, Route::Infer, request, |app, visit, request| run(app, visit, request, model, None)).await
}

/// Runs one version of a model on tensors.
#[utoipa::path(
    post,
    path = "/v2/models/{model}/versions/{version}/infer",
    tag = "tensors",
    params(("model" = String, Path), ("version" = String, Path)),
    request_body(content = request::InferRequest, content_type = "application/json"),
    responses((status = 200, body = answer::InferAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn infer_version(
    State(app): State<Arc<App>>,
    Path((model, version)): Path<(String, String)>,
    request: Request,
) -> Response {
    door::work(app, Route::Infer, request, |app, visit, request| run(app, visit, request, model, Some(version))).await
}

async fn run(
    app: Arc<App>,
    mut visit: Visit,
    request: Request,
    name: String,
    version: Option<String>,
) -> Result<Answer, Problem> {
    let model = Arc::clone(app.catalog.get(&name, version.as_deref())?);
    refuse_binary(&request)?;
    let (head, body) = request.into_parts();
    let limits =
        BodyLimits { bytes: app.settings.max_body_bytes, memory: &app.bodies, pause: app.settings.body_timeout };
    let received = body::read(&head.headers, body, &limits).await?;
    visit.call.stamps.stamp(caudal_types::Stage::Receive);
    let request = request::parse(&received.bytes)?;
    if let Some(priority) = request.parameters.priority() {
        visit.call.priority = priority;
    }
    let id = request.id.as_ref().map(ToString::to_string);
    let wanted = request.wanted();
    let inputs = request.tensors()?;
    match request.parameters.timeout() {
        None => answer(&model, inputs, &wanted, visit, id).await,
        Some(timeout) => {
            let own = Deadline::after(visit.call.stamps.start(), timeout);
            visit.call.deadline = visit.call.deadline.sooner(own);
            within(visit.call.deadline, Problem::late, answer(&model, inputs, &wanted, visit, id)).await
        }
    }
}

async fn answer(
    model: &ServedModel,
    inputs: Vec<caudal_tasks::InputTensor>,
    wanted: &[String],
    visit: Visit,
    id: Option<String>,
) -> Result<Answer, Problem> {
    let done = model.infer(inputs, wanted, visit.call).await?;
    let body = answer::write(model, id.as_deref(), &done.outputs)?;
    Ok(Answer::new(door::JSON, body).stamps(done.stamps))
}

fn refuse_binary(request: &Request) -> Result<(), Problem> {
    match request.headers().contains_key("inference-header-content-length") {
        false => Ok(()),
        true => Err(Problem::new(
            ErrorKind::UnsupportedMediaType,
            "binary tensors are not read yet",
            "send the tensors as JSON, without the header Inference-Header-Content-Length",
        )),
    }
}

/// Whether a probe finds what it looks for.
fn probe(found: bool) -> Answer {
    Answer::empty(if found { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
}
