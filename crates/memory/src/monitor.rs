//! The memory monitor: takes readings, publishes the level, reports changes and starts cleanups.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use serde_json::json;

use crate::{
    cleanup::{CleanupReason, CleanupReport, CleanupRequest, HookRun, HookStats, Hooks},
    history::{History, MemorySample, unix_seconds},
    level::{Level, LevelTracker},
    policy::Policy,
    reading::{MemoryUsage, Reading, Scope, Sources},
    recommendations::{MemoryConsumer, recommend_actions},
    webhook::Webhook,
};

/// Interval between readings. A burst of uploads takes hundreds of MiB per second, so the reaction to it cannot wait
/// for the interval of log lines. A reading took 0.23 ms in a debug build.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);

/// Interval while the server is idle; a request wakes the watcher.
const IDLE_WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Minimum interval between automatic cleanups.
const CLEANUP_INTERVAL: Duration = Duration::from_secs(30);

/// The same while new work is refused: memory that finished requests freed to the allocator counts as used until it is
/// returned, and would keep the level critical for ever if nothing is allocated.
const CRITICAL_CLEANUP_INTERVAL: Duration = Duration::from_secs(1);

/// Maximum interval: it doubles after each cleanup that freed nothing.
const MAX_CLEANUP_INTERVAL: Duration = Duration::from_secs(600);

/// Bytes per MiB. A cleanup that frees less freed nothing.
const BYTES_PER_MIB: u64 = 1 << 20;

/// Monitors memory.
pub struct MemoryMonitor {
    sources: Sources,
    policy: ArcSwap<Policy>,
    level: AtomicU8,
    alerts: [AtomicU64; Level::ALL.len()],
    watch: Mutex<WatchState>,
    hooks: Hooks,
    consumers: Mutex<Option<Box<ConsumerSource>>>,
    arrivals: Mutex<Option<Arrivals>>,
    webhook: Webhook,
    cleaning: AtomicBool,
    /// True if there was a request since the last reading.
    active: AtomicBool,
    watcher: OnceLock<Thread>,
}

type ConsumerSource = dyn Fn() -> Vec<MemoryConsumer> + Send + Sync;

/// Callbacks that limit arriving data.
struct Arrivals {
    arrived: Box<dyn Fn() -> u64 + Send + Sync>,
    fits: Box<dyn Fn(Option<u64>) + Send + Sync>,
}

/// State of the watcher between readings.
#[derive(Default)]
struct WatchState {
    memory: LevelTracker,
    gpu: LevelTracker,
    reading: Reading,
    history: History,
    /// Time of the last sample in the history.
    last_sample: Option<Instant>,
    cleaned: Option<Instant>,
    pause: Duration,
}

/// The state of the monitor at one moment.
#[derive(Debug, Clone)]
pub struct MonitorState {
    /// Memory level.
    pub level: Level,
    /// The last reading.
    pub reading: Reading,
    /// The policy in force.
    pub policy: Policy,
    /// Samples, one per interval, oldest first.
    pub history: Vec<MemorySample>,
    /// The cleanup hooks.
    pub hooks: Vec<HookStats>,
    /// Report of the last cleanup.
    pub last_cleanup: Option<CleanupReport>,
    /// Recommended actions.
    pub recommendations: Vec<String>,
}

impl fmt::Debug for MemoryMonitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("level", &self.level()).field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl MemoryMonitor {
    /// A monitor of `sources` with `policy`, which has taken one reading.
    pub fn new(sources: Sources, policy: Policy) -> Self {
        let monitor = Self {
            sources,
            policy: ArcSwap::from_pointee(policy),
            level: AtomicU8::new(Level::Normal as u8),
            alerts: Default::default(),
            watch: Mutex::default(),
            hooks: Hooks::default(),
            consumers: Mutex::default(),
            arrivals: Mutex::default(),
            webhook: Webhook::default(),
            cleaning: AtomicBool::new(false),
            active: AtomicBool::default(),
            watcher: OnceLock::new(),
        };
        lock_unpoisoned(&monitor.watch).reading = monitor.sources.take_reading();
        monitor
    }

    /// The memory level: one atomic load, for every request.
    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Relaxed)).min(Level::ALL.len() - 1)]
    }

    /// Replaces the policy, from the next reading on.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// Registers a cleanup hook, which runs after those registered earlier and returns a description of what it did. It
    /// must not wait for work that waits for memory.
    pub fn register_hook(&self, name: &'static str, work: impl Fn(&CleanupRequest) -> String + Send + Sync + 'static) {
        self.hooks.register(name, Box::new(work));
    }

    /// Registers a source of memory consumers, for recommendations.
    pub fn register_consumers(&self, consumers: impl Fn() -> Vec<MemoryConsumer> + Send + Sync + 'static) {
        *lock_unpoisoned(&self.consumers) = Some(Box::new(consumers));
    }

    /// After each reading, calls `fits` with the maximum of `arrived` (bytes that have arrived) before new work is to
    /// be refused; `None` without a limit. The server can so refuse requests that do not fit, because many may arrive
    /// between two readings.
    pub fn limit_arrivals(
        &self,
        arrived: impl Fn() -> u64 + Send + Sync + 'static,
        fits: impl Fn(Option<u64>) + Send + Sync + 'static,
    ) {
        *lock_unpoisoned(&self.arrivals) = Some(Arrivals { arrived: Box::new(arrived), fits: Box::new(fits) });
    }

    /// Takes a reading, then more on a thread that ends with the monitor: less often while `working` returns false.
    pub fn start_watching(self: &Arc<Self>, working: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
        self.update();
        let weak = Arc::downgrade(self);
        let look = move || {
            loop {
                let Some(monitor) = weak.upgrade() else { return };
                let active = monitor.active.swap(false, Relaxed);
                let quiet = monitor.level() == Level::Normal && !active && !working();
                drop(monitor);
                match quiet {
                    true => thread::park_timeout(IDLE_WATCH_INTERVAL),
                    false => thread::sleep(WATCH_INTERVAL),
                }
                let Some(monitor) = weak.upgrade() else { return };
                monitor.update();
            }
        };
        let watcher = thread::Builder::new().name("memory".to_owned()).spawn(look)?;
        let _ = self.watcher.set(watcher.thread().clone());
        Ok(())
    }

    /// Notifies of a request, so that readings are taken more often.
    pub fn notify_activity(&self) {
        if !self.active.load(Relaxed) {
            self.active.store(true, Relaxed);
            if let Some(watcher) = self.watcher.get() {
                watcher.unpark();
            }
        }
    }

    /// Takes a reading: publishes the level, reports a change, and starts a cleanup if one is due.
    pub fn update(self: &Arc<Self>) {
        let policy = self.policy.load_full();
        let before = self.level();
        let arrived = || lock_unpoisoned(&self.arrivals).as_ref().map_or(0, |arrivals| (arrivals.arrived)());
        let arrived_before = arrived();
        let (level, reading, is_due) = {
            let mut watch = lock_unpoisoned(&self.watch);
            let level = if policy.monitoring {
                watch.update_levels(self.sources.take_reading(), &policy)
            } else {
                watch.reset_levels()
            };
            self.level.store(level as u8, Relaxed);
            if policy.monitoring {
                watch.record_sample(level, &policy);
            }
            (level, watch.reading.clone(), policy.monitoring && watch.is_cleanup_due(&policy, before, level))
        };
        // Data that arrived or was freed during the reading may be missing from it: the lesser count is the safe one.
        // Arriving data takes more memory, in sockets and decoded: a quarter of the free bytes is reserved for that.
        let arrived = arrived().min(arrived_before);
        let room = policy.shed.filter(|_| policy.monitoring).and_then(|shed| reading.bytes_until(shed));
        if let Some(Arrivals { fits, .. }) = &*lock_unpoisoned(&self.arrivals) {
            fits(room.map(|room| arrived.saturating_add(room / 4 * 3)));
        }
        if level != before {
            self.report_level_change(before, level, &reading, &policy);
        }
        if is_due {
            self.spawn_cleanup(policy.rest_idle);
        }
    }

    /// Runs all hooks to free memory that was not used for `idle`. Blocks until they have finished.
    pub fn clean_up(&self, idle: Duration, why: CleanupReason) -> CleanupReport {
        let report = self.hooks.run_hooks(&CleanupRequest { idle, why }, || self.sources.process_bytes());
        for HookRun { hook, did, freed_bytes, took_ms } in &report.hooks {
            // Repeated automatic attempts without success are not logged.
            if why == CleanupReason::Requested || *freed_bytes >= BYTES_PER_MIB {
                tracing::info!(hook, freed_mb = freed_bytes / BYTES_PER_MIB, took_ms, "memory cleaned up: {did}");
            } else {
                tracing::debug!(hook, took_ms, "nothing to clean up: {did}");
            }
        }
        report
    }

    /// Cleans up on another thread: unloading a model may take long, and monitoring must continue.
    fn spawn_cleanup(self: &Arc<Self>, idle: Duration) {
        if self.cleaning.swap(true, Relaxed) {
            return;
        }
        let monitor = Arc::clone(self);
        let clean = move || {
            let report = monitor.clean_up(idle, CleanupReason::Pressure);
            let mut watch = lock_unpoisoned(&monitor.watch);
            watch.pause = match report.freed_bytes() {
                freed if freed >= BYTES_PER_MIB => CLEANUP_INTERVAL,
                _ => (watch.pause * 2).clamp(CLEANUP_INTERVAL, MAX_CLEANUP_INTERVAL),
            };
            watch.cleaned = Some(Instant::now());
            monitor.cleaning.store(false, Relaxed);
        };
        if let Err(error) = thread::Builder::new().name("cleanup".to_owned()).spawn(clean) {
            self.cleaning.store(false, Relaxed);
            tracing::error!(%error, "cannot clean up memory: its thread could not be started");
        }
    }

    /// The last reading; a new one if monitoring is off.
    pub fn current_reading(&self) -> Reading {
        match self.policy.load().monitoring {
            true => lock_unpoisoned(&self.watch).reading.clone(),
            false => self.sources.take_reading(),
        }
    }

    /// How often the levels from [`Level::High`] were reached from below.
    pub fn alert_counts(&self) -> [(Level, u64); 2] {
        [Level::High, Level::Critical].map(|level| (level, self.alerts[level as usize].load(Relaxed)))
    }

    /// The hooks and their totals.
    pub fn hook_stats(&self) -> Vec<HookStats> {
        self.hooks.hook_stats()
    }

    /// The state of the monitor.
    pub fn state(&self) -> MonitorState {
        let policy = Policy::clone(&self.policy.load());
        let (reading, history) = (self.current_reading(), lock_unpoisoned(&self.watch).history.to_samples());
        let level = self.level();
        MonitorState {
            level,
            recommendations: self.recommendations_for(&reading, level, &policy),
            hooks: self.hooks.hook_stats(),
            last_cleanup: self.hooks.last_report(),
            reading,
            policy,
            history,
        }
    }

    fn recommendations_for(&self, reading: &Reading, level: Level, policy: &Policy) -> Vec<String> {
        let consumers = lock_unpoisoned(&self.consumers).as_ref().map(|ask| ask()).unwrap_or_default();
        recommend_actions(reading, level, policy, &consumers)
    }

    fn report_level_change(&self, before: Level, level: Level, reading: &Reading, policy: &Policy) {
        let rises = level > before;
        if rises {
            self.alerts[level as usize].fetch_add(1, Relaxed);
        }
        let Some((scope, usage)) = limiting_resource(reading, policy, level) else { return };
        let (figures, process_mb) = (describe_usage(scope, usage), reading.process / BYTES_PER_MIB);
        match level {
            Level::Critical => tracing::error!(process_mb, "memory is critical, new work is refused: {figures}"),
            Level::High if rises => tracing::warn!(process_mb, "memory is high: {figures}"),
            _ => tracing::info!(process_mb, "memory was {}, is {}: {figures}", before.name(), level.name()),
        }
        let is_news = if rises { level >= Level::High } else { before >= Level::High };
        if !is_news {
            return;
        }
        let advice = self.recommendations_for(reading, level, policy);
        advice.iter().filter(|_| rises).for_each(|advice| tracing::info!("recommendation: {advice}"));
        let Some(to) = &policy.webhook else { return };
        let body = json!({
            "event": "memory_pressure",
            "text": format!("Caudal's memory was {}, is {}: {figures}", before.name(), level.name()),
            "level": level,
            "was": before,
            "resolved": level < Level::High,
            "scope": scope,
            "percent": (usage.percent() * 100.0).round() / 100.0,
            "used_bytes": usage.used,
            "limit_bytes": usage.limit,
            "process_bytes": reading.process,
            "pid": std::process::id(),
            "at": unix_seconds(),
            "recommendations": advice,
        });
        self.webhook.queue_alert(to, body);
    }
}

impl WatchState {
    fn update_levels(&mut self, reading: Reading, policy: &Policy) -> Level {
        let memory = reading.tightest_limit().map_or(0.0, |(_, usage)| usage.percent());
        let gpu = reading.fullest_gpu().map_or(0.0, |gpu| gpu.usage.percent());
        self.reading = reading;
        self.memory.update(memory, &policy.memory_thresholds()).max(self.gpu.update(gpu, &policy.gpu_thresholds()))
    }

    /// Resets the level when monitoring is off.
    fn reset_levels(&mut self) -> Level {
        (self.memory, self.gpu) = (LevelTracker::default(), LevelTracker::default());
        Level::Normal
    }

    /// Adds a sample to the history, once per interval.
    fn record_sample(&mut self, level: Level, policy: &Policy) {
        if self.last_sample.is_some_and(|at| at.elapsed() < policy.interval) {
            return;
        }
        self.last_sample = Some(Instant::now());
        let sample = MemorySample::from_reading(&self.reading, level);
        tracing::debug!(
            level = level.name(),
            system_percent = sample.system_percent,
            cgroup_percent = sample.cgroup_percent,
            gpu_percent = sample.gpu_percent,
            process_mb = sample.process_bytes / BYTES_PER_MIB,
            "memory"
        );
        self.history.push_sample(sample);
    }

    /// Returns true if hooks should run. When the level rises they run immediately, however recently they ran.
    fn is_cleanup_due(&self, policy: &Policy, before: Level, level: Level) -> bool {
        let memory = self.reading.tightest_limit().is_some_and(|(_, usage)| usage.percent() >= policy.cleanup);
        let gpu = self.reading.fullest_gpu().is_some_and(|gpu| gpu.usage.percent() >= policy.gpu_alert);
        let pause = if level == Level::Critical { CRITICAL_CLEANUP_INTERVAL } else { self.pause };
        let rested = self.cleaned.is_none_or(|cleaned| cleaned.elapsed() >= pause);
        policy.auto_cleanup && (memory || gpu) && (level > before || rested)
    }
}

/// The resource that determines `level`.
fn limiting_resource(reading: &Reading, policy: &Policy, level: Level) -> Option<(Scope, MemoryUsage)> {
    let gpu = reading.fullest_gpu().map(|gpu| (Scope::Gpu, gpu.usage));
    let memory = reading.tightest_limit();
    let is_memory = memory.is_some_and(|(_, usage)| level == Level::Normal || usage.percent() >= policy.cleanup);
    if is_memory { memory.or(gpu) } else { gpu.filter(|(_, usage)| usage.percent() >= policy.gpu_alert).or(memory) }
}

fn describe_usage(scope: Scope, usage: MemoryUsage) -> String {
    format!("{:.1} % of the {}'s {} MiB are used", usage.percent(), scope.name(), usage.limit / BYTES_PER_MIB)
}

fn lock_unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    fn write_usage(root: &Path, percent: u64) {
        fs::create_dir_all(root.join("proc")).unwrap();
        let text = format!("MemTotal: 1000000 kB\nMemAvailable: {} kB\n", 10_000 * (100 - percent));
        fs::write(root.join("proc/meminfo"), text).unwrap();
    }

    fn new_monitor(policy: Policy) -> (tempfile::TempDir, Arc<MemoryMonitor>) {
        let root = tempfile::tempdir().unwrap();
        write_usage(root.path(), 10);
        let monitor = MemoryMonitor::new(Sources::with_root(root.path()), policy);
        (root, Arc::new(monitor))
    }

    #[test]
    fn level_follows_memory_and_counts_alerts_once() {
        let (root, monitor) = new_monitor(Policy { auto_cleanup: false, ..Policy::default() });
        let mut levels = Vec::new();
        for percent in [10, 81, 86, 87, 96, 96, 10, 10, 10, 10, 86] {
            write_usage(root.path(), percent);
            monitor.update();
            levels.push(monitor.level());
        }
        use Level::{Critical, Elevated, High, Normal};
        let expected = [Normal, Elevated, High, High, Critical, Critical, Critical, Critical, Critical, Normal, High];
        assert_eq!(levels, expected);
        assert_eq!(monitor.alert_counts(), [(High, 2), (Critical, 1)]);
        monitor.set_policy(Policy { monitoring: false, ..Policy::default() });
        monitor.update();
        assert_eq!(monitor.level(), Normal, "without monitoring, no work is refused");
    }

    #[test]
    fn hooks_run_automatically_and_not_repeatedly() {
        let (root, monitor) = new_monitor(Policy::default());
        let (done, ran) = std::sync::mpsc::channel();
        monitor.register_hook("cache", move |ask| {
            done.send(ask.idle).unwrap();
            "emptied".to_owned()
        });
        monitor.update();
        assert!(ran.try_recv().is_err(), "there is enough memory");
        write_usage(root.path(), 82);
        monitor.update();
        assert_eq!(ran.recv_timeout(Duration::from_secs(60)).unwrap(), Policy::default().rest_idle);
        while monitor.cleaning.load(Relaxed) {
            thread::yield_now();
        }
        (0..5).for_each(|_| monitor.update());
        assert!(!monitor.cleaning.load(Relaxed) && ran.try_recv().is_err());
        let state = monitor.state();
        assert_eq!((state.hooks[0].runs, state.last_cleanup.unwrap().why), (1, CleanupReason::Pressure));
        assert!(state.recommendations[0].contains("other processes use most"), "{:?}", state.recommendations);
    }

    #[test]
    fn history_has_a_sample_per_interval() {
        let (_root, monitor) = new_monitor(Policy { interval: Duration::ZERO, ..Policy::default() });
        (0..3).for_each(|_| monitor.update());
        let history = monitor.state().history;
        assert_eq!((history.len(), history[0].system_percent, history[0].level), (3, Some(10.0), Level::Normal));
    }
}
