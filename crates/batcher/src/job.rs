//! What waits in a queue, and how its answer finds the way back.

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
    Failure, Stats,
    order::Turn,
    queue::{Inner, Key},
    stats::Times,
};

/// Something that brings rows to a model and makes an answer of what comes out.
///
/// Its methods run on an instance's thread, so they should be short. A panic in one of them fails this entry
/// alone.
pub trait Job: Send + 'static {
    /// What it makes of the model's output.
    type Answer: Send + 'static;

    /// The shape of each input, in the model's order; the first dimension counts the rows where rows are
    /// joined, the second is the length of the longest of them where they differ in length.
    fn shapes(&self) -> &[Shape];

    /// Writes all its rows of input `index` into `rows`. May be called again if a batch has to be run anew. Where rows
    /// differ in length, those in `rows` are as long as the longest of the batch.
    fn fill(&self, index: usize, rows: &mut [u8]);

    /// Makes the answer from its rows of the outputs.
    fn read(self, outputs: OutputRows<'_>) -> Result<Self::Answer, Failure>;
}

/// The rows of a run's outputs that belong to one entry.
#[derive(Debug, Clone, Copy)]
pub struct OutputRows<'a> {
    views: &'a [TensorView<'a>],
    rows: Option<(usize, usize)>,
}

impl<'a> OutputRows<'a> {
    /// Rows `rows.0..rows.0 + rows.1` of `views`, or all of them where rows are not joined.
    pub(crate) fn new(views: &'a [TensorView<'a>], rows: Option<(usize, usize)>) -> Self {
        Self { views, rows }
    }

    /// Output `index` as the model gave it, its first dimension cut to these rows where rows are joined.
    pub fn get(&self, index: usize) -> Option<(TensorView<'a>, Shape)> {
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

/// A job with its answer's type forgotten, so that a queue can hold jobs of all kinds.
pub(crate) trait AnyJob: Send {
    fn shapes(&self) -> &[Shape];
    /// False when it panicked.
    fn fill(&self, index: usize, rows: &mut [u8]) -> bool;
    fn abandoned(&self) -> bool;
    /// Answers, and counts how that went and how long it took.
    fn answer(self: Box<Self>, outputs: OutputRows<'_>, trace: &Trace, times: &Times, stats: &Stats);
    fn fail(self: Box<Self>, failure: Failure);
}

struct TypedJob<J: Job> {
    job: J,
    reply: oneshot::Sender<Result<J::Answer, Failure>>,
    /// Where answers leave in order.
    turn: Option<Turn>,
}

impl<J: Job> AnyJob for TypedJob<J> {
    fn shapes(&self) -> &[Shape] {
        self.job.shapes()
    }

    fn fill(&self, index: usize, rows: &mut [u8]) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.job.fill(index, rows))).is_ok()
    }

    fn abandoned(&self) -> bool {
        self.reply.is_closed()
    }

    fn answer(self: Box<Self>, outputs: OutputRows<'_>, trace: &Trace, times: &Times, stats: &Stats) {
        let Self { job, reply, turn } = *self;
        let answer = catch_unwind(AssertUnwindSafe(|| job.read(outputs))).unwrap_or_else(|panic| {
            Err(Failure::Failed(format!("reading the output failed: {}", panic_words(&*panic))))
        });
        // Before the answer is out: who has it may ask for the count.
        stats.count_answer(times, answer.is_ok());
        // Nobody may be waiting any more; then the answer is nobody's.
        let Some(turn) = turn else {
            trace.enter(Stage::Encode);
            return drop(reply.send(answer));
        };
        let trace = trace.clone();
        turn.answer(move || {
            trace.enter(Stage::Encode);
            drop(reply.send(answer));
        });
    }

    fn fail(self: Box<Self>, failure: Failure) {
        let Self { reply, turn, .. } = *self;
        match turn {
            None => drop(reply.send(Err(failure))),
            Some(turn) => turn.answer(move || drop(reply.send(Err(failure)))),
        }
    }
}

/// What a panic said.
pub(crate) fn panic_words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked")
}

/// The future answer to a job. Dropping it takes the job out of the queue, or out of the run it is part of.
#[derive(Debug)]
pub struct Ticket<A> {
    reply: oneshot::Receiver<Result<A, Failure>>,
    place: Option<(Arc<Inner>, Key, Deadline)>,
}

pub(crate) fn ticket<J: Job>(
    job: J,
    queue: Arc<Inner>,
    key: Key,
    deadline: Deadline,
    turn: Option<Turn>,
) -> (Box<dyn AnyJob>, Ticket<J::Answer>) {
    let (sender, reply) = oneshot::channel();
    (Box::new(TypedJob { job, reply: sender, turn }), Ticket { reply, place: Some((queue, key, deadline)) })
}

impl<A> Future for Ticket<A> {
    type Output = Result<A, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let reply = Pin::new(&mut self.reply).poll(context);
        if reply.is_ready() {
            self.place = None;
        }
        reply.map(|reply| reply.unwrap_or(Err(Failure::Closed)))
    }
}

impl<A> Drop for Ticket<A> {
    fn drop(&mut self) {
        if let Some((queue, key, deadline)) = self.place.take() {
            self.reply.close();
            // What was answered before this moment has ended, and was counted, whether or not anybody looked.
            if self.reply.try_recv().is_err() {
                queue.abandon(key, deadline);
            }
        }
    }
}
