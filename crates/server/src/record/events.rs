//! Events read.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_record::{Consultations, RecordError, event::EventView, stream_of};
use caudal_store::{Range, Record};
use serde::Serialize;
use serde_json::json;

use super::{
    listing::{self, Part},
    note, record,
};
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

/// Most events of one answer.
const MOST: u32 = 1_000;

#[derive(Serialize)]
struct Events<'a> {
    consultation_id: &'a str,
    /// All of the consultation's.
    event_count: u64,
    returned_count: usize,
    offset: u64,
    events: Vec<EventView>,
}

/// Events of a consultation, in order.
#[utoipa::path(
    get,
    path = "/consultations/{id}/events",
    operation_id = "list_events",
    tag = "consultations",
    params(
        ("id" = String, Path, description = "the id of the consultation"),
        ("limit" = Option<u32>, Query, description = "at most so many; default 100", minimum = 1, maximum = 1000),
        ("offset" = Option<u64>, Query, description = "events that are left out before the first"),
        ("after" = Option<u64>, Query, description = "only events after this sequence"),
        ("type" = Option<String>, Query, description = "only events of this type"),
    ),
    responses((status = 200, body = schemas::EventPage), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn list(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::EventList, request, false, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let record = record(&app)?;
        let parameters = Parameters::of(request.uri(), &["limit", "offset", "after", "type"])?;
        let Part { limit, offset } = Part::of(&parameters, 100, MOST)?;
        let after = listing::after(&parameters, 0)?;
        let event_count = record.find(&id).await?.stream.head.sequence;
        let range = Range { kind: parameters.text("type").map(Into::into), ..Range::after(after, limit) };
        let events = skip(&record, &id, range, offset).await?;
        let details = json!({"after": after, "offset": offset, "returned": events.len()});
        note(&record, &visitor, "EVENTS_READ", Some(&id), details).await?;
        let stream = stream_of(&id);
        let shown: Vec<_> = events.iter().map(|found| EventView::of(&stream, found)).collect();
        Ok(Answer::json(&Events {
            consultation_id: &id,
            event_count,
            returned_count: shown.len(),
            offset,
            events: shown,
        }))
    })
    .await
}

/// Reads a range but for the first `offset` of its events.
async fn skip(record: &Consultations, id: &str, range: Range, offset: u64) -> Result<Vec<Record>, RecordError> {
    // Without a filter, the places are the numbers.
    if range.kind.is_none() {
        return record.events(id, Range { after: range.after.saturating_add(offset), ..range }).await;
    }
    let (mut after, mut left) = (range.after, offset);
    while left > 0 {
        let some = left.min(u64::from(MOST)) as u32;
        let passed = record.events(id, Range { after, limit: some, ..range.clone() }).await?;
        let Some(last) = passed.last() else { return Ok(Vec::new()) };
        (after, left) = (last.sequence, left - passed.len() as u64);
    }
    record.events(id, Range { after, ..range }).await
}

/// One event, by its id or by its sequence.
#[utoipa::path(
    get,
    path = "/consultations/{id}/events/{event}",
    operation_id = "get_event",
    tag = "consultations",
    params(("id" = String, Path, description = "the id of the consultation"), ("event" = String, Path, description = "its id, or its sequence")),
    responses((status = 200, body = schemas::Event), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path((id, which)): Path<(String, String)>,
    request: Request,
) -> Response {
    door::keep(app, Route::Event, request, false, async |app: Arc<App>, visitor: Visitor, _: Request| {
        let record = record(&app)?;
        let found = record.event(&id, &which).await?;
        note(&record, &visitor, "EVENT_READ", Some(&id), json!({"event_id": found.id})).await?;
        Ok::<_, Problem>(Answer::json(&EventView::of(&stream_of(&id), &found)))
    })
    .await
}
