//! What is known of a run, read from its journal.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use super::{
    Begun, Done, Ended, FORM, Glance, Line, Owner, Paused, Resumed, Runs,
    lines::{MAX_RECOVERIES, StepLine, read, recoveries},
    values::fetch,
};
use crate::{budget::Usage, error::RunError, value::Value};

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
    /// Whether that is there, where the run neither ended nor waits.
    pub attended: bool,
    /// What its steps came to, by their paths.
    pub done: BTreeMap<String, Done>,
    /// The paths in the order in which steps ended.
    pub order: Vec<String>,
    /// What people answered since it waited last.
    pub answers: HashMap<Arc<str>, Value>,
    /// What was spent by steps that failed and were tried again when it was taken up.
    pub in_vain: Usage,
    /// How often it was recovered since a step was done.
    pub recoveries: u32,
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
            attended: false,
            ended: None,
            paused: None,
            done: BTreeMap::new(),
            order: Vec::new(),
            answers: HashMap::new(),
            in_vain: Usage::NONE,
            recoveries: recoveries(lines.iter().rev()),
            lines: lines.len() as u64,
        };
        for line in &lines {
            story.take(runs, line).await?;
        }
        let goes_on = story.ended.is_none() && story.paused.is_none();
        story.attended = goes_on && runs.attended(story.owner.name).await?;
        Ok(story)
    }

    /// `running`, `paused`, `interrupted`, or how it ended.
    pub fn status(&self) -> &'static str {
        match (&self.ended, &self.paused) {
            (Some(ended), _) => status(&ended.status),
            (None, Some(_)) => "paused",
            (None, None) if self.attended => "running",
            (None, None) => "interrupted",
        }
    }

    /// Whether it was recovered so often without a step done that it waits for a caller to resume it.
    pub fn is_given_up(&self) -> bool {
        self.status() == "interrupted" && self.recoveries >= MAX_RECOVERIES
    }

    /// It goes on. If it failed, what failed is tried again, though it be left once more before that.
    pub(super) fn taken_up(&mut self) {
        self.paused = None;
        let Some(ended) = self.ended.take() else { return };
        let fatal = |path: &str| match &ended.fatal {
            Some(fatal) => fatal.iter().any(|fatal| is_or_tries(path, fatal)),
            None => true,
        };
        self.done.retain(|path, done| {
            let failed = done.answer.is_err() && fatal(path);
            self.in_vain += if failed { done.usage } else { Usage::NONE };
            !failed
        });
        self.order.retain(|path| self.done.contains_key(path));
    }

    async fn take(&mut self, runs: &dyn Runs, line: &Line) -> Result<(), RunError> {
        match &*line.kind {
            "step" => {
                let step: StepLine = line.read()?;
                let answer = match &step.error {
                    Some(failure) => Err(failure.error(step.again)),
                    None => Ok(fetch(runs, step.output).await?),
                };
                let (at, took) = (step.at, Duration::from_micros(step.took_us));
                let (usage, attempts, cached) = (step.usage, step.attempts, step.cached);
                let done = Done { answer, usage, attempts, cached, at, took };
                self.order.push(step.path.clone());
                self.done.insert(step.path, done);
            }
            "paused" => {
                let paused: Paused = line.read()?;
                if !paused.prompts.is_empty() {
                    // What was answered before is kept by its steps, or was refused.
                    self.answers.clear();
                }
                self.paused = Some(paused);
            }
            "left" => {}
            "resumed" => {
                self.taken_up();
                let Resumed { owner, answers, .. } = line.read()?;
                self.owner = owner;
                for (path, answer) in answers {
                    self.answers.insert(path, fetch(runs, answer).await?);
                }
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

/// Whether `path` is that of `step`, or of one of its tries.
fn is_or_tries(path: &str, step: &str) -> bool {
    path.strip_prefix(step).is_some_and(|rest| rest.is_empty() || rest.starts_with("/try "))
}

fn status(word: &str) -> &'static str {
    match word {
        "completed" => "completed",
        "cancelled" => "cancelled",
        _ => "failed",
    }
}

impl Glance {
    /// Which process ran it last.
    pub fn owner(&self) -> Result<Owner, RunError> {
        Ok(match &self.resumed {
            Some(line) => line.read::<Resumed>()?.owner,
            None => read::<Begun>(&self.begun)?.owner,
        })
    }

    /// Which pipeline, and how far it is.
    pub(crate) async fn status(&self, runs: &dyn Runs) -> Result<(Arc<str>, &'static str), RunError> {
        let begun: Begun = read(&self.begun)?;
        let status = match &self.last {
            Some(line) if &*line.kind == "ended" => status(&line.read::<Ended>()?.status),
            Some(line) if &*line.kind == "paused" => "paused",
            _ => {
                let owner = match &self.resumed {
                    Some(line) => line.read::<Resumed>()?.owner,
                    None => begun.owner,
                };
                if runs.attended(owner.name).await? { "running" } else { "interrupted" }
            }
        };
        Ok((begun.pipeline, status))
    }
}
