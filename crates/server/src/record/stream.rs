//! Events streamed in: one a line, any number of them, in little memory.
//!
//! What has come is handed to the store in groups, one after the other: a group is recorded only if the one before it was.
//! While one is on its way the next gathers; once that is full, nothing is read, and the sender waits: that is the
//! back-pressure.

use std::{
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
use caudal_record::{Consultations, Ingest, RecordError, Written};
use caudal_store::{NewRecord, StoreError};
use caudal_types::{ErrorKind, Stage, Trace};
use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
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
    json::without_bom,
    problem::{ErrorAnswer, Problem},
    route::Route,
};

const NDJSON: &str = "application/x-ndjson";
const FORM: &str = "multipart/form-data";

/// Events of a group, and about its bytes.
const GROUP: usize = 2_048;
const GROUP_BYTES: usize = 2 << 20;
/// After each so many events a group follows the one before it, if that is recorded by then.
const HAND_OVER_EVERY: usize = 256;

/// Bytes a second that an upload must bring on average once it is older than its longest pause: a byte now and then would
/// hold a slot for ever. An event every ten seconds brings more.
const MIN_BYTES_PER_SECOND: f64 = 10.0;

/// Appends a stream of events: one event per line (NDJSON), or the same as the file of a form. Events before a bad line
/// are recorded.
///
/// The response comes at the end. A client that accepts `application/x-ndjson` gets progress meanwhile: a line
/// `{"acknowledged": events, "last_sequence": n}` when more events are on disk, and the response as the last line.
/// Progress lines that the client does not read are skipped.
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
    responses((status = 200, body = schemas::StreamedEvents), (status = 201, body = schemas::StreamedEvents), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
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
            writer: GroupWriter { record, id: id.clone(), expected, writing: None, failed: false, told },
            rest: BytesMut::new(),
            line: 0,
            group: Group::default(),
            began: Instant::now(),
            received: 0,
            pause: settings.body_timeout,
            largest: usize::try_from(settings.record.max_event).unwrap_or(usize::MAX),
        };
        drop(settings);
        if !wants_acknowledgements {
            let done = intake.run().await?;
            visitor.call.trace.enter(Stage::Encode);
            let status = if done.new > 0 { StatusCode::CREATED } else { StatusCode::OK };
            return Ok(Answer::json(&ended(&id, done)).status(status));
        }
        let (end, ended) = oneshot::channel();
        tokio::spawn(async move {
            let _ = end.send(intake.run().await);
        });
        Ok(Answer::flowing(NDJSON, Body::from_stream(acknowledgements(id, acknowledged, ended))))
    })
    .await
}

/// How far a stream has come: its events that are on disk.
type Progress = Written;

fn ended(id: &str, done: Progress) -> Value {
    let mut ended =
        json!({"consultation_id": id, "appended": done.new, "last_sequence": done.last, "event_count": done.last});
    if done.repeated > 0 {
        ended["repeated"] = done.repeated.into();
    }
    ended
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
                    let Progress { new, repeated, last } = *acknowledged.borrow_and_update();
                    let told = json!({"acknowledged": new + repeated, "last_sequence": last});
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
    writer: GroupWriter,
    /// The beginning of a line whose end has not come.
    rest: BytesMut,
    /// Lines so far.
    line: u64,
    group: Group,
    began: Instant,
    received: u64,
    pause: Duration,
    largest: usize,
}

impl Intake {
    /// Takes all in. Whatever goes wrong, what came before it is kept, and nothing that comes after it.
    async fn run(mut self) -> Result<Progress, Problem> {
        let outcome = self.take_in().await;
        self.trace.enter(Stage::Persist);
        let kept = self.finish().await;
        let progress = self.writer.progress();
        let problem = match (outcome, kept) {
            (Ok(()), Ok(())) => return Ok(progress),
            (_, Err(problem)) | (Err(problem), Ok(())) => problem,
        };
        let Progress { new, repeated, last } = progress;
        let message = format!("{}; {} events before it are kept", problem.message, new + repeated);
        let mut details = problem.details.clone().unwrap_or_else(|| json!({}));
        details["appended"] = new.into();
        details["last_sequence"] = last.into();
        if repeated > 0 {
            details["repeated"] = repeated.into();
        }
        Err(Problem { message, ..problem.details(details) })
    }

    async fn take_in(&mut self) -> Result<(), Problem> {
        loop {
            self.trace.enter(Stage::Receive);
            tokio::select! {
                biased;
                chunk = self.chunks.next() => {
                    let Some(chunk) = chunk else { break };
                    self.trace.enter(Stage::Ingest);
                    let chunk = chunk?;
                    self.check_rate(chunk.len())?;
                    self.chunk(chunk).await?;
                }
                // Nothing has come meanwhile: what is there need not wait for more.
                () = std::future::ready(()), if !self.group.is_empty() && self.writer.is_idle() => self.hand_over(),
                settled = self.writer.settle(), if !self.writer.is_idle() => settled?,
                () = tokio::time::sleep(self.pause) => return Err(body::paused(self.pause)),
            }
        }
        let rest = std::mem::take(&mut self.rest);
        self.one_line(&rest).await
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

    async fn chunk(&mut self, mut chunk: Bytes) -> Result<(), Problem> {
        while let Some(end) = memchr::memchr(b'\n', &chunk) {
            if self.rest.is_empty() {
                self.one_line(&chunk[..end]).await?;
            } else {
                self.keep_rest(&chunk[..end])?;
                let whole = std::mem::take(&mut self.rest);
                self.one_line(&whole).await?;
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

    async fn one_line(&mut self, line: &[u8]) -> Result<(), Problem> {
        let line = without_bom(line).trim_ascii();
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
            self.flush().await?;
            self.writer.expected = Some(expected);
        }
        self.group.push(self.line, ingested.record);
        match self.group.is_full() {
            true => self.flush().await,
            false if self.group.records.len().is_multiple_of(HAND_OVER_EVERY) => self.hand_over_if_idle(),
            false => Ok(()),
        }
    }

    fn wrong(&self, problem: Problem) -> Problem {
        at_line(self.line, problem)
    }

    /// Hands over the group once the one before it is recorded.
    async fn flush(&mut self) -> Result<(), Problem> {
        self.trace.enter(Stage::Persist);
        self.writer.settle().await?;
        self.trace.enter(Stage::Ingest);
        self.hand_over();
        Ok(())
    }

    /// Hands over the group if the one before it is recorded by now.
    fn hand_over_if_idle(&mut self) -> Result<(), Problem> {
        match self.writer.settle().now_or_never() {
            None => Ok(()),
            Some(settled) => settled.map(|()| self.hand_over()),
        }
    }

    fn hand_over(&mut self) {
        let group = std::mem::take(&mut self.group);
        if !group.is_empty() {
            self.writer.write(group);
        }
    }

    /// Records what is left.
    async fn finish(&mut self) -> Result<(), Problem> {
        self.writer.settle().await?;
        self.hand_over();
        self.writer.settle().await
    }
}

/// `problem` as that of a line.
fn at_line(line: u64, problem: Problem) -> Problem {
    let message = format!("line {line}: {}", problem.message);
    let mut details = problem.details.clone().unwrap_or_else(|| json!({}));
    details["line"] = line.into();
    Problem { message, ..problem.details(details) }
}

/// Events that are recorded together, and the lines in which they stood.
#[derive(Default)]
struct Group {
    lines: Vec<u64>,
    records: Vec<NewRecord>,
    bytes: usize,
}

impl Group {
    fn push(&mut self, line: u64, record: NewRecord) {
        self.bytes += append::weight(&record);
        self.lines.push(line);
        self.records.push(record);
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    fn is_full(&self) -> bool {
        self.records.len() >= GROUP || self.bytes >= GROUP_BYTES
    }
}

/// Writes groups, one after the other.
struct GroupWriter {
    record: Consultations,
    id: String,
    /// The version that the next group expects.
    expected: Option<u64>,
    writing: Option<Writing>,
    /// A group was not recorded whole: none is after it.
    failed: bool,
    told: watch::Sender<Progress>,
}

/// A group on its way to the disk.
struct Writing {
    lines: Vec<u64>,
    written: BoxFuture<'static, (Written, Option<RecordError>)>,
}

impl GroupWriter {
    fn is_idle(&self) -> bool {
        self.writing.is_none()
    }

    fn progress(&self) -> Progress {
        *self.told.borrow()
    }

    /// Begins to write a group; the one before it is settled.
    fn write(&mut self, group: Group) {
        if self.failed {
            return;
        }
        let Group { lines, records, .. } = group;
        let written = self.record.append_new(&self.id, records, self.expected.take());
        self.writing = Some(Writing { lines, written });
    }

    /// Waits for the group that is on its way.
    async fn settle(&mut self) -> Result<(), Problem> {
        let Some(writing) = &mut self.writing else { return Ok(()) };
        let (written, error) = (&mut writing.written).await;
        let lines = self.writing.take().map(|writing| writing.lines).unwrap_or_default();
        if written != Written::default() {
            self.told.send_modify(|progress| {
                let last = progress.last.max(written.last);
                let (new, repeated) = (progress.new + written.new, progress.repeated + written.repeated);
                *progress = Progress { new, repeated, last };
            });
        }
        let Some(error) = error else { return Ok(()) };
        self.failed = true;
        // Other faults are those of the whole group.
        let line = match &error {
            RecordError::IdInUse(in_use) => lines.get(in_use.index),
            RecordError::Store(StoreError::Version { .. }) => lines.first(),
            _ => None,
        };
        Err(match line.copied() {
            Some(line) => at_line(line, append::refusal(error)),
            None => error.into(),
        })
    }
}
