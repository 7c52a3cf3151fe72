//! The API's description, made from the code, and its page. Everything the page needs is in the binary.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    middleware,
    response::Response,
};
use utoipa::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::{
    admin,
    app::App,
    debug, flow, health,
    http::door::{self, Answer},
    kpis, kserve, openai, pictures, record,
    route::Route,
    router::Answers,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Caudal",
        description = "Serves AI models from your own machines and shows where every millisecond goes.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "pictures", description = "Pictures in, what is on them out"),
        (name = "texts", description = "Texts in, vectors out, as OpenAI has it"),
        (name = "consultations", description = "What happened, for ever"),
        (name = "pipelines", description = "Steps that follow each other, and their runs"),
        (name = "tensors", description = "KServe v2 (Open Inference Protocol)"),
        (name = "admin", description = "For whoever administers the server"),
        (name = "health", description = "Probes, state, metrics"),
    ),
    paths(
        pictures::predict,
        pictures::predict_batch,
        pictures::inference_image,
        openai::embeddings,
        openai::models,
        openai::model,
        flow::pipelines::list,
        flow::pipelines::show,
        flow::run::run,
        flow::runs::list,
        flow::runs::show,
        flow::events::follow,
        flow::runs::resume,
        flow::runs::cancel,
        record::consultations::make,
        record::consultations::list,
        record::consultations::show,
        record::append::one,
        record::append::batch,
        record::stream::stream,
        record::events::list,
        record::events::show,
        record::follow::follow,
        record::consultations::soap,
        record::proofs::verify,
        record::proofs::head,
        record::proofs::receipt,
        record::timeline::sessions,
        record::timeline::session,
        record::timeline::stats,
        record::timeline::verify_hash,
        record::exports::make,
        record::exports::show,
        record::exports::verify,
        record::exports::download,
        record::audit::logs,
        record::audit::stats,
        record::audit::operations,
        kserve::infer,
        kserve::infer_version,
        kserve::metadata::model_metadata,
        kserve::metadata::model_metadata_of,
        kserve::metadata::model_ready,
        kserve::metadata::model_ready_of,
        kserve::metadata::server_metadata,
        kserve::repository::index,
        kserve::repository::load,
        kserve::repository::unload,
        admin::models::show,
        admin::models::change,
        admin::operators::show,
        admin::requests::list,
        admin::requests::show,
        admin::requests::trace,
        admin::profiling::stats,
        admin::profiling::bottlenecks,
        admin::profiling::budgets,
        admin::profiling::history,
        admin::explain::show,
        admin::profiling::export,
        admin::profiling::save,
        debug::profile,
        debug::flamegraph,
        debug::collapsed,
        debug::heap,
        admin::memory::show,
        admin::memory::cleanup,
        health::server_live,
        health::server_ready,
        health::livez,
        health::readyz,
        health::health,
        health::status,
        health::metrics,
        kpis::kpis,
    ),
)]
pub(crate) struct Api;

/// The API's description as JSON, for files and tools.
pub fn openapi_json() -> String {
    Api::openapi().to_pretty_json().expect("the description is plain data")
}

/// `/docs` and `/openapi.json`, which tell of what is answered beside them.
pub(crate) fn routes(app: &Arc<App>, answers: Answers) -> Router<Arc<App>> {
    let mut api = Api::openapi();
    api.paths.paths.retain(|path, _| answers.answers(path));
    // Validation by an outside service is on by default; nothing here leaves the machine.
    let config = Config::default().validator_url("none");
    let page = SwaggerUi::new("/docs").url("/openapi.json", api).config(config);
    Router::from(page).layer(middleware::from_fn_with_state(Arc::clone(app), door::pass))
}

/// What there is to see, for whoever opens the root in a browser.
pub(crate) async fn index(State(app): State<Arc<App>>, request: Request) -> Response {
    const PAGE: &str = "<!doctype html><meta charset=utf-8><title>Caudal</title>\
        <style>body{font:16px system-ui;max-width:40em;margin:3em auto;padding:0 1em}</style>\
        <h1>Caudal</h1><p>The server is running.</p><ul>\
        <li><a href=/docs>/docs</a> the API, to read and to try\
        <li><a href=/health>/health</a> the state of the server and its models\
        <li><a href=/metrics>/metrics</a> for Prometheus</ul>\
        <p>Routes below /admin and /debug ask for a password: the admin key, or the token of the admin token file \
        (any user name; see docs/deploy.md).";
    door::ask(&app, Route::Index, &request, |_| Ok(Answer::new("text/html; charset=utf-8", PAGE)))
}
