//! Queueing model: a server as a network of queues, derived from an observation. It holds how requests arrive, how much
//! time of a core each station needs, and how many requests each serves concurrently.

use caudal_types::Stage;

use super::observation::{ModelStats, Observation, ThreadRole};
use crate::RequestRecord;

/// Number of requests that are sampled at most.
const MAX_SAMPLED_REQUESTS: usize = 2_000;
/// Fewer answered requests than this are no basis for a model.
const MIN_ANSWERED_REQUESTS: usize = 5;
/// A shorter receipt is not modelled: small requests arrive with their head.
const MIN_RECEIVE_SECONDS: f64 = 0.001;
/// A smaller share of blocked time is measurement noise.
const MIN_BLOCKED_SHARE: f64 = 0.1;

/// A server and its clients as a network of queues.
#[derive(Debug, Clone)]
pub(crate) struct QueueingModel {
    pub(crate) cores: f64,
    /// Threads of other programs that always want a core.
    pub(crate) others: f64,
    pub(crate) clients: Clients,
    pub(crate) io: usize,
    pub(crate) decoders: usize,
    pub(crate) models: Vec<ModelStation>,
    pub(crate) demands: Vec<RequestDemand>,
}

/// The arrival process of requests.
#[derive(Debug, Clone)]
pub(crate) enum Clients {
    /// A fixed number of clients; each sends its next request some time after the response to the last one.
    Closed { count: usize, pauses: Vec<f64> },
    /// Arrivals at fixed moments, in seconds.
    Open { arrivals: Vec<f64> },
}

/// The queue and the instances of a model.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelStation {
    pub(crate) instances: usize,
    pub(crate) threads: usize,
    pub(crate) wide: Option<usize>,
    pub(crate) max_batch: usize,
    pub(crate) delay: f64,
    pub(crate) queue_limit: usize,
    /// Seconds of a core that a run needs regardless of its rows.
    pub(crate) run: f64,
    /// Seconds of a core that each row adds.
    pub(crate) row: f64,
    /// Seconds that a run waits for something other than a core.
    pub(crate) blocked: f64,
    /// Whether only one run at a time can have that.
    pub(crate) locked: bool,
}

/// The time that one request needs at each station, in seconds of a core.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RequestDemand {
    /// Until it had arrived: time of its client.
    pub(crate) receive: f64,
    pub(crate) io: f64,
    /// Time without a core or a model: the event store, steps of a pipeline, loading a model.
    pub(crate) elsewhere: f64,
    pub(crate) decode: f64,
    /// Its model's index, its rows, and the time of its run relative to the model's mean.
    pub(crate) model: Option<(usize, f64, f64)>,
}

impl QueueingModel {
    /// The model of an observation; none if too few requests were answered.
    pub(crate) fn from_observation(observation: &Observation) -> Option<Self> {
        let answered: Vec<_> = observation.answered_requests().collect();
        if answered.len() < MIN_ANSWERED_REQUESTS {
            return None;
        }
        let io = observation.thread_times(ThreadRole::Io).cpu / observation.ended.max(1) as f64;
        let decoding = decode_cost(observation);
        let step = answered.len().div_ceil(MAX_SAMPLED_REQUESTS);
        let sampled = answered.iter().step_by(step);
        let ran: f64 = observation.models.iter().map(|model| model.run_seconds).sum();
        let stations = observation.models.iter().map(|model| ModelStation::from_stats(model, ran, observation));
        Some(Self {
            cores: observation.cores,
            others: observation.other_cpu_share() * observation.cores,
            clients: Clients::from_observation(observation),
            io: observation.thread_times(ThreadRole::Io).threads.max(1),
            decoders: observation.thread_times(ThreadRole::Decode).threads.max(1),
            models: stations.collect(),
            demands: sampled.map(|record| RequestDemand::from_record(record, io, decoding, observation)).collect(),
        })
    }
}

/// Time of a core per second that requests spent at the decode stage: the decode threads' time is divided among requests
/// by the time that they spent there.
fn decode_cost(observation: &Observation) -> f64 {
    let cpu = observation.thread_times(ThreadRole::Decode).cpu;
    if cpu < 0.01 * observation.seconds {
        return 0.0;
    }
    let recorded = observation.requests.len() as f64 / observation.ended.max(1) as f64;
    (cpu * recorded / observation.stage_seconds(Stage::Decode).max(1e-9)).min(1.5)
}

impl ModelStation {
    /// The station of `model`; `ran` is the run time of all models together.
    fn from_stats(model: &ModelStats, ran: f64, observation: &Observation) -> Self {
        let runs = model.runs.max(1) as f64;
        // Work before and after the run is done by the same thread.
        let cpu = observation.thread_times(ThreadRole::Infer).cpu * model.run_seconds / ran.max(1e-9) / runs;
        let cpu = if model.in_place { 0.0 } else { cpu };
        // If a run of n rows takes p times n runs of one row: one row takes a + b, n rows take a + nb.
        let per_row = match (model.pair, model.eight) {
            (_, Some(eight)) => (8.0 * eight - 1.0) / 7.0,
            (Some(pair), None) => 2.0 * pair - 1.0,
            (None, None) => 1.0,
        };
        let per_row = per_row.clamp(0.0, 1.0);
        let now = cpu / (1.0 - per_row + per_row * model.mean_rows().max(1.0));
        // A run on otherwise idle cores costs more than one of many: with more runs the cost approaches the warm one.
        let warm = model.warm.filter(|warm| *warm < now && model.threads == 1).unwrap_or(now);
        let idle = observation.idle_cpu_share();
        let unit = warm.powf(idle) * now.powf(1.0 - idle);
        let blocked = observation.blocked_share(model);
        let blocked = if blocked > MIN_BLOCKED_SHARE { blocked * model.busy * observation.seconds / runs } else { 0.0 };
        Self {
            instances: model.instances,
            threads: model.threads,
            wide: model.wide,
            max_batch: model.max_batch,
            delay: model.delay,
            queue_limit: model.queue_limit,
            run: unit * (1.0 - per_row),
            row: unit * per_row,
            blocked,
            // With several instances that wait, a lock is more likely than a device that serves them all.
            locked: blocked > 0.0 && model.instances > 1,
        }
    }
}

impl RequestDemand {
    fn from_record(record: &RequestRecord, io: f64, decoding: f64, observation: &Observation) -> Self {
        let at = |stage: Stage| record.stamps.spent(stage).as_secs_f64();
        let position = |name: &str| observation.models.iter().position(|model| model.name == name && model.runs > 0);
        let model = record.model.as_ref().and_then(|model| position(&model.name)).map(|index| {
            let rows = record.stamps.run().map_or(1.0, |run| run.rows as f64 / run.requests.max(1) as f64);
            let size = at(Stage::Infer) / observation.models[index].mean_run_seconds().max(1e-9);
            (index, rows.max(1.0), size.clamp(0.2, 5.0))
        });
        let receive = at(Stage::Receive);
        let elsewhere = [Stage::Load, Stage::Store, Stage::Persist, Stage::Flow].map(at).iter().sum();
        Self {
            receive: if receive > MIN_RECEIVE_SECONDS { receive } else { 0.0 },
            io,
            elsewhere,
            decode: at(Stage::Decode) * decoding,
            model,
        }
    }
}

impl Clients {
    /// The number of clients of a closed loop.
    pub(crate) fn closed_count(&self) -> Option<usize> {
        match self {
            Self::Closed { count, .. } => Some(*count),
            Self::Open { .. } => None,
        }
    }

    /// Twice as many clients, or twice as many requests.
    pub(crate) fn doubled(&self) -> Self {
        match self {
            Self::Closed { count, pauses } => Self::Closed { count: count * 2, pauses: pauses.clone() },
            Self::Open { arrivals } => Self::Open { arrivals: arrivals.iter().map(|at| at / 2.0).collect() },
        }
    }

    /// Clients that send soon after a response form a closed loop; others send at moments of their own.
    fn from_observation(observation: &Observation) -> Self {
        let mut requests: Vec<_> = observation.requests.iter().collect();
        requests.sort_by_key(|record| (record.connection, record.stamps.start()));
        let mut pauses = Vec::new();
        let (mut count, mut busy) = (0, 0.0);
        for (index, record) in requests.iter().enumerate() {
            busy += record.stamps.total().as_secs_f64();
            match requests.get(index.wrapping_sub(1)).filter(|before| before.connection == record.connection) {
                Some(before) => {
                    let end = before.stamps.start() + before.stamps.total();
                    pauses.push(record.stamps.start().saturating_duration_since(end).as_secs_f64());
                }
                None => count += 1,
            }
        }
        let idle: f64 = pauses.iter().sum();
        let sends_after_response = !pauses.is_empty() && pauses.len() >= 2 * count;
        // Connections with one request each are successive clients, as many at a time as requests were in progress.
        if pauses.is_empty() || (sends_after_response && idle < busy) {
            if pauses.is_empty() {
                (count, pauses) = ((observation.connections.in_progress.round() as usize).max(1), vec![0.0]);
            }
            return Self::Closed { count, pauses };
        }
        requests.sort_by_key(|record| record.stamps.start());
        let first = requests[0].stamps.start();
        let at = |record: &&RequestRecord| record.stamps.start().saturating_duration_since(first).as_secs_f64();
        Self::Open { arrivals: requests.iter().map(at).collect() }
    }
}
