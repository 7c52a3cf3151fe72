//! What makes two calls the same: 32 bytes of what a step is, what it is given, and what it may look at.

use std::{cell::RefCell, sync::Arc};

use sha2::{Digest as _, Sha256};

use crate::{
    step::{
        Cached, Change, Check, Definition, Import, Kind, Loop, Machine, Parallel, Policy, Propagate, Reduce, Rule,
        Search, Step, Steps,
    },
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
    names: Option<&[Arc<str>]>,
) -> Result<Key, serde_json::Error> {
    key_of(|to| {
        to.extend_from_slice(identity);
        input.write(to)?;
        let Some(names) = names else { return context.write(to) };
        names.iter().try_for_each(|name| {
            name.write(to)?;
            // What is not there is not what is `null`.
            let Some(value) = context.get(name) else {
                to.push(b'-');
                return Ok(());
            };
            value.write(to)
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

/// The canonical form of steps. Before what may be missing stands whether it is there, and before what may be many how many
/// there are: else the end of one part could be taken for the beginning of another.
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

    fn yes(&mut self, yes: bool) {
        self.value(&yes.into());
    }

    fn many<T>(&mut self, all: &[T], write: impl Fn(&mut Self, &T)) {
        self.number(all.len() as u64);
        all.iter().for_each(|one| write(self, one));
    }

    fn maybe<T: ?Sized>(&mut self, one: Option<&T>, write: impl Fn(&mut Self, &T)) {
        self.yes(one.is_some());
        one.into_iter().for_each(|one| write(self, one));
    }

    fn rule(&mut self, rule: &Rule) {
        self.value(&rule.identity());
    }

    fn steps(&mut self, steps: &Steps) {
        self.number(steps.len() as u64);
        steps.iter().for_each(|step| self.step(step));
    }

    fn branches(&mut self, branches: &[(Arc<str>, Steps)]) {
        self.many(branches, |form, (name, steps)| {
            form.text(name);
            form.steps(steps);
        });
    }

    fn changes(&mut self, changes: &[Change]) {
        self.many(changes, |form, change| {
            form.text(&change.path);
            form.number(change.how as u64);
            form.rule(&change.value);
        });
    }

    fn checks(&mut self, checks: &[Arc<dyn Check>]) {
        self.many(checks, |form, check| form.value(&check.identity()));
    }

    fn step(&mut self, step: &Step) {
        self.text(&step.name);
        self.maybe(step.policy.as_deref(), Self::policy);
        self.text(step.kind.name());
        match &step.kind {
            Kind::Act(action) => self.value(&action.identity()),
            Kind::Sequence(steps) => self.steps(steps),
            Kind::Parallel(parallel) => self.parallel(parallel),
            Kind::Conditional(conditional) => {
                self.rule(&conditional.when);
                self.branches(&conditional.branches);
                self.maybe(conditional.otherwise.as_ref(), Self::steps);
            }
            Kind::Loop(again) => self.again(again),
            Kind::Map(each) => {
                self.maybe(each.items.as_ref(), Self::rule);
                // Only one after the other do they see what those before made of the context.
                self.yes(each.at_once <= 1);
                self.yes(each.ignore_failures);
                self.steps(&each.body);
            }
            Kind::Router(router) => {
                self.step(&router.chooser);
                self.parallel(&router.parallel);
            }
            Kind::Human(human) => {
                self.maybe(human.message.as_ref(), Self::rule);
                self.value(&human.schema);
            }
            Kind::Cache(cached) => self.cached(cached),
            Kind::Import(import) => self.import(import),
            Kind::Machine(machine) => self.machine(machine),
            Kind::Search(search) => self.search(search),
        }
    }

    fn again(&mut self, again: &Loop) {
        self.number(again.most.into());
        self.yes(again.must_end);
        for rule in [&again.until, &again.first, &again.output] {
            self.maybe(rule.as_ref(), Self::rule);
        }
        self.steps(&again.body);
        self.changes(&again.init);
        self.changes(&again.state);
        self.maybe(again.talk.as_deref(), |form, talk| form.text(&format!("{talk:?}")));
        match &again.next {
            Propagate::Output => self.text("output"),
            Propagate::Context => self.text("context"),
            Propagate::Rule(rule) => {
                self.text("rule");
                self.rule(rule);
            }
        }
    }

    fn import(&mut self, import: &Import) {
        self.text(&import.pipeline);
        self.yes(import.inherits);
        self.text(&format!("{:?}", import.knows));
        self.yes(import.ignore_failures);
        self.maybe(import.outputs.as_deref(), |form, outputs| {
            form.many(outputs, |form, (from, to)| [from, to].into_iter().for_each(|name| form.text(name)));
        });
        self.steps(&import.steps);
    }

    fn machine(&mut self, machine: &Machine) {
        self.text(&machine.start);
        self.number(machine.most.into());
        self.many(&machine.ends, |form, end| form.text(end));
        self.branches(&machine.states);
        self.many(&machine.transitions, |form, transition| {
            form.maybe(transition.from.as_deref(), Self::text);
            form.number(transition.on as u64);
            form.maybe(transition.when.as_ref(), Self::rule);
            form.text(&transition.to);
        });
    }

    fn search(&mut self, search: &Search) {
        self.step(&search.proposer);
        self.step(&search.evaluator);
        self.number(search.strategy as u64);
        [search.branching, search.width, search.depth, search.most].into_iter().for_each(|n| self.number(n as u64));
        self.value(&search.goal.map_or(Value::Null, Value::from));
        self.yes(search.must_reach);
        self.maybe(search.cost.as_ref(), Self::rule);
        self.maybe(search.valid.as_ref(), Self::rule);
    }

    fn cached(&mut self, cached: &Cached) {
        self.0.extend_from_slice(&cached.identity);
        self.maybe(cached.context.as_deref(), |form, names| form.many(names, |form, name| form.text(name)));
    }

    fn parallel(&mut self, parallel: &Parallel) {
        self.branches(&parallel.branches);
        self.number(parallel.merge as u64);
        self.yes(parallel.ignore_failures);
        self.many(&parallel.keys, |form, key| form.text(key));
        self.maybe(parallel.reduce.as_ref(), |form, reduce| {
            form.text(reduce.name());
            match reduce {
                Reduce::Rule(rule) => form.rule(rule),
                Reduce::Judge(judge) => form.step(judge),
                _ => {}
            }
        });
    }

    fn policy(&mut self, policy: &Policy) {
        self.maybe(policy.input.as_ref(), Self::rule);
        self.checks(policy.takes.as_slice());
        self.checks(policy.gives.as_slice());
        self.checks(&policy.validators);
        self.many(&policy.invariants, Self::rule);
        self.yes(policy.updates_context);
        self.yes(policy.known_names);
        self.yes(policy.background);
        self.maybe(policy.sink.as_deref(), Self::text);
        self.maybe(policy.fallback.as_deref(), Self::step);
    }
}

impl Definition {
    /// Everything that its answers depend on, as a name of 64 hexadecimal digits.
    pub fn version(&self) -> String {
        self.identity.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
