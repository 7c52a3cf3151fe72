//! A pipeline is run: waited for, or begun and told where to look.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Uri},
    response::Response,
};
use caudal_flow::{Going, Limits, Map, RunOptions, Value};
use caudal_types::Stage;
use serde::Deserialize;

use super::{
    accepted,
    aside::{self, Waited, stamps},
    came_to, pipelines,
};
use crate::{
    admin::Parameters,
    app::App,
    docs::schemas,
    http::{
        Path,
        body::{self, BodyLimits},
        door::{self, Answer, Visitor},
    },
    json::without_bom,
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// Most seconds that a run may be given.
const LONGEST: f64 = 86_400.0 * 30.0;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Order {
    input: Value,
    #[serde(deserialize_with = "crate::json::null_is_absent")]
    context: Map,
    run_id: Option<Arc<str>>,
    timeout_s: Option<f64>,
    durable: Option<bool>,
    #[serde(deserialize_with = "crate::json::null_is_absent")]
    limits: Asked,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    total_cost_usd_limit: Option<f64>,
    total_tokens_limit: Option<u64>,
    total_steps_limit: Option<u64>,
}

impl Order {
    fn options(&self) -> Result<RunOptions, Problem> {
        let wrong = |what: &str, hint: &'static str| Problem::parameter(format!("{what} cannot be that"), hint);
        let seconds = |seconds: f64| match seconds > 0.0 && seconds <= LONGEST {
            true => Ok(Duration::from_secs_f64(seconds)),
            false => Err(wrong("timeout_s", "send seconds, more than 0 and at most 30 days")),
        };
        let cost = |dollars: f64| match (0.0..1e9).contains(&dollars) {
            true => Ok((dollars * 1e6) as u64),
            false => Err(wrong("total_cost_usd_limit", "send US dollars, 0 or more")),
        };
        let limits = Limits {
            cost: self.limits.total_cost_usd_limit.map(cost).transpose()?,
            tokens: self.limits.total_tokens_limit,
            steps: self.limits.total_steps_limit,
        };
        let timeout = self.timeout_s.map(seconds).transpose()?;
        Ok(RunOptions {
            id: self.run_id.clone(),
            context: self.context.clone(),
            limits,
            timeout,
            durable: self.durable,
            source: None,
        })
    }
}

/// Whether the caller waits: by `wait`, or by `Prefer: respond-async` (RFC 7240).
pub(super) fn waits(uri: &Uri, headers: &HeaderMap) -> Result<bool, Problem> {
    let parameters = Parameters::of(uri, &["wait"])?;
    let prefers = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let later =
        prefers.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("respond-async"));
    match parameters.text("wait") {
        None => Ok(!later),
        Some(_) => parameters.flag("wait", true),
    }
}

/// The body as JSON; nothing is an empty object.
pub(super) async fn order<T: for<'a> Deserialize<'a> + Default>(
    app: &App,
    visitor: &Visitor,
    request: Request,
    hint: &'static str,
) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let received = body::read_json(&parts.headers, body, &BodyLimits::of(app, &visitor.call.trace)).await?;
    if received.bytes.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice::<Option<T>>(without_bom(&received.bytes))
        .map(Option::unwrap_or_default)
        .map_err(|error| Problem::parameter(format!("the body is not understood: {error}"), hint))
}

/// Waits for a run, or says where it can be looked at.
pub(super) async fn answer(app: &Arc<App>, visitor: &Visitor, going: Going, waits: bool) -> Result<Answer, Problem> {
    if !waits {
        let answer = accepted(&going.id);
        aside::tell(app, going, visitor.context.clone());
        return Ok(answer);
    }
    let began = going.handle.log().start().saturating_duration_since(visitor.call.trace.start());
    let (outcome, report) = Waited::new(app, going, visitor.context.clone()).end().await?;
    visitor.call.trace.set_pipeline_steps(stamps(&report, began));
    visitor.call.trace.enter(Stage::Encode);
    came_to(outcome, &report)
}

/// Runs a pipeline.
///
/// The response is the run's report: 200 when it completed, 202 when it waits for an answer. A run that is not durable
/// is cancelled when its caller disconnects.
#[utoipa::path(
    post,
    path = "/api/v1/pipelines/{name}/run",
    operation_id = "run_pipeline",
    tag = "pipelines",
    params(
        ("name" = String, Path, description = "the pipeline's name"),
        ("wait" = Option<bool>, Query, description = "false: 202 at once, with a Location; the same as Prefer: respond-async"),
    ),
    request_body = Option<schemas::RunRequest>,
    responses((status = 200, body = schemas::RunReport), (status = 202, body = schemas::RunPending), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn run(State(app): State<Arc<App>>, Path(name): Path<String>, request: Request) -> Response {
    door::keep(app, Route::PipelineRun, request, false, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let definition = pipelines::find(&app, &name)?;
        let waits = waits(request.uri(), request.headers())?;
        let order: Order = order(
            &app,
            &visitor,
            request,
            "send {\"input\": …}, and if you like context, run_id, timeout_s, durable, limits",
        )
        .await?;
        let options = order.options()?;
        let going = app.flows.begin(&definition, order.input, options).await?;
        answer(&app, &visitor, going, waits).await
    })
    .await
}
