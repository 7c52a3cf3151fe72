//! Origin of a request that a browser sends: pages of other sites may neither change nor ask anything here, unless the
//! settings allow their origin (CORS).
//!
//! Browsers say where a request comes from: `Sec-Fetch-Site` on requests over TLS or to this machine, `Origin` on all that
//! may change something. Programs send neither, and are not concerned.

use std::time::Duration;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
};
use caudal_types::{ErrorKind, shorten};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::{admin::is_admin, host::Authority};
use crate::problem::Problem;

const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// How long a browser keeps the answer to a preflight.
const PREFLIGHT_AGE: Duration = Duration::from_secs(600);

/// Headers of answers that pages of allowed origins may read.
const EXPOSED: [HeaderName; 9] = [
    HeaderName::from_static("x-ignored-fields"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-process-time"),
    HeaderName::from_static("server-timing"),
    HeaderName::from_static("inference-header-content-length"),
    header::RETRY_AFTER,
    header::LOCATION,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
];

/// Origins whose pages may use the server.
#[derive(Debug, Clone, Default)]
pub struct AllowedOrigins {
    any: bool,
    /// As browsers write them.
    named: Vec<String>,
}

impl AllowedOrigins {
    /// The origins of `list`, comma-separated: `scheme://host[:port]`, or `*` for all.
    ///
    /// # Errors
    /// Where one is not an origin: the reason.
    pub fn new(list: &str) -> Result<Self, String> {
        let (mut any, mut named) = (false, Vec::new());
        for origin in list.split(',').map(str::trim).filter(|origin| !origin.is_empty()) {
            let is_origin = origin.split_once("://").is_some_and(|(scheme, authority)| {
                scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                    && !scheme.is_empty()
                    && Authority::parse(authority).is_some()
            });
            match origin {
                "*" => any = true,
                // Browsers leave out the port that a scheme has anyway.
                _ if is_origin => {
                    let origin = origin.to_ascii_lowercase();
                    let port = if origin.starts_with("https:") { ":443" } else { ":80" };
                    named.push(origin.strip_suffix(port).unwrap_or(&origin).to_owned());
                }
                _ => {
                    return Err(format!(
                        "{origin:?} is not an origin: expected https://HOST[:PORT] without a path, or *"
                    ));
                }
            }
        }
        Ok(Self { any, named })
    }

    fn allow(&self, origin: Option<&HeaderValue>) -> bool {
        let named = |origin: &HeaderValue| self.named.iter().any(|named| named.as_bytes() == origin.as_bytes());
        self.any || origin.is_some_and(named)
    }

    /// The layer that answers preflights and marks answers for these origins; none where no origin is allowed. Credentials
    /// that the browser keeps are never allowed, and neither are admin routes.
    pub(crate) fn cors(&self) -> Option<CorsLayer> {
        if !self.any && self.named.is_empty() {
            return None;
        }
        let allowed = self.clone();
        let allow = move |origin: &HeaderValue, head: &Parts| !is_admin(head.uri.path()) && allowed.allow(Some(origin));
        let layer = CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(allow))
            .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers(AllowHeaders::mirror_request())
            .allow_private_network(true)
            .expose_headers(EXPOSED)
            .max_age(PREFLIGHT_AGE);
        Some(layer)
    }

    /// Checks that `request`, which is meant for `authority`, comes from no page of another origin, or from an allowed one.
    /// A link to the server may be followed, except to admin routes.
    pub(crate) fn check(&self, request: &Request, authority: Option<&Authority<'_>>) -> Result<(), Problem> {
        let headers = request.headers();
        if is_own(headers, authority) {
            return Ok(());
        }
        let admin = is_admin(request.uri().path());
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let (origin, second) = (origins.next(), origins.next());
        if !admin && (self.allow(origin) && second.is_none() || is_link(request)) {
            return Ok(());
        }
        let from = origin.and_then(|origin| origin.to_str().ok()).map_or("another site".into(), shorten);
        Err(Problem::new(
            ErrorKind::CrossOrigin,
            format!("the request comes from a page of {from}, and not from one of this server"),
            match admin {
                true => {
                    "admin routes are not answered to pages of other sites: use a program, or enter the address itself"
                }
                false => "add the page's origin to the setting cors_allowed_origins, or ask from a program",
            },
        ))
    }
}

/// True unless a page of another origin sends the request. What the browser says of itself goes before what can be compared, because a
/// proxy may have changed Host.
fn is_own(headers: &HeaderMap, authority: Option<&Authority<'_>>) -> bool {
    let mut sites = headers.get_all(SITE).iter().peekable();
    if sites.peek().is_some() {
        return sites.all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => origin.to_str().is_ok_and(|origin| is_same(origin, authority)),
        _ => false,
    }
}

fn is_same(origin: &str, authority: Option<&Authority<'_>>) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let usual = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let (Some(page), Some(own)) = (Authority::parse(host), authority) else { return false };
    page.host.eq_ignore_ascii_case(own.host) && page.port.unwrap_or(usual) == own.port.unwrap_or(usual)
}

/// True for a link that is followed: the answer is shown, and no page reads it.
fn is_link(request: &Request) -> bool {
    let says = |name: HeaderName, word: &str| request.headers().get(name).is_some_and(|value| value == word);
    matches!(*request.method(), Method::GET | Method::HEAD) && says(MODE, "navigate") && says(DEST, "document")
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    const FETCHED: &[(&str, &str)] = &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")];
    const LINK: &[(&str, &str)] =
        &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

    fn passes(allowed: &str, line: &str, headers: &[(&str, &str)]) -> bool {
        let (method, path) = line.split_once(' ').unwrap();
        let builder = Request::builder().method(method).uri(path);
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        let request = builder.body(Body::empty()).unwrap();
        let authority = Authority::parse("localhost:8000");
        AllowedOrigins::new(allowed).unwrap().check(&request, authority.as_ref()).is_ok()
    }

    #[test]
    fn programs_and_own_pages_pass() {
        for line in ["GET /consultations", "POST /consultations", "GET /admin/memory", "PATCH /admin/models/m"] {
            for headers in [
                &[][..],
                &[("origin", "http://localhost:8000")],
                &[("sec-fetch-site", "same-origin"), ("origin", "https://behind.a.proxy")],
                &[("sec-fetch-site", "none")],
            ] {
                assert!(passes("", line, headers), "{line} {headers:?}");
            }
        }
        assert!(passes("", "GET /docs", LINK), "a link may be followed");
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        for headers in [
            FETCHED,
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "garbage")],
            &[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")],
            &[("origin", "https://evil.example")],
            &[("origin", "null")],
            &[("origin", "http://localhost:3000")],
            &[("origin", "http://localhost")],
            &[("origin", "http://localhost:8000"), ("origin", "http://evil.example")],
            &[("origin", "http://localhost:8000"), ("sec-fetch-site", "cross-site")],
        ] {
            for line in ["POST /consultations", "GET /consultations", "GET /admin/memory", "OPTIONS /predict/m"] {
                assert!(!passes("", line, headers), "{line} {headers:?}");
            }
        }
        assert!(!passes("", "POST /consultations", LINK), "a form is no link");
        assert!(!passes("", "GET /debug/pprof/profile", LINK), "a link takes no profile");
    }

    #[test]
    fn origins_allowed_pass_except_to_admin_routes() {
        let page = |origin| [("sec-fetch-site", "cross-site"), ("origin", origin)];
        for allowed in ["https://app.example", "https://other.example, https://App.example", "*"] {
            assert!(passes(allowed, "POST /predict/m", &page("https://app.example")), "{allowed}");
            assert!(!passes(allowed, "GET /admin/memory", &page("https://app.example")), "{allowed}");
        }
        assert!(passes("*", "POST /predict/m", &page("null")));
        for origin in ["http://app.example", "https://app.example:444", "https://app.example.evil", "null"] {
            assert!(!passes("https://app.example", "POST /predict/m", &page(origin)), "{origin}");
        }
    }

    #[test]
    fn origins_malformed_are_refused_in_settings() {
        for good in ["", "http://localhost:3000", "https://a.example,http://[::1]:80", "chrome-extension://abc", "*"] {
            AllowedOrigins::new(good).unwrap();
        }
        for wrong in ["app.example", "https://a/", "https://a/path", "https://", "null", "https://*.example"] {
            assert!(AllowedOrigins::new(wrong).is_err(), "{wrong}");
        }
    }
}
