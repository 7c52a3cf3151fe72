//! KServe v2 (Open Inference Protocol): tensors in, tensors out, as JSON.

mod answer;
mod members;
pub(crate) mod metadata;
mod numbers;
mod parameters;
pub(crate) mod repository;
mod request;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_tasks::{Call, ServedModel, within};
use caudal_types::{Deadline, ErrorKind, Stage, shorten};
use serde::Serialize;

use crate::{
    app::App,
    http::{
        Path, aside,
        body::{self, BodyLimits},
        door::{self, Answer, Visit},
    },
    problem::Problem,
    route::Route,
};
use request::Asked;

/// An error, as KServe tells it: one sentence.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = KserveError)]
pub(crate) struct ErrorAnswer {
    /// `code: message; hint`.
    error: String,
}

impl ErrorAnswer {
    pub(crate) fn new(problem: &Problem) -> Self {
        Self { error: format!("{}: {}; {}", problem.kind.code(), problem.message, problem.hint) }
    }
}

/// Runs inference on tensors.
///
/// `parameters.timeout` (microseconds) and `parameters.priority` (1 is the highest) are honoured.
#[utoipa::path(
    post,
    path = "/v2/models/{model}/infer",
    operation_id = "infer_tensors",
    tag = "tensors",
    params(("model" = String, Path, description = "name or alias of a model; POST /v2/repository/index lists them")),
    request_body(content = request::InferRequest, content_type = "application/json"),
    responses((status = 200, body = answer::InferAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn infer(State(app): State<Arc<App>>, Path(model): Path<String>, request: Request) -> Response {
    door::work(app, Route::Infer, request, |app, visit, request| run(app, visit, request, model, None)).await
}

/// Runs inference on tensors with one model version.
#[utoipa::path(
    post,
    path = "/v2/models/{model}/versions/{version}/infer",
    operation_id = "infer_tensors_with_version",
    tag = "tensors",
    params(("model" = String, Path, description = "name or alias of a model; POST /v2/repository/index lists them"), ("version" = String, Path, description = "the version, a number")),
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

/// Bytes of JSON, or of tensors that become JSON, that are dealt with on the thread that talks to the socket. More
/// takes longer than another connection should wait: a decode thread does it.
const SMALL: usize = 32 << 10;

async fn run(
    app: Arc<App>,
    mut visit: Visit,
    request: Request,
    name: String,
    version: Option<String>,
) -> Result<Answer, Problem> {
    let model = app.catalog.demand(&name, version.as_deref(), visit.id.as_str(), Some(&visit.call.trace)).await?;
    refuse_binary(&request)?;
    model.check_infer(&visit.call)?;
    let (head, body) = request.into_parts();
    let received = body::read_json(&head.headers, body, &BodyLimits::of(&app, &visit.call.trace)).await?;
    let small = received.bytes.len() <= SMALL;
    let asked = aside(&app, small, &visit.call, Stage::Decode, {
        let model = Arc::clone(&model);
        move || Asked::read(&received.bytes, &model)
    })
    .await??;
    check_named(&app, &name, &model, &asked)?;
    if let Some(priority) = asked.priority {
        visit.call.priority = priority;
    }
    match asked.timeout {
        None => answer(&app, model, asked, &visit.call).await,
        Some(timeout) => {
            let own = Deadline::after(visit.call.trace.start(), timeout);
            visit.call.deadline = visit.call.deadline.sooner(own);
            within(visit.call.deadline, Problem::late, answer(&app, model, asked, &visit.call)).await
        }
    }
}

/// Checks that the body names no other model or version than `model`, which was asked for as `name`.
fn check_named(app: &App, name: &str, model: &ServedModel, asked: &Asked) -> Result<(), Problem> {
    let contradicts = |member: &str, said: &str, is: &str| {
        let said = shorten(said);
        let message = format!("the member {member:?} is {said:?}, and the path asks for {is:?}");
        Err(Problem::parameter(message, "leave it out"))
    };
    if let Some(said) = asked.model.as_deref().filter(|said| !app.catalog.now().are_same(said, name)) {
        return contradicts("model_name", said, name);
    }
    let serving = model.version.to_string();
    match asked.version.as_deref().filter(|said| *said != serving) {
        Some(said) => contradicts("model_version", said, &serving),
        None => Ok(()),
    }
}

async fn answer(app: &App, model: Arc<ServedModel>, asked: Asked, call: &Call) -> Result<Answer, Problem> {
    let outputs = model.infer(asked.inputs, &asked.wanted, call).await?;
    let small = outputs.iter().map(|output| output.bytes.len()).sum::<usize>() <= SMALL;
    let write = move || answer::write(&model, asked.id.as_deref(), &outputs);
    let body = aside(app, small, call, Stage::Encode, write).await??;
    Ok(Answer::new(door::JSON, body))
}

fn refuse_binary(request: &Request) -> Result<(), Problem> {
    match request.headers().contains_key("inference-header-content-length") {
        false => Ok(()),
        true => Err(Problem::new(
            ErrorKind::UnsupportedMediaType,
            "binary tensors are not supported yet",
            "send the tensors as JSON (tritonclient: set_data_from_numpy(…, binary_data=False)), without the header Inference-Header-Content-Length",
        )),
    }
}
