//! Events streamed in: one a line, any number of them, in little memory.
//!
//! What has come is handed to the store in groups while more comes. Few groups are on their way at a time; while they
//! are, nothing is read, and the sender waits: that is the back-pressure.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use bytes::{Buf, Bytes, BytesMut};
use caudal_record::{Consultations, Ingest, RecordError};
use caudal_store::{Appended, NewRecord};
use caudal_types::{ErrorKind, Stage, Trace};
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream, FuturesOrdered},
};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::{append, record};
use crate::{
    admin::Parameters,
    app::App,
    docs::schemas,
    http::{
        Path, body,
        door::{self, Answer, Visitor},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

const NDJSON: &str = "application/x-ndjson";
const FORM: &str = "multipart/form-data";

/// Events of a group, and about its bytes.
const GROUP: usize = 512;
const GROUP_BYTES: usize = 512 << 10;
/// Groups that are on their way to the disk.
const GROUPS: usize = 8;

/// Bytes a second that an upload must bring on average once it is older than its longest pause: a byte now and then would
/// hold a slot for ever. An event every ten seconds brings more.
const MIN_BYTES_PER_SECOND: f64 = 10.0;

/// Streams events in: an event a line (NDJSON), or the same as a file of a form. Those before a bad line are kept.
///
/// The answer comes at the end. Whoever accepts `application/x-ndjson` is told on the way how far it is: a line
/// `{"acknowledged": events, "last_sequence": n}` when more is on disk, and the answer as the last line. Lines that
/// nobody reads are not heaped up.
#[utoipa::path(
    post,
    path = "/consultations/{id}/events/stream",
    operation_id = "stream_events",
    tag = "consultations",
    params(
        ("id" = String, Path, description = "the id of the consultation"),
        ("expected_version" = Option<u64>, Query, description = "the sequence at which the consultation must stand"),
    ),
    request_body(content = String, content_type = "application/x-ndjson", description = "one event a line, each as POST …/events takes it"),
    responses((status = 201, body = schemas::StreamedEvents), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn stream(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::EventStream, request, true, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let record = record(&app)?;
        let parameters = Parameters::of(request.uri(), &["expected_version"])?;
        let expected = match parameters.text("expected_version") {
            Some(_) => Some(parameters.number("expected_version", 0, 0, i64::MAX as u64)?),
            None => None,
        };
        let (head, body) = request.into_parts();
        if head.headers.contains_key("idempotency-key") {
            return Err(Problem::parameter(
                "a stream takes no Idempotency-Key",
                "give each event an event_id, or say expected_version: then what was recorded is not recorded again",
            ));
        }
        visitor.call.trace.enter(Stage::Receive);
        let chunks = chunks(&head.headers, body).await?;
        {
            let _finding = visitor.call.trace.during(Stage::Store);
            record.find(&id).await?;
        }
        let wants_acknowledgements = head.headers.get(header::ACCEPT).is_some_and(|accept| accept == NDJSON);
        let (told, acknowledged) = watch::channel(Progress::default());
        let settings = app.settings();
        let intake = Intake {
            trace: visitor.call.trace.clone(),
            chunks,
            ingest: super::ingest(&app),
            groups: Groups { record, id: id.clone(), expected, on_their_way: FuturesOrdered::new(), told },
            rest: BytesMut::new(),
            line: 0,
            group: Vec::new(),
            group_bytes: 0,
            began: Instant::now(),
            received: 0,
            pause: settings.body_timeout,
            largest: usize::try_from(settings.record.max_event).unwrap_or(usize::MAX),
        };
        drop(settings);
        if !wants_acknowledgements {
            let done = intake.run().await?;
            visitor.call.trace.enter(Stage::Encode);
            return Ok(Answer::json(&ended(&id, done)).status(StatusCode::CREATED));
        }
        let (end, ended) = oneshot::channel();
        tokio::spawn(async move {
            let _ = end.send(intake.run().await);
        });
        Ok(Answer::flowing(NDJSON, Body::from_stream(acknowledgements(id, acknowledged, ended))))
    })
    .await
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Progress {
    /// Its events that are on disk.
    events: u64,
    /// The sequence of the last of these.
    last: u64,
}

fn ended(id: &str, done: Progress) -> Value {
    json!({"consultation_id": id, "appended": done.events, "last_sequence": done.last, "event_count": done.last})
}

/// Lines that tell how far it is, and one that tells how it ended.
fn acknowledgements(
    id: String,
    acknowledged: watch::Receiver<Progress>,
    ended: oneshot::Receiver<Result<Progress, Problem>>,
) -> impl futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    let line = |value: &Value| Ok(Bytes::from(format!("{value}\n")));
    stream::unfold(Some((acknowledged, ended)), move |state| {
        let id = id.clone();
        async move {
            let (mut acknowledged, mut ended) = state?;
            tokio::select! {
                Ok(()) = acknowledged.changed() => {
                    let Progress { events, last } = *acknowledged.borrow_and_update();
                    let told = json!({"acknowledged": events, "last_sequence": last});
                    Some((line(&told), Some((acknowledged, ended))))
                }
                done = &mut ended => {
                    let done = done.unwrap_or_else(|_| {
                        Err(Problem::new(ErrorKind::Internal, "the stream broke off", "send what was not acknowledged again"))
                    });
                    let value = match done {
                        Ok(done) => self::ended(&id, done),
                        Err(problem) => json!({"error": problem.body(None)}),
                    };
                    Some((line(&value), None))
                }
            }
        }
    })
}

type Chunks = BoxStream<'static, Result<Bytes, Problem>>;

/// The body's bytes as they come: all of them, or those of the file in a form.
async fn chunks(headers: &HeaderMap, body: Body) -> Result<Chunks, Problem> {
    let known = [NDJSON, "application/ndjson", "application/jsonl", "application/octet-stream", FORM];
    let content_type = super::content_type(headers, &known)?;
    let bytes = body.into_data_stream();
    if content_type != FORM {
        return Ok(bytes.map_err(|error| body::broken(&error)).boxed());
    }
    let said = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wrong = |error: multer::Error| {
        Problem::new(
            ErrorKind::InvalidRequest,
            format!("the form cannot be read: {error}"),
            "send the whole form, with its boundary in Content-Type, and the events as its file",
        )
    };
    let boundary = multer::parse_boundary(said).map_err(wrong)?;
    let mut form = multer::Multipart::new(bytes, boundary);
    let none = || Problem::new(ErrorKind::MissingFile, "the form has no file", "send the events as its file");
    let file = loop {
        let field = form.next_field().await.map_err(wrong)?.ok_or_else(none)?;
        if field.file_name().is_some() || matches!(field.name(), Some("file" | "events")) {
            break field;
        }
    };
    // The form must be whole: what stands behind the file is its end.
    let rest = stream::once(async move {
        match form.next_field().await {
            Ok(_) => Ok(Bytes::new()),
            Err(error) => Err(wrong(error)),
        }
    });
    Ok(file.map_err(wrong).chain(rest).boxed())
}

/// A stream on its way in.
struct Intake {
    trace: Trace,
    chunks: Chunks,
    ingest: Ingest,
    groups: Groups,
    /// The beginning of a line whose end has not come.
    rest: BytesMut,
    /// Lines so far.
    line: u64,
    group: Vec<NewRecord>,
    group_bytes: usize,
    began: Instant,
    received: u64,
    pause: Duration,
    largest: usize,
}

impl Intake {
    /// Takes all in. Whatever goes wrong, what came before it is kept.
    async fn run(mut self) -> Result<Progress, Problem> {
        let outcome = self.take_in().await;
        self.trace.enter(Stage::Persist);
        let kept = match self.hand_over() {
            Ok(()) => self.groups.finish().await,
            Err(problem) => Err(problem),
        };
        let progress = self.groups.progress();
        let problem = match (outcome, kept) {
            (Ok(()), Ok(())) => return Ok(progress),
            (_, Err(problem)) | (Err(problem), Ok(())) => problem,
        };
        let Progress { events, last } = progress;
        let message = format!("{}; {events} events before it are kept", problem.message);
        let mut details = problem.details.clone().unwrap_or_else(|| json!({}));
        details["appended"] = events.into();
        details["last_sequence"] = last.into();
        Err(Problem { message, ..problem.details(details) })
    }

    async fn take_in(&mut self) -> Result<(), Problem> {
        loop {
            self.trace.enter(if self.groups.are_many() { Stage::Persist } else { Stage::Receive });
            if self.groups.are_many() {
                self.groups.settle().await?;
                continue;
            }
            tokio::select! {
                biased;
                chunk = self.chunks.next() => {
                    let Some(chunk) = chunk else { break };
                    self.trace.enter(Stage::Ingest);
                    let chunk = chunk?;
                    self.check_rate(chunk.len())?;
                    self.chunk(chunk)?;
                }
                // Nothing has come meanwhile: what is there need not wait for more.
                () = std::future::ready(()), if !self.group.is_empty() => self.hand_over()?,
                settled = self.groups.settle(), if !self.groups.is_empty() => settled?,
                () = tokio::time::sleep(self.pause) => return Err(body::paused(self.pause)),
            }
        }
        let rest = std::mem::take(&mut self.rest);
        self.one_line(&rest)
    }

    fn check_rate(&mut self, more: usize) -> Result<(), Problem> {
        self.received += more as u64;
        let age = self.began.elapsed();
        if age > self.pause && (self.received as f64) < MIN_BYTES_PER_SECOND * age.as_secs_f64() {
            return Err(Problem::new(
                ErrorKind::BodyTimeout,
                format!("the upload is too slow: {} bytes in {} s", self.received, age.as_secs()),
                format!("send at least {MIN_BYTES_PER_SECOND} bytes a second on average, or each event as a request"),
            ));
        }
        Ok(())
    }

    fn chunk(&mut self, mut chunk: Bytes) -> Result<(), Problem> {
        while let Some(end) = memchr::memchr(b'\n', &chunk) {
            if self.rest.is_empty() {
                self.one_line(&chunk[..end])?;
            } else {
                self.keep_rest(&chunk[..end])?;
                let whole = std::mem::take(&mut self.rest);
                self.one_line(&whole)?;
                self.rest = whole;
                self.rest.clear();
            }
            chunk.advance(end + 1);
        }
        self.keep_rest(&chunk)
    }

    fn keep_rest(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        if self.rest.len() + bytes.len() > self.largest {
            self.line += 1;
            return Err(self.wrong(append::too_large(self.largest as u64)));
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    fn one_line(&mut self, line: &[u8]) -> Result<(), Problem> {
        let line = line.trim_ascii();
        // The last line has no end, or nothing behind it.
        self.line += 1;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() > self.largest {
            return Err(self.wrong(append::too_large(self.largest as u64)));
        }
        let ingested = match self.ingest.event(line, None) {
            Ok(ingested) => ingested,
            Err(error) => return Err(self.wrong(error.into())),
        };
        if let Some(expected) = ingested.expected {
            self.hand_over()?;
            self.groups.expected = Some(expected);
        }
        self.group_bytes += append::weight(&ingested.record);
        self.group.push(ingested.record);
        match self.group.len() >= GROUP || self.group_bytes >= GROUP_BYTES {
            true => self.hand_over(),
            false => Ok(()),
        }
    }

    fn wrong(&self, problem: Problem) -> Problem {
        let message = format!("line {}: {}", self.line, problem.message);
        Problem { message, ..problem.details(json!({"line": self.line})) }
    }

    fn hand_over(&mut self) -> Result<(), Problem> {
        if !self.group.is_empty() {
            self.group_bytes = 0;
            let room = Vec::with_capacity(GROUP);
            self.groups.hand_over(std::mem::replace(&mut self.group, room));
        }
        Ok(())
    }
}

type OnItsWay = Pin<Box<dyn Future<Output = (u64, Result<Appended, RecordError>)> + Send>>;

/// Groups on their way to the disk, in order.
struct Groups {
    record: Consultations,
    id: String,
    expected: Option<u64>,
    on_their_way: FuturesOrdered<OnItsWay>,
    told: watch::Sender<Progress>,
}

impl Groups {
    fn is_empty(&self) -> bool {
        self.on_their_way.is_empty()
    }

    fn are_many(&self) -> bool {
        self.on_their_way.len() >= GROUPS
    }

    fn progress(&self) -> Progress {
        *self.told.borrow()
    }

    fn hand_over(&mut self, group: Vec<NewRecord>) {
        let events = group.len() as u64;
        let appended = self.record.append(&self.id, group, self.expected.take(), None);
        self.on_their_way.push_back(Box::pin(async move { (events, appended.await) }));
    }

    /// Waits for the oldest group.
    async fn settle(&mut self) -> Result<(), Problem> {
        let Some((events, outcome)) = self.on_their_way.next().await else { return Ok(()) };
        let last = outcome?.last;
        self.told.send_modify(|progress| *progress = Progress { events: progress.events + events, last });
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Problem> {
        while !self.is_empty() {
            self.settle().await?;
        }
        Ok(())
    }
}
