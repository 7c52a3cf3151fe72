//! For whoever administers the server: who that is, and what may be changed while it serves.

pub(crate) mod memory;
pub(crate) mod models;
pub(crate) mod operators;
pub(crate) mod owner;
mod parameters;
pub(crate) mod profiling;
pub(crate) mod requests;

use axum::extract::Request;
use bytes::Bytes;

pub(crate) use self::parameters::Parameters;
use crate::{
    app::App,
    http::body::{self, BodyLimits},
    problem::Problem,
};

/// Bytes of a body that asks for little.
const MAX_BODY: u64 = 64 << 10;

/// Lets only the owner in, and reads what he says.
pub(crate) async fn read(app: &App, request: Request) -> Result<Bytes, Problem> {
    owner::check(app, request.headers(), request.extensions())?;
    let (head, body) = request.into_parts();
    let limits = BodyLimits { bytes: MAX_BODY, memory: &app.bodies, pause: app.settings().body_timeout };
    Ok(body::read(&head.headers, body, &limits).await?.bytes.clone())
}
