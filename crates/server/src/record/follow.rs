//! A consultation followed live: server-sent events (HTML Living Standard, 9.2).

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use caudal_record::{Consultations, RecordError, event::EventView, stream_of};
use caudal_store::Range;
use futures_util::stream;
use serde_json::json;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{listing, note, record};
use crate::{
    admin::Parameters,
    app::App,
    http::{
        Path,
        door::{self, Answer, EVENT_STREAM, Visitor},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// Bytes of events that are sent in one piece: followers hold no memory of a budget, so each holds little.
const PIECE: usize = 64 << 10;
/// Events that are sent in one piece.
const SOME: u32 = 100;
/// How often a follower looks whether the server shuts down.
const SHUTDOWN_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a follower hears nothing at most.
const SILENCE: Duration = Duration::from_secs(15);

/// Streams the events of a consultation (SSE): recorded ones, then each new one.
#[utoipa::path(
    get,
    path = "/consultations/{id}/events/stream",
    operation_id = "follow_events",
    tag = "consultations",
    params(
        ("id" = String, Path, description = "the id of the consultation"),
        ("after" = Option<u64>, Query, description = "only events after this sequence; default: all"),
        ("Last-Event-ID" = Option<u64>, Header, description = "the same, as browsers send it when they come back"),
    ),
    responses((status = 200, body = String, content_type = "text/event-stream", description = "server-sent events: id is the sequence, event the type, data the event as JSON"), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn follow(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::EventFollow, request, false, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let record = record(&app)?;
        let parameters = Parameters::of(request.uri(), &["after"])?;
        let last = request.headers().get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
        let after = listing::after(&parameters, last.unwrap_or(0))?;
        record.find(&id).await?;
        note(&record, &visitor, "EVENTS_FOLLOWED", Some(&id), json!({"after": after})).await?;
        let told = record.follow(&id);
        let follower = Follower { app, record, id, after, told, spoke: Instant::now() };
        let events = stream::unfold(follower, |mut follower| async {
            let said = follower.next().await?;
            Some((said, follower))
        });
        Ok::<_, Problem>(Answer::flowing(EVENT_STREAM, Body::from_stream(events)))
    })
    .await
}

struct Follower {
    app: Arc<App>,
    record: Consultations,
    id: String,
    after: u64,
    told: watch::Receiver<u64>,
    spoke: Instant,
}

impl Follower {
    /// What is to be said next; nothing once the server goes down. An error cuts the connection: whoever follows comes back
    /// with the last id that it heard.
    async fn next(&mut self) -> Option<Result<Bytes, RecordError>> {
        loop {
            if self.app.is_draining() {
                return None;
            }
            // Marked before reading: what is appended after that wakes us.
            self.told.borrow_and_update();
            let events =
                match self.record.events(&self.id, Range { bytes: PIECE, ..Range::after(self.after, SOME) }).await {
                    Ok(events) => events,
                    Err(error) => return Some(Err(error)),
                };
            if let Some(last) = events.last() {
                self.after = last.sequence;
                self.spoke = Instant::now();
                let (stream, mut out) = (stream_of(&self.id), Vec::new());
                for found in &events {
                    let head = format!("id: {}\nevent: {}\ndata: ", found.sequence, found.kind);
                    out.extend_from_slice(head.as_bytes());
                    // Plain data, written to memory.
                    let _ = serde_json::to_writer(&mut out, &EventView::of(&stream, found));
                    out.extend_from_slice(b"\n\n");
                }
                return Some(Ok(out.into()));
            }
            if self.spoke.elapsed() >= SILENCE {
                self.spoke = Instant::now();
                return Some(Ok(Bytes::from_static(b": still here\n\n")));
            }
            self.wait().await;
        }
    }

    /// Waits until events were appended, the follower should hear that it is still connected, or the server shuts down.
    /// The store reports appends of other processes too, so nothing is read meanwhile.
    async fn wait(&mut self) {
        while !self.app.is_draining() && self.spoke.elapsed() < SILENCE {
            if timeout(SHUTDOWN_CHECK_INTERVAL, self.told.changed()).await.is_ok() {
                return;
            }
        }
    }
}
