//! The latest requests and the slowest: where their time went, and with whom they shared a run.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_sight::{RequestQuery, RequestView, arrival_trace, chrome_trace};
use caudal_types::{ErrorKind, shorten};
use serde::Serialize;

use super::Parameters;
use crate::{
    app::App,
    docs::schemas,
    http::{Path, door::Answer},
    problem::{ErrorAnswer, Problem},
    route::Route,
};

const KNOWN: [&str; 6] = ["sort", "route", "model", "status", "limit", "format"];
/// More are not kept.
const MOST: usize = 100_000;

fn query(parameters: &Parameters, limit: usize) -> Result<RequestQuery, Problem> {
    let status = parameters.text("status").map(|text| text.trim_end_matches("xx").parse::<u16>().ok());
    Ok(RequestQuery {
        route: parameters.route()?.map(|route| route.title().to_owned()),
        model: parameters.text("model").map(str::to_owned),
        status: match status {
            None => None,
            Some(Some(status)) if (1..=5).contains(&status) || (100..600).contains(&status) => Some(status),
            Some(_) => return Err(Problem::parameter("status is no status", "it is one such as 200, 503 or 5xx")),
        },
        slowest: parameters.word("sort", &["latest", "slowest"])? == "slowest",
        limit: parameters.number("limit", limit, 1, MOST)?,
    })
}

#[derive(Serialize)]
struct Requests {
    requests: Vec<RequestView>,
}

#[derive(Serialize)]
struct Found {
    #[serde(flatten)]
    record: RequestView,
    /// Those that were part of the same run, as far as they are kept.
    shared_with: Vec<RequestView>,
}

/// Lists the latest requests of each route, or the slowest of the last five to ten minutes: model, outcome, time of
/// each stage, and the run that they shared. Payloads are never recorded.
#[utoipa::path(
    get,
    path = "/admin/requests",
    operation_id = "list_requests",
    tag = "admin",
    params(
        ("sort" = inline(Option<schemas::RequestOrder>), Query, description = "the order; default latest"),
        ("route" = Option<String>, Query, description = "such as /predict/{model}"),
        ("model" = Option<String>, Query, description = "only requests of this model"),
        ("status" = Option<String>, Query, description = "such as 200 or 5xx"),
        ("limit" = Option<usize>, Query, description = "at most so many; default 50", minimum = 1, maximum = 100000),
    ),
    responses((status = 200, body = schemas::RequestList), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    super::ask(&app, Route::AdminRequests, &request, &KNOWN[..5], |app, parameters| {
        let query = query(parameters, 50)?;
        Ok(Answer::json(&Requests { requests: app.recorder.list_requests(&query) }))
    })
}

/// Shows one request by its `X-Request-ID`, and the requests that shared its run.
#[utoipa::path(
    get,
    path = "/admin/requests/{id}",
    operation_id = "get_request",
    tag = "admin",
    params(("id" = String, Path, description = "the id of the request, as in X-Request-ID")),
    responses((status = 200, body = schemas::RequestFound), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    super::ask(&app, Route::AdminRequest, &request, &[], |app, _| {
        let (record, shared_with) = app.recorder.find_request(&id).ok_or_else(|| {
            Problem::new(
                ErrorKind::NotFound,
                format!("no request {:?} is remembered", shorten(&id)),
                "only the latest and the slowest are; GET /admin/requests lists them",
            )
        })?;
        Ok(Answer::json(&Found { record, shared_with }))
    })
}

/// Exports requests as a timeline: `chrome` for Perfetto (ui.perfetto.dev), `chrome://tracing` and Speedscope, each
/// request with its stages; `arrivals` for replaying the same load, one JSON object per line.
#[utoipa::path(
    get,
    path = "/admin/requests/trace",
    operation_id = "export_requests",
    tag = "admin",
    params(
        ("format" = inline(Option<schemas::TraceFormat>), Query, description = "`chrome` (default) or `arrivals`"),
        ("sort" = inline(Option<schemas::RequestOrder>), Query, description = "the order; default latest"),
        ("route" = Option<String>, Query, description = "such as /predict/{model}"),
        ("model" = Option<String>, Query, description = "only requests of this model"),
        ("status" = Option<String>, Query, description = "such as 200 or 5xx"),
        ("limit" = Option<usize>, Query, description = "at most so many; default: all that are kept", minimum = 1, maximum = 100000),
    ),
    responses((status = 200, content((schemas::ChromeTrace = "application/json"), (String = "application/x-ndjson"))), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn trace(State(app): State<Arc<App>>, request: Request) -> Response {
    super::ask(&app, Route::AdminTimeline, &request, &KNOWN, |app, parameters| {
        let records = app.recorder.list_requests(&query(parameters, MOST)?);
        Ok(match parameters.word("format", &["chrome", "arrivals"])? {
            "arrivals" => Answer::new("application/x-ndjson", arrival_trace(&records)),
            _ => Answer::json(&chrome_trace(&records)),
        })
    })
}
