//! The pipelines that there are.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_flow::{Allowance, Check, Definition, Severity};
use caudal_types::ErrorKind;
use serde_json::{Value, json};

use crate::{
    admin::Parameters,
    app::App,
    docs::schemas,
    http::{
        Path,
        door::{self, Answer, Visitor},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

fn schema(check: Option<&Arc<dyn Check>>) -> Value {
    check.map_or(Value::Null, |check| Value::from(&check.identity()))
}

fn about(definition: &Definition) -> Value {
    let Definition { name, description, durable, takes, gives, limits, steps, .. } = definition;
    json!({
        "name": name,
        "description": description,
        "version": definition.version(),
        "durable": durable,
        "steps": steps.iter().map(|step| json!({"name": step.name, "kind": step.kind.name()})).collect::<Vec<_>>(),
        "input_schema": schema(takes.as_ref()),
        "output_schema": schema(gives.as_ref()),
        "limits": limits,
        "all_runs": definition.all_runs.as_deref().map(together),
        "run": format!("/api/v1/pipelines/{name}/run"),
    })
}

/// What all of its runs may spend, and have spent.
fn together(all: &Allowance) -> Value {
    let [cost, tokens, steps] = all.spent();
    json!({
        "limits": all.limits(),
        "each_s": all.each().map(|each| each.as_secs()),
        "spent": {"cost": cost, "tokens": tokens, "steps": steps},
    })
}

pub(super) fn find(app: &App, name: &str) -> Result<Definition, Problem> {
    if let Some(findings) = app.flows.broken().get(name)
        && let Some(first) = findings.iter().find(|finding| finding.severity == Severity::Error)
    {
        let message = format!("{name} is no pipeline: line {}: {}", first.line, first.message);
        let hint = "mend the file and start the server again; caudal flow validate tells how";
        return Err(Problem::new(ErrorKind::InvalidPipeline, message, hint).details(json!({"findings": findings})));
    }
    app.flows.pipeline(name).filter(|_| !name.contains('#')).ok_or_else(|| {
        let names: Vec<&str> = app.flows.pipelines().map(|definition| &*definition.name).collect();
        let hint = match caudal_types::nearest(name, names.iter().copied()) {
            Some(near) => format!("there is {near}; GET /api/v1/pipelines lists all"),
            None => "GET /api/v1/pipelines lists all; put its file into the folder that --pipelines names, and start the server \
                     again: files are read at its start"
                .to_owned(),
        };
        Problem::new(ErrorKind::NotFound, format!("there is no pipeline {}", caudal_types::shorten(name)), hint)
    })
}

/// Lists the pipelines.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines",
    operation_id = "list_pipelines",
    tag = "pipelines",
    responses((status = 200, body = schemas::PipelineList), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(app, Route::PipelineList, request, false, async |app: Arc<App>, _: Visitor, request: Request| {
        Parameters::of(request.uri(), &[])?;
        let pipelines: Vec<Value> = app.flows.pipelines().map(about).collect();
        let invalid: Vec<Value> =
            app.flows.broken().iter().map(|(file, findings)| json!({"file": file, "findings": findings})).collect();
        Ok(Answer::json(&json!({"total": pipelines.len(), "pipelines": pipelines, "invalid": invalid})))
    })
    .await
}

/// Shows a pipeline.
#[utoipa::path(
    get,
    path = "/api/v1/pipelines/{name}",
    operation_id = "get_pipeline",
    tag = "pipelines",
    params(("name" = String, Path, description = "the pipeline's name")),
    responses((status = 200, body = schemas::Pipeline), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(name): Path<String>, request: Request) -> Response {
    door::keep(app, Route::Pipeline, request, false, async |app: Arc<App>, _: Visitor, request: Request| {
        Parameters::of(request.uri(), &[])?;
        Ok(Answer::json(&about(&find(&app, &name)?)))
    })
    .await
}
