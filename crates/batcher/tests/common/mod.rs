//! Shared helpers of the queue tests: rows that are doubled, and a slow model.
#![allow(dead_code, reason = "no test needs all of it")]

use std::{
    future::Future,
    time::{Duration, Instant},
};

use caudal_batcher::{
    EntryRequest, Failure, Instances, Job, OutputRows, Policy, Queue, QueueConfig, QueueTimeoutAction, QueueTimeouts,
    Reply,
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
    by_priority: [QueueTimeouts { max_queue_size: None, timeout: None, then: QueueTimeoutAction::Reject }; 3],
    run_in_place: 0,
};
pub(crate) const JOINED: QueueConfig = QueueConfig { joined: true, ordered: false, recorded_runs: 0 };

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

    fn write_rows(&self, _index: usize, rows: &mut [u8]) {
        assert!(!self.poisoned, "poisoned");
        rows.copy_from_slice(&f32_bytes(&[self.value; 4]));
    }

    fn read_outputs(self, outputs: OutputRows<'_>) -> Result<f32, Failure> {
        let (view, shape) = outputs.output(0).unwrap();
        assert_eq!(shape, [1, 4]);
        Ok(f32_values(view.bytes)[3])
    }
}

pub(crate) fn request() -> EntryRequest {
    EntryRequest { rows: 1, tokens: 0, bytes: 16, priority: Priority::Normal, deadline: Deadline::NEVER }
}

pub(crate) fn start(model: &Scripted, instances: usize, policy: Policy) -> (Queue, Log) {
    (start_with(JOINED, model, instances, policy), model.log())
}

pub(crate) fn slow(ms: u64) -> Scripted {
    Scripted::new(4).taking(MS * ms as u32, Duration::ZERO)
}

pub(crate) fn submit(queue: &Queue, request: EntryRequest, job: Row) -> Reply<f32> {
    queue.admit(request).unwrap().submit(job, Trace::new(Instant::now()))
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

pub(crate) fn await_answer(reply: Reply<f32>) -> Result<f32, Failure> {
    block_on(reply)
}

pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(5);
    while !condition() {
        assert!(Instant::now() < end, "it never came to this: {what}");
        std::thread::sleep(MS);
    }
}

pub(crate) fn start_with(habits: QueueConfig, model: &Scripted, instances: usize, policy: Policy) -> Queue {
    let side_by_side = (0..instances).map(|_| model.create_instance(1).unwrap()).collect();
    Queue::start("scripted", model.spec(), habits, Instances { concurrent: side_by_side, wide: None }, policy).unwrap()
}
