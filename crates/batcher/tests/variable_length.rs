//! Rows of different lengths in one run.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use caudal_batcher::{EntryRequest, Failure, Job, OutputRows, Policy, Refusal, VariableLength};
use caudal_testkit::{Scripted, f32_bytes, f32_values};
use caudal_types::{Shape, Trace};
use common::{MS, POLICY, await_answer, block_on, request, row, slow, start, submit, wait_until};

/// A text of `length` equal values, padded with -1.
struct Text {
    value: f32,
    shapes: Vec<Shape>,
}

impl Job for Text {
    type Answer = Vec<f32>;

    fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    fn write_rows(&self, _index: usize, rows: &mut [u8]) {
        let mut values = vec![self.value; self.shapes[0][1]];
        values.resize(rows.len() / size_of::<f32>(), -1.0);
        rows.copy_from_slice(&f32_bytes(&values));
    }

    fn read_outputs(self, outputs: OutputRows<'_>) -> Result<Vec<f32>, Failure> {
        Ok(f32_values(outputs.output(0).unwrap().0.bytes))
    }
}

#[test]
fn texts_share_a_run_padded_to_longest() {
    let ragged = VariableLength { max_batch_tokens: 12, run_tokens: 3 };
    let model = Scripted::ragged().taking(20 * MS, Duration::ZERO);
    let (queue, log) = start(&model, 1, Policy { ragged: Some(ragged), ..POLICY });
    let text = |value: f32, length: usize| {
        let request = EntryRequest { tokens: length, ..request() };
        queue.admit(request).unwrap().submit(Text { value, shapes: vec![vec![1, length]] }, Trace::new(Instant::now()))
    };
    let first = text(0.0, 1);
    wait_until("the first runs", || queue.depth().entries == 0);
    let replies: Vec<_> = [(1.0, 4), (2.0, 3), (3.0, 4), (4.0, 9)].map(|(value, length)| text(value, length)).into();
    block_on(first).unwrap();
    let answers: Vec<_> = replies.into_iter().map(|reply| block_on(reply).unwrap()).collect();
    assert_eq!(log.runs(), [vec![0.0], vec![1.0, 2.0, 3.0], vec![4.0]]);
    assert_eq!(answers[1], [4.0, 4.0, 4.0, -2.0], "three of its own and one of padding");
    assert_eq!(answers[3], [8.0; 9]);
    let stats = queue.stats();
    assert_eq!((stats.batch_tokens.snapshot().sum(), stats.padding.load(Ordering::Relaxed)), (1 + 12 + 9, 1));
}

#[test]
fn further_part_is_admitted_when_new_request_is_refused() {
    let (queue, _log) = start(&slow(50), 1, Policy { max_batch_size: 1, max_queue_size: 1, ..POLICY });
    let running = submit(&queue, request(), row(0.0));
    wait_until("the first runs", || queue.depth().entries == 0);
    let waiting = submit(&queue, request(), row(1.0));
    assert!(matches!(queue.admit(request()), Err(Refusal::Full { .. })));
    let part = queue.admit_part(request()).unwrap().submit(row(2.0), Trace::new(Instant::now()));
    assert_eq!((await_answer(running), await_answer(waiting), await_answer(part)), (Ok(0.0), Ok(2.0), Ok(4.0)));
    queue.close();
    assert!(matches!(queue.admit_part(request()), Err(Refusal::Closed)));
}
