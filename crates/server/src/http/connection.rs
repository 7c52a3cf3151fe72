//! One connection: HTTP/1.1 over a socket, watched by a clock that costs a busy connection nothing.
//!
//! hyper's own timer is set anew for each request; ours wakes once in a while and looks at what the connection
//! has been doing since.

use std::{
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, OwnedSemaphorePermit, watch},
};

use super::{
    Peer,
    activity::{Activity, AnswerBody, ConnectionTimeouts, TrackedStream},
    linger::Lingering,
    refusal,
    threads::IoThreads,
};
use crate::{access::Gate, settings::ServerSettings};

/// Bytes that one connection reads ahead at most; a head that does not fit is refused with 431. Unfinished heads are in
/// no budget of memory, so this is what bounds them: hyper's buffer grows to twice as much, 1,200 of them hold about 80 MB.
const READ_BUFFER: usize = 32 << 10;

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
    timeouts: ConnectionTimeouts,
    course: watch::Sender<Course>,
    threads: IoThreads,
}

impl Connections {
    pub(crate) fn start(settings: &ServerSettings) -> io::Result<Self> {
        Ok(Self {
            open: AtomicUsize::new(0),
            opened: AtomicU64::new(0),
            none: Notify::new(),
            timeouts: ConnectionTimeouts { header: settings.header_timeout, keep_alive: settings.keep_alive },
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
        let activity = Arc::new(Activity::new());
        let peer = stream.peer_addr().ok().map(Peer);
        let io = TokioIo::new(TrackedStream::new(stream, Arc::clone(&activity)));
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let in_progress = activity.begin_request();
            let mut request: Request = request.map(|body| Body::new(Lingering::new(body, &in_progress)));
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            let gate = gate.clone();
            async move {
                let response = gate.call(request).await.map(|body| AnswerBody::new(body, in_progress));
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let mut connection =
            http1::Builder::new().header_read_timeout(None).max_buf_size(READ_BUFFER).serve_connection(io, service);
        let mut last_chance = None;
        let ConnectionTimeouts { header, keep_alive } = self.timeouts;
        let last_word = loop {
            tokio::select! {
                biased;
                served = &mut connection => match served {
                    Err(error) if error.is_parse() => break None,
                    _ => return,
                },
                () = tokio::time::sleep(header.min(keep_alive)) => {
                    if activity.is_overdue(self.timeouts) {
                        // Nothing has been answered on this connection, so this is no part of another answer.
                        match activity.awaits_first_head() {
                            true => break Some(refusal::head_timeout(header.as_secs_f64())),
                            false => return,
                        }
                    }
                }
                () = until(last_chance), if last_chance.is_some() => {
                    last_chance = None;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                _ = course.changed() => match *course.borrow_and_update() {
                    Course::Serve => {}
                    Course::End if activity.asked() => Pin::new(&mut connection).graceful_shutdown(),
                    Course::End => last_chance = Some(tokio::time::Instant::now() + LAST_CHANCE),
                    Course::Cut => return,
                },
            }
        };
        let parts = connection.into_parts();
        let last_word = last_word.or_else(|| refusal::http2(&parts.read_buf));
        // What was read is not held while the client is waited for.
        drop(parts.read_buf);
        let _ = tokio::time::timeout(LAST_WORD, part(parts.io.into_inner().into_inner(), last_word)).await;
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
