//! One question over one connection at a time: to an address that was looked at, and no other.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use caudal_flow::StepError;
use http_body_util::Full;
use hyper::{Request, header};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use url::{Host, Url};

use super::{
    Ask, Body, CONNECT_WITHIN, Got, Net, Trust,
    address::is_public,
    body::Way,
    forbidden,
    idle::To,
    unreachable,
    wire::{Came, Unanswered, Wire},
};

/// Addresses of a host that are tried.
const TRIES: usize = 3;

/// A connection over which one question may be asked.
struct Line {
    wire: Wire,
    to: To,
    /// Whether something was asked over it before.
    kept: bool,
}

impl Net {
    /// Asks, and gives the answer's head, whatever it says. Where it sends the asker on is not followed.
    ///
    /// `going` is told that the question goes out, and then perhaps that it did not after all: a connection that was kept
    /// may have been closed by the other side. If nobody can have done what was asked, it is asked again over a new one.
    pub(crate) async fn send(&self, ask: &Ask, trust: Trust, mut going: impl FnMut(bool)) -> Result<Got, StepError> {
        let line = self.connect(&ask.url, trust, true).await?;
        let kept = line.kept;
        going(true);
        match self.exchange(line, ask).await? {
            Err(lost) if kept && may_repeat(ask, lost.came) => {
                going(false);
                let line = self.connect(&ask.url, trust, false).await?;
                going(true);
                self.exchange(line, ask).await?.map_err(|lost| broken(ask, &lost.error))
            }
            answer => answer.map_err(|lost| broken(ask, &lost.error)),
        }
    }

    async fn exchange(&self, line: Line, ask: &Ask) -> Result<Result<Got, Unanswered>, StepError> {
        let Line { mut wire, to, .. } = line;
        let answer = match wire.ask(request(ask)?).await {
            Ok(answer) => answer,
            Err(lost) => return Ok(Err(lost)),
        };
        let (head, body) = answer.into_parts();
        let way = Way { wire, to, idle: self.idle.clone() };
        let body = Body::new(body, way, host(&ask.url), head.headers.get(header::CONTENT_LENGTH));
        Ok(Ok(Got { status: head.status, headers: head.headers, body }))
    }

    /// A connection to the URL's host, if it may be asked: one that waits, if that is fine, or a new one.
    async fn connect(&self, url: &Url, trust: Trust, kept: bool) -> Result<Line, StepError> {
        let late = |_| unreachable(format!("{} cannot be reached in time", host(url)));
        timeout(CONNECT_WITHIN, self.line(url, trust, kept)).await.map_err(late)?
    }

    async fn line(&self, url: &Url, trust: Trust, kept: bool) -> Result<Line, StepError> {
        let mut addresses = self.addresses(url, trust).await?;
        addresses.truncate(TRIES);
        for address in addresses.iter().filter(|_| kept) {
            let to = To::new(url, *address);
            if let Some(wire) = self.idle.take(&to).await {
                return Ok(Line { wire, to, kept: true });
            }
        }
        let (stream, address) = reach(url, &addresses).await?;
        let to = To::new(url, address);
        let (stream, socket) = twice(stream).map_err(|error| unreachable(format!("{}: {error}", host(url))))?;
        let broken = |error: hyper::Error| unreachable(format!("{} broke off: {error}", host(url)));
        if url.scheme() != "https" {
            return Ok(Line { wire: Wire::new(stream, socket).await.map_err(broken)?, to, kept: false });
        }
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(server_name(url)?, stream).await.map_err(|error| {
            let failed = unreachable(format!("no secure connection to {}: {error}", host(url)));
            // A certificate that nobody believes is not believed the next time.
            if error.get_ref().is_some() { failed.for_good() } else { failed }
        })?;
        Ok(Line { wire: Wire::new(stream, socket).await.map_err(broken)?, to, kept: false })
    }

    /// The addresses of the URL's host that may be asked.
    async fn addresses(&self, url: &Url, trust: Trust) -> Result<Vec<SocketAddr>, StepError> {
        let port = url.port_or_known_default().unwrap_or(443);
        let found = match url.host() {
            Some(Host::Ipv4(address)) => vec![SocketAddr::from((address, port))],
            Some(Host::Ipv6(address)) => vec![SocketAddr::from((address, port))],
            Some(Host::Domain(name)) => {
                let unknown = |error| unreachable(format!("the host {name} is not found: {error}"));
                lookup_host((name, port)).await.map_err(unknown)?.collect()
            }
            None => Vec::new(),
        };
        if trust == Trust::Server || found.is_empty() || self.allow.host(&host(url)) {
            return Ok(found);
        }
        let may = |address: &SocketAddr| is_public(address.ip()) || self.allow.address(address.ip());
        let fine: Vec<SocketAddr> = found.into_iter().filter(may).collect();
        match fine.is_empty() {
            false => Ok(fine),
            // Which address a name has within is nobody's business.
            true => Err(forbidden(format!("{} is not asked: its address is not a public one", host(url)))),
        }
    }
}

/// The host of a URL, for people.
pub(super) fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned()
}

fn server_name(url: &Url) -> Result<ServerName<'static>, StepError> {
    ServerName::try_from(host(url)).map_err(|_| forbidden(format!("{:?} is no host with a certificate", host(url))))
}

/// A connection to the first of these addresses that takes one.
async fn reach(url: &Url, addresses: &[SocketAddr]) -> Result<(TcpStream, SocketAddr), StepError> {
    let mut failed = None;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                // Questions are written in one piece: there is nothing to wait for.
                let _ = stream.set_nodelay(true);
                return Ok((stream, *address));
            }
            Err(error) => failed = Some(error),
        }
    }
    let why = failed.map_or_else(|| "it has no address".to_owned(), |error| error.to_string());
    Err(unreachable(format!("{} cannot be reached: {why}", host(url))))
}

/// The stream, and its socket beside it.
fn twice(stream: TcpStream) -> io::Result<(TcpStream, std::net::TcpStream)> {
    let stream = stream.into_std()?;
    let socket = stream.try_clone()?;
    Ok((TcpStream::from_std(stream)?, socket))
}

/// Whether nothing is done twice if this is asked again: it was not sent, or closed upon before a word of an answer and
/// of a kind that may be repeated.
fn may_repeat(ask: &Ask, came: Came) -> bool {
    came == Came::Nowhere || (came == Came::Unheard && ask.method.is_idempotent())
}

fn broken(ask: &Ask, error: &hyper::Error) -> StepError {
    unreachable(format!("{} broke off: {error}", host(&ask.url)))
}

fn request(ask: &Ask) -> Result<Request<Full<Bytes>>, StepError> {
    let path = &ask.url[url::Position::BeforePath..url::Position::AfterQuery];
    let authority = &ask.url[url::Position::BeforeHost..url::Position::AfterPort];
    let mut request = Request::builder().method(ask.method.clone()).uri(path).header(header::HOST, authority);
    if let Some(headers) = request.headers_mut() {
        headers.extend(ask.headers.clone());
        let own = |value| header::HeaderValue::from_static(value);
        headers.entry(header::USER_AGENT).or_insert(own(concat!("caudal/", env!("CARGO_PKG_VERSION"))));
        headers.insert(header::ACCEPT_ENCODING, own("identity"));
    }
    request
        .body(Full::new(ask.body.clone()))
        .map_err(|error| StepError::input(format!("it cannot be asked: {error}")).for_good())
}
