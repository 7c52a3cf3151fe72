//! Events appended: one, or several at once.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use caudal_record::{Consultations, Ingested, RecordError, canonical::whole_number, hash::Hex, time::iso};
use caudal_store::{Appended, NewRecord, Range};
use caudal_types::{ErrorKind, Stage};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};

use super::{SMALL, record};
use crate::{
    app::App,
    docs::schemas,
    http::{
        Path, aside, body,
        door::{self, Answer, Visitor},
    },
    json::without_bom,
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// Most events of one batch.
const MOST: usize = 10_000;
/// How many events of the largest size a batch may weigh.
const BATCH_WEIGHS: u64 = 16;

#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct One {
    event_id: String,
    consultation_id: String,
    /// Its place, from 1.
    sequence: u64,
    /// Events of the consultation once it was there.
    event_count: u64,
    timestamp: String,
    /// SHA-256 of the payload in its canonical form.
    audit_hash: String,
    /// SHA-256 over the whole event and the one before.
    chain_hash: String,
    /// Whether it had been appended before, by the same request under the same Idempotency-Key or with the same event_id.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
}

/// The status of an answer to events that were appended, or had been before with the same ids. A request that is sent
/// again under its Idempotency-Key is answered as the first time.
fn created(repeated: bool, key: Option<&str>) -> StatusCode {
    if repeated && key.is_none() { StatusCode::OK } else { StatusCode::CREATED }
}

/// Why events were not recorded; of an id that is in use, with where it stands.
pub(super) fn refusal(error: RecordError) -> Problem {
    let RecordError::IdInUse(in_use) = &error else { return error.into() };
    let mut details = json!({"event_id": in_use.id});
    if let Some(sequence) = in_use.sequence() {
        details["sequence"] = sequence.into();
    }
    Problem::from(error).details(details)
}

/// Appends an event. A 201 means that it is on disk. An event that was recorded before under the same event_id with the
/// same content is answered 200 with its sequence.
#[utoipa::path(
    post,
    path = "/consultations/{id}/events",
    operation_id = "append_event",
    tag = "consultations",
    params(
        ("id" = String, Path, description = "the id of the consultation"),
        ("Idempotency-Key" = Option<String>, Header, description = "the same request under the same key is done once"),
    ),
    request_body = schemas::NewEvent,
    responses((status = 200, body = One), (status = 201, body = One), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn one(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::EventAppend, request, false, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let record = record(&app)?;
        let key = super::idempotency_key(request.headers())?;
        let received = super::json(&app, &visitor, request, app.settings().record.max_event).await?;
        let (mut ingest, trace) = (super::ingest(&app), visitor.call.trace.clone());
        let small = received.bytes.len() <= SMALL;
        let read = move || ingest.event(&received.bytes, Some(&trace));
        let Ingested { record: event, expected } = aside(&app, small, &visitor.call, Stage::Ingest, read).await??;
        let (event_id, digest) = (event.id, event.digest);
        visitor.call.trace.enter(Stage::Persist);
        let appended = record.append_once(&id, vec![event], expected, key.as_deref()).await.map_err(refusal)?;
        visitor.call.trace.enter(if appended.repeated { Stage::Store } else { Stage::Encode });
        let one = |event_id: uuid::Uuid, time, digest, chain| One {
            event_id: event_id.to_string(),
            consultation_id: id.clone(),
            sequence: appended.last,
            event_count: appended.last,
            timestamp: iso(time),
            audit_hash: Hex(digest).to_string(),
            chain_hash: Hex(chain).to_string(),
            repeated: appended.repeated,
        };
        let one = match appended.repeated {
            false => one(event_id, appended.time, digest, appended.chain),
            true => {
                let before = record.event(&id, &appended.last.to_string()).await?;
                one(before.id, before.time, before.digest, before.chain)
            }
        };
        visitor.call.trace.enter(Stage::Encode);
        Ok(Answer::json(&one).status(created(appended.repeated, key.as_deref())))
    })
    .await
}

/// Several events in one request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    expected_version: Option<&'a RawValue>,
}

impl Batch<'_> {
    fn expected_version(&self) -> Result<Option<u64>, Problem> {
        let Some(written) = self.expected_version else { return Ok(None) };
        let wrong = || {
            let hint = "send the sequence of the last event that you know of, or leave it out";
            Problem::parameter("expected_version must be a whole number from 0 on", hint)
        };
        whole_number(written.get()).map(Some).ok_or_else(wrong)
    }
}

/// Appends several events in order: all of them, or none. If all were recorded before under the same ids with the same
/// content, the response is 200.
#[utoipa::path(
    post,
    path = "/consultations/{id}/events/batch",
    operation_id = "append_events",
    tag = "consultations",
    params(
        ("id" = String, Path, description = "the id of the consultation"),
        ("Idempotency-Key" = Option<String>, Header, description = "the same request under the same key is done once"),
    ),
    request_body = schemas::NewEvents,
    responses((status = 200, body = schemas::AppendedEvents), (status = 201, body = schemas::AppendedEvents), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn batch(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::EventBatch, request, false, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let record = record(&app)?;
        let key = super::idempotency_key(request.headers())?;
        let largest = app.settings().record.max_event;
        let received = super::json(&app, &visitor, request, largest.saturating_mul(BATCH_WEIGHS)).await?;
        let (mut ingest, small) = (super::ingest(&app), received.bytes.len() <= SMALL);
        let read = move || {
            let batch: Batch<'_> = serde_json::from_slice(without_bom(&received.bytes)).map_err(|error| {
                Problem::new(
                    ErrorKind::InvalidJson,
                    format!("the body is no batch of events: {error}"),
                    "send {\"events\": [{\"event_type\": …, \"payload\": {…}}, …]}",
                )
            })?;
            if batch.events.len() > MOST {
                let message = format!("{} events are more than the {MOST} of a batch", batch.events.len());
                return Err(Problem::new(ErrorKind::TooManyParts, message, "POST …/events/stream takes any number"));
            }
            let mut expected = batch.expected_version()?;
            let mut records = Vec::with_capacity(batch.events.len());
            for (number, event) in batch.events.iter().enumerate() {
                let wrong = |problem: Problem| {
                    let message = format!("event {number} of the batch: {}; none was recorded", problem.message);
                    Problem { message, ..problem.details(json!({"event": number})) }
                };
                if event.get().len() as u64 > largest {
                    return Err(wrong(too_large(largest)));
                }
                let ingested = ingest.event(event.get().as_bytes(), None).map_err(|error| wrong(error.into()))?;
                if number == 0 {
                    expected = expected.or(ingested.expected);
                }
                records.push(ingested.record);
            }
            Ok((records, expected))
        };
        let (records, expected) = aside(&app, small, &visitor.call, Stage::Ingest, read).await??;
        let sent: Vec<_> = records.iter().map(|record| (record.id, record.digest)).collect();
        visitor.call.trace.enter(Stage::Persist);
        let appended = record.append_once(&id, records, expected, key.as_deref()).await;
        let appended = appended.map_err(refusal_of_batch)?;
        visitor.call.trace.enter(if appended.repeated { Stage::Store } else { Stage::Encode });
        let (events, time) = match appended.repeated {
            false => (sent, appended.time),
            true => before(&record, &id, &appended).await?,
        };
        visitor.call.trace.enter(Stage::Encode);
        let events = events.iter().zip(appended.first..).map(|((event_id, digest), sequence)| {
            json!({"event_id": event_id, "sequence": sequence, "audit_hash": Hex(*digest)})
        });
        let mut answer = json!({
            "consultation_id": id,
            "event_count": appended.last,
            "first_sequence": appended.first,
            "last_sequence": appended.last,
            "timestamp": iso(time),
            "events": events.collect::<Vec<_>>(),
        });
        if appended.repeated {
            answer["repeated"] = true.into();
        }
        Ok(Answer::json(&answer).status(created(appended.repeated, key.as_deref())))
    })
    .await
}

/// Why no event of a batch was recorded; of an id that is in use, with the number of the event that has it.
fn refusal_of_batch(error: RecordError) -> Problem {
    let RecordError::IdInUse(in_use) = &error else { return error.into() };
    let index = in_use.index;
    let problem = refusal(error);
    let mut details = problem.details.clone().unwrap_or_default();
    details["event"] = index.into();
    let message = format!("event {index} of the batch: {}; none was recorded", problem.message);
    Problem { message, ..problem.details(details) }
}

/// The ids and digests of events that were appended before, and when that was.
async fn before(
    record: &Consultations,
    name: &str,
    appended: &Appended,
) -> Result<(Vec<(uuid::Uuid, [u8; 32])>, i64), Problem> {
    let (mut events, mut time, mut after) = (Vec::new(), 0, appended.first - 1);
    while after < appended.last {
        let wanted = u32::try_from(appended.last - after).unwrap_or(u32::MAX);
        for found in record.events(name, Range::after(after, wanted)).await? {
            (after, time) = (found.sequence, found.time);
            events.push((found.id, found.digest));
        }
    }
    Ok((events, time))
}

pub(super) fn too_large(limit: u64) -> Problem {
    Problem::new(
        ErrorKind::BodyTooLarge,
        format!("the event is larger than the {} allowed", body::in_words(limit)),
        "send less in one event, or raise record_max_event_kb",
    )
}

/// Bytes that a record takes while it waits.
pub(super) fn weight(record: &NewRecord) -> usize {
    record.body.len() + record.meta.len()
}
