//! An answer's body, read within limits; dropped, its connection ends.

use bytes::{Bytes, BytesMut};
use caudal_flow::{Fault, StepError};
use http_body_util::BodyExt;
use hyper::{body::Incoming, header::HeaderValue};
use tokio::task::JoinHandle;

use super::unreachable;

/// What drives a connection, for as long as somebody waits for its answer.
pub(super) struct Driver(JoinHandle<()>);

impl Driver {
    pub(super) fn new(task: JoinHandle<()>) -> Self {
        Self(task)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A body that is yet to come.
pub(crate) struct Body {
    body: Incoming,
    host: String,
    announced: Option<u64>,
    _driver: Driver,
}

impl Body {
    pub(super) fn new(body: Incoming, driver: Driver, host: String, length: Option<&HeaderValue>) -> Self {
        let announced = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self { body, host, announced, _driver: driver }
    }

    /// Its next piece.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, StepError> {
        loop {
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|error| unreachable(format!("{} broke off: {error}", self.host)))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
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
