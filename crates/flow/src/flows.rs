//! Pipelines by name and their runs: what a server and a command line hold.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

use crate::{
    blueprint::Finding,
    engine::{Engine, Handle, Run, RunOptions},
    error::RunError,
    journal::{Begun, MAX_RECOVERIES, Story},
    report::Report,
    room::{Claim, Room},
    step::Definition,
    value::Value,
};

/// Runs that are over and are told of though no journal has them.
const RECENT: usize = 200;
/// Runs looked through at once for those that were left.
const PAGE: u32 = 200;

/// Pipelines by name, what runs them, and what has become of their runs.
pub struct Flows {
    engine: Engine,
    pipelines: BTreeMap<Arc<str>, Definition>,
    /// Files that are no pipelines, by their names, and what is wrong with them.
    broken: BTreeMap<Box<str>, Vec<Finding>>,
    /// Which pipeline the runs that go on here are of.
    going: Mutex<HashMap<Arc<str>, Of>>,
    recent: Mutex<VecDeque<Arc<Report>>>,
    counts: Mutex<BTreeMap<(Arc<str>, &'static str), Count>>,
    /// How much may go on here concurrently.
    room: Room,
    /// The threads that runs are polled on, where these are not whoever's who asks.
    threads: Option<Runtime>,
}

impl Drop for Flows {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            // What is kept can be taken up again; nothing else is worth waiting for.
            threads.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Flows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flows").field("pipelines", &self.pipelines.keys()).finish_non_exhaustive()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flows {
    /// These pipelines, run by `engine`.
    pub fn new(engine: Engine, pipelines: impl IntoIterator<Item = Definition>) -> Arc<Self> {
        let pipelines = pipelines.into_iter().map(|definition| (Arc::clone(&definition.name), definition)).collect();
        Arc::new(Self {
            engine,
            pipelines,
            broken: BTreeMap::new(),
            going: Mutex::default(),
            recent: Mutex::default(),
            counts: Mutex::default(),
            room: Room::default(),
            threads: None,
        })
    }

    /// The same, with so many threads of their own for runs, knowing of files that are `broken`, and with `room`
    /// for so many runs.
    pub fn with_threads(
        engine: Engine,
        pipelines: impl IntoIterator<Item = Definition>,
        broken: BTreeMap<Box<str>, Vec<Finding>>,
        threads: usize,
        room: Room,
    ) -> std::io::Result<Arc<Self>> {
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("flow").enable_all().build()?;
        let mut flows = Self::new(engine, pipelines);
        if let Some(flows) = Arc::get_mut(&mut flows) {
            (flows.threads, flows.broken, flows.room) = (Some(runtime), broken, room);
        }
        Ok(flows)
    }

    fn spawn<F: Future<Output: Send> + Send + 'static>(&self, work: F) -> JoinHandle<F::Output> {
        match &self.threads {
            Some(threads) => threads.spawn(work),
            None => tokio::spawn(work),
        }
    }

    /// Takes up, on threads of their own, all runs whose process is gone, and then, looking every so often, those of
    /// processes that go; tells what became of them.
    pub fn take_up_aside(self: &Arc<Self>, every: Duration, tell: impl Fn(Result<TakenUp, RunError>) + Send + 'static) {
        let flows = Arc::downgrade(self);
        self.spawn(async move {
            let mut known = Known::default();
            while let Some(flows) = flows.upgrade() {
                let taken = flows.sweep(&mut known).await;
                tell(taken);
                drop(flows);
                tokio::time::sleep(every).await;
            }
        });
    }

    /// Leaves all runs to the next process, because this one ends.
    pub async fn leave_runs(&self) {
        self.engine.leave_runs().await;
    }

    /// Looks for runs whose process is gone: through all the first time, later through the latest.
    async fn sweep(self: &Arc<Self>, known: &mut Known) -> Result<TakenUp, RunError> {
        let most = if known.swept { PAGE.into() } else { u64::MAX };
        let left = self.left(most).await?;
        let mut told = TakenUp { runs: Vec::new(), left: 0, given_up: Vec::new() };
        let given_up = left.given_up.into_iter();
        told.given_up.extend(given_up.filter(|id| known.hopeless.insert(id.clone())));
        let found: HashSet<Box<str>> = left.interrupted.into_iter().filter(|id| !known.hopeless.contains(id)).collect();
        let before = std::mem::replace(&mut known.seen, found);
        // A process that lost the database for a moment comes back: only who is missed twice is gone.
        let gone = known.seen.iter().filter(|id| !known.swept || before.contains(*id)).cloned();
        let taken = self.take_up_these(gone.collect::<Vec<_>>()).await;
        // Those for which there was no room may stand far back in the list: all are looked through again.
        known.swept = !taken.iter().any(|(_, went)| matches!(went, Err(RunError::Busy(_))));
        for (id, went) in taken {
            match went {
                Ok(going) => told.runs.push(going),
                // Another process was quicker, or the next look finds it again.
                Err(RunError::Taken | RunError::Store(_) | RunError::Busy(_)) => {}
                Err(_) => {
                    told.left += 1;
                    known.hopeless.insert(id);
                }
            }
        }
        Ok(told)
    }

    /// Runs that go on here and are not kept: when the process ends they are gone.
    pub fn passing(&self) -> usize {
        held(&self.going).values().filter(|going| !going.durable).count()
    }

    /// What runs them.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The pipelines, in order of their names.
    pub fn pipelines(&self) -> impl Iterator<Item = &Definition> {
        self.pipelines.values()
    }

    /// Files that are no pipelines, by their names without an ending, and what is wrong with them.
    pub fn broken(&self) -> &BTreeMap<Box<str>, Vec<Finding>> {
        &self.broken
    }

    /// The pipeline of that name; `pipeline#step` is a background step of one.
    pub fn pipeline(&self, name: &str) -> Option<Definition> {
        self.of_name(name).into_iter().next()
    }

    /// All that may be called that: several background steps may have one name, and any name may have a `#` in it.
    fn of_name(&self, name: &str) -> Vec<Definition> {
        if let Some(definition) = self.pipelines.get(name) {
            return vec![definition.clone()];
        }
        let signs = || name.match_indices('#').map(|(at, _)| at);
        let pipelines = signs().filter_map(|first| Some((first, self.pipelines.get(&name[..first])?)));
        let asides = |(first, pipeline): (usize, &Definition)| -> Vec<Definition> {
            let lasts = signs().filter(|last| *last >= first);
            lasts.flat_map(|last| pipeline.asides(&name[..last], &name[last + 1..])).collect()
        };
        pipelines.flat_map(asides).collect()
    }

    /// What a run was begun with; another version of it, if that is not there any more.
    fn of_run(&self, begun: &Begun) -> Result<Definition, RunError> {
        let mut named = self.of_name(&begun.pipeline);
        let same = named.iter().position(|definition| definition.version() == begun.version);
        let none = || RunError::NoPipeline((&*begun.pipeline).into());
        if named.is_empty() { Err(none()) } else { Ok(named.swap_remove(same.unwrap_or_default())) }
    }

    /// Begins a run. A durable one goes on whoever waits for it; another is broken off when nobody does any more.
    pub async fn begin(
        self: &Arc<Self>,
        definition: &Definition,
        input: Value,
        options: RunOptions,
    ) -> Result<Going, RunError> {
        let (flows, definition) = (Arc::clone(self), definition.clone());
        let room = self.room.claim(input.size() + Value::Map(options.context.clone()).size())?;
        self.whole(async move {
            let durable = flows.engine.keeps(&definition, &options);
            let run = flows.engine.begin(&definition, input, options).await.map_err(|(_, error)| error)?;
            Ok(flows.go(&definition, run, durable, room))
        })
        .await
    }

    /// Takes a run up where it was left: see [`Engine::resume`].
    pub async fn resume(
        self: &Arc<Self>,
        id: &str,
        answers: HashMap<Arc<str>, Value>,
        force: bool,
    ) -> Result<Going, RunError> {
        let (flows, id) = (Arc::clone(self), id.to_owned());
        self.whole(async move {
            let story = Story::read(&**flows.engine.runs(), &id).await?;
            let room = flows.room_of(&story)?;
            let definition = flows.of_run(&story.begun)?;
            drop(story);
            let run = flows.engine.resume(&definition, &id, answers, force).await?;
            Ok(flows.go(&definition, run, true, room))
        })
        .await
    }

    /// Takes up a run whose process is gone: see [`Engine::recover`].
    async fn recover(self: &Arc<Self>, id: &str) -> Result<Going, RunError> {
        let (flows, id) = (Arc::clone(self), id.to_owned());
        self.whole(async move {
            let story = Story::read(&**flows.engine.runs(), &id).await?;
            let room = flows.room_of(&story)?;
            let definition = flows.of_run(&story.begun)?;
            drop(story);
            let run = flows.engine.recover(&definition, &id).await?;
            Ok(flows.go(&definition, run, true, room))
        })
        .await
    }

    /// Capacity for a run that is resumed from its journal.
    fn room_of(&self, story: &Story) -> Result<Claim, RunError> {
        let done = story.done.values().filter_map(|done| done.answer.as_ref().ok());
        let known = story.begun.input.size() + Value::Map(story.begun.context.clone()).size();
        self.room.claim(known + done.map(Value::size).sum::<usize>())
    }

    /// Does what begins a run to its end, though whoever asked may be gone: what stands in the journal must go on.
    async fn whole(
        &self,
        work: impl Future<Output = Result<Going, RunError>> + Send + 'static,
    ) -> Result<Going, RunError> {
        self.spawn(work).await.map_err(|_| RunError::Cancelled)?
    }

    fn go(self: &Arc<Self>, definition: &Definition, run: Run, durable: bool, room: Claim) -> Going {
        let (id, pipeline) = (Arc::clone(run.id()), Arc::clone(&definition.name));
        let of = Of { pipeline: Arc::clone(&pipeline), durable, handle: run.handle() };
        held(&self.going).insert(Arc::clone(&id), of);
        let (flows, handle) = (Arc::clone(self), run.handle());
        let held_on = handle.clone();
        let task = self.spawn(async move {
            let ran = run.await;
            let report = Arc::new(Report::of(&pipeline, &ran));
            flows.over(&report);
            drop(room);
            // Whoever watches is told that it is over only when there is something to be read of it.
            drop(held_on);
            (ran.outcome, report)
        });
        Going { id, handle, task, detached: durable }
    }

    /// Runs that came to their end here, for now or for good, by pipeline and status.
    pub fn counts(&self) -> Vec<(Arc<str>, &'static str, Count)> {
        held(&self.counts).iter().map(|((pipeline, status), count)| (Arc::clone(pipeline), *status, *count)).collect()
    }

    /// Runs that go on here.
    pub fn running(&self) -> usize {
        held(&self.going).len()
    }

    fn over(&self, report: &Arc<Report>) {
        let mut counts = held(&self.counts);
        let count = counts.entry((Arc::clone(&report.pipeline), report.status)).or_default();
        count.runs += 1;
        count.steps += report.steps.len() as u64;
        count.seconds += report.duration_ms / 1e3;
        count.tokens += report.usage.tokens_in + report.usage.tokens_out;
        count.dollars += report.usage.cost_usd;
        drop(counts);
        let mut recent = held(&self.recent);
        recent.retain(|other| other.run_id != report.run_id);
        recent.push_back(Arc::clone(report));
        if recent.len() > RECENT {
            recent.pop_front();
        }
        drop(recent);
        // At last, so that there is no moment at which nothing is known of it. A run that was taken up again has its name.
        held(&self.going).retain(|id, of| *id != report.run_id || !of.handle.over());
    }

    /// What is told of a run: one that goes on here, that was here, or that a journal has.
    pub async fn report(&self, id: &str) -> Result<Arc<Report>, RunError> {
        let going = held(&self.going).get(id).map(|of| (Arc::clone(&of.pipeline), of.handle.clone()));
        if let Some((pipeline, handle)) = going {
            let log = handle.log();
            return Ok(Arc::new(Report::live(handle.id(), &pipeline, &log.entries(), log.now())));
        }
        // Another process may have taken a paused run up since it was here.
        let here = held(&self.recent).iter().find(|report| &*report.run_id == id && report.status != "paused").cloned();
        match here {
            Some(report) => Ok(report),
            None => Ok(Arc::new(Report::told(id, &self.engine.story(id).await?))),
        }
    }

    /// Breaks a run off: see [`Engine::cancel`].
    pub async fn cancel(&self, id: &str) -> Result<(), RunError> {
        self.engine.cancel(id).await
    }

    /// Goes through a recorded run again: see [`Engine::replay`].
    pub async fn replay(&self, id: &str) -> Result<Report, RunError> {
        let story = Story::read(&**self.engine.runs(), id).await?;
        let definition = self.of_run(&story.begun)?;
        let ran = self.engine.replay(&definition, id).await?;
        Ok(Report::of(&definition.name, &ran))
    }

    /// Takes up all runs whose process is gone. What waits for somebody goes on waiting. Gives those that were taken up,
    /// and those that could not be.
    pub async fn take_up(self: &Arc<Self>) -> Result<Vec<(Box<str>, Result<Going, RunError>)>, RunError> {
        let left = self.left(u64::MAX).await?;
        let mut taken = self.take_up_these(left.interrupted).await;
        taken.extend(left.given_up.into_iter().map(|id| (id, Err(RunError::GivenUp(MAX_RECOVERIES)))));
        Ok(taken)
    }

    async fn take_up_these(
        self: &Arc<Self>,
        runs: impl IntoIterator<Item = Box<str>>,
    ) -> Vec<(Box<str>, Result<Going, RunError>)> {
        let mut taken = Vec::new();
        for id in runs {
            let went = self.recover(&id).await;
            taken.push((id, went));
        }
        taken
    }

    /// Runs whose process is gone, among the latest `most`.
    async fn left(&self, most: u64) -> Result<Left, RunError> {
        let (runs, mut left, mut looked) = (self.engine.runs(), Left::default(), 0);
        loop {
            let listing = runs.list(PAGE, looked).await?;
            for run in &listing.runs {
                if matches!(self.engine.status(run).await, Ok((_, "interrupted"))) {
                    let among = if run.is_given_up() { &mut left.given_up } else { &mut left.interrupted };
                    among.push(run.id.clone());
                }
            }
            looked += listing.runs.len() as u64;
            if listing.runs.len() < PAGE as usize || looked >= most {
                return Ok(left);
            }
        }
    }
}

/// Runs whose process is gone.
#[derive(Default)]
struct Left {
    /// Those that may be recovered.
    interrupted: Vec<Box<str>>,
    /// Those that were recovered as often as may be.
    given_up: Vec<Box<str>>,
}

/// What runs of a pipeline that ended alike come to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    /// How many.
    pub runs: u64,
    /// Steps that they began.
    pub steps: u64,
    /// How long they took in all.
    pub seconds: f64,
    /// Tokens that they spent.
    pub tokens: u64,
    /// US dollars that they spent.
    pub dollars: f64,
}

/// What a run that goes on is of.
struct Of {
    pipeline: Arc<str>,
    durable: bool,
    handle: Handle,
}

/// What is known of runs that were left.
#[derive(Default)]
struct Known {
    /// Whether all were looked through once.
    swept: bool,
    /// Those that the last look found.
    seen: HashSet<Box<str>>,
    /// Those that cannot be taken up: they are told of once.
    hopeless: HashSet<Box<str>>,
}

/// What became of runs whose process is gone.
pub struct TakenUp {
    /// Those that go on.
    pub runs: Vec<Going>,
    /// How many cannot.
    pub left: usize,
    /// Those that were recovered as often as may be without a step done: they wait for a caller to resume them. Each is
    /// told once.
    pub given_up: Vec<Box<str>>,
}

/// A run that goes on.
pub struct Going {
    /// Its name.
    pub id: Arc<str>,
    /// A hold on it.
    pub handle: Handle,
    task: JoinHandle<(crate::engine::Outcome, Arc<Report>)>,
    detached: bool,
}

impl Going {
    /// Whether it goes on though nobody waits for it.
    pub fn is_kept(&self) -> bool {
        self.detached
    }

    /// Waits for its end.
    pub async fn wait(mut self) -> Result<(crate::engine::Outcome, Arc<Report>), RunError> {
        self.ended().await
    }

    /// The same; who no longer waits still has the run. Once it has come, it does not come again.
    pub async fn ended(&mut self) -> Result<(crate::engine::Outcome, Arc<Report>), RunError> {
        let done = (&mut self.task).await;
        self.detached = true;
        done.map_err(|_| RunError::Cancelled)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        if !self.detached {
            self.handle.cancel();
        }
    }
}
