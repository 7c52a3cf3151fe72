//! What happened in consultations: written, read, followed.

pub(crate) mod append;
pub(crate) mod audit;
pub(crate) mod consultations;
pub(crate) mod events;
pub(crate) mod exports;
pub(crate) mod follow;
mod listing;
pub(crate) mod proofs;
pub(crate) mod stream;
pub(crate) mod timeline;

use axum::{
    extract::Request,
    http::{HeaderMap, header, request::Parts},
};
use caudal_record::{Access, Consultations, Ingest};
use caudal_types::{ErrorKind, Stage, shorten};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    app::App,
    http::{
        body::{self, BodyLimits, Received},
        door::Visitor,
    },
    json::without_bom,
    problem::Problem,
};

/// Bytes of a body that are parsed on the thread that talks to the socket.
const SMALL: usize = 32 << 10;
/// Most bytes of an idempotency key.
const LONGEST_KEY: usize = 255;

/// What is recorded, if anything is.
fn record(app: &App) -> Result<Consultations, Problem> {
    app.record.clone().ok_or_else(|| {
        Problem::new(
            ErrorKind::RecordOff,
            "this server keeps no records",
            "start it with --data-dir DIR, the folder in which they are kept",
        )
    })
}

/// Takes note of who reads what. It is on disk before anything is told: the time of that is the stage `persist`.
async fn note(
    record: &Consultations,
    visitor: &Visitor,
    operation: &'static str,
    consultation: Option<&str>,
    details: Value,
) -> Result<(), Problem> {
    let _persisting = visitor.call.trace.during(Stage::Persist);
    write_note(record, visitor, operation, consultation, details).await
}

async fn write_note(
    record: &Consultations,
    visitor: &Visitor,
    operation: &'static str,
    consultation: Option<&str>,
    details: Value,
) -> Result<(), Problem> {
    let access = Access {
        operation,
        consultation_id: consultation.map(|id| shorten(id).into_owned()),
        user: visitor.user.clone(),
        from: visitor.peer.map(|peer| peer.0.ip().to_string()),
        request_id: visitor.id.as_str().to_owned(),
        details,
    };
    Ok(record.note(access).await?)
}

/// What makes events of bodies.
fn ingest(app: &App) -> Ingest {
    Ingest::new("caudal", &app.settings().record.timezone)
}

/// A body of JSON that holds at most `bytes`.
async fn json(app: &App, visitor: &Visitor, request: Request, bytes: u64) -> Result<Received, Problem> {
    let (Parts { headers, .. }, body) = request.into_parts();
    content_type(&headers, &["application/json"])?;
    body::read(&headers, body, &BodyLimits::new(app, &visitor.call.trace, bytes)).await.map_err(|problem| match problem
        .kind
    {
        ErrorKind::BodyTooLarge => Problem::new(
            ErrorKind::BodyTooLarge,
            format!("the body is larger than the {} allowed", body::in_words(bytes)),
            "send less at once, or raise record_max_event_kb",
        ),
        _ => problem,
    })
}

/// What a body of JSON says: `fault` where it does not, such as "the body is no head", and `hint` is what to send.
fn parse<'a, T: Deserialize<'a>>(received: &'a Received, fault: &str, hint: &'static str) -> Result<T, Problem> {
    serde_json::from_slice(without_bom(&received.bytes))
        .map_err(|error| Problem::parameter(format!("{fault}: {error}"), hint))
}

/// The type of a body, which is one of `known`; the first where none is said.
fn content_type<'a>(headers: &HeaderMap, known: &[&'a str]) -> Result<&'a str, Problem> {
    let Some(said) = headers.get(header::CONTENT_TYPE) else { return Ok(known[0]) };
    let said = said.to_str().unwrap_or_default();
    let name = said.split(';').next().unwrap_or_default().trim();
    known.iter().find(|known| known.eq_ignore_ascii_case(name)).copied().ok_or_else(|| {
        Problem::new(
            ErrorKind::UnsupportedMediaType,
            format!("a body of type {:?} is not read here", shorten(name)),
            format!("send {}", known.join(" or ")),
        )
    })
}

/// The key under which the same request is done once.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim_matches('"');
    match key.is_empty() || key.len() > LONGEST_KEY {
        true => Err(Problem::parameter(
            format!("the Idempotency-Key has {} bytes", value.len()),
            format!("send 1 to {LONGEST_KEY} visible ASCII characters, such as a UUID"),
        )),
        false => Ok(Some(key.to_owned())),
    }
}
