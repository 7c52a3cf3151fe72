//! What runs pipelines: the cache they share, where their runs are kept, and what holds for all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use caudal_types::Deadline;
use futures_util::{FutureExt, future::BoxFuture};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{
    budget::{Limits, Quota, Usage},
    cache::StepCache,
    error::{Fault, RunError, StepError},
    journal::{Begun, Journal, MemoryRuns, Owner, Runs, Story},
    live::Live,
    log::{Entry, Event, Log, Place},
    run::{self, Prompt, Scope, State, Stop, Went},
    step::{Definition, Step, Steps},
    value::{Map, Value},
};

/// The form of the journal of a run that is begun now.
const FORM: u32 = 1;
/// The longest name of a run.
const LONGEST_ID: usize = 200;

/// What all runs share.
pub(crate) struct Parts {
    pub(crate) cache: StepCache,
    pub(crate) most_steps: usize,
    runs: Arc<dyn Runs>,
    durable: bool,
    owner: Owner,
    /// The runs of this process that go on.
    live: Mutex<HashMap<Arc<str>, Weak<Live>>>,
    /// Budgets of pipelines, for all of their runs in this process.
    quotas: Mutex<HashMap<Arc<str>, Arc<Quota>>>,
}

/// How an engine is set up.
pub struct Options {
    /// Bytes of answers that are remembered.
    pub cache_bytes: u64,
    /// For how long at most.
    pub cache_ttl: Option<Duration>,
    /// Where answers are remembered beyond this process.
    pub shelf: Option<Arc<dyn crate::cache::Shelf>>,
    /// Steps that a run may take.
    pub most_steps: usize,
    /// Where durable runs are kept; without, runs that somebody is asked in are kept in memory, and no others.
    pub runs: Option<Arc<dyn Runs>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            cache_ttl: Some(Duration::from_secs(3_600)),
            shelf: None,
            most_steps: 100_000,
            runs: None,
        }
    }
}

/// Runs pipelines. To clone one is to hold the same.
#[derive(Clone)]
pub struct Engine {
    parts: Arc<Parts>,
}

/// What may be said about a run.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Its name; one is made if none is given.
    pub id: Option<Arc<str>>,
    /// What it knows from the beginning.
    pub context: Map,
    /// What it may spend, beside what its pipeline says.
    pub limits: Limits,
    /// How long it may take, beside what its pipeline says.
    pub timeout: Option<Duration>,
    /// Whether each step is kept before the next begins; as the pipeline says, if nothing is said.
    pub durable: Option<bool>,
}

/// How a run came to its end, for now or for good.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It gave this.
    Completed(Value),
    /// It waits for somebody.
    Paused(Vec<Prompt>),
    /// It did not.
    Failed(RunError),
}

/// A run that came to its end, for now or for good.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Its name.
    pub id: Arc<str>,
    /// How it ended.
    pub outcome: Outcome,
    /// What it knew in the end.
    pub context: Map,
    /// How long it took.
    pub took: Duration,
    /// What it spent.
    pub usage: Usage,
    /// Its steps.
    pub entries: Vec<Entry>,
}

impl Ran {
    /// What it gave.
    pub fn output(self) -> Result<Value, RunError> {
        match self.outcome {
            Outcome::Completed(value) => Ok(value),
            Outcome::Paused(_) => Err(RunError::State("paused")),
            Outcome::Failed(error) => Err(error),
        }
    }
}

/// A hold on a run that goes on.
#[derive(Clone)]
pub struct Handle {
    live: Arc<Live>,
}

impl Handle {
    /// The run's name.
    pub fn id(&self) -> &Arc<str> {
        &self.live.id
    }

    /// Breaks the run off.
    pub fn cancel(&self) {
        self.live.cancel();
    }

    /// What stands in its log so far, and what happens from now on.
    pub fn watch(&self) -> (Vec<Entry>, broadcast::Receiver<Event>) {
        self.live.log.watch()
    }

    /// One entry of its log, by its number.
    pub fn entry_at(&self, number: usize) -> Option<Entry> {
        self.live.log.entry(Place::at(number))
    }

    /// Whether it has come to its end.
    pub fn over(&self) -> bool {
        self.live.over()
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.live.log
    }
}

/// A run that has been begun: a future of how it ends. Dropped, it is broken off.
pub struct Run {
    handle: Handle,
    work: BoxFuture<'static, Ran>,
}

impl Run {
    /// A hold on it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Its name.
    pub fn id(&self) -> &Arc<str> {
        self.handle.id()
    }
}

impl Future for Run {
    type Output = Ran;

    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Ran> {
        self.work.poll_unpin(context)
    }
}

impl Engine {
    /// An engine.
    pub fn new(options: Options) -> Self {
        let Options { cache_bytes, cache_ttl, shelf, most_steps, runs } = options;
        let parts = Parts {
            cache: StepCache::new(cache_bytes, cache_ttl, shelf),
            most_steps,
            durable: runs.is_some(),
            runs: runs.unwrap_or_else(|| Arc::new(MemoryRuns::default())),
            owner: Owner::this(),
            live: Mutex::default(),
            quotas: Mutex::default(),
        };
        Self { parts: Arc::new(parts) }
    }

    /// The cache of answers.
    pub fn cache(&self) -> &StepCache {
        &self.parts.cache
    }

    /// Where runs are kept.
    pub fn runs(&self) -> &Arc<dyn Runs> {
        &self.parts.runs
    }

    /// What all runs of a pipeline together may spend in this process.
    pub fn limit(&self, pipeline: &Arc<str>, limits: Limits) {
        let quota = Quota::new(limits, None);
        self.parts.quotas.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(pipeline), quota);
    }

    /// The run of that name, if it goes on in this process.
    pub fn live(&self, id: &str) -> Option<Handle> {
        let live = self.parts.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(id).and_then(Weak::upgrade).map(|live| Handle { live })
    }

    /// Whether a run of that pipeline would be kept.
    pub fn keeps(&self, definition: &Definition, options: &RunOptions) -> bool {
        definition.asks || (options.durable.unwrap_or(definition.durable) && self.parts.durable)
    }

    /// Runs a pipeline: begins a run and waits for it.
    pub async fn run(&self, definition: &Definition, input: Value, options: RunOptions) -> Ran {
        match self.begin(definition, input, options).await {
            Ok(run) => run.await,
            Err((id, error)) => Ran {
                id,
                outcome: Outcome::Failed(error),
                context: Map::default(),
                took: Duration::ZERO,
                usage: Usage::NONE,
                entries: Vec::new(),
            },
        }
    }

    /// Begins a run. It goes on as it is polled; a durable one is on disk when this returns.
    pub async fn begin(
        &self,
        definition: &Definition,
        input: Value,
        options: RunOptions,
    ) -> Result<Run, (Arc<str>, RunError)> {
        let id = options.id.clone().unwrap_or_else(|| Uuid::now_v7().to_string().into());
        match self.prepare(Arc::clone(&id), definition, input, options).await {
            Ok(run) => Ok(run),
            Err(error) => Err((id, error)),
        }
    }

    async fn prepare(
        &self,
        id: Arc<str>,
        definition: &Definition,
        input: Value,
        options: RunOptions,
    ) -> Result<Run, RunError> {
        if id.is_empty() || id.len() > LONGEST_ID || !id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
            return Err(RunError::Answer("a run's name has 1 to 200 letters, digits and signs, and no slash".into()));
        }
        if let Some(check) = &definition.takes {
            check.check(&input).map_err(|wrong| Self::misfit(definition, "input", &wrong))?;
        }
        let limits = definition.limits.tightest(options.limits);
        let journal = if self.keeps(definition, &options) {
            let begun = Begun {
                form: FORM,
                pipeline: Arc::clone(&definition.name),
                version: definition.version(),
                input: input.clone(),
                context: options.context.clone(),
                limits,
                timeout_ms: options.timeout.map(|timeout| timeout.as_millis() as u64),
                owner: self.parts.owner.clone(),
            };
            Some(Journal::begin(Arc::clone(&self.parts.runs), Arc::clone(&id), begun).await?)
        } else {
            None
        };
        Ok(self.launch(id, definition, input, options.context, limits, options.timeout, journal))
    }

    fn misfit(definition: &Definition, what: &str, wrong: &str) -> RunError {
        let error = StepError::input(format!("the pipeline's {what} does not fit: {wrong}")).for_good();
        RunError::Step { step: Arc::clone(&definition.name), error }
    }

    #[expect(clippy::too_many_arguments, reason = "what a run is made of")]
    fn launch(
        &self,
        id: Arc<str>,
        definition: &Definition,
        input: Value,
        context: Map,
        limits: Limits,
        timeout: Option<Duration>,
        journal: Option<Journal>,
    ) -> Run {
        let start = Instant::now();
        let timeout = [timeout, definition.timeout].into_iter().flatten().min();
        let deadline = timeout.map_or(Deadline::NEVER, |timeout| Deadline::after(start, timeout));
        let around = self.parts.quotas.lock().unwrap_or_else(PoisonError::into_inner).get(&definition.name).cloned();
        let quota = (around.is_some() || !limits.none()).then(|| Quota::new(limits, around));
        let live = Live::new(id, definition, start, deadline, Arc::clone(&self.parts), journal);
        let live = Arc::new(live);
        // Only who is asked about by name, from elsewhere, is registered.
        let listed = Listed::new(&live, &self.parts);
        let scope = Scope { place: Place::RUN, quota, deadline };
        let context = match definition.knows_input {
            true => context.with("initial_prompt", input.clone()),
            false => context,
        };
        let state = State { value: input, context, moment: Duration::ZERO, turn: 0 };
        let work = drive(Arc::clone(&live), definition.clone(), scope, state, listed);
        Run { handle: Handle { live }, work: work.boxed() }
    }

    /// Takes a run up where it was left: after a pause, a crash or a failure. Steps that are kept are not run again.
    ///
    /// `answers` are what people say to the steps that ask, by their paths; of a run that one step alone asks in, the
    /// path may be empty. `force` takes a run from a process of which nobody knows whether it is still there.
    pub async fn resume(
        &self,
        definition: &Definition,
        id: &str,
        answers: HashMap<Arc<str>, Value>,
        force: bool,
    ) -> Result<Run, RunError> {
        let story = Story::read(&*self.parts.runs, id).await?;
        if story.begun.version != definition.version() {
            return Err(RunError::Foreign(Box::from(&*story.begun.pipeline)));
        }
        match &story.ended {
            Some(ended) if &*ended.status == "completed" => return Err(RunError::State("completed already")),
            Some(ended) if &*ended.status == "cancelled" => return Err(RunError::State("cancelled")),
            Some(_) => {}
            None if story.paused.is_some() => {}
            None if self.live(id).is_some() => return Err(RunError::Taken),
            None if !story.owner.is_this() && story.owner.may_live() && !force => return Err(RunError::Taken),
            None => {}
        }
        let answers = addressed(&story, answers)?;
        let (context, limits) = (story.begun.context.clone(), story.begun.limits);
        let input = story.begun.input.clone();
        let timeout = story.begun.timeout_ms.map(Duration::from_millis);
        let name: Arc<str> = id.into();
        let runs = Arc::clone(&self.parts.runs);
        let journal = Journal::resume(runs, Arc::clone(&name), &story, self.parts.owner.clone(), answers).await?;
        Ok(self.launch(name, definition, input, context, limits, timeout, Some(journal)))
    }

    /// Goes through a recorded run again. Nothing is asked, called or kept: each step gives what it gave.
    pub async fn replay(&self, definition: &Definition, id: &str) -> Result<Ran, RunError> {
        let story = Story::read(&*self.parts.runs, id).await?;
        if story.begun.version != definition.version() {
            return Err(RunError::Foreign(Box::from(&*story.begun.pipeline)));
        }
        let name: Arc<str> = format!("{id}~replay").into();
        let journal = Journal::replay(Arc::clone(&self.parts.runs), Arc::clone(&name), &story);
        let (input, context) = (story.begun.input, story.begun.context);
        Ok(self.launch(name, definition, input, context, Limits::default(), None, Some(journal)).await)
    }

    /// Marks a run as cancelled: one that goes on here is broken off, one that waits or was left never goes on.
    pub async fn cancel(&self, id: &str) -> Result<(), RunError> {
        if let Some(handle) = self.live(id) {
            handle.cancel();
            return Ok(());
        }
        let story = Story::read(&*self.parts.runs, id).await?;
        if story.ended.is_some() {
            return Err(RunError::State("over already"));
        }
        if story.paused.is_none() && !story.owner.is_this() && story.owner.may_live() {
            return Err(RunError::Taken);
        }
        let (runs, owner) = (Arc::clone(&self.parts.runs), self.parts.owner.clone());
        let journal = Journal::resume(runs, id.into(), &story, owner, HashMap::new()).await?;
        journal.end("cancelled", Err(None), Usage::NONE).await
    }
}

/// The answers by the paths of those who ask.
fn addressed(story: &Story, mut answers: HashMap<Arc<str>, Value>) -> Result<HashMap<Arc<str>, Value>, RunError> {
    let Some(paused) = &story.paused else {
        return match answers.is_empty() {
            true => Ok(answers),
            false => Err(RunError::Answer("the run asks nothing, so there is nothing to answer".into())),
        };
    };
    let paths: Vec<&Arc<str>> = paused.prompts.iter().map(|prompt| &prompt.path).collect();
    if let Some(answer) = answers.remove("") {
        let [only] = paths[..] else {
            return Err(RunError::Answer(format!("{} steps ask: say which one is answered", paths.len()).into()));
        };
        answers.insert(Arc::clone(only), answer);
    }
    match answers.keys().find(|path| !paths.contains(path)) {
        Some(path) => Err(RunError::Answer(format!("no step {path} asks").into())),
        None if answers.is_empty() => Err(RunError::Answer("the run waits for an answer".into())),
        None => Ok(answers),
    }
}

/// A run stands in the list of those that go on as long as this lives.
struct Listed {
    parts: Arc<Parts>,
    id: Arc<str>,
}

impl Listed {
    fn new(live: &Arc<Live>, parts: &Arc<Parts>) -> Self {
        let mut list = parts.live.lock().unwrap_or_else(PoisonError::into_inner);
        list.insert(Arc::clone(&live.id), Arc::downgrade(live));
        Self { parts: Arc::clone(parts), id: Arc::clone(&live.id) }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.parts.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// Drives a run to its end.
async fn drive(live: Arc<Live>, definition: Definition, scope: Scope, state: State, listed: Listed) -> Ran {
    let context = state.context.clone();
    let went = within_time(&live, &definition.steps, &scope, state).await;
    live.end();
    let (outcome, context) = match went {
        Ok(state) => match definition.gives.as_ref().map_or(Ok(()), |check| check.check(&state.value)) {
            Ok(()) => (Outcome::Completed(state.value), state.context),
            Err(wrong) => {
                let error = StepError::new(Fault::Output, format!("the pipeline's output does not fit: {wrong}"));
                let step = Arc::clone(&definition.name);
                (Outcome::Failed(RunError::Step { step, error }), state.context)
            }
        },
        Err(Stop::Paused(prompts)) => (Outcome::Paused(prompts), context),
        Err(Stop::Failed(failed)) => {
            let (step, error) = *failed;
            (Outcome::Failed(RunError::Step { step, error }), context)
        }
        Err(Stop::Cancelled) => (Outcome::Failed(RunError::Cancelled), context),
        Err(Stop::Broken(error)) => (Outcome::Failed(*error), context),
    };
    let outcome = close(&live, outcome).await;
    drop(listed);
    Ran {
        id: Arc::clone(&live.id),
        outcome,
        context,
        took: live.log.now(),
        usage: live.log.spent(),
        entries: live.log.entries(),
    }
}

/// Notes in the journal how it ended.
async fn close(live: &Live, outcome: Outcome) -> Outcome {
    let Some(journal) = &live.journal else { return outcome };
    let usage = live.log.spent();
    let noted = match &outcome {
        Outcome::Completed(value) => journal.end("completed", Ok(value), usage).await,
        Outcome::Paused(prompts) => journal.pause(prompts).await,
        Outcome::Failed(RunError::Cancelled) => journal.end("cancelled", Err(None), usage).await,
        // What broke is not the run: it can be taken up again.
        Outcome::Failed(RunError::Store(_) | RunError::Taken | RunError::Journal(_) | RunError::Answer(_)) => Ok(()),
        Outcome::Failed(error) => journal.end("failed", Err(Some(error)), usage).await,
    };
    match noted {
        Ok(()) => outcome,
        Err(error) => Outcome::Failed(error),
    }
}

async fn within_time(live: &Arc<Live>, steps: &Steps, scope: &Scope, state: State) -> Went {
    let work = run::steps(live, steps, scope, state);
    tokio::select! {
        biased;
        went = work => went,
        () = live.cancelled() => Err(Stop::Cancelled),
        () = passed(live.deadline) => Err(RunError::TimedOut.into()),
    }
}

async fn passed(deadline: Deadline) {
    match deadline.moment() {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Lets a step go its way as a run of its own; the one after it gets what it got.
pub(crate) fn in_background<'a>(
    live: &'a Arc<Live>,
    step: &'a Step,
    scope: &'a Scope,
    state: State,
) -> BoxFuture<'a, Went> {
    Box::pin(background(live, step, scope, state))
}

async fn background(live: &Arc<Live>, step: &Step, scope: &Scope, state: State) -> Went {
    let path = live.path(scope.place);
    let id: Arc<str> = format!("{}.{}", live.id, path.replace('/', ".")).into();
    let engine = Engine { parts: Arc::clone(&live.parts) };
    let definition = Definition { durable: live.journal.is_some(), ..Definition::aside_of(&live.pipeline, step) };
    let options = RunOptions { id: Some(Arc::clone(&id)), context: state.context.clone(), ..RunOptions::default() };
    match engine.begin(&definition, state.value.clone(), options).await {
        // It may have been begun before the run was taken up again.
        Err((_, RunError::Exists(_))) => {}
        Err((_, error)) => return Err(error.into()),
        Ok(run) => {
            tokio::spawn(run);
        }
    }
    Ok(State { moment: live.log.now(), ..state })
}
