//! Activity of one connection: what its timeouts are judged by.
//!
//! A connection is busy from the end of a request's head until the answer is sent and the request's body has ended, which
//! may be later: a body that was refused is still read for a while. A follower of events that hears nothing is busy and
//! stays; a client that takes nothing of its answer is not, and goes.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::refusal;

/// Bytes of an answer that are handed to hyper in one piece. hyper buffers few pieces, so an answer that is not read
/// stays a body, and with it what the body holds: its place among the requests in progress.
const PIECE: usize = 64 << 10;

/// How long a connection may wait for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionTimeouts {
    /// For the rest of a request's head.
    pub(super) header: Duration,
    /// For the next request, and for the client to take more of an answer.
    pub(super) keep_alive: Duration,
}

/// When a connection did what, in milliseconds since it was opened.
#[derive(Debug)]
pub(super) struct Activity {
    opened: Instant,
    /// Bodies in progress, of requests whose head has come and of their answers.
    bodies: AtomicUsize,
    asked: AtomicBool,
    /// When it last became idle: at its beginning or with its last answer.
    idle_since: AtomicU64,
    /// When the head began to arrive that is not whole yet; 0 when none does.
    head_since: AtomicU64,
    /// When the socket last stopped to take bytes; 0 while it takes them.
    blocked_since: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            opened: Instant::now(),
            bodies: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
        }
    }

    /// Whether a request has come.
    pub(super) fn asked(&self) -> bool {
        self.asked.load(Relaxed)
    }

    /// Whether no request has come yet, but the head of one begins to.
    pub(super) fn awaits_first_head(&self) -> bool {
        !self.asked() && self.head_since.load(Relaxed) != 0
    }

    /// A request's head is whole: the connection is busy until the guard and its clones are dropped.
    pub(super) fn begin_request(self: &Arc<Self>) -> RequestInProgress {
        self.asked.store(true, Relaxed);
        self.head_since.store(0, Relaxed);
        self.bodies.fetch_add(1, Relaxed);
        RequestInProgress(Arc::clone(self))
    }

    fn is_busy(&self) -> bool {
        self.bodies.load(Relaxed) > 0
    }

    /// Whether a head takes too long to arrive, nothing has come for too long, or nothing of an answer was taken for
    /// too long.
    pub(super) fn is_overdue(&self, timeouts: ConnectionTimeouts) -> bool {
        let since = |moment: u64| Duration::from_millis(self.now().saturating_sub(moment));
        match (self.blocked_since.load(Relaxed), self.head_since.load(Relaxed)) {
            (0, _) if self.is_busy() => false,
            (0, 0) => since(self.idle_since.load(Relaxed)) >= timeouts.keep_alive,
            (0, head) => since(head) >= timeouts.header,
            (blocked, _) => since(blocked) >= timeouts.keep_alive,
        }
    }

    /// Never 0, which stands for "not".
    fn now(&self) -> u64 {
        (self.opened.elapsed().as_millis() as u64).max(1)
    }

    fn record_read(&self) {
        if !self.is_busy() && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    /// The socket has taken bytes, or takes none.
    fn record_write(&self, taken: bool) {
        let blocked = self.blocked_since.load(Relaxed) != 0;
        match (taken, blocked) {
            (true, false) | (false, true) => {}
            (false, false) => self.blocked_since.store(self.now(), Relaxed),
            (true, true) => {
                self.blocked_since.store(0, Relaxed);
                // What was waiting for the answer to leave begins to wait now.
                self.idle_since.store(self.now(), Relaxed);
                if self.head_since.load(Relaxed) != 0 {
                    self.head_since.store(self.now(), Relaxed);
                }
            }
        }
    }
}

/// A request that is received or answered; its connection is busy meanwhile.
pub(super) struct RequestInProgress(Arc<Activity>);

impl Clone for RequestInProgress {
    fn clone(&self) -> Self {
        self.0.bodies.fetch_add(1, Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Relaxed);
        self.0.bodies.fetch_sub(1, Relaxed);
    }
}

/// The body of an answer, in pieces; its connection is busy until its end.
pub(super) struct AnswerBody {
    body: axum::body::Body,
    /// What was taken from the body and is not handed on yet.
    rest: Bytes,
    _request: RequestInProgress,
}

impl AnswerBody {
    pub(super) fn new(body: axum::body::Body, request: RequestInProgress) -> Self {
        Self { body, rest: Bytes::new(), _request: request }
    }

    fn next_piece(&mut self) -> Bytes {
        let length = self.rest.len().min(PIECE);
        self.rest.split_to(length)
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end_or_error => return Poll::Ready(end_or_error),
            }
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// A socket that records when bytes come and when they cannot be sent, and puts a body behind answers of hyper's own.
pub(super) struct TrackedStream {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// What is sent in place of an answer of hyper's own, and how much of it has been.
    refusal: Option<(Vec<u8>, usize)>,
}

impl TrackedStream {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity, refusal: None }
    }

    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Sends a better answer in place of `bytes`, if these are one of hyper's own; `None` if they are not. They count as
    /// written when all of it has been sent.
    fn poll_refusal(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_none() {
            self.refusal = Some((refusal::replace(bytes)?, 0));
        }
        let (better, sent) = self.refusal.as_mut()?;
        while *sent < better.len() {
            match Pin::new(&mut self.stream).poll_write(context, &better[*sent..]) {
                Poll::Ready(Ok(count @ 1..)) => *sent += count,
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                other => return Some(other),
            }
        }
        self.refusal = None;
        Some(Poll::Ready(Ok(bytes.len())))
    }

    fn record(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.record_write(written.is_ready());
        written
    }
}

impl AsyncRead for TrackedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.record_read();
        }
        read
    }
}

impl AsyncWrite for TrackedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match self.poll_refusal(context, bytes) {
            Some(written) => written,
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        };
        self.record(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match slices {
            [only] => self.poll_refusal(context, only),
            _ => None,
        };
        let written = match written {
            Some(written) => written,
            None => Pin::new(&mut self.stream).poll_write_vectored(context, slices),
        };
        self.record(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    const NOW: ConnectionTimeouts = ConnectionTimeouts { header: Duration::ZERO, keep_alive: Duration::ZERO };
    const LATER: ConnectionTimeouts =
        ConnectionTimeouts { header: Duration::from_secs(60), keep_alive: Duration::from_secs(60) };

    #[test]
    fn busy_connection_is_never_overdue_until_the_socket_is_blocked() {
        let activity = Arc::new(Activity::new());
        assert!(activity.is_overdue(NOW), "idle");
        let request = activity.begin_request();
        assert!(!activity.is_overdue(NOW), "a request is in progress");
        activity.record_write(false);
        assert!(activity.is_overdue(NOW), "the client takes nothing of the answer");
        assert!(!activity.is_overdue(LATER));
        activity.record_write(true);
        assert!(!activity.is_overdue(NOW), "it takes some again");
        drop(request);
        assert!(activity.is_overdue(NOW), "idle again");
    }

    #[test]
    fn rest_of_a_refused_body_is_no_head() {
        let activity = Arc::new(Activity::new());
        let answer = activity.begin_request();
        let body = answer.clone();
        drop(answer);
        activity.record_read();
        assert!(!activity.is_overdue(NOW), "the body still comes");
        let next = activity.begin_request();
        drop(body);
        assert!(!activity.is_overdue(NOW), "the next request is in progress");
        drop(next);
        let only_heads = ConnectionTimeouts { header: Duration::ZERO, ..LATER };
        assert!(!activity.is_overdue(only_heads), "nothing of a head has come");
        activity.record_read();
        assert!(activity.is_overdue(only_heads), "now it has");
    }

    #[tokio::test]
    async fn large_answer_leaves_in_pieces_and_keeps_its_length() {
        let activity = Arc::new(Activity::new());
        let bytes: Vec<u8> = (0..3 * PIECE + 7).map(|place| place as u8).collect();
        let mut body = AnswerBody::new(axum::body::Body::from(bytes.clone()), activity.begin_request());
        let (mut got, mut pieces) = (Vec::new(), 0);
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some((bytes.len() - got.len()) as u64));
            let frame = body.frame().await.unwrap().unwrap();
            got.extend_from_slice(frame.data_ref().unwrap());
            pieces += 1;
        }
        assert_eq!((got, pieces), (bytes, 4));
        assert!(!activity.is_overdue(NOW), "busy until the body is dropped");
    }
}
