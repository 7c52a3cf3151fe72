//! What a pipeline is made of.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    action::Action,
    budget::Limits,
    error::StepError,
    key::{self, Key},
    log::Label,
    value::{Map, Value},
    view::View,
};

/// Something that is worked out of what a step sees: an expression, a template, or a function of Rust's.
pub trait Formula: Send + Sync + 'static {
    /// Works it out.
    fn value(&self, view: &View<'_>) -> Result<Value, StepError>;

    /// What makes it the same as another.
    fn identity(&self) -> Value;
}

/// Looks at a value and says what is wrong with it.
pub trait Check: Send + Sync + 'static {
    /// `Err` tells what is wrong.
    fn check(&self, value: &Value) -> Result<(), String>;

    /// What makes it the same as another.
    fn identity(&self) -> Value;
}

/// A formula.
pub type Rule = Arc<dyn Formula>;

/// A step: what is done, and how.
#[derive(Clone)]
pub struct Step {
    /// Its name, as its author calls it.
    pub name: Arc<str>,
    /// What is done.
    pub kind: Kind,
    /// How. Most steps need nothing said.
    pub policy: Option<Arc<Policy>>,
    /// Its name among its neighbours: no two have the same.
    pub(crate) label: Label,
}

/// What is done.
#[derive(Clone)]
pub enum Kind {
    /// A leaf.
    Act(Arc<dyn Action>),
    /// Steps one after the other.
    Sequence(Steps),
    /// Branches at the same time.
    Parallel(Arc<Parallel>),
    /// One branch of several.
    Conditional(Arc<Conditional>),
    /// The same again.
    Loop(Arc<Loop>),
    /// The same for each item of a list.
    Map(Arc<Each>),
    /// Branches that a step chooses.
    Router(Arc<Router>),
    /// Somebody is asked.
    Human(Arc<Human>),
    /// The answer is remembered.
    Cache(Arc<Cached>),
    /// Another pipeline.
    Import(Arc<Import>),
    /// States, of which each names the next.
    Machine(Arc<Machine>),
    /// The best of what a step proposes, level by level.
    Search(Arc<Search>),
}

impl Kind {
    /// Its name, as in a file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Act(_) => "step",
            Self::Sequence(_) => "sequence",
            Self::Parallel(_) => "parallel",
            Self::Conditional(_) => "conditional",
            Self::Loop(_) => "loop",
            Self::Map(_) => "map",
            Self::Router(_) => "dynamic_router",
            Self::Human(_) => "hitl",
            Self::Cache(_) => "cache",
            Self::Import(_) => "import",
            Self::Machine(_) => "StateMachine",
            Self::Search(_) => "tree_search",
        }
    }
}

/// Steps one after the other.
#[derive(Clone)]
pub struct Steps(Arc<[Step]>);

impl Steps {
    /// In this order. Those of one name are told apart by a number.
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let mut seen: HashMap<Arc<str>, u32> = HashMap::new();
        let number = |mut step: Step| {
            let count = seen.entry(Arc::clone(&step.name)).or_default();
            *count += 1;
            if *count > 1 {
                step.label = Label::Name(format!("{}#{count}", step.name).into());
            }
            step
        };
        Self(steps.into_iter().map(number).collect())
    }

    /// The steps.
    pub fn iter(&self) -> std::slice::Iter<'_, Step> {
        self.0.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How a step is done.
#[derive(Clone, Default)]
pub struct Policy {
    /// What it is given, in place of what the step before gave.
    pub input: Option<Rule>,
    /// What it takes.
    pub takes: Option<Arc<dyn Check>>,
    /// What it gives.
    pub gives: Option<Arc<dyn Check>>,
    /// What is looked at before its output is believed.
    pub validators: Vec<Arc<dyn Check>>,
    /// How often it is tried, and with what pauses.
    pub retry: Retry,
    /// How long one try may take.
    pub timeout: Option<Duration>,
    /// What is done if it fails in the end.
    pub fallback: Option<Arc<Step>>,
    /// What it may spend.
    pub limits: Limits,
    /// Whether its output, an object, becomes a part of the context.
    pub updates_context: bool,
    /// Where in the context its output goes: names with points between.
    pub sink: Option<Arc<str>>,
    /// Whether nobody waits for it: it goes its way as a run of its own, and the next step gets what this one got.
    pub background: bool,
    /// What its author says about it, which changes nothing.
    pub meta: Map,
}

/// How often a step is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Tries after the first.
    pub more: u32,
    /// Before the second try; each further wait is twice as long.
    pub wait: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// Whether each wait is drawn between none and what it would be, so that many do not come back at once.
    pub jitter: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self { more: 0, wait: Duration::from_millis(200), longest: Duration::from_secs(30), jitter: true }
    }
}

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
    /// Which names of the context go on; all, if empty.
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

/// Another pipeline.
pub struct Import {
    /// Its name.
    pub pipeline: Arc<str>,
    /// Its steps.
    pub steps: Steps,
    /// Whether it sees the context.
    pub inherits: bool,
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

/// What leads from a state to the next.
pub struct Transition {
    /// From which; from any, if nothing is said.
    pub from: Option<Arc<str>>,
    /// Whether after a failure, in place of after success.
    pub on_failure: bool,
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

impl Step {
    /// A step.
    pub fn new(name: impl Into<Arc<str>>, kind: Kind) -> Self {
        let name = name.into();
        Self { label: Label::Name(Arc::clone(&name)), name, kind, policy: None }
    }

    /// A leaf.
    pub fn act(name: impl Into<Arc<str>>, action: Arc<dyn Action>) -> Self {
        Self::new(name, Kind::Act(action))
    }

    /// The same with something said about how it is done.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = self.policy.take().map_or_else(Policy::default, Arc::unwrap_or_clone);
        change(&mut policy);
        self.policy = Some(Arc::new(policy));
        self
    }
}

/// A pipeline whose values are JSON's: what a file becomes.
#[derive(Clone)]
pub struct Definition {
    /// Its name.
    pub name: Arc<str>,
    /// What is done.
    pub steps: Steps,
    /// What it takes.
    pub takes: Option<Arc<dyn Check>>,
    /// What it gives.
    pub gives: Option<Arc<dyn Check>>,
    /// What a run may spend.
    pub limits: Limits,
    /// How long a run may take.
    pub timeout: Option<Duration>,
    /// Whether each step is kept before the next begins.
    pub durable: bool,
    /// What it is about, for people.
    pub description: Arc<str>,
    /// Whether the context holds what the run was given, as `initial_prompt`.
    pub knows_input: bool,
    /// Whether somebody may be asked on the way.
    pub(crate) asks: bool,
    pub(crate) identity: Key,
}

impl Definition {
    /// A pipeline of these steps.
    pub fn new(name: impl Into<Arc<str>>, steps: Steps) -> Self {
        let name = name.into();
        let asks = steps.any(&|step| matches!(step.kind, Kind::Human(_)));
        Self {
            identity: key::definition(&name, &steps),
            name,
            steps,
            takes: None,
            gives: None,
            limits: Limits::default(),
            timeout: None,
            durable: false,
            description: Arc::from(""),
            asks,
            knows_input: false,
        }
    }
}

impl Definition {
    /// What a background step of `pipeline` becomes: a pipeline of its own, `pipeline#step`.
    pub(crate) fn aside_of(pipeline: &str, step: &Step) -> Self {
        let alone = step.clone().with(|policy| policy.background = false);
        Self::new(format!("{pipeline}#{}", step.name), Steps::new([alone]))
    }

    /// The pipeline that the background step `name` becomes: of it are the runs `pipeline#step`.
    pub fn aside(&self, name: &str) -> Option<Self> {
        let found = std::cell::RefCell::new(None);
        self.steps.any(&|step| {
            let background = step.policy.as_ref().is_some_and(|policy| policy.background);
            let this = background && *step.name == *name;
            if this {
                *found.borrow_mut() = Some(Self { durable: self.durable, ..Self::aside_of(&self.name, step) });
            }
            this
        });
        found.into_inner()
    }
}

impl Steps {
    /// Whether this is so of any step, however deep.
    pub fn any(&self, so: &dyn Fn(&Step) -> bool) -> bool {
        self.iter().any(|step| step.any(so))
    }
}

impl Step {
    fn any(&self, so: &dyn Fn(&Step) -> bool) -> bool {
        let within = |branches: &[(Arc<str>, Steps)]| branches.iter().any(|(_, steps)| steps.any(so));
        so(self)
            || self.policy.as_ref().and_then(|policy| policy.fallback.as_ref()).is_some_and(|step| step.any(so))
            || match &self.kind {
                Kind::Act(_) | Kind::Human(_) => false,
                Kind::Sequence(steps) => steps.any(so),
                Kind::Parallel(parallel) => within(&parallel.branches),
                Kind::Conditional(conditional) => {
                    within(&conditional.branches) || conditional.otherwise.as_ref().is_some_and(|steps| steps.any(so))
                }
                Kind::Loop(again) => again.body.any(so),
                Kind::Map(each) => each.body.any(so),
                Kind::Router(router) => router.chooser.any(so) || within(&router.parallel.branches),
                Kind::Cache(cached) => cached.step.any(so),
                Kind::Import(import) => import.steps.any(so),
                Kind::Machine(machine) => within(&machine.states),
                Kind::Search(search) => search.proposer.any(so) || search.evaluator.any(so),
            }
    }
}
