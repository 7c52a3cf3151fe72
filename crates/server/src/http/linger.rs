//! A body that is read to its end even if nobody wants it.
//!
//! A server that answers early and closes makes the kernel throw the answer away: bytes that arrive for a closed
//! socket are answered with a reset, and the client never reads its 413 or 429. So whatever is left of a body when
//! its owner drops it is read and discarded, within limits (RFC 9112, 9.6).

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::activity::RequestInProgress;

/// Most bytes that are read in vain.
const MOST_BYTES: u64 = 256 << 20;
/// Longest time that this may take.
const MOST_TIME: Duration = Duration::from_secs(10);

/// A request's body; what is left of it when it is dropped is read and discarded. The connection is busy until its end.
pub(super) struct Lingering(Option<(Incoming, RequestInProgress)>);

impl Lingering {
    pub(super) fn new(body: Incoming, request: &RequestInProgress) -> Self {
        Self((!body.is_end_stream()).then(|| (body, request.clone())))
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some((body, _)) = &mut self.0 else { return Poll::Ready(None) };
        let frame = Pin::new(&mut *body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || body.is_end_stream() {
            self.0 = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |(body, _)| body.size_hint())
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if let Some((body, request)) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move {
                let _ = tokio::time::timeout(MOST_TIME, discard(body)).await;
                drop(request);
            });
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut left = MOST_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        if bytes > left {
            return;
        }
        left -= bytes;
    }
}
