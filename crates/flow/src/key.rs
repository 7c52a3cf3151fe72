//! What makes two calls the same: 32 bytes of what a step is, what it is given, and what it may look at.

use std::cell::RefCell;

use sha2::{Digest as _, Sha256};

use crate::{
    step::{Cached, Definition, Kind, Policy, Reduce, Rule, Step, Steps},
    value::{Canonical, Map, Value, write_canonical},
};

/// The name of a call, or of what a step is.
pub type Key = [u8; 32];

/// A buffer that has grown beyond this is not kept.
const KEPT: usize = 1 << 20;

thread_local! {
    /// Written anew for each key, so that a key needs no memory of its own.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(4096));
}

/// Gives `write` this thread's buffer, empty, and hashes what it wrote.
pub fn key_of(write: impl FnOnce(&mut Vec<u8>) -> Result<(), serde_json::Error>) -> Result<Key, serde_json::Error> {
    SCRATCH.with_borrow_mut(|buffer| {
        buffer.clear();
        write(buffer)?;
        let key = digest(buffer);
        if buffer.capacity() > KEPT {
            *buffer = Vec::with_capacity(4096);
        }
        Ok(key)
    })
}

/// Up to so many bytes SHA-256 is the quicker one, where the processor has instructions for it: 0.61 us for 1,000 bytes
/// where BLAKE3 takes 0.84, but 5.8 us for 10,000 where that takes 3.3 (`cargo bench -p caudal-flow --bench parts`).
const SHORT: usize = 2048;

/// SHA-256 of what is short, BLAKE3 of all else. Which one follows from the length, so a key is the same on all machines.
fn digest(bytes: &[u8]) -> Key {
    if bytes.len() <= SHORT { Sha256::digest(bytes).into() } else { *blake3::hash(bytes).as_bytes() }
}

/// The name of a call: of a step that is `identity`, given `input`, with what it may look at of `context`.
pub(crate) fn call(
    identity: &Key,
    input: &Value,
    context: &Map,
    names: Option<&[std::sync::Arc<str>]>,
) -> Result<Key, serde_json::Error> {
    key_of(|to| {
        to.extend_from_slice(identity);
        input.write(to)?;
        let Some(names) = names else { return context.write(to) };
        names.iter().try_for_each(|name| {
            name.write(to)?;
            context.get(name).unwrap_or(&Value::Null).write(to)
        })
    })
}

/// What a step is: everything that its answer depends on, beside what it is given.
pub(crate) fn step(step: &Step) -> Key {
    let mut form = Form::default();
    form.step(step);
    digest(&form.0)
}

/// What a pipeline is.
pub(crate) fn definition(name: &str, steps: &Steps) -> Key {
    let mut form = Form::default();
    form.text(name);
    form.steps(steps);
    digest(&form.0)
}

/// The canonical form of steps.
#[derive(Default)]
struct Form(Vec<u8>);

impl Form {
    fn value(&mut self, value: &Value) {
        // What makes a step is plain: it comes from a file or is a name.
        if write_canonical(value, &mut self.0).is_err() {
            self.0.push(b'?');
        }
    }

    fn text(&mut self, text: &str) {
        self.value(&Value::text(text));
    }

    fn number(&mut self, number: u64) {
        self.value(&number.into());
    }

    fn rule(&mut self, rule: Option<&Rule>) {
        self.value(&rule.map_or(Value::Null, |rule| rule.identity()));
    }

    fn steps(&mut self, steps: &Steps) {
        self.number(steps.len() as u64);
        steps.iter().for_each(|step| self.step(step));
    }

    fn branches(&mut self, branches: &[(std::sync::Arc<str>, Steps)]) {
        self.number(branches.len() as u64);
        for (name, steps) in branches {
            self.text(name);
            self.steps(steps);
        }
    }

    fn step(&mut self, step: &Step) {
        self.text(&step.name);
        self.text(step.kind.name());
        if let Some(policy) = &step.policy {
            self.policy(policy);
        }
        match &step.kind {
            Kind::Act(action) => self.value(&action.identity()),
            Kind::Sequence(steps) => self.steps(steps),
            Kind::Parallel(parallel) => self.parallel(parallel),
            Kind::Conditional(conditional) => {
                self.rule(Some(&conditional.when));
                self.branches(&conditional.branches);
                conditional.otherwise.iter().for_each(|steps| self.steps(steps));
            }
            Kind::Loop(again) => {
                self.number(again.most.into());
                self.rule(again.until.as_ref());
                self.rule(again.first.as_ref());
                self.rule(again.output.as_ref());
                self.steps(&again.body);
                for change in again.init.iter().chain(&again.state) {
                    self.text(&change.path);
                    self.number(change.how as u64);
                    self.rule(Some(&change.value));
                }
                if let Some(talk) = &again.talk {
                    self.text(&format!("{talk:?}"));
                }
                match &again.next {
                    crate::step::Propagate::Output => self.text("output"),
                    crate::step::Propagate::Context => self.text("context"),
                    crate::step::Propagate::Rule(rule) => self.rule(Some(rule)),
                }
            }
            Kind::Map(each) => {
                self.rule(each.items.as_ref());
                self.number(u64::from(each.ignore_failures));
                self.steps(&each.body);
            }
            Kind::Router(router) => {
                self.step(&router.chooser);
                self.parallel(&router.parallel);
            }
            Kind::Human(human) => {
                self.rule(human.message.as_ref());
                self.value(&human.schema);
            }
            Kind::Cache(cached) => self.cached(cached),
            Kind::Import(import) => {
                self.text(&import.pipeline);
                self.number(u64::from(import.inherits) + 2 * u64::from(import.ignore_failures));
                self.text(&format!("{:?} {:?}", import.knows, import.outputs));
                self.steps(&import.steps);
            }
            Kind::Machine(machine) => {
                self.text(&machine.start);
                machine.ends.iter().for_each(|end| self.text(end));
                self.branches(&machine.states);
                for transition in &machine.transitions {
                    self.text(transition.from.as_deref().unwrap_or("*"));
                    self.number(transition.on as u64);
                    self.rule(transition.when.as_ref());
                    self.text(&transition.to);
                }
            }
            Kind::Search(search) => {
                self.step(&search.proposer);
                self.step(&search.evaluator);
                self.number(search.strategy as u64);
                [search.branching, search.width, search.depth, search.most]
                    .into_iter()
                    .for_each(|n| self.number(n as u64));
                self.value(&search.goal.map_or(Value::Null, Value::from));
                self.rule(search.cost.as_ref());
                self.rule(search.valid.as_ref());
            }
        }
    }

    fn cached(&mut self, cached: &Cached) {
        self.0.extend_from_slice(&cached.identity);
    }

    fn parallel(&mut self, parallel: &crate::step::Parallel) {
        self.branches(&parallel.branches);
        self.number(parallel.merge as u64);
        self.number(u64::from(parallel.ignore_failures));
        parallel.keys.iter().for_each(|key| self.text(key));
        match &parallel.reduce {
            Some(Reduce::Rule(rule)) => self.rule(Some(rule)),
            Some(Reduce::Judge(judge)) => self.step(judge),
            Some(reduce) => self.text(reduce.name()),
            None => self.text(""),
        }
    }

    fn policy(&mut self, policy: &Policy) {
        self.rule(policy.input.as_ref());
        for check in policy.takes.iter().chain(&policy.gives).chain(&policy.validators) {
            self.value(&check.identity());
        }
        policy.invariants.iter().for_each(|rule| self.rule(Some(rule)));
        self.number(u64::from(policy.updates_context) + 2 * u64::from(policy.known_names));
        self.text(policy.sink.as_deref().unwrap_or(""));
        if let Some(fallback) = &policy.fallback {
            self.step(fallback);
        }
    }
}

impl Definition {
    /// Everything that its answers depend on, as a name of 64 hexadecimal digits.
    pub fn version(&self) -> String {
        self.identity.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
