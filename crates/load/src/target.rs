//! The server that the load goes to.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use hyper::{Uri, header::HeaderValue};
use tokio::net::{TcpStream, lookup_host};

use crate::{LoadError, Tls};

/// How long a server may take to let the first connection in.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that has let a connection in.
#[derive(Debug, Clone)]
pub struct Target {
    url: String,
    host: HeaderValue,
    prefix: String,
    address: SocketAddr,
    /// For a URL of HTTPS.
    tls: Option<Tls>,
}

impl Target {
    /// The server at `url` (`http[s]://host[:port][/prefix]`): its name is resolved once, and of its addresses the first
    /// that lets a connection in is kept. Its certificate is one that browsers trust.
    pub async fn reach(url: &str) -> Result<Self, LoadError> {
        Self::reach_trusting(url, None).await
    }

    /// The same, trusting the authorities in the PEM file `authorities` instead, where one is named.
    pub async fn reach_trusting(url: &str, authorities: Option<&Path>) -> Result<Self, LoadError> {
        let parsed = parse(url)?;
        let tls = match parsed.scheme_str() {
            Some("https") => Some(Tls::trusting(authorities)?),
            _ => None,
        };
        let usual_port = if tls.is_some() { 443 } else { 80 };
        let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']);
        let unreachable = |reason: String| LoadError::Unreachable { url: url.to_owned(), reason };
        let addresses = lookup_host((host, parsed.port_u16().unwrap_or(usual_port))).await;
        let mut reason = "its name has no address".to_owned();
        for address in addresses.map_err(|error| unreachable(error.to_string()))? {
            match tokio::time::timeout(PATIENCE, try_connecting(address, host, tls.as_ref())).await {
                Ok(Ok(())) => return Self::new(url, &parsed, address, tls),
                Ok(Err(error)) => reason = error.to_string(),
                Err(_) => reason = format!("no connection within {} s", PATIENCE.as_secs()),
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

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// For connections over TLS, with the host's name.
    pub(crate) fn tls(&self) -> Option<(&Tls, &str)> {
        let authority = self.host.to_str().unwrap_or_default();
        let end = authority.rfind(':').filter(|colon| !authority[*colon..].contains(']'));
        self.tls.as_ref().map(|tls| (tls, &authority[..end.unwrap_or(authority.len())]))
    }

    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// What stands before every path.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

async fn try_connecting(address: SocketAddr, host: &str, tls: Option<&Tls>) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    match tls {
        Some(tls) => tls.open(host, stream).await.map(drop),
        None => Ok(()),
    }
}

fn parse(url: &str) -> Result<Uri, LoadError> {
    let wrong = |reason: &str| LoadError::Url { url: url.to_owned(), reason: reason.to_owned() };
    let parsed: Uri = url.parse().map_err(|_| wrong("it cannot be read"))?;
    match parsed.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(wrong("it begins with http:// or https://")),
    }
    if parsed.authority().is_some_and(|authority| authority.as_str().contains('@')) || parsed.query().is_some() {
        return Err(wrong("it has neither a user nor a query"));
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_http_servers_are_taken() {
        for good in ["http://127.0.0.1:8000", "http://[::1]:8000/", "http://host/prefix", "https://host"] {
            parse(good).unwrap();
        }
        for (bad, words) in [("ftp://host", "https://"), ("127.0.0.1:8000", "http://"), ("http://a@b", "user")] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
