//! Consultations: made, listed, looked at.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use caudal_record::{Consultation, NewConsultation, hash::Hex, soap::SoapView, time::iso};
use caudal_store::Order;
use caudal_types::ErrorKind;
use serde::Serialize;
use serde_json::json;

use super::{note, record};
use crate::{
    admin::Parameters,
    app::App,
    http::{
        Path,
        door::{self, Answer, Visitor},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// Most consultations of one answer.
const MOST: u32 = 500;
/// Most bytes of what is said of a new one.
const LARGEST: u64 = 64 << 10;

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct Made {
    consultation_id: String,
    session_id: String,
    created_at: String,
    /// Whether it had been made before, by the same request under the same Idempotency-Key.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
}

/// Makes a consultation.
#[utoipa::path(
    post,
    path = "/consultations",
    tag = "consultations",
    params(("Idempotency-Key" = Option<String>, Header, description = "the same request under the same key makes one consultation")),
    request_body(content = serde_json::Value, content_type = "application/json", description = "{user_id, patient_stub?, consultation_id?, session_id?}"),
    responses((status = 201, body = Made), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn make(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(app, Route::ConsultationMake, request, false, async |app: Arc<App>, _: Visitor, request: Request| {
        let record = record(&app)?;
        let (head, body) = request.into_parts();
        let key = super::idempotency_key(&head.headers)?;
        let received = super::json(&app, &head.headers, body, LARGEST).await?;
        if received.bytes.is_empty() {
            return Err(Problem::new(ErrorKind::EmptyBody, "the body is empty", "send {\"user_id\": \"…\"}"));
        }
        let new: NewConsultation<'_> = serde_json::from_slice(&received.bytes).map_err(|error| {
            Problem::new(
                ErrorKind::InvalidParameter,
                format!("the body makes no consultation: {error}"),
                "send {\"user_id\": \"…\"}, and if you like patient_stub, an object, consultation_id and session_id",
            )
        })?;
        let Consultation { stream, about, repeated } = record.make(&new, key.as_deref()).await?;
        let made = Made {
            consultation_id: stream.id.name.into(),
            session_id: about.session_id,
            created_at: iso(stream.created),
            repeated,
        };
        Ok(Answer::json(&made).status(StatusCode::CREATED))
    })
    .await
}

/// Lists consultations.
#[utoipa::path(
    get,
    path = "/consultations",
    tag = "consultations",
    params(
        ("limit" = Option<u32>, Query, description = "1 to 500; default 50"),
        ("offset" = Option<u64>, Query),
        ("sort" = Option<String>, Query, description = "recent (default), oldest, events_desc or events_asc"),
    ),
    responses((status = 200, body = serde_json::Value), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(
        app,
        Route::ConsultationList,
        request,
        false,
        async |app: Arc<App>, visitor: Visitor, request: Request| {
            let record = record(&app)?;
            let parameters = Parameters::of(request.uri(), &["limit", "offset", "sort"])?;
            let limit = parameters.number("limit", 50, 1, MOST)?;
            let offset = parameters.number("offset", 0, 0, u64::from(u32::MAX))?;
            let page = record.list(sort(&parameters)?, limit, offset).await?;
            note(&record, (visitor.peer, &visitor.id, request.headers()), "CONSULTATIONS_LISTED", None, json!(null))
                .await?;
            let each = page.streams.iter().map(|stream| {
                json!({
                    "consultation_id": stream.id.name,
                    "created_at": iso(stream.created),
                    "updated_at": iso(stream.head.time),
                    "event_count": stream.head.sequence,
                })
            });
            Ok(Answer::json(&json!({
                "total": page.total,
                "offset": offset,
                "returned_count": page.streams.len(),
                "consultations": each.collect::<Vec<_>>(),
            })))
        },
    )
    .await
}

/// The order that is asked for, by system A's names.
pub(super) fn sort(parameters: &Parameters) -> Result<Order, Problem> {
    Ok(match parameters.word("sort", &["recent", "oldest", "events_desc", "events_asc"])? {
        "oldest" => Order::Oldest,
        "events_desc" => Order::Longest,
        "events_asc" => Order::Shortest,
        _ => Order::Newest,
    })
}

/// Shows a consultation: where it stands, by all its events.
#[utoipa::path(
    get,
    path = "/consultations/{id}",
    tag = "consultations",
    params(("id" = String, Path)),
    responses((status = 200, body = serde_json::Value), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::Consultation, request, false, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let record = record(&app)?;
        let who = (visitor.peer, &visitor.id, request.headers());
        let (noted, told) =
            tokio::join!(note(&record, who, "CONSULTATION_READ", Some(&id), json!(null)), record.state(&id));
        let (Consultation { stream, about, .. }, state) = told?;
        noted?;
        Ok(Answer::json(&json!({"consultation": {
            "consultation_id": stream.id.name,
            "about": about,
            "created_at": iso(stream.created),
            "updated_at": iso(stream.head.time),
            "event_count": stream.head.sequence,
            "chain_hash": Hex(stream.head.chain),
            "state": state,
        }})))
    })
    .await
}

/// The SOAP note of a consultation, as its events make it.
#[utoipa::path(
    get,
    path = "/consultations/{id}/soap",
    tag = "consultations",
    params(("id" = String, Path)),
    responses((status = 200, body = serde_json::Value), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn soap(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::Soap, request, false, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let record = record(&app)?;
        let who = (visitor.peer, &visitor.id, request.headers());
        let (noted, told) = tokio::join!(note(&record, who, "SOAP_READ", Some(&id), json!(null)), record.state(&id));
        let (_, state) = told?;
        noted?;
        Ok(Answer::json(&SoapView::of(&state)))
    })
    .await
}
