//! Being sent on: some times, and no further than one may go oneself.

use std::time::Duration;

use bytes::Bytes;
use caudal_flow::{Fault, StepError};
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, LOCATION, USER_AGENT},
};
use tokio::time::timeout;
use url::Url;

use super::{Ask, Got, Net, Trust, checked, connection::host, unreachable};

/// How often one is sent on.
const MOST: usize = 5;

/// What an answer may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// How long, from the first byte that is sent to the last that is read.
    pub(crate) time: Duration,
    /// Bytes.
    pub(crate) bytes: usize,
}

impl Net {
    /// Asks and reads the answer, within its limits, following where it is sent on to.
    pub(crate) async fn ask(&self, ask: Ask, limits: Limits) -> Result<(StatusCode, HeaderMap, Bytes), StepError> {
        let (name, time) = (host(&ask.url), limits.time);
        let work = async {
            let got = self.follow(ask).await?;
            if let Some(refusal) = super::refusal(&name, &got) {
                return Err(refusal.because(&got.body.beginning(super::REASON_BYTES).await));
            }
            Ok((got.status, got.headers, got.body.whole(limits.bytes).await?))
        };
        timeout(time, work).await.unwrap_or_else(|_| {
            let error = StepError::new(Fault::TimedOut, format!("{name} did not answer within {time:?}"));
            Err(error.hint("raise timeout_s, or ask for less"))
        })
    }

    async fn follow(&self, mut ask: Ask) -> Result<Got, StepError> {
        for _ in 0..=MOST {
            let got = self.send(&ask, Trust::Pipeline, |_| ()).await?;
            let Some(to) = target(&ask.url, &got)? else { return Ok(got) };
            got.body.leave();
            ask = sent_on(ask, got.status, to);
        }
        Err(unreachable(format!("{} sends on more than {MOST} times", host(&ask.url))).for_good())
    }
}

/// Where the answer sends the asker, if it does.
fn target(from: &Url, got: &Got) -> Result<Option<Url>, StepError> {
    let sends = matches!(got.status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(to) = got.headers.get(LOCATION).filter(|_| sends) else { return Ok(None) };
    let to = to.to_str().ok().and_then(|to| from.join(to).ok());
    let nowhere = || unreachable(format!("{} sends on to what is no URL", host(from))).for_good();
    checked(to.ok_or_else(nowhere)?).map(Some)
}

/// The same question to another address. What was said to one host is not said to another.
fn sent_on(ask: Ask, status: StatusCode, to: Url) -> Ask {
    let again = matches!(status.as_u16(), 307 | 308) || matches!(ask.method, Method::GET | Method::HEAD);
    let mut headers = ask.headers;
    if to.origin() != ask.url.origin() {
        let kept = [ACCEPT, CONTENT_TYPE, USER_AGENT].map(|name| headers.remove(&name).map(|value| (name, value)));
        headers = kept.into_iter().flatten().collect();
    }
    if again {
        return Ask { url: to, headers, ..ask };
    }
    headers.remove(CONTENT_TYPE);
    Ask { method: Method::GET, url: to, headers, body: Bytes::new() }
}
