//! The socket: bound early, so that a port in use is said before models are loaded; drained late, so that nobody
//! whose connection the kernel has accepted is reset.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use std::net::TcpStream;

use tokio::net::TcpListener;

/// Bytes that wait in a socket's buffer to be sent before it counts as full.
#[cfg(target_os = "linux")]
const UNSENT_BYTES: u32 = 256 << 10;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    failures: AcceptFailures,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error("the port {address} is in use; stop the program that holds it, or choose another with {}", .flags.port)]
    InUse {
        /// The address.
        address: SocketAddr,
        /// What it comes from.
        flags: Flags,
    },
    /// The address or port may not be used.
    #[error("cannot listen on {address}: {error}; check {} and {}", .flags.host, .flags.port)]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What the kernel says.
        error: io::Error,
        /// What it comes from.
        flags: Flags,
    },
}

/// The flags that say where a socket listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flags {
    /// Its address.
    pub host: &'static str,
    /// Its port.
    pub port: &'static str,
}

/// The sockets of a server.
#[derive(Debug)]
pub struct Listeners {
    /// Where everybody asks.
    pub public: Listener,
    /// Where only who administers the server asks, if that is a socket of its own.
    pub admin: Option<Listener>,
}

impl Listener {
    /// Binds `address`, which comes from `flags`, with room for `backlog` connections that wait to be accepted.
    pub fn bind(address: SocketAddr, backlog: u32, flags: Flags) -> Result<Self, ListenError> {
        Self::open(address, backlog).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::InUse { address, flags },
            _ => ListenError::Refused { address, error, flags },
        })
    }

    fn open(address: SocketAddr, backlog: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A server that starts again should not wait until its old connections are forgotten.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let socket = TcpListener::from_std(socket.into())?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, failures: AcceptFailures::default() })
    }

    /// Where it listens, the port known even if any was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. Errors that concern one connection, or pass by themselves, are waited out.
    pub(crate) async fn accept(&self) -> TcpStream {
        loop {
            match self.socket.accept().await {
                Ok((stream, _)) => {
                    self.failures.record_success();
                    // Answers are small and whole: waiting to join them with more would only delay them.
                    let _ = stream.set_nodelay(true);
                    // Without it the kernel reports room only once a third of its buffer is free, which may be megabytes: a
                    // client that reads slowly would look like one that does not read.
                    #[cfg(target_os = "linux")]
                    let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES);
                    match stream.into_std() {
                        Ok(stream) => return stream,
                        Err(error) => tracing::debug!(%error, "a connection was lost as it was accepted"),
                    }
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    self.failures.record_failure(&error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Closes the door: no new connection is begun, and those that the kernel has accepted already are returned.
    pub(crate) async fn drain(self) -> Vec<TcpStream> {
        stop_new_connections(&self.socket);
        let mut last = Vec::new();
        // Handshakes in progress are completed by the client's next packet; on any network we serve that takes
        // less than this.
        let patience = Duration::from_millis(50);
        while let Ok(stream) = tokio::time::timeout(patience, self.accept()).await {
            last.push(stream);
        }
        last
    }
}

/// How long connections must be accepted again before a series of failures counts as over.
const RECOVERED_AFTER: Duration = Duration::from_secs(5);

/// A series of failures to accept is logged once, and once more when it is over: without file descriptors left, each
/// try fails.
#[derive(Debug, Default)]
struct AcceptFailures {
    failing: AtomicBool,
    /// The first and the last failure.
    series: Mutex<Option<(Instant, Instant)>>,
}

impl AcceptFailures {
    fn record_failure(&self, error: &io::Error) {
        let now = Instant::now();
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if series.is_none() {
            tracing::error!(%error, "cannot accept connections; trying again");
        }
        *series = Some((series.map_or(now, |(first, _)| first), now));
        self.failing.store(true, Relaxed);
    }

    fn record_success(&self) {
        if !self.failing.load(Relaxed) {
            return;
        }
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((first, last)) = *series
            && last.elapsed() >= RECOVERED_AFTER
        {
            tracing::info!(seconds = first.elapsed().as_secs(), "connections are accepted again");
            *series = None;
            self.failing.store(false, Relaxed);
        }
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Lets the kernel ignore packets that would begin a connection, so that none is accepted between the last one we
/// take and the socket's end, only to be reset. The client tries again, and is refused.
///
/// A classic BPF program over the TCP header: `ldb [13]; jset #SYN, drop, pass`.
#[cfg(target_os = "linux")]
fn stop_new_connections(socket: &TcpListener) {
    use socket2::{SockFilter, SockRef};
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    let program = [
        SockFilter::new(0x30, 0, 0, FLAGS),
        SockFilter::new(0x45, 0, 1, SYN),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    if let Err(error) = SockRef::from(socket).attach_filter(&program) {
        tracing::debug!(%error, "new connections cannot be held off while the last ones are accepted");
    }
}

#[cfg(not(target_os = "linux"))]
fn stop_new_connections(_socket: &TcpListener) {}
