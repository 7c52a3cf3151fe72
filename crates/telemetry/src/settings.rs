//! What is told to whom, resolved; and how OpenTelemetry writes it down.

use std::{path::PathBuf, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::Sampler;

/// How what is told travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf by HTTP/1.1.
    Http,
    /// gRPC.
    Grpc,
}

/// How what travels is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Plain,
    /// By gzip.
    Gzip,
}

/// A collector, and how it is told.
#[derive(Debug, Clone)]
pub struct Collector {
    /// How what is told travels.
    pub protocol: Protocol,
    /// Where to, as [`address`] gives it.
    pub endpoint: String,
    /// What goes with each export, as [`Collector::headers`] reads it.
    pub headers: HeaderMap,
    /// How long an export may take.
    pub timeout: Duration,
    /// How it is packed.
    pub encoding: Encoding,
    /// A file of certificates (PEM) that are trusted instead of those that the web trusts.
    pub certificate: Option<PathBuf>,
}

/// Everything that a tracer keeps to.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// Who is told of requests.
    pub collector: Collector,
    /// What is said of this process, as names and values.
    pub resource: Vec<(String, String)>,
    /// Which requests are told of.
    pub sampler: Sampler,
    /// Requests that may wait to be told of; more are dropped, and counted.
    pub queue: usize,
    /// Most of them in one export.
    pub batch: usize,
    /// How long the first of a batch waits for more.
    pub delay: Duration,
    /// Whether each stage is a span, not the queue and the run alone.
    pub stages: bool,
}

/// Everything that a meter keeps to.
#[derive(Debug, Clone)]
pub struct MetricSettings {
    /// Who is told of metrics.
    pub collector: Collector,
    /// What is said of this process, as names and values.
    pub resource: Vec<(String, String)>,
    /// How often they are told.
    pub interval: Duration,
}

/// What is told to whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who is told of requests, if anybody.
    pub traces: Option<TraceSettings>,
    /// Who is told of metrics, if anybody.
    pub metrics: Option<MetricSettings>,
}

/// Where collectors take spans by HTTP.
pub const TRACES: &str = "/v1/traces";
/// Where they take metrics.
pub const METRICS: &str = "/v1/metrics";

impl Collector {
    /// The headers that `text` says, as `name=value` divided by commas.
    pub fn headers(text: &str) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs(text)? {
            let header = HeaderName::try_from(&name).map_err(|_| format!("{name:?} is no name of a header"))?;
            let mut value = HeaderValue::try_from(value).map_err(|_| format!("what {name} is set to is no header"))?;
            // It may be a key: no log shows it.
            value.set_sensitive(true);
            headers.append(header, value);
        }
        Ok(headers)
    }
}

/// Where exports go, of an address that somebody has given. HTTP has a `path` for what they tell of, which is put behind the
/// address unless there is none because this is the whole of it; gRPC has its own.
pub fn address(text: &str, protocol: Protocol, path: Option<&str>) -> Result<String, String> {
    let wrong = || "it is an address such as http://collector:4318 (4317 for gRPC) or https://…".to_owned();
    let uri: Uri = text.trim().parse().map_err(|_| wrong())?;
    let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(wrong());
    };
    if authority.host().is_empty() {
        return Err(wrong());
    }
    Ok(match (protocol, path) {
        (Protocol::Grpc, _) => format!("{scheme}://{authority}"),
        (Protocol::Http, None) => uri.to_string(),
        (Protocol::Http, Some(path)) => format!("{scheme}://{authority}{}{path}", uri.path().trim_end_matches('/')),
    })
}

/// Names and values that `text` says as `name=value` divided by commas, where `%` and two hexadecimal digits stand for
/// what could not be written.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let said = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.trim().is_empty())
            .ok_or_else(|| "it is a list such as name=value,other=value".to_owned())?;
        let decoded = |text: &str| {
            let text = percent_decode_str(text.trim()).decode_utf8();
            text.map(String::from).map_err(|_| format!("what {} is set to is not UTF-8", name.trim()))
        };
        Ok((decoded(name)?, decoded(value)?))
    };
    said.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, http: &str, whole: &str, grpc: &str) {
        assert_eq!(address(text, Protocol::Http, Some(TRACES)).as_deref(), Ok(http));
        assert_eq!(address(text, Protocol::Http, None).as_deref(), Ok(whole));
        assert_eq!(address(text, Protocol::Grpc, Some(TRACES)).as_deref(), Ok(grpc));
    }

    #[test]
    fn addresses_get_the_path_that_they_need() {
        check("http://c:4318", "http://c:4318/v1/traces", "http://c:4318/", "http://c:4318");
        check("http://c:4318/", "http://c:4318/v1/traces", "http://c:4318/", "http://c:4318");
        check("https://c/otlp/", "https://c/otlp/v1/traces", "https://c/otlp/", "https://c");
        check("http://[::1]:4318/x", "http://[::1]:4318/x/v1/traces", "http://[::1]:4318/x", "http://[::1]:4318");
        for bad in ["", "collector:4317", "collector", "ftp://c", "http://", "http:///v1", "/v1/traces", "http://a b"] {
            assert!(address(bad, Protocol::Http, Some(METRICS)).unwrap_err().contains("such as"), "{bad}");
        }
    }

    #[test]
    fn lists_are_read_and_unescaped() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            pairs("a=1, b = two%20words,c=x=y,"),
            Ok(vec![pair("a", "1"), pair("b", "two words"), pair("c", "x=y")])
        );
        assert_eq!(pairs(""), Ok(Vec::new()));
        assert!(pairs("a").is_err() && pairs("=1").is_err());
        assert!(pairs("a=%ff").unwrap_err().contains('a'));
    }

    #[test]
    fn headers_are_headers_and_their_values_stay_out_of_logs() {
        let headers = Collector::headers("Authorization=Bearer%20secret,x-tenant=me").unwrap();
        assert_eq!(headers["authorization"], "Bearer secret");
        assert!(!format!("{headers:?}").contains("secret"));
        assert!(Collector::headers("two words=1").unwrap_err().contains("no name"));
        let error = Collector::headers("key=sec%0Aret").unwrap_err();
        assert!(error.contains("key") && !error.contains("sec"), "{error}");
    }
}
