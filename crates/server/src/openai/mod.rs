//! OpenAI's API, as far as models here can speak it: texts in, vectors out.

mod answer;
mod models;
mod request;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_tasks::Embedded;
use caudal_types::{ErrorKind, Stage};

pub(crate) use self::models::{__path_model, __path_models, model, models};
use self::{answer::EmbeddingsAnswer, request::Asked};
use crate::{
    app::App,
    http::{
        aside,
        body::{self, BodyLimits},
        door::{self, Answer, Visit},
    },
    params::UrgencyParams,
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// Computes an embedding of each text.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    operation_id = "create_embeddings",
    tag = "texts",
    params(UrgencyParams),
    request_body(content = request::EmbeddingsRequest, content_type = "application/json"),
    responses((status = 200, body = EmbeddingsAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Response {
    door::work(app, Route::Embeddings, request, run).await
}

/// Bytes of a body that are read as JSON on the thread that talks to the socket.
const SMALL_BODY: usize = 32 << 10;
/// Values of an answer that are written there: each takes some tens of nanoseconds.
const FEW_VALUES: usize = 8 << 10;

async fn run(app: Arc<App>, visit: Visit, request: Request) -> Result<Answer, Problem> {
    // Which model is asked stands in the body. Where there is only one it is known before.
    let only = app.catalog.now().only("embed").and_then(|name| app.catalog.get(name, None).ok());
    if let Some(model) = only {
        model.check_embed(&visit.call)?;
    }
    let (head, body) = request.into_parts();
    let received = body::read_json(&head.headers, body, &BodyLimits::of(&app, &visit.call.trace)).await?;
    let small = received.bytes.len() <= SMALL_BODY;
    let asked = aside(&app, small, &visit.call, Stage::Decode, move || Asked::read(&received.bytes)).await??;
    let model = app.catalog.demand(&asked.model, None, visit.id.as_str(), Some(&visit.call.trace)).await?;
    model.check_embed(&visit.call)?;
    let embedded = model.embed(app.pictures.decoders(), asked.texts, asked.ask, &visit.call).await?;
    let few = embedded.vectors.iter().map(Vec::len).sum::<usize>() <= FEW_VALUES;
    let (name, format) = (asked.model, asked.format);
    let write = move || {
        check_finite(&embedded)?;
        Ok::<_, Problem>(Answer::json(&EmbeddingsAnswer::new(&name, format, &embedded)))
    };
    let answer = aside(&app, few, &visit.call, Stage::Encode, write).await??;
    Ok(answer.ignoring(&asked.ignored))
}

/// JSON has no NaN and no infinity, and a vector with one of them is near to nothing.
fn check_finite(embedded: &Embedded) -> Result<(), Problem> {
    match embedded.vectors.iter().position(|vector| !vector.iter().all(|value| value.is_finite())) {
        None => Ok(()),
        Some(index) => Err(Problem::new(
            ErrorKind::InferenceFailed,
            format!("the model's vector of input {index} has values that are NaN or infinite"),
            "leave this text out, and check the model's file and its precision",
        )),
    }
}
