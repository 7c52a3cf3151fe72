//! Discrete-event simulation of a queueing model, in which cores are shared equally among all work (processor sharing;
//! L. Kleinrock, *Time-shared systems*, 1967).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::{
    observation::quantile,
    queueing_model::{Clients, QueueingModel},
};

/// Number of requests that are simulated; the first tenth is discarded because the network starts empty.
const SIMULATED_REQUESTS: usize = 3_000;
/// Bound on the events, for a network that answers no requests.
const MAX_EVENTS: usize = 400_000;

/// The performance of a queueing model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SimulationResult {
    /// Answers per second.
    pub(crate) rate: f64,
    /// Median time in seconds.
    pub(crate) p50: f64,
    /// 95th percentile in seconds.
    pub(crate) p95: f64,
}

/// Simulates `network` until enough requests are answered.
pub(crate) fn simulate(network: &QueueingModel) -> SimulationResult {
    Simulation::new(network).run_to_end()
}

/// A request in progress.
#[derive(Debug, Clone, Copy)]
struct InFlight {
    demand: usize,
    client: usize,
    began: f64,
}

/// The next event of a request or a batch.
#[derive(Debug, Clone)]
enum Event {
    Arrive(InFlight),
    Received(InFlight),
    ReadBy(usize, InFlight),
    ElsewhereDone(InFlight),
    DecodedBy(InFlight),
    Unblocked(usize, Vec<InFlight>),
    RunDone(usize, Vec<InFlight>),
    WrittenBy(usize, InFlight),
    StartRuns(usize),
}

/// Work that needs cores.
struct CpuJob {
    left: f64,
    width: f64,
    event: Event,
}

struct Timer {
    at: f64,
    number: usize,
    event: Event,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.total_cmp(&other.at).then(self.number.cmp(&other.number))
    }
}

#[derive(Default)]
struct IoThread {
    waiting: VecDeque<(InFlight, bool)>,
    busy: bool,
}

#[derive(Default)]
struct ModelQueue {
    waiting: VecDeque<(InFlight, f64)>,
    busy: usize,
    /// Runs that wait for the lock.
    locked: VecDeque<(Vec<InFlight>, f64)>,
    held: bool,
}

struct Simulation<'a> {
    network: &'a QueueingModel,
    now: f64,
    numbers: usize,
    timers: BinaryHeap<Reverse<Timer>>,
    working: Vec<CpuJob>,
    io: Vec<IoThread>,
    decode: VecDeque<InFlight>,
    decoding: usize,
    queues: Vec<ModelQueue>,
    took: Vec<f64>,
    ended: Vec<f64>,
    sent: usize,
    random: u64,
}

impl<'a> Simulation<'a> {
    fn new(network: &'a QueueingModel) -> Self {
        let mut simulation = Self {
            network,
            now: 0.0,
            numbers: 0,
            timers: BinaryHeap::new(),
            working: Vec::new(),
            io: (0..network.io).map(|_| IoThread::default()).collect(),
            decode: VecDeque::new(),
            decoding: 0,
            queues: network.models.iter().map(|_| ModelQueue::default()).collect(),
            took: Vec::new(),
            ended: Vec::new(),
            sent: 0,
            random: 0x9E37_79B9_7F4A_7C15,
        };
        match &network.clients {
            Clients::Closed { count, .. } => (0..*count).for_each(|client| simulation.send_request(client, 0.0)),
            Clients::Open { arrivals } => {
                let span = arrivals.last().copied().unwrap_or(0.0) * (1.0 + 1.0 / arrivals.len() as f64);
                let rounds = SIMULATED_REQUESTS.div_ceil(arrivals.len()).min(50);
                for round in 0..rounds {
                    for (client, at) in arrivals.iter().enumerate() {
                        simulation.send_request(client, at + span * round as f64);
                    }
                }
            }
        }
        simulation
    }

    fn run_to_end(mut self) -> SimulationResult {
        for _ in 0..MAX_EVENTS {
            if self.took.len() >= SIMULATED_REQUESTS || !self.advance() {
                break;
            }
        }
        let skipped = self.took.len() / 10;
        let from = skipped.checked_sub(1).map_or(0.0, |last| self.ended[last]);
        let span = (self.ended.last().copied().unwrap_or(0.0) - from).max(1e-9);
        let took = self.took.split_off(skipped);
        SimulationResult { rate: took.len() as f64 / span, p50: quantile(took.clone(), 0.5), p95: quantile(took, 0.95) }
    }

    /// Advances to the next event; false if there is none.
    fn advance(&mut self) -> bool {
        let wanted = self.network.others + self.working.iter().map(|work| work.width).sum::<f64>();
        let speed = if wanted > self.network.cores { self.network.cores / wanted } else { 1.0 };
        let first = (0..self.working.len()).min_by(|a, b| {
            let left = |index: usize| self.working[index].left / self.working[index].width;
            left(*a).total_cmp(&left(*b))
        });
        let done = first.map(|index| self.now + self.working[index].left / self.working[index].width / speed);
        let timer = self.timers.peek().map(|timer| timer.0.at);
        let (at, timed) = match (done, timer) {
            (Some(done), Some(timer)) if timer <= done => (timer, true),
            (Some(done), _) => (done, false),
            (None, Some(timer)) => (timer, true),
            (None, None) => return false,
        };
        let passed = (at - self.now).max(0.0) * speed;
        self.working.iter_mut().for_each(|work| work.left -= passed * work.width);
        self.now = self.now.max(at);
        let event = match timed {
            true => self.timers.pop().map(|timer| timer.0.event),
            false => first.map(|index| self.working.swap_remove(index).event),
        };
        if let Some(event) = event {
            self.handle_event(event);
        }
        true
    }

    fn schedule(&mut self, wait: f64, event: Event) {
        self.numbers += 1;
        self.timers.push(Reverse(Timer { at: self.now + wait, number: self.numbers, event }));
    }

    fn start_work(&mut self, seconds: f64, width: f64, event: Event) {
        self.working.push(CpuJob { left: seconds.max(1e-9), width: width.max(1.0), event });
    }

    /// A pseudo-random number from 0 to `below`, exclusive (xorshift; G. Marsaglia, 2003).
    fn random_below(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below.max(1) as u64) as usize
    }

    fn send_request(&mut self, client: usize, wait: f64) {
        let demand = match self.network.clients {
            Clients::Open { .. } => self.sent % self.network.demands.len(),
            Clients::Closed { .. } => self.random_below(self.network.demands.len()),
        };
        self.sent += 1;
        self.schedule(wait, Event::Arrive(InFlight { demand, client, began: self.now + wait }));
    }

    /// The client of `request` has received a response or a refusal.
    fn resume_client(&mut self, request: InFlight, refused: bool) {
        if let Clients::Closed { pauses, .. } = &self.network.clients {
            let pause = pauses[self.random_below(pauses.len())];
            // A refused client that retries immediately would generate nothing but refusals.
            self.send_request(request.client, if refused { pause.max(0.001) } else { pause });
        }
    }

    fn handle_event(&mut self, event: Event) {
        match event {
            Event::Arrive(request) => {
                self.schedule(self.network.demands[request.demand].receive, Event::Received(request));
            }
            Event::Received(request) => self.queue_io(request, true),
            Event::ReadBy(thread, request) => {
                self.release_io(thread);
                match self.network.demands[request.demand].elsewhere {
                    elsewhere if elsewhere > 0.0 => self.schedule(elsewhere, Event::ElsewhereDone(request)),
                    _ => self.queue_decode(request),
                }
            }
            Event::ElsewhereDone(request) => self.queue_decode(request),
            Event::DecodedBy(request) => {
                self.decoding -= 1;
                self.start_next_decodes();
                self.enqueue_for_model(request);
            }
            Event::Unblocked(model, requests) => {
                let work = self.run_work(model, &requests);
                self.start_run(model, requests, work);
            }
            Event::RunDone(model, requests) => {
                let queue = &mut self.queues[model];
                queue.busy -= 1;
                queue.held = false;
                requests.into_iter().for_each(|request| self.queue_io(request, false));
                if let Some((next, work)) = self.queues[model].locked.pop_front() {
                    self.queues[model].held = true;
                    self.start_run(model, next, work);
                }
                self.start_runs(model);
            }
            Event::WrittenBy(thread, request) => {
                self.release_io(thread);
                self.took.push(self.now - request.began);
                self.ended.push(self.now);
                self.resume_client(request, false);
            }
            Event::StartRuns(model) => self.start_runs(model),
        }
    }

    fn queue_io(&mut self, request: InFlight, arrives: bool) {
        let thread = request.client % self.io.len();
        self.io[thread].waiting.push_back((request, arrives));
        self.start_next_io(thread);
    }

    fn release_io(&mut self, thread: usize) {
        self.io[thread].busy = false;
        self.start_next_io(thread);
    }

    fn start_next_io(&mut self, thread: usize) {
        if self.io[thread].busy {
            return;
        }
        let Some((request, arrives)) = self.io[thread].waiting.pop_front() else { return };
        self.io[thread].busy = true;
        let half = self.network.demands[request.demand].io / 2.0;
        self.start_work(
            half,
            1.0,
            if arrives { Event::ReadBy(thread, request) } else { Event::WrittenBy(thread, request) },
        );
    }

    fn queue_decode(&mut self, request: InFlight) {
        if self.network.demands[request.demand].decode <= 0.0 {
            return self.enqueue_for_model(request);
        }
        self.decode.push_back(request);
        self.start_next_decodes();
    }

    fn start_next_decodes(&mut self) {
        while self.decoding < self.network.decoders {
            let Some(request) = self.decode.pop_front() else { return };
            self.decoding += 1;
            self.start_work(self.network.demands[request.demand].decode, 1.0, Event::DecodedBy(request));
        }
    }

    fn enqueue_for_model(&mut self, request: InFlight) {
        let Some((model, ..)) = self.network.demands[request.demand].model else {
            return self.queue_io(request, false);
        };
        if self.queues[model].waiting.len() >= self.network.models[model].queue_limit {
            return self.resume_client(request, true);
        }
        self.queues[model].waiting.push_back((request, self.now));
        self.start_runs(model);
    }

    /// Starts runs on free instances.
    fn start_runs(&mut self, model: usize) {
        let station = &self.network.models[model];
        while self.queues[model].busy < station.instances.max(1) {
            let Some((_, since)) = self.queues[model].waiting.front() else { return };
            let due = since + station.delay;
            let rows = |requests: &VecDeque<(InFlight, f64)>| -> f64 {
                requests.iter().map(|(request, _)| self.request_rows(request)).sum()
            };
            if due > self.now + 1e-9 && rows(&self.queues[model].waiting) < station.max_batch as f64 {
                return self.schedule(due - self.now, Event::StartRuns(model));
            }
            let mut requests: Vec<InFlight> = Vec::new();
            let mut taken = 0.0;
            while let Some((request, _)) = self.queues[model].waiting.front().copied() {
                if !requests.is_empty() && taken + self.request_rows(&request) > station.max_batch as f64 {
                    break;
                }
                taken += self.request_rows(&request);
                requests.push(request);
                self.queues[model].waiting.pop_front();
            }
            self.queues[model].busy += 1;
            match station.blocked > 0.0 && !station.locked {
                true => self.schedule(station.blocked, Event::Unblocked(model, requests)),
                false => {
                    let work = self.run_work(model, &requests);
                    match station.locked && self.queues[model].held {
                        true => self.queues[model].locked.push_back((requests, work)),
                        false => {
                            self.queues[model].held = true;
                            self.start_run(model, requests, work);
                        }
                    }
                }
            }
        }
    }

    fn start_run(&mut self, model: usize, requests: Vec<InFlight>, work: f64) {
        let station = &self.network.models[model];
        let queue = &self.queues[model];
        let alone = queue.busy == 1 && queue.waiting.is_empty();
        let width = station.wide.filter(|_| alone).unwrap_or(station.threads);
        self.start_work(work, width as f64, Event::RunDone(model, requests));
    }

    fn request_rows(&self, request: &InFlight) -> f64 {
        self.network.demands[request.demand].model.map_or(1.0, |(_, rows, _)| rows)
    }

    /// Seconds of a core that a run of `requests` needs.
    fn run_work(&self, model: usize, requests: &[InFlight]) -> f64 {
        let station = &self.network.models[model];
        let rows: f64 = requests.iter().map(|request| self.request_rows(request)).sum();
        let sizes =
            requests.iter().filter_map(|request| self.network.demands[request.demand].model).map(|(_, _, size)| size);
        (station.run + station.row * rows) * sizes.sum::<f64>() / requests.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::queueing_model::{ModelStation, RequestDemand};

    /// One model of `instances` whose runs take 10 ms of a core, and `count` clients without pauses.
    fn test_model(instances: usize, count: usize) -> QueueingModel {
        let station = ModelStation {
            instances,
            threads: 1,
            max_batch: 1,
            queue_limit: 1000,
            row: 0.01,
            ..ModelStation::default()
        };
        QueueingModel {
            cores: 4.0,
            others: 0.0,
            clients: Clients::Closed { count, pauses: vec![0.0] },
            io: 2,
            decoders: 2,
            models: vec![station],
            demands: vec![RequestDemand { model: Some((0, 1.0, 1.0)), ..RequestDemand::default() }],
        }
    }

    fn assert_near(got: f64, expected: f64) {
        assert!((got / expected - 1.0).abs() < 0.03, "{got} is not {expected}");
    }

    #[test]
    fn throughput_equals_slowest_station() {
        assert_near(simulate(&test_model(1, 8)).rate, 100.0);
        assert_near(simulate(&test_model(3, 8)).rate, 300.0);
        assert_near(simulate(&test_model(8, 8)).rate, 400.0);
        assert_near(simulate(&test_model(8, 1)).rate, 100.0);
        assert_near(simulate(&test_model(1, 8)).p50, 0.08);
        let mut decoding = test_model(4, 8);
        decoding.demands[0].decode = 0.02;
        decoding.decoders = 1;
        assert_near(simulate(&decoding).rate, 50.0);
        decoding.decoders = 2;
        assert_near(simulate(&decoding).rate, 100.0);
    }

    #[test]
    fn open_queue_matches_queueing_theory() {
        // M/D/1 at half load: the mean wait is a quarter of a run (Pollaczek, Khinchine); here the median of the whole.
        let mut poisson = test_model(1, 1);
        let (mut at, mut random) = (0.0, Simulation::new(&poisson));
        let mut gap = || -(1.0 - random.random_below(1 << 30) as f64 / f64::from(1 << 30)).ln() / 50.0;
        let arrivals = (0..3000).map(|_| {
            at += gap();
            at
        });
        let arrivals = arrivals.collect();
        poisson.clients = Clients::Open { arrivals };
        let outcome = simulate(&poisson);
        assert_near(outcome.rate, 50.0);
        assert!((0.0100..0.0105).contains(&outcome.p50), "half of them find it idle: {outcome:?}");
        assert!((0.020..0.032).contains(&outcome.p95), "{outcome:?}");
    }

    #[test]
    fn batches_delays_and_locks_change_throughput() {
        let mut joined = test_model(1, 16);
        joined.models[0] = ModelStation { max_batch: 8, run: 0.01, row: 0.001, ..joined.models[0].clone() };
        assert_near(simulate(&joined).rate, 8.0 / 0.018);
        let mut held = test_model(1, 1);
        held.models[0].delay = 0.03;
        held.models[0].max_batch = 4;
        assert_near(simulate(&held).p50, 0.04);
        let mut locked = test_model(4, 8);
        (locked.models[0].blocked, locked.models[0].locked) = (0.01, true);
        assert_near(simulate(&locked).rate, 100.0);
        let mut waiting = test_model(1, 8);
        waiting.models[0].blocked = 0.03;
        assert_near(simulate(&waiting).rate, 25.0);
    }

    #[test]
    fn cores_are_shared_with_other_programs() {
        let mut shared = test_model(4, 8);
        assert_near(simulate(&shared).rate, 400.0);
        shared.others = 4.0;
        assert_near(simulate(&shared).rate, 200.0);
        shared.cores = 8.0;
        assert_near(simulate(&shared).rate, 400.0);
    }

    #[test]
    fn full_queue_refuses_and_shortens_waits() {
        let mut short = test_model(1, 50);
        let long = simulate(&short);
        short.models[0].queue_limit = 4;
        let cut = simulate(&short);
        assert_near(cut.rate, long.rate);
        assert!(cut.p95 < long.p95 / 5.0, "{cut:?} {long:?}");
    }
}
