//! Host of a request (RFC 9112, section 3.2), and the names under which the server answers.
//!
//! A page can make its own name resolve to the address of this machine (DNS rebinding). To the browser the server is then
//! of the page's origin, and the page reads everything. Such a request still carries the page's name as its Host.

use std::net::{IpAddr, Ipv6Addr};

use axum::{
    extract::Request,
    http::{Version, header},
};
use caudal_types::{ErrorKind, shorten};

use crate::problem::Problem;

/// Host and port that a request is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Authority<'a> {
    /// A name without a final dot, or an address without brackets.
    pub(crate) host: &'a str,
    pub(crate) port: Option<u16>,
    is_address: bool,
}

impl<'a> Authority<'a> {
    /// Reads `host`, `host:port`, or either with an IPv6 address in brackets.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let (host, port, is_address) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<Ipv6Addr>().ok()?;
                (host, port, true)
            }
            None => {
                let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
                let host = host.strip_suffix('.').unwrap_or(host);
                let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
                if host.is_empty() || !host.bytes().all(is_name) {
                    return None;
                }
                (host, port, host.parse::<IpAddr>().is_ok())
            }
        };
        let port = match port.strip_prefix(':') {
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            Some(_) => return None,
            None if port.is_empty() => None,
            None => return None,
        };
        Some(Self { host, port, is_address })
    }

    /// What `request` is meant for. An absolute form goes before the header; only HTTP/1.0 may do without both.
    pub(crate) fn of(request: &'a Request) -> Result<Option<Self>, Problem> {
        let mut headers = request.headers().get_all(header::HOST).iter();
        let (first, second) = (headers.next(), headers.next());
        if second.is_some() {
            return Err(malformed("expected one Host header, got more"));
        }
        let parse =
            |text| Self::parse(text).ok_or_else(|| malformed("expected Host to be a name or address and a port"));
        let of_header = first.map(|value| parse(value.to_str().unwrap_or_default())).transpose()?;
        let of_target = request.uri().authority().map(|authority| parse(authority.as_str())).transpose()?;
        match of_target.or(of_header) {
            None if request.version() >= Version::HTTP_11 => Err(malformed("expected a Host header, got none")),
            authority => Ok(authority),
        }
    }
}

fn malformed(words: &str) -> Problem {
    Problem::new(
        ErrorKind::InvalidRequest,
        format!("the request does not say which host it is for: {words}"),
        "send one header, such as Host: localhost:8000",
    )
}

/// Names under which the server answers, beside addresses.
#[derive(Debug, Clone, Default)]
pub struct AllowedHosts {
    /// Lower case; one that begins with `*.` stands for all names below.
    named: Vec<String>,
    /// The machine's own names.
    own: Vec<String>,
}

impl AllowedHosts {
    /// The names of `list`, comma-separated, and the host name `machine` of this machine.
    ///
    /// # Errors
    /// Where one is not a name: the reason.
    pub fn new(list: &str, machine: &str) -> Result<Self, String> {
        let names = list
            .split(',')
            .map(|name| name.trim().trim_end_matches('.').to_ascii_lowercase())
            .filter(|name| !name.is_empty());
        let named: Vec<_> = names.collect();
        let is_name = |name: &str| Authority::parse(name).is_some_and(|name| name.port.is_none());
        let wrong = named.iter().find(|name| *name != "*" && !is_name(name.strip_prefix("*.").unwrap_or(name)));
        if let Some(wrong) = wrong {
            return Err(format!("{wrong:?} is not a host name: expected names without scheme and port, *.NAME or *"));
        }
        let machine = machine.to_ascii_lowercase();
        let short = machine.split('.').next().unwrap_or_default().to_owned();
        Ok(Self { named, own: vec!["localhost".to_owned(), machine, short] })
    }

    /// Checks that the server answers under `authority`. Without names from the settings, every name is allowed on a socket
    /// that other machines reach: only they know under which names they do.
    pub(crate) fn check(&self, authority: Option<&Authority<'_>>, loopback: bool) -> Result<(), Problem> {
        let Some(authority) = authority.filter(|authority| !authority.is_address) else { return Ok(()) };
        if self.named.is_empty() && !loopback || self.knows(authority.host) {
            return Ok(());
        }
        Err(Problem::new(
            ErrorKind::MisdirectedRequest,
            format!("this server does not answer under the name {:?}", shorten(authority.host)),
            "ask it by its address or as localhost, or add the name to the setting allowed_hosts",
        ))
    }

    fn knows(&self, host: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_prefix('*') {
            Some("") => true,
            Some(suffix) => {
                let at = host.len().checked_sub(suffix.len()).filter(|at| *at > 0);
                at.and_then(|at| host.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
            None => host.eq_ignore_ascii_case(pattern),
        };
        self.own.iter().chain(&self.named).any(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn authority_is_read_as_rfc_3986_has_it() {
        for (text, host, port) in [
            ("localhost", "localhost", None),
            ("Box.Clinic.example.:8000", "Box.Clinic.example", Some(8000)),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]:8000", "::1", Some(8000)),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("docker_name:", "docker_name", None),
        ] {
            let read = Authority::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((read.host, read.port), (host, port), "{text}");
        }
        for wrong in [
            "",
            ":80",
            ".",
            "[::1]evil.example",
            "localhost:evil",
            "localhost:80:80",
            "::1",
            "a b",
            "a@b",
            "a/b",
            "[a]",
            "[::1",
            "a:99999",
            "a:+80",
            "a,b",
            "[::1%eth0]",
        ] {
            assert_eq!(Authority::parse(wrong), None, "{wrong}");
        }
    }

    fn request(target: &str, hosts: &[&str], version: Version) -> Request {
        let builder = Request::builder().uri(target).version(version);
        hosts.iter().fold(builder, |builder, host| builder.header("host", *host)).body(Body::empty()).unwrap()
    }

    #[test]
    fn host_missing_doubled_or_malformed_is_refused() {
        let of = |target: &str, hosts: &[&str], version| {
            let request = request(target, hosts, version);
            Authority::of(&request).map(|authority| authority.map(|authority| authority.host.to_owned()))
        };
        let new = Version::HTTP_11;
        assert_eq!(of("/", &["localhost"], new).unwrap().unwrap(), "localhost");
        assert_eq!(of("http://evil.example/", &["localhost"], new).unwrap().unwrap(), "evil.example");
        assert_eq!(of("/", &[], Version::HTTP_10).unwrap(), None);
        for (target, hosts) in [
            ("/", &[][..]),
            ("/", &["localhost", "localhost"]),
            ("/", &["localhost:evil"]),
            ("http://localhost/", &["localhost:evil"]),
            ("http://user@localhost/", &["localhost"]),
        ] {
            assert_eq!(of(target, hosts, new).unwrap_err().kind, ErrorKind::InvalidRequest, "{target} {hosts:?}");
        }
    }

    fn allows(hosts: &AllowedHosts, host: &str, loopback: bool) -> bool {
        hosts.check(Authority::parse(host).as_ref(), loopback).is_ok()
    }

    #[test]
    fn names_unknown_are_refused_on_loopback_or_where_names_are_set() {
        let default = AllowedHosts::new("", "Box.lan").unwrap();
        for host in ["localhost:8000", "LOCALHOST", "box.lan", "box", "127.0.0.1", "10.0.0.7", "[::1]:8000"] {
            assert!(allows(&default, host, true), "{host}");
        }
        for host in ["rebound.example", "localhost.example", "127.0.0.1.example", "xbox"] {
            assert!(!allows(&default, host, true), "{host}");
        }
        assert!(allows(&default, "caudal.prod.svc", false), "other machines have names of their own for it");
        let set = AllowedHosts::new("ai.example, *.clinic.example", "box").unwrap();
        for host in ["ai.example", "a.clinic.example:443", "A.B.clinic.example", "localhost", "10.0.0.7"] {
            assert!(allows(&set, host, false) && allows(&set, host, true), "{host}");
        }
        for host in ["clinic.example", ".clinic.example", "evilclinic.example", "b.ai.example"] {
            assert!(Authority::parse(host).is_none_or(|host| set.check(Some(&host), false).is_err()), "{host}");
        }
        assert!(allows(&AllowedHosts::new("*", "box").unwrap(), "any.example", true));
        for wrong in ["http://a", "a:80", "a b", "*a", "a.*"] {
            assert!(AllowedHosts::new(wrong, "box").is_err(), "{wrong}");
        }
    }
}
