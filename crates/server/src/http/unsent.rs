//! Answers that are not sent yet: a large one keeps its request's slot, and memory of the budget for bodies, until the
//! client has taken all but the last pieces of it. A client that does not read then counts like one that does not send.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use caudal_tasks::Held;
use hyper::body::{Body as _, Frame, SizeHint};

use super::body::BodyMemory;
use crate::{app::Slot, problem::Problem};

/// An answer no larger than this is not counted: it fits into the buffers of its socket.
const SMALL: u64 = 64 << 10;

/// The answer's `body`, which holds `slot` until it is sent, and memory if it is one large piece. Fails if there is no
/// memory for it.
pub(super) fn hold(body: Body, slot: Slot, memory: &Arc<BodyMemory>) -> Result<Body, Problem> {
    let length = body.size_hint().exact();
    if length.is_some_and(|length| length <= SMALL) {
        return Ok(body);
    }
    let memory = length.map(|length| memory.hold_answer(length)).transpose()?;
    Ok(Body::new(UnsentBody { body, _slot: slot, _memory: memory }))
}

struct UnsentBody {
    body: Body,
    _slot: Slot,
    _memory: Option<Held>,
}

impl hyper::body::Body for UnsentBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
