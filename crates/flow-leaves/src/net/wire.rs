//! A connection as HTTP/1.1 is spoken over it, and what drives it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
    time::timeout,
};

/// A connection. Dropped, it ends.
pub(super) struct Wire {
    sender: SendRequest<Full<Bytes>>,
    /// Whether anything has come since the last question.
    heard: Arc<AtomicBool>,
    driver: JoinHandle<()>,
    /// The same socket, to look whether something has come that nobody has read.
    socket: std::net::TcpStream,
}

/// Why a question has no answer.
pub(super) struct Unanswered {
    pub(super) error: hyper::Error,
    /// How far it came.
    pub(super) came: Came,
}

/// How far a question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// Nothing of it was sent.
    Nowhere,
    /// The other side may have it, and closed the connection before it said a word.
    Unheard,
    /// The other side has begun to answer, or the failure is another.
    Far,
}

impl Wire {
    /// Speaks over `stream`, which goes over `socket`.
    pub(super) async fn new(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        socket: std::net::TcpStream,
    ) -> hyper::Result<Self> {
        let heard = Arc::new(AtomicBool::new(false));
        let stream = Heard { stream, heard: Arc::clone(&heard) };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with whoever holds the wire.
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { sender, heard, driver, socket })
    }

    /// Whether the other side has closed it, as far as is known.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Whether it can be asked over, at once or within that time.
    pub(super) async fn ready(&mut self, within: Duration) -> bool {
        let ready = !self.is_closed() && timeout(within, self.sender.ready()).await.is_ok_and(|ready| ready.is_ok());
        ready && self.is_quiet()
    }

    /// Whether nothing has come, not even the end. Asked of the kernel, for whoever drives it may not have been told yet.
    fn is_quiet(&self) -> bool {
        self.socket.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Asks.
    pub(super) async fn ask(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Unanswered> {
        self.heard.store(false, Relaxed);
        self.sender.try_send_request(request).await.map_err(|mut refused| {
            let unsent = refused.take_message().is_some();
            let error = refused.into_error();
            let came = match (unsent, self.heard.load(Relaxed)) {
                (true, _) => Came::Nowhere,
                (false, false) if error.is_incomplete_message() || is_hung_up(&error) => Came::Unheard,
                _ => Came::Far,
            };
            Unanswered { error, came }
        })
    }
}

/// Whether the other side has gone away.
fn is_hung_up(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe
        )
    })
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A stream that notes whether anything came over it.
struct Heard<S> {
    stream: S,
    heard: Arc<AtomicBool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, to));
        if to.filled().len() > before {
            self.heard.store(true, Relaxed);
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
