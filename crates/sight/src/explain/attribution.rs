//! Attribution: assigns the requests' time, and the requests lost, to causes.
//!
//! Each second that a request spent waiting is charged to the resource that it waited for (as in wait-state analysis:
//! Wolf, Mohr, *EARL*, 1999; off-CPU analysis: B. Gregg, 2013), and each lost request to the limit that it exceeded. A
//! weight is the share of all that, from 0 to 1.

use std::collections::BTreeMap;

use caudal_types::{ErrorKind, Stage};
use serde::Serialize;

use super::observation::{ModelStats, Observation, ThreadRole, ThreadTimes};

/// The kind of limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// All instances of a model are busy, and cores are free.
    InstancesSaturated,
    /// The server's own work uses all cores.
    CpuSaturated,
    /// Other programs use all cores.
    CpuTaken,
    /// The kernel throttles the server because of its CPU quota.
    CpuThrottled,
    /// Runs have more threads than there are cores.
    TooManyThreads,
    /// Runs have fewer rows than would be efficient.
    BatchesTooSmall,
    /// Free instances wait for more rows.
    BatchDelay,
    /// The queue is full although the instances are idle most of the time.
    QueueTooSmall,
    /// Requests wait for many runs.
    QueueTooLong,
    /// All decode threads are busy, and cores are free.
    DecodeThreadsSaturated,
    /// All io threads are busy, and cores are free.
    IoThreadsSaturated,
    /// Something blocks the io threads.
    EventLoopStarved,
    /// Runs wait for something other than a core: a lock, a device, a disk.
    RunsBlocked,
    /// The machine's memory is nearly used up.
    MemoryPressure,
    /// The memory reserved for uploads or pixels is used up.
    MemoryLimits,
    /// The limit of requests in progress is reached, and the server is not busy.
    ConcurrencyLimit,
    /// The limit of open connections is reached.
    ConnectionLimit,
    /// Requests have less time than their work takes.
    DeadlinesTooShort,
    /// Models are loaded repeatedly.
    ModelsComeAndGo,
    /// Events wait until they are on disk.
    StoreWrites,
    /// Consultations are read, and states are replayed from their events.
    StoreReads,
    /// Steps of pipelines run and wait for no resource of this server.
    PipelineSteps,
    /// Clients send their requests slowly.
    SlowClients,
    /// Clients open a connection for each of many small requests.
    ShortConnections,
    /// Requests are invalid.
    BadRequests,
    /// A model fails.
    ModelFails,
    /// No limit: the server waits for clients.
    ClientsIdle,
}

/// The limit that is charged, and the index of the model if it is a model's.
pub(crate) type ChargeTarget = (Limit, Option<usize>);

/// Causes with less weight do not limit the server.
pub(crate) const MIN_CAUSE_WEIGHT: f64 = 0.2;
/// Instances or threads that are busier are saturated: a new request finds nearly always all of them busy.
const SATURATED_UTILIZATION: f64 = 0.8;
/// A smaller idle share of the cores' time is not available to anything else.
const MIN_FREE_CPU_SHARE: f64 = 0.15;
/// A batch with at least this share of the largest batch size is full.
const FULL_BATCH_SHARE: f64 = 0.85;
/// Joining rows is inefficient if a run of two rows takes more than this share of two runs.
const MAX_PAIR_COST: f64 = 0.8;
/// Waiting for so many runs is long, and for twice as many too long.
const LONG_WAIT_RUNS: f64 = 10.0;
/// A server with a larger share of the cores' time causes their saturation itself.
const MAIN_USER_CPU_SHARE: f64 = 0.6;
/// A busier resource cannot give a tenth more throughput, although requests need not wait for it yet.
const EXHAUSTED_UTILIZATION: f64 = 0.9;
/// A server with a smaller share of the cores' time does not contribute to their saturation.
const MIN_OWN_CPU_SHARE: f64 = 0.3;
/// Requests that arrive within this time are complete immediately.
const PROMPT_RECEIVE_SECONDS: f64 = 0.001;
/// A smaller share of failed requests is ignored.
const MIN_FAILED_SHARE: f64 = 0.01;

/// The weight of every cause.
pub(crate) fn attribute_time(observation: &Observation) -> BTreeMap<ChargeTarget, f64> {
    let mut attribution = Attribution { observation, weights: BTreeMap::new(), total_seconds: 0.0 };
    let unfinished = [Stage::Receive, Stage::Load, Stage::Store, Stage::Persist, Stage::Flow];
    attribution.total_seconds =
        observation.total_seconds() + unfinished.map(|stage| observation.unfinished_seconds(stage)).iter().sum::<f64>();
    if attribution.total_seconds > 0.0 {
        attribution.charge_receive();
        attribution.charge_load();
        attribution.charge_store();
        attribution.charge_persist();
        attribution.charge_pipelines();
        attribution.charge_decode();
        (0..observation.models.len()).for_each(|model| attribution.charge_model(model));
    }
    attribution.charge_connections();
    attribution.charge_failures();
    // Slow clients are no limit if faster ones would not be answered either.
    let blamed =
        |(charge, weight): (&ChargeTarget, &f64)| charge.0 != Limit::SlowClients && *weight >= MIN_CAUSE_WEIGHT;
    if attribution.total_seconds > 0.0 && !attribution.weights.iter().any(blamed) {
        attribution.charge_exhausted();
    }
    if attribution.weights.values().all(|weight| *weight < MIN_CAUSE_WEIGHT) {
        attribution.add_charge((Limit::ClientsIdle, None), 1.0);
    }
    attribution.weights
}

struct Attribution<'a> {
    observation: &'a Observation,
    weights: BTreeMap<ChargeTarget, f64>,
    /// Seconds that requests took in total.
    total_seconds: f64,
}

impl Attribution<'_> {
    fn add_charge(&mut self, to: ChargeTarget, weight: f64) {
        if weight > 0.0 {
            *self.weights.entry(to).or_default() += weight;
        }
    }

    /// Seconds that finished and unfinished requests spent at `stage`.
    fn stage_seconds(&self, stage: Stage) -> f64 {
        self.observation.stage_seconds(stage) + self.observation.unfinished_seconds(stage)
    }

    /// The limit to charge for waiting for a core.
    fn cpu_limit(&self) -> ChargeTarget {
        let observation = self.observation;
        let runs: f64 = observation.models.iter().map(|model| model.busy * model.threads as f64).sum();
        let limit = match () {
            () if observation.throttled > 0.1 => Limit::CpuThrottled,
            () if observation.other_cpu_share() > 0.3 && observation.own_cpu_share() < 0.65 => Limit::CpuTaken,
            () if runs > 1.5 * observation.cores => Limit::TooManyThreads,
            () => Limit::CpuSaturated,
        };
        (limit, None)
    }

    /// Charges the part of `seconds` that the threads of `role` waited for a core. While cores are free, such waits are
    /// the kernel's short delay of waking a thread.
    fn charge_cpu_waits(&mut self, seconds: f64, role: ThreadRole) {
        if !self.cores_are_free() {
            self.add_charge(self.cpu_limit(), seconds * self.observation.cpu_wait_share(role) / self.total_seconds);
        }
    }

    fn cores_are_free(&self) -> bool {
        self.observation.idle_cpu_share() >= MIN_FREE_CPU_SHARE && self.observation.throttled <= 0.1
    }

    fn charge_receive(&mut self) {
        let observation = self.observation;
        let seconds = self.stage_seconds(Stage::Receive);
        if seconds < PROMPT_RECEIVE_SECONDS * observation.requests.len() as f64 {
            return;
        }
        let limit = match () {
            () if observation.uploads > 0.9 => Limit::MemoryLimits,
            () if observation.connections.blocked > 0.3 => Limit::EventLoopStarved,
            () if observation.thread_utilization(ThreadRole::Io) >= SATURATED_UTILIZATION && self.cores_are_free() => {
                Limit::IoThreadsSaturated
            }
            () if observation.cpu_wait_share(ThreadRole::Io) > 0.5 && !self.cores_are_free() => self.cpu_limit().0,
            () => Limit::SlowClients,
        };
        self.add_charge((limit, None), seconds / self.total_seconds);
    }

    /// Charges waiting for the disk; if no cores are free, the cores, because the writer thread needs one too.
    fn charge_persist(&mut self) {
        let to = if self.cores_are_free() { (Limit::StoreWrites, None) } else { self.cpu_limit() };
        self.add_charge(to, self.stage_seconds(Stage::Persist) / self.total_seconds);
    }

    fn charge_load(&mut self) {
        self.add_charge((Limit::ModelsComeAndGo, None), self.stage_seconds(Stage::Load) / self.total_seconds);
    }

    /// Charges reading consultations to the store even if the cores are busy, because the store works on its own
    /// threads.
    fn charge_store(&mut self) {
        self.add_charge((Limit::StoreReads, None), self.stage_seconds(Stage::Store) / self.total_seconds);
    }

    /// Charges steps of pipelines to a saturated model or to the cores if there is one, because steps wait for these.
    fn charge_pipelines(&mut self) {
        let to = match self.busiest_model() {
            Some(model) if self.observation.models[model].utilization() >= SATURATED_UTILIZATION => {
                self.saturation_limit(model)
            }
            _ if !self.cores_are_free() => self.cpu_limit(),
            _ => (Limit::PipelineSteps, None),
        };
        self.add_charge(to, self.stage_seconds(Stage::Flow) / self.total_seconds);
    }

    /// The model whose instances are busiest.
    fn busiest_model(&self) -> Option<usize> {
        let load = |index: &usize| self.observation.models[*index].utilization();
        (0..self.observation.models.len()).max_by(|a, b| load(a).total_cmp(&load(b)))
    }

    /// Charges a resource that is used up although requests hardly wait for it: with as many clients as instances each
    /// request finds a free instance, and with more clients it would not. The weight is the utilization.
    fn charge_exhausted(&mut self) {
        let observation = self.observation;
        let busiest =
            self.busiest_model().filter(|index| observation.models[*index].utilization() >= EXHAUSTED_UTILIZATION);
        let (to, used) = match busiest {
            _ if 1.0 - observation.idle_cpu_share() >= EXHAUSTED_UTILIZATION
                && observation.own_cpu_share() >= MIN_OWN_CPU_SHARE =>
            {
                (self.cpu_limit(), 1.0 - observation.idle_cpu_share())
            }
            Some(index) if observation.blocked_share(&observation.models[index]) > 0.25 => {
                ((Limit::RunsBlocked, Some(index)), observation.models[index].utilization())
            }
            Some(index) => ((Limit::InstancesSaturated, Some(index)), observation.models[index].utilization()),
            None if observation.thread_utilization(ThreadRole::Decode) >= EXHAUSTED_UTILIZATION => {
                ((Limit::DecodeThreadsSaturated, None), observation.thread_utilization(ThreadRole::Decode))
            }
            None => return,
        };
        self.weights.entry(to).and_modify(|weight| *weight = weight.max(used.min(1.0))).or_insert(used.min(1.0));
    }

    fn charge_decode(&mut self) {
        let observation = self.observation;
        let to = match () {
            () if observation.pixels > 0.9 || observation.uploads > 0.9 => (Limit::MemoryLimits, None),
            () if self.cores_are_free() => (Limit::DecodeThreadsSaturated, None),
            () => self.cpu_limit(),
        };
        self.add_charge(to, observation.stage_seconds(Stage::Wait) / self.total_seconds);
        self.charge_cpu_waits(observation.stage_seconds(Stage::Decode), ThreadRole::Decode);
    }

    fn charge_model(&mut self, index: usize) {
        let observation = self.observation;
        let model = &observation.models[index];
        let of = |stage| {
            observation.model_requests(model).map(|record| record.stamps.spent(stage).as_secs_f64()).sum::<f64>()
        };
        let (queue, infer) = (of(Stage::Queue), of(Stage::Infer) + of(Stage::Prepare) + of(Stage::Finish));
        let blocked = observation.blocked_share(model);
        self.charge_cpu_waits(infer, ThreadRole::Infer);
        if blocked > 0.25 {
            self.add_charge((Limit::RunsBlocked, Some(index)), infer * blocked / self.total_seconds);
        }
        let mut left = queue / self.total_seconds;
        if model.utilization() < SATURATED_UTILIZATION && model.delay > 0.0 {
            let waited = queue / observation.model_requests(model).count().max(1) as f64;
            let held = (model.delay / waited.max(1e-9)).min(1.0);
            self.add_charge((Limit::BatchDelay, Some(index)), left * held);
            left *= 1.0 - held;
        }
        if model.utilization() < SATURATED_UTILIZATION {
            // Waiting for an unsaturated model means bursts of requests, which no limit causes.
            return;
        }
        let (limit, of) = self.saturation_limit(index);
        self.add_charge((limit, of), left);
        let runs = queue / observation.model_requests(model).count().max(1) as f64 / model.mean_run_seconds().max(1e-9);
        if matches!(limit, Limit::CpuSaturated | Limit::CpuTaken | Limit::CpuThrottled) && runs > LONG_WAIT_RUNS {
            self.add_charge(
                (Limit::QueueTooLong, Some(index)),
                left * ((runs - LONG_WAIT_RUNS) / LONG_WAIT_RUNS).min(1.2),
            );
        }
    }

    /// The reason why the saturated instances of model `index` do no more runs.
    fn saturation_limit(&self, index: usize) -> ChargeTarget {
        let model = &self.observation.models[index];
        let wanted = (model.instances * model.threads) as f64;
        let full = model.mean_rows() >= FULL_BATCH_SHARE * model.max_batch as f64;
        match () {
            () if model.joined && full && model.pair.is_some_and(|pair| pair < MAX_PAIR_COST) => {
                (Limit::BatchesTooSmall, Some(index))
            }
            () if self.observation.blocked_share(model) > 0.25 => (Limit::RunsBlocked, Some(index)),
            () if self.cores_are_free() && wanted < self.observation.cores => (Limit::InstancesSaturated, Some(index)),
            () => self.cpu_limit(),
        }
    }

    fn charge_connections(&mut self) {
        let observation = self.observation;
        let connections = observation.connections;
        self.add_charge(
            (Limit::EventLoopStarved, None),
            if connections.blocked > 0.1 { connections.blocked } else { 0.0 },
        );
        let io = observation.thread_utilization(ThreadRole::Io);
        if io >= SATURATED_UTILIZATION {
            let to = if self.cores_are_free() { (Limit::IoThreadsSaturated, None) } else { self.cpu_limit() };
            self.add_charge(to, 0.6 * io);
        }
        if connections.open >= 0.95 * connections.max_open as f64 && connections.max_open > 0 {
            self.add_charge((Limit::ConnectionLimit, None), 0.9);
        }
        let each = connections.opened as f64 / observation.ended.max(1) as f64;
        let mean = observation.total_seconds() / observation.requests.len().max(1) as f64;
        if each >= 0.5 && observation.ended > 50 {
            // The cost for both sides beside the request itself.
            self.add_charge(
                (Limit::ShortConnections, None),
                each.min(1.0) * CONNECTION_COST_SECONDS / (CONNECTION_COST_SECONDS + mean),
            );
        }
    }

    fn charge_failures(&mut self) {
        use ErrorKind as Kind;
        let busiest = self.busiest_model();
        let saturated = busiest.filter(|index| self.observation.models[*index].utilization() >= SATURATED_UTILIZATION);
        let or_saturated = |attribution: &Self, limit, of| match saturated {
            Some(index) => attribution.saturation_limit(index),
            None if !attribution.cores_are_free() && attribution.observation.own_cpu_share() > MAIN_USER_CPU_SHARE => {
                attribution.cpu_limit()
            }
            None => (limit, of),
        };
        let late = match self.is_late_on_arrival() {
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
            (&CLIENT_ERRORS, (Limit::BadRequests, None)),
        ];
        for (errors, to) in charges {
            let lost = self.observation.failed_share(errors);
            if lost >= MIN_FAILED_SHARE {
                self.add_charge(to, 0.4 + 0.6 * lost);
            }
        }
    }

    /// Whether the late requests spent most of their time being received.
    fn is_late_on_arrival(&self) -> bool {
        let late = self.observation.requests.iter().filter(|record| record.error == Some(ErrorKind::DeadlineExceeded));
        let (received, whole) = late.fold((0.0, 0.0), |(received, whole), record| {
            let spent = record.stamps.spent(Stage::Receive).as_secs_f64();
            (received + spent, whole + record.stamps.total().as_secs_f64())
        });
        received > 0.5 * whole
    }
}

/// The cost of a new connection, in seconds.
const CONNECTION_COST_SECONDS: f64 = 0.0005;

/// Errors that mean an invalid request.
const CLIENT_ERRORS: [ErrorKind; 15] = [
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

impl Observation {
    /// Successful requests of `model`.
    pub(crate) fn model_requests<'a>(
        &'a self,
        model: &'a ModelStats,
    ) -> impl Iterator<Item = &'a crate::RequestRecord> {
        self.answered_requests().filter(|record| record.model.as_ref().is_some_and(|used| *used.name == *model.name))
    }

    /// Share of its runs' time in which `model`'s instances were neither on a core nor ready for one. Known for runs of
    /// one thread only, because threads of one run wait for each other.
    pub(crate) fn blocked_share(&self, model: &ModelStats) -> f64 {
        let busy: f64 = self.models.iter().map(|model| model.busy).sum::<f64>() * self.seconds;
        let ThreadTimes { cpu, ready, .. } = self.thread_times(ThreadRole::Infer);
        // Runs in place are not on the instance threads.
        if model.threads > 1 || model.in_place || busy < 0.05 * self.seconds {
            return 0.0;
        }
        (1.0 - (cpu + ready) / busy).clamp(0.0, 1.0)
    }
}
