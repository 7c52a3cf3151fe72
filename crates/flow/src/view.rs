//! What expressions and templates see.

use crate::{
    log::{Log, Place},
    value::{Map, Value},
};

/// What expressions and templates see of a run.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What the step before gave: `output`, `previous_step`.
    pub output: &'a Value,
    /// What the run knows: `context`.
    pub context: &'a Map,
    /// The run so far and where in it this is: `steps`.
    pub log: Option<(&'a Log, Place)>,
    /// What somebody answered: `resume_input`.
    pub resumed: Option<&'a Value>,
}

impl<'a> View<'a> {
    /// A view of an output and nothing else.
    pub fn of(output: &'a Value, context: &'a Map) -> Self {
        Self { output, context, log: None, resumed: None }
    }

    /// The output of an earlier step.
    pub fn step(&self, name: &str) -> Option<Value> {
        self.log.and_then(|(log, place)| log.output(place, name))
    }

    /// The outputs of all earlier steps by name.
    pub fn steps(&self) -> Map {
        self.log.map(|(log, place)| log.outputs(place).into_iter().rev().collect()).unwrap_or_default()
    }
}
