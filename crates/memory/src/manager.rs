//! The watch itself: looks, publishes the level, tells, lets clean up.

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
    advice::{Holder, advise},
    cleanup::{Ask, HookState, Hooks, Ran, Report, Why},
    history::{History, Past, now},
    level::{Gauge, Level},
    policy::Policy,
    reading::{Reading, Scope, Sources, Use},
    webhook::Webhook,
};

/// How often memory is looked at. A burst of uploads takes hundreds of MiB within a second, so what keeps the kernel
/// from killing cannot wait for the interval at which people want a line in the log; a look took 0.23 ms in a debug build.
const LOOK: Duration = Duration::from_millis(250);

/// How often while nothing is asked of the server: whoever asks wakes the watch.
const REST: Duration = Duration::from_secs(2);

/// What runs by itself runs no oftener.
const CLEANUP_PAUSE: Duration = Duration::from_secs(30);

/// While new work is refused: what finished requests leave to the allocator counts as used until it is given back, and
/// would keep the level up for ever where nobody allocates.
const CRITICAL_PAUSE: Duration = Duration::from_secs(1);

/// Where there was nothing to give back, there is no hurry to look again: the pause doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// Less than this is nothing.
const WORTH: u64 = 1 << 20;

/// Watches memory.
pub struct Manager {
    sources: Sources,
    policy: ArcSwap<Policy>,
    level: AtomicU8,
    alerts: [AtomicU64; Level::ALL.len()],
    watch: Mutex<Watch>,
    hooks: Hooks,
    holders: Mutex<Option<Box<Holders>>>,
    arrivals: Mutex<Option<Arrivals>>,
    webhook: Webhook,
    cleaning: AtomicBool,
    /// Whether anything was asked of the server since the last look.
    stirred: AtomicBool,
    watcher: OnceLock<Thread>,
}

type Holders = dyn Fn() -> Vec<Holder> + Send + Sync;

/// Who knows what is on its way.
struct Arrivals {
    arrived: Box<dyn Fn() -> u64 + Send + Sync>,
    fits: Box<dyn Fn(Option<u64>) + Send + Sync>,
}

/// What the watch remembers from look to look.
#[derive(Default)]
struct Watch {
    memory: Gauge,
    gpu: Gauge,
    reading: Reading,
    history: History,
    /// When the last line was written.
    noted: Option<Instant>,
    cleaned: Option<Instant>,
    pause: Duration,
}

/// Everything the watch knows, at one moment.
#[derive(Debug, Clone)]
pub struct State {
    /// How short memory is.
    pub level: Level,
    /// The last look.
    pub reading: Reading,
    /// What holds.
    pub policy: Policy,
    /// Readings, one for each interval, oldest first.
    pub history: Vec<Past>,
    /// Who can give memory back.
    pub hooks: Vec<HookState>,
    /// What they did last.
    pub last_cleanup: Option<Report>,
    /// What can be done, in words.
    pub recommendations: Vec<String>,
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("level", &self.level()).field("sources", &self.sources).finish_non_exhaustive()
    }
}

impl Manager {
    /// A watch over `sources` that keeps to `policy`; it has looked once.
    pub fn new(sources: Sources, policy: Policy) -> Self {
        let manager = Self {
            sources,
            policy: ArcSwap::from_pointee(policy),
            level: AtomicU8::new(Level::Normal as u8),
            alerts: Default::default(),
            watch: Mutex::default(),
            hooks: Hooks::default(),
            holders: Mutex::default(),
            arrivals: Mutex::default(),
            webhook: Webhook::default(),
            cleaning: AtomicBool::new(false),
            stirred: AtomicBool::default(),
            watcher: OnceLock::new(),
        };
        lock(&manager.watch).reading = manager.sources.read();
        manager
    }

    /// How short memory is: one load, for whoever lets requests in.
    pub fn level(&self) -> Level {
        Level::ALL[usize::from(self.level.load(Relaxed)).min(Level::ALL.len() - 1)]
    }

    /// Keeps to another policy from the next look on.
    pub fn set(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
    }

    /// Lets `work` run when memory is to be given back, after those that were added before; it says what it did. It must
    /// not wait for somebody who waits for memory.
    pub fn hook(&self, name: &'static str, work: impl Fn(&Ask) -> String + Send + Sync + 'static) {
        self.hooks.add(name, Box::new(work));
    }

    /// Lets `holders` say who holds memory, for recommendations.
    pub fn ask_holders(&self, holders: impl Fn() -> Vec<Holder> + Send + Sync + 'static) {
        *lock(&self.holders) = Some(Box::new(holders));
    }

    /// Tells `fits` after each look how many bytes of what `arrived` counts there may be in all before new work is to be
    /// turned away; none if it never is. Who knows what is on its way can so refuse what would not fit: between two
    /// looks much may come.
    pub fn bound_arrivals(
        &self,
        arrived: impl Fn() -> u64 + Send + Sync + 'static,
        fits: impl Fn(Option<u64>) + Send + Sync + 'static,
    ) {
        *lock(&self.arrivals) = Some(Arrivals { arrived: Box::new(arrived), fits: Box::new(fits) });
    }

    /// Looks once, then again and again on a thread that ends with the manager: seldomer while nothing is `working`.
    pub fn watch(self: &Arc<Self>, working: impl Fn() -> bool + Send + 'static) -> io::Result<()> {
        self.look();
        let weak = Arc::downgrade(self);
        let look = move || {
            loop {
                let Some(manager) = weak.upgrade() else { return };
                let stirred = manager.stirred.swap(false, Relaxed);
                let quiet = manager.level() == Level::Normal && !stirred && !working();
                drop(manager);
                match quiet {
                    true => thread::park_timeout(REST),
                    false => thread::sleep(LOOK),
                }
                let Some(manager) = weak.upgrade() else { return };
                manager.look();
            }
        };
        let watcher = thread::Builder::new().name("memory".to_owned()).spawn(look)?;
        let _ = self.watcher.set(watcher.thread().clone());
        Ok(())
    }

    /// Something is asked of the server: memory is worth a look again.
    pub fn stir(&self) {
        if !self.stirred.load(Relaxed) {
            self.stirred.store(true, Relaxed);
            if let Some(watcher) = self.watcher.get() {
                watcher.unpark();
            }
        }
    }

    /// Looks once: publishes the level, tells if it has changed, lets clean up if it is time.
    pub fn look(self: &Arc<Self>) {
        let policy = self.policy.load_full();
        let before = self.level();
        let arrived = || lock(&self.arrivals).as_ref().map_or(0, |arrivals| (arrivals.arrived)());
        let arrived_before = arrived();
        let (level, reading, is_due) = {
            let mut watch = lock(&self.watch);
            let level = if policy.monitoring { watch.look(self.sources.read(), &policy) } else { watch.rest() };
            self.level.store(level as u8, Relaxed);
            if policy.monitoring {
                watch.note(level, &policy);
            }
            (level, watch.reading.clone(), policy.monitoring && watch.is_cleanup_due(&policy, before, level))
        };
        // What came or went during the look is in the reading or not: the lesser count is the safe one. And what comes
        // brings more with it, in sockets and in what is made of it: a quarter of the room is left for that.
        let arrived = arrived().min(arrived_before);
        let room = policy.shed.filter(|_| policy.monitoring).and_then(|shed| reading.room(shed));
        if let Some(Arrivals { fits, .. }) = &*lock(&self.arrivals) {
            fits(room.map(|room| arrived.saturating_add(room / 4 * 3)));
        }
        if level != before {
            self.tell(before, level, &reading, &policy);
        }
        if is_due {
            self.clean_aside(policy.rest_idle);
        }
    }

    /// Lets all hooks give back what nobody has asked for in `idle`. Takes as long as that takes.
    pub fn clean(&self, idle: Duration, why: Why) -> Report {
        let report = self.hooks.run(&Ask { idle, why }, || self.sources.process());
        for Ran { hook, did, freed_bytes, took_ms } in &report.hooks {
            // What is tried again and again in vain is worth no line.
            if why == Why::Asked || *freed_bytes >= WORTH {
                tracing::info!(hook, freed_mb = freed_bytes / WORTH, took_ms, "memory cleaned up: {did}");
            } else {
                tracing::debug!(hook, took_ms, "nothing to clean up: {did}");
            }
        }
        report
    }

    /// The same aside: what lets a model go waits for it, and the watch must go on meanwhile.
    fn clean_aside(self: &Arc<Self>, idle: Duration) {
        if self.cleaning.swap(true, Relaxed) {
            return;
        }
        let manager = Arc::clone(self);
        let clean = move || {
            let report = manager.clean(idle, Why::Pressure);
            let mut watch = lock(&manager.watch);
            watch.pause = match report.freed() {
                freed if freed >= WORTH => CLEANUP_PAUSE,
                _ => (watch.pause * 2).clamp(CLEANUP_PAUSE, LONGEST_PAUSE),
            };
            watch.cleaned = Some(Instant::now());
            manager.cleaning.store(false, Relaxed);
        };
        if let Err(error) = thread::Builder::new().name("cleanup".to_owned()).spawn(clean) {
            self.cleaning.store(false, Relaxed);
            tracing::error!(%error, "memory is not cleaned up: no thread could be started");
        }
    }

    /// The last look; a new one where nobody watches.
    pub fn reading(&self) -> Reading {
        match self.policy.load().monitoring {
            true => lock(&self.watch).reading.clone(),
            false => self.sources.read(),
        }
    }

    /// How often each level, from [`Level::High`] on, was reached from below.
    pub fn alerts(&self) -> [(Level, u64); 2] {
        [Level::High, Level::Critical].map(|level| (level, self.alerts[level as usize].load(Relaxed)))
    }

    /// Hooks and what they have done.
    pub fn hooks(&self) -> Vec<HookState> {
        self.hooks.states()
    }

    /// Everything it knows.
    pub fn state(&self) -> State {
        let policy = Policy::clone(&self.policy.load());
        let (reading, history) = (self.reading(), lock(&self.watch).history.all());
        let level = self.level();
        State {
            level,
            recommendations: self.recommend(&reading, level, &policy),
            hooks: self.hooks.states(),
            last_cleanup: self.hooks.last(),
            reading,
            policy,
            history,
        }
    }

    fn recommend(&self, reading: &Reading, level: Level, policy: &Policy) -> Vec<String> {
        let holders = lock(&self.holders).as_ref().map(|ask| ask()).unwrap_or_default();
        advise(reading, level, policy, &holders)
    }

    fn tell(&self, before: Level, level: Level, reading: &Reading, policy: &Policy) {
        let rises = level > before;
        if rises {
            self.alerts[level as usize].fetch_add(1, Relaxed);
        }
        let Some((scope, usage)) = blame(reading, policy, level) else { return };
        let (figures, process_mb) = (in_words(scope, usage), reading.process / WORTH);
        match level {
            Level::Critical => tracing::error!(process_mb, "memory is critical, new work is refused: {figures}"),
            Level::High if rises => tracing::warn!(process_mb, "memory is high: {figures}"),
            _ => tracing::info!(process_mb, "memory was {}, is {}: {figures}", before.name(), level.name()),
        }
        let is_news = if rises { level >= Level::High } else { before >= Level::High };
        if !is_news {
            return;
        }
        let advice = self.recommend(reading, level, policy);
        advice.iter().filter(|_| rises).for_each(|advice| tracing::info!("recommended: {advice}"));
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
            "at": now(),
            "recommendations": advice,
        });
        self.webhook.post(to, body);
    }
}

impl Watch {
    fn look(&mut self, reading: Reading, policy: &Policy) -> Level {
        let memory = reading.tightest().map_or(0.0, |(_, usage)| usage.percent());
        let gpu = reading.fullest_gpu().map_or(0.0, |gpu| gpu.usage.percent());
        self.reading = reading;
        self.memory.look(memory, &policy.steps()).max(self.gpu.look(gpu, &policy.gpu_steps()))
    }

    /// Nothing is watched: nothing is short.
    fn rest(&mut self) -> Level {
        (self.memory, self.gpu) = (Gauge::default(), Gauge::default());
        Level::Normal
    }

    /// Remembers how things are, once in an interval.
    fn note(&mut self, level: Level, policy: &Policy) {
        if self.noted.is_some_and(|noted| noted.elapsed() < policy.interval) {
            return;
        }
        self.noted = Some(Instant::now());
        let past = Past::of(&self.reading, level);
        tracing::debug!(
            level = level.name(),
            system_percent = past.system_percent,
            cgroup_percent = past.cgroup_percent,
            gpu_percent = past.gpu_percent,
            process_mb = past.process_bytes / WORTH,
            "memory"
        );
        self.history.push(past);
    }

    /// Whether hooks should run. When the level rises they do at once, however lately they ran.
    fn is_cleanup_due(&self, policy: &Policy, before: Level, level: Level) -> bool {
        let memory = self.reading.tightest().is_some_and(|(_, usage)| usage.percent() >= policy.cleanup);
        let gpu = self.reading.fullest_gpu().is_some_and(|gpu| gpu.usage.percent() >= policy.gpu_alert);
        let pause = if level == Level::Critical { CRITICAL_PAUSE } else { self.pause };
        let rested = self.cleaned.is_none_or(|cleaned| cleaned.elapsed() >= pause);
        policy.auto_cleanup && (memory || gpu) && (level > before || rested)
    }
}

/// What made `level` what it is.
fn blame(reading: &Reading, policy: &Policy, level: Level) -> Option<(Scope, Use)> {
    let gpu = reading.fullest_gpu().map(|gpu| (Scope::Gpu, gpu.usage));
    let memory = reading.tightest();
    let is_memory = memory.is_some_and(|(_, usage)| level == Level::Normal || usage.percent() >= policy.cleanup);
    if is_memory { memory.or(gpu) } else { gpu.filter(|(_, usage)| usage.percent() >= policy.gpu_alert).or(memory) }
}

fn in_words(scope: Scope, usage: Use) -> String {
    format!("{:.1} % of the {}'s {} MiB are used", usage.percent(), scope.name(), usage.limit / WORTH)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    fn used(root: &Path, percent: u64) {
        fs::create_dir_all(root.join("proc")).unwrap();
        let text = format!("MemTotal: 1000000 kB\nMemAvailable: {} kB\n", 10_000 * (100 - percent));
        fs::write(root.join("proc/meminfo"), text).unwrap();
    }

    fn manager(policy: Policy) -> (tempfile::TempDir, Arc<Manager>) {
        let root = tempfile::tempdir().unwrap();
        used(root.path(), 10);
        let manager = Manager::new(Sources::below(root.path()), policy);
        (root, Arc::new(manager))
    }

    #[test]
    fn the_level_follows_memory_and_alerts_are_counted_once() {
        let (root, manager) = manager(Policy { auto_cleanup: false, ..Policy::default() });
        let mut levels = Vec::new();
        for percent in [10, 81, 86, 87, 96, 96, 10, 10, 10, 10, 86] {
            used(root.path(), percent);
            manager.look();
            levels.push(manager.level());
        }
        use Level::{Critical, Elevated, High, Normal};
        let expected = [Normal, Elevated, High, High, Critical, Critical, Critical, Critical, Critical, Normal, High];
        assert_eq!(levels, expected);
        assert_eq!(manager.alerts(), [(High, 2), (Critical, 1)]);
        manager.set(Policy { monitoring: false, ..Policy::default() });
        manager.look();
        assert_eq!(manager.level(), Normal, "who does not watch turns nobody away");
    }

    #[test]
    fn hooks_run_by_themselves_when_memory_is_short_and_not_again_at_once() {
        let (root, manager) = manager(Policy::default());
        let (done, ran) = std::sync::mpsc::channel();
        manager.hook("cache", move |ask| {
            done.send(ask.idle).unwrap();
            "emptied".to_owned()
        });
        manager.look();
        assert!(ran.try_recv().is_err(), "there is enough memory");
        used(root.path(), 82);
        manager.look();
        assert_eq!(ran.recv_timeout(Duration::from_secs(60)).unwrap(), Policy::default().rest_idle);
        while manager.cleaning.load(Relaxed) {
            thread::yield_now();
        }
        (0..5).for_each(|_| manager.look());
        assert!(!manager.cleaning.load(Relaxed) && ran.try_recv().is_err());
        let state = manager.state();
        assert_eq!((state.hooks[0].runs, state.last_cleanup.unwrap().why), (1, Why::Pressure));
        assert!(state.recommendations[0].contains("others use most"), "{:?}", state.recommendations);
    }

    #[test]
    fn a_reading_is_remembered_at_each_interval() {
        let (_root, manager) = manager(Policy { interval: Duration::ZERO, ..Policy::default() });
        (0..3).for_each(|_| manager.look());
        let history = manager.state().history;
        assert_eq!((history.len(), history[0].system_percent, history[0].level), (3, Some(10.0), Level::Normal));
    }
}
