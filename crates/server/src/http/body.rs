//! Reads a body whole, within the limits on its size, on all bodies together and on its pauses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use caudal_tasks::{ByteBudget, Held};
use caudal_types::ErrorKind;
use http_body_util::BodyExt;

use crate::problem::Problem;

/// A body no larger than this is not counted: the limit on concurrent requests bounds what these hold.
const SMALL: u64 = 64 << 10;
/// A body without a length is paid for in steps of this.
const STEP: u64 = 1 << 20;

/// A body no larger than this, by its own word, has memory of its own to draw on.
const MODEST: u64 = 2 << 20;

/// Memory for all bodies. A quarter is kept for modest ones, so that a few large uploads that take their time do not
/// keep all others waiting.
#[derive(Debug)]
pub(crate) struct BodyMemory {
    modest: ByteBudget,
    large: ByteBudget,
    /// Bytes of the bodies that are held which have arrived: they are in memory, the others will be.
    arrived: Arc<AtomicU64>,
    /// Most bytes that all bodies may hold without the machine's memory becoming short.
    fits: AtomicU64,
}

impl BodyMemory {
    pub(crate) fn new(bytes: u64) -> Self {
        let (modest, large) = (ByteBudget::new(bytes / 4), ByteBudget::new(bytes - bytes / 4));
        Self { modest, large, arrived: Arc::default(), fits: AtomicU64::new(u64::MAX) }
    }

    /// Bytes that are in memory already.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Relaxed)
    }

    /// From now on all bodies may hold no more than `fits`, for want of the machine's memory; all they like if none.
    pub(crate) fn bound(&self, fits: Option<u64>) {
        self.fits.store(fits.unwrap_or(u64::MAX), Relaxed);
    }

    /// Whether what has been promised to bodies would fit, should all of it come before memory is looked at again.
    fn check(&self) -> Result<(), Problem> {
        if self.taken() > self.fits.load(Relaxed) { Err(Problem::memory_short()) } else { Ok(()) }
    }

    /// Bytes held now.
    pub(crate) fn taken(&self) -> u64 {
        self.modest.taken() + self.large.taken()
    }

    fn of(&self, length: Option<u64>) -> &ByteBudget {
        if length.is_some_and(|length| length <= MODEST) { &self.modest } else { &self.large }
    }
}

/// The limits a body is read within.
#[derive(Debug)]
pub(crate) struct BodyLimits<'a> {
    /// Most bytes.
    pub(crate) bytes: u64,
    /// Memory for all bodies.
    pub(crate) memory: &'a BodyMemory,
    /// Longest pause.
    pub(crate) pause: Duration,
}

/// A body, and the memory that is set aside for it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: Bytes,
    _held: Vec<Held>,
    _arrived: Arrived,
}

/// How much of a body has arrived, if it is large enough to count.
#[derive(Debug)]
struct Arrived {
    all: Arc<AtomicU64>,
    own: u64,
}

impl Arrived {
    fn add(&mut self, bytes: u64) {
        self.own += bytes;
        self.all.fetch_add(bytes, Relaxed);
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Relaxed);
    }
}

/// Reads `body`, whose length `headers` may tell. What is too large by its own word is refused unread.
pub(crate) async fn read(headers: &HeaderMap, mut body: Body, limits: &BodyLimits<'_>) -> Result<Received, Problem> {
    let length = content_length(headers)?;
    if length.is_some_and(|length| length > limits.bytes) {
        return Err(too_large(limits.bytes));
    }
    let mut account = Account { all: limits.memory, memory: limits.memory.of(length), held: Vec::new(), paid: SMALL };
    let mut arrived = Arrived { all: Arc::clone(&limits.memory.arrived), own: 0 };
    if let Some(length) = length {
        account.pay_in_line(length).await?;
    }
    let mut whole = BytesMut::new();
    loop {
        let frame = match tokio::time::timeout(limits.pause, body.frame()).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => return Err(gone()),
            Err(_) => return Err(paused(limits.pause)),
        };
        let Ok(data) = frame.into_data() else { continue };
        let total = (whole.len() + data.len()) as u64;
        if total > limits.bytes {
            return Err(too_large(limits.bytes));
        }
        account.pay_at_once(total)?;
        if !account.held.is_empty() {
            arrived.add(data.len() as u64);
        }
        if whole.is_empty() && length == Some(data.len() as u64) {
            // All of it in one piece: nothing to put together.
            return Ok(Received { bytes: data, _held: account.held, _arrived: arrived });
        }
        if whole.is_empty() {
            whole.reserve(length.unwrap_or(0) as usize);
        }
        whole.extend_from_slice(&data);
    }
    Ok(Received { bytes: whole.freeze(), _held: account.held, _arrived: arrived })
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    let malformed =
        || Problem::new(ErrorKind::InvalidRequest, "Content-Length is not a number", "send the body's length");
    length.map(Some).ok_or_else(malformed)
}

struct Account<'a> {
    all: &'a BodyMemory,
    memory: &'a ByteBudget,
    held: Vec<Held>,
    paid: u64,
}

impl Account<'_> {
    /// Pays for `bytes` in advance; waits until they are free. Nothing is held meanwhile but a place in line.
    async fn pay_in_line(&mut self, bytes: u64) -> Result<(), Problem> {
        if bytes > self.paid {
            self.held.push(self.memory.take(bytes).await.map_err(|_| too_large(self.memory.total()))?);
            self.paid = bytes;
            self.all.check()?;
        }
        Ok(())
    }

    /// Pays for `bytes` in all; who holds something already cannot wait, for others may wait for that.
    fn pay_at_once(&mut self, bytes: u64) -> Result<(), Problem> {
        while bytes > self.paid {
            let held = self.memory.try_take(STEP).ok().flatten().ok_or_else(memory_full)?;
            self.held.push(held);
            self.paid += STEP;
            self.all.check()?;
        }
        Ok(())
    }
}

fn too_large(limit: u64) -> Problem {
    Problem::new(
        ErrorKind::BodyTooLarge,
        format!("the body is larger than the {limit} bytes allowed"),
        "send a smaller file, or raise max_file_size_mb",
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

fn gone() -> Problem {
    Problem::new(ErrorKind::ClientGone, "the connection closed before the body was whole", "send the whole body")
}

fn paused(pause: Duration) -> Problem {
    Problem::new(
        ErrorKind::BodyTimeout,
        format!("nothing of the body came for {} s", pause.as_secs_f64()),
        "send the body without pauses, or raise body_timeout_secs",
    )
}
