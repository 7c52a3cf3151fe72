//! Who may administer the server: whoever has the key, or sits at the machine.

use std::net::{IpAddr, SocketAddr};

use axum::http::{Extensions, HeaderMap, Uri, header};
use caudal_types::ErrorKind;

use crate::{app::App, problem::Problem};

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl Peer {
    /// A number that tells its connection from others that are open.
    pub(crate) fn number(&self) -> u64 {
        let host = match self.0.ip() {
            IpAddr::V4(host) => u64::from(host.to_bits()),
            IpAddr::V6(host) => host.to_bits() as u64,
        };
        host.rotate_left(16) ^ u64::from(self.0.port())
    }
}

/// Headers by which a proxy says that the request is not its own.
const FORWARDED: [&str; 5] = ["forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"];

/// Whether a request with `headers` may change the server. With the key in `Authorization: Bearer` or `X-Admin-Key` it
/// may. Without, only from this machine, under a name of this machine, and neither through a proxy nor from a page of
/// somebody else that is open in a browser here.
pub(crate) fn check(app: &App, headers: &HeaderMap, extensions: &Extensions) -> Result<(), Problem> {
    let peer = extensions.get::<Peer>().map(|peer| peer.0.ip());
    let settings = app.settings();
    if has_key(settings.admin_key.as_deref(), headers) || is_owner(peer, headers) {
        return Ok(());
    }
    Err(match settings.admin_key {
        Some(_) => Problem::new(
            ErrorKind::Unauthorized,
            "only who has the admin key may do this",
            "send it as Authorization: Bearer, or ask from the machine itself, without a proxy",
        ),
        None => Problem::new(
            ErrorKind::Forbidden,
            "only who administers this server may do this, and it has no admin key",
            "ask from the machine itself, without a proxy, or start the server with an admin_key",
        ),
    })
}

fn has_key(key: Option<&str>, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let given = bearer.or_else(|| text("x-admin-key"));
    key.zip(given).is_some_and(|(key, given)| same(key.as_bytes(), given.trim().as_bytes()))
}

/// Whether two secrets are the same, in a time that tells nothing of where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn is_owner(peer: Option<IpAddr>, headers: &HeaderMap) -> bool {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(header::HOST).is_some_and(is_this_machine);
    let origin = text(header::ORIGIN).is_none_or(|origin| {
        origin.parse::<Uri>().is_ok_and(|uri| uri.authority().is_some_and(|name| is_this_machine(name.as_str())))
    });
    peer.is_some_and(|peer| peer.to_canonical().is_loopback())
        && host
        && origin
        && FORWARDED.iter().all(|name| !headers.contains_key(*name))
}

/// Whether a name, perhaps with a port, is one of this machine alone.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn owner(peer: &str, pairs: &[(&'static str, &'static str)]) -> bool {
        is_owner(Some(peer.parse().unwrap()), &headers(pairs))
    }

    #[test]
    fn who_sits_at_the_machine_is_its_owner() {
        for host in ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"] {
            assert!(is_owner(Some("127.0.0.1".parse().unwrap()), &headers(&[("host", host)])), "{host}");
        }
        assert!(owner("::1", &[("host", "localhost")]));
        assert!(owner("::ffff:127.0.0.1", &[("host", "localhost")]));
        assert!(owner("127.0.0.1", &[("host", "localhost"), ("origin", "http://127.0.0.1:8000")]));
    }

    #[test]
    fn nobody_else_is() {
        assert!(!owner("10.0.0.7", &[("host", "localhost")]), "from elsewhere");
        assert!(!owner("127.0.0.1", &[]), "no name");
        assert!(!owner("127.0.0.1", &[("host", "caudal.example")]), "a name that was made to point here");
        assert!(!owner("127.0.0.1", &[("host", "localhost.example")]));
        for name in FORWARDED {
            assert!(!owner("127.0.0.1", &[("host", "localhost"), (name, "10.0.0.7")]), "through a proxy: {name}");
        }
        for origin in ["https://example.com", "null", "http://localhost.example", "garbage"] {
            assert!(!owner("127.0.0.1", &[("host", "localhost"), ("origin", origin)]), "a page from {origin}");
        }
    }

    #[test]
    fn the_key_opens_from_anywhere_and_a_wrong_one_does_not() {
        assert!(has_key(Some("secret"), &headers(&[("authorization", "Bearer secret")])));
        assert!(has_key(Some("secret"), &headers(&[("x-admin-key", "secret")])));
        for wrong in ["Bearer secre", "Bearer secrets", "Basic secret", "secret", "Bearer "] {
            assert!(!has_key(Some("secret"), &headers(&[("authorization", wrong)])), "{wrong}");
        }
        assert!(!has_key(None, &headers(&[("x-admin-key", "")])));
    }
}
