//! What each sort of step is made of.

use std::{sync::Arc, time::Duration};

use super::{Check, Kind, Rule, Step, Steps, Talk};
use crate::{
    key::{self, Key},
    value::Value,
};

/// What of the branches' contexts goes into the one around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Merge {
    /// What each has changed; two that change one thing differently are a failure.
    #[default]
    ContextUpdate,
    /// What the last branch has changed, in their order, of those that did not fail.
    Overwrite,
    /// Nothing.
    NoMerge,
    /// What each has added; to change what is there is a failure.
    ErrorOnConflict,
    /// What each has added, and of several the first branch's.
    KeepFirst,
}

/// What becomes of many outputs.
#[derive(Clone)]
pub enum Reduce {
    /// The branches' names.
    Keys,
    /// The outputs, in order of the branches.
    Values,
    /// All objects in one; the later wins.
    Union,
    /// All lists in one.
    Concat,
    /// The first branch's output.
    First,
    /// The last branch's output.
    Last,
    /// The output that most branches gave.
    Majority,
    /// The text that most gave, whatever space is around it; without one that two gave, as [`Reduce::Majority`] has it.
    Consensus,
    /// The output that a step likes best. Given `{solution, task}`, it says how good it is: a number, or an object with
    /// `score`.
    Judge(Arc<Step>),
    /// What a formula makes of the object of all outputs.
    Rule(Rule),
}

impl Reduce {
    /// Its name, as in a file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Values => "values",
            Self::Union => "union",
            Self::Concat => "concat",
            Self::First => "first",
            Self::Last => "last",
            Self::Majority => "majority_vote",
            Self::Consensus => "code_consensus",
            Self::Judge(_) => "judge_selection",
            Self::Rule(_) => "rule",
        }
    }
}

/// Branches at the same time. Their outputs make an object.
pub struct Parallel {
    /// The branches by name, in order.
    pub branches: Vec<(Arc<str>, Steps)>,
    /// What of their contexts goes on.
    pub merge: Merge,
    /// Names of the context that branches see; all, if empty.
    pub keys: Vec<Arc<str>>,
    /// Whether those that fail are left out, in place of all failing.
    pub ignore_failures: bool,
    /// What becomes of the outputs.
    pub reduce: Option<Reduce>,
}

impl Parallel {
    /// These branches, with the usual rules.
    pub fn new(branches: Vec<(Arc<str>, Steps)>) -> Self {
        Self { branches, merge: Merge::default(), keys: Vec::new(), ignore_failures: false, reduce: None }
    }
}

/// One branch of several.
pub struct Conditional {
    /// Which: its value as a text is the branch's name.
    pub when: Rule,
    /// The branches by name; `true` and `false` for what is yes or no.
    pub branches: Vec<(Arc<str>, Steps)>,
    /// If there is none of that name.
    pub otherwise: Option<Steps>,
}

/// What the next turn of a loop is given.
#[derive(Clone)]
pub enum Propagate {
    /// What this one gave.
    Output,
    /// The context.
    Context,
    /// What a formula makes.
    Rule(Rule),
}

/// The same again until it is enough.
pub struct Loop {
    /// What is done.
    pub body: Steps,
    /// How often at most.
    pub most: u32,
    /// Whether it is enough, looked at after each turn.
    pub until: Option<Rule>,
    /// Whether it is a failure if it is never enough.
    pub must_end: bool,
    /// What the first turn is given.
    pub first: Option<Rule>,
    /// What the next is given.
    pub next: Propagate,
    /// What is set in the context before the first turn.
    pub init: Vec<Change>,
    /// What is changed in the context after each.
    pub state: Vec<Change>,
    /// What the loop gives; what its last turn gave, if it says nothing.
    pub output: Option<Rule>,
    /// Whether and how what is said in it is kept as a conversation.
    pub talk: Option<Arc<Talk>>,
}

impl Loop {
    /// So many turns of `body`, each given what the one before gave.
    pub fn new(body: Steps, most: u32) -> Self {
        Self {
            body,
            most,
            until: None,
            must_end: false,
            first: None,
            next: Propagate::Output,
            init: Vec::new(),
            state: Vec::new(),
            output: None,
            talk: None,
        }
    }
}

/// A change of the context.
#[derive(Clone)]
pub struct Change {
    /// How.
    pub how: How,
    /// Where: names with points between.
    pub path: Arc<str>,
    /// What.
    pub value: Rule,
}

/// How the context is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It is put there.
    Set,
    /// It is put at the end of the list there.
    Append,
    /// It is put into the object there.
    Merge,
}

/// The same for each item of a list. Its output is the list of outputs.
pub struct Each {
    /// Which items; what it is given, if it says nothing.
    pub items: Option<Rule>,
    /// What is done with each.
    pub body: Steps,
    /// How many at the same time. One after the other, each sees what those before made of the context.
    pub at_once: usize,
    /// Whether items that fail become `null`, in place of all failing.
    pub ignore_failures: bool,
}

/// Branches that a step chooses: by name, a list of names, or an object of inputs by name.
pub struct Router {
    /// Who chooses.
    pub chooser: Box<Step>,
    /// The branches there are, and how they go together.
    pub parallel: Parallel,
}

/// Somebody is asked, and the run waits: days, if need be.
pub struct Human {
    /// What is asked. What the step is given, as a text, if nothing is said.
    pub message: Option<Rule>,
    /// What answers are taken.
    pub answers: Option<Arc<dyn Check>>,
    /// The same for people and programs: a JSON schema.
    pub schema: Value,
}

/// A step whose answer is remembered.
pub struct Cached {
    pub(crate) step: Step,
    /// For how long; as long as the cache keeps it, if nothing is said.
    pub ttl: Option<Duration>,
    /// Which names of the context the answer depends on; all, if nothing is said.
    pub context: Option<Vec<Arc<str>>>,
    /// What the step is, in 32 bytes: see [`crate::key`].
    pub(crate) identity: Key,
    /// Whether an answer may stand for another call's.
    pub(crate) repeatable: bool,
}

impl Cached {
    /// Remembers what `step` answers; nothing, if what it does must be done each time, as to record an event.
    pub fn new(step: Step) -> Self {
        let once = |step: &Step| matches!(&step.kind, Kind::Act(action) if !action.repeatable());
        Self { identity: key::step(&step), repeatable: !step.any(&once), step, ttl: None, context: None }
    }
}

/// What an imported pipeline knows of where it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Knows {
    /// What was said so far: `conversation_history`.
    pub conversation: bool,
    /// What it is given: `initial_prompt`.
    pub prompt: bool,
    /// The same as a part of `import_artifacts`: an object's names, or else under this one.
    pub artifacts: Option<Arc<str>>,
}

/// Another pipeline.
pub struct Import {
    /// Its name.
    pub pipeline: Arc<str>,
    /// Its steps.
    pub steps: Steps,
    /// Whether it sees the context.
    pub inherits: bool,
    /// What it knows beside.
    pub knows: Knows,
    /// Which of its context goes where in ours; everything to the same names, if nothing is said and it sees ours.
    pub outputs: Option<Vec<(Arc<str>, Arc<str>)>>,
    /// Whether its failure is the run's: else it gives `null`.
    pub ignore_failures: bool,
}

/// States, of which each names the next.
pub struct Machine {
    /// The first.
    pub start: Arc<str>,
    /// The last ones.
    pub ends: Vec<Arc<str>>,
    /// What is done in each.
    pub states: Vec<(Arc<str>, Steps)>,
    /// What leads from one to the next, the first that fits.
    pub transitions: Vec<Transition>,
    /// How many states at most are passed.
    pub most: u32,
}

/// What has become of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum On {
    /// It was done.
    #[default]
    Success,
    /// It failed.
    Failure,
    /// Somebody was asked in it and has answered: what else there was to do in it is left out.
    Pause,
}

/// What leads from a state to the next.
pub struct Transition {
    /// From which; from any, if nothing is said.
    pub from: Option<Arc<str>>,
    /// After what.
    pub on: On,
    /// Only if this is so.
    pub when: Option<Rule>,
    /// To which.
    pub to: Arc<str>,
}

/// How a tree is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// The best few of each level.
    #[default]
    Beam,
    /// The best of all that are open, by what they cost so far and their score.
    AStar,
}

/// The best of what a step proposes, and of what it proposes from there.
pub struct Search {
    /// Given a candidate, proposes a list of next ones.
    pub proposer: Box<Step>,
    /// Given a candidate, says how good it is: a number, or an object with `score`.
    pub evaluator: Box<Step>,
    /// Which of both.
    pub strategy: Strategy,
    /// Candidates taken of each proposal.
    pub branching: usize,
    /// Candidates kept of each level.
    pub width: usize,
    /// Levels.
    pub depth: usize,
    /// Proposals in all.
    pub most: usize,
    /// Enough, if a candidate has this score.
    pub goal: Option<f64>,
    /// Whether it is a failure if none has.
    pub must_reach: bool,
    /// What a candidate costs, for A*; one for each level, if nothing is said.
    pub cost: Option<Rule>,
    /// Candidates for which this is not so are left out.
    pub valid: Option<Rule>,
}
