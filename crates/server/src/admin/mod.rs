//! Admin routes: what may be seen and changed while the server serves. `access` lets only holders of the credential in.

pub(crate) mod explain;
pub(crate) mod memory;
pub(crate) mod models;
pub(crate) mod operators;
mod parameters;
pub(crate) mod profiling;
pub(crate) mod requests;

use std::sync::Arc;

use axum::{extract::Request, response::Response};
use bytes::Bytes;
use caudal_types::Trace;

pub(crate) use self::parameters::Parameters;
use crate::{
    app::App,
    http::{
        body::{self, BodyLimits},
        door::{self, Answer},
    },
    problem::Problem,
    route::Route,
};

/// Bytes of a body that asks for little.
const MAX_BODY: u64 = 64 << 10;

/// Answers a question whose parameters are `known`.
pub(crate) fn ask(
    app: &Arc<App>,
    route: Route,
    request: &Request,
    known: &[&'static str],
    answer: impl FnOnce(&Arc<App>, &Parameters) -> Result<Answer, Problem>,
) -> Response {
    door::ask(app, route, request, |app| answer(app, &Parameters::of(request.uri(), known)?))
}

/// Reads the body of an admin request.
pub(crate) async fn read(app: &App, trace: &Trace, request: Request) -> Result<Bytes, Problem> {
    let (head, body) = request.into_parts();
    Ok(body::read_json(&head.headers, body, &BodyLimits::new(app, trace, MAX_BODY)).await?.bytes.clone())
}
