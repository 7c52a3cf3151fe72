//! Explanations of synthetic observations: closed and open loops at all utilizations.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use caudal_types::{ModelId, Run, Stage, Trace};

use super::*;
use crate::RequestRecord;

const OBSERVED_SECONDS: f64 = 5.0;

fn idle_server() -> Observation {
    Observation { seconds: OBSERVED_SECONDS, cores: 2.0, ..Observation::default() }
}

/// Clients that send successive requests to a model whose runs take 20 ms of one core.
struct ClosedLoop {
    clients: usize,
    instances: usize,
    cores: f64,
    /// Milliseconds between a response and the next request of the same client.
    pause: f64,
    /// Share of the cores' time that other programs use.
    others: f64,
}

const RUN_MS: f64 = 20.0;

impl ClosedLoop {
    fn observation(&self) -> Observation {
        let Self { clients, instances, cores, pause, others } = *self;
        let busy_cores = cores * (1.0 - others);
        // Runs are limited by instances and cores; other requests wait in the queue.
        let at_once = (instances as f64).min(busy_cores);
        let cycle = (RUN_MS + pause).max(clients as f64 / at_once * RUN_MS);
        let queue = (cycle - RUN_MS - pause).max(0.0);
        let rounds = (OBSERVED_SECONDS * 1e3 / cycle) as usize;
        let start = Instant::now();
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        let request = |client: usize, round: usize| {
            let began = start + ms(round as f64 * cycle);
            let trace = Trace::new(began);
            trace.enter_at(Stage::Queue, began + ms(0.1));
            trace.run_at(Run { number: 1, requests: 1, rows: 1, why: "full" }, began + ms(0.1 + queue));
            trace.enter_at(Stage::Encode, began + ms(0.1 + queue + RUN_MS));
            RequestRecord { connection: client as u64, ..test_record(&trace) }
        };
        let requests: Vec<RequestRecord> =
            (0..clients).flat_map(|client| (0..rounds).map(move |round| request(client, round))).collect();
        let runs = requests.len() as u64;
        let ran = runs as f64 * RUN_MS / 1e3;
        let busy = ran / OBSERVED_SECONDS;
        let model = ModelStats {
            name: "m".to_owned(),
            instances,
            threads: 1,
            max_batch: 1,
            queue_limit: 1000,
            waiting: (clients as f64 - busy).max(0.0) * f64::from(u8::from(queue > 0.0)),
            busy,
            runs,
            rows: runs,
            run_seconds: ran,
            ..ModelStats::default()
        };
        let spent = |threads, cpu| ThreadTimes { threads, cpu, ready: 0.02 * cpu };
        Observation {
            cores,
            threads: BTreeMap::from([(ThreadRole::Infer, spent(instances, ran)), (ThreadRole::Io, spent(2, 0.01))]),
            machine: (busy / cores + others).min(1.0),
            models: vec![model],
            ended: runs,
            requests,
            connections: ConnectionStats {
                in_progress: clients as f64,
                open: clients as f64,
                max_open: 1000,
                ..ConnectionStats::default()
            },
            ..idle_server()
        }
    }

    fn explanation(&self) -> Explanation {
        explain_observation(&self.observation())
    }
}

fn test_record(trace: &Trace) -> RequestRecord {
    RequestRecord {
        id: "id".into(),
        status: 200,
        error: None,
        connection: 0,
        model: Some(ModelId { name: "m".into(), version: 1 }),
        received_bytes: None,
        sent_bytes: 0,
        stamps: trace.stage_times(),
        trace_id: None,
        steps: None,
    }
}

fn advises_more_requests(explained: &Explanation) -> bool {
    explained.words.join(" ").contains("send more requests in parallel")
}

#[test]
fn full_cores_are_named_without_waiting_requests() {
    let full = ClosedLoop { clients: 2, instances: 2, cores: 2.0, pause: 0.4, others: 0.0 }.explanation();
    assert_eq!((full.limit, full.is_limited()), (Limit::CpuSaturated, true), "{:?}", full.words);
    assert!(full.causes[0].weight > 0.9 && !advises_more_requests(&full), "{:?}", full.words);
    let more = full.what_if.iter().find(|what| what.change == "4 requests in parallel instead of 2").unwrap();
    assert!(more.predicted.throughput < 1.05, "{more:?}");
    let core = full.causes[0].predicted.unwrap();
    assert!((0.99..1.05).contains(&core.throughput), "two instances use no third core: {core:?}");
    let one = ClosedLoop { clients: 1, instances: 1, cores: 1.0, pause: 0.4, others: 0.0 }.explanation();
    assert_eq!((one.limit, advises_more_requests(&one)), (Limit::CpuSaturated, false), "{:?}", one.words);
}

#[test]
fn busy_instances_are_named_while_cores_are_idle() {
    let busy = ClosedLoop { clients: 1, instances: 1, cores: 4.0, pause: 0.4, others: 0.0 }.explanation();
    assert_eq!((busy.limit, advises_more_requests(&busy)), (Limit::InstancesSaturated, false), "{:?}", busy.words);
    let predicted = busy.causes[0].predicted.unwrap();
    assert!(predicted.in_parallel == Some(2) && predicted.throughput > 1.8, "{predicted:?}");
    assert!(busy.words[2].contains("if 2 requests are sent in parallel"), "{:?}", busy.words);
    let queued = ClosedLoop { clients: 8, instances: 1, cores: 4.0, pause: 0.0, others: 0.0 }.explanation();
    assert_eq!(queued.limit, Limit::InstancesSaturated, "{:?}", queued.words);
    assert_eq!(queued.causes[0].predicted.unwrap().in_parallel, None, "waiting requests use it immediately");
}

#[test]
fn other_programs_are_named_when_they_fill_cores() {
    let taken = ClosedLoop { clients: 1, instances: 2, cores: 2.0, pause: 0.4, others: 0.5 }.explanation();
    assert_eq!((taken.limit, advises_more_requests(&taken)), (Limit::CpuTaken, false), "{:?}", taken.words);
}

#[test]
fn idle_server_advises_more_requests() {
    let room = ClosedLoop { clients: 1, instances: 2, cores: 2.0, pause: 0.0, others: 0.0 }.explanation();
    assert_eq!((room.limit, room.is_limited()), (Limit::ClientsIdle, false), "{:?}", room.words);
    assert!(advises_more_requests(&room), "{:?}", room.words);
    assert!(room.causes[0].predicted.unwrap().throughput > 1.8, "{:?}", room.causes);
}

#[test]
fn more_requests_are_advised_only_when_throughput_rises() {
    // Utilization from 10 to 100 %: two clients with pauses, two instances, two cores.
    for busy in (10..=100).step_by(5) {
        let pause = RUN_MS * (100.0 / f64::from(busy) - 1.0);
        let explained = ClosedLoop { clients: 2, instances: 2, cores: 2.0, pause, others: 0.0 }.explanation();
        // With fewer than two requests in progress on average their number is not named.
        let is_more = |change: &str| change.contains("in parallel instead of") || change == "twice as many requests";
        let more = explained.what_if.iter().find(|what| is_more(&what.change));
        let gain = more.map(|more| more.predicted.throughput);
        match busy {
            ..=80 => assert!(advises_more_requests(&explained) && gain > Some(1.1), "{busy} %: {:?}", explained.words),
            95.. => {
                assert_eq!(explained.limit, Limit::CpuSaturated, "{busy} %: {:?}", explained.words);
                assert!(!advises_more_requests(&explained) && gain < Some(1.1), "{busy} %: {:?}", explained.words);
            }
            _ => assert_eq!(advises_more_requests(&explained), explained.limit == Limit::ClientsIdle, "{busy} %"),
        }
    }
}

/// Requests of 50 ms, 48 of them at `stage`.
fn spent_at(stage: Stage) -> Observation {
    let start = Instant::now();
    let ms = Duration::from_millis;
    let request = |round: u64| {
        let began = start + ms(50 * round);
        let trace = Trace::new(began);
        trace.enter_at(stage, began + ms(1));
        trace.enter_at(Stage::Encode, began + ms(49));
        trace.enter_at(Stage::Encode, began + ms(50));
        RequestRecord { model: None, ..test_record(&trace) }
    };
    let requests: Vec<RequestRecord> = (0..100).map(request).collect();
    Observation { ended: 100, requests, ..idle_server() }
}

#[test]
fn server_time_is_never_attributed_to_clients() {
    for (stage, limit) in [
        (Stage::Store, Limit::StoreReads),
        (Stage::Persist, Limit::StoreWrites),
        (Stage::Load, Limit::ModelsComeAndGo),
        (Stage::Flow, Limit::PipelineSteps),
        (Stage::Receive, Limit::SlowClients),
    ] {
        let explained = explain_observation(&spent_at(stage));
        assert_eq!((explained.limit, explained.is_limited()), (limit, true), "{stage:?}: {:?}", explained.words);
        assert!(explained.causes[0].weight > 0.9, "{stage:?}: {:?}", explained.causes);
    }
}

#[test]
fn unfinished_requests_count_at_their_stage() {
    let live = |stage| Observation { live: BTreeMap::from([(stage, 3.0)]), ..idle_server() };
    let explained = explain_observation(&live(Stage::Receive));
    assert_eq!((explained.limit, explained.is_limited()), (Limit::SlowClients, true));
    assert!(explained.causes[0].because.contains("3.0 requests were on their way in"), "{:?}", explained.words);
    assert_eq!(explained.simulation, None, "there is nothing to make a network of");
    assert_eq!(explain_observation(&live(Stage::Store)).limit, Limit::StoreReads);
}

#[test]
fn idle_server_has_no_limit() {
    let explained = explain_observation(&idle_server());
    assert_eq!((explained.limit, explained.is_limited()), (Limit::ClientsIdle, false));
}

#[test]
fn explanation_figures_are_consistent() {
    let observation = ClosedLoop { clients: 8, instances: 2, cores: 4.0, pause: 1.0, others: 0.1 }.observation();
    let explained = explain_observation(&observation);
    let summary = explained.observed;
    assert!(
        (summary.answers_per_second - observation.requests.len() as f64 / OBSERVED_SECONDS).abs() < 1e-9,
        "{summary:?}"
    );
    assert!(summary.p50_ms <= summary.p95_ms && summary.cpu + summary.cpu_of_others <= 1.0 + 1e-9, "{summary:?}");
    for cause in &explained.causes {
        assert!((0.0..=1.0).contains(&cause.weight), "{cause:?}");
        let Some(predicted) = cause.predicted else { continue };
        assert!((predicted.answers_per_second / summary.answers_per_second - predicted.throughput).abs() < 1e-9);
    }
}
