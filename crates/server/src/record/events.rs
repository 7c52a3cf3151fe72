//! Events read.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use caudal_record::{Consultations, RecordError, event::EventView, stream_of};
use caudal_store::{Range, Record};
use caudal_types::Stage;
use futures_util::{StreamExt, stream};
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
        door::{self, Answer, JSON, Visitor},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// Most events of one answer.
const MOST: u32 = 1_000;

/// Bytes of events that are in memory at a time for one answer.
const PIECE: usize = 256 << 10;

#[derive(Serialize)]
struct Events<'a> {
    consultation_id: &'a str,
    /// All of the consultation's.
    event_count: u64,
    returned_count: usize,
    offset: u64,
    events: Vec<EventView>,
}

/// Lists the events of a consultation in order.
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
        let kind = parameters.text("type").map(Into::into);
        let mut details = json!({"after": after, "offset": offset, "limit": limit});
        let range = Range { bytes: PIECE, kind, ..Range::after(after, limit) };
        let mut reader = EventReader::start(record.clone(), id.clone(), range, offset, event_count).await?;
        let first = reader.read_piece().await?;
        let shown = |events: &[Record]| events.iter().map(|found| EventView::of(&stream_of(&id), found)).collect();
        if !reader.is_done() {
            note(&record, &visitor, "EVENTS_READ", Some(&id), details).await?;
            let head = json!({"consultation_id": id, "event_count": event_count, "offset": offset});
            return Ok::<_, Problem>(Answer::flowing(JSON, Body::from_stream(reader.into_json(&head, shown(&first)))));
        }
        details["returned"] = first.len().into();
        note(&record, &visitor, "EVENTS_READ", Some(&id), details).await?;
        visitor.call.trace.enter(Stage::Encode);
        Ok(Answer::json(&Events {
            consultation_id: &id,
            event_count,
            returned_count: first.len(),
            offset,
            events: shown(&first),
        }))
    })
    .await
}

/// Reads a range of events piece by piece, so that a long list takes little memory however slowly its client reads it.
struct EventReader {
    record: Consultations,
    id: String,
    /// Where the next piece begins, and how many events are left to read.
    range: Range,
    /// The sequence of the last event when reading began; what is appended later is not read.
    last: u64,
}

impl EventReader {
    /// A reader of `range` but for the first `offset` of its events.
    async fn start(
        record: Consultations,
        id: String,
        mut range: Range,
        mut offset: u64,
        last: u64,
    ) -> Result<Self, RecordError> {
        // Without a filter, the places are the numbers.
        if range.kind.is_none() {
            range.after = range.after.saturating_add(offset);
            offset = 0;
        }
        while offset > 0 && range.after < last {
            let some = offset.min(u64::from(MOST)) as u32;
            let passed = record.events(&id, Range { limit: some, ..range.clone() }).await?;
            range.after = passed.last().map_or(last, |event| event.sequence);
            offset -= passed.len() as u64;
        }
        Ok(Self { record, id, range, last })
    }

    fn is_done(&self) -> bool {
        self.range.limit == 0 || self.range.after >= self.last
    }

    async fn read_piece(&mut self) -> Result<Vec<Record>, RecordError> {
        if self.is_done() {
            return Ok(Vec::new());
        }
        let mut events = self.record.events(&self.id, self.range.clone()).await?;
        events.retain(|event| event.sequence <= self.last);
        self.range.after = events.last().map_or(self.last, |event| event.sequence);
        self.range.limit -= events.len() as u32;
        Ok(events)
    }

    /// The members of `head`, `first` and the events that follow it as one JSON object. A read that fails cuts the answer
    /// short, which clients notice by its missing end.
    fn into_json(
        self,
        head: &serde_json::Value,
        first: Vec<EventView>,
    ) -> impl futures_util::Stream<Item = Result<Bytes, RecordError>> + use<> {
        let mut out = head.to_string().into_bytes();
        out.pop();
        out.extend_from_slice(br#","events":["#);
        let mut written = 0;
        write_events(&mut out, &first, &mut written);
        let rest = stream::try_unfold((Some(self), written), async |(reader, mut written)| {
            let Some(mut reader) = reader else { return Ok(None) };
            let (mut out, stream) = (Vec::new(), stream_of(&reader.id));
            let events: Vec<_> = reader.read_piece().await?.iter().map(|event| EventView::of(&stream, event)).collect();
            write_events(&mut out, &events, &mut written);
            let done = reader.is_done();
            if done {
                out.extend_from_slice(format!(r#"],"returned_count":{written}}}"#).as_bytes());
            }
            Ok(Some((Bytes::from(out), ((!done).then_some(reader), written))))
        });
        stream::once(async { Ok(Bytes::from(out)) }).chain(rest)
    }
}

/// Appends `events` to a JSON list that holds `written` already.
fn write_events(out: &mut Vec<u8>, events: &[EventView], written: &mut usize) {
    for event in events {
        if *written > 0 {
            out.push(b',');
        }
        // Plain data, written to memory.
        let _ = serde_json::to_writer(&mut *out, event);
        *written += 1;
    }
}

/// Shows one event by its id or sequence.
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
        visitor.call.trace.enter(Stage::Encode);
        Ok::<_, Problem>(Answer::json(&EventView::of(&stream_of(&id), &found)))
    })
    .await
}
