//! Reads a body whole, within the limits on its size, on all bodies together and on its pauses.

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
};
use bytes::{Bytes, BytesMut};
use caudal_tasks::{ByteBudget, Held};
use caudal_types::{ErrorKind, Stage, Trace};
use http_body_util::BodyExt;

use super::unpack::Undecodable;
use crate::{app::App, problem::Problem};

/// A body no larger than this is not counted: the limit on concurrent requests bounds what these hold.
const SMALL: u64 = 64 << 10;
/// A body without a length is paid for in steps of this.
const STEP: u64 = 1 << 20;

/// A body no larger than this, by its own word, has memory of its own to draw on, if that is so large.
const MODEST: u64 = 2 << 20;

/// Memory for all bodies. A quarter is kept for modest ones, so that a few large uploads that take their time do not
/// keep all others waiting.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    modest: ByteBudget,
    large: ByteBudget,
    /// Half as much again, for answers that are not sent yet. Uploads wait for memory and so keep theirs full under load;
    /// an answer cannot wait, since its work is done.
    answers: ByteBudget,
    /// Bytes of the bodies that are held which have arrived: they are in memory.
    arrived: AtomicU64,
    /// Bytes that they have announced.
    announced: AtomicU64,
    /// Most bytes that all bodies may hold without the machine's memory becoming short.
    fits: AtomicU64,
}

impl BodyMemory {
    pub(crate) fn new(bytes: u64) -> Self {
        let (modest, large) = (ByteBudget::new(bytes / 4), ByteBudget::new(bytes - bytes / 4));
        let answers = ByteBudget::new(bytes / 2);
        Self {
            modest,
            large,
            answers,
            arrived: AtomicU64::new(0),
            announced: AtomicU64::new(0),
            fits: AtomicU64::new(u64::MAX),
        }
    }

    /// Bytes that are in memory already.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Relaxed)
    }

    /// From now on all bodies may hold no more than `fits`, for want of the machine's memory; all they like if none.
    pub(crate) fn bound(&self, fits: Option<u64>) {
        self.fits.store(fits.unwrap_or(u64::MAX), Relaxed);
    }

    /// Takes note of `bytes` that are to come, if they fit beside all that has been announced, should that come before memory
    /// is looked at again.
    fn announce(&self, bytes: u64) -> Result<(), Problem> {
        let fits = self.fits.load(Relaxed);
        let more = |announced: u64| announced.checked_add(bytes).filter(|all| *all <= fits);
        self.announced.fetch_update(Relaxed, Relaxed, more).map(drop).map_err(|_| Problem::memory_short())
    }

    /// Takes memory for an answer of `bytes` until it is sent; an answer larger than all of it takes all of it.
    pub(crate) fn hold_answer(&self, bytes: u64) -> Result<Held, Problem> {
        self.answers.try_take(bytes.min(self.answers.total())).ok().flatten().ok_or_else(|| {
            Problem::new(
                ErrorKind::MemoryFull,
                "answers that their clients have not read yet hold all the memory set aside for them",
                "try again after Retry-After, read answers as they come, or raise max_body_memory_mb",
            )
            .retry_after(Duration::from_secs(1))
        })
    }

    /// Bytes held now.
    pub(crate) fn taken(&self) -> u64 {
        self.modest.taken() + self.large.taken()
    }

    /// How full the fuller of its parts is, from 0 to 1.
    pub(crate) fn fullness(&self) -> f64 {
        let part = |budget: &ByteBudget| budget.taken() as f64 / budget.total().max(1) as f64;
        part(&self.modest).max(part(&self.large))
    }

    fn of(&self, length: Option<u64>) -> &ByteBudget {
        let most = MODEST.min(self.modest.total());
        if length.is_some_and(|length| length <= most) { &self.modest } else { &self.large }
    }

    /// Bytes of the largest body that fits.
    fn largest(&self) -> u64 {
        self.large.total().max(SMALL)
    }
}

/// The limits a body is read within.
#[derive(Debug)]
pub(crate) struct BodyLimits<'a> {
    /// Most bytes.
    bytes: u64,
    /// Bytes beside these that carry them: a form's boundaries and headers.
    overhead: u64,
    /// Memory for all bodies.
    memory: &'a Arc<BodyMemory>,
    /// Longest pause.
    pause: Duration,
    /// The request's: reading its body is its stage `receive`, waiting for memory its stage `wait`.
    trace: &'a Trace,
}

impl<'a> BodyLimits<'a> {
    /// Bodies of at most `bytes`, with the memory and the pauses of all.
    pub(crate) fn new(app: &'a App, trace: &'a Trace, bytes: u64) -> Self {
        Self { bytes, overhead: 0, memory: &app.bodies, pause: app.settings().body_timeout, trace }
    }

    /// As large as the server's settings let bodies be.
    pub(crate) fn of(app: &'a App, trace: &'a Trace) -> Self {
        Self::new(app, trace, app.settings().max_body_bytes)
    }

    /// With so many bytes more, which carry the others.
    pub(crate) fn with_overhead(self, overhead: u64) -> Self {
        Self { overhead, ..self }
    }

    fn check(&self, length: u64) -> Result<(), Problem> {
        if length > self.bytes + self.overhead {
            return Err(too_large(self.bytes));
        }
        if length > self.memory.largest() { Err(too_large_for_memory(self.memory.largest())) } else { Ok(()) }
    }
}

/// A body, and the memory that is set aside for it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _held: Vec<Held>,
    _share: Share,
}

/// What a body that is large enough to count has announced, and how much of that has arrived.
#[derive(Debug)]
struct Share {
    of: Arc<BodyMemory>,
    announced: u64,
    arrived: u64,
}

impl Share {
    fn announce(&mut self, bytes: u64) -> Result<(), Problem> {
        self.of.announce(bytes)?;
        self.announced += bytes;
        Ok(())
    }

    fn arrive(&mut self, bytes: u64) {
        self.arrived += bytes;
        self.of.arrived.fetch_add(bytes, Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.of.arrived.fetch_sub(self.arrived, Relaxed);
        self.of.announced.fetch_sub(self.announced, Relaxed);
    }
}

/// Reads `body` as [`read`] does, where JSON is expected. Its type may be any that clients put on JSON, but no form: pages may
/// send these to other sites.
pub(crate) async fn read_json(headers: &HeaderMap, body: Body, limits: &BodyLimits<'_>) -> Result<Received, Problem> {
    let is_form =
        |value: &HeaderValue| value.as_bytes().get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"));
    if headers.get_all(header::CONTENT_TYPE).iter().any(is_form) {
        return Err(Problem::new(
            ErrorKind::UnsupportedMediaType,
            "this route reads JSON, not a form",
            "send JSON as application/json; GET /docs lists what each route reads",
        ));
    }
    read(headers, body, limits).await
}

/// Reads `body`, whose length `headers` may tell. What is too large by its own word is refused unread.
pub(crate) async fn read(headers: &HeaderMap, mut body: Body, limits: &BodyLimits<'_>) -> Result<Received, Problem> {
    let length = content_length(headers)?;
    limits.check(length.unwrap_or(0))?;
    let share = Share { of: Arc::clone(limits.memory), announced: 0, arrived: 0 };
    let mut account = Account { share, memory: limits.memory.of(length), held: Vec::new(), paid: SMALL };
    if let Some(length) = length.filter(|length| *length > account.paid) {
        let _waiting = limits.trace.during(Stage::Wait);
        account.pay_in_line(length).await?;
    }
    let _receiving = limits.trace.during(Stage::Receive);
    let mut whole = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(limits.pause, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(broken(&error)),
            Err(_) => return Err(paused(limits.pause)),
        };
        let Ok(data) = frame.into_data() else { continue };
        let total = (whole.len() + data.len()) as u64;
        limits.check(total)?;
        account.pay_at_once(total)?;
        if !account.held.is_empty() {
            account.share.arrive(data.len() as u64);
        }
        if whole.is_empty() && length == Some(data.len() as u64) {
            // All of it in one piece: nothing to put together.
            return Ok(Received { bytes: data, _held: account.held, _share: account.share });
        }
        if whole.is_empty() {
            whole.reserve(length.unwrap_or(0) as usize);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Received { bytes: whole.freeze(), _held: account.held, _share: account.share })
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    let malformed =
        || Problem::new(ErrorKind::InvalidRequest, "Content-Length is not a number", "send the body's length");
    length.map(Some).ok_or_else(malformed)
}

struct Account<'a> {
    share: Share,
    memory: &'a ByteBudget,
    held: Vec<Held>,
    paid: u64,
}

impl Account<'_> {
    /// Pays for `bytes` in advance; waits until they are free. Nothing is held meanwhile but a place in line.
    async fn pay_in_line(&mut self, bytes: u64) -> Result<(), Problem> {
        if bytes > self.paid {
            self.held.push(self.memory.take(bytes).await.map_err(|_| too_large_for_memory(self.memory.total()))?);
            self.paid = bytes;
            self.share.announce(bytes)?;
        }
        Ok(())
    }

    /// Pays for `bytes` in all; who holds something already cannot wait, for others may wait for that.
    fn pay_at_once(&mut self, bytes: u64) -> Result<(), Problem> {
        while bytes > self.paid {
            let held = self.memory.try_take(STEP).ok().flatten().ok_or_else(memory_full)?;
            self.held.push(held);
            self.paid += STEP;
            self.share.announce(STEP)?;
        }
        Ok(())
    }
}

fn too_large(limit: u64) -> Problem {
    Problem::new(
        ErrorKind::BodyTooLarge,
        format!("the body is larger than the {} allowed", in_words(limit)),
        "send a smaller file, or raise max_file_size_mb",
    )
}

/// A body within `max_file_size_mb` that the memory for bodies can never hold.
fn too_large_for_memory(limit: u64) -> Problem {
    Problem::new(
        ErrorKind::BodyTooLarge,
        format!("the body is larger than the {} of memory that one body may take", in_words(limit)),
        "send a smaller file, or raise max_body_memory_mb: one body may take three quarters of it",
    )
}

fn memory_full() -> Problem {
    Problem::new(
        ErrorKind::MemoryFull,
        "uploads already hold all the memory set aside for them",
        "try again after Retry-After, send Content-Length so that the upload can wait its turn, or raise max_body_memory_mb",
    )
    .retry_after(Duration::from_secs(1))
}

/// A limit as settings write it: in MiB or KiB where it is a whole number of these.
pub(crate) fn in_words(bytes: u64) -> String {
    match bytes {
        0 => "0 bytes".to_owned(),
        bytes if bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} bytes"),
    }
}

/// Why the rest of a body does not come.
pub(crate) fn broken(error: &axum::Error) -> Problem {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(undecodable) = error.downcast_ref::<Undecodable>() {
            return undecodable.into();
        }
        cause = error.source();
    }
    gone()
}

fn gone() -> Problem {
    Problem::new(ErrorKind::ClientGone, "the connection closed before the body was whole", "send the whole body")
}

pub(crate) fn paused(pause: Duration) -> Problem {
    Problem::new(
        ErrorKind::BodyTimeout,
        format!("nothing of the body came for {} s", pause.as_secs_f64()),
        "send the body without pauses, or raise body_timeout_secs",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use axum::body::Body;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// What comes of a body of so many bytes, with a length or without, of `file_size` allowed and `memory` for all.
    fn read(bytes: u64, with_length: bool, file_size: u64, memory: u64) -> Result<usize, Problem> {
        let (memory, trace) = (Arc::new(BodyMemory::new(memory)), Trace::new(Instant::now()));
        let pause = Duration::from_secs(5);
        let limits = BodyLimits { bytes: file_size, overhead: 0, memory: &memory, pause, trace: &trace };
        let mut headers = HeaderMap::new();
        if with_length {
            headers.insert(header::CONTENT_LENGTH, bytes.into());
        }
        let pieces = (0..bytes.div_ceil(MIB)).map(|piece| vec![0; MIB.min(bytes - piece * MIB) as usize]);
        let pieces: Vec<Result<Bytes, std::io::Error>> = pieces.map(|piece| Ok(piece.into())).collect();
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(super::read(&headers, body, &limits)).map(|received| received.bytes.len())
    }

    #[test]
    fn body_beyond_the_memory_for_one_names_that_setting() {
        for with_length in [true, false] {
            let problem = read(13 * MIB, with_length, 50 * MIB, 16 * MIB).unwrap_err();
            assert_eq!(problem.kind, ErrorKind::BodyTooLarge);
            assert!(problem.message.contains("larger than the 12 MiB of memory"), "{}", problem.message);
            assert!(problem.hint.contains("max_body_memory_mb"), "{}", problem.hint);
            let problem = read(3 * MIB, with_length, 2 * MIB, 16 * MIB).unwrap_err();
            assert!(problem.hint.contains("max_file_size_mb"), "{}", problem.hint);
            assert_eq!(read(12 * MIB, with_length, 50 * MIB, 16 * MIB).unwrap(), 12 << 20);
        }
    }

    #[test]
    fn body_larger_than_the_memory_for_modest_ones_takes_of_the_rest() {
        assert_eq!(read(3 * MIB / 2, true, 50 * MIB, 4 * MIB).unwrap(), 3 << 19);
    }
}
