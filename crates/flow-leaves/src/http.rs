//! `http`: asks an address of the net.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use caudal_flow::{Action, Answer, Call, Fault, Map, Registry, Started, StepError, Value};
use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use hyper::{
    HeaderMap, Method,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    aside::aside,
    net::{self, Ask, Limits, Net},
    plain::{add, leaf},
};

const ABOUT: &str = "Sends an HTTP request to a URL (`url`, or the input) and returns status_code, headers and body: \
                    JSON is parsed, text is a string, anything else is bytes. With gives: body, returns the body \
                    alone. Only public addresses, and those that the operator allows, are called; a status of 400 or \
                    more fails the step.";

/// What may be asked.
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// Seconds for an answer, if nobody says how many.
const SECONDS: f64 = 30.0;
/// The longest that an answer may take, in seconds.
const LONGEST: f64 = 600.0;
/// The largest answer.
const LARGEST: usize = 64 << 20;
/// Headers that are the connection's own.
const OURS: [&str; 6] = ["host", "content-length", "transfer-encoding", "connection", "accept-encoding", "upgrade"];

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The URL; default: the input, or its field `url`.
    #[serde(default)]
    url: Option<String>,
    /// GET, HEAD, POST, PUT, PATCH or DELETE.
    #[serde(default = "get")]
    method: String,
    /// Query parameters that are added to the URL.
    #[serde(default)]
    query: BTreeMap<String, String>,
    /// Request headers.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Request body: text and bytes unchanged, anything else as JSON. Default: the input, if `url` is set here.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    body: Option<Value>,
    /// Timeout in seconds; default: 30.
    #[serde(default)]
    timeout_s: Option<f64>,
    /// Alias of `timeout_s`.
    #[serde(default)]
    timeout: Option<f64>,
    /// Maximum size of the response in bytes.
    #[serde(default = "bytes")]
    max_bytes: usize,
    /// Return the whole response, or its body alone.
    #[serde(default)]
    gives: Gives,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Gives {
    /// status_code, headers and body.
    #[default]
    All,
    /// The body.
    Body,
}

fn get() -> String {
    "GET".to_owned()
}

fn bytes() -> usize {
    4 << 20
}

struct Http {
    said: Value,
    settings: Settings,
    method: Method,
    headers: HeaderMap,
    time: Duration,
    net: Net,
}

/// Adds `http`, and `http_get`, which is the same for GET alone.
pub(crate) fn register(registry: &mut Registry, net: &Net) {
    for name in ["http", "http_get"] {
        let net = net.clone();
        let methods = if name == "http" { &METHODS[..] } else { &METHODS[..1] };
        add(registry, name, leaf::<Settings, _>(ABOUT, move |said, settings| make(&net, methods, said, settings)));
    }
}

fn make(net: &Net, methods: &[Method], said: &Value, settings: Settings) -> Result<Http, String> {
    let method = methods.iter().find(|method| method.as_str().eq_ignore_ascii_case(&settings.method)).cloned();
    let method = method.ok_or_else(|| {
        let known: Vec<&str> = methods.iter().map(Method::as_str).collect();
        format!("method: {:?} is none of {}", settings.method, known.join(", "))
    })?;
    let time = settings.timeout_s.or(settings.timeout).unwrap_or(SECONDS);
    if !(0.001..=LONGEST).contains(&time) {
        return Err(format!("timeout_s: an answer may take up to {LONGEST} seconds"));
    }
    if !(1..=LARGEST).contains(&settings.max_bytes) {
        return Err(format!("max_bytes: an answer may have 1 to {LARGEST} bytes"));
    }
    if let Some(url) = &settings.url {
        net::address(url).map_err(|error| format!("url: {error}"))?;
    }
    let headers = settings.headers.iter().map(header).collect::<Result<_, _>>()?;
    let time = Duration::from_secs_f64(time);
    Ok(Http { said: said.clone(), settings, method, headers, time, net: net.clone() })
}

fn header((name, value): (&String, &String)) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = |what: &str| format!("headers: {name:?} {what}");
    let read: HeaderName = name.parse().map_err(|_| wrong("is no name of a header"))?;
    if OURS.contains(&read.as_str()) {
        return Err(wrong("is not for a pipeline to say"));
    }
    Ok((read, value.parse().map_err(|_| wrong("cannot have that value"))?))
}

impl Action for Http {
    fn identity(&self) -> Value {
        Value::list([Value::text("http"), self.said.clone()])
    }

    fn start(&self, call: Call) -> Started<'_> {
        Started::Later(Box::pin(async move { self.ask(&call).await }))
    }

    /// What is asked for may change, but what changes something must be done each time.
    fn repeatable(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

impl Http {
    async fn ask(&self, call: &Call) -> Answer {
        let left = call.deadline.moment().map(|moment| moment.saturating_duration_since(std::time::Instant::now()));
        let limits =
            Limits { time: left.map_or(self.time, |left| left.min(self.time)), bytes: self.settings.max_bytes };
        let (status, headers, body) = self.net.ask(self.question(call)?, limits).await?;
        let (bytes, own) = (body.len(), headers.clone());
        let body = aside(bytes, move || read(&own, body)).await?;
        if self.settings.gives == Gives::Body {
            return Ok(body);
        }
        let text = |value: &HeaderValue| Value::text(String::from_utf8_lossy(value.as_bytes()));
        let headers: Map = headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
        let all =
            [("status_code", Value::from(u32::from(status.as_u16()))), ("headers", headers.into()), ("body", body)];
        Ok(Value::Map(all.into_iter().collect()))
    }

    fn question(&self, call: &Call) -> Result<Ask, StepError> {
        let Settings { url, query, .. } = &self.settings;
        let input = call.input.plain().map_err(|error| StepError::input(error.to_string()).for_good())?;
        let asked = url.as_deref().or_else(|| input.as_text()).or_else(|| input.get("url").and_then(Value::as_text));
        let nowhere =
            || StepError::input("nobody says which URL is asked").hint("say url, or give it as the input").for_good();
        let mut target = net::address(asked.ok_or_else(nowhere)?)?;
        if !query.is_empty() {
            target.query_pairs_mut().extend_pairs(query);
        }
        let method = self.method.clone();
        let (body, kind) = match method {
            Method::GET | Method::HEAD => (Bytes::new(), None),
            _ => sent(self.settings.body.as_ref().or(if url.is_some() { Some(&input) } else { input.get("body") })),
        };
        let mut headers = self.headers.clone();
        // By it whoever is asked to change something knows what was asked before, by a try that came to nothing.
        if let (false, Ok(key)) = (matches!(method, Method::GET | Method::HEAD), call.key().parse()) {
            headers.entry("idempotency-key").or_insert(key);
        }
        if let Some(kind) = kind {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        }
        Ok(Ask { method, url: target, headers, body })
    }
}

/// What is sent, and of which type it is.
fn sent(body: Option<&Value>) -> (Bytes, Option<&'static str>) {
    match body {
        None | Some(Value::Null) => (Bytes::new(), None),
        Some(Value::Text(text)) => (Bytes::copy_from_slice(text.as_bytes()), Some("text/plain; charset=utf-8")),
        Some(Value::Bytes(bytes)) => (bytes.clone(), Some("application/octet-stream")),
        Some(json) => (json.to_json().into(), Some("application/json")),
    }
}

/// An answer as a value.
fn read(headers: &HeaderMap, body: Bytes) -> Answer {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (kind, encoding) = (mime(kind), charset(kind));
    let is_json = kind == "application/json" || kind.ends_with("+json");
    if is_json && !body.is_empty() {
        let (text, encoding, lossy) = encoding.unwrap_or(UTF_8).decode(&body);
        let wrong = |why: String| {
            let message = format!("the answer says that it is JSON, and is not: {why}");
            StepError::new(Fault::Output, message).hint("try again; if it stays so, ask another address")
        };
        return match lossy {
            true => Err(wrong(format!("it has bytes that are not {}", encoding.name()))),
            false => Value::from_json(text.as_bytes()).map_err(|error| wrong(error.to_string())),
        };
    }
    // A text without a charset is UTF-8 where it can be, else what browsers take it for.
    let fallback = kind.starts_with("text/").then_some(WINDOWS_1252);
    Ok(match (encoding, str::from_utf8(&body), fallback) {
        (Some(encoding), ..) => Value::text(encoding.decode(&body).0),
        (None, Ok(text), _) => Value::text(caudal_types::without_mark(text)),
        (None, Err(_), Some(fallback)) => Value::text(fallback.decode(&body).0),
        (None, Err(_), None) => Value::Bytes(body),
    })
}

/// The media type, without what is said beside it.
fn mime(kind: &str) -> String {
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The encoding that a content type names.
fn charset(kind: &str) -> Option<&'static Encoding> {
    let mut parameters = kind.split(';').skip(1).filter_map(|parameter| parameter.split_once('='));
    let (_, label) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    Encoding::for_label(label.trim().trim_matches('"').as_bytes())
}

#[cfg(test)]
mod tests {
    use caudal_flow::value;

    use super::*;

    #[test]
    fn answers_are_read_in_the_charset_that_they_name() {
        let check = |kind: &'static str, body: &[u8], expected: Value| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            assert_eq!(read(&headers, Bytes::copy_from_slice(body)), Ok(expected), "{kind}");
        };
        check("text/plain; charset=iso-8859-1", b"caf\xe9", value!("café"));
        check("text/csv;Charset=\"windows-1252\"; header=present", b"\x80 5", value!("€ 5"));
        check("application/xml; charset=shift_jis", b"\x93\xfa", value!("日"));
        check("text/plain; charset=utf-16le", b"h\0i\0", value!("hi"));
        check("text/plain", "café".as_bytes(), value!("café"));
        check("text/html", b"caf\xe9", value!("café"));
        check("text/plain; charset=no-such", b"caf\xe9", value!("café"));
        check("text/plain; charset=utf-8", b"\xef\xbb\xbfx", value!("x"));
        check("application/json; charset=latin1", b"{\"a\": \"\xe9\"}", value!({"a": "é"}));
        check("application/json", b"\xef\xbb\xbf[1]", value!([1]));
        check("application/octet-stream", b"\xff\xfe\0", Value::Bytes(Bytes::from_static(b"\xff\xfe\0")));
        let long = b"{\"folio\":12345678901234567890123}";
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        assert_eq!(read(&headers, Bytes::from_static(long)).unwrap().to_json().as_bytes(), long);
    }
}
