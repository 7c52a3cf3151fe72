//! Resolved settings of exports, and the syntax of OpenTelemetry's variables.

use std::{path::PathBuf, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::Sampler;

/// Transport of exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf over HTTP/1.1.
    Http,
    /// gRPC.
    Grpc,
}

/// Compression of exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// No compression.
    Plain,
    /// gzip.
    Gzip,
}

/// A collector and its transport.
#[derive(Debug, Clone)]
pub struct Collector {
    /// Transport.
    pub protocol: Protocol,
    /// URL, from [`export_endpoint`].
    pub endpoint: String,
    /// Headers of each export, from [`Collector::parse_headers`].
    pub headers: HeaderMap,
    /// Timeout of an export.
    pub timeout: Duration,
    /// Compression.
    pub encoding: Encoding,
    /// PEM file of certificates to trust instead of the public authorities.
    pub certificate: Option<PathBuf>,
}

/// Settings of a tracer.
#[derive(Debug, Clone)]
pub struct TraceSettings {
    /// Collector of spans.
    pub collector: Collector,
    /// Resource attributes of this process.
    pub resource: Vec<(String, String)>,
    /// Sampler of requests.
    pub sampler: Sampler,
    /// Maximum number of queued requests; further ones are dropped and counted.
    pub queue: usize,
    /// Maximum number of requests per export.
    pub batch: usize,
    /// Time for which the first request of a batch waits for more.
    pub delay: Duration,
    /// True if every stage is a span; otherwise only queue and inference are.
    pub stages: bool,
}

/// Settings of a meter.
#[derive(Debug, Clone)]
pub struct MetricSettings {
    /// Collector of metrics.
    pub collector: Collector,
    /// Resource attributes of this process.
    pub resource: Vec<(String, String)>,
    /// Interval between exports.
    pub interval: Duration,
}

/// Settings of the exporters.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Trace export, if enabled.
    pub traces: Option<TraceSettings>,
    /// Metric export, if enabled.
    pub metrics: Option<MetricSettings>,
}

/// Path of trace exports over HTTP.
pub const TRACES_PATH: &str = "/v1/traces";
/// Path of metric exports over HTTP.
pub const METRICS_PATH: &str = "/v1/metrics";

impl Collector {
    /// Parses headers from comma-separated `name=value` pairs.
    pub fn parse_headers(text: &str) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in parse_key_values(text)? {
            let header = HeaderName::try_from(&name).map_err(|_| format!("invalid header name {name:?}"))?;
            let mut value = HeaderValue::try_from(value).map_err(|_| format!("invalid value of header {name}"))?;
            // The value may be a key and must not be logged.
            value.set_sensitive(true);
            headers.append(header, value);
        }
        Ok(headers)
    }
}

/// The URL of exports to the address `text`. `path` is the signal's HTTP path, appended to the address; `None` if the
/// address is complete. gRPC uses paths of its own.
pub fn export_endpoint(text: &str, protocol: Protocol, path: Option<&str>) -> Result<String, String> {
    let wrong = || "expected an address such as http://collector:4318 (4317 for gRPC) or https://…".to_owned();
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

/// Parses comma-separated `name=value` pairs with percent-encoded names and values.
pub fn parse_key_values(text: &str) -> Result<Vec<(String, String)>, String> {
    let entries = text.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (name, value) = pair
            .split_once('=')
            .filter(|(name, _)| !name.trim().is_empty())
            .ok_or_else(|| "expected a list such as name=value,other=value".to_owned())?;
        let decoded = |text: &str| {
            let text = percent_decode_str(text.trim()).decode_utf8();
            text.map(String::from).map_err(|_| format!("the value of {} is not UTF-8", name.trim()))
        };
        Ok((decoded(name)?, decoded(value)?))
    };
    entries.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, http: &str, whole: &str, grpc: &str) {
        assert_eq!(export_endpoint(text, Protocol::Http, Some(TRACES_PATH)).as_deref(), Ok(http));
        assert_eq!(export_endpoint(text, Protocol::Http, None).as_deref(), Ok(whole));
        assert_eq!(export_endpoint(text, Protocol::Grpc, Some(TRACES_PATH)).as_deref(), Ok(grpc));
    }

    #[test]
    fn export_endpoint_appends_the_path_of_the_signal() {
        check("http://c:4318", "http://c:4318/v1/traces", "http://c:4318/", "http://c:4318");
        check("http://c:4318/", "http://c:4318/v1/traces", "http://c:4318/", "http://c:4318");
        check("https://c/otlp/", "https://c/otlp/v1/traces", "https://c/otlp/", "https://c");
        check("http://[::1]:4318/x", "http://[::1]:4318/x/v1/traces", "http://[::1]:4318/x", "http://[::1]:4318");
        for bad in ["", "collector:4317", "collector", "ftp://c", "http://", "http:///v1", "/v1/traces", "http://a b"] {
            assert!(export_endpoint(bad, Protocol::Http, Some(METRICS_PATH)).unwrap_err().contains("such as"), "{bad}");
        }
    }

    #[test]
    fn parse_key_values_decodes_percent_encoding() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parse_key_values("a=1, b = two%20words,c=x=y,"),
            Ok(vec![pair("a", "1"), pair("b", "two words"), pair("c", "x=y")])
        );
        assert_eq!(parse_key_values(""), Ok(Vec::new()));
        assert!(parse_key_values("a").is_err() && parse_key_values("=1").is_err());
        assert!(parse_key_values("a=%ff").unwrap_err().contains('a'));
    }

    #[test]
    fn parse_headers_marks_values_as_sensitive() {
        let headers = Collector::parse_headers("Authorization=Bearer%20secret,x-tenant=me").unwrap();
        assert_eq!(headers["authorization"], "Bearer secret");
        assert!(!format!("{headers:?}").contains("secret"));
        assert!(Collector::parse_headers("two words=1").unwrap_err().contains("invalid header name"));
        let error = Collector::parse_headers("key=sec%0Aret").unwrap_err();
        assert!(error.contains("key") && !error.contains("sec"), "{error}");
    }
}
