//! What these tests share: a leaf by its name, run by an engine.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses some of it")]

pub mod server;

use std::sync::Arc;

use caudal_flow::{
    Action, Definition, Engine, Fault, Kind, Options, Ran, Registry, RunError, RunOptions, Step, StepError, Steps,
    Undefined, Value,
};
use caudal_flow_leaves::{Parts, register};

/// All leaves, with nothing of the world.
pub fn registry() -> Registry {
    registry_of(Parts::default())
}

/// All leaves, with these parts.
pub fn registry_of(parts: Parts) -> Registry {
    let mut registry = Registry::default();
    register(&mut registry, parts);
    registry
}

/// The leaf `name` of which `said` is said.
pub fn make(name: &str, said: Value) -> Result<Arc<dyn Action>, String> {
    made(&registry(), name, said)
}

/// The same out of a registry.
pub fn made(registry: &Registry, name: &str, said: Value) -> Result<Arc<dyn Action>, String> {
    (registry.get(name).unwrap_or_else(|| panic!("there is no leaf {name}")).make)(&said, Undefined::Strict)
}

/// A step that is a leaf.
pub fn step(action: Arc<dyn Action>) -> Step {
    Step::new("leaf", Kind::Act(action))
}

/// Runs a step.
pub async fn ran(step: Step, input: Value, context: Value) -> Ran {
    let definition = Definition::new("test", Steps::new([step]));
    let context = context.as_map().cloned().unwrap_or_default();
    let options = RunOptions { context, ..RunOptions::default() };
    Engine::new(Options::default()).run(&definition, input, options).await
}

/// What it gave.
pub async fn run_step(step: Step, input: Value, context: Value) -> Result<Value, StepError> {
    ran(step, input, context).await.output().map_err(|error| match error {
        RunError::Step { error, .. } => error,
        other => panic!("{other}"),
    })
}

/// What the leaf `name` gave.
pub async fn run(name: &str, said: Value, input: Value, context: Value) -> Result<Value, StepError> {
    run_step(step(make(name, said).unwrap()), input, context).await
}

/// The leaf gives that.
pub async fn check(name: &str, said: Value, input: Value, expected: Value) {
    let given = run(name, said.clone(), input.clone(), Value::Null).await;
    assert_eq!(given.as_ref(), Ok(&expected), "{name} of {said} with {input}");
}

/// The leaf fails like that.
pub async fn fails(name: &str, said: Value, input: Value, fault: Fault, words: &str) {
    let error = run(name, said, input, Value::Null).await.unwrap_err();
    assert_eq!(error.fault, fault, "{name}: {error}");
    assert!(error.message.contains(words), "{name}: {error}");
    assert!(!error.hint.is_empty());
}

/// The leaf is not made of that.
pub fn refused(name: &str, said: Value, words: &str) {
    let wrong = make(name, said).err().unwrap();
    assert!(wrong.contains(words), "{name}: {wrong}");
}

/// After the leaf, the context is that.
pub async fn keeps(name: &str, said: Value, input: Value, before: &Value, after: Value) {
    let step = step(make(name, said).unwrap()).with(|policy| policy.updates_context = true);
    let ran = ran(step, input, before.clone()).await;
    assert_eq!(Value::Map(ran.context.clone()), after, "{name}: {:?}", ran.outcome);
}
