//! A CPU profile being taken.

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
    modules::{Module, modules},
    names::Namer,
    profile::{Kind, Profile, Stack},
    signal::{SLOTS, Session, Timer, this_thread},
    walk::{Walk, Walker},
};

/// Samples a second of work where nobody says how many.
pub const DEFAULT_HZ: u32 = 100;
/// Most samples a second of work. The kernel's clock ticks less often on most machines: samples then stand for more.
pub const MOST_HZ: u32 = 1000;

/// Bounds of how often samples are fetched. Each time wakes a thread, which takes a core from somebody.
const FETCH: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(50)];
/// How often threads are looked for that were not there before.
const LOOK: Duration = Duration::from_millis(100);
/// How often those that are known are asked for their names.
const ASK: Duration = Duration::from_secs(1);
/// How often libraries are looked for at least, while there is reason to.
const SELDOM: Duration = Duration::from_millis(500);
/// Most different stacks; what comes after is counted by its thread alone.
const MOST_STACKS: usize = 100_000;

/// Whether the process is being sampled.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A profile being taken, until it is finished or dropped.
#[derive(Debug)]
pub struct Recording {
    /// The thread that reads samples ends when this does.
    stop: mpsc::Sender<()>,
    reader: JoinHandle<Taken>,
}

/// Who may sample; one at a time, for there is one signal.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        TAKEN.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).ok().map(|_| Self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}

/// What was sampled: threads by number, stacks by thread and addresses.
struct Taken {
    modules: Vec<Module>,
    threads: HashMap<u32, String>,
    stacks: HashMap<(u32, Vec<u64>), u64>,
    broken: u64,
    lost: u64,
    began: SystemTime,
    took: Duration,
    period: Duration,
}

impl Recording {
    /// Begins to sample all threads of the process, `hz` times for each second that they work.
    ///
    /// # Errors
    /// When the process is being sampled already, when `hz` is 0 or more than [`MOST_HZ`], and when the kernel has no
    /// thread or memory left.
    pub fn start(hz: u32) -> Result<Self, ProfileError> {
        if !(1..=MOST_HZ).contains(&hz) {
            return Err(ProfileError::Rate { hz, most: MOST_HZ });
        }
        let turn = Turn::take().ok_or(ProfileError::Busy)?;
        let session = Session::begin()?;
        let period = Duration::from_secs(1) / hz;
        let (stop, stopped) = mpsc::channel();
        let reader = thread::Builder::new().name("profiler".to_owned()).spawn(move || {
            let taken = Reader::new(session, period).read(&stopped);
            drop(turn);
            taken
        })?;
        Ok(Self { stop, reader })
    }

    /// Stops, and gives what was sampled names. Takes some hundred milliseconds the first time that a large program is
    /// read.
    ///
    /// # Errors
    /// When the sampler failed. Where no thread worked long enough to be seen, the profile is empty.
    pub fn finish(self) -> Result<Profile, ProfileError> {
        drop(self.stop);
        let taken = self.reader.join().map_err(|_| io::Error::other("the sampler's thread failed"))?;
        Ok(taken.named())
    }
}

/// The thread that reads samples.
struct Reader {
    session: Session,
    walker: Walker,
    timers: HashMap<u32, Option<Timer>>,
    own: u32,
    news: News,
    clock: Instant,
    taken: Taken,
}

impl Reader {
    fn new(session: Session, period: Duration) -> Self {
        let modules = modules();
        Self {
            session,
            walker: Walker::new(&modules),
            timers: HashMap::new(),
            own: this_thread(),
            news: News::new(),
            clock: Instant::now(),
            taken: Taken {
                modules,
                threads: HashMap::new(),
                stacks: HashMap::new(),
                broken: 0,
                lost: 0,
                began: SystemTime::now(),
                took: Duration::ZERO,
                period,
            },
        }
    }

    fn read(mut self, stopped: &mpsc::Receiver<()>) -> Taken {
        self.look_for_threads(true);
        let (mut looked, mut asked) = (Instant::now(), Instant::now());
        let pause = pause(self.taken.period);
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            self.fetch();
            if looked.elapsed() >= LOOK {
                let ask = asked.elapsed() >= ASK;
                self.look_for_threads(ask);
                looked = Instant::now();
                asked = if ask { looked } else { asked };
            }
        }
        self.timers.clear();
        self.fetch();
        self.taken.lost = self.session.lost();
        self.taken.took = self.clock.elapsed();
        self.taken
    }

    /// Each thread has a timer; those that have gone need none. Those that are known are asked for their names if `ask`.
    fn look_for_threads(&mut self, ask: bool) {
        let Ok(tasks) = fs::read_dir("/proc/self/task") else { return };
        let alive: Vec<u32> = tasks
            .flatten()
            .filter_map(|task| task.file_name().to_str()?.parse().ok())
            .filter(|id| *id != self.own)
            .collect();
        self.timers.retain(|id, _| alive.contains(id));
        for id in alive {
            let period = self.taken.period;
            // One that is gone already has none.
            self.timers.entry(id).or_insert_with(|| Timer::start(id, period).ok());
            // Threads may be given their name after they began.
            if (ask || !self.taken.threads.contains_key(&id))
                && let Some(name) = thread_name(id)
            {
                self.taken.threads.insert(id, name);
            }
        }
    }

    fn fetch(&mut self) {
        let Self { session, walker, taken, news, .. } = self;
        session.drain(|sample| {
            let mut walk = walker.walk(&sample.registers, sample.stack());
            if !walk.whole && news.look(walker, &mut taken.modules) {
                walk = walker.walk(&sample.registers, sample.stack());
            }
            taken.add(sample.thread, walk, sample.periods);
        });
    }
}

/// How long samples may wait to be fetched that come once in `period` from each core: until a quarter of the slots are
/// taken.
fn pause(period: Duration) -> Duration {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    (period * (SLOTS / 4) as u32 / cores as u32).clamp(FETCH[0], FETCH[1])
}

/// Libraries that come while samples are taken: looked for when a stack leads where nothing was before, and ever less
/// often while that is in vain.
struct News {
    last: Instant,
    pause: Duration,
}

impl News {
    fn new() -> Self {
        Self { last: Instant::now(), pause: Duration::ZERO }
    }

    /// Whether there is something new.
    fn look(&mut self, walker: &mut Walker, known: &mut Vec<Module>) -> bool {
        if self.last.elapsed() < self.pause {
            return false;
        }
        let mut new = modules();
        new.retain(|module| !known.iter().any(|known| known.code == module.code && known.name == module.name));
        new.iter().for_each(|module| walker.add(module));
        self.last = Instant::now();
        self.pause = match new.is_empty() {
            true => (self.pause * 2).clamp(LOOK, SELDOM),
            false => Duration::ZERO,
        };
        // Those first that came last: an address is theirs now.
        let found = !new.is_empty();
        known.splice(0..0, new);
        found
    }
}

/// The name that a thread was given, which says what it does. Threads that were given none have the program's.
fn thread_name(id: u32) -> Option<String> {
    let name = |id: u32| Some(fs::read_to_string(format!("/proc/self/task/{id}/comm")).ok()?.trim_end().to_owned());
    let first = std::process::id();
    match id == first {
        true => Some("main".to_owned()),
        false => name(id).map(|own| if name(first).as_ref() == Some(&own) { "unnamed".to_owned() } else { own }),
    }
}

impl Taken {
    fn add(&mut self, thread: u32, walk: Walk, periods: u64) {
        if !walk.whole {
            self.broken += periods;
        }
        let room = self.stacks.len() < MOST_STACKS;
        let key = (thread, walk.addresses);
        match self.stacks.get_mut(&key) {
            Some(known) => *known += periods,
            None if room => drop(self.stacks.insert(key, periods)),
            None => *self.stacks.entry((thread, Vec::new())).or_default() += periods,
        }
    }

    fn named(self) -> Profile {
        let mut namer = Namer::new(self.modules);
        let period = self.period.as_nanos() as u64;
        let stacks = self.stacks.into_iter().map(|((thread, addresses), periods)| {
            let name = self.threads.get(&thread).cloned().unwrap_or_else(|| format!("thread {thread}"));
            let mut frames = vec![name];
            frames.extend(namer.stack(&addresses));
            Stack { frames, count: periods, amount: periods * period }
        });
        let stacks = stacks.collect();
        Profile {
            kind: Kind::Cpu,
            began: self.began,
            took: self.took,
            period,
            broken: self.broken,
            lost: self.lost,
            ..Profile::new(Kind::Cpu, stacks)
        }
    }
}
