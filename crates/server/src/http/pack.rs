//! Answers that are sent compressed (gzip) to clients that accept it.
//!
//! Only what is long enough, compresses well and is there as a whole: streams must come as they are made. An answer is
//! compressed while it is sent, a step at a time, and other connections of the thread get their turn in between.

use std::{
    io::Write,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use hyper::body::{Body as _, Frame};

use crate::route::Route;

/// Shorter answers fit into one packet as they are.
const LEAST: u64 = 1 << 10;
/// Bytes that are compressed in one step: some hundred microseconds.
const STEP: usize = 16 << 10;

/// Whether a client takes gzip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TakesGzip {
    No,
    /// As one of several encodings: what client libraries send by themselves.
    AmongOthers,
    /// As the only encoding: the client asked for it on purpose.
    Alone,
}

impl TakesGzip {
    /// Reads `Accept-Encoding` (RFC 9110, 12.5.3).
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if !headers.contains_key(header::ACCEPT_ENCODING) {
            return Self::No;
        }
        let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
        let (mut gzip, mut others, mut any, mut identity) = (None, 0, None, None);
        for coding in values.flat_map(|value| value.split(',')) {
            let (name, quality) = read_coding(coding);
            match name {
                "" => {}
                name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => gzip = quality,
                name if name.eq_ignore_ascii_case("identity") => identity = quality,
                "*" => any = quality,
                _ => others += 1,
            }
        }
        let quality = gzip.or(any).unwrap_or(0.0);
        match quality > 0.0 && quality >= identity.unwrap_or(0.0) {
            false => Self::No,
            true if others == 0 && gzip.is_some() => Self::Alone,
            true => Self::AmongOthers,
        }
    }
}

/// The name of a coding and its quality, 1 where none is given; none where it cannot be read.
fn read_coding(coding: &str) -> (&str, Option<f32>) {
    let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
    let quality = match parameters.trim().split_once('=') {
        Some((key, value)) if key.trim().eq_ignore_ascii_case("q") => value.trim().parse().ok(),
        _ => Some(1.0),
    };
    (name.trim(), quality)
}

/// Whether answers of this type become much smaller. Event streams never wait to be compressed.
fn is_compressible(content_type: Option<&HeaderValue>) -> bool {
    let media = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = media.split(';').next().unwrap_or_default().trim();
    match media {
        "text/event-stream" => false,
        "application/json"
        | "application/x-ndjson"
        | "application/openmetrics-text"
        | "application/javascript"
        | "application/xml"
        | "image/svg+xml" => true,
        media => media.starts_with("text/") || media.ends_with("+json") || media.ends_with("+xml"),
    }
}

/// `response` as it is sent to a client of `route` that `takes` gzip.
pub(crate) fn pack(mut response: Response, route: Route, takes: TakesGzip) -> Response {
    let is_whole = response.body().size_hint().exact().is_some_and(|length| length >= LEAST);
    if !is_whole
        || !is_compressible(response.headers().get(header::CONTENT_TYPE))
        || response.headers().contains_key(header::CONTENT_ENCODING)
    {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
    // Numbers compress badly, and client libraries that never asked for it should not wait for it.
    let wanted = if route.answers_with_numbers() { takes == TakesGzip::Alone } else { takes != TakesGzip::No };
    if !wanted {
        return response;
    }
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response.map(|body| Body::new(Packing::new(body)))
}

/// A body that is compressed as it is sent.
struct Packing {
    body: Body,
    rest: Bytes,
    /// None once all has been given.
    encoder: Option<GzEncoder<Vec<u8>>>,
    /// Others have their turn before the next step.
    yields: bool,
}

impl Packing {
    fn new(body: Body) -> Self {
        let encoder = GzEncoder::new(Vec::new(), Compression::fast());
        Self { body, rest: Bytes::new(), encoder: Some(encoder), yields: false }
    }

    /// Compresses the next bytes, and ends the whole with the last; empty if nothing is to be sent yet.
    fn step(&mut self) -> std::io::Result<Vec<u8>> {
        let Some(mut encoder) = self.encoder.take() else { return Ok(Vec::new()) };
        let piece = self.rest.split_to(self.rest.len().min(STEP));
        encoder.write_all(&piece)?;
        if self.rest.is_empty() && self.body.is_end_stream() {
            return encoder.finish();
        }
        let made = std::mem::take(encoder.get_mut());
        self.encoder = Some(encoder);
        Ok(made)
    }
}

impl hyper::body::Body for Packing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.yields) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        while this.encoder.is_some() {
            if this.rest.is_empty() && !this.body.is_end_stream() {
                match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                    Some(Ok(frame)) => this.rest = frame.into_data().unwrap_or_default(),
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {}
                }
            }
            let made = this.step().map_err(axum::Error::new)?;
            let more = !this.rest.is_empty();
            if !made.is_empty() {
                this.yields = more;
                return Poll::Ready(Some(Ok(Frame::data(made.into()))));
            }
            if more {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http_body_util::BodyExt;

    use super::*;

    fn takes(value: &str) -> TakesGzip {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
        TakesGzip::of(&headers)
    }

    #[test]
    fn accept_encoding_is_read_with_its_qualities() {
        use TakesGzip::{Alone, AmongOthers, No};
        assert_eq!(TakesGzip::of(&HeaderMap::new()), No);
        for (value, expected) in [
            ("gzip", Alone),
            ("GZIP;q=0.5", Alone),
            ("x-gzip", Alone),
            ("gzip, identity;q=0.5", Alone),
            ("gzip, deflate, br", AmongOthers),
            ("br, *", AmongOthers),
            ("*", AmongOthers),
            ("", No),
            ("identity", No),
            ("deflate, br", No),
            ("gzip;q=0", No),
            ("gzip; q=0.000, *", No),
            ("gzip;q=0.5, identity;q=1", No),
            ("*;q=0", No),
            ("gzip;q=much", No),
        ] {
            assert_eq!(takes(value), expected, "{value:?}");
        }
    }

    fn answer(content_type: &'static str, body: impl Into<Body>) -> Response {
        Response::builder().header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap()
    }

    fn is_packed(response: Response, route: Route, takes: TakesGzip) -> bool {
        pack(response, route, takes).headers().contains_key(header::CONTENT_ENCODING)
    }

    #[test]
    fn what_is_long_and_compressible_is_compressed() {
        let long = || "0123456789".repeat(1000);
        let all = TakesGzip::AmongOthers;
        assert!(is_packed(answer("application/json", long()), Route::Health, all));
        assert!(is_packed(answer("text/plain; version=0.0.4", long()), Route::Metrics, all));
        assert!(is_packed(answer("image/svg+xml", long()), Route::Flamegraph, all));
        assert!(!is_packed(answer("application/json", "{}"), Route::Health, all), "short");
        assert!(!is_packed(answer("application/json", long()), Route::Health, TakesGzip::No));
        assert!(!is_packed(answer("image/jpeg", long()), Route::Predict, TakesGzip::Alone));
        assert!(!is_packed(answer("text/event-stream", long()), Route::RunEvents, all));
        let pieces = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(long()))]);
        assert!(!is_packed(answer("text/plain", Body::from_stream(pieces)), Route::ExportDownload, all), "a stream");
        assert!(!is_packed(answer("application/json", long()), Route::Embeddings, all), "numbers");
        assert!(is_packed(answer("application/json", long()), Route::Embeddings, TakesGzip::Alone));
    }

    #[test]
    fn what_was_packed_is_what_was_there() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for length in [LEAST as usize, STEP, STEP + 1, 10 * STEP + 3] {
            let text: Vec<u8> = (0..length).map(|i| b"abcdef\n"[(i * i / 7) % 7]).collect();
            let packed = pack(answer("text/plain", text.clone()), Route::Metrics, TakesGzip::Alone);
            assert_eq!(packed.headers()[header::VARY], "accept-encoding");
            let bytes = runtime.block_on(packed.into_body().collect()).unwrap().to_bytes();
            let mut whole = Vec::new();
            GzDecoder::new(&bytes[..]).read_to_end(&mut whole).unwrap();
            assert!(whole == text && bytes.len() < length, "{length}");
        }
    }
}
