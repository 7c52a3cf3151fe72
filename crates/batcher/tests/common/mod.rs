//! What the tests of the queue share: rows that are doubled, a model that takes its time.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    future::Future,
    time::{Duration, Instant},
};

use caudal_batcher::{
    Failure, Habits, Instances, Job, OutputRows, Patience, Policy, Queue, Request, Ticket, TimeoutAction,
};
use caudal_engine::Model as _;
use caudal_testkit::{Log, Scripted, f32_bytes, f32_values};
use caudal_types::{Deadline, Priority, Shape, Trace};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const POLICY: Policy = Policy {
    max_batch_size: 4,
    preferred_batch_sizes: Vec::new(),
    ragged: None,
    max_queue_delay: Duration::ZERO,
    max_queue_size: 16,
    max_queue_bytes: 1 << 20,
    by_priority: [Patience { max_queue_size: None, timeout: None, then: TimeoutAction::Reject }; 3],
    run_in_place: 0,
};
pub(crate) const JOINED: Habits = Habits { joined: true, ordered: false, keep_runs: 0 };

/// One row of four equal values; the answer is the doubled value.
pub(crate) struct Row {
    pub(crate) value: f32,
    pub(crate) shapes: Vec<Shape>,
    pub(crate) poisoned: bool,
}

pub(crate) fn row(value: f32) -> Row {
    Row { value, shapes: vec![vec![1, 4]], poisoned: false }
}

impl Job for Row {
    type Answer = f32;

    fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    fn fill(&self, _index: usize, rows: &mut [u8]) {
        assert!(!self.poisoned, "poisoned");
        rows.copy_from_slice(&f32_bytes(&[self.value; 4]));
    }

    fn read(self, outputs: OutputRows<'_>) -> Result<f32, Failure> {
        let (view, shape) = outputs.get(0).unwrap();
        assert_eq!(shape, [1, 4]);
        Ok(f32_values(view.bytes)[3])
    }
}

pub(crate) fn request() -> Request {
    Request { rows: 1, tokens: 0, bytes: 16, priority: Priority::Normal, deadline: Deadline::NEVER }
}

pub(crate) fn start(model: &Scripted, instances: usize, policy: Policy) -> (Queue, Log) {
    (start_with(JOINED, model, instances, policy), model.log())
}

pub(crate) fn slow(ms: u64) -> Scripted {
    Scripted::new(4).taking(MS * ms as u32, Duration::ZERO)
}

pub(crate) fn submit(queue: &Queue, request: Request, job: Row) -> Ticket<f32> {
    queue.admit(request).unwrap().submit(job, Trace::new(Instant::now()))
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

pub(crate) fn answer(ticket: Ticket<f32>) -> Result<f32, Failure> {
    wait(ticket)
}

pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < end, "it never came to this: {what}");
        std::thread::sleep(MS);
    }
}

pub(crate) fn start_with(habits: Habits, model: &Scripted, instances: usize, policy: Policy) -> Queue {
    let side_by_side = (0..instances).map(|_| model.instance(1).unwrap()).collect();
    Queue::start("scripted", model.spec(), habits, Instances { side_by_side, wide: None }, policy).unwrap()
}
