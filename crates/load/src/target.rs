//! The server that the load goes to.

use std::{net::SocketAddr, time::Duration};

use hyper::{Uri, header::HeaderValue};
use tokio::net::{TcpStream, lookup_host};

use crate::LoadError;

/// How long a server may take to let the first connection in.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that has let a connection in.
#[derive(Debug, Clone)]
pub struct Target {
    url: String,
    host: HeaderValue,
    prefix: String,
    address: SocketAddr,
}

impl Target {
    /// The server at `url` (`http://host[:port][/prefix]`): its name is resolved once, and of its addresses the first
    /// that lets a connection in is kept.
    pub async fn reach(url: &str) -> Result<Self, LoadError> {
        let parsed = parse(url)?;
        let host = parsed.host().unwrap_or_default().trim_matches(['[', ']']);
        let unreachable = |reason: String| LoadError::Unreachable { url: url.to_owned(), reason };
        let addresses = lookup_host((host, parsed.port_u16().unwrap_or(80))).await;
        let mut reason = "its name has no address".to_owned();
        for address in addresses.map_err(|error| unreachable(error.to_string()))? {
            match tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(_)) => return Self::new(url, &parsed, address),
                Ok(Err(error)) => reason = error.to_string(),
                Err(_) => reason = format!("no connection within {} s", PATIENCE.as_secs()),
            }
        }
        Err(unreachable(reason))
    }

    fn new(url: &str, parsed: &Uri, address: SocketAddr) -> Result<Self, LoadError> {
        let authority = parsed.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(authority);
        let host = host.map_err(|error| LoadError::Url { url: url.to_owned(), reason: error.to_string() })?;
        let prefix = parsed.path().trim_end_matches('/').to_owned();
        Ok(Self { url: url.trim_end_matches('/').to_owned(), host, prefix, address })
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// What stands before every path.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

fn parse(url: &str) -> Result<Uri, LoadError> {
    let wrong = |reason: &str| LoadError::Url { url: url.to_owned(), reason: reason.to_owned() };
    let parsed: Uri = url.parse().map_err(|_| wrong("it cannot be read"))?;
    match parsed.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(wrong("TLS is not spoken yet")),
        _ => return Err(wrong("it begins with http://")),
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
        for good in ["http://127.0.0.1:8000", "http://[::1]:8000/", "http://host/prefix"] {
            parse(good).unwrap();
        }
        for (bad, words) in [("https://host", "TLS"), ("127.0.0.1:8000", "http://"), ("http://a@b", "user")] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
