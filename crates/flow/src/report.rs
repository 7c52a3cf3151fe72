//! What is told of a run: the same whether it has just ended, waits, or was read from its journal.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    budget::Usage,
    engine::{Outcome, Ran},
    error::RunError,
    journal::{Done, Failure, Question, Story},
    log::{Entry, Label, Place, Status, path},
    value::Value,
};

/// What is told of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its name.
    pub run_id: Arc<str>,
    /// Which pipeline.
    pub pipeline: Arc<str>,
    /// `running`, `paused`, `completed`, `failed`, `cancelled`, or `interrupted`: whoever ran it is gone.
    pub status: &'static str,
    /// What it gave.
    pub output: Value,
    /// Why it failed; of one that is interrupted, why it is not recovered any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// What it asks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<Question>,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// What it spent.
    pub usage: Spent,
    /// Its steps, in the order in which they began.
    pub steps: Vec<StepReport>,
    /// The steps that it waited for, one after the other: had any been quicker, so had the run.
    pub critical_path: Vec<String>,
}

/// What was spent.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Spent {
    /// Tokens that were read.
    pub tokens_in: u64,
    /// Tokens that were written.
    pub tokens_out: u64,
    /// US dollars.
    pub cost_usd: f64,
}

impl From<Usage> for Spent {
    fn from(usage: Usage) -> Self {
        Self { tokens_in: usage.tokens_in, tokens_out: usage.tokens_out, cost_usd: usage.dollars() }
    }
}

/// What is told of a step.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// Its name within the run.
    pub path: String,
    /// Its name.
    pub name: String,
    /// What sort of step it is.
    pub kind: &'static str,
    /// How far it is.
    pub status: Status,
    /// What it gave.
    pub output: Value,
    /// When it began, from the run's start, in milliseconds.
    pub began_ms: f64,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// How often it was tried.
    pub attempts: u32,
    /// Whether its answer was remembered.
    pub cache_hit: bool,
    /// Whether it was done before the run was taken up again.
    pub recalled: bool,
    /// What it spent.
    pub usage: Spent,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The number of its latest change; 0 where its journal alone is known.
    #[serde(skip)]
    pub changed: u64,
}

fn ms(time: std::time::Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

impl StepReport {
    /// What is told of the entry at `place`.
    pub fn of(entries: &[Entry], place: usize) -> Option<Self> {
        let entry = entries.get(place)?;
        let path = path(entries, Place::at(place));
        let error = entry.error.as_ref().map(|error| Failure::of(&path, error));
        Some(Self {
            name: match &entry.label {
                Label::Name(name) => name.to_string(),
                Label::Number(number) => number.to_string(),
            },
            kind: entry.kind,
            status: entry.status,
            output: entry.output.clone(),
            began_ms: ms(entry.began),
            duration_ms: ms(entry.ended.saturating_sub(entry.began)),
            attempts: entry.attempts,
            cache_hit: entry.cached,
            recalled: entry.recalled,
            usage: entry.usage.into(),
            error,
            changed: entry.changed,
            path,
        })
    }

    /// What a journal tells of a leaf.
    fn done(path: &str, done: &Done, began_ms: f64) -> Self {
        let error = done.answer.as_ref().err().map(|error| Failure::of(path, error));
        Self {
            path: path.to_owned(),
            name: last_of(path),
            kind: "step",
            status: if error.is_some() { Status::Failed } else { Status::Completed },
            output: done.answer.clone().unwrap_or_default(),
            began_ms,
            duration_ms: ms(done.took),
            attempts: done.attempts,
            cache_hit: done.cached,
            recalled: false,
            usage: done.usage.into(),
            error,
            changed: 0,
        }
    }

    /// What it tells of a step that waits for an answer.
    fn waiting(path: &str, began_ms: f64) -> Self {
        Self {
            path: path.to_owned(),
            name: last_of(path),
            kind: "hitl",
            status: Status::Paused,
            output: Value::Null,
            began_ms,
            duration_ms: 0.0,
            attempts: 1,
            cache_hit: false,
            recalled: false,
            usage: Usage::NONE.into(),
            error: None,
            changed: 0,
        }
    }
}

fn last_of(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

impl Report {
    /// Of a run that has just come to its end, for now or for good.
    pub fn of(pipeline: &Arc<str>, ran: &Ran) -> Self {
        let (status, output, error, prompts) = match &ran.outcome {
            Outcome::Completed(value) => ("completed", value.clone(), None, Vec::new()),
            Outcome::Paused(prompts) => ("paused", Value::Null, None, prompts.iter().map(Question::from).collect()),
            Outcome::Failed(RunError::Cancelled) => ("cancelled", Value::Null, None, Vec::new()),
            Outcome::Failed(error) => ("failed", Value::Null, Some(Failure::of_run(error)), Vec::new()),
        };
        Self {
            run_id: Arc::clone(&ran.id),
            pipeline: Arc::clone(pipeline),
            status,
            output,
            error,
            prompts,
            duration_ms: ms(ran.took),
            usage: ran.usage.into(),
            steps: (0..ran.entries.len()).filter_map(|place| StepReport::of(&ran.entries, place)).collect(),
            critical_path: critical(&ran.entries).into_iter().map(|place| path(&ran.entries, place)).collect(),
        }
    }

    /// Of a run that goes on, from its log so far.
    pub fn live(id: &Arc<str>, pipeline: &Arc<str>, entries: &[Entry], took: std::time::Duration) -> Self {
        let usage = entries.iter().fold(Usage::NONE, |all, entry| all + entry.usage);
        Self {
            run_id: Arc::clone(id),
            pipeline: Arc::clone(pipeline),
            status: "running",
            output: Value::Null,
            error: None,
            prompts: Vec::new(),
            duration_ms: ms(took),
            usage: usage.into(),
            steps: (0..entries.len()).filter_map(|place| StepReport::of(entries, place)).collect(),
            critical_path: Vec::new(),
        }
    }

    /// Of a run as its journal has it: leaves alone, in the order in which they ended, and after them those that wait.
    pub fn told(id: &str, story: &Story) -> Self {
        let first = story.done.values().map(|done| done.at).min().unwrap_or_default();
        let last = story.done.values().map(|done| done.at + done.took.as_micros() as i64).max().unwrap_or_default();
        let since = |at: i64| ((at - first).max(0)) as f64 / 1e3;
        let over = since(last);
        let done = story.order.iter().filter_map(|path| {
            let done = story.done.get(path)?;
            Some(StepReport::done(path, done, since(done.at)))
        });
        let prompts = story.paused.as_ref().map(|paused| paused.prompts.clone()).unwrap_or_default();
        let waiting = prompts.iter().map(|prompt| StepReport::waiting(&prompt.path, over));
        let steps = done.chain(waiting).collect();
        let usage = story.done.values().fold(story.in_vain, |all, done| all + done.usage);
        let ended = story.ended.as_ref();
        Self {
            run_id: id.into(),
            pipeline: Arc::clone(&story.begun.pipeline),
            status: story.status(),
            output: ended.map(|ended| ended.output.clone()).unwrap_or_default(),
            error: match story.is_given_up() {
                true => Some(Failure::of_run(&RunError::GivenUp(story.recoveries))),
                false => ended.and_then(|ended| ended.error.clone()),
            },
            prompts,
            duration_ms: over,
            usage: usage.into(),
            steps,
            critical_path: Vec::new(),
        }
    }
}

/// The leaves that the run waited for, from its beginning to its end: of what is within each step, the one that ended
/// last, then the one that ended last before that one began, and so on.
fn critical(entries: &[Entry]) -> Vec<Place> {
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); entries.len() + 1];
    for (place, entry) in entries.iter().enumerate() {
        children[entry.parent.index().min(entries.len())].push(place);
    }
    let mut way = Vec::new();
    let mut open = vec![entries.len()];
    // Backwards in time, so what is put on last is looked at first.
    while let Some(place) = open.pop() {
        let mut within = children[place].clone();
        if within.is_empty() && place < entries.len() {
            way.push(Place::at(place));
        }
        within.sort_by_key(|child| std::cmp::Reverse(entries[*child].ended));
        let mut before = std::time::Duration::MAX;
        let mut chain = Vec::new();
        for child in within {
            if entries[child].ended <= before {
                before = entries[child].began;
                chain.push(child);
            }
        }
        open.extend(chain.into_iter().rev());
    }
    way.reverse();
    way
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Log;
    use std::time::{Duration, Instant};

    #[test]
    fn the_critical_path_goes_through_the_slower_branch() {
        let log = Log::new(Instant::now(), 8);
        let at = Duration::from_millis;
        let name = |name: &str| Label::Name(name.into());
        let step = |parent, label: &str, began, ended| {
            let place = log.begin(parent, name(label), "step", at(began));
            log.end(place, at(ended), Status::Completed, Value::Null, None);
            place
        };
        step(Place::RUN, "first", 0, 10);
        let both = step(Place::RUN, "both", 10, 50);
        let slow = step(both, "slow", 10, 50);
        let quick = step(both, "quick", 10, 20);
        step(quick, "c", 10, 20);
        step(slow, "a", 10, 30);
        step(slow, "b", 30, 50);
        step(Place::RUN, "last", 50, 60);
        let entries = log.entries();
        let way: Vec<String> = critical(&entries).into_iter().map(|place| path(&entries, place)).collect();
        assert_eq!(way, ["first", "both/slow/a", "both/slow/b", "last"]);
    }
}
