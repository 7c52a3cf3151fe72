//! What leaves there are, by name. Who knows how they work registers them; who reads pipelines finds them here.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    action::Action,
    step::{Check, Rule},
    value::Value,
    words::Undefined,
};

/// Makes a leaf of what its user says about it (`with`, or an agent's keys); templates within treat names that are not
/// there as the file says. `Err` tells what is wrong, in a sentence.
pub type Maker = Arc<dyn Fn(&Value, Undefined) -> Result<Arc<dyn Action>, String> + Send + Sync>;

/// A leaf that there is.
#[derive(Clone)]
pub struct Leaf {
    /// What it does, in a sentence.
    pub about: &'static str,
    /// What may be said about it: a JSON schema of `with`; `null` if nothing may.
    pub settings: Value,
    /// Makes one.
    pub make: Maker,
}

/// The leaves that there are, and the rules and checks that files may name.
#[derive(Clone, Default)]
pub struct Registry {
    leaves: BTreeMap<Box<str>, Leaf>,
    rules: BTreeMap<Box<str>, Rule>,
    checks: BTreeMap<Box<str>, Arc<dyn Check>>,
}

impl Registry {
    /// Adds a leaf, in place of one of that name.
    pub fn add(&mut self, name: impl Into<Box<str>>, leaf: Leaf) {
        self.leaves.insert(name.into(), leaf);
    }

    /// Adds one action that needs nothing said.
    pub fn action(&mut self, name: impl Into<Box<str>>, about: &'static str, action: impl Action) {
        let action: Arc<dyn Action> = Arc::new(action);
        self.add(name, Leaf { about, settings: Value::Null, make: Arc::new(move |_, _| Ok(Arc::clone(&action))) });
    }

    /// Adds a rule: what files name as a condition, a mapper, a cost.
    pub fn add_rule(&mut self, name: impl Into<Box<str>>, rule: Rule) {
        self.rules.insert(name.into(), rule);
    }

    /// Adds a check: what files name as a validator.
    pub fn add_check(&mut self, name: impl Into<Box<str>>, check: Arc<dyn Check>) {
        self.checks.insert(name.into(), check);
    }

    /// The leaf of that name.
    pub fn get(&self, name: &str) -> Option<&Leaf> {
        self.leaves.get(name)
    }

    /// The rule of that name.
    pub fn rule(&self, name: &str) -> Option<&Rule> {
        self.rules.get(name)
    }

    /// The check of that name.
    pub fn check(&self, name: &str) -> Option<&Arc<dyn Check>> {
        self.checks.get(name)
    }

    /// All leaves, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Leaf)> {
        self.leaves.iter().map(|(name, leaf)| (&**name, leaf))
    }
}
