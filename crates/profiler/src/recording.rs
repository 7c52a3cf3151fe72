//! Recording of CPU profiles.

use std::{
    collections::HashMap,
    fs, io,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use crate::{
    error::ProfileError,
    modules::{Module, loaded_modules},
    profile::{Kind, Profile, Stack},
    sampler::{SLOT_COUNT, Session, Timer, current_thread_id},
    symbolize::Symbolizer,
    unwind::{StackUnwinder, UnwoundStack},
};

/// Default samples per second of CPU time.
pub const DEFAULT_HZ: u32 = 100;
/// Maximum samples per second of CPU time. The kernel's clock ticks less often on most machines; samples then stand for
/// several periods.
pub const MAX_HZ: u32 = 1000;

/// Bounds of the interval at which samples are read. Each read wakes a thread, which takes a core from other work.
const DRAIN_INTERVAL_RANGE: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];
/// Interval at which new threads are searched.
const THREAD_SCAN_INTERVAL: Duration = Duration::from_millis(100);
/// Interval at which the names of known threads are refreshed.
const NAME_REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum interval at which new modules are searched while stacks cannot be unwound.
const MAX_MODULE_SCAN_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum number of distinct stacks; later ones are counted by thread only.
const MAX_DISTINCT_STACKS: usize = 100_000;

/// True while the process is being recorded.
static RECORDING_ACTIVE: AtomicBool = AtomicBool::new(false);

/// A running CPU profile; it stops when it is finished or dropped.
#[derive(Debug)]
pub struct Recording {
    /// The reader thread ends when this is dropped.
    stop: mpsc::Sender<()>,
    reader: JoinHandle<SampleSet>,
}

/// The right to record; there is only one, because there is only one signal.
struct RecordingGuard;

impl RecordingGuard {
    fn try_acquire() -> Option<Self> {
        RECORDING_ACTIVE.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).ok().map(|_| Self)
    }
}

impl Drop for RecordingGuard {
    fn drop(&mut self) {
        RECORDING_ACTIVE.store(false, Ordering::Release);
    }
}

/// Samples by thread id and addresses.
struct SampleSet {
    modules: Vec<Module>,
    threads: HashMap<u32, String>,
    stacks: HashMap<(u32, Vec<u64>), u64>,
    truncated: u64,
    lost: u64,
    began: SystemTime,
    took: Duration,
    period: Duration,
}

impl Recording {
    /// Starts to sample all threads of the process, `hz` times per second of their CPU time.
    ///
    /// # Errors
    /// If the process is already being recorded, `hz` is 0 or more than [`MAX_HZ`], or the kernel has no thread or
    /// memory left.
    pub fn start(hz: u32) -> Result<Self, ProfileError> {
        if !(1..=MAX_HZ).contains(&hz) {
            return Err(ProfileError::Rate { hz, most: MAX_HZ });
        }
        let guard = RecordingGuard::try_acquire().ok_or(ProfileError::Busy)?;
        let session = Session::start()?;
        let period = Duration::from_secs(1) / hz;
        let (stop, stopped) = mpsc::channel();
        let reader = thread::Builder::new().name("profiler".to_owned()).spawn(move || {
            let samples = SampleReader::new(session, period).run_until_stopped(&stopped);
            drop(guard);
            samples
        })?;
        Ok(Self { stop, reader })
    }

    /// Stops the recording and symbolises it. Takes some hundred milliseconds the first time that a large program is
    /// read.
    ///
    /// # Errors
    /// If the sampler failed. If no thread used enough CPU time, the profile is empty.
    pub fn finish(self) -> Result<Profile, ProfileError> {
        drop(self.stop);
        let samples = self.reader.join().map_err(|_| io::Error::other("the sampler thread failed"))?;
        Ok(samples.into_profile())
    }
}

/// The thread that reads samples.
struct SampleReader {
    session: Session,
    unwinder: StackUnwinder,
    timers: HashMap<u32, Option<Timer>>,
    own: u32,
    watcher: ModuleWatcher,
    clock: Instant,
    samples: SampleSet,
}

impl SampleReader {
    fn new(session: Session, period: Duration) -> Self {
        let modules = loaded_modules();
        Self {
            session,
            unwinder: StackUnwinder::new(&modules),
            timers: HashMap::new(),
            own: current_thread_id(),
            watcher: ModuleWatcher::new(),
            clock: Instant::now(),
            samples: SampleSet {
                modules,
                threads: HashMap::new(),
                stacks: HashMap::new(),
                truncated: 0,
                lost: 0,
                began: SystemTime::now(),
                took: Duration::ZERO,
                period,
            },
        }
    }

    fn run_until_stopped(mut self, stopped: &mpsc::Receiver<()>) -> SampleSet {
        self.scan_threads(true);
        let (mut last_scan, mut last_refresh) = (Instant::now(), Instant::now());
        let pause = drain_interval(self.samples.period);
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            self.drain_samples();
            if last_scan.elapsed() >= THREAD_SCAN_INTERVAL {
                let refresh_names = last_refresh.elapsed() >= NAME_REFRESH_INTERVAL;
                self.scan_threads(refresh_names);
                last_scan = Instant::now();
                last_refresh = if refresh_names { last_scan } else { last_refresh };
            }
        }
        self.timers.clear();
        self.drain_samples();
        self.samples.lost = self.session.lost_periods();
        self.samples.took = self.clock.elapsed();
        self.samples
    }

    /// Starts a timer for each new thread and drops those of ended threads. Refreshes the names of known threads if
    /// `refresh_names` is set.
    fn scan_threads(&mut self, refresh_names: bool) {
        let Ok(tasks) = fs::read_dir("/proc/self/task") else { return };
        let alive: Vec<u32> = tasks
            .flatten()
            .filter_map(|task| task.file_name().to_str()?.parse().ok())
            .filter(|id| *id != self.own)
            .collect();
        self.timers.retain(|id, _| alive.contains(id));
        for id in alive {
            let period = self.samples.period;
            // A thread may already have ended.
            self.timers.entry(id).or_insert_with(|| Timer::start(id, period).ok());
            // A thread may be named after it started.
            if (refresh_names || !self.samples.threads.contains_key(&id))
                && let Some(name) = thread_name(id)
            {
                self.samples.threads.insert(id, name);
            }
        }
    }

    fn drain_samples(&mut self) {
        let Self { session, unwinder, samples, watcher, .. } = self;
        session.drain_samples(|sample| {
            let mut unwound = unwinder.unwind_stack(&sample.registers, sample.stack_bytes());
            if !unwound.whole && watcher.rescan_modules(unwinder, &mut samples.modules) {
                unwound = unwinder.unwind_stack(&sample.registers, sample.stack_bytes());
            }
            samples.add_sample(sample.thread, unwound, sample.periods);
        });
    }
}

/// Interval between reads at which at most a quarter of the slots is full, at one sample per `period` and core.
fn drain_interval(period: Duration) -> Duration {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (period * (SLOT_COUNT / 4) as u32 / cores as u32).clamp(DRAIN_INTERVAL_RANGE[0], DRAIN_INTERVAL_RANGE[1])
}

/// Detects modules that are loaded during a recording: searches when a stack leads to an unknown address, at growing
/// intervals while nothing new is found.
struct ModuleWatcher {
    last: Instant,
    pause: Duration,
}

impl ModuleWatcher {
    fn new() -> Self {
        Self { last: Instant::now(), pause: Duration::ZERO }
    }

    /// Searches new modules; returns true if there are any.
    fn rescan_modules(&mut self, unwinder: &mut StackUnwinder, known: &mut Vec<Module>) -> bool {
        if self.last.elapsed() < self.pause {
            return false;
        }
        let mut new = loaded_modules();
        new.retain(|module| !known.iter().any(|known| known.code == module.code && known.name == module.name));
        new.iter().for_each(|module| unwinder.add_module(module));
        self.last = Instant::now();
        self.pause = match new.is_empty() {
            true => (self.pause * 2).clamp(THREAD_SCAN_INTERVAL, MAX_MODULE_SCAN_INTERVAL),
            false => Duration::ZERO,
        };
        // The latest modules first, because they now own their addresses.
        let found = !new.is_empty();
        known.splice(0..0, new);
        found
    }
}

/// Name of a thread; "unnamed" if it has only the program's name.
fn thread_name(id: u32) -> Option<String> {
    let name = |id: u32| Some(fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?.trim_end().to_owned());
    let first = std::process::id();
    match id == first {
        true => Some("main".to_owned()),
        false => name(id).map(|own| if name(first).as_ref() == Some(&own) { "unnamed".to_owned() } else { own }),
    }
}

impl SampleSet {
    fn add_sample(&mut self, thread: u32, unwound: UnwoundStack, periods: u64) {
        if !unwound.whole {
            self.truncated += periods;
        }
        let has_room = self.stacks.len() < MAX_DISTINCT_STACKS;
        let key = (thread, unwound.addresses);
        match self.stacks.get_mut(&key) {
            Some(known) => *known += periods,
            None if has_room => drop(self.stacks.insert(key, periods)),
            None => *self.stacks.entry((thread, Vec::new())).or_default() += periods,
        }
    }

    fn into_profile(self) -> Profile {
        let mut symbolizer = Symbolizer::new(self.modules);
        let period = self.period.as_nanos() as u64;
        let stacks = self.stacks.into_iter().map(|((thread, addresses), periods)| {
            let name = self.threads.get(&thread).cloned().unwrap_or_else(|| format!("thread {thread}"));
            let mut frames = vec![name];
            frames.extend(symbolizer.symbolize_stack(&addresses));
            Stack { frames, count: periods, amount: periods * period }
        });
        let stacks = stacks.collect();
        Profile {
            kind: Kind::Cpu,
            began: self.began,
            took: self.took,
            period,
            truncated: self.truncated,
            lost: self.lost,
            ..Profile::new(Kind::Cpu, stacks)
        }
    }
}
