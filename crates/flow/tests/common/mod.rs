//! Steps and engines for tests.

#![allow(dead_code, reason = "each test file uses some")]

use std::sync::Arc;

use caudal_flow::{
    Definition, Engine, Options, Ran, RunOptions, Step, StepError, Steps, Value, function, journal::Runs,
};

/// An engine of its own, in memory.
pub(crate) fn engine() -> Engine {
    Engine::new(Options::default())
}

/// A pipeline of these steps.
pub(crate) fn define(steps: impl IntoIterator<Item = Step>) -> Definition {
    Definition::new("test", Steps::new(steps))
}

/// A pipeline of these steps, each kept before the next begins.
pub(crate) fn kept(steps: impl IntoIterator<Item = Step>) -> Definition {
    let mut definition = define(steps);
    definition.durable = true;
    definition
}

/// An engine over what is kept there.
pub(crate) fn over(runs: Arc<dyn Runs>) -> Engine {
    Engine::new(Options { runs: Some(runs), ..Options::default() })
}

/// A run of that name.
pub(crate) fn named(id: &str) -> RunOptions {
    RunOptions { id: Some(id.into()), ..RunOptions::default() }
}

/// Runs steps in an engine of their own.
pub(crate) async fn runs(steps: impl IntoIterator<Item = Step>, input: Value) -> Ran {
    engine().run(&define(steps), input, RunOptions::default()).await
}

/// Adds to a number.
pub(crate) fn add(more: i64) -> Step {
    let act = function(format!("add {more}"), move |call| match call.input.as_i64() {
        Some(number) => Ok((number + more).into()),
        None => Err(StepError::input("a number is wanted")),
    });
    Step::act(format!("add {more}"), act)
}

/// Gives the same whatever it is given.
pub(crate) fn give(value: impl Into<Value>) -> Step {
    let value = value.into();
    Step::act("give", function(format!("give {value}"), move |_| Ok(value.clone())))
}

/// Puts what this object holds into the context.
pub(crate) fn set(value: Value) -> Step {
    give(value).with(|policy| policy.updates_context = true)
}

pub(crate) fn text(text: &str) -> Value {
    text.into()
}
