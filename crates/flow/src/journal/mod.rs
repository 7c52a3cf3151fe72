//! Where a run keeps its place: what each step came to, on disk before the next begins.
//!
//! A run that is taken up again goes its way from the beginning, and each step that the journal knows gives what it gave
//! before. So there is no second way in which a run could go on, and nothing but steps' answers needs to be kept.

mod memory;
mod owner;
mod stored;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    budget::{Limits, Usage},
    error::{Fault, RunError, StepError},
    run::Prompt,
    value::{Map, Value},
};

pub use memory::MemoryRuns;
pub use owner::Owner;
pub use stored::StoredRuns;

/// The form of what is written here.
const FORM: u32 = 1;
/// Values whose JSON is longer are kept beside the run, by their hash.
const INLINE: usize = 64 << 10;
/// The name under which a hash stands in place of a value.
const BLOB: &str = "$blob";

/// What comes of asking where runs are kept.
pub type Reply<T> = BoxFuture<'static, Result<T, RunError>>;

/// Where runs are kept. What is acknowledged is there for good, and whoever appends to a run that others have appended
/// to meanwhile is told [`RunError::Taken`].
pub trait Runs: Send + Sync + 'static {
    /// Makes a run; [`RunError::Exists`] if there is one of that name.
    fn create(&self, id: &str, begun: Bytes) -> Reply<()>;

    /// Appends to a run that has `expected` lines.
    fn append(&self, id: &str, expected: u64, lines: Vec<Line>) -> Reply<()>;

    /// How a run began, and its lines.
    fn read(&self, id: &str) -> Reply<Option<(Bytes, Vec<Line>)>>;

    /// Runs, the latest first: how each began, how many lines it has, its last line, and the last by which it was taken
    /// up.
    fn list(&self, limit: u32, offset: u64) -> Reply<Listing>;

    /// Keeps bytes under the hash of them.
    fn keep(&self, hash: &str, bytes: Bytes) -> Reply<()>;

    /// What was kept under a hash.
    fn kept(&self, hash: &str) -> Reply<Option<Bytes>>;
}

/// Some runs of a list.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// The runs.
    pub runs: Vec<Glance>,
    /// How many there are in all.
    pub total: u64,
}

/// What a list tells of a run.
#[derive(Debug, Clone)]
pub struct Glance {
    /// Its name.
    pub id: Box<str>,
    /// How it began.
    pub begun: Bytes,
    /// When, in microseconds since 1970.
    pub time: i64,
    /// When its last line was written.
    pub last_time: i64,
    /// How many lines it has.
    pub lines: u64,
    /// Its last line.
    pub last: Option<Line>,
    /// The last line by which it was taken up.
    pub resumed: Option<Line>,
}

/// A line of a run's journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What sort: `step`, `paused`, `resumed`, `ended`.
    pub kind: Box<str>,
    /// What it says, as JSON.
    pub body: Bytes,
}

impl Line {
    fn new(kind: &str, body: &impl Serialize) -> Result<Self, RunError> {
        let body = serde_json::to_vec(body).map_err(|error| RunError::Journal(error.to_string().into()))?;
        Ok(Self { kind: kind.into(), body: body.into() })
    }

    fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, RunError> {
        read(&self.body)
    }
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, RunError> {
    serde_json::from_slice(body).map_err(|error| RunError::Journal(error.to_string().into()))
}

/// How a run began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Begun {
    /// The form of the journal.
    pub form: u32,
    /// Which pipeline.
    pub pipeline: Arc<str>,
    /// Everything that its answers depend on.
    pub version: String,
    /// What it was given.
    pub input: Value,
    /// What it knew.
    pub context: Map,
    /// What it may spend.
    #[serde(default)]
    pub limits: Limits,
    /// How long it may take each time it is taken up, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Which process runs it.
    pub owner: Owner,
}

/// A run was taken up by another process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resumed {
    /// Which process runs it now.
    pub owner: Owner,
}

/// How a run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ended {
    /// `completed`, `failed` or `cancelled`.
    pub status: Box<str>,
    /// What it gave.
    #[serde(default)]
    pub output: Value,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<Failure>,
    /// What it spent.
    #[serde(default)]
    pub usage: Usage,
}

/// A failure as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// Its code.
    pub code: Box<str>,
    /// Which step failed.
    #[serde(default)]
    pub step: Box<str>,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Failure {
    pub(crate) fn of(step: &str, error: &StepError) -> Self {
        let (message, hint) = (error.message.to_string(), error.hint.to_string());
        Self { code: error.fault.code().into(), step: step.into(), message, hint }
    }

    /// Of a whole run.
    pub(crate) fn of_run(error: &RunError) -> Self {
        use caudal_types::Explain;
        match error {
            RunError::Step { step, error } => Self::of(step, error),
            other => Self {
                code: other.kind().code().into(),
                step: "".into(),
                message: other.to_string(),
                hint: other.hint().into_owned(),
            },
        }
    }

    fn error(&self) -> StepError {
        let fault = Fault::of(&self.code).unwrap_or(Fault::Failed);
        StepError::new(fault, self.message.clone()).hint(self.hint.clone())
    }
}

/// What a step came to.
#[derive(Debug, Clone)]
pub struct Done {
    /// Its output or failure.
    pub answer: Result<Value, StepError>,
    /// What it spent.
    pub usage: Usage,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether it came from a cache.
    pub cached: bool,
    /// When it began, in microseconds since 1970.
    pub at: i64,
    /// How long it took.
    pub took: Duration,
}

#[derive(Serialize, Deserialize)]
struct StepLine {
    path: String,
    at: i64,
    took_us: u64,
    #[serde(default)]
    output: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<Failure>,
    #[serde(default)]
    usage: Usage,
    attempts: u32,
    #[serde(default)]
    cached: bool,
}

/// Who is asked what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Paused {
    /// The questions.
    pub prompts: Vec<Question>,
}

/// A question as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Question {
    /// Which step asks.
    pub path: Arc<str>,
    /// What.
    pub message: Value,
    /// What answers are taken.
    pub schema: Value,
}

impl From<&Prompt> for Question {
    fn from(prompt: &Prompt) -> Self {
        let Prompt { path, message, schema, .. } = prompt.clone();
        Self { path, message, schema }
    }
}

/// Everything that is known of a run.
#[derive(Debug, Clone)]
pub struct Story {
    /// How it began.
    pub begun: Begun,
    /// How it ended, if it did.
    pub ended: Option<Ended>,
    /// What it waits for, if it does.
    pub paused: Option<Paused>,
    /// Which process ran it last.
    pub owner: Owner,
    /// What its steps came to, by their paths.
    pub done: BTreeMap<String, Done>,
    /// The paths in the order in which steps ended.
    pub order: Vec<String>,
    /// How many lines its journal has.
    pub lines: u64,
}

impl Story {
    /// Reads a run.
    pub async fn read(runs: &dyn Runs, id: &str) -> Result<Self, RunError> {
        let (begun, lines) = runs.read(id).await?.ok_or_else(|| RunError::Unknown(id.into()))?;
        let mut begun: Begun = read(&begun)?;
        if begun.form != FORM {
            let message = format!("it has the form {}, and this version reads form {FORM}", begun.form);
            return Err(RunError::Journal(message.into()));
        }
        begun.input = fetch(runs, begun.input).await?;
        let mut story = Self {
            owner: begun.owner.clone(),
            begun,
            ended: None,
            paused: None,
            done: BTreeMap::new(),
            order: Vec::new(),
            lines: lines.len() as u64,
        };
        for line in &lines {
            story.take(runs, line).await?;
        }
        Ok(story)
    }

    /// `running`, `paused`, `interrupted`, or how it ended.
    pub fn status(&self) -> &'static str {
        match (&self.ended, &self.paused) {
            (Some(ended), _) => status(&ended.status),
            (None, Some(_)) => "paused",
            (None, None) if self.owner.may_live() => "running",
            (None, None) => "interrupted",
        }
    }

    async fn take(&mut self, runs: &dyn Runs, line: &Line) -> Result<(), RunError> {
        match &*line.kind {
            "step" => {
                let step: StepLine = line.read()?;
                let answer = match &step.error {
                    Some(failure) => Err(failure.error()),
                    None => Ok(fetch(runs, step.output).await?),
                };
                let (at, took) = (step.at, Duration::from_micros(step.took_us));
                let (usage, attempts, cached) = (step.usage, step.attempts, step.cached);
                let done = Done { answer, usage, attempts, cached, at, took };
                self.order.push(step.path.clone());
                self.done.insert(step.path, done);
            }
            "paused" => self.paused = Some(line.read()?),
            "resumed" => {
                self.owner = line.read::<Resumed>()?.owner;
                (self.paused, self.ended) = (None, None);
            }
            "ended" => {
                let mut ended: Ended = line.read()?;
                ended.output = fetch(runs, ended.output).await?;
                self.ended = Some(ended);
            }
            other => return Err(RunError::Journal(format!("a line of the sort {other}").into())),
        }
        Ok(())
    }
}

fn status(word: &str) -> &'static str {
    match word {
        "completed" => "completed",
        "cancelled" => "cancelled",
        _ => "failed",
    }
}

impl Glance {
    /// Which pipeline, and how far it is.
    pub fn status(&self) -> Result<(Arc<str>, &'static str), RunError> {
        let begun: Begun = read(&self.begun)?;
        let status = match &self.last {
            Some(line) if &*line.kind == "ended" => status(&line.read::<Ended>()?.status),
            Some(line) if &*line.kind == "paused" => "paused",
            _ => {
                let owner = match &self.resumed {
                    Some(line) => line.read::<Resumed>()?.owner,
                    None => begun.owner,
                };
                if owner.may_live() { "running" } else { "interrupted" }
            }
        };
        Ok((begun.pipeline, status))
    }
}

/// Keeps a value that is too large for a line beside it.
async fn shelve(runs: &dyn Runs, value: &Value) -> Result<Value, RunError> {
    let plain = value.plain().map_err(|error| RunError::Journal(error.to_string().into()))?;
    // What looks like a hash in place of a value is kept beside the run, however short: else it would be taken for one.
    let alike = plain.get(BLOB).is_some();
    if plain.size() < INLINE / 2 && !alike {
        return Ok(plain);
    }
    let json = plain.to_json();
    if json.len() <= INLINE && !alike {
        return Ok(plain);
    }
    let hash: String = Sha256::digest(&json).iter().map(|byte| format!("{byte:02x}")).collect();
    runs.keep(&hash, json.into()).await?;
    Ok(Value::Map([(BLOB, Value::from(hash))].into_iter().collect()))
}

/// The value that a hash stands for.
async fn fetch(runs: &dyn Runs, value: Value) -> Result<Value, RunError> {
    let hash = match &value {
        Value::Map(map) if map.len() == 1 => map.get(BLOB).and_then(Value::as_text),
        _ => None,
    };
    let Some(hash) = hash else { return Ok(value) };
    let missing = || RunError::Journal(format!("the value {hash} is missing").into());
    read(&runs.kept(hash).await?.ok_or_else(missing)?)
}

struct Tail {
    pending: Vec<Line>,
    /// How many were ever handed in.
    tickets: u64,
}

/// The journal of a run that goes on.
pub(crate) struct Journal {
    runs: Arc<dyn Runs>,
    id: Arc<str>,
    known: BTreeMap<String, Done>,
    answers: HashMap<Arc<str>, Value>,
    /// Whether nothing new is done: what is not known is a failure.
    replays: bool,
    tail: Mutex<Tail>,
    /// How many lines the run has; who holds this writes, for all who wait.
    head: tokio::sync::Mutex<Head>,
}

struct Head {
    lines: u64,
    /// Up to which ticket it is written.
    written: u64,
}

impl Journal {
    fn of(runs: Arc<dyn Runs>, id: Arc<str>, known: BTreeMap<String, Done>, lines: u64) -> Self {
        Self {
            runs,
            id,
            known,
            answers: HashMap::new(),
            replays: false,
            tail: Mutex::new(Tail { pending: Vec::new(), tickets: 0 }),
            head: tokio::sync::Mutex::new(Head { lines, written: 0 }),
        }
    }

    /// Begins a run.
    pub(crate) async fn begin(runs: Arc<dyn Runs>, id: Arc<str>, mut begun: Begun) -> Result<Self, RunError> {
        begun.input = shelve(&*runs, &begun.input).await?;
        let body = serde_json::to_vec(&begun).map_err(|error| RunError::Journal(error.to_string().into()))?;
        runs.create(&id, body.into()).await?;
        Ok(Self::of(runs, id, BTreeMap::new(), 0))
    }

    /// Takes a run up: from here on, whoever ran it before is refused.
    pub(crate) async fn resume(
        runs: Arc<dyn Runs>,
        id: Arc<str>,
        story: &Story,
        owner: Owner,
        answers: HashMap<Arc<str>, Value>,
    ) -> Result<Self, RunError> {
        let line = Line::new("resumed", &Resumed { owner })?;
        runs.append(&id, story.lines, vec![line]).await?;
        let mut known = story.done.clone();
        if story.ended.is_some() {
            // It failed; what failed is what is to be tried again.
            known.retain(|_, done| done.answer.is_ok());
        }
        Ok(Self { answers, ..Self::of(runs, id, known, story.lines + 1) })
    }

    /// Goes through a run again without doing anything.
    pub(crate) fn replay(runs: Arc<dyn Runs>, id: Arc<str>, story: &Story) -> Self {
        Self { replays: true, ..Self::of(runs, id, story.done.clone(), story.lines) }
    }

    pub(crate) fn replays(&self) -> bool {
        self.replays
    }

    /// What a step came to before.
    pub(crate) fn recall(&self, path: &str) -> Option<Done> {
        self.known.get(path).cloned()
    }

    /// Whether any step within `path` came to something before.
    pub(crate) fn knows_within(&self, path: &str) -> bool {
        let within = format!("{path}/");
        self.known.range(within.clone()..).next().is_some_and(|(path, _)| path.starts_with(&within))
    }

    /// What somebody answered.
    pub(crate) fn answer(&self, path: &str) -> Option<Value> {
        self.answers.get(path).cloned()
    }

    /// Keeps what a step came to; comes when it is kept.
    pub(crate) async fn commit(&self, path: &str, done: Done) -> Result<(), RunError> {
        let (output, error) = match done.answer {
            Ok(value) => (shelve(&*self.runs, &value).await?, None),
            Err(error) => (Value::Null, Some(Failure::of(path, &error))),
        };
        let Done { usage, attempts, cached, at, took, .. } = done;
        let (path, took_us) = (path.to_owned(), took.as_micros() as u64);
        self.write(Line::new("step", &StepLine { path, at, took_us, output, error, usage, attempts, cached })?).await
    }

    /// The run waits for somebody.
    pub(crate) async fn pause(&self, prompts: &[Prompt]) -> Result<(), RunError> {
        let prompts = prompts.iter().map(Question::from).collect();
        self.write(Line::new("paused", &Paused { prompts })?).await
    }

    /// The run is over.
    pub(crate) async fn end(
        &self,
        status: &str,
        ended: Result<&Value, Option<&RunError>>,
        usage: Usage,
    ) -> Result<(), RunError> {
        let (output, error) = match ended {
            Ok(value) => (shelve(&*self.runs, value).await?, None),
            Err(error) => (Value::Null, error.map(Failure::of_run)),
        };
        self.write(Line::new("ended", &Ended { status: status.into(), output, error, usage })?).await
    }

    /// Writes a line, and with it those of all who wait: branches share a flush of the disk.
    async fn write(&self, line: Line) -> Result<(), RunError> {
        if self.replays {
            return Ok(());
        }
        let ticket = {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            tail.pending.push(line);
            tail.tickets += 1;
            tail.tickets
        };
        let mut head = self.head.lock().await;
        if head.written >= ticket {
            return Ok(());
        }
        let (lines, tickets) = {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut tail.pending), tail.tickets)
        };
        let count = lines.len() as u64;
        self.runs.append(&self.id, head.lines, lines).await?;
        (head.lines, head.written) = (head.lines + count, tickets);
        Ok(())
    }
}
