//! What is said of servers whose figures are made up: of closed loops and open ones, at all utilisations.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use caudal_types::{ModelId, Run, Stage, Trace};

use super::*;
use crate::Kept;

const SECONDS: f64 = 5.0;

fn idle() -> Watched {
    Watched { seconds: SECONDS, cores: 2.0, ..Watched::default() }
}

/// Clients that send one request after the other to a model whose runs take 20 ms of one core.
struct Loop {
    clients: usize,
    instances: usize,
    cores: f64,
    /// Milliseconds between an answer and the next request of the same client.
    pause: f64,
    /// Part of the cores' time that other programs take.
    others: f64,
}

const RUN: f64 = 20.0;

impl Loop {
    fn watched(&self) -> Watched {
        let Self { clients, instances, cores, pause, others } = *self;
        let busy_cores = cores * (1.0 - others);
        // As many run as there are instances and cores for; the others wait in the queue.
        let at_once = (instances as f64).min(busy_cores);
        let cycle = (RUN + pause).max(clients as f64 / at_once * RUN);
        let queue = (cycle - RUN - pause).max(0.0);
        let rounds = (SECONDS * 1e3 / cycle) as usize;
        let start = Instant::now();
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        let request = |client: usize, round: usize| {
            let began = start + ms(round as f64 * cycle);
            let trace = Trace::new(began);
            trace.enter_at(Stage::Queue, began + ms(0.1));
            trace.run_at(Run { number: 1, requests: 1, rows: 1, why: "full" }, began + ms(0.1 + queue));
            trace.enter_at(Stage::Encode, began + ms(0.1 + queue + RUN));
            Kept { connection: client as u64, ..kept(&trace) }
        };
        let requests: Vec<Kept> =
            (0..clients).flat_map(|client| (0..rounds).map(move |round| request(client, round))).collect();
        let runs = requests.len() as u64;
        let ran = runs as f64 * RUN / 1e3;
        let busy = ran / SECONDS;
        let model = ModelSeen {
            name: "m".to_owned(),
            instances,
            threads: 1,
            max_batch: 1,
            queue_limit: 1000,
            waiting: (clients as f64 - busy).max(0.0) * f64::from(u8::from(queue > 0.0)),
            busy,
            runs,
            rows: runs,
            ran,
            ..ModelSeen::default()
        };
        let spent = |threads, cpu| Spent { threads, cpu, ready: 0.02 * cpu };
        Watched {
            cores,
            threads: BTreeMap::from([(Role::Infer, spent(instances, ran)), (Role::Io, spent(2, 0.01))]),
            machine: (busy / cores + others).min(1.0),
            models: vec![model],
            ended: runs,
            requests,
            doors: Doors { working: clients as f64, open: clients as f64, most_open: 1000, ..Doors::default() },
            ..idle()
        }
    }

    fn explained(&self) -> Explanation {
        explain(&self.watched())
    }
}

fn kept(trace: &Trace) -> Kept {
    Kept {
        id: "id".into(),
        status: 200,
        error: None,
        connection: 0,
        asked: Some(ModelId { name: "m".into(), version: 1 }),
        received: None,
        sent: 0,
        stamps: trace.stage_times(),
        trace_id: None,
        steps: None,
    }
}

fn says_send_more(explained: &Explanation) -> bool {
    explained.words.join(" ").contains("send more requests in parallel")
}

#[test]
fn full_cores_are_named_though_nobody_waits() {
    let full = Loop { clients: 2, instances: 2, cores: 2.0, pause: 0.4, others: 0.0 }.explained();
    assert_eq!((full.limit, full.limits()), (Limit::CpuSaturated, true), "{:?}", full.words);
    assert!(full.causes[0].weight > 0.9 && !says_send_more(&full), "{:?}", full.words);
    let more = full.what_if.iter().find(|what| what.change == "4 requests in parallel instead of 2").unwrap();
    assert!(more.predicted.throughput < 1.05, "{more:?}");
    let core = full.causes[0].predicted.unwrap();
    assert!((0.99..1.05).contains(&core.throughput), "two instances use no third core: {core:?}");
    let one = Loop { clients: 1, instances: 1, cores: 1.0, pause: 0.4, others: 0.0 }.explained();
    assert_eq!((one.limit, says_send_more(&one)), (Limit::CpuSaturated, false), "{:?}", one.words);
}

#[test]
fn busy_instances_are_named_while_cores_are_free() {
    let busy = Loop { clients: 1, instances: 1, cores: 4.0, pause: 0.4, others: 0.0 }.explained();
    assert_eq!((busy.limit, says_send_more(&busy)), (Limit::InstancesSaturated, false), "{:?}", busy.words);
    let predicted = busy.causes[0].predicted.unwrap();
    assert!(predicted.in_parallel == Some(2) && predicted.throughput > 1.8, "{predicted:?}");
    assert!(busy.words[2].contains("if 2 requests are sent in parallel"), "{:?}", busy.words);
    let queued = Loop { clients: 8, instances: 1, cores: 4.0, pause: 0.0, others: 0.0 }.explained();
    assert_eq!(queued.limit, Limit::InstancesSaturated, "{:?}", queued.words);
    assert_eq!(queued.causes[0].predicted.unwrap().in_parallel, None, "waiting requests use it immediately");
}

#[test]
fn other_programs_are_named_where_they_fill_the_cores() {
    let taken = Loop { clients: 1, instances: 2, cores: 2.0, pause: 0.4, others: 0.5 }.explained();
    assert_eq!((taken.limit, says_send_more(&taken)), (Limit::CpuTaken, false), "{:?}", taken.words);
}

#[test]
fn server_with_room_is_told_to_be_sent_more() {
    let room = Loop { clients: 1, instances: 2, cores: 2.0, pause: 0.0, others: 0.0 }.explained();
    assert_eq!((room.limit, room.limits()), (Limit::ClientsIdle, false), "{:?}", room.words);
    assert!(says_send_more(&room), "{:?}", room.words);
    assert!(room.causes[0].predicted.unwrap().throughput > 1.8, "{:?}", room.causes);
}

#[test]
fn more_is_asked_for_only_where_it_is_answered() {
    // From a tenth busy to full: two clients with pauses, two instances, two cores.
    for busy in (10..=100).step_by(5) {
        let pause = RUN * (100.0 / f64::from(busy) - 1.0);
        let explained = Loop { clients: 2, instances: 2, cores: 2.0, pause, others: 0.0 }.explained();
        // Where fewer than two are in progress on average, their number is not said.
        let is_more = |change: &str| change.contains("in parallel instead of") || change == "twice as many requests";
        let more = explained.what_if.iter().find(|what| is_more(&what.change));
        let gain = more.map(|more| more.predicted.throughput);
        match busy {
            ..=80 => assert!(says_send_more(&explained) && gain > Some(1.1), "{busy} %: {:?}", explained.words),
            95.. => {
                assert_eq!(explained.limit, Limit::CpuSaturated, "{busy} %: {:?}", explained.words);
                assert!(!says_send_more(&explained) && gain < Some(1.1), "{busy} %: {:?}", explained.words);
            }
            _ => assert_eq!(says_send_more(&explained), explained.limit == Limit::ClientsIdle, "{busy} %"),
        }
    }
}

/// Requests of 50 ms, 48 of them at `stage`.
fn spent_at(stage: Stage) -> Watched {
    let start = Instant::now();
    let ms = Duration::from_millis;
    let request = |round: u64| {
        let began = start + ms(50 * round);
        let trace = Trace::new(began);
        trace.enter_at(stage, began + ms(1));
        trace.enter_at(Stage::Encode, began + ms(49));
        trace.enter_at(Stage::Encode, began + ms(50));
        Kept { asked: None, ..kept(&trace) }
    };
    let requests: Vec<Kept> = (0..100).map(request).collect();
    Watched { ended: 100, requests, ..idle() }
}

#[test]
fn time_of_the_server_is_never_put_down_to_clients() {
    for (stage, limit) in [
        (Stage::Store, Limit::StoreReads),
        (Stage::Persist, Limit::StoreWrites),
        (Stage::Load, Limit::ModelsComeAndGo),
        (Stage::Flow, Limit::PipelineSteps),
        (Stage::Receive, Limit::SlowClients),
    ] {
        let explained = explain(&spent_at(stage));
        assert_eq!((explained.limit, explained.limits()), (limit, true), "{stage:?}: {:?}", explained.words);
        assert!(explained.causes[0].weight > 0.9, "{stage:?}: {:?}", explained.causes);
    }
}

#[test]
fn what_takes_longer_than_it_is_watched_is_seen_at_its_stage() {
    let live = |stage| Watched { live: BTreeMap::from([(stage, 3.0)]), ..idle() };
    let explained = explain(&live(Stage::Receive));
    assert_eq!((explained.limit, explained.limits()), (Limit::SlowClients, true));
    assert!(explained.causes[0].because.contains("3.0 requests were on their way in"), "{:?}", explained.words);
    assert_eq!(explained.replay, None, "there is nothing to make a network of");
    assert_eq!(explain(&live(Stage::Store)).limit, Limit::StoreReads);
}

#[test]
fn where_nothing_happens_nothing_limits() {
    let explained = explain(&idle());
    assert_eq!((explained.limit, explained.limits()), (Limit::ClientsIdle, false));
}

#[test]
fn figures_of_an_explanation_agree() {
    let watched = Loop { clients: 8, instances: 2, cores: 4.0, pause: 1.0, others: 0.1 }.watched();
    let explained = explain(&watched);
    let seen = explained.seen;
    assert!((seen.answers_per_second - watched.requests.len() as f64 / SECONDS).abs() < 1e-9, "{seen:?}");
    assert!(seen.p50_ms <= seen.p95_ms && seen.cpu + seen.cpu_of_others <= 1.0 + 1e-9, "{seen:?}");
    for cause in &explained.causes {
        assert!((0.0..=1.0).contains(&cause.weight), "{cause:?}");
        let Some(predicted) = cause.predicted else { continue };
        assert!((predicted.answers_per_second / seen.answers_per_second - predicted.throughput).abs() < 1e-9);
    }
}
