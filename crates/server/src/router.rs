//! Which path leads where.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    response::Response,
    routing::{get, post},
};
use caudal_types::{ErrorKind, shorten};

use crate::{
    access::is_admin, admin, app::App, debug, docs, flow, health, http::door, kpis, kserve, openai, pictures,
    problem::Problem, record, route::Route,
};

/// What is answered at a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Everything: there is one socket.
    All,
    /// What everybody may ask.
    Public,
    /// What only who administers the server may ask, and what tells how it is.
    Admin,
}

impl Answers {
    fn works(self) -> bool {
        self != Self::Admin
    }

    pub(crate) fn administers(self) -> bool {
        self != Self::Public
    }

    /// Whether `path` is answered.
    pub(crate) fn answers(self, path: &str) -> bool {
        let below = |paths: &[&str]| paths.iter().any(|prefix| path.starts_with(prefix));
        if is_admin(path) {
            return self.administers();
        }
        let watches = ["/v2/health/", "/livez", "/readyz", "/health", "/status", "/metrics", "/api/kpis"];
        self.works() || below(&watches)
    }
}

pub(crate) fn router(app: &Arc<App>, answers: Answers) -> Router {
    let mut router = watching().merge(docs::routes(app, answers));
    if answers.works() {
        router = router.merge(working());
    }
    if answers.administers() {
        router = router.merge(administering());
    }
    let router = router.method_not_allowed_fallback(wrong_method).fallback(not_found).with_state(Arc::clone(app));
    match app.settings().access.origins.cors() {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

/// What the server is for.
fn working() -> Router<Arc<App>> {
    Router::new()
        .route("/predict/{model}", post(pictures::predict))
        .route("/predict_batch/{model}", post(pictures::predict_batch))
        .route("/api/v1/inference/image", post(pictures::inference_image))
        .route("/v1/embeddings", post(openai::embeddings))
        .route("/v1/models", get(openai::models))
        // Names of models elsewhere have slashes.
        .route("/v1/models/{*model}", get(openai::model))
        .route("/consultations", get(record::consultations::list).post(record::consultations::make))
        .route("/consultations/{id}", get(record::consultations::show))
        .route("/consultations/{id}/events", get(record::events::list).post(record::append::one))
        .route("/consultations/{id}/events/batch", post(record::append::batch))
        .route("/consultations/{id}/events/stream", get(record::follow::follow).post(record::stream::stream))
        .route("/consultations/{id}/events/{event}", get(record::events::show))
        .route("/consultations/{id}/events/{event}/receipt", get(record::proofs::receipt))
        .route("/consultations/{id}/soap", get(record::consultations::soap))
        .route("/consultations/{id}/head", get(record::proofs::head))
        .route("/consultations/{id}/verify", post(record::proofs::verify))
        .route("/api/timeline/sessions", get(record::timeline::sessions))
        .route("/api/timeline/sessions/{id}", get(record::timeline::session))
        .route("/api/timeline/stats", get(record::timeline::stats))
        .route("/api/timeline/verify-hash", post(record::timeline::verify_hash))
        .route("/api/exports", post(record::exports::make))
        .route("/api/exports/{id}", get(record::exports::show))
        .route("/api/exports/{id}/verify", post(record::exports::verify))
        .route("/api/exports/{id}/download/{file}", get(record::exports::download))
        .route("/api/v1/pipelines", get(flow::pipelines::list))
        .route("/api/v1/pipelines/{name}", get(flow::pipelines::show))
        .route("/api/v1/pipelines/{name}/run", post(flow::run::run))
        .route("/api/v1/runs", get(flow::runs::list))
        .route("/api/v1/runs/{id}", get(flow::runs::show))
        .route("/api/v1/runs/{id}/events", get(flow::events::follow))
        .route("/api/v1/runs/{id}/resume", post(flow::runs::resume))
        .route("/api/v1/runs/{id}/cancel", post(flow::runs::cancel))
        .route("/v2", get(kserve::metadata::server_metadata))
        .route("/v2/models/{model}", get(kserve::metadata::model_metadata))
        .route("/v2/models/{model}/ready", get(kserve::metadata::model_ready))
        .route("/v2/models/{model}/infer", post(kserve::infer))
        .route("/v2/models/{model}/versions/{version}", get(kserve::metadata::model_metadata_of))
        .route("/v2/models/{model}/versions/{version}/ready", get(kserve::metadata::model_ready_of))
        .route("/v2/models/{model}/versions/{version}/infer", post(kserve::infer_version))
}

/// Admin routes. All lie below the paths of `access`, which asks for the credential.
fn administering() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/repository/index", post(kserve::repository::index))
        .route("/v2/repository/models/{model}/load", post(kserve::repository::load))
        .route("/v2/repository/models/{model}/unload", post(kserve::repository::unload))
        .route("/admin/models/{model}", get(admin::models::show).patch(admin::models::change))
        .route("/admin/models/{model}/operators", get(admin::operators::show))
        .route("/admin/requests", get(admin::requests::list))
        .route("/admin/requests/trace", get(admin::requests::trace))
        .route("/admin/requests/{id}", get(admin::requests::show))
        .route("/admin/profiling/stats", get(admin::profiling::stats))
        .route("/admin/profiling/bottlenecks", get(admin::profiling::bottlenecks))
        .route("/admin/profiling/budgets", get(admin::profiling::budgets))
        .route("/admin/profiling/history", get(admin::profiling::history))
        .route("/admin/profiling/explain", get(admin::explain::show))
        .route("/admin/profiling/export", get(admin::profiling::export).post(admin::profiling::save))
        .route("/debug/pprof/profile", get(debug::profile))
        .route("/debug/pprof/flamegraph", get(debug::flamegraph))
        .route("/debug/pprof/collapsed", get(debug::collapsed))
        .route("/debug/pprof/heap", get(debug::heap))
        .route("/api/audit/logs", get(record::audit::logs))
        .route("/api/audit/stats", get(record::audit::stats))
        .route("/api/audit/operations", get(record::audit::operations))
        .route("/admin/memory", get(admin::memory::show))
        .route("/admin/memory/cleanup", post(admin::memory::cleanup))
}

/// How the server is.
fn watching() -> Router<Arc<App>> {
    Router::new()
        .route("/v2/health/live", get(health::server_live))
        .route("/v2/health/ready", get(health::server_ready))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/health", get(health::health))
        .route("/status", get(health::status))
        .route("/metrics", get(health::metrics))
        .route("/api/kpis", get(kpis::kpis))
        .route("/", get(docs::index))
}

/// Paths of OpenAI's API at which language models answer.
const OF_CHAT: [&str; 3] = ["/v1/chat/", "/v1/completions", "/v1/responses"];

async fn not_found(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path();
    // OpenAI's clients show the message and not the hint.
    let why = match OF_CHAT.iter().any(|prefix| path.starts_with(prefix)) {
        true => ": this server has no chat models; of OpenAI's API it has POST /v1/embeddings and GET /v1/models",
        false => "",
    };
    let message = format!("there is nothing at {}{why}", shorten(path));
    let hint = if app.settings().api_docs_enabled { "GET /docs lists all paths" } else { "check the path" };
    let problem = Problem::new(ErrorKind::NotFound, message, hint);
    door::refuse(&app, request.headers(), request.uri(), problem)
}

async fn wrong_method(State(app): State<Arc<App>>, request: Request) -> Response {
    let problem = Problem::new(
        ErrorKind::MethodNotAllowed,
        format!(
            "{} is not allowed on {}; use {}",
            shorten(request.method().as_str()),
            shorten(request.uri().path()),
            Route::methods(request.uri().path()).join(" or "),
        ),
        if app.settings().api_docs_enabled { "GET /docs lists the method of each path" } else { "use that method" },
    );
    door::refuse(&app, request.headers(), request.uri(), problem)
}
