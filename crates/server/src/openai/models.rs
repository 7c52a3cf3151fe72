//! The models, as OpenAI's clients list them.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_tasks::Entry;
use serde::Serialize;

use crate::{
    app::App,
    http::door::{self, Answer},
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
struct ModelEntry {
    id: String,
    #[schema(example = "model")]
    object: &'static str,
    /// When the server started, in seconds since 1970.
    created: u64,
    #[schema(example = "caudal")]
    owned_by: &'static str,
}

/// The models that would answer, under all their names.
#[utoipa::path(get, path = "/v1/models", tag = "texts", responses((status = 200, body = ModelList)))]
pub(crate) async fn models(State(app): State<Arc<App>>, request: Request) -> Response {
    door::ask(&app, Route::Models, &request, |app| {
        let started = SystemTime::now() - app.started.elapsed();
        let created = started.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = app.catalog.now();
        let would_serve = now.entries().filter(|(_, entry)| !matches!(entry, Entry::Failed(_)));
        let names = would_serve.flat_map(|(name, _)| [name].into_iter().chain(now.aliases(name)));
        let entry = |name: &str| ModelEntry { id: name.to_owned(), object: "model", created, owned_by: "caudal" };
        Ok(Answer::json(&ModelList { object: "list", data: names.map(entry).collect() }))
    })
}
