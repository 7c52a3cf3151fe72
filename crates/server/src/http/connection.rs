//! One connection: HTTP/1.1 over a socket, watched by a clock that costs a busy connection nothing.
//!
//! hyper's own timer is set anew for each request; ours wakes once in a while and looks at what the connection
//! has been doing since.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{body::Body, extract::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, OwnedSemaphorePermit, watch},
};

use super::{Peer, linger::Lingering, refusal, threads::IoThreads};
use crate::{access::Gate, settings::ServerSettings};

/// Bytes that one connection reads ahead at most; a head that does not fit is refused with 431.
const READ_BUFFER: usize = 256 << 10;

/// How long a connection that has not asked anything yet is kept when all should end: its request may be on its way.
const LAST_CHANCE: Duration = Duration::from_millis(250);

/// How long a client whose request was not understood gets to read the answer to it.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What connections should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// Serve until the client closes.
    Serve,
    /// Close once they are idle.
    End,
    /// Close at once, whatever they are doing.
    Cut,
}

/// All open connections.
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicUsize,
    opened: AtomicU64,
    none: Notify,
    header_timeout: Duration,
    keep_alive: Duration,
    course: watch::Sender<Course>,
    threads: IoThreads,
}

impl Connections {
    pub(crate) fn start(settings: &ServerSettings) -> io::Result<Self> {
        Ok(Self {
            open: AtomicUsize::new(0),
            opened: AtomicU64::new(0),
            none: Notify::new(),
            header_timeout: settings.header_timeout,
            keep_alive: settings.keep_alive,
            course: watch::Sender::new(Course::Serve),
            threads: IoThreads::start(settings.io_threads)?,
        })
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// How many were opened so far.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Runs a task on each thread that talks to sockets.
    pub(crate) fn on_each_thread<F, T>(&self, task: impl FnMut() -> (F, T)) -> Vec<T>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.threads.on_each(task)
    }

    /// Closes each connection as soon as it is idle.
    pub(crate) fn end(&self) {
        self.course.send_replace(Course::End);
    }

    /// Closes all at once. What was being worked on for them is given up.
    pub(crate) fn cut(&self) {
        self.course.send_replace(Course::Cut);
    }

    /// Waits until none is open.
    pub(crate) async fn ended(&self) {
        loop {
            let none = self.none.notified();
            if self.open() == 0 {
                return;
            }
            none.await;
        }
    }

    /// Serves `stream` through `gate` until it closes.
    pub(crate) fn serve(
        self: &Arc<Self>,
        stream: std::net::TcpStream,
        gate: Gate,
        place: Option<OwnedSemaphorePermit>,
    ) {
        self.open.fetch_add(1, Relaxed);
        self.opened.fetch_add(1, Relaxed);
        let connections = Arc::clone(self);
        // Before the thread gets to it: what is told from now on is heard.
        let course = self.course.subscribe();
        self.threads.spawn(async move {
            let _leave = Leave(&connections);
            // The socket is registered with the thread that serves it.
            if let Ok(stream) = TcpStream::from_std(stream) {
                connections.run(stream, gate, course).await;
            }
            drop(place);
        });
    }

    async fn run(&self, stream: TcpStream, gate: Gate, mut course: watch::Receiver<Course>) {
        let pulse = Arc::new(Pulse::new());
        let peer = stream.peer_addr().ok().map(Peer);
        let io = TokioIo::new(Watched { stream, pulse: Arc::clone(&pulse), refusal: None });
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let busy = pulse.begin();
            let mut request: Request = request.map(|body| Body::new(Lingering::new(body)));
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            let gate = gate.clone();
            async move {
                let response = Ok::<Response, std::convert::Infallible>(gate.call(request).await);
                drop(busy);
                response
            }
        });
        let mut connection =
            http1::Builder::new().header_read_timeout(None).max_buf_size(READ_BUFFER).serve_connection(io, service);
        let mut last_chance = None;
        let last_word = loop {
            tokio::select! {
                biased;
                served = &mut connection => match served {
                    Err(error) if error.is_parse() => break None,
                    _ => return,
                },
                () = tokio::time::sleep(self.header_timeout.min(self.keep_alive)) => {
                    if pulse.overdue(self.header_timeout, self.keep_alive) {
                        // Nothing has been answered on this connection, so this is no part of another answer.
                        match pulse.asked.load(Relaxed) || pulse.head_since.load(Relaxed) == 0 {
                            true => return,
                            false => break Some(refusal::head_timeout(self.header_timeout.as_secs_f64())),
                        }
                    }
                }
                () = until(last_chance), if last_chance.is_some() => {
                    last_chance = None;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                _ = course.changed() => match *course.borrow_and_update() {
                    Course::Serve => {}
                    Course::End if pulse.asked.load(Relaxed) => Pin::new(&mut connection).graceful_shutdown(),
                    Course::End => last_chance = Some(tokio::time::Instant::now() + LAST_CHANCE),
                    Course::Cut => return,
                },
            }
        };
        let parts = connection.into_parts();
        let last_word = last_word.or_else(|| refusal::http2(&parts.read_buf));
        let _ = tokio::time::timeout(LAST_WORD, part(parts.io.into_inner().stream, last_word)).await;
    }
}

/// Says `last_word`, if there is one, and closes. What the client has sent is read until it closes too: the kernel would
/// answer what is left unread with a reset, and the client might not get to read what was said.
async fn part(mut stream: TcpStream, last_word: Option<Vec<u8>>) -> io::Result<()> {
    if let Some(word) = last_word {
        stream.write_all(&word).await?;
    }
    stream.shutdown().await?;
    let mut unwanted = [0; 4 << 10];
    while stream.read(&mut unwanted).await? > 0 {}
    Ok(())
}

async fn until(moment: Option<tokio::time::Instant>) {
    if let Some(moment) = moment {
        tokio::time::sleep_until(moment).await;
    }
}

struct Leave<'a>(&'a Connections);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Relaxed) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

/// What a connection has been doing, in milliseconds since it began.
#[derive(Debug)]
struct Pulse {
    began: Instant,
    busy: AtomicBool,
    /// Whether a request has come.
    asked: AtomicBool,
    /// When it last became idle: at its beginning or with its last answer.
    idle_since: AtomicU64,
    /// When the head began to arrive that is not whole yet; 0 when none does.
    head_since: AtomicU64,
}

struct Busy(Arc<Pulse>);

impl Pulse {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            busy: AtomicBool::new(false),
            asked: AtomicBool::new(false),
            idle_since: AtomicU64::new(0),
            head_since: AtomicU64::new(0),
        }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// A request's head is whole.
    fn begin(self: &Arc<Self>) -> Busy {
        self.busy.store(true, Relaxed);
        self.asked.store(true, Relaxed);
        self.head_since.store(0, Relaxed);
        Busy(Arc::clone(self))
    }

    /// Bytes have arrived.
    fn bytes_came(&self) {
        if !self.busy.load(Relaxed) && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now().max(1), Relaxed);
        }
    }

    /// Whether a head takes too long to arrive, or nothing has come for too long.
    fn overdue(&self, header: Duration, keep_alive: Duration) -> bool {
        if self.busy.load(Relaxed) {
            return false;
        }
        let since = |moment: &AtomicU64| Duration::from_millis(self.now().saturating_sub(moment.load(Relaxed)));
        match self.head_since.load(Relaxed) {
            0 => since(&self.idle_since) >= keep_alive,
            _ => since(&self.head_since) >= header,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.idle_since.store(self.0.now(), Relaxed);
        self.0.busy.store(false, Relaxed);
    }
}

/// A socket that tells its pulse when bytes come, and puts a body behind answers that have none.
struct Watched {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    /// What is sent in place of an answer of hyper's own, and how much of it has been.
    refusal: Option<(Vec<u8>, usize)>,
}

impl Watched {
    /// Sends a better answer in place of `bytes`, if these are one of hyper's own; `None` if they are not. They count as
    /// written when all of it has been sent.
    fn poll_refusal(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_none() {
            let better = refusal::replace(bytes)?;
            self.refusal = Some((better, 0));
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
}

impl tokio::io::AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pulse.bytes_came();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.poll_refusal(context, bytes) {
            Some(sent) => sent,
            None => Pin::new(&mut self.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = slices
            && let Some(sent) = self.poll_refusal(context, only)
        {
            return sent;
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
