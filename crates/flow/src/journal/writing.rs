//! The journal of a run that goes on: what it knows from before, and what is written as it goes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    Begun, Done, Ended, Failure, Line, Owner, Paused, Question, Reply, Resumed, Runs, Story, lines::StepLine,
    values::shelve,
};
use crate::{budget::Usage, error::RunError, run::Prompt, value::Value};

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
    /// What was spent before by steps that are tried again.
    in_vain: Usage,
    /// Whether nothing new is done: what is not known is a failure.
    replays: bool,
    /// Whether the run went on before.
    resumed: bool,
    tail: Mutex<Tail>,
    /// How many lines the run has; who holds this writes, for all who wait.
    head: tokio::sync::Mutex<Head>,
}

struct Head {
    lines: u64,
    /// Up to which ticket it is written.
    written: u64,
    /// What is being written. Who waits for it may be broken off in the middle; whoever comes next sees it through, for
    /// only then is it known how many lines there are.
    flight: Option<Flight>,
    /// Why nothing more is written: who waits cannot know whether its line was among those that were lost.
    lost: Option<RunError>,
}

struct Flight {
    reply: Reply<()>,
    lines: u64,
    tickets: u64,
}

impl Head {
    /// Waits for what is being written.
    async fn land(&mut self) -> Result<(), RunError> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let Some(flight) = &mut self.flight else { return Ok(()) };
        let landed = (&mut flight.reply).await;
        let (lines, tickets) = (flight.lines, flight.tickets);
        self.flight = None;
        if let Err(error) = landed {
            self.lost = Some(error.clone());
            return Err(error);
        }
        (self.lines, self.written) = (self.lines + lines, tickets);
        Ok(())
    }
}

impl Journal {
    fn of(runs: Arc<dyn Runs>, id: Arc<str>, known: BTreeMap<String, Done>, lines: u64) -> Self {
        Self {
            runs,
            id,
            known,
            answers: HashMap::new(),
            in_vain: Usage::NONE,
            replays: false,
            resumed: false,
            tail: Mutex::new(Tail { pending: Vec::new(), tickets: 0 }),
            head: tokio::sync::Mutex::new(Head { lines, written: 0, flight: None, lost: None }),
        }
    }

    /// Begins a run.
    pub(crate) async fn begin(runs: Arc<dyn Runs>, id: Arc<str>, mut begun: Begun) -> Result<Self, RunError> {
        begun.input = shelve(&*runs, &begun.input).await?;
        let body = serde_json::to_vec(&begun).map_err(|error| RunError::Journal(error.to_string().into()))?;
        runs.create(&id, body.into()).await?;
        Ok(Self::of(runs, id, BTreeMap::new(), 0))
    }

    /// Takes a run up: from here on, whoever ran it before is refused, and what was answered is kept.
    pub(crate) async fn resume(
        runs: Arc<dyn Runs>,
        id: Arc<str>,
        story: &Story,
        owner: Owner,
        answers: HashMap<Arc<str>, Value>,
        recovered: bool,
    ) -> Result<Self, RunError> {
        let mut kept = HashMap::with_capacity(answers.len());
        for (path, answer) in &answers {
            kept.insert(Arc::clone(path), shelve(&*runs, answer).await?);
        }
        let line = Line::new("resumed", &Resumed { owner, answers: kept, recovered })?;
        runs.append(&id, story.lines, vec![line]).await?;
        let mut story = story.clone();
        story.taken_up();
        let answers = story.answers.into_iter().chain(answers).collect();
        let in_vain = story.in_vain;
        Ok(Self { answers, in_vain, resumed: true, ..Self::of(runs, id, story.done, story.lines + 1) })
    }

    /// Goes through a run again without doing anything.
    pub(crate) fn replay(runs: Arc<dyn Runs>, id: Arc<str>, story: &Story) -> Self {
        Self { replays: true, in_vain: story.in_vain, ..Self::of(runs, id, story.done.clone(), story.lines) }
    }

    /// Whether the run went on before.
    pub(crate) fn is_resumed(&self) -> bool {
        self.resumed
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

    /// What was spent before right within `path`, by those that `counts` says.
    pub(crate) fn spent_within(&self, path: &str, counts: impl Fn(&str) -> bool) -> Usage {
        let within = format!("{path}/");
        let known =
            self.known.range(within.clone()..).map_while(|(path, done)| Some((path.strip_prefix(&within)?, done)));
        let counted = known.filter(|(rest, _)| rest.split('/').next().is_some_and(&counts));
        counted.fold(Usage::NONE, |all, (_, done)| all + done.usage)
    }

    /// What was spent before by steps that are tried again.
    pub(crate) fn in_vain(&self) -> Usage {
        self.in_vain
    }

    /// What somebody answered.
    pub(crate) fn answer(&self, path: &str) -> Option<Value> {
        self.answers.get(path).cloned()
    }

    /// Keeps what a step came to; comes when it is kept.
    pub(crate) async fn commit(&self, path: &str, done: Done) -> Result<(), RunError> {
        let again = done.answer.as_ref().err().map(|error| error.again);
        let (output, error) = match done.answer {
            Ok(value) => (shelve(&*self.runs, &value).await?, None),
            Err(error) => (Value::Null, Some(Failure::of(path, &error))),
        };
        let Done { usage, attempts, cached, at, took, .. } = done;
        let (path, took_us) = (path.to_owned(), took.as_micros() as u64);
        let step = StepLine { path, at, took_us, output, error, again, usage, attempts, cached };
        self.write(Line::new("step", &step)?).await
    }

    /// The run waits for somebody.
    pub(crate) async fn pause(&self, prompts: &[Prompt]) -> Result<(), RunError> {
        let prompts = prompts.iter().map(Question::from).collect();
        self.write(Line::new("paused", &Paused { prompts })?).await
    }

    /// The process ends, and the run is left to the next one. What follows this line is no attempt that failed.
    pub(crate) async fn leave(&self) -> Result<(), RunError> {
        self.write(Line::new("left", &serde_json::json!({}))?).await
    }

    /// The run is over.
    pub(crate) async fn end(
        &self,
        status: &str,
        ended: Result<&Value, Option<&RunError>>,
        usage: Usage,
        fatal: Option<Vec<String>>,
    ) -> Result<(), RunError> {
        let (output, error) = match ended {
            Ok(value) => (shelve(&*self.runs, value).await?, None),
            Err(error) => (Value::Null, error.map(Failure::of_run)),
        };
        self.write(Line::new("ended", &Ended { status: status.into(), output, error, usage, fatal })?).await
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
        let landed = head.land().await;
        if head.written >= ticket {
            return Ok(());
        }
        landed?;
        let (lines, tickets) = {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            (std::mem::take(&mut tail.pending), tail.tickets)
        };
        let count = lines.len() as u64;
        let reply = self.runs.append(&self.id, head.lines, lines);
        head.flight = Some(Flight { reply, lines: count, tickets });
        head.land().await
    }
}
