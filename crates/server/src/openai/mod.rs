//! OpenAI's API, as far as models here can speak it: texts in, vectors out.

mod answer;
mod models;
mod request;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_types::Stage;

pub(crate) use self::models::{__path_models, models};
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

/// Makes a vector of each text.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
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
    let limits =
        BodyLimits { bytes: app.settings().max_body_bytes, memory: &app.bodies, pause: app.settings().body_timeout };
    let received = body::read(&head.headers, body, &limits).await?;
    let small = received.bytes.len() <= SMALL_BODY;
    let asked = aside(&app, small, &visit.call, Stage::Decode, move || Asked::read(&received.bytes)).await??;
    let model = app.catalog.demand(&asked.model, None, visit.id.as_str()).await?;
    model.check_embed(&visit.call)?;
    let embedded = model.embed(app.pictures.decoders(), asked.texts, asked.ask, &visit.call).await?;
    let few = embedded.vectors.iter().map(Vec::len).sum::<usize>() <= FEW_VALUES;
    let write = move || Answer::json(&EmbeddingsAnswer::new(&asked.model, asked.format, &embedded));
    aside(&app, few, &visit.call, Stage::Encode, write).await
}
