//! Queue policies, and their change while the queue serves.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use caudal_batcher::{
    EntryRequest, Failure, Policy, QueueConfig, QueueStats, QueueTimeoutAction, QueueTimeouts, Refusal,
};
use caudal_engine::Model as _;
use caudal_testkit::Scripted;
use caudal_types::Priority;
use common::{JOINED, MS, POLICY, await_answer, block_on, request, row, slow, start, start_with, submit, wait_until};
use futures_util::future::join_all;

fn low_priority_request() -> EntryRequest {
    EntryRequest { priority: Priority::Low, ..request() }
}

fn low_priority_policy(timeouts: QueueTimeouts) -> Policy {
    let mut policy = Policy { max_batch_size: 1, ..POLICY };
    policy.by_priority[Priority::Low as usize] = timeouts;
    policy
}

#[test]
fn batch_leaves_at_preferred_size_and_is_counted() {
    let policy = Policy { preferred_batch_sizes: vec![2], max_queue_delay: Duration::from_secs(5), ..POLICY };
    let (queue, log) = start(&slow(1), 1, policy);
    let replies: Vec<_> = (0..6).map(|i| submit(&queue, request(), row(i as f32))).collect();
    block_on(join_all(replies)).into_iter().for_each(|answer| assert!(answer.is_ok()));
    assert_eq!(log.sizes().iter().sum::<usize>(), 6);
    assert!(log.sizes().iter().all(|rows| [2, 4].contains(rows)), "{:?}", log.sizes());
    let at = QueueStats::CLOSE_REASONS.iter().position(|name| *name == "preferred").unwrap();
    assert!(queue.stats().stops[at].load(Relaxed) > 0);
}

#[test]
fn queue_limits_entries_per_priority() {
    let (queue, _log) = start(
        &slow(200),
        1,
        low_priority_policy(QueueTimeouts { max_queue_size: Some(1), ..QueueTimeouts::default() }),
    );
    let running = submit(&queue, request(), row(0.0));
    wait_until("the first runs", || queue.depth().entries == 0);
    let waiting = submit(&queue, low_priority_request(), row(1.0));
    assert!(matches!(queue.admit(low_priority_request()), Err(Refusal::Full { limit: 1, .. })));
    assert!(queue.admit(request()).is_ok(), "others may");
    drop(waiting);
    assert!(queue.admit(low_priority_request()).is_ok());
    drop(running);
}

#[test]
fn expired_entry_fails_or_is_delayed() {
    let timeouts = |then| QueueTimeouts { timeout: Some(10 * MS), then, ..QueueTimeouts::default() };
    let (queue, log) = start(&slow(40), 1, low_priority_policy(timeouts(QueueTimeoutAction::Reject)));
    let running = submit(&queue, request(), row(0.0));
    wait_until("the first runs", || queue.depth().entries == 0);
    let tired = submit(&queue, low_priority_request(), row(1.0));
    let patient = submit(&queue, request(), row(2.0));
    assert_eq!(await_answer(tired), Err(Failure::Expired));
    assert!(await_answer(running).is_ok() && await_answer(patient).is_ok());
    assert_eq!(log.runs().concat(), [0.0, 2.0]);
    assert_eq!(queue.stats().expired.load(Relaxed), 1);

    let (queue, log) = start(&slow(40), 1, low_priority_policy(timeouts(QueueTimeoutAction::Delay)));
    let running = submit(&queue, request(), row(0.0));
    wait_until("the first runs", || queue.depth().entries == 0);
    let tired = submit(&queue, low_priority_request(), row(1.0));
    std::thread::sleep(35 * MS);
    // Of the same priority and younger: only delayed entries run after it.
    let fresh = submit(&queue, low_priority_request(), row(2.0));
    for reply in [running, tired, fresh] {
        await_answer(reply).unwrap();
    }
    assert_eq!(log.runs().concat(), [0.0, 2.0, 1.0]);
}

#[test]
fn ordered_queue_answers_in_admission_order() {
    let model = Scripted::new(4).taking(5 * MS, Duration::ZERO);
    let queue = start_with(QueueConfig { ordered: true, ..JOINED }, &model, 3, Policy { max_batch_size: 1, ..POLICY });
    let first = queue.admit(request()).unwrap();
    let gone = queue.admit(request()).unwrap();
    let (sender, arrived) = std::sync::mpsc::channel();
    let later: Vec<_> = (2..6u8).map(|i| (i, submit(&queue, low_priority_request(), row(f32::from(i))))).collect();
    let threads: Vec<_> = later
        .into_iter()
        .map(|(i, reply)| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                await_answer(reply).unwrap();
                sender.send(i).unwrap();
            })
        })
        .collect();
    wait_until("all later ones have run", || model.log().runs().len() == 4);
    std::thread::sleep(10 * MS);
    assert!(arrived.try_recv().is_err(), "no reply overtakes an earlier one");
    let high = EntryRequest { priority: Priority::High, ..request() };
    let last = submit(&queue, high, row(9.0));
    drop(gone);
    let first = first.submit(row(1.0), caudal_types::Trace::new(std::time::Instant::now()));
    assert_eq!(await_answer(first), Ok(2.0));
    assert_eq!(await_answer(last), Ok(18.0));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(arrived.try_iter().count(), 4);
}

#[test]
fn new_policy_applies_from_next_batch() {
    let (queue, log) = start(&slow(30), 1, Policy { max_batch_size: 1, ..POLICY });
    let mut replies: Vec<_> = (0..5).map(|i| submit(&queue, request(), row(i as f32))).collect();
    wait_until("the first runs", || queue.depth().entries == 4);
    queue.set_policy(Policy { max_batch_size: 4, max_queue_size: 4, ..POLICY });
    assert!(matches!(queue.admit(request()), Err(Refusal::Full { limit: 4, .. })));
    block_on(join_all(replies.drain(..))).into_iter().for_each(|answer| assert!(answer.is_ok()));
    assert_eq!(log.sizes(), [1, 4]);
    let delayed = Policy { max_queue_delay: Duration::from_secs(60), ..POLICY };
    queue.set_policy(delayed);
    let held = submit(&queue, request(), row(7.0));
    std::thread::sleep(5 * MS);
    queue.set_policy(POLICY);
    assert_eq!(await_answer(held), Ok(14.0), "who was held back goes when nothing holds it any more");
}

#[test]
fn instances_can_be_resized_while_serving() {
    let model = slow(30);
    let (queue, _log) = start(&model, 1, Policy { max_batch_size: 1, ..POLICY });
    let busy = |count| wait_until("they run", || queue.depth().busy_instances == count);
    for (count, at_once) in [(3, 3), (1, 1), (2, 2), (4, 4), (2, 2)] {
        let more = (0..queue.missing_instances(count)).map(|_| model.create_instance(1).unwrap()).collect();
        queue.resize_instances(count, more).unwrap();
        let replies: Vec<_> = (0..8).map(|i| submit(&queue, request(), row(i as f32))).collect();
        busy(at_once);
        for (i, reply) in replies.into_iter().enumerate() {
            assert!(queue.depth().busy_instances <= at_once);
            assert_eq!(await_answer(reply), Ok(i as f32 * 2.0));
        }
        assert_eq!(queue.depth().instances, count);
        busy(0);
        assert_eq!(queue.missing_instances(count), 0);
    }
    // Fewer instances while all run: present runs continue.
    let more = (0..queue.missing_instances(4)).map(|_| model.create_instance(1).unwrap()).collect();
    queue.resize_instances(4, more).unwrap();
    let replies: Vec<_> = (0..8).map(|i| submit(&queue, request(), row(i as f32))).collect();
    busy(4);
    queue.resize_instances(1, Vec::new()).unwrap();
    assert_eq!(queue.depth().busy_instances, 4);
    block_on(join_all(replies)).into_iter().for_each(|answer| assert!(answer.is_ok()));
    busy(0);
    wait_until("the rest is gone", || queue.missing_instances(4) == 3);
}
