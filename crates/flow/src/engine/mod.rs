//! What runs pipelines: the cache they share, where their runs are kept, and what holds for all.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicU64},
    time::{Duration, Instant},
};

use caudal_types::Deadline;
use futures_util::FutureExt;
use tokio::sync::OnceCell;
use uuid::{ContextV7, Timestamp, Uuid};

use crate::{
    budget::{Allowance, Limits, Quota, Usage},
    cache::StepCache,
    error::{RunError, StepError},
    journal::{Begun, FORM, Glance, Journal, MemoryRuns, Owner, Runs, Story},
    live::Live,
    log::Place,
    run::{PROMPT, Scope, State},
    step::Definition,
    value::{Map, Value},
};

mod drive;
mod ran;

pub(crate) use drive::in_background;
pub use ran::{Handle, Outcome, Ran, Run};

use drive::{Listed, drive};

/// How often it is looked, and how many times, whether a run that was broken off has come to its end.
const LOOK: Duration = Duration::from_millis(2);
const LOOKS: u32 = 1_000;
/// The longest name of a run.
const LONGEST_ID: usize = 200;

/// Runs by their names, each with its number.
type Going = HashMap<Arc<str>, (u64, Weak<Live>)>;

/// What all runs share.
pub(crate) struct Parts {
    pub(crate) cache: StepCache,
    pub(crate) most_steps: usize,
    runs: Arc<dyn Runs>,
    durable: bool,
    owner: Owner,
    /// Whether it is known where runs are kept that this owner is there.
    attends: OnceCell<()>,
    /// The runs of this process that go on.
    live: Mutex<Going>,
    /// Tells apart what stands there one after the other under one name.
    numbers: AtomicU64,
}

impl Parts {
    fn going(&self) -> MutexGuard<'_, Going> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// The pipeline's file, so that the run can be resumed from it.
    pub source: Option<Arc<str>>,
}

/// Whose a run is.
struct Whose {
    /// Whether it is found by its name while it goes on. A kept one always is.
    listed: bool,
    /// What it may spend within.
    around: Option<Arc<Quota>>,
}

/// Whether a run may be called that: its name stands in a URL as it is (RFC 3986, `pchar`), and a client that follows it
/// comes to the run.
fn is_name(id: &str) -> bool {
    let sign = |byte: u8| b"-_.:~@+!$&'()*,;=".contains(&byte);
    id.bytes().all(|byte| byte.is_ascii_alphanumeric() || sign(byte)) && !matches!(id, "." | "..")
}

/// What all runs of a pipeline may spend.
fn around(definition: &Definition) -> Option<Arc<Quota>> {
    definition.all_runs.as_deref().map(Allowance::quota)
}

/// A name for a run: in the order of time, and made without asking other threads.
fn name() -> Arc<str> {
    thread_local! {
        static CONTEXT: ContextV7 = const { ContextV7::new() };
    }
    let id = CONTEXT.with(|context| Uuid::new_v7(Timestamp::now(context)));
    id.hyphenated().encode_lower(&mut Uuid::encode_buffer())[..].into()
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
            owner: Owner::new(),
            attends: OnceCell::new(),
            live: Mutex::default(),
            numbers: AtomicU64::new(0),
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

    /// The run of that name, if it goes on in this process.
    pub fn live(&self, id: &str) -> Option<Handle> {
        let going = self.parts.going();
        going.get(id).and_then(|(_, live)| live.upgrade()).map(Handle::new)
    }

    /// What is known of a run. One of this process that does not go on was left: where its end was to be kept, nothing could.
    pub async fn story(&self, id: &str) -> Result<Story, RunError> {
        let mut story = Story::read(&*self.parts.runs, id).await?;
        story.attended &= !self.is_ours_and_rests(id, &story.owner);
        Ok(story)
    }

    /// How a run of a list is: see [`Self::story`].
    pub async fn status(&self, run: &Glance) -> Result<(Arc<str>, &'static str), RunError> {
        let (pipeline, status) = run.status(&*self.parts.runs).await?;
        let left = status == "running" && self.is_ours_and_rests(&run.id, &run.owner()?);
        Ok((pipeline, if left { "interrupted" } else { status }))
    }

    fn is_ours_and_rests(&self, id: &str, owner: &Owner) -> bool {
        *owner == self.parts.owner && !self.parts.going().contains_key(id)
    }

    /// Whether a run of that pipeline would be kept.
    pub fn keeps(&self, definition: &Definition, options: &RunOptions) -> bool {
        definition.asks || (options.durable.unwrap_or(definition.durable) && self.parts.durable)
    }

    /// Runs a pipeline: begins a run and waits for it.
    pub async fn run(&self, definition: &Definition, input: Value, options: RunOptions) -> Ran {
        // Of a run without a name nobody can ask before it is over.
        let whose = Whose { listed: options.id.is_some(), around: around(definition) };
        match self.begin_as(whose, definition, input, options).await {
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
        self.begin_as(Whose { listed: true, around: around(definition) }, definition, input, options).await
    }

    async fn begin_as(
        &self,
        whose: Whose,
        definition: &Definition,
        input: Value,
        options: RunOptions,
    ) -> Result<Run, (Arc<str>, RunError)> {
        let id = options.id.clone().unwrap_or_else(name);
        match self.prepare(Arc::clone(&id), whose, definition, input, options).await {
            Ok(run) => Ok(run),
            Err(error) => Err((id, error)),
        }
    }

    async fn prepare(
        &self,
        id: Arc<str>,
        whose: Whose,
        definition: &Definition,
        input: Value,
        options: RunOptions,
    ) -> Result<Run, RunError> {
        if id.is_empty() || id.len() > LONGEST_ID || !is_name(&id) {
            let message = "a run's name has 1 to 200 letters, digits and signs of these: - _ . : ~ @ + ! $ & ' ( ) * , ; =, \
                           and is neither . nor ..";
            return Err(RunError::Answer(message.into()));
        }
        if let Some(check) = &definition.takes {
            check.check(&input).map_err(|wrong| Self::misfit(definition, "input", &wrong))?;
        }
        let given = [("input", &input)].into_iter().chain(options.context.iter().map(|(_, value)| ("context", value)));
        for (what, value) in given {
            value.check_bounds().map_err(|deep| Self::misfit(definition, what, &deep.to_string()))?;
        }
        let limits = definition.limits.tightest(options.limits);
        let (keeps, Whose { listed, around }) = (self.keeps(definition, &options), whose);
        let listed = match listed || keeps {
            true => Some(Listed::claim(&self.parts, &id, false).ok_or_else(|| RunError::Exists(Box::from(&*id)))?),
            false => None,
        };
        let journal = if keeps {
            let begun = Begun {
                form: FORM,
                pipeline: Arc::clone(&definition.name),
                version: definition.version(),
                input: input.clone(),
                context: options.context.clone(),
                limits,
                timeout_ms: options.timeout.map(|timeout| timeout.as_millis() as u64),
                source: options.source,
                owner: self.owner().await?,
            };
            Some(Journal::begin(Arc::clone(&self.parts.runs), Arc::clone(&id), begun).await?)
        } else {
            None
        };
        Ok(self.launch(id, definition, input, options.context, limits, listed, around, options.timeout, journal))
    }

    /// This owner, of whom others know that it is there.
    async fn owner(&self) -> Result<Owner, RunError> {
        let parts = &self.parts;
        parts.attends.get_or_try_init(|| parts.runs.attend(parts.owner.name)).await?;
        Ok(parts.owner.clone())
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
        listed: Option<Listed>,
        around: Option<Arc<Quota>>,
        timeout: Option<Duration>,
        journal: Option<Journal>,
    ) -> Run {
        let start = Instant::now();
        let timeout = [timeout, definition.timeout].into_iter().flatten().min();
        let deadline = timeout.map_or(Deadline::NEVER, |timeout| Deadline::after(start, timeout));
        let quota = (around.is_some() || !limits.none()).then(|| Quota::new(limits, around));
        let live = Live::new(id, definition, start, deadline, Arc::clone(&self.parts), journal);
        let live = Arc::new(live);
        if let Some(listed) = &listed {
            listed.is(&live);
        }
        let in_vain = live.journal.as_ref().map_or(Usage::NONE, Journal::in_vain);
        if in_vain != Usage::NONE {
            live.log.spend(Place::RUN, in_vain);
            quota.iter().for_each(|quota| quota.recall(in_vain));
        }
        let scope = Scope { place: Place::RUN, quota, deadline, within: None };
        let context = match definition.knows_input {
            true => context.with(PROMPT, input.clone()),
            false => context,
        };
        let state = State { value: input, context, moment: Duration::ZERO, turn: 0, rested: 0 };
        let work = drive(Arc::clone(&live), definition.steps.clone(), definition.gives.clone(), scope, state, listed);
        Run::new(live, work.boxed())
    }

    /// Takes a run up where it was left: after a pause, a crash or a failure. Steps that are kept are not run again.
    ///
    /// `answers` are what people say to the steps that ask, by their paths; of a run that one step alone asks in, the
    /// path may be empty. `force` takes a run from a process that is there and does nothing.
    pub async fn resume(
        &self,
        definition: &Definition,
        id: &str,
        answers: HashMap<Arc<str>, Value>,
        force: bool,
    ) -> Result<Run, RunError> {
        self.resume_as(definition, id, answers, force, false).await
    }

    /// Recovers a run whose process has ended, without a request. The attempt is recorded before the run continues: after
    /// [`MAX_RECOVERIES`](crate::journal::MAX_RECOVERIES) of these without a step done it is left where it is.
    pub async fn recover(&self, definition: &Definition, id: &str) -> Result<Run, RunError> {
        self.resume_as(definition, id, HashMap::new(), false, true).await
    }

    async fn resume_as(
        &self,
        definition: &Definition,
        id: &str,
        answers: HashMap<Arc<str>, Value>,
        force: bool,
        recovered: bool,
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
            None if story.owner != self.parts.owner && story.attended && !force => return Err(RunError::Taken),
            None if recovered && story.is_given_up() => return Err(RunError::GivenUp(story.recoveries)),
            None => {}
        }
        let name: Arc<str> = id.into();
        // Of a run that is over or waits, another may stand here a moment longer: the journal tells who is too late.
        let rests = story.ended.is_some() || story.paused.is_some();
        let listed = Listed::claim(&self.parts, &name, rests).ok_or(RunError::Taken)?;
        let answers = addressed(&story, answers)?;
        let (context, limits) = (story.begun.context.clone(), story.begun.limits);
        let input = story.begun.input.clone();
        let timeout = story.begun.timeout_ms.map(Duration::from_millis);
        let runs = Arc::clone(&self.parts.runs);
        let journal = Journal::resume(runs, Arc::clone(&name), &story, self.owner().await?, answers, recovered).await?;
        let around = around(definition);
        Ok(self.launch(name, definition, input, context, limits, Some(listed), around, timeout, Some(journal)))
    }

    /// Leaves all runs where they are, because the process ends. Those that are kept are recovered by the next process, and
    /// that they were left does not count as an attempt that failed. It takes two seconds at most.
    pub async fn leave_runs(&self) {
        let going: Vec<Arc<Live>> = self.parts.going().values().filter_map(|(_, live)| live.upgrade()).collect();
        going.iter().for_each(|live| live.leave());
        drop(going);
        for _ in 0..LOOKS {
            if self.parts.going().is_empty() {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether a run that was broken off has come to its end, within a while.
    async fn rests_soon(&self, id: &str) -> bool {
        for _ in 0..LOOKS {
            if !self.parts.going().contains_key(id) {
                return true;
            }
            tokio::time::sleep(LOOK).await;
        }
        false
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
        Ok(self.launch(name, definition, input, context, Limits::default(), None, None, None, Some(journal)).await)
    }

    /// Marks a run as cancelled: one that goes on here is broken off, one that waits or was left never goes on.
    pub async fn cancel(&self, id: &str) -> Result<(), RunError> {
        let live = self.live(id);
        if let Some(handle) = &live {
            handle.cancel();
            // It may have been about to end or to wait for somebody; what it came to is known when that is kept.
            if !handle.is_kept() || !self.rests_soon(id).await {
                return Ok(());
            }
        }
        let story = Story::read(&*self.parts.runs, id).await?;
        match &story.ended {
            Some(ended) if live.is_some() && &*ended.status == "cancelled" => return Ok(()),
            Some(_) => return Err(RunError::State("over already")),
            None => {}
        }
        if story.paused.is_none() && story.owner != self.parts.owner && story.attended {
            return Err(RunError::Taken);
        }
        let (runs, owner) = (Arc::clone(&self.parts.runs), self.owner().await?);
        let journal = Journal::resume(runs, id.into(), &story, owner, HashMap::new(), false).await?;
        journal.end("cancelled", Err(None), Usage::NONE, None).await
    }
}

/// The answers by the paths of those who ask. An answer to a run that asks nothing is a conflict with its state: another
/// answer was quicker.
fn addressed(story: &Story, mut answers: HashMap<Arc<str>, Value>) -> Result<HashMap<Arc<str>, Value>, RunError> {
    let Some(paused) = story.paused.as_ref().filter(|paused| !paused.prompts.is_empty()) else {
        return match answers.is_empty() {
            true => Ok(answers),
            false => Err(RunError::State("not asking a question now")),
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
