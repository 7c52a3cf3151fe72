//! The timeline: sessions, their events with badges, hashes compared. By Free Intelligence's names.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_record::{
    Consultations, SPACE, stream_of,
    time::iso,
    timeline::{ComparedHash, ExpectedHash, TimelineItem, check_count, compare, sum_up},
    with_original_time,
};
use caudal_store::{Digest, Order, Range};
use caudal_types::{Explain, Stage};
use serde::Deserialize;
use serde_json::json;

use super::{
    listing::{self, Part},
    note, parse, record,
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
const MOST: u32 = 500;
/// Most bytes of hashes to compare.
const LARGEST: u64 = 64 << 10;

/// Lists sessions with their number of events.
#[utoipa::path(
    get,
    path = "/api/timeline/sessions",
    operation_id = "list_sessions",
    tag = "consultations",
    params(
        ("limit" = Option<u32>, Query, description = "at most so many; default 50", minimum = 1, maximum = 500),
        ("offset" = Option<u64>, Query, description = "sessions to leave out before the first"),
        ("sort" = inline(Option<schemas::ConsultationOrder>), Query, description = "the order; default recent"),
    ),
    responses((status = 200, body = schemas::SessionPage), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn sessions(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(
        app,
        Route::TimelineSessions,
        request,
        false,
        async |app: Arc<App>, visitor: Visitor, request: Request| {
            let (page, Part { limit, offset }) =
                listing::consultations(&app, &visitor, request.uri(), "TIMELINE_LISTED").await?;
            visitor.call.trace.enter(Stage::Encode);
            let sessions = page.streams.iter().map(|stream| {
                let listed = json!({
                    "session_id": stream.id.name,
                    "created_at": iso(stream.created),
                    "updated_at": iso(stream.head.time),
                    "event_count": stream.head.sequence,
                    "archived_events": stream.sealed,
                });
                with_original_time(listed, stream)
            });
            let sessions: Vec<_> = sessions.collect();
            Ok(Answer::json(&json!({"total": page.total, "offset": offset, "limit": limit, "sessions": sessions})))
        },
    )
    .await
}

/// Shows a session with its events, each with four badges. A badge is `OK` only for what this response verified.
#[utoipa::path(
    get,
    path = "/api/timeline/sessions/{id}",
    operation_id = "get_session",
    tag = "consultations",
    params(
        ("id" = String, Path, description = "the id of the consultation"),
        ("limit" = Option<u32>, Query, description = "at most so many; default 100", minimum = 1, maximum = 500),
        ("after" = Option<u64>, Query, description = "only events after this sequence"),
    ),
    responses((status = 200, body = schemas::SessionAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn session(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(
        app,
        Route::TimelineSession,
        request,
        false,
        async |app: Arc<App>, visitor: Visitor, request: Request| {
            let record = record(&app)?;
            let parameters = Parameters::of(request.uri(), &["limit", "after"])?;
            let limit = parameters.number("limit", 100, 1, MOST)?;
            let after = listing::after(&parameters, 0)?;
            let stream = record.find(&id).await?.stream;
            let mut before = link_before(&record, &id, after, stream.origin()).await?;
            let found = record.events(&id, Range::after(after, limit)).await?;
            let mut items = Vec::with_capacity(found.len());
            for event in &found {
                items.push(TimelineItem::of(&stream.id, event, before.as_ref(), Some(&stream.head)));
                before = Some(event.chain);
            }
            note(&record, &visitor, "TIMELINE_READ", Some(&id), json!({"after": after, "returned": items.len()}))
                .await?;
            visitor.call.trace.enter(Stage::Encode);
            Ok(Answer::json(&json!({
                "session_id": id,
                "created_at": iso(stream.created),
                "updated_at": iso(stream.head.time),
                "event_count": stream.head.sequence,
                "returned_count": items.len(),
                "events": items,
            })))
        },
    )
    .await
}

/// The link of the event at `place`, or the chain's origin.
async fn link_before(record: &Consultations, id: &str, place: u64, origin: Digest) -> Result<Option<Digest>, Problem> {
    let Some(before) = place.checked_sub(1) else { return Ok(Some(origin)) };
    Ok(record.events(id, Range::after(before, 1)).await?.first().map(|event| event.chain))
}

/// Counts sessions and events.
#[utoipa::path(
    get,
    path = "/api/timeline/stats",
    operation_id = "get_timeline_stats",
    tag = "consultations",
    responses((status = 200, body = schemas::TimelineStats), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn stats(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(app, Route::TimelineStats, request, false, async |app: Arc<App>, _: Visitor, _: Request| {
        let record = record(&app)?;
        let longest = record.list(Order::Longest, 1, 0).await?;
        let newest = record.list(Order::Newest, 1, 0).await?;
        let figures = record.store().figures();
        Ok::<_, Problem>(Answer::json(&json!({
            "sessions": longest.total,
            "longest_session": longest.streams.first().map(|stream| stream.head.sequence),
            "last_session_at": newest.streams.first().map(|stream| iso(stream.created)),
            "events_since_start": figures.space(SPACE).appended,
            "store": figures.engine,
        })))
    })
    .await
}

/// Hashes to compare.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Items {
    items: Vec<ExpectedHash>,
}

/// Compares expected hashes with the recorded ones: audit hashes of events, last links of consultations.
#[utoipa::path(
    post,
    path = "/api/timeline/verify-hash",
    operation_id = "verify_hashes",
    tag = "consultations",
    request_body = schemas::ExpectedHashes,
    responses((status = 200, body = schemas::ComparedHashes), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn verify_hash(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(app, Route::VerifyHash, request, false, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let (record, began) = (record(&app)?, Instant::now());
        let received = super::json(&app, &visitor, request, LARGEST).await?;
        let hint = "send {\"items\": [{\"target_id\": …, \"expected_hash\": …}, …]}";
        let Items { items } = parse(&received, "the body holds no hashes", hint)?;
        check_count(items.len()).map_err(|error| Problem::new(error.kind(), error.to_string(), error.hint()))?;
        let mut compared = Vec::with_capacity(items.len());
        for item in items {
            compared.push(one(&record, item).await?);
        }
        visitor.call.trace.enter(Stage::Encode);
        let mut answer = serde_json::to_value(sum_up(compared)).unwrap_or_default();
        answer["duration_ms"] = (began.elapsed().as_secs_f64() * 1e3).into();
        Ok(Answer::json(&answer))
    })
    .await
}

async fn one(record: &Consultations, item: ExpectedHash) -> Result<ComparedHash, Problem> {
    // What is given back was checked against its hashes already; what is damaged does not match.
    let computed = match uuid::Uuid::try_parse(&item.target_id) {
        Ok(id) => match record.store().find(id).await.map_err(caudal_record::RecordError::from)? {
            Some((stream, sequence)) if stream == stream_of(&stream.name) => {
                record.event(&stream.name, &sequence.to_string()).await.ok().map(|event| event.digest)
            }
            _ => None,
        },
        Err(_) => None,
    };
    let computed = match computed {
        Some(digest) => Some(digest),
        None => record.find(&item.target_id).await.ok().map(|found| found.stream.head.chain),
    };
    Ok(compare(item, computed))
}
