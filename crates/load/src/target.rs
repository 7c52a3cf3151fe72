//! The server under load.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use hyper::{Uri, header::HeaderValue};
use tokio::net::{TcpStream, lookup_host};

use crate::{LoadError, Tls};

/// Timeout of the first connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server that accepts connections.
#[derive(Debug, Clone)]
pub struct Target {
    url: String,
    host: HeaderValue,
    prefix: String,
    address: SocketAddr,
    /// Set for an https URL.
    tls: Option<Tls>,
}

impl Target {
    /// Connects to the server at `url` (`http[s]://host[:port][/prefix]`): its name is resolved once, and the first
    /// address that accepts a connection is used. Its certificate must be signed by a public authority.
    pub async fn connect(url: &str) -> Result<Self, LoadError> {
        Self::connect_trusting(url, None).await
    }

    /// Like [`connect`](Self::connect), but trusts the authorities in the PEM file `authorities`, if there is one.
    pub async fn connect_trusting(url: &str, authorities: Option<&Path>) -> Result<Self, LoadError> {
        let parsed = parse_url(url)?;
        let tls = match parsed.scheme_str() {
            Some("https") => Some(Tls::with_authorities(authorities)?),
            _ => None,
        };
        let usual_port = if tls.is_some() { 443 } else { 80 };
        let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']);
        let unreachable = |reason: String| LoadError::Unreachable { url: url.to_owned(), reason };
        let addresses = lookup_host((host, parsed.port_u16().unwrap_or(usual_port))).await;
        let mut reason = "its name resolves to no address".to_owned();
        for address in addresses.map_err(|error| unreachable(error.to_string()))? {
            match tokio::time::timeout(CONNECT_TIMEOUT, try_connecting(address, host, tls.as_ref())).await {
                Ok(Ok(())) => return Self::new(url, &parsed, address, tls),
                Ok(Err(error)) => reason = error.to_string(),
                Err(_) => reason = format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
            }
        }
        Err(unreachable(reason))
    }

    fn new(url: &str, parsed: &Uri, address: SocketAddr, tls: Option<Tls>) -> Result<Self, LoadError> {
        let authority = parsed.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(authority);
        let host = host.map_err(|error| LoadError::Url { url: url.to_owned(), reason: error.to_string() })?;
        let prefix = parsed.path().trim_end_matches('/').to_owned();
        Ok(Self { url: url.trim_end_matches('/').to_owned(), host, prefix, address, tls })
    }

    /// The server's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn socket_address(&self) -> SocketAddr {
        self.address
    }

    /// TLS and the host name, for an https URL.
    pub(crate) fn tls_and_host(&self) -> Option<(&Tls, &str)> {
        let authority = self.host.to_str().unwrap_or_default();
        let end = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
        self.tls.as_ref().map(|tls| (tls, &authority[..end.unwrap_or(authority.len())]))
    }

    pub(crate) fn host_header(&self) -> &HeaderValue {
        &self.host
    }

    /// Path prefix of every request.
    pub(crate) fn path_prefix(&self) -> &str {
        &self.prefix
    }
}

async fn try_connecting(address: SocketAddr, host: &str, tls: Option<&Tls>) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    match tls {
        Some(tls) => tls.connect(host, stream).await.map(drop),
        None => Ok(()),
    }
}

fn parse_url(url: &str) -> Result<Uri, LoadError> {
    let wrong = |reason: &str| LoadError::Url { url: url.to_owned(), reason: reason.to_owned() };
    let parsed: Uri = url.parse().map_err(|_| wrong("it cannot be parsed"))?;
    match parsed.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(wrong("expected http:// or https://")),
    }
    if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) || parsed.query().is_some() {
        return Err(wrong("user and query are not supported"));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_url_accepts_only_http_servers() {
        for good in ["http://127.0.0.1:8000", "http://[::1]:8000/", "http://host/prefix", "https://host"] {
            parse_url(good).unwrap();
        }
        for (bad, words) in [("ftp://host", "https://"), ("127.0.0.1:8000", "http://"), ("http://a@b", "user")] {
            let error = parse_url(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
