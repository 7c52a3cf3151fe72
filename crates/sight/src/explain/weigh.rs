//! What the time of requests, and those that were lost, is to be put down to.
//!
//! Each second that a request spent waiting is charged to whatever it waited for (as in wait-state analysis: Wolf, Mohr,
//! *EARL*, 1999; off-CPU analysis: B. Gregg, 2013), each request that was lost to what was too small for it. A weight is
//! the part of all that, from 0 to 1.

use std::collections::BTreeMap;

use caudal_types::{ErrorKind, Stage};
use serde::Serialize;

use super::watched::{ModelSeen, Role, Spent, Watched};

/// What limits a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// All instances of a model run, and cores are free.
    InstancesSaturated,
    /// The server's own work fills all cores.
    CpuSaturated,
    /// Other programs fill them.
    CpuTaken,
    /// The kernel holds the server back for its quota.
    CpuThrottled,
    /// Runs have more threads than there are cores.
    TooManyThreads,
    /// Runs take fewer rows than would pay.
    BatchesTooSmall,
    /// Free instances wait for more rows.
    BatchDelay,
    /// The queue is full although instances are free most of the time.
    QueueTooSmall,
    /// Requests wait for many runs.
    QueueTooLong,
    /// All decode threads work, and cores are free.
    DecodeThreadsSaturated,
    /// The threads that talk to sockets work all the time, and cores are free.
    IoThreadsSaturated,
    /// Something blocks the threads that talk to sockets.
    EventLoopStarved,
    /// Runs wait for something that is no core: a lock, a device, a disk.
    RunsBlocked,
    /// The machine's memory is nearly used up.
    MemoryPressure,
    /// The memory that uploads and pixels may hold is taken.
    MemoryLimits,
    /// As many requests are in progress as may be, and the server is not busy.
    ConcurrencyLimit,
    /// As many connections are open as may be.
    ConnectionLimit,
    /// Requests have less time than their work takes.
    DeadlinesTooShort,
    /// Models are loaded again and again.
    ModelsComeAndGo,
    /// Events wait until they are on disk.
    StoreWrites,
    /// The record is read, and states are replayed from it.
    StoreReads,
    /// Steps of pipelines run, and what they wait for is nothing of this server's.
    PipelineSteps,
    /// Clients send their requests slowly.
    SlowClients,
    /// Clients open a connection for each of many small requests.
    ShortConnections,
    /// Requests are refused for what they say.
    BadRequests,
    /// A model fails.
    ModelFails,
    /// Nothing in the server: it waits for clients.
    ClientsIdle,
}

/// What a limit is about: a model, by its place, or the whole server.
pub(crate) type Charge = (Limit, Option<usize>);

/// Less of all time than this is no limit.
pub(crate) const MATTERS: f64 = 0.2;
/// Instances or threads busier than this are saturated: who comes finds all of them busy nearly always.
const SATURATED: f64 = 0.8;
/// Less of the cores' time than this is nothing to give to others.
const FREE: f64 = 0.15;
/// A batch as large as this part of the largest is full.
const FULL: f64 = 0.85;
/// A run of two rows that takes more than this part of two runs makes joining worth nothing.
const PAYS: f64 = 0.8;
/// A wait for as many runs is long, and for twice as many too long.
const LONG: f64 = 10.0;
/// A server that takes more of its cores' time than this is itself what fills them.
const OWN: f64 = 0.6;
/// What is busier than this gives no tenth more, however many ask: nobody need wait for it yet.
const USED_UP: f64 = 0.9;
/// A server that takes less of them has no part in it that they are full.
const PART: f64 = 0.3;
/// Requests that are there within so many seconds are there at once.
const SOON: f64 = 0.001;
/// Fewer lost requests than this are none.
const NOTED: f64 = 0.01;

/// All weights.
pub(crate) fn weigh(watched: &Watched) -> BTreeMap<Charge, f64> {
    let mut scale = Scale { watched, weights: BTreeMap::new(), whole: 0.0 };
    let unfinished = [Stage::Receive, Stage::Load, Stage::Store, Stage::Persist, Stage::Flow];
    scale.whole = watched.whole() + unfinished.map(|stage| watched.unfinished(stage)).iter().sum::<f64>();
    if scale.whole > 0.0 {
        scale.receive();
        scale.load();
        scale.store();
        scale.persist();
        scale.flow();
        scale.decode();
        (0..watched.models.len()).for_each(|model| scale.model(model));
    }
    scale.doors();
    scale.lost();
    // Slow clients are no reason where more of them would not be answered either.
    let blamed = |(charge, weight): (&Charge, &f64)| charge.0 != Limit::SlowClients && *weight >= MATTERS;
    if scale.whole > 0.0 && !scale.weights.iter().any(blamed) {
        scale.used_up();
    }
    if scale.weights.values().all(|weight| *weight < MATTERS) {
        scale.charge((Limit::ClientsIdle, None), 1.0);
    }
    scale.weights
}

struct Scale<'a> {
    watched: &'a Watched,
    weights: BTreeMap<Charge, f64>,
    /// Seconds that requests took, all together.
    whole: f64,
}

impl Scale<'_> {
    fn charge(&mut self, to: Charge, weight: f64) {
        if weight > 0.0 {
            *self.weights.entry(to).or_default() += weight;
        }
    }

    /// Seconds that requests spent at `stage`, those among them that have not ended.
    fn spent(&self, stage: Stage) -> f64 {
        self.watched.spent(stage) + self.watched.unfinished(stage)
    }

    /// Whom to charge who waits for a core.
    fn core(&self) -> Charge {
        let watched = self.watched;
        let runs: f64 = watched.models.iter().map(|model| model.busy * model.threads as f64).sum();
        let limit = match () {
            () if watched.throttled > 0.1 => Limit::CpuThrottled,
            () if watched.others() > 0.3 && watched.own() < 0.65 => Limit::CpuTaken,
            () if runs > 1.5 * watched.cores => Limit::TooManyThreads,
            () => Limit::CpuSaturated,
        };
        (limit, None)
    }

    /// Charges what of `seconds` the threads of `role` waited for a core. While cores are free it is the kernel's way of waking
    /// threads, and over at once.
    fn for_cores(&mut self, seconds: f64, role: Role) {
        if !self.cores_are_free() {
            self.charge(self.core(), seconds * self.watched.stretched(role) / self.whole);
        }
    }

    fn cores_are_free(&self) -> bool {
        self.watched.idle() >= FREE && self.watched.throttled <= 0.1
    }

    fn receive(&mut self) {
        let watched = self.watched;
        let seconds = self.spent(Stage::Receive);
        if seconds < SOON * watched.requests.len() as f64 {
            return;
        }
        let limit = match () {
            () if watched.uploads > 0.9 => Limit::MemoryLimits,
            () if watched.doors.blocked > 0.3 => Limit::EventLoopStarved,
            () if watched.busy(Role::Io) >= SATURATED && self.cores_are_free() => Limit::IoThreadsSaturated,
            () if watched.stretched(Role::Io) > 0.5 && !self.cores_are_free() => self.core().0,
            () => Limit::SlowClients,
        };
        self.charge((limit, None), seconds / self.whole);
    }

    /// Charges waiting for the disk, and for cores where there are none: the thread that writes needs one too.
    fn persist(&mut self) {
        let to = if self.cores_are_free() { (Limit::StoreWrites, None) } else { self.core() };
        self.charge(to, self.spent(Stage::Persist) / self.whole);
    }

    fn load(&mut self) {
        self.charge((Limit::ModelsComeAndGo, None), self.spent(Stage::Load) / self.whole);
    }

    /// Charges what the record takes to be read: it is the store's own work, on threads of its own, whoever fills the cores.
    fn store(&mut self) {
        self.charge((Limit::StoreReads, None), self.spent(Stage::Store) / self.whole);
    }

    /// Charges what the steps of pipelines take: to a model or to the cores where these are used up, for steps wait for them.
    fn flow(&mut self) {
        let to = match self.busiest() {
            Some(model) if self.watched.models[model].load() >= SATURATED => self.saturated(model),
            _ if !self.cores_are_free() => self.core(),
            _ => (Limit::PipelineSteps, None),
        };
        self.charge(to, self.spent(Stage::Flow) / self.whole);
    }

    /// The model whose instances are busiest.
    fn busiest(&self) -> Option<usize> {
        let load = |index: &usize| self.watched.models[*index].load();
        (0..self.watched.models.len()).max_by(|a, b| load(a).total_cmp(&load(b)))
    }

    /// Charges what is used up although hardly anybody waits for it: as many clients as there are instances find one of them
    /// free each time, and more of them would not. The weight is how far it is used up.
    fn used_up(&mut self) {
        let watched = self.watched;
        let busiest = self.busiest().filter(|index| watched.models[*index].load() >= USED_UP);
        let (to, used) = match busiest {
            _ if 1.0 - watched.idle() >= USED_UP && watched.own() >= PART => (self.core(), 1.0 - watched.idle()),
            Some(index) if watched.blocked(&watched.models[index]) > 0.25 => {
                ((Limit::RunsBlocked, Some(index)), watched.models[index].load())
            }
            Some(index) => ((Limit::InstancesSaturated, Some(index)), watched.models[index].load()),
            None if watched.busy(Role::Decode) >= USED_UP => {
                ((Limit::DecodeThreadsSaturated, None), watched.busy(Role::Decode))
            }
            None => return,
        };
        self.weights.entry(to).and_modify(|weight| *weight = weight.max(used.min(1.0))).or_insert(used.min(1.0));
    }

    fn decode(&mut self) {
        let watched = self.watched;
        let to = match () {
            () if watched.pixels > 0.9 || watched.uploads > 0.9 => (Limit::MemoryLimits, None),
            () if self.cores_are_free() => (Limit::DecodeThreadsSaturated, None),
            () => self.core(),
        };
        self.charge(to, watched.spent(Stage::Wait) / self.whole);
        self.for_cores(watched.spent(Stage::Decode), Role::Decode);
    }

    fn model(&mut self, index: usize) {
        let watched = self.watched;
        let model = &watched.models[index];
        let of = |stage| watched.of(model).map(|kept| kept.stamps.spent(stage).as_secs_f64()).sum::<f64>();
        let (queue, infer) = (of(Stage::Queue), of(Stage::Infer) + of(Stage::Prepare) + of(Stage::Finish));
        let blocked = watched.blocked(model);
        self.for_cores(infer, Role::Infer);
        if blocked > 0.25 {
            self.charge((Limit::RunsBlocked, Some(index)), infer * blocked / self.whole);
        }
        let mut left = queue / self.whole;
        if model.load() < SATURATED && model.delay > 0.0 {
            let waited = queue / watched.of(model).count().max(1) as f64;
            let held = (model.delay / waited.max(1e-9)).min(1.0);
            self.charge((Limit::BatchDelay, Some(index)), left * held);
            left *= 1.0 - held;
        }
        if model.load() < SATURATED {
            // They come in bursts: that is how it is, and nobody's fault.
            return;
        }
        let (limit, of) = self.saturated(index);
        self.charge((limit, of), left);
        let runs = queue / watched.of(model).count().max(1) as f64 / model.run().max(1e-9);
        if matches!(limit, Limit::CpuSaturated | Limit::CpuTaken | Limit::CpuThrottled) && runs > LONG {
            self.charge((Limit::QueueTooLong, Some(index)), left * ((runs - LONG) / LONG).min(1.2));
        }
    }

    /// Why the instances of model `index`, which run all the time, do no more.
    fn saturated(&self, index: usize) -> Charge {
        let model = &self.watched.models[index];
        let wanted = (model.instances * model.threads) as f64;
        let full = model.batch() >= FULL * model.max_batch as f64;
        match () {
            () if model.joined && full && model.pair.is_some_and(|pair| pair < PAYS) => {
                (Limit::BatchesTooSmall, Some(index))
            }
            () if self.watched.blocked(model) > 0.25 => (Limit::RunsBlocked, Some(index)),
            () if self.cores_are_free() && wanted < self.watched.cores => (Limit::InstancesSaturated, Some(index)),
            () => self.core(),
        }
    }

    fn doors(&mut self) {
        let watched = self.watched;
        let doors = watched.doors;
        self.charge((Limit::EventLoopStarved, None), if doors.blocked > 0.1 { doors.blocked } else { 0.0 });
        let io = watched.busy(Role::Io);
        if io >= SATURATED {
            let to = if self.cores_are_free() { (Limit::IoThreadsSaturated, None) } else { self.core() };
            self.charge(to, 0.6 * io);
        }
        if doors.open >= 0.95 * doors.most_open as f64 && doors.most_open > 0 {
            self.charge((Limit::ConnectionLimit, None), 0.9);
        }
        let each = doors.opened as f64 / watched.ended.max(1) as f64;
        let mean = watched.whole() / watched.requests.len().max(1) as f64;
        if each >= 0.5 && watched.ended > 50 {
            // What it costs both sides, beside what the request takes.
            self.charge((Limit::ShortConnections, None), each.min(1.0) * COST / (COST + mean));
        }
    }

    fn lost(&mut self) {
        use ErrorKind as Kind;
        let busiest = self.busiest();
        let saturated = busiest.filter(|index| self.watched.models[*index].load() >= SATURATED);
        let or_saturated = |scale: &Self, limit, of| match saturated {
            Some(index) => scale.saturated(index),
            None if !scale.cores_are_free() && scale.watched.own() > OWN => scale.core(),
            None => (limit, of),
        };
        let late = match self.late_on_arrival() {
            true => (Limit::SlowClients, None),
            false => or_saturated(self, Limit::DeadlinesTooShort, None),
        };
        let charges = [
            (&[Kind::QueueFull, Kind::QueueTimeout][..], or_saturated(self, Limit::QueueTooSmall, busiest)),
            (&[Kind::DeadlineExceeded, Kind::DeadlineUnreachable], late),
            (&[Kind::TooManyRequests], or_saturated(self, Limit::ConcurrencyLimit, None)),
            (&[Kind::MemoryFull], (Limit::MemoryLimits, None)),
            (&[Kind::MemoryPressure], (Limit::MemoryPressure, None)),
            (&[Kind::BodyTimeout, Kind::ClientGone], (Limit::SlowClients, None)),
            (
                &[Kind::InferenceFailed, Kind::Internal, Kind::ModelNotReady, Kind::LoadFailed],
                (Limit::ModelFails, None),
            ),
            (&BAD, (Limit::BadRequests, None)),
        ];
        for (errors, to) in charges {
            let lost = self.watched.lost(errors);
            if lost >= NOTED {
                self.charge(to, 0.4 + 0.6 * lost);
            }
        }
    }

    /// Whether those who were late spent their time being received.
    fn late_on_arrival(&self) -> bool {
        let late = self.watched.requests.iter().filter(|kept| kept.error == Some(ErrorKind::DeadlineExceeded));
        let (received, whole) = late.fold((0.0, 0.0), |(received, whole), kept| {
            let spent = kept.stamps.spent(Stage::Receive).as_secs_f64();
            (received + spent, whole + kept.stamps.total().as_secs_f64())
        });
        received > 0.5 * whole
    }
}

/// What a new connection costs, in seconds.
const COST: f64 = 0.0005;

/// Errors that say that the request is wrong.
const BAD: [ErrorKind; 15] = [
    ErrorKind::InvalidRequest,
    ErrorKind::InvalidParameter,
    ErrorKind::EmptyBody,
    ErrorKind::MissingFile,
    ErrorKind::TooManyParts,
    ErrorKind::InvalidImage,
    ErrorKind::UnsupportedImage,
    ErrorKind::ImageTooLarge,
    ErrorKind::BodyTooLarge,
    ErrorKind::UnsupportedMediaType,
    ErrorKind::InvalidTensor,
    ErrorKind::TextTooLong,
    ErrorKind::ModelNotFound,
    ErrorKind::WrongTask,
    ErrorKind::NotFound,
];

impl Watched {
    /// Requests that were answered by `model`.
    pub(crate) fn of<'a>(&'a self, model: &'a ModelSeen) -> impl Iterator<Item = &'a crate::Kept> {
        self.answered().filter(|kept| kept.asked.as_ref().is_some_and(|asked| *asked.name == *model.name))
    }

    /// Part of the time of its runs in which `model`'s instances were neither on a core nor ready for one. Known of runs of
    /// one thread; the others wait for each other.
    pub(crate) fn blocked(&self, model: &ModelSeen) -> f64 {
        let busy: f64 = self.models.iter().map(|model| model.busy).sum::<f64>() * self.seconds;
        let Spent { cpu, ready, .. } = self.role(Role::Infer);
        // Runs in place are not on the instances' threads.
        if model.threads > 1 || model.in_place || busy < 0.05 * self.seconds {
            return 0.0;
        }
        (1.0 - (cpu + ready) / busy).clamp(0.0, 1.0)
    }
}
