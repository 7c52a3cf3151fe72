//! What a pipeline is made of.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

mod kinds;
mod policy;
mod talk;

pub use kinds::{
    Cached, Change, Conditional, Each, How, Human, Import, Knows, Loop, Machine, Merge, On, Parallel, Propagate,
    Reduce, Router, Search, Strategy, Transition,
};
pub use policy::{Policy, Retry};
pub use talk::{Keep, Talk, Voice};

use crate::{
    action::Action,
    budget::{Allowance, Limits},
    error::StepError,
    key::{self, Key},
    log::Label,
    value::Value,
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
        let mut steps: Vec<Step> = steps.into_iter().collect();
        let names: HashSet<Arc<str>> = steps.iter().map(|step| Arc::clone(&step.name)).collect();
        let mut seen: HashMap<Arc<str>, u32> = HashMap::new();
        for step in &mut steps {
            let count = seen.entry(Arc::clone(&step.name)).or_default();
            *count += 1;
            let mut label = Arc::clone(&step.name);
            while *count > 1 && names.contains(&label) {
                label = format!("{}#{count}", step.name).into();
                *count += u32::from(names.contains(&label));
            }
            step.label = Label::Name(label);
        }
        Self(steps.into())
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
    /// What all of its runs together may spend.
    pub all_runs: Option<Arc<Allowance>>,
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
            all_runs: None,
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
        self.asides(&self.name, name).into_iter().next()
    }

    /// The same for all steps of that name, as those of the pipeline `around`: this one, or what a background step of it
    /// becomes.
    pub(crate) fn asides(&self, around: &str, name: &str) -> Vec<Self> {
        let found = std::cell::RefCell::new(Vec::new());
        self.steps.any(&|step| {
            let background = step.policy.as_ref().is_some_and(|policy| policy.background);
            if background && *step.name == *name {
                let (durable, all_runs) = (self.durable, self.all_runs.clone());
                found.borrow_mut().push(Self { durable, all_runs, ..Self::aside_of(around, step) });
            }
            false
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
    pub(crate) fn any(&self, so: &dyn Fn(&Step) -> bool) -> bool {
        let within = |branches: &[(Arc<str>, Steps)]| branches.iter().any(|(_, steps)| steps.any(so));
        let together = |parallel: &Parallel| {
            let judged = matches!(&parallel.reduce, Some(Reduce::Judge(judge)) if judge.any(so));
            judged || within(&parallel.branches)
        };
        so(self)
            || self.policy.as_ref().and_then(|policy| policy.fallback.as_ref()).is_some_and(|step| step.any(so))
            || match &self.kind {
                Kind::Act(_) | Kind::Human(_) => false,
                Kind::Sequence(steps) => steps.any(so),
                Kind::Parallel(parallel) => together(parallel),
                Kind::Conditional(conditional) => {
                    within(&conditional.branches) || conditional.otherwise.as_ref().is_some_and(|steps| steps.any(so))
                }
                Kind::Loop(again) => again.body.any(so),
                Kind::Map(each) => each.body.any(so),
                Kind::Router(router) => router.chooser.any(so) || together(&router.parallel),
                Kind::Cache(cached) => cached.step.any(so),
                Kind::Import(import) => import.steps.any(so),
                Kind::Machine(machine) => within(&machine.states),
                Kind::Search(search) => search.proposer.any(so) || search.evaluator.any(so),
            }
    }
}
