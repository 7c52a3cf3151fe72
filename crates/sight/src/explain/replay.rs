//! The network of queues, run: by events, with cores that are shared equally among all who want one (processor sharing;
//! L. Kleinrock, *Time-shared systems*, 1967).

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
};

use super::{
    line::{Clients, Line},
    watched::quantile,
};

/// Requests that are followed to their end; the first tenth is not counted, for the network is empty then.
const FOLLOWED: usize = 3_000;
/// Most events: a network that answers nothing ends.
const EVENTS: usize = 400_000;

/// What a network of queues does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outcome {
    /// Answers a second.
    pub(crate) rate: f64,
    /// Half of the answers took at most so many seconds.
    pub(crate) p50: f64,
    /// 95 of a hundred did.
    pub(crate) p95: f64,
}

/// Runs `line` until enough requests are answered.
pub(crate) fn replay(line: &Line) -> Outcome {
    Replay::new(line).run()
}

/// A request on its way.
#[derive(Debug, Clone, Copy)]
struct Live {
    ask: usize,
    client: usize,
    began: f64,
}

/// What is done next.
#[derive(Debug, Clone)]
enum Step {
    Arrive(Live),
    Received(Live),
    ReadBy(usize, Live),
    Back(Live),
    DecodedBy(Live),
    Unblocked(usize, Vec<Live>),
    Ran(usize, Vec<Live>),
    WrittenBy(usize, Live),
    Look(usize),
}

/// Work that wants cores.
struct Work {
    left: f64,
    width: f64,
    step: Step,
}

struct Timer {
    at: f64,
    number: usize,
    step: Step,
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
struct Thread {
    waiting: VecDeque<(Live, bool)>,
    busy: bool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(Live, f64)>,
    busy: usize,
    /// Runs that wait for the lock.
    locked: VecDeque<(Vec<Live>, f64)>,
    held: bool,
}

struct Replay<'a> {
    line: &'a Line,
    now: f64,
    numbers: usize,
    timers: BinaryHeap<Reverse<Timer>>,
    working: Vec<Work>,
    io: Vec<Thread>,
    decode: VecDeque<Live>,
    decoding: usize,
    queues: Vec<Queue>,
    took: Vec<f64>,
    ended: Vec<f64>,
    asked: usize,
    random: u64,
}

impl<'a> Replay<'a> {
    fn new(line: &'a Line) -> Self {
        let mut replay = Self {
            line,
            now: 0.0,
            numbers: 0,
            timers: BinaryHeap::new(),
            working: Vec::new(),
            io: (0..line.io).map(|_| Thread::default()).collect(),
            decode: VecDeque::new(),
            decoding: 0,
            queues: line.models.iter().map(|_| Queue::default()).collect(),
            took: Vec::new(),
            ended: Vec::new(),
            asked: 0,
            random: 0x9E37_79B9_7F4A_7C15,
        };
        match &line.clients {
            Clients::Closed { count, .. } => (0..*count).for_each(|client| replay.come(client, 0.0)),
            Clients::Open { arrivals } => {
                let span = arrivals.last().copied().unwrap_or(0.0) * (1.0 + 1.0 / arrivals.len() as f64);
                let rounds = FOLLOWED.div_ceil(arrivals.len()).min(50);
                for round in 0..rounds {
                    for (client, at) in arrivals.iter().enumerate() {
                        replay.come(client, at + span * round as f64);
                    }
                }
            }
        }
        replay
    }

    fn run(mut self) -> Outcome {
        for _ in 0..EVENTS {
            if self.took.len() >= FOLLOWED || !self.step() {
                break;
            }
        }
        let skipped = self.took.len() / 10;
        let from = skipped.checked_sub(1).map_or(0.0, |last| self.ended[last]);
        let span = (self.ended.last().copied().unwrap_or(0.0) - from).max(1e-9);
        let took = self.took.split_off(skipped);
        Outcome { rate: took.len() as f64 / span, p50: quantile(took.clone(), 0.5), p95: quantile(took, 0.95) }
    }

    /// Goes on to whatever is done next; false where nothing is left to do.
    fn step(&mut self) -> bool {
        let wanted = self.line.others + self.working.iter().map(|work| work.width).sum::<f64>();
        let speed = if wanted > self.line.cores { self.line.cores / wanted } else { 1.0 };
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
        let step = match timed {
            true => self.timers.pop().map(|timer| timer.0.step),
            false => first.map(|index| self.working.swap_remove(index).step),
        };
        if let Some(step) = step {
            self.take(step);
        }
        true
    }

    fn after(&mut self, wait: f64, step: Step) {
        self.numbers += 1;
        self.timers.push(Reverse(Timer { at: self.now + wait, number: self.numbers, step }));
    }

    fn work(&mut self, seconds: f64, width: f64, step: Step) {
        self.working.push(Work { left: seconds.max(1e-9), width: width.max(1.0), step });
    }

    /// A number from 0 to `below`, exclusive (xorshift; G. Marsaglia, 2003).
    fn dice(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below.max(1) as u64) as usize
    }

    fn come(&mut self, client: usize, wait: f64) {
        let ask = match self.line.clients {
            Clients::Open { .. } => self.asked % self.line.asks.len(),
            Clients::Closed { .. } => self.dice(self.line.asks.len()),
        };
        self.asked += 1;
        self.after(wait, Step::Arrive(Live { ask, client, began: self.now + wait }));
    }

    /// The client of `live` has its answer, or a refusal.
    fn again(&mut self, live: Live, refused: bool) {
        if let Clients::Closed { pauses, .. } = &self.line.clients {
            let pause = pauses[self.dice(pauses.len())];
            // Who is refused and asks again at once would keep the network busy with nothing else.
            self.come(live.client, if refused { pause.max(0.001) } else { pause });
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Arrive(live) => self.after(self.line.asks[live.ask].receive, Step::Received(live)),
            Step::Received(live) => self.talk(live, true),
            Step::ReadBy(thread, live) => {
                self.io_free(thread);
                match self.line.asks[live.ask].elsewhere {
                    elsewhere if elsewhere > 0.0 => self.after(elsewhere, Step::Back(live)),
                    _ => self.decode(live),
                }
            }
            Step::Back(live) => self.decode(live),
            Step::DecodedBy(live) => {
                self.decoding -= 1;
                self.decoders_go_on();
                self.wait_for_run(live);
            }
            Step::Unblocked(model, lives) => {
                let work = self.run_of(model, &lives);
                self.start(model, lives, work);
            }
            Step::Ran(model, lives) => {
                let queue = &mut self.queues[model];
                queue.busy -= 1;
                queue.held = false;
                lives.into_iter().for_each(|live| self.talk(live, false));
                if let Some((next, work)) = self.queues[model].locked.pop_front() {
                    self.queues[model].held = true;
                    self.start(model, next, work);
                }
                self.look(model);
            }
            Step::WrittenBy(thread, live) => {
                self.io_free(thread);
                self.took.push(self.now - live.began);
                self.ended.push(self.now);
                self.again(live, false);
            }
            Step::Look(model) => self.look(model),
        }
    }

    fn talk(&mut self, live: Live, comes: bool) {
        let thread = live.client % self.io.len();
        self.io[thread].waiting.push_back((live, comes));
        self.io_goes_on(thread);
    }

    fn io_free(&mut self, thread: usize) {
        self.io[thread].busy = false;
        self.io_goes_on(thread);
    }

    fn io_goes_on(&mut self, thread: usize) {
        if self.io[thread].busy {
            return;
        }
        let Some((live, comes)) = self.io[thread].waiting.pop_front() else { return };
        self.io[thread].busy = true;
        let half = self.line.asks[live.ask].io / 2.0;
        self.work(half, 1.0, if comes { Step::ReadBy(thread, live) } else { Step::WrittenBy(thread, live) });
    }

    fn decode(&mut self, live: Live) {
        if self.line.asks[live.ask].decode <= 0.0 {
            return self.wait_for_run(live);
        }
        self.decode.push_back(live);
        self.decoders_go_on();
    }

    fn decoders_go_on(&mut self) {
        while self.decoding < self.line.decoders {
            let Some(live) = self.decode.pop_front() else { return };
            self.decoding += 1;
            self.work(self.line.asks[live.ask].decode, 1.0, Step::DecodedBy(live));
        }
    }

    fn wait_for_run(&mut self, live: Live) {
        let Some((model, ..)) = self.line.asks[live.ask].model else { return self.talk(live, false) };
        if self.queues[model].waiting.len() >= self.line.models[model].queue_limit {
            return self.again(live, true);
        }
        self.queues[model].waiting.push_back((live, self.now));
        self.look(model);
    }

    /// Lets free instances run what waits.
    fn look(&mut self, model: usize) {
        let station = &self.line.models[model];
        while self.queues[model].busy < station.instances.max(1) {
            let Some((_, since)) = self.queues[model].waiting.front() else { return };
            let due = since + station.delay;
            let rows = |lives: &VecDeque<(Live, f64)>| -> f64 { lives.iter().map(|(live, _)| self.rows(live)).sum() };
            if due > self.now + 1e-9 && rows(&self.queues[model].waiting) < station.max_batch as f64 {
                return self.after(due - self.now, Step::Look(model));
            }
            let mut lives: Vec<Live> = Vec::new();
            let mut taken = 0.0;
            while let Some((live, _)) = self.queues[model].waiting.front().copied() {
                if !lives.is_empty() && taken + self.rows(&live) > station.max_batch as f64 {
                    break;
                }
                taken += self.rows(&live);
                lives.push(live);
                self.queues[model].waiting.pop_front();
            }
            self.queues[model].busy += 1;
            match station.blocked > 0.0 && !station.locked {
                true => self.after(station.blocked, Step::Unblocked(model, lives)),
                false => {
                    let work = self.run_of(model, &lives);
                    match station.locked && self.queues[model].held {
                        true => self.queues[model].locked.push_back((lives, work)),
                        false => {
                            self.queues[model].held = true;
                            self.start(model, lives, work);
                        }
                    }
                }
            }
        }
    }

    fn start(&mut self, model: usize, lives: Vec<Live>, work: f64) {
        let station = &self.line.models[model];
        let queue = &self.queues[model];
        let alone = queue.busy == 1 && queue.waiting.is_empty();
        let width = station.wide.filter(|_| alone).unwrap_or(station.threads);
        self.work(work, width as f64, Step::Ran(model, lives));
    }

    fn rows(&self, live: &Live) -> f64 {
        self.line.asks[live.ask].model.map_or(1.0, |(_, rows, _)| rows)
    }

    /// Seconds of a core that a run of `lives` needs.
    fn run_of(&self, model: usize, lives: &[Live]) -> f64 {
        let station = &self.line.models[model];
        let rows: f64 = lives.iter().map(|live| self.rows(live)).sum();
        let sizes = lives.iter().filter_map(|live| self.line.asks[live.ask].model).map(|(_, _, size)| size);
        (station.run + station.row * rows) * sizes.sum::<f64>() / lives.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::line::{Ask, Station};

    /// One model of `instances` whose runs take 10 ms of a core, and `count` clients that ask again at once.
    fn line(instances: usize, count: usize) -> Line {
        let station =
            Station { instances, threads: 1, max_batch: 1, queue_limit: 1000, row: 0.01, ..Station::default() };
        Line {
            cores: 4.0,
            others: 0.0,
            clients: Clients::Closed { count, pauses: vec![0.0] },
            io: 2,
            decoders: 2,
            models: vec![station],
            asks: vec![Ask { model: Some((0, 1.0, 1.0)), ..Ask::default() }],
        }
    }

    fn near(got: f64, expected: f64) {
        assert!((got / expected - 1.0).abs() < 0.03, "{got} is not {expected}");
    }

    #[test]
    fn the_slowest_station_sets_the_pace() {
        near(replay(&line(1, 8)).rate, 100.0);
        near(replay(&line(3, 8)).rate, 300.0);
        near(replay(&line(8, 8)).rate, 400.0);
        near(replay(&line(8, 1)).rate, 100.0);
        near(replay(&line(1, 8)).p50, 0.08);
        let mut decoding = line(4, 8);
        decoding.asks[0].decode = 0.02;
        decoding.decoders = 1;
        near(replay(&decoding).rate, 50.0);
        decoding.decoders = 2;
        near(replay(&decoding).rate, 100.0);
    }

    #[test]
    fn an_open_queue_is_as_theory_says() {
        // M/D/1 at half load: the mean wait is a quarter of a run (Pollaczek, Khinchine); here the median of the whole.
        let mut poisson = line(1, 1);
        let (mut at, mut random) = (0.0, Replay::new(&poisson));
        let mut gap = || -(1.0 - random.dice(1 << 30) as f64 / f64::from(1 << 30)).ln() / 50.0;
        let arrivals = (0..3000).map(|_| {
            at += gap();
            at
        });
        let arrivals = arrivals.collect();
        poisson.clients = Clients::Open { arrivals };
        let outcome = replay(&poisson);
        near(outcome.rate, 50.0);
        assert!((0.0100..0.0105).contains(&outcome.p50), "half of them find it idle: {outcome:?}");
        assert!((0.020..0.032).contains(&outcome.p95), "{outcome:?}");
    }

    #[test]
    fn batches_delays_and_locks_have_their_effect() {
        let mut joined = line(1, 16);
        joined.models[0] = Station { max_batch: 8, run: 0.01, row: 0.001, ..joined.models[0].clone() };
        near(replay(&joined).rate, 8.0 / 0.018);
        let mut held = line(1, 1);
        held.models[0].delay = 0.03;
        held.models[0].max_batch = 4;
        near(replay(&held).p50, 0.04);
        let mut locked = line(4, 8);
        (locked.models[0].blocked, locked.models[0].locked) = (0.01, true);
        near(replay(&locked).rate, 100.0);
        let mut waiting = line(1, 8);
        waiting.models[0].blocked = 0.03;
        near(replay(&waiting).rate, 25.0);
    }

    #[test]
    fn cores_are_shared_with_others() {
        let mut shared = line(4, 8);
        near(replay(&shared).rate, 400.0);
        shared.others = 4.0;
        near(replay(&shared).rate, 200.0);
        shared.cores = 8.0;
        near(replay(&shared).rate, 400.0);
    }

    #[test]
    fn a_full_queue_refuses_and_the_others_wait_less() {
        let mut short = line(1, 50);
        let long = replay(&short);
        short.models[0].queue_limit = 4;
        let cut = replay(&short);
        near(cut.rate, long.rate);
        assert!(cut.p95 < long.p95 / 5.0, "{cut:?} {long:?}");
    }
}
