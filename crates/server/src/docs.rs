//! The API's description, made from the code, and its page. Everything the page needs is in the binary.

mod complete;
mod errors;
mod model_names;
pub(crate) mod schemas;

use std::sync::Arc;

use axum::{
    Router,
    extract::{Request, State},
    http::{
        StatusCode,
        header::{CONTENT_ENCODING, CONTENT_TYPE},
    },
    middleware,
    response::{Html, IntoResponse, Redirect, Response},
    routing::get,
};
use utoipa::OpenApi;
use utoipa_swagger_ui::Config;

use self::{complete::complete, model_names::Described};

use crate::{
    admin,
    app::App,
    debug, flow, health,
    http::{
        Path,
        door::{self, Answer, JSON},
    },
    kpis, kserve, openai, pictures, record,
    route::Route,
    router::Answers,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Caudal API",
        description = "Serves AI models from your own machines and shows where every millisecond goes.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    tags(
        (name = "pictures", description = "Predictions for pictures: objects, classes, masks"),
        (name = "texts", description = "Embeddings of texts, compatible with OpenAI's API"),
        (name = "tensors", description = "Inference on tensors: KServe v2 (Open Inference Protocol)"),
        (name = "pipelines", description = "Pipelines of steps, and their runs"),
        (name = "consultations", description = "The record of consultations: append-only, hash-chained events"),
        (name = "admin", description = "Administration; needs the admin key"),
        (name = "health", description = "Probes, state, metrics"),
    ),
    paths(
        pictures::predict,
        pictures::predict_batch,
        pictures::inference_image,
        openai::embeddings,
        openai::models,
        openai::model,
        kserve::infer,
        kserve::infer_version,
        kserve::metadata::model_metadata,
        kserve::metadata::model_metadata_of,
        kserve::metadata::model_ready,
        kserve::metadata::model_ready_of,
        kserve::metadata::server_metadata,
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

/// The API's description.
fn document() -> utoipa::openapi::OpenApi {
    let mut api = Api::openapi();
    complete(&mut api);
    api
}

fn document_value() -> serde_json::Value {
    serde_json::to_value(document()).expect("the description is plain data")
}

/// The API's description as JSON, for files and tools.
pub fn openapi_json() -> String {
    document().to_pretty_json().expect("the description is plain data")
}

/// The page of Swagger UI.
const PAGE: &str = r##"<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <title>Caudal API</title>
    <link rel="stylesheet" href="./swagger-ui.css">
    <link rel="stylesheet" href="./index.css">
    <link rel="icon" type="image/png" href="./favicon-32x32.png" sizes="32x32">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="./swagger-ui-bundle.js"></script>
    <script src="./swagger-ui-standalone-preset.js"></script>
    <script src="./swagger-initializer.js"></script>
  </body>
</html>
"##;

/// `/docs` and `/openapi.json`, which describe what is answered beside them; nothing where the settings hide them.
pub(crate) fn routes(app: &Arc<App>, answers: Answers) -> Router<Arc<App>> {
    if !app.settings().api_docs_enabled {
        return Router::new();
    }
    let mut api = document_value();
    if let Some(paths) = api["paths"].as_object_mut() {
        paths.retain(|path, _| answers.answers(path));
    }
    let described = Arc::new(Described::new(api));
    let json = |State(app): State<Arc<App>>| async move { ([(CONTENT_TYPE, JSON)], described.json(&app)) };
    // Validation by an outside service is on by default; nothing here leaves the machine. The base layout has no bar in
    // which other descriptions could be opened.
    let config = Arc::new(Config::new(["/openapi.json"]).validator_url("none").use_base_layout());
    Router::new()
        .route("/openapi.json", get(json))
        .route("/docs", get(|| async { Redirect::to("/docs/") }))
        .route("/docs/", get(|| async { Html(PAGE) }))
        .route("/docs/{*file}", get(move |Path(file): Path<String>| async move { asset(&file, config) }))
        .layer(middleware::from_fn_with_state(Arc::clone(app), door::pass))
}

/// A file of Swagger UI.
fn asset(file: &str, config: Arc<Config<'static>>) -> Response {
    match utoipa_swagger_ui::serve(file, config) {
        _ if file == "index.html" => Html(PAGE).into_response(),
        Ok(Some(found)) => {
            let encoding = found.gzpipped.then_some([(CONTENT_ENCODING, "gzip")]);
            ([(CONTENT_TYPE, found.content_type)], encoding, found.bytes.into_owned()).into_response()
        }
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// What there is to see, for whoever opens the root in a browser.
pub(crate) async fn index(State(app): State<Arc<App>>, request: Request) -> Response {
    const PAGE: &str = "<!doctype html><meta charset=utf-8><title>Caudal</title>\
        <style>body{font:16px system-ui;max-width:40em;margin:3em auto;padding:0 1em}</style>\
        <h1>Caudal</h1><p>The server is running.</p><ul><!--docs-->\
        <li><a href=/health>/health</a> the state of the server and its models\
        <li><a href=/metrics>/metrics</a> for Prometheus</ul>\
        <p>Routes below /admin and /debug ask for a password: the admin key, or the token of the admin token file \
        (any user name; see docs/deploy.md).";
    const DOCS: &str = "<li><a href=/docs>/docs</a> the API, to read and to try";
    door::ask(&app, Route::Index, &request, |app| {
        let docs = if app.settings().api_docs_enabled { DOCS } else { "" };
        Ok(Answer::new("text/html; charset=utf-8", PAGE.replace("<!--docs-->", docs)))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    type Operations = BTreeSet<(String, String)>;

    /// Method and path of all that is routed, as `router.rs` says it.
    fn routed() -> Operations {
        let mut found = Operations::new();
        for route in include_str!("router.rs").split(".route(").skip(1) {
            let (_, rest) = route.split_once('"').unwrap();
            let (path, rest) = rest.split_once('"').unwrap();
            let handlers = rest.split(".merge(").next().unwrap();
            for method in ["get", "post", "put", "patch", "delete"] {
                if handlers.split(|letter: char| !letter.is_ascii_alphabetic()).any(|word| word == method) {
                    // OpenAPI has one kind of parameters in paths.
                    found.insert((method.to_owned(), path.replace("{*", "{")));
                }
            }
        }
        found
    }

    fn operations(document: &Value) -> impl Iterator<Item = (String, String, &Value)> {
        document["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(|(method, operation)| (method.clone(), path.clone(), operation))
        })
    }

    fn parsed() -> Value {
        serde_json::from_str(&openapi_json()).unwrap()
    }

    #[test]
    fn every_route_is_documented_and_nothing_else() {
        let document = parsed();
        let documented: Operations = operations(&document).map(|(method, path, _)| (method, path)).collect();
        let mut routed = routed();
        assert!(routed.remove(&("get".to_owned(), "/".to_owned())), "the start page is for people");
        let missing: Vec<_> = routed.difference(&documented).collect();
        let unknown: Vec<_> = documented.difference(&routed).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "not documented: {missing:?}; not routed: {unknown:?}");
    }

    #[test]
    fn operation_ids_are_unique_and_name_a_verb_and_a_noun() {
        let document = parsed();
        let mut ids = BTreeSet::new();
        for (method, path, operation) in operations(&document) {
            let id = operation["operationId"].as_str().unwrap();
            assert!(id.contains('_'), "{method} {path}: name a verb and a noun by operation_id, not {id}");
            assert!(ids.insert(id.to_owned()), "{method} {path}: {id} names another operation too");
        }
    }

    #[test]
    fn every_response_and_parameter_is_described() {
        let document = parsed();
        for (method, path, operation) in operations(&document) {
            let at = format!("{method} {path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{at}: {status}");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let described = parameter["description"].as_str().is_some_and(|text| !text.is_empty());
                assert!(described, "{at}: the parameter {}", parameter["name"]);
            }
        }
    }

    #[test]
    fn every_parameter_of_a_path_is_declared() {
        let document = parsed();
        for (method, path, operation) in operations(&document) {
            let in_path = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap());
            let declared: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path")
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            assert_eq!(in_path.collect::<BTreeSet<_>>(), declared, "{method} {path}");
        }
    }

    #[test]
    fn administration_declares_its_key_and_how_it_refuses() {
        let document = parsed();
        let scheme = &document["components"]["securitySchemes"]["admin_key"];
        assert_eq!((&scheme["type"], &scheme["scheme"]), (&"http".into(), &"bearer".into()));
        for (method, path, operation) in operations(&document) {
            let admin = !Answers::Public.answers(&path);
            assert_eq!(operation.get("security").is_some(), admin, "{method} {path}");
            let refused = ["401", "403"].map(|status| operation["responses"].get(status).is_some());
            assert!(!admin || refused == [true, true], "{method} {path}");
        }
    }

    #[test]
    fn errors_have_the_form_that_their_path_answers() {
        let document = parsed();
        for (method, path, operation) in operations(&document) {
            let expected = if path.starts_with("/v2") { "KserveError" } else { "Error" };
            for (status, response) in operation["responses"].as_object().unwrap() {
                let schema = &response["content"]["application/json"]["schema"]["$ref"];
                let is_error = schema.as_str().is_some_and(|name| name.ends_with("Error"));
                if status.starts_with(['4', '5']) && is_error {
                    assert_eq!(schema, &format!("#/components/schemas/{expected}"), "{method} {path}: {status}");
                }
            }
        }
    }
}
