//! What a queue's policy says, and that it may say something else while the queue serves.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use caudal_batcher::{Failure, Habits, Patience, Policy, Refusal, Request, Stats, TimeoutAction};
use caudal_engine::Model as _;
use caudal_testkit::Scripted;
use caudal_types::Priority;
use common::{JOINED, MS, POLICY, answer, request, row, slow, start, start_with, submit, until, wait};
use futures_util::future::join_all;

fn low() -> Request {
    Request { priority: Priority::Low, ..request() }
}

fn of_low(patience: Patience) -> Policy {
    let mut policy = Policy { max_batch_size: 1, ..POLICY };
    policy.by_priority[Priority::Low as usize] = patience;
    policy
}

#[test]
fn a_batch_leaves_at_a_preferred_size_and_is_counted_as_such() {
    let policy = Policy { preferred_batch_sizes: vec![2], max_queue_delay: Duration::from_secs(5), ..POLICY };
    let (queue, log) = start(&slow(1), 1, policy);
    let tickets: Vec<_> = (0..6).map(|i| submit(&queue, request(), row(i as f32))).collect();
    wait(join_all(tickets)).into_iter().for_each(|answer| assert!(answer.is_ok()));
    assert_eq!(log.sizes().iter().sum::<usize>(), 6);
    assert!(log.sizes().iter().all(|rows| [2, 4].contains(rows)), "{:?}", log.sizes());
    let at = Stats::STOPS.iter().position(|name| *name == "preferred").unwrap();
    assert!(queue.stats().stops[at].load(Relaxed) > 0);
}

#[test]
fn only_so_many_of_one_priority_wait() {
    let (queue, _log) = start(&slow(200), 1, of_low(Patience { max_queue_size: Some(1), ..Patience::default() }));
    let running = submit(&queue, request(), row(0.0));
    until("the first runs", || queue.depth().entries == 0);
    let waiting = submit(&queue, low(), row(1.0));
    assert!(matches!(queue.admit(low()), Err(Refusal::Full { limit: 1, .. })));
    assert!(queue.admit(request()).is_ok(), "others may");
    drop(waiting);
    assert!(queue.admit(low()).is_ok());
    drop(running);
}

#[test]
fn who_waits_too_long_fails_or_steps_back() {
    let patience = |then| Patience { timeout: Some(10 * MS), then, ..Patience::default() };
    let (queue, log) = start(&slow(40), 1, of_low(patience(TimeoutAction::Reject)));
    let running = submit(&queue, request(), row(0.0));
    until("the first runs", || queue.depth().entries == 0);
    let tired = submit(&queue, low(), row(1.0));
    let patient = submit(&queue, request(), row(2.0));
    assert_eq!(answer(tired), Err(Failure::Expired));
    assert!(answer(running).is_ok() && answer(patient).is_ok());
    assert_eq!(log.runs().concat(), [0.0, 2.0]);
    assert_eq!(queue.stats().expired.load(Relaxed), 1);

    let (queue, log) = start(&slow(40), 1, of_low(patience(TimeoutAction::Delay)));
    let running = submit(&queue, request(), row(0.0));
    until("the first runs", || queue.depth().entries == 0);
    let tired = submit(&queue, low(), row(1.0));
    std::thread::sleep(35 * MS);
    // Of the same priority and younger: only who has stepped back goes behind it.
    let fresh = submit(&queue, low(), row(2.0));
    for ticket in [running, tired, fresh] {
        answer(ticket).unwrap();
    }
    assert_eq!(log.runs().concat(), [0.0, 2.0, 1.0]);
}

#[test]
fn answers_leave_in_the_order_of_admission_where_that_is_asked_for() {
    let model = Scripted::new(4).taking(5 * MS, Duration::ZERO);
    let queue = start_with(Habits { ordered: true, ..JOINED }, &model, 3, Policy { max_batch_size: 1, ..POLICY });
    let first = queue.admit(request()).unwrap();
    let gone = queue.admit(request()).unwrap();
    let (sender, arrived) = std::sync::mpsc::channel();
    let later: Vec<_> = (2..6u8).map(|i| (i, submit(&queue, low(), row(f32::from(i))))).collect();
    let threads: Vec<_> = later
        .into_iter()
        .map(|(i, ticket)| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                answer(ticket).unwrap();
                sender.send(i).unwrap();
            })
        })
        .collect();
    until("all later ones have run", || model.log().runs().len() == 4);
    std::thread::sleep(10 * MS);
    assert!(arrived.try_recv().is_err(), "nobody overtakes who was admitted before");
    let high = Request { priority: Priority::High, ..request() };
    let last = submit(&queue, high, row(9.0));
    drop(gone);
    let first = first.submit(row(1.0), caudal_types::Trace::new(std::time::Instant::now()));
    assert_eq!(answer(first), Ok(2.0));
    assert_eq!(answer(last), Ok(18.0));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(arrived.try_iter().count(), 4);
}

#[test]
fn a_new_policy_holds_from_the_next_batch_on() {
    let (queue, log) = start(&slow(30), 1, Policy { max_batch_size: 1, ..POLICY });
    let mut tickets: Vec<_> = (0..5).map(|i| submit(&queue, request(), row(i as f32))).collect();
    until("the first runs", || queue.depth().entries == 4);
    queue.set_policy(Policy { max_batch_size: 4, max_queue_size: 4, ..POLICY });
    assert!(matches!(queue.admit(request()), Err(Refusal::Full { limit: 4, .. })));
    wait(join_all(tickets.drain(..))).into_iter().for_each(|answer| assert!(answer.is_ok()));
    assert_eq!(log.sizes(), [1, 4]);
    let delayed = Policy { max_queue_delay: Duration::from_secs(60), ..POLICY };
    queue.set_policy(delayed);
    let held = submit(&queue, request(), row(7.0));
    std::thread::sleep(5 * MS);
    queue.set_policy(POLICY);
    assert_eq!(answer(held), Ok(14.0), "who was held back goes when nothing holds it any more");
}

#[test]
fn instances_come_and_go_while_the_queue_serves() {
    let model = slow(30);
    let (queue, _log) = start(&model, 1, Policy { max_batch_size: 1, ..POLICY });
    let busy = |count| until("they run", || queue.depth().busy_instances == count);
    for (count, at_once) in [(3, 3), (1, 1), (2, 2), (4, 4), (2, 2)] {
        let more = (0..queue.missing(count)).map(|_| model.instance(1).unwrap()).collect();
        queue.resize(count, more).unwrap();
        let tickets: Vec<_> = (0..8).map(|i| submit(&queue, request(), row(i as f32))).collect();
        busy(at_once);
        for (i, ticket) in tickets.into_iter().enumerate() {
            assert!(queue.depth().busy_instances <= at_once);
            assert_eq!(answer(ticket), Ok(i as f32 * 2.0));
        }
        assert_eq!(queue.depth().instances, count);
        busy(0);
        assert_eq!(queue.missing(count), 0);
    }
    // Fewer while all run: what runs goes on.
    let more = (0..queue.missing(4)).map(|_| model.instance(1).unwrap()).collect();
    queue.resize(4, more).unwrap();
    let tickets: Vec<_> = (0..8).map(|i| submit(&queue, request(), row(i as f32))).collect();
    busy(4);
    queue.resize(1, Vec::new()).unwrap();
    assert_eq!(queue.depth().busy_instances, 4);
    wait(join_all(tickets)).into_iter().for_each(|answer| assert!(answer.is_ok()));
    busy(0);
    until("the rest is gone", || queue.missing(4) == 3);
}
