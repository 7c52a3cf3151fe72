//! Consultations: made, listed, looked at.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use caudal_record::{
    Consultation, NewConsultation,
    hash::Hex,
    original_created_at,
    soap::SoapView,
    state::{Raw, State as ConsultationState},
    time::iso,
    with_original_time,
};
use caudal_types::{ErrorKind, Stage};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    listing::{self, Part},
    parse, record, write_note,
};
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

/// Creates a consultation.
#[utoipa::path(
    post,
    path = "/consultations",
    operation_id = "create_consultation",
    tag = "consultations",
    params(("Idempotency-Key" = Option<String>, Header, description = "the same request under the same key makes one consultation")),
    request_body = schemas::NewConsultation,
    responses((status = 201, body = Made), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn make(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(
        app,
        Route::ConsultationMake,
        request,
        false,
        async |app: Arc<App>, visitor: Visitor, request: Request| {
            let record = record(&app)?;
            let key = super::idempotency_key(request.headers())?;
            let received = super::json(&app, &visitor, request, LARGEST).await?;
            if received.bytes.is_empty() {
                return Err(Problem::new(ErrorKind::EmptyBody, "the body is empty", "send {\"user_id\": \"…\"}"));
            }
            let hint =
                "send {\"user_id\": \"…\"}, and if you like patient_stub, an object, consultation_id and session_id";
            let new: NewConsultation<'_> = parse(&received, "the body makes no consultation", hint)?;
            visitor.call.trace.enter(Stage::Persist);
            let Consultation { stream, about, repeated } = record.make(&new, key.as_deref()).await?;
            visitor.call.trace.enter(Stage::Encode);
            let made = Made {
                consultation_id: stream.id.name.into(),
                session_id: about.session_id,
                created_at: iso(stream.created),
                repeated,
            };
            Ok(Answer::json(&made).status(StatusCode::CREATED))
        },
    )
    .await
}

/// Lists consultations.
#[utoipa::path(
    get,
    path = "/consultations",
    operation_id = "list_consultations",
    tag = "consultations",
    params(
        ("limit" = Option<u32>, Query, description = "at most so many; default 50", minimum = 1, maximum = 500),
        ("offset" = Option<u64>, Query, description = "consultations to leave out before the first"),
        ("sort" = inline(Option<schemas::ConsultationOrder>), Query, description = "the order; default recent"),
    ),
    responses((status = 200, body = schemas::ConsultationPage), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(
        app,
        Route::ConsultationList,
        request,
        false,
        async |app: Arc<App>, visitor: Visitor, request: Request| {
            let (page, Part { offset, .. }) =
                listing::consultations(&app, &visitor, request.uri(), "CONSULTATIONS_LISTED").await?;
            visitor.call.trace.enter(Stage::Encode);
            let each = page.streams.iter().map(|stream| {
                let listed = json!({
                    "consultation_id": stream.id.name,
                    "created_at": iso(stream.created),
                    "updated_at": iso(stream.head.time),
                    "event_count": stream.head.sequence,
                });
                with_original_time(listed, stream)
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

/// A consultation as it is shown. No tree is made of it: numbers keep the digits that were sent.
#[derive(Serialize)]
struct Shown<'a> {
    consultation: Details<'a>,
}

#[derive(Serialize)]
struct Details<'a> {
    consultation_id: &'a str,
    about: Raw,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_created_at: Option<String>,
    updated_at: String,
    event_count: u64,
    chain_hash: String,
    state: &'a ConsultationState,
}

impl<'a> Details<'a> {
    fn of(consultation: &'a Consultation, state: &'a ConsultationState) -> Self {
        let stream = &consultation.stream;
        Self {
            consultation_id: &stream.id.name,
            about: consultation.about_as_written(),
            created_at: iso(stream.created),
            original_created_at: original_created_at(stream).map(iso),
            updated_at: iso(stream.head.time),
            event_count: stream.head.sequence,
            chain_hash: Hex(stream.head.chain).to_string(),
            state,
        }
    }
}

/// Shows the state of a consultation, computed from all its events.
#[utoipa::path(
    get,
    path = "/consultations/{id}",
    operation_id = "get_consultation",
    tag = "consultations",
    params(("id" = String, Path, description = "the id of the consultation")),
    responses((status = 200, body = schemas::ConsultationAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::Consultation, request, false, async |app: Arc<App>, visitor: Visitor, _: Request| {
        let (consultation, state) = stands(&app, &visitor, &id, "CONSULTATION_READ").await?;
        visitor.call.trace.enter(Stage::Encode);
        Ok(Answer::json(&Shown { consultation: Details::of(&consultation, &state) }))
    })
    .await
}

/// Shows the SOAP note of a consultation, computed from its events.
#[utoipa::path(
    get,
    path = "/consultations/{id}/soap",
    operation_id = "get_soap_note",
    tag = "consultations",
    params(("id" = String, Path, description = "the id of the consultation")),
    responses((status = 200, body = schemas::SoapAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn soap(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::Soap, request, false, async |app: Arc<App>, visitor: Visitor, _: Request| {
        let (_, state) = stands(&app, &visitor, &id, "SOAP_READ").await?;
        visitor.call.trace.enter(Stage::Encode);
        Ok::<_, Problem>(Answer::json(&SoapView::of(&state)))
    })
    .await
}

/// Where a consultation stands, once it is noted as `operation` that somebody asks.
async fn stands(
    app: &App,
    visitor: &Visitor,
    id: &str,
    operation: &'static str,
) -> Result<(Consultation, ConsultationState), Problem> {
    let record = record(app)?;
    let trace = &visitor.call.trace;
    // Both run concurrently: the time counts as reading first, then as writing the note if that is not done by then.
    let reading = async {
        let told = record.state(id).await;
        trace.enter(Stage::Persist);
        told
    };
    let noting = write_note(&record, visitor, operation, Some(id), Value::Null);
    let (noted, told) = tokio::join!(noting, reading);
    let told = told?;
    noted?;
    Ok(told)
}
