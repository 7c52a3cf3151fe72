//! One question over one connection: to an address that was looked at, and no other.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use caudal_flow::StepError;
use http_body_util::Full;
use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use url::{Host, Url};

use super::{Ask, Body, CONNECT_WITHIN, Got, Net, Trust, address::is_public, forbidden, unreachable};

/// Addresses of a host that are tried.
const TRIES: usize = 3;

/// A connection that nothing has been asked over.
pub(crate) struct Line(Stream);

enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Line {
    /// Asks, and gives the answer's head, whatever it says. Where it sends the asker on is not followed.
    pub(crate) async fn ask(self, ask: &Ask) -> Result<Got, StepError> {
        match self.0 {
            Stream::Plain(stream) => exchange(stream, ask).await,
            Stream::Secure(stream) => exchange(stream, ask).await,
        }
    }
}

impl Net {
    /// A connection to the URL's host, if it may be asked.
    pub(crate) async fn connect(&self, url: &Url, trust: Trust) -> Result<Line, StepError> {
        let late = |_| unreachable(format!("{} cannot be reached in time", host(url)));
        timeout(CONNECT_WITHIN, self.line(url, trust)).await.map_err(late)?
    }

    async fn line(&self, url: &Url, trust: Trust) -> Result<Line, StepError> {
        let stream = self.reach(url, trust).await?;
        if url.scheme() != "https" {
            return Ok(Line(Stream::Plain(stream)));
        }
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(server_name(url)?, stream).await.map_err(|error| {
            let failed = unreachable(format!("no secure connection to {}: {error}", host(url)));
            // A certificate that nobody believes is not believed the next time.
            if error.get_ref().is_some() { failed.for_good() } else { failed }
        })?;
        Ok(Line(Stream::Secure(Box::new(stream))))
    }

    async fn reach(&self, url: &Url, trust: Trust) -> Result<TcpStream, StepError> {
        let mut failed = None;
        for address in self.addresses(url, trust).await?.into_iter().take(TRIES) {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Questions are written in one piece: there is nothing to wait for.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(error) => failed = Some(error),
            }
        }
        let why = failed.map_or_else(|| "it has no address".to_owned(), |error| error.to_string());
        Err(unreachable(format!("{} cannot be reached: {why}", host(url))))
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

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, ask: &Ask) -> Result<Got, StepError> {
    let broken = |error: hyper::Error| unreachable(format!("{} broke off: {error}", host(&ask.url)));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends with whoever holds the body.
    let driver = tokio::spawn(async move {
        let _ = connection.await;
    });
    let driver = super::body::Driver::new(driver);
    let answer = sender.send_request(request(ask)?).await.map_err(broken)?;
    let (head, body) = answer.into_parts();
    let body = Body::new(body, driver, host(&ask.url), head.headers.get(header::CONTENT_LENGTH));
    Ok(Got { status: head.status, headers: head.headers, body })
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
        headers.insert(header::CONNECTION, own("close"));
    }
    request
        .body(Full::new(ask.body.clone()))
        .map_err(|error| StepError::input(format!("it cannot be asked: {error}")).for_good())
}
