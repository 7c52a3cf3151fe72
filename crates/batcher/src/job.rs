//! Jobs and replies: the work that waits in a queue, and the future that receives its answer.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use caudal_types::{Deadline, Shape, Stage, TensorView, Trace};
use tokio::sync::oneshot;

use crate::{
    Failure, QueueStats,
    queue::{EntryKey, QueueShared},
    reply_order::OrderedReply,
    stats::EntryTimes,
};

/// A provider of input rows that converts the outputs to an answer.
///
/// Its methods run on an instance thread, so they should be short. A panic in one of them fails this entry alone.
pub trait Job: Send + 'static {
    /// The answer.
    type Answer: Send + 'static;

    /// The shape of each input, in the model's order. The first dimension counts the rows if rows are joined; the
    /// second is the length of the longest row if rows differ in length.
    fn shapes(&self) -> &[Shape];

    /// Writes all its rows of input `index` into `rows`. May be called again if a batch has to be repeated. If rows
    /// differ in length, those in `rows` are as long as the longest of the batch.
    fn write_rows(&self, index: usize, rows: &mut [u8]);

    /// Converts its rows of the outputs to the answer.
    fn read_outputs(self, outputs: OutputRows<'_>) -> Result<Self::Answer, Failure>;
}

/// The rows of the outputs that belong to one entry.
#[derive(Debug, Clone, Copy)]
pub struct OutputRows<'a> {
    views: &'a [TensorView<'a>],
    rows: Option<(usize, usize)>,
}

impl<'a> OutputRows<'a> {
    /// Rows `rows.0..rows.0 + rows.1` of `views`, or all of them if rows are not joined.
    pub(crate) fn new(views: &'a [TensorView<'a>], rows: Option<(usize, usize)>) -> Self {
        Self { views, rows }
    }

    /// Output `index` of the model, its first dimension reduced to these rows if rows are joined.
    pub fn output(&self, index: usize) -> Option<(TensorView<'a>, Shape)> {
        let view = self.views.get(index)?;
        match self.rows {
            None => Some((*view, view.shape.to_vec())),
            Some((from, count)) => {
                let mut shape = view.shape.to_vec();
                *shape.first_mut()? = count;
                Some((TensorView { bytes: view.rows(from, count), ..*view }, shape))
            }
        }
    }
}

/// A job without the type of its answer, so that a queue can hold jobs of all types.
pub(crate) trait AnyJob: Send {
    fn shapes(&self) -> &[Shape];
    /// Returns false if it panicked.
    fn try_write_rows(&self, index: usize, rows: &mut [u8]) -> bool;
    fn is_abandoned(&self) -> bool;
    /// Sends the answer, and counts its result and time.
    fn send_answer(self: Box<Self>, outputs: OutputRows<'_>, trace: &Trace, times: &EntryTimes, stats: &QueueStats);
    fn send_failure(self: Box<Self>, failure: Failure);
}

struct TypedJob<J: Job> {
    job: J,
    reply: oneshot::Sender<Result<J::Answer, Failure>>,
    /// Its place in the order of replies, if replies are ordered.
    turn: Option<OrderedReply>,
}

impl<J: Job> AnyJob for TypedJob<J> {
    fn shapes(&self) -> &[Shape] {
        self.job.shapes()
    }

    fn try_write_rows(&self, index: usize, rows: &mut [u8]) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.job.write_rows(index, rows))).is_ok()
    }

    fn is_abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn send_answer(self: Box<Self>, outputs: OutputRows<'_>, trace: &Trace, times: &EntryTimes, stats: &QueueStats) {
        let Self { job, reply, turn } = *self;
        let answer = catch_unwind(AssertUnwindSafe(|| job.read_outputs(outputs))).unwrap_or_else(|panic| {
            Err(Failure::Failed(format!("reading the output failed: {}", panic_message(&*panic))))
        });
        // Count before sending, because the receiver may read the counters.
        stats.count_answer(times, answer.is_ok());
        // The receiver may be gone; then the answer is dropped.
        let Some(turn) = turn else {
            trace.enter(Stage::Encode);
            return drop(reply.send(answer));
        };
        let trace = trace.clone();
        turn.send_in_order(move || {
            trace.enter(Stage::Encode);
            drop(reply.send(answer));
        });
    }

    fn send_failure(self: Box<Self>, failure: Failure) {
        let Self { reply, turn, .. } = *self;
        match turn {
            None => drop(reply.send(Err(failure))),
            Some(turn) => turn.send_in_order(move || drop(reply.send(Err(failure)))),
        }
    }
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked")
}

/// The future answer to a job. Dropping it removes the job from the queue, or interrupts its run if no other entry
/// needs it.
#[derive(Debug)]
pub struct Reply<A> {
    reply: oneshot::Receiver<Result<A, Failure>>,
    place: Option<(Arc<QueueShared>, EntryKey, Deadline)>,
}

pub(crate) fn typed_job<J: Job>(
    job: J,
    queue: Arc<QueueShared>,
    key: EntryKey,
    deadline: Deadline,
    turn: Option<OrderedReply>,
) -> (Box<dyn AnyJob>, Reply<J::Answer>) {
    let (sender, reply) = oneshot::channel();
    (Box::new(TypedJob { job, reply: sender, turn }), Reply { reply, place: Some((queue, key, deadline)) })
}

impl<A> Future for Reply<A> {
    type Output = Result<A, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = Pin::new(&mut self.reply).poll(context);
        if reply.is_ready() {
            self.place = None;
        }
        reply.map(|reply| reply.unwrap_or(Err(Failure::Closed)))
    }
}

impl<A> Drop for Reply<A> {
    fn drop(&mut self) {
        if let Some((queue, key, deadline)) = self.place.take() {
            self.reply.close();
            // An answer that was sent before this moment is complete and counted, whether or not it was received.
            if self.reply.try_recv().is_err() {
                queue.abandon_entry(key, deadline);
            }
        }
    }
}
