//! What an answer of 400 and more means for a step.

use std::time::{Duration, SystemTime};

use caudal_flow::{Fault, StepError};
use caudal_types::shorten;
use hyper::{HeaderMap, StatusCode, header::RETRY_AFTER};

use super::Got;

/// The longest pause that is read: a longer one is as good as never, and clocks overflow.
const LONGEST_PAUSE: Duration = Duration::from_secs(366 * 86_400);

/// A refusal, of which the reason is yet to be read.
pub(crate) struct Refusal(StepError);

impl Refusal {
    /// It sends the asker on, where that is not followed.
    pub(crate) fn sends_on(host: &str) -> Self {
        let error = StepError::failed(format!("{host} sends on to another address"));
        Self(error.hint("name the address that it sends on to").for_good())
    }

    /// The failure, with what was said beside it.
    pub(crate) fn because(self, said: &str) -> StepError {
        let said = reason(said);
        let said = said.trim();
        match said.is_empty() {
            true => self.0,
            false => StepError { message: format!("{}: {}", self.0.message, shorten(said)).into(), ..self.0 },
        }
    }
}

/// The failure that the answer of `host` is, if it is one.
pub(crate) fn refusal(host: &str, got: &Got) -> Option<Refusal> {
    let status = got.status;
    let (fault, again, hint) = match status.as_u16() {
        ..=399 => return None,
        401 | 403 | 407 => (Fault::Unauthorized, false, "look at the key or the rights that it is asked with"),
        429 => (Fault::TooManyRequests, true, "ask less often, or ask whoever runs it for more"),
        408 | 425 | 500.. => (Fault::Unreachable, true, "try again later; the fault is theirs"),
        _ => (Fault::Failed, false, "look at the URL and at what is sent"),
    };
    let error = StepError::new(fault, words(host, status)).hint(hint);
    let error = StepError { again, after: pause(&got.headers).filter(|_| again), ..error };
    Some(Refusal(error))
}

fn words(host: &str, status: StatusCode) -> String {
    let known = status.canonical_reason().map(|reason| format!(" ({reason})"));
    format!("{host} answers {}{}", status.as_u16(), known.unwrap_or_default())
}

/// How long to wait, as seconds or as a moment.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let until = || httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok();
    Some(seconds.or_else(until)?.min(LONGEST_PAUSE))
}

/// What is wrong in a body's words: OpenAI's and most others' `error.message`, or its text.
fn reason(body: &str) -> String {
    let Ok(json) = serde_json::from_str::<serde_json::Value>(body) else {
        return if body.trim_start().starts_with('<') { String::new() } else { body.to_owned() };
    };
    let found = [json.pointer("/error/message"), json.get("error"), json.get("message"), json.get("detail")];
    let text = found.into_iter().flatten().find_map(serde_json::Value::as_str);
    text.map_or_else(|| body.to_owned(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_read() {
        let read = |text: &str| pause(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]));
        assert_eq!(read("2"), Some(Duration::from_secs(2)));
        assert_eq!(read("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(read("86400"), Some(Duration::from_secs(86_400)));
        assert_eq!(read("9999999999"), Some(LONGEST_PAUSE));
        assert_eq!((read("-1"), read("soon"), read("NaN")), (None, None, None));
        assert_eq!(read("Thu, 01 Jan 1970 00:00:00 GMT"), None);
        assert!(read("Fri, 31 Dec 9999 23:59:59 GMT").is_some());
    }
}
