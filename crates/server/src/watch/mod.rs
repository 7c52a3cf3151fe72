//! Watches the server for a while, for whoever wants to know what limits it: figures that are kept anyway are read twice,
//! and what is kept nowhere, how long queues are and who is busy, is looked at a hundred times a second meanwhile.

mod threads;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use caudal_memory::{Level, Throttling};
use caudal_sight::{ConnectionStats, ModelStats, Observation, ThreadRole};
use caudal_types::{ErrorKind, Stage};

use self::threads::{Cores, Threads};
use crate::{app::App, problem::Problem};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(10);
/// How long a thread that talks to sockets is left alone between two of our tasks there.
const PAUSE: Duration = Duration::from_millis(5);
/// A task that comes later than this was kept waiting; less is how timers are.
const LATE: Duration = Duration::from_millis(10);

/// Watches for `time`, or until the server goes down.
pub(crate) async fn watch(app: &Arc<App>, time: Duration) -> Result<Observation, Problem> {
    let watching = app.recorder.start_capture().ok_or_else(|| {
        Problem::new(ErrorKind::ProfileRunning, "somebody watches the server already", "ask again when that is done")
    })?;
    let (before, began) = (Counters::now(app), Instant::now());
    let looks = Looks::start(app);
    while began.elapsed() < time && !app.is_draining() {
        tokio::time::sleep(Duration::from_millis(100).min(time.saturating_sub(began.elapsed()))).await;
    }
    let (seconds, after) = (began.elapsed().as_secs_f64(), Counters::now(app));
    let (requests, ended) = watching.finish();
    let mut watched = Observation { seconds, requests, ended, ..Observation::default() };
    looks.finish(app, &mut watched);
    after.since(&before, app, &mut watched);
    Ok(watched)
}

/// What is counted all the time.
struct Counters {
    threads: Threads,
    cores: Cores,
    throttling: Option<Throttling>,
    opened: u64,
    loads: u64,
    /// Runs, rows and nanoseconds of each model's version.
    models: BTreeMap<(String, u64), [u64; 3]>,
}

impl Counters {
    fn now(app: &App) -> Self {
        let counts = |stats: &caudal_tasks::QueueStats| {
            let (infer, rows) = (stats.infer.snapshot(), stats.batch_rows.snapshot());
            [infer.count(), rows.sum(), infer.sum()]
        };
        let now = app.catalog.now();
        Self {
            threads: Threads::now(),
            cores: Cores::now(),
            throttling: Throttling::read_current(),
            opened: app.connections.opened(),
            loads: app.catalog.changes().loaded,
            models: now
                .ready()
                .map(|model| ((model.name.clone(), model.version), counts(model.queue.stats())))
                .collect(),
        }
    }

    fn since(&self, before: &Self, app: &App, watched: &mut Observation) {
        watched.cores = app.facts.cpus as f64;
        watched.threads = self.threads.since(&before.threads);
        watched.machine = self.cores.since(before.cores);
        watched.loads = self.loads - before.loads;
        watched.connections.opened = self.opened - before.opened;
        if let (Some(after), Some(before)) = (self.throttling, before.throttling) {
            let periods = after.periods.saturating_sub(before.periods);
            watched.throttled = after.throttled.saturating_sub(before.throttled) as f64 / periods.max(1) as f64;
        }
        for model in app.catalog.now().ready() {
            let key = (model.name.clone(), model.version);
            let (then, now) = (before.models.get(&key).copied().unwrap_or_default(), self.models.get(&key));
            let [runs, rows, nanos] = now.copied().unwrap_or_default();
            let (plan, policy, measured) = (model.plan(), model.queue.policy(), model.measured);
            // Of as many runs of one row.
            let of_one =
                |run: Duration, rows: u32| run.as_secs_f64() / (measured.one_row * rows).as_secs_f64().max(1e-9);
            let pair = |two: Duration| of_one(two, 2);
            let looked = watched.models.iter().find(|seen| seen.name == model.name).cloned().unwrap_or_default();
            let seen = ModelStats {
                name: model.name.clone(),
                instances: plan.instances,
                threads: plan.threads,
                wide: plan.wide_threads,
                max_batch: policy.max_batch_size,
                joined: model.joined,
                in_place: policy.run_in_place > 0,
                warm: plan.ragged.is_none().then_some(measured.one_row.as_secs_f64()),
                pair: measured.two_rows.map(pair),
                eight: measured.eight_rows.map(|eight| of_one(eight, 8)),
                delay: policy.max_queue_delay.as_secs_f64(),
                queue_limit: policy.max_queue_size,
                runs: runs.saturating_sub(then[0]),
                rows: rows.saturating_sub(then[1]),
                run_seconds: nanos.saturating_sub(then[2]) as f64 / 1e9,
                ..looked
            };
            watched.models.retain(|other| other.name != seen.name);
            watched.models.push(seen);
        }
        // Who is delayed because no core is free is not kept waiting by another task.
        let io = watched.threads.get(&ThreadRole::Io).copied().unwrap_or_default();
        let for_cores = io.ready / (watched.seconds * io.threads.max(1) as f64);
        watched.connections.blocked = (watched.connections.blocked - for_cores).clamp(0.0, 1.0);
    }
}

/// What is looked at again and again, summed up.
#[derive(Debug, Default)]
struct Sums {
    looks: f64,
    working: f64,
    open: f64,
    decoding: f64,
    uploads: f64,
    pixels: f64,
    critical: f64,
    /// Requests in progress, by stage.
    stages: [f64; Stage::ALL.len()],
    /// Waiting and running, of each model.
    models: BTreeMap<String, (f64, f64)>,
}

/// Looks, until it is dropped.
struct Looks {
    stop: Arc<AtomicBool>,
    sums: Arc<Mutex<Sums>>,
    /// How long each of the threads that talk to sockets kept our tasks waiting, in nanoseconds.
    late: Vec<Arc<AtomicU64>>,
}

impl Looks {
    fn start(app: &Arc<App>) -> Self {
        let mut looks = Self { stop: Arc::default(), sums: Arc::default(), late: Vec::new() };
        let (stop, sums, of) = (Arc::clone(&looks.stop), Arc::clone(&looks.sums), Arc::downgrade(app));
        let look = move || {
            while !stop.load(Relaxed) {
                let Some(app) = of.upgrade() else { return };
                sums.lock().unwrap_or_else(PoisonError::into_inner).look(&app);
                drop(app);
                std::thread::sleep(LOOK);
            }
        };
        if let Err(error) = std::thread::Builder::new().name("watch".to_owned()).spawn(look) {
            tracing::error!(%error, "queues are not looked at: the thread for it could not be started");
        }
        looks.late = app.connections.on_each_thread(|| {
            let (stop, late) = (Arc::clone(&looks.stop), Arc::new(AtomicU64::new(0)));
            let told = Arc::clone(&late);
            let probe = async move {
                while !stop.load(Relaxed) {
                    let began = Instant::now();
                    tokio::time::sleep(PAUSE).await;
                    let waited = began.elapsed().saturating_sub(PAUSE);
                    if waited > LATE {
                        told.fetch_add(waited.as_nanos() as u64, Relaxed);
                    }
                }
            };
            (probe, late)
        });
        looks
    }

    fn finish(self, app: &App, watched: &mut Observation) {
        let sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let mean = |sum: f64| sum / sums.looks.max(1.0);
        let settings = app.settings();
        watched.connections = ConnectionStats {
            opened: 0,
            open: mean(sums.open),
            max_open: settings.max_connections,
            in_progress: mean(sums.working),
            max_in_progress: settings.concurrency_limit,
            blocked: self.late.iter().map(|late| late.load(Relaxed)).max().unwrap_or(0) as f64 / 1e9 / watched.seconds,
            timeout: settings.request_timeout.as_secs_f64(),
        };
        watched.live = Stage::ALL.into_iter().map(|stage| (stage, mean(sums.stages[stage as usize]))).collect();
        watched.decoding = mean(sums.decoding);
        watched.uploads = mean(sums.uploads);
        watched.pixels = mean(sums.pixels);
        watched.short_of_memory = mean(sums.critical);
        let model = |(name, (waiting, busy)): (&String, &(f64, f64))| ModelStats {
            name: name.clone(),
            waiting: mean(*waiting),
            busy: mean(*busy),
            ..ModelStats::default()
        };
        watched.models = sums.models.iter().map(model).collect();
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

impl Sums {
    fn look(&mut self, app: &App) {
        self.looks += 1.0;
        self.working += app.working() as f64;
        self.stages.iter_mut().zip(app.live.stages()).for_each(|(sum, live)| *sum += live as f64);
        self.open += app.connections.open() as f64;
        self.decoding += app.pictures.decoders().waiting() as f64;
        self.uploads += app.bodies.fullness();
        let pixels = app.pictures.memory();
        self.pixels += pixels.taken() as f64 / pixels.total().max(1) as f64;
        self.critical += f64::from(u8::from(app.memory.level() == Level::Critical));
        for model in app.catalog.now().ready() {
            let depth = model.queue.depth();
            let (waiting, busy) = self.models.entry(model.name.clone()).or_default();
            *waiting += depth.entries as f64;
            *busy += depth.busy_instances as f64;
        }
    }
}
