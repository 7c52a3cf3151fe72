//! The queue with its instances, over a scripted model.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::time::{Duration, Instant};

use caudal_batcher::{Failure, Instances, Policy, Queue, Refusal, Request};
use caudal_engine::{Backend as _, LoadOptions, Model as _};
use caudal_testkit::Scripted;
use caudal_types::{Deadline, Priority, Stage, Trace};
use common::{JOINED, MS, POLICY, Row, answer, request, row, slow, start, submit, until, wait};
use futures_util::FutureExt as _;

#[test]
fn each_gets_its_own_answer_whatever_the_batch() {
    let (queue, log) = start(&slow(5), 2, POLICY);
    let tickets: Vec<_> = (0..16).map(|i| submit(&queue, request(), row(i as f32))).collect();
    for (i, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(answer(ticket), Ok(i as f32 * 2.0));
    }
    assert!(log.sizes().iter().all(|rows| *rows <= 4), "{:?}", log.sizes());
    assert!(log.sizes().contains(&4), "under load batches form by themselves: {:?}", log.sizes());
}

#[test]
fn the_stamps_tell_waiting_from_running() {
    let (queue, _log) = start(&slow(30), 1, Policy { max_batch_size: 1, ..POLICY });
    let first = submit(&queue, request(), row(1.0));
    let trace = Trace::new(Instant::now());
    let second = queue.admit(request()).unwrap().submit(row(2.0), trace.clone());
    wait(first).unwrap();
    wait(second).unwrap();
    let stamps = trace.stage_times();
    assert!(stamps.spent(Stage::Queue) >= 20 * MS, "{stamps:?}");
    assert!(stamps.spent(Stage::Infer) >= 30 * MS, "{stamps:?}");
}

#[test]
fn a_full_queue_says_so_and_has_room_again_when_somebody_leaves() {
    let (queue, _log) = start(&slow(200), 1, Policy { max_batch_size: 1, max_queue_size: 2, ..POLICY });
    let running = submit(&queue, request(), row(0.0));
    until("the first runs", || queue.depth().entries == 0);
    let seat = queue.admit(request()).unwrap();
    let waiting = submit(&queue, request(), row(1.0));
    assert!(matches!(queue.admit(request()), Err(Refusal::Full { limit: 2, .. })));
    drop(seat);
    let again = queue.admit(request()).unwrap();
    assert!(queue.admit(request()).is_err());
    drop(waiting);
    assert!(queue.admit(request()).is_ok());
    drop((running, again));
}

#[test]
fn bytes_are_limited_too() {
    let (queue, _log) = start(&slow(200), 1, Policy { max_queue_bytes: 100, ..POLICY });
    let large = queue.admit(Request { bytes: 90, ..request() }).unwrap();
    assert!(matches!(queue.admit(request()), Err(Refusal::FullOfBytes { limit: 100, .. })));
    drop(large);
    assert!(queue.admit(Request { bytes: 500, ..request() }).is_ok(), "alone, even the largest comes in");
}

#[test]
fn the_high_overtake_and_the_low_step_back() {
    let (queue, log) = start(&slow(40), 1, Policy { max_batch_size: 1, ..POLICY });
    let first = submit(&queue, request(), row(0.0));
    until("the first runs", || queue.depth().entries == 0);
    let with = |priority, value| submit(&queue, Request { priority, ..request() }, row(value));
    let tickets =
        [with(Priority::Low, 1.0), with(Priority::Normal, 2.0), with(Priority::High, 3.0), with(Priority::Normal, 4.0)];
    for ticket in tickets {
        answer(ticket).unwrap();
    }
    answer(first).unwrap();
    assert_eq!(log.runs().concat(), [0.0, 3.0, 2.0, 4.0, 1.0]);
}

#[test]
fn the_expired_never_run() {
    let (queue, log) = start(&slow(50), 1, Policy { max_batch_size: 1, ..POLICY });
    let first = submit(&queue, request(), row(0.0));
    let soon = Request { deadline: Deadline::after(Instant::now(), 10 * MS), ..request() };
    let late = submit(&queue, soon, row(1.0));
    assert_eq!(answer(late), Err(Failure::Late));
    assert_eq!(answer(first), Ok(0.0));
    assert_eq!(log.runs().concat(), [0.0]);
}

#[test]
fn who_leaves_while_waiting_does_not_run() {
    let (queue, log) = start(&slow(50), 1, Policy { max_batch_size: 1, ..POLICY });
    let first = submit(&queue, request(), row(0.0));
    until("the first runs", || queue.depth().entries == 0);
    let second = submit(&queue, request(), row(1.0));
    drop(second);
    assert_eq!(queue.depth().entries, 0, "the place is free at once");
    let third = submit(&queue, request(), row(2.0));
    assert_eq!(answer(third), Ok(4.0));
    assert_eq!(log.runs().concat(), [0.0, 2.0]);
    drop(first);
}

#[test]
fn a_run_that_nobody_waits_for_is_stopped() {
    let (queue, log) = start(&slow(10_000), 1, POLICY);
    let tickets: Vec<_> = (0..3).map(|i| submit(&queue, request(), row(i as f32))).collect();
    until("all have begun or wait", || !log.runs().is_empty());
    drop(tickets);
    until("the instance is free", || queue.depth().busy_instances == 0);
    assert!(log.stopped() >= 1);
}

#[test]
fn a_run_that_somebody_waits_for_goes_on() {
    let (queue, log) = start(&slow(100), 1, Policy { max_queue_delay: 20 * MS, ..POLICY });
    let stays = submit(&queue, request(), row(1.0));
    let leaves = submit(&queue, request(), row(2.0));
    until("both run", || log.sizes() == [2]);
    drop(leaves);
    assert_eq!(answer(stays), Ok(2.0));
    assert_eq!(log.stopped(), 0);
}

#[test]
fn a_poisoned_entry_fails_alone() {
    let poison = 13.0;
    for model in [slow(20).failing_on(poison), slow(20).panicking_on(poison)] {
        let (queue, _log) = start(&model, 1, Policy { max_queue_delay: 50 * MS, ..POLICY });
        let tickets: Vec<_> = [1.0, poison, 3.0, 4.0].map(|value| submit(&queue, request(), row(value))).into();
        let answers: Vec<_> = tickets.into_iter().map(answer).collect();
        assert_eq!(answers[0], Ok(2.0));
        assert!(matches!(answers[1], Err(Failure::Failed(_))), "{answers:?}");
        assert_eq!(answers[2..], [Ok(6.0), Ok(8.0)]);
    }
}

#[test]
fn an_entry_that_panics_while_it_writes_leaves_no_hole() {
    let (queue, log) = start(&slow(5), 1, Policy { max_queue_delay: 50 * MS, ..POLICY });
    let bad = Row { poisoned: true, ..row(9.0) };
    let tickets =
        [submit(&queue, request(), row(1.0)), submit(&queue, request(), bad), submit(&queue, request(), row(3.0))];
    let answers = tickets.map(answer);
    assert_eq!((&answers[0], &answers[2]), (&Ok(2.0), &Ok(6.0)));
    assert!(matches!(answers[1], Err(Failure::Failed(_))));
    assert_eq!(log.runs(), [[1.0, 3.0]]);
}

#[test]
fn a_deadline_that_cannot_be_met_is_refused_before_any_work() {
    let (queue, log) = start(&slow(20), 1, Policy { max_batch_size: 1, ..POLICY });
    for i in 0..10 {
        answer(submit(&queue, request(), row(i as f32))).unwrap();
    }
    let tight = Request { deadline: Deadline::after(Instant::now(), 5 * MS), ..request() };
    let refused = queue.admit(tight).unwrap_err();
    assert!(matches!(refused, Refusal::DeadlineUnreachable { predicted, .. } if predicted >= 18 * MS), "{refused:?}");
    assert!(refused.retry_after().is_some());
    assert_eq!(log.runs().len(), 10);
    let roomy = Request { deadline: Deadline::after(Instant::now(), 500 * MS), ..request() };
    assert_eq!(answer(submit(&queue, roomy, row(1.0))), Ok(2.0));
    assert_eq!(queue.stats().refused_deadline.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[test]
fn a_closed_queue_serves_who_was_admitted_and_nobody_else() {
    let (queue, _log) = start(&slow(20), 1, Policy { max_batch_size: 1, ..POLICY });
    let seat = queue.admit(request()).unwrap();
    let waiting = submit(&queue, request(), row(1.0));
    queue.close();
    assert_eq!(queue.admit(request()).unwrap_err(), Refusal::Closed);
    let late_comer = seat.submit(row(2.0), Trace::new(Instant::now()));
    assert_eq!((answer(waiting), answer(late_comer)), (Ok(2.0), Ok(4.0)));
}

#[test]
fn who_finds_an_instance_free_runs_it_there_and_then() {
    let model = Scripted::new(4);
    let (queue, _log) = start(&model, 1, Policy { run_in_place: 8, ..POLICY });
    for value in 0..100 {
        let ticket = submit(&queue, request(), row(value as f32));
        assert_eq!(queue.depth().entries, 0);
        let done = ticket.now_or_never().expect("the answer is there when submit returns").unwrap();
        assert_eq!(done, value as f32 * 2.0);
    }
}

#[test]
fn nobody_is_left_behind_by_those_who_run_in_place() {
    let model = Scripted::new(4).taking(Duration::from_micros(50), Duration::ZERO);
    let (queue, log) = start(&model, 2, Policy { run_in_place: 8, max_queue_size: 1000, ..POLICY });
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let queue = &queue;
            scope.spawn(move || {
                for i in 0..200 {
                    let value = (thread * 200 + i) as f32;
                    assert_eq!(answer(submit(queue, request(), row(value))), Ok(value * 2.0));
                }
            });
        }
    });
    assert_eq!(log.sizes().iter().sum::<usize>(), 1600);
}

#[test]
fn a_delay_is_kept_by_those_who_run_in_place() {
    let policy = Policy { run_in_place: 8, max_queue_delay: 30 * MS, ..POLICY };
    let (queue, log) = start(&Scripted::new(4), 1, policy);
    let tickets = [1.0, 2.0, 3.0].map(|value| submit(&queue, request(), row(value)));
    assert_eq!(tickets.map(answer), [Ok(2.0), Ok(4.0), Ok(6.0)]);
    assert_eq!(log.sizes(), [3]);
}

#[test]
fn all_threads_end_when_the_last_entry_is_done() {
    for run_in_place in [0, 8] {
        let (queue, _log) = start(&slow(20), 3, Policy { max_batch_size: 1, run_in_place, ..POLICY });
        let seat = queue.admit(request()).unwrap();
        queue.close();
        std::thread::sleep(10 * MS);
        let ticket = seat.submit(row(1.0), Trace::new(Instant::now()));
        assert_eq!(answer(ticket), Ok(2.0));
        drop(queue);
    }
}

#[test]
fn each_end_of_an_entry_is_counted_once_and_as_what_it_was() {
    let (queue, _log) = start(&slow(200), 1, Policy { max_batch_size: 1, ..POLICY });
    let running = submit(&queue, request(), row(0.0));
    until("the first runs", || queue.depth().entries == 0);
    let soon = || Request { deadline: Deadline::after(Instant::now(), 5 * MS), ..request() };
    let (late_seat, late_ticket) = (queue.admit(soon()).unwrap(), submit(&queue, soon(), row(1.0)));
    let (seat, ticket) = (queue.admit(request()).unwrap(), submit(&queue, request(), row(2.0)));
    std::thread::sleep(10 * MS);
    drop((late_seat, late_ticket, seat, ticket));
    assert_eq!(answer(running), Ok(0.0));
    let stats = queue.stats();
    let counts = || {
        let counts = [&stats.answered, &stats.late, &stats.withdrawn, &stats.abandoned];
        counts.map(|count| count.load(std::sync::atomic::Ordering::Relaxed))
    };
    assert_eq!(counts(), [1, 2, 1, 1]);
    let unseen = submit(&queue, request(), row(3.0));
    until("it is answered", || counts()[0] == 2);
    drop(unseen);
    assert_eq!(counts(), [2, 2, 1, 1], "an answer that nobody looked at was an answer");
}

#[test]
fn who_is_alone_has_the_machine_to_itself_and_nobody_else() {
    let (narrow, wide) = (slow(60), slow(150));
    let instances = Instances {
        side_by_side: (0..2).map(|_| narrow.instance(1).unwrap()).collect(),
        wide: Some(wide.instance(2).unwrap()),
    };
    let queue = Queue::start("two", narrow.spec(), JOINED, instances, Policy { max_batch_size: 1, ..POLICY }).unwrap();
    for value in [1.0, 2.0] {
        assert_eq!(answer(submit(&queue, request(), row(value))), Ok(value * 2.0));
        until("it is over", || queue.depth().busy_instances == 0);
    }
    let alone = submit(&queue, request(), row(3.0));
    until("it runs", || queue.depth().busy_instances == 1);
    let others: Vec<_> = (4..8).map(|value| submit(&queue, request(), row(value as f32))).collect();
    until("one runs beside it", || queue.depth().busy_instances == 2);
    assert_eq!(queue.depth().entries, 3, "no more run at once than instances side by side");
    for (value, ticket) in [alone].into_iter().chain(others).enumerate() {
        assert_eq!(answer(ticket), Ok((value + 3) as f32 * 2.0));
    }
    assert_eq!(wide.log().runs(), [[1.0], [2.0], [3.0]]);
    // A seat whose rows are still being made ready is company too.
    let seat = queue.admit(request()).unwrap();
    assert_eq!(answer(submit(&queue, request(), row(8.0))), Ok(16.0));
    drop(seat);
    assert_eq!(wide.log().runs().len(), 3);
}

#[test]
fn the_scripted_backend_keeps_the_contract() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    caudal_testkit::contract::check(&Scripted::new(4), file.as_ref());
    let slow = Scripted::new(4)
        .taking(Duration::ZERO, Duration::from_secs(1))
        .load(file.as_ref(), &LoadOptions::cpu(1))
        .unwrap();
    caudal_testkit::contract::check_interrupt(&slow, 20, 4);
}
