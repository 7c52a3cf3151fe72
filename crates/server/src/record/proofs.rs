//! What a consultation can prove.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_record::proof::SignedHead;
use caudal_types::Stage;
use serde_json::json;

use super::{note, parse, record};
use crate::{
    app::App,
    docs::schemas,
    http::{
        Path,
        door::{self, Answer, Visitor},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// Most bytes of a head.
const LARGEST: u64 = 16 << 10;

/// Verifies a consultation: reads it again, recomputes every hash, and returns the first bad event or the signed head.
///
/// With a head that was stored elsewhere as the body, truncation and rewriting since then are detected too.
#[utoipa::path(
    post,
    path = "/consultations/{id}/verify",
    operation_id = "verify_consultation",
    tag = "consultations",
    params(("id" = String, Path, description = "the id of the consultation")),
    request_body(content = Option<schemas::SignedHead>, content_type = "application/json", description = "a head that was kept elsewhere, or nothing"),
    responses((status = 200, body = schemas::Verdict), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn verify(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::Verify, request, true, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let record = record(&app)?;
        let received = super::json(&app, &visitor, request, LARGEST).await?;
        let hint = "send what GET /consultations/{id}/head answered, or nothing";
        let known: Option<SignedHead> = match received.bytes.is_empty() {
            true => None,
            false => Some(parse(&received, "the body is no head", hint)?),
        };
        let verdict = record.verify(&id, known.as_ref()).await?;
        let details = json!({"valid": verdict.valid, "events": verdict.events});
        note(&record, &visitor, "VERIFIED", Some(&id), details).await?;
        visitor.call.trace.enter(Stage::Encode);
        Ok(Answer::json(&verdict))
    })
    .await
}

/// Returns the signed head of a consultation, to be stored elsewhere.
#[utoipa::path(
    get,
    path = "/consultations/{id}/head",
    operation_id = "get_consultation_head",
    tag = "consultations",
    params(("id" = String, Path, description = "the id of the consultation")),
    responses((status = 200, body = schemas::SignedHead), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn head(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::Head, request, true, async |app: Arc<App>, _: Visitor, _: Request| {
        let record = record(&app)?;
        let head = record.head(&id).await?;
        let key = record.public_key()?;
        let mut answer = serde_json::to_value(&head).unwrap_or_default();
        if let Some((_, key)) = key {
            answer["public_key"] = key.into();
        }
        Ok::<_, Problem>(Answer::json(&answer))
    })
    .await
}

/// Returns the receipt of an event: a proof that it is in the consultation, verified by `caudal record verify-receipt`.
#[utoipa::path(
    get,
    path = "/consultations/{id}/events/{event}/receipt",
    operation_id = "get_receipt",
    tag = "consultations",
    params(("id" = String, Path, description = "the id of the consultation"), ("event" = String, Path, description = "its id, or its sequence")),
    responses((status = 200, body = schemas::Receipt), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn receipt(
    State(app): State<Arc<App>>,
    Path((id, which)): Path<(String, String)>,
    request: Request,
) -> Response {
    door::keep(app, Route::Receipt, request, true, async |app: Arc<App>, visitor: Visitor, _: Request| {
        let record = record(&app)?;
        let receipt = record.receipt(&id, &which).await?;
        note(&record, &visitor, "RECEIPT_MADE", Some(&id), json!({"event_id": receipt.event.event_id})).await?;
        visitor.call.trace.enter(Stage::Encode);
        Ok::<_, Problem>(Answer::json(&receipt))
    })
    .await
}
