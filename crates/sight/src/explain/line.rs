//! A server as a network of queues, made of what was seen of it: who sends how, what each station needs of a core, and
//! how many may work at once.

use caudal_types::Stage;

use super::watched::{Role, Watched};

/// Most requests that are sampled.
const SAMPLES: usize = 2_000;

/// A server and its clients, as a network of queues.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) cores: f64,
    /// Threads of other programs that want one all the time.
    pub(crate) others: f64,
    pub(crate) clients: Clients,
    pub(crate) io: usize,
    pub(crate) decoders: usize,
    pub(crate) models: Vec<Station>,
    pub(crate) asks: Vec<Ask>,
}

/// How requests come.
#[derive(Debug, Clone)]
pub(crate) enum Clients {
    /// Each of so many asks again some time after it was answered.
    Closed { count: usize, pauses: Vec<f64> },
    /// At these moments, in seconds.
    Open { arrivals: Vec<f64> },
}

/// A model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Station {
    pub(crate) instances: usize,
    pub(crate) threads: usize,
    pub(crate) wide: Option<usize>,
    pub(crate) max_batch: usize,
    pub(crate) delay: f64,
    pub(crate) queue_limit: usize,
    /// Seconds of a core that a run needs whatever its rows, and each row more.
    pub(crate) run: f64,
    pub(crate) row: f64,
    /// Seconds that a run waits for something that is no core.
    pub(crate) blocked: f64,
    /// Whether only one can have that at a time.
    pub(crate) locked: bool,
}

/// A request, with what it needs of a core, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ask {
    /// Until it was there: its client's time.
    pub(crate) receive: f64,
    pub(crate) io: f64,
    /// Neither a core nor a model: the record, a pipeline's steps, a model that is loaded.
    pub(crate) elsewhere: f64,
    pub(crate) decode: f64,
    /// Its model, and its rows, and how its run compares with others.
    pub(crate) model: Option<(usize, f64, f64)>,
}

impl Line {
    /// The network that `watched` shows; none where nothing was answered.
    pub(crate) fn of(watched: &Watched) -> Option<Self> {
        let ended = watched.requests.len() as f64;
        let answered: Vec<_> = watched.answered().collect();
        if answered.len() < 5 {
            return None;
        }
        let spent = |stage| watched.spent(stage);
        let counted = watched.ended.max(1) as f64;
        let io = watched.role(Role::Io).cpu / counted;
        // What decode threads did is shared out by the time that requests spent there.
        let decoding = watched.role(Role::Decode).cpu * (ended / counted) / spent(Stage::Decode).max(1e-9);
        let decoding = if watched.role(Role::Decode).cpu < 0.01 * watched.seconds { 0.0 } else { decoding.min(1.5) };
        let ran: f64 = watched.models.iter().map(|model| model.ran).sum();
        let models: Vec<Station> = watched
            .models
            .iter()
            .map(|model| {
                let runs = model.runs.max(1) as f64;
                // Work beside the run, before it and after it, is the same thread's.
                let cpu = watched.role(Role::Infer).cpu * model.ran / ran.max(1e-9) / runs;
                let cpu = if model.in_place { 0.0 } else { cpu };
                // Of a run of n rows that takes p times n of one: one is a + b, n are a + nb.
                let each = match (model.pair, model.eight) {
                    (_, Some(eight)) => (8.0 * eight - 1.0) / 7.0,
                    (Some(pair), None) => 2.0 * pair - 1.0,
                    (None, None) => 1.0,
                };
                let each = each.clamp(0.0, 1.0);
                let now = cpu / (1.0 - each + each * model.batch().max(1.0));
                // A run on cores that rest costs more than one of many: with more of them it would come near to that.
                let warm = model.warm.filter(|warm| *warm < now && model.threads == 1).unwrap_or(now);
                let unit = warm.powf(watched.idle()) * now.powf(1.0 - watched.idle());
                let blocked = watched.blocked(model);
                let blocked = if blocked > 0.1 { blocked * model.busy * watched.seconds / runs } else { 0.0 };
                Station {
                    instances: model.instances,
                    threads: model.threads,
                    wide: model.wide,
                    max_batch: model.max_batch,
                    delay: model.delay,
                    queue_limit: model.queue_limit,
                    run: unit * (1.0 - each),
                    row: unit * each,
                    blocked,
                    // With two that wait for it, it is more likely a lock than a device that serves both.
                    locked: blocked > 0.0 && model.instances > 1,
                }
            })
            .collect();
        let step = answered.len().div_ceil(SAMPLES);
        let asks = answered.iter().step_by(step).map(|kept| {
            let at = |stage: Stage| kept.stamps.spent(stage).as_secs_f64();
            let index = kept
                .asked
                .as_ref()
                .and_then(|asked| watched.models.iter().position(|model| *model.name == *asked.name && model.runs > 0));
            let model = index.map(|index| {
                let rows = kept.stamps.run().map_or(1.0, |run| run.rows as f64 / run.requests.max(1) as f64);
                let size = at(Stage::Infer) / watched.models[index].run().max(1e-9);
                (index, rows.max(1.0), size.clamp(0.2, 5.0))
            });
            // A small one is there with its head.
            let receive = if at(Stage::Receive) > 0.001 { at(Stage::Receive) } else { 0.0 };
            let elsewhere = [Stage::Load, Stage::Store, Stage::Persist, Stage::Flow].map(at).iter().sum();
            Ask { receive, io, elsewhere, decode: at(Stage::Decode) * decoding, model }
        });
        Some(Self {
            cores: watched.cores,
            others: watched.others() * watched.cores,
            clients: Clients::of(watched),
            io: watched.role(Role::Io).threads.max(1),
            decoders: watched.role(Role::Decode).threads.max(1),
            models,
            asks: asks.collect(),
        })
    }
}

impl Clients {
    /// Requests in progress concurrently, where each client sends one after the other.
    pub(crate) fn count(&self) -> Option<usize> {
        match self {
            Self::Closed { count, .. } => Some(*count),
            Self::Open { .. } => None,
        }
    }

    /// Twice as many of them, or twice as many requests.
    pub(crate) fn twice(&self) -> Self {
        match self {
            Self::Closed { count, pauses } => Self::Closed { count: count * 2, pauses: pauses.clone() },
            Self::Open { arrivals } => Self::Open { arrivals: arrivals.iter().map(|at| at / 2.0).collect() },
        }
    }

    /// Who asks again as soon as it is answered waits for answers; who does not sends at moments of its own.
    fn of(watched: &Watched) -> Self {
        let mut requests: Vec<_> = watched.requests.iter().collect();
        requests.sort_by_key(|kept| (kept.connection, kept.stamps.start()));
        let mut pauses = Vec::new();
        let (mut count, mut busy) = (0, 0.0);
        for (index, kept) in requests.iter().enumerate() {
            busy += kept.stamps.total().as_secs_f64();
            match requests.get(index.wrapping_sub(1)).filter(|before| before.connection == kept.connection) {
                Some(before) => {
                    let end = before.stamps.start() + before.stamps.total();
                    pauses.push(kept.stamps.start().saturating_duration_since(end).as_secs_f64());
                }
                None => count += 1,
            }
        }
        let idle: f64 = pauses.iter().sum();
        let asks_again = !pauses.is_empty() && pauses.len() >= 2 * count;
        // Connections of one request each are clients in a row, as many at a time as were in progress.
        if pauses.is_empty() || (asks_again && idle < busy) {
            if pauses.is_empty() {
                (count, pauses) = ((watched.doors.working.round() as usize).max(1), vec![0.0]);
            }
            return Self::Closed { count, pauses };
        }
        requests.sort_by_key(|kept| kept.stamps.start());
        let first = requests[0].stamps.start();
        let at = |kept: &&crate::Kept| kept.stamps.start().saturating_duration_since(first).as_secs_f64();
        Self::Open { arrivals: requests.iter().map(at).collect() }
    }
}
