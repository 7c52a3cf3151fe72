//! What leaves there are, by name. Who knows how they work registers them; who reads pipelines finds them here.

use std::{collections::BTreeMap, sync::Arc};

use crate::{action::Action, value::Value};

/// Makes a leaf of what its user says about it (`with`, or an agent's keys). `Err` tells what is wrong, in a sentence.
pub type Maker = Arc<dyn Fn(&Value) -> Result<Arc<dyn Action>, String> + Send + Sync>;

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

/// The leaves that there are.
#[derive(Clone, Default)]
pub struct Registry(BTreeMap<Box<str>, Leaf>);

impl Registry {
    /// Adds a leaf, in place of one of that name.
    pub fn add(&mut self, name: impl Into<Box<str>>, leaf: Leaf) {
        self.0.insert(name.into(), leaf);
    }

    /// Adds one action that needs nothing said.
    pub fn action(&mut self, name: impl Into<Box<str>>, about: &'static str, action: impl Action) {
        let action: Arc<dyn Action> = Arc::new(action);
        self.add(name, Leaf { about, settings: Value::Null, make: Arc::new(move |_| Ok(Arc::clone(&action))) });
    }

    /// The leaf of that name.
    pub fn get(&self, name: &str) -> Option<&Leaf> {
        self.0.get(name)
    }

    /// All leaves, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Leaf)> {
        self.0.iter().map(|(name, leaf)| (&**name, leaf))
    }
}
