//! What is answered to a client whose request could not even be read: hyper answers these with a status and nothing else.
//!
//! Such an answer is recognised as it is written, by its head, which has none of the headers that every answer of ours has,
//! and a body is put behind it.

use axum::http::HeaderMap;
use caudal_types::ErrorKind;

use super::RequestId;
use crate::problem::{ErrorAnswer, Problem};

/// How a client of HTTP/2 that asked nobody begins (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// More bytes than hyper's own answers have.
const LONGEST_HEAD: usize = 256;

/// An answer with a body in place of `head`, if that is one that hyper writes by itself and has none.
pub(super) fn replace(head: &[u8]) -> Option<Vec<u8>> {
    // Most of what is written is looked at no further than this.
    if !head.starts_with(b"HTTP/1.") || head.get(9) != Some(&b'4') || head.len() > LONGEST_HEAD {
        return None;
    }
    let text = str::from_utf8(head).ok()?.strip_suffix("\r\n\r\n")?;
    let (status_line, headers) = text.split_once("\r\n")?;
    let (version, status) = status_line.split_once(' ')?;
    if !matches!(version, "HTTP/1.1" | "HTTP/1.0") {
        return None;
    }
    let mut date = None;
    for line in headers.split("\r\n") {
        let (name, value) = line.split_once(':')?;
        match (&*name.to_ascii_lowercase(), value.trim()) {
            ("content-length", "0") | ("connection", "close") => {}
            ("date", value) => date = Some(value),
            _ => return None,
        }
    }
    let problem = match status.split_once(' ').map_or(status, |(code, _)| code) {
        "400" => malformed(),
        "414" => Problem::new(
            ErrorKind::UriTooLong,
            "the path with its query is longer than 65,534 bytes",
            "send what is long in the body: parameters of pictures as fields of the form",
        ),
        "431" => Problem::new(
            ErrorKind::HeadersTooLarge,
            "the request has more than 100 headers, or its head, path and query included, is larger than 32 KiB",
            "send fewer and shorter headers, and what is long in the body; cookies are not needed",
        ),
        _ => return None,
    };
    Some(write(version, status, date, &problem))
}

fn malformed() -> Problem {
    Problem::new(
        ErrorKind::InvalidRequest,
        "the request's head is not valid HTTP/1.1: its first line or one of its headers cannot be read",
        "send \"METHOD /path HTTP/1.1\", then \"Name: value\" lines, as HTTP libraries do; this port speaks plain HTTP, not TLS",
    )
}

/// The answer to a client whose first request did not arrive in time.
pub(super) fn head_timeout(seconds: f64) -> Vec<u8> {
    let problem = Problem::new(
        ErrorKind::HeadersTimeout,
        format!("the request's headers did not arrive within {seconds} s"),
        "send them at once, or raise header_timeout_secs",
    );
    write("HTTP/1.1", "408 Request Timeout", None, &problem)
}

fn write(version: &str, status: &str, date: Option<&str>, problem: &Problem) -> Vec<u8> {
    let id = RequestId::of(&HeaderMap::new());
    let answer = ErrorAnswer { error: problem.body(Some(id.as_str())) };
    let body = serde_json::to_string(&answer).expect("answers are plain data");
    tracing::debug!(request_id = id.as_str(), code = problem.kind.code(), "a request could not be read");
    let date = date.map_or_else(String::new, |date| format!("date: {date}\r\n"));
    let (id, length) = (id.as_str(), body.len());
    format!(
        "{version} {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nx-request-id: {id}\r\n\
         connection: close\r\n{date}\r\n{body}"
    )
    .into_bytes()
}

/// What a client of HTTP/2 understands as an answer to what it began with, if `unread` is that: no settings of ours, and
/// a GOAWAY frame with the error HTTP_1_1_REQUIRED, whose text tools such as gRPC's show.
pub(super) fn http2(unread: &[u8]) -> Option<Vec<u8>> {
    const SAID: &[u8] = b"this server speaks HTTP/1.1 on this port, not HTTP/2 or gRPC";
    const GOAWAY: u8 = 7;
    const HTTP_1_1_REQUIRED: u32 = 13;
    unread.starts_with(HTTP2_PREFACE).then(|| {
        let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
        frames.extend_from_slice(&(8 + SAID.len() as u32).to_be_bytes()[1..]);
        frames.extend_from_slice(&[GOAWAY, 0, 0, 0, 0, 0]);
        frames.extend_from_slice(&0u32.to_be_bytes());
        frames.extend_from_slice(&HTTP_1_1_REQUIRED.to_be_bytes());
        frames.extend_from_slice(SAID);
        frames
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_a_body_gets_one() {
        let head = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\ndate: Tue, 01 Dec 2026 00:00:00 GMT\r\n\r\n";
        let answer = String::from_utf8(replace(head).unwrap()).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
        assert!(head.ends_with("date: Tue, 01 Dec 2026 00:00:00 GMT"), "{head}");
        let error: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(error["error"]["code"], "headers_too_large");
    }

    #[test]
    fn answers_of_ours_and_other_bytes_are_left_alone() {
        for bytes in [
            &b""[..],
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nx-request-id: 1\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nmore\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"\xff\xff\r\n\r\n",
        ] {
            assert_eq!(replace(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_client_of_http2_is_told_in_its_own_frames() {
        let frames = http2(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let goaway = &frames[9..];
        let length = u32::from_be_bytes([0, goaway[0], goaway[1], goaway[2]]) as usize;
        assert_eq!((goaway.len(), goaway[3], goaway[16]), (9 + length, 7, 13));
        assert_eq!(http2(b"GET / HTTP/1.1\r\n"), None);
    }
}
