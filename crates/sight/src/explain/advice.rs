//! What is behind a limit, and what would help against it.

use std::collections::BTreeMap;

use caudal_types::{ErrorKind, Stage};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    line::Line,
    watched::{ModelSeen, Role, Spent, Watched},
    weigh::Limit,
};

/// A setting that would help.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// Its name; of a model, as `model.yaml` has it.
    pub name: &'static str,
    /// What it is.
    pub from: f64,
    /// What to try.
    pub to: f64,
    /// How to set it.
    pub how: String,
    /// The request that sets it while the server serves, where one can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<Patch>,
}

/// A `PATCH` request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Patch {
    /// Its path.
    pub path: String,
    /// Its body.
    pub body: Value,
}

/// What is known of a limit.
pub(crate) struct Advice {
    pub(crate) because: String,
    pub(crate) evidence: BTreeMap<&'static str, f64>,
    pub(crate) setting: Option<Setting>,
    pub(crate) advice: String,
    pub(crate) change: Option<Change>,
}

/// A change of a network of queues.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    Instances(usize, usize),
    Threads(usize, usize),
    Batch(usize, usize),
    NoDelay(usize),
    QueueLimit(usize, usize),
    NotBlocked(usize),
    Quicker(usize),
    Decoders(usize),
    DecodeQuicker,
    Io(usize),
    Cores(f64),
    Alone,
    ClientsQuicker,
    /// Twice as many clients, or requests.
    MoreClients,
}

impl Change {
    /// `line` with this change; none where it has no part in it.
    pub(crate) fn apply(self, line: &Line) -> Option<Line> {
        let mut line = line.clone();
        match self {
            Self::Instances(model, count) => line.models.get_mut(model)?.instances = count,
            Self::Threads(model, count) => line.models.get_mut(model)?.threads = count,
            Self::Batch(model, rows) => line.models.get_mut(model)?.max_batch = rows,
            Self::NoDelay(model) => line.models.get_mut(model)?.delay = 0.0,
            Self::QueueLimit(model, limit) => line.models.get_mut(model)?.queue_limit = limit,
            Self::NotBlocked(model) => {
                let model = line.models.get_mut(model)?;
                (model.blocked, model.locked) = (0.0, false);
            }
            Self::Quicker(model) => {
                let model = line.models.get_mut(model).filter(|model| model.row + model.run > 0.0)?;
                (model.row, model.run) = (model.row / 2.0, model.run / 2.0);
            }
            Self::Decoders(threads) => line.decoders = threads,
            Self::DecodeQuicker => {
                if line.asks.iter().all(|ask| ask.decode <= 0.0) {
                    return None;
                }
                line.asks.iter_mut().for_each(|ask| ask.decode /= 2.0);
            }
            Self::Io(threads) => line.io = threads,
            Self::Cores(cores) => line.cores = cores,
            Self::Alone => line.others = 0.0,
            Self::MoreClients => line.clients = line.clients.twice(),
            Self::ClientsQuicker => line.asks.iter_mut().for_each(|ask| ask.receive = 0.0),
        }
        Some(line)
    }
}

/// Runs that may wait at once, at most, where requests should not wait long.
const SHORT_QUEUE: usize = 8;

/// What to do where nothing is used up.
pub(crate) const ROOM: &str = "the server has room: to get more throughput, send more requests in parallel";

/// What is behind `limit`, and what would help.
pub(crate) fn of(limit: Limit, model: Option<usize>, watched: &Watched) -> Advice {
    let at = model.unwrap_or(0);
    let unknown = ModelSeen::default();
    let of = watched.models.get(at).unwrap_or(&unknown);
    let percent = |part: f64| format!("{:.0} %", part * 100.0);
    let share = |stage: Stage| watched.spent(stage) / watched.whole().max(1e-9);
    // Of a model, while it serves.
    let live = |name: &'static str, from: f64, to: usize| {
        let body = match name.strip_prefix("batching.") {
            Some(key) => json!({ "batching": { key: to } }),
            None => json!({ name: to }),
        };
        let path = format!("/admin/models/{}", of.name);
        let how = format!("PATCH {path} {body}, and in model.yaml to keep it");
        Some(Setting { name, from, to: to as f64, how, patch: Some(Patch { path, body }) })
    };
    let set = |name: &'static str, from: f64, to: f64, how: String| Some(Setting { name, from, to, how, patch: None });
    let restart = |flag: &str, to: &dyn std::fmt::Display| {
        format!("{flag}: {to} in the settings, or --{} {to}", flag.replace('_', "-"))
    };
    let waits = |queue: &ModelSeen| {
        let count = watched.of(queue).count().max(1) as f64;
        watched.of(queue).map(|kept| kept.stamps.spent(Stage::Queue).as_secs_f64()).sum::<f64>() / count
    };
    let queue_ms = waits(of) * 1e3;
    let run_ms = of.run() * 1e3;
    let receiving = watched.live.get(&Stage::Receive).copied().unwrap_or(0.0);
    let lost = |errors: &[ErrorKind]| watched.lost(errors);
    let cpu = [("cpu", watched.own()), ("cpu_of_others", watched.others()), ("cpu_idle", watched.idle())];
    let busy = [("instances", of.instances as f64), ("busy", of.load()), ("queue_ms", queue_ms), ("run_ms", run_ms)];
    let (because, evidence, setting, advice, change): (String, Vec<(&'static str, f64)>, Option<Setting>, String, _) =
        match limit {
            Limit::InstancesSaturated => {
                let to = of.instances + 1;
                let all = if of.instances == 1 { "the instance" } else { "all instances" };
                (
                    format!(
                        "{all} of {} ran for {} of the time and requests waited {queue_ms:.1} ms for one, while {} of the \
                         cores' time was left",
                        of.name,
                        percent(of.load()),
                        percent(watched.idle())
                    ),
                    [&busy[..], &cpu].concat(),
                    live("instances", of.instances as f64, to),
                    format!("let {to} instances of {} run", of.name),
                    Some(Change::Instances(at, to)),
                )
            }
            Limit::CpuSaturated => (
                format!(
                    "the server's own work took {} of the {} cores, and {} of the time in which a run could have gone on it \
                     waited for one",
                    percent(watched.own()),
                    watched.cores,
                    percent(watched.stretched(Role::Infer))
                ),
                cpu.to_vec(),
                None,
                "make the work cheaper (caudal models optimize tries quicker versions of a model), or give it more cores".into(),
                Some(Change::Cores(watched.cores + 1.0)),
            ),
            Limit::CpuTaken => (
                format!(
                    "other programs of this machine took {} of the cores' time, the server {}",
                    percent(watched.others()),
                    percent(watched.own())
                ),
                cpu.to_vec(),
                None,
                "move them elsewhere, or give the server a higher weight (nice, CPU shares of its control group)".into(),
                Some(Change::Alone),
            ),
            Limit::CpuThrottled => (
                format!("the kernel held the server back in {} of the periods of its CPU quota", percent(watched.throttled)),
                [&[("throttled", watched.throttled)][..], &cpu].concat(),
                None,
                "raise the quota (limits.cpu in Kubernetes, --cpus of docker)".into(),
                Some(Change::Cores(watched.cores + 1.0)),
            ),
            Limit::TooManyThreads => {
                let most = watched.models.iter().max_by_key(|model| model.instances * model.threads).unwrap_or(of);
                let place = watched.models.iter().position(|model| model.name == most.name).unwrap_or(0);
                let (name, from, to) = match most.threads > 1 {
                    true => ("threads", most.threads, 1),
                    false => ("instances", most.instances, (watched.cores as usize).max(1)),
                };
                let change = if most.threads > 1 { Change::Threads(place, to) } else { Change::Instances(place, to) };
                (
                    format!(
                        "{} runs {} instances of {} threads on {} cores: {} of the time in which they could have gone on they \
                         waited for one",
                        most.name,
                        most.instances,
                        most.threads,
                        watched.cores,
                        percent(watched.stretched(Role::Infer))
                    ),
                    cpu.to_vec(),
                    set(name, from as f64, to as f64, format!("{name}: {to} in model.yaml of {}", most.name)),
                    "let no more threads run than there are cores; left out of the settings, the plan sees to it".into(),
                    Some(change),
                )
            }
            Limit::BatchesTooSmall => {
                let to = (of.max_batch * 8).clamp(8, 64);
                (
                    format!(
                        "runs of {} had {:.1} rows and may have {}, with {:.0} more waiting; a run of two takes {} of two runs",
                        of.name,
                        of.batch(),
                        of.max_batch,
                        of.waiting,
                        percent(of.pair.unwrap_or(1.0))
                    ),
                    [&busy[..], &[("rows", of.batch()), ("max_batch_size", of.max_batch as f64)]].concat(),
                    live("batching.max_batch_size", of.max_batch as f64, to),
                    format!("let {to} rows of {} run together", of.name),
                    Some(Change::Batch(at, to)),
                )
            }
            Limit::BatchDelay => (
                format!(
                    "requests waited {queue_ms:.1} ms for others to share a run of {} with ({:.1} came), while its instances \
                     ran for {} of the time",
                    of.name,
                    of.batch(),
                    percent(of.load())
                ),
                [&busy[..], &[("delay_ms", of.delay * 1e3), ("rows", of.batch())]].concat(),
                live("batching.max_queue_delay_ms", of.delay * 1e3, 0),
                "take what is there: under load batches form by themselves".into(),
                Some(Change::NoDelay(at)),
            ),
            Limit::QueueTooSmall => {
                let (refused, to) = (lost(&[ErrorKind::QueueFull, ErrorKind::QueueTimeout]), (of.queue_limit * 8).max(16));
                (
                    format!(
                        "{} of the requests were refused for a full queue of {}, while the instances of {} ran for {} of the time",
                        percent(refused),
                        of.queue_limit,
                        of.name,
                        percent(of.load())
                    ),
                    [&busy[..], &[("refused", refused), ("max_queue_size", of.queue_limit as f64)]].concat(),
                    live("batching.max_queue_size", of.queue_limit as f64, to),
                    "let more wait: bursts are over before they are late".into(),
                    Some(Change::QueueLimit(at, to)),
                )
            }
            Limit::QueueTooLong => {
                let to = of.instances.max(1) * SHORT_QUEUE;
                (
                    format!(
                        "requests waited {queue_ms:.0} ms for runs of {run_ms:.1} ms: {:.0} wait at a time, and all cores are busy",
                        of.waiting
                    ),
                    [&busy[..], &[("waiting", of.waiting), ("max_queue_size", of.queue_limit as f64)]].concat(),
                    live("batching.max_queue_size", of.queue_limit as f64, to),
                    "let fewer wait: those who cannot be served in time hear so at once, as many are answered, and sooner".into(),
                    Some(Change::QueueLimit(at, to)),
                )
            }
            Limit::DecodeThreadsSaturated => {
                let (threads, waiting) = (watched.role(Role::Decode).threads, watched.decoding);
                let to = threads + 1;
                (
                    format!(
                        "{threads} decode threads were busy for {} of the time, {waiting:.1} pictures waited for one, and {} of \
                         the cores' time was left",
                        percent(watched.busy(Role::Decode)),
                        percent(watched.idle())
                    ),
                    [&[("decode_threads", threads as f64), ("busy", watched.busy(Role::Decode)), ("waiting", waiting)][..], &cpu]
                        .concat(),
                    set("decode_threads", threads as f64, to as f64, restart("decode_threads", &to)),
                    format!("decode with {to} threads, or send smaller pictures"),
                    Some(Change::Decoders(to)),
                )
            }
            Limit::IoThreadsSaturated => {
                let Spent { threads, .. } = watched.role(Role::Io);
                let to = threads + 1;
                (
                    format!(
                        "{threads} threads that talk to sockets were busy for {} of the time, and {} of the cores' time was left",
                        percent(watched.busy(Role::Io)),
                        percent(watched.idle())
                    ),
                    [&[("io_threads", threads as f64), ("busy", watched.busy(Role::Io))][..], &cpu].concat(),
                    set("io_threads", threads as f64, to as f64, restart("io_threads", &to)),
                    format!("talk to sockets with {to} threads"),
                    Some(Change::Io(to)),
                )
            }
            Limit::EventLoopStarved => (
                format!(
                    "a thread that talks to sockets did not get to its next task for {} of the time: something keeps it",
                    percent(watched.doors.blocked)
                ),
                vec![("blocked", watched.doors.blocked), ("io_busy", watched.busy(Role::Io))],
                None,
                "GET /debug/pprof/flamegraph shows what runs under io-0, io-1, …; a model that runs there in place and takes \
                 longer than it did at start is one reason: reload it"
                    .into(),
                None,
            ),
            Limit::RunsBlocked => {
                let blocked = watched.blocked(of);
                (
                    format!(
                        "for {} of the time of its runs {} was neither on a core nor ready for one: it waited for a lock, a \
                         device or a disk",
                        percent(blocked),
                        of.name
                    ),
                    [&busy[..], &[("blocked", blocked)]].concat(),
                    None,
                    "more instances will not help if it is a lock; GET /admin/models/{model}/operators tells which operator waits"
                        .into(),
                    Some(Change::NotBlocked(at)),
                )
            }
            Limit::MemoryPressure => {
                let refused = lost(&[ErrorKind::MemoryPressure]);
                (
                    format!("{} of the requests were refused because the machine's memory is nearly used up", percent(refused)),
                    vec![("refused", refused), ("looks_at_the_limit", watched.short_of_memory)],
                    None,
                    "GET /admin/memory tells who holds it, and what to set".into(),
                    None,
                )
            }
            Limit::MemoryLimits => {
                let refused = lost(&[ErrorKind::MemoryFull]);
                let (what, name) = match watched.pixels > watched.uploads {
                    true => ("decoded pictures", "max_pixel_memory_mb"),
                    false => ("uploads", "max_body_memory_mb"),
                };
                (
                    format!(
                        "the memory set aside for {what} was taken up to {}, and {} of the requests were refused for it",
                        percent(watched.uploads.max(watched.pixels)),
                        percent(refused)
                    ),
                    vec![("uploads", watched.uploads), ("pixels", watched.pixels), ("refused", refused)],
                    None,
                    format!("raise {name}"),
                    None,
                )
            }
            Limit::ConcurrencyLimit => {
                let (refused, most) = (lost(&[ErrorKind::TooManyRequests]), watched.doors.most_working);
                let to = (most * 4).max(16);
                (
                    format!(
                        "{} of the requests were refused because {most} were in progress, while {} of the cores' time was left",
                        percent(refused),
                        percent(watched.idle())
                    ),
                    [&[("refused", refused), ("concurrency_limit", most as f64)][..], &cpu].concat(),
                    set("concurrency_limit", most as f64, to as f64, restart("concurrency_limit", &to)),
                    "let more be in progress at once".into(),
                    None,
                )
            }
            Limit::ConnectionLimit => {
                let to = watched.doors.most_open * 4;
                (
                    format!("{:.0} of {} connections were open: others wait outside, unseen", watched.doors.open, watched.doors.most_open),
                    vec![("open", watched.doors.open), ("max_connections", watched.doors.most_open as f64)],
                    set("max_connections", watched.doors.most_open as f64, to as f64, restart("max_connections", &to)),
                    "let more connections be open at once, or have idle ones closed sooner (keep_alive_secs)".into(),
                    None,
                )
            }
            Limit::DeadlinesTooShort => {
                let late = lost(&[ErrorKind::DeadlineExceeded, ErrorKind::DeadlineUnreachable]);
                (
                    format!(
                        "{} of the requests had less time than their work takes (a run takes {run_ms:.1} ms), with nothing in their way",
                        percent(late)
                    ),
                    [&busy[..], &[("late", late), ("request_timeout_ms", watched.doors.timeout * 1e3)]].concat(),
                    set(
                        "request_timeout_ms",
                        watched.doors.timeout * 1e3,
                        (watched.doors.timeout * 4e3).max(8.0 * run_ms).ceil(),
                        "request_timeout_ms in the settings, or timeout_ms of the request".into(),
                    ),
                    "give them more time, or make the model quicker".into(),
                    None,
                )
            }
            Limit::ModelsComeAndGo => (
                format!(
                    "{} models were loaded within {:.0} s, and requests spent {} of their time until then",
                    watched.loads,
                    watched.seconds,
                    percent(share(Stage::Load))
                ),
                vec![("loads", watched.loads as f64), ("share", share(Stage::Load))],
                None,
                "raise model_memory_mb so that the models that are asked for fit, or idle_unload_secs so that they stay".into(),
                None,
            ),
            Limit::StoreWrites => (
                format!("events waited for {} of their time until the disk had them", percent(share(Stage::Persist))),
                vec![("persist_share", share(Stage::Persist)), ("io_busy", watched.busy(Role::Io))],
                None,
                "more events at a time share a flush: let more clients append at once, or append in batches or streams; else \
                 a disk that flushes more quickly"
                    .into(),
                None,
            ),
            Limit::StoreReads => {
                let reads = watched.requests.iter().filter(|kept| !kept.stamps.spent(Stage::Store).is_zero()).count();
                let store_ms = watched.spent(Stage::Store) * 1e3 / reads.max(1) as f64;
                let part = match watched.requests.is_empty() {
                    true => "requests were reading the record, and none ended".to_owned(),
                    false => format!(
                        "requests spent {} of their time on reading the record ({store_ms:.1} ms each)",
                        percent(share(Stage::Store))
                    ),
                };
                (
                    format!("{part}, while {} of the cores' time was left", percent(watched.idle())),
                    [&[("store_share", share(Stage::Store)), ("store_ms", store_ms)][..], &cpu].concat(),
                    None,
                    "read less at a time (limit and after), let states be replayed from nearer snapshots \
                     (record_snapshot_every), and see GET /metrics for the slowest statements (caudal_store_slowest_seconds)"
                        .into(),
                    None,
                )
            }
            Limit::PipelineSteps => (
                format!(
                    "requests spent {} of their time in steps of pipelines, while {} of the cores' time was left",
                    percent(share(Stage::Flow)),
                    percent(watched.idle())
                ),
                [&[("flow_share", share(Stage::Flow))][..], &cpu].concat(),
                None,
                "GET /api/v1/runs/{id} and GET /admin/requests tell which step takes how long; steps that do not need each \
                 other can run side by side"
                    .into(),
                None,
            ),
            Limit::SlowClients => (
                match watched.requests.is_empty() {
                    true => format!("{receiving:.1} requests were on their way in, and none ended"),
                    false => format!(
                        "requests took {} of their time to arrive, while the threads that read them were busy for {} of it",
                        percent(share(Stage::Receive)),
                        percent(watched.busy(Role::Io))
                    ),
                },
                vec![("receive_share", share(Stage::Receive)), ("io_busy", watched.busy(Role::Io)), ("in_progress", watched.doors.working)],
                None,
                "it is the clients, or the network to them: smaller pictures and a nearer client help; body_timeout_secs bounds pauses"
                    .into(),
                Some(Change::ClientsQuicker),
            ),
            Limit::ShortConnections => (
                format!(
                    "{:.0} connections were opened for {} requests: each costs more than the request",
                    watched.doors.opened, watched.ended
                ),
                vec![("opened", watched.doors.opened as f64), ("requests", watched.ended as f64)],
                None,
                "have clients keep their connections (a session or pool in their HTTP library)".into(),
                None,
            ),
            Limit::BadRequests => {
                let mut codes: BTreeMap<&'static str, f64> = BTreeMap::new();
                for error in watched.requests.iter().filter_map(|kept| kept.error) {
                    *codes.entry(error.code()).or_default() += 1.0;
                }
                let most = codes.iter().max_by(|a, b| a.1.total_cmp(b.1)).map_or("", |most| most.0);
                (
                    format!("requests were refused for what they say, most often with {most}"),
                    codes.into_iter().collect(),
                    None,
                    "the answer's message and hint tell the client what to mend; GET /admin/requests?status=4xx lists them".into(),
                    None,
                )
            }
            Limit::ModelFails => {
                let failed = lost(&[ErrorKind::InferenceFailed, ErrorKind::Internal, ErrorKind::ModelNotReady, ErrorKind::LoadFailed]);
                (
                    format!("{} of the requests failed in a model or because it is not ready", percent(failed)),
                    vec![("failed", failed)],
                    None,
                    "the server's log and `caudal models doctor` tell why".into(),
                    None,
                )
            }
            Limit::ClientsIdle => (
                format!(
                    "its instances were busy for {} of the time at most, and {} of the cores' time was left",
                    percent(watched.models.iter().map(ModelSeen::load).fold(0.0, f64::max).min(1.0)),
                    percent(watched.idle())
                ),
                [&[("in_progress", watched.doors.working), ("open_connections", watched.doors.open)][..], &cpu].concat(),
                None,
                ROOM.into(),
                Some(Change::MoreClients),
            ),
        };
    Advice { because, evidence: evidence.into_iter().collect(), setting, advice, change }
}

/// Changes that are worth asking about whatever limits.
pub(crate) fn others(watched: &Watched) -> Vec<(String, Change)> {
    let mut changes = vec![("decoding twice as fast".to_owned(), Change::DecodeQuicker)];
    for (index, model) in watched.models.iter().enumerate().filter(|(_, model)| model.runs > 0 && !model.in_place) {
        changes.push((format!("runs of {} twice as fast", model.name), Change::Quicker(index)));
        changes.push((format!("one instance of {} more", model.name), Change::Instances(index, model.instances + 1)));
    }
    changes.push(("one core more".to_owned(), Change::Cores(watched.cores + 1.0)));
    changes
}
