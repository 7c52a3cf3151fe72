//! The models, as OpenAI's clients list them.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_tasks::{Entry, Unavailable};
use serde::Serialize;

use crate::{
    app::App,
    http::{
        Path,
        door::{self, Answer},
    },
    problem::ErrorAnswer,
    route::Route,
};

/// The models that serve.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ModelList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<ModelEntry>,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ModelEntry {
    id: String,
    #[schema(example = "model")]
    object: &'static str,
    /// When the server started, in seconds since 1970.
    created: u64,
    #[schema(example = "caudal")]
    owned_by: &'static str,
}

/// Lists the loaded models under all their names.
#[utoipa::path(get, path = "/v1/models", operation_id = "list_models", tag = "texts", responses((status = 200, body = ModelList)))]
pub(crate) async fn models(State(app): State<Arc<App>>, request: Request) -> Response {
    door::ask(&app, Route::Models, &request, |app| {
        let (now, created) = (app.catalog.now(), started(app));
        let would_serve = now.entries().filter(|(_, entry)| !matches!(entry, Entry::Failed(_)));
        let names = would_serve.flat_map(|(name, _)| [name].into_iter().chain(now.aliases(name)));
        let data = names.map(|name| ModelEntry::new(name, created)).collect();
        Ok(Answer::json(&ModelList { object: "list", data }))
    })
}

/// Shows one model by its name or an alias.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    operation_id = "retrieve_model",
    tag = "texts",
    params(("model" = String, Path, description = "name or alias")),
    responses((status = 200, body = ModelEntry), (status = 404, body = ErrorAnswer), (status = 503, body = ErrorAnswer)),
)]
pub(crate) async fn model(State(app): State<Arc<App>>, Path(name): Path<String>, request: Request) -> Response {
    door::ask(&app, Route::Model, &request, |app| match app.catalog.get(&name, None) {
        Ok(_) | Err(Unavailable::Resting(_)) => Ok(Answer::json(&ModelEntry::new(&name, started(app)))),
        Err(error) => Err(error.into()),
    })
}

/// When the server started, in seconds since 1970.
fn started(app: &App) -> u64 {
    (SystemTime::now() - app.started.elapsed()).duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl ModelEntry {
    fn new(name: &str, created: u64) -> Self {
        Self { id: name.to_owned(), object: "model", created, owned_by: "caudal" }
    }
}
