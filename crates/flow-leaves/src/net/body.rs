//! An answer's body, read within limits. Read to its end, its connection waits for the next question; dropped before, it
//! ends.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use caudal_flow::{Fault, StepError};
use http_body_util::BodyExt;
use hyper::{
    body::{Body as _, Incoming},
    header::HeaderValue,
};
use tokio::time::timeout;

use super::{
    idle::{Idle, To},
    unreachable,
    wire::Wire,
};

/// Bytes that are read of what nobody wants to know, so that its connection can be kept.
const REST: usize = 16 << 10;
/// How long that may take.
const REST_WITHIN: Duration = Duration::from_secs(1);

/// The connection a body comes over, and where that waits once the body has come.
pub(super) struct Way {
    pub(super) wire: Wire,
    pub(super) to: To,
    pub(super) idle: Idle,
}

/// A body that is yet to come.
pub(crate) struct Body {
    body: Incoming,
    host: String,
    announced: Option<u64>,
    /// None once it has come, or has broken off.
    way: Option<Way>,
}

impl Body {
    pub(super) fn new(body: Incoming, way: Way, host: String, length: Option<&HeaderValue>) -> Self {
        let announced = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let mut body = Self { body, host, announced, way: Some(way) };
        if body.body.is_end_stream() {
            body.has_come();
        }
        body
    }

    /// Has its connection wait for the next question.
    fn has_come(&mut self) {
        if let Some(Way { wire, to, idle }) = self.way.take() {
            idle.put(to, wire);
        }
    }

    /// Lets what is left of it come without being waited for, if it is little.
    pub(crate) fn leave(mut self) {
        if self.way.is_some() {
            tokio::spawn(async move {
                let mut read = 0;
                let rest = async {
                    while let Ok(Some(piece)) = self.piece().await
                        && read <= REST
                    {
                        read += piece.len();
                    }
                };
                let _ = timeout(REST_WITHIN, rest).await;
            });
        }
    }

    /// Its next piece.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, StepError> {
        loop {
            match self.body.frame().await {
                None => {
                    self.has_come();
                    return Ok(None);
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    self.way = None;
                    return Err(unreachable(format!("{} broke off: {error}", self.host)));
                }
            }
        }
    }

    /// All of it, which is not more than `most` bytes.
    pub(crate) async fn whole(mut self, most: usize) -> Result<Bytes, StepError> {
        let too_long = |host: &str| {
            let error = StepError::new(Fault::Output, format!("{host} answers with more than {most} bytes"));
            error.hint("ask for less, or raise max_bytes").for_good()
        };
        if self.announced.is_some_and(|length| length > most as u64) {
            return Err(too_long(&self.host));
        }
        let mut all = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            if all.len() + piece.len() > most {
                return Err(too_long(&self.host));
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// Its beginning, as far as it comes: what is said beside a failure.
    pub(crate) async fn beginning(mut self, most: usize) -> String {
        let mut all = BytesMut::new();
        while let Ok(Some(piece)) = self.piece().await
            && all.len() < most
        {
            all.extend_from_slice(&piece);
        }
        all.truncate(most);
        String::from_utf8_lossy(&all).into_owned()
    }
}
