//! The cache never serves another step's answer: random steps that are alike and not the same, with random inputs and
//! contexts, in a random order and at the same time, through one engine; each answer beside what the step gives where
//! nothing is remembered.
#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::{sync::Arc, time::Duration};

use caudal_flow::{
    Cached, Change, Conditional, Definition, Each, Engine, How, Import, Kind, Knows, Loop, Machine, Map, Merge, On,
    Options, Outcome, Parallel, Propagate, Reduce, Rule, RunError, RunOptions, Search, Shelf, ShelfOptions,
    SqliteShelf, Step, StepError, Steps, Strategy, Transition, Value, check, function, rule, value,
};
use fastrand::Rng;

use common::engine;

/// Names in contexts, few so that they meet.
const NAMES: [&str; 4] = ["a", "b", "m", "n"];

/// Steps and what they look at. Everything is drawn from little, so that many are nearly the same.
struct Draw<'a>(&'a mut Rng);

impl Draw<'_> {
    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.0.usize(0..of.len())].clone()
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.0.u32(0..many) == 0
    }

    fn name(&mut self) -> &'static str {
        self.pick(&NAMES)
    }

    fn value(&mut self) -> Value {
        self.pick(&[Value::Null, value!(false), value!(0), value!(1), value!("1"), value!([1]), value!({"m": 1})])
    }

    fn context(&mut self) -> Map {
        (0..self.0.usize(0..4)).map(|_| (self.name(), self.value())).collect()
    }

    /// A rule that tells what it is and what it sees.
    fn rule(&mut self) -> Rule {
        let name = self.name();
        match self.0.u8(0..3) {
            0 => {
                let value = self.value();
                rule(format!("give {value}"), move |_| Ok(value.clone()))
            }
            1 => rule(format!("context {name}"), move |view| {
                Ok(view.context.get(name).cloned().unwrap_or("none".into()))
            }),
            _ => rule("output", |view| Ok(view.output.clone())),
        }
    }

    fn maybe_rule(&mut self) -> Option<Rule> {
        self.0.bool().then(|| self.rule())
    }

    fn check(&mut self) -> Arc<dyn caudal_flow::Check> {
        let sort = self.pick(&["null", "number", "string", "object"]);
        check(
            format!("not {sort}"),
            move |value| if value.sort() == sort { Err(format!("it is {sort}")) } else { Ok(()) },
        )
    }

    fn checks(&mut self) -> Option<Arc<dyn caudal_flow::Check>> {
        self.one_in(3).then(|| self.check())
    }

    fn steps(&mut self, depth: u32) -> Steps {
        Steps::new((0..self.0.u32(0..3)).map(|_| self.step(depth)).collect::<Vec<_>>())
    }

    fn leaf(&mut self) -> Step {
        let (label, name) = (self.pick(&["", "x"]), self.name());
        let action = match self.0.u8(0..4) {
            0 => function(format!("of {name}"), move |call| {
                let seen = call.context.get(name).cloned().unwrap_or("none".into());
                Ok(value!({"was": serde_json_of(&call.input), "saw": serde_json_of(&seen), "m": name}))
            }),
            1 => function("fail", |_| Err(StepError::failed("no").for_good())),
            2 => function("same", |call| Ok(call.input.clone())),
            _ => {
                let value = self.value();
                function(format!("give {value}"), move |_| Ok(value.clone()))
            }
        };
        Step::act(label, action)
    }

    fn step(&mut self, depth: u32) -> Step {
        let step = if depth == 0 || self.one_in(3) { self.leaf() } else { self.deep(depth - 1) };
        if self.one_in(2) { self.with_policy(step, depth) } else { step }
    }

    fn with_policy(&mut self, step: Step, depth: u32) -> Step {
        let (input, takes, gives) = (self.maybe_rule(), self.checks(), self.checks());
        let (validator, fallback) = (self.checks(), self.one_in(3).then(|| self.step(depth.saturating_sub(1))));
        let sink = self.one_in(3).then(|| self.pick(&["a", "b", "m", "m.n"]));
        let updates = self.one_in(4);
        step.with(|policy| {
            (policy.input, policy.takes, policy.gives) = (input, takes, gives);
            policy.validators = validator.into_iter().collect();
            (policy.fallback, policy.sink) = (fallback.map(Arc::new), sink.map(Arc::from));
            policy.updates_context = updates;
        })
    }

    fn change(&mut self) -> Change {
        let how = self.pick(&[How::Set, How::Append, How::Merge]);
        Change { how, path: self.name().into(), value: self.rule() }
    }

    fn changes(&mut self) -> Vec<Change> {
        (0..self.0.usize(0..2)).map(|_| self.change()).collect()
    }

    fn branches(&mut self, depth: u32) -> Vec<(Arc<str>, Steps)> {
        let names = self.pick(&[&["true", "false"][..], &["1"], &["keys", "values", "false"]]);
        names.iter().map(|name| (Arc::from(*name), self.steps(depth))).collect()
    }

    fn parallel(&mut self, depth: u32) -> Parallel {
        let merges = [Merge::ContextUpdate, Merge::Overwrite, Merge::NoMerge, Merge::ErrorOnConflict, Merge::KeepFirst];
        let reduces = [None, Some(Reduce::Keys), Some(Reduce::Values), Some(Reduce::First), Some(Reduce::Last)];
        let keys = [&[][..], &["a"], &["keys"], &["values"], &["a", "m"]];
        Parallel {
            merge: self.pick(&merges),
            keys: self.pick(&keys).iter().map(|key| Arc::from(*key)).collect(),
            ignore_failures: self.0.bool(),
            reduce: self.pick(&reduces),
            ..Parallel::new(self.branches(depth))
        }
    }

    fn deep(&mut self, depth: u32) -> Step {
        let kind = match self.0.u8(0..8) {
            0 => Kind::Sequence(self.steps(depth)),
            1 => Kind::Parallel(Arc::new(self.parallel(depth))),
            2 => Kind::Conditional(Arc::new(Conditional {
                when: self.rule(),
                branches: self.branches(depth),
                otherwise: self.0.bool().then(|| self.steps(depth)),
            })),
            3 => Kind::Loop(Arc::new(Loop {
                until: self.maybe_rule(),
                must_end: self.0.bool(),
                first: self.maybe_rule(),
                next: match self.0.u8(0..3) {
                    0 => Propagate::Output,
                    1 => Propagate::Context,
                    _ => Propagate::Rule(self.rule()),
                },
                init: self.changes(),
                state: self.changes(),
                output: self.maybe_rule(),
                ..Loop::new(self.steps(depth), self.0.u32(1..3))
            })),
            4 => Kind::Map(Arc::new(Each {
                items: self.maybe_rule(),
                body: self.steps(depth),
                at_once: self.0.usize(1..3),
                ignore_failures: self.0.bool(),
            })),
            5 => Kind::Import(Arc::new(Import {
                pipeline: "other".into(),
                steps: self.steps(depth),
                inherits: self.0.bool(),
                knows: Knows { prompt: self.0.bool(), ..Knows::default() },
                outputs: self.0.bool().then(|| vec![(self.name().into(), self.name().into())]),
                ignore_failures: self.0.bool(),
            })),
            6 => Kind::Machine(Arc::new(Machine {
                start: "s".into(),
                ends: self.pick(&[vec![], vec!["t".into()]]),
                states: vec![("s".into(), self.steps(depth)), ("t".into(), self.steps(depth))],
                transitions: vec![Transition {
                    from: self.pick(&[None, Some("s".into())]),
                    on: self.pick(&[On::Success, On::Failure]),
                    when: self.maybe_rule(),
                    to: "t".into(),
                }],
                most: self.0.u32(1..3),
            })),
            _ => Kind::Search(Arc::new(Search {
                proposer: Box::new(Step::act("p", function("propose", |call| Ok(Value::list([call.input.clone()]))))),
                evaluator: Box::new(Step::act(
                    "e",
                    function("rate", |call| Ok(f64::from(u8::from(call.input.truthy())).into())),
                )),
                strategy: Strategy::Beam,
                branching: 1,
                width: 1,
                depth: 1,
                most: 2,
                goal: self.pick(&[None, Some(0.5)]),
                must_reach: self.0.bool(),
                cost: None,
                valid: self.maybe_rule(),
            })),
        };
        Step::new(self.pick(&["", "x"]), kind)
    }
}

fn serde_json_of(value: &Value) -> caudal_flow::serde_json::Value {
    value.into()
}

/// What came of a run, as one compares it.
type Came = Result<(String, String), String>;

fn came(ran: caudal_flow::Ran) -> Came {
    let context = Value::Map(ran.context.clone()).to_json();
    match ran.outcome {
        Outcome::Completed(value) => Ok((value.to_json(), context)),
        Outcome::Failed(RunError::Step { error, .. }) => Err(format!("{:?} {}", error.fault, error.message)),
        other => Err(format!("{other:?}")),
    }
}

/// A call: the step as it is, and the same remembered.
struct Asked {
    plain: Definition,
    cached: Definition,
    /// Which names of the context it may look at, if not all.
    names: Option<Vec<Arc<str>>>,
    input: Value,
    context: Map,
}

fn asked(draw: &mut Draw<'_>, steps: &[(Step, Option<Vec<Arc<str>>>)], contexts: &[Map]) -> Asked {
    let (step, names) = draw.pick(steps);
    let mut cached = Cached::new(step.clone());
    cached.context.clone_from(&names);
    let define = |step: Step| Definition::new("same", Steps::new([step]));
    let kept = Step::new("kept", Kind::Cache(Arc::new(cached)));
    Asked { plain: define(step), cached: define(kept), names, input: draw.value(), context: draw.pick(contexts) }
}

impl Asked {
    /// What the step may look at.
    fn sees(&self) -> Map {
        let seen = |name: &Arc<str>| self.names.as_ref().is_none_or(|names| names.contains(name));
        self.context.iter().filter(|(name, _)| seen(name)).cloned().collect()
    }

    /// What comes of it where nothing is remembered: what it makes of what it may look at, beside all else.
    async fn alone(&self) -> Came {
        let options = RunOptions { context: self.sees(), ..RunOptions::default() };
        let mut ran = engine().run(&self.plain, self.input.clone(), options).await;
        let before = self.sees();
        let changed = ran.context.iter().filter(|(name, value)| before.get(name) != Some(value)).cloned().collect();
        ran.context = self.context.merged(&changed);
        came(ran)
    }
}

/// One world: some steps, and many calls of them, told by its seed.
async fn world(seed: u64, shelf: Option<Arc<dyn Shelf>>) -> usize {
    let mut random = Rng::with_seed(seed);
    let mut draw = Draw(&mut random);
    let steps: Vec<(Step, Option<Vec<Arc<str>>>)> = (0..draw.0.usize(2..12))
        .map(|_| {
            let depth = draw.0.u32(0..3);
            let some = NAMES.iter().filter(|_| draw.0.bool()).map(|name| Arc::from(*name)).collect();
            (draw.step(depth), draw.one_in(3).then_some(some))
        })
        .collect();
    // So little room that what was remembered is often gone.
    let bytes = draw.pick(&[500, 4_000, 1 << 20]);
    let shared = Engine::new(Options {
        cache_bytes: bytes,
        cache_ttl: Some(Duration::from_secs(60)),
        shelf,
        ..Options::default()
    });
    let contexts = [(); 3].map(|()| draw.context());
    let calls: Vec<Asked> = (0..40).map(|_| asked(&mut draw, &steps, &contexts)).collect();
    let at_once = draw.0.usize(1..8);
    let running = calls.iter().map(|call| {
        let shared = shared.clone();
        async move {
            let options = RunOptions { context: call.context.clone(), ..RunOptions::default() };
            let ran = shared.run(&call.cached, call.input.clone(), options).await;
            let hit = ran.entries.first().is_some_and(|entry| entry.cached);
            let what = || format!("seed {seed}: input {}, context {}", call.input, Value::Map(call.context.clone()));
            assert_eq!(came(ran), call.alone().await, "{}", what());
            usize::from(hit)
        }
    });
    use futures_util::StreamExt;
    futures_util::stream::iter(running.collect::<Vec<_>>())
        .buffer_unordered(at_once)
        .fold(0, |all, hit| async move { all + hit })
        .await
}

/// How many worlds: in seconds here, in full behind `cargo xtask soak`.
fn worlds(few: u64, many: u64) -> impl Iterator<Item = u64> {
    let first = std::env::var("CAUDAL_TEST_SEED").ok().map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seeds from {first}");
    let count = if std::env::var_os("CAUDAL_TEST_FULL").is_some() { many } else { few };
    (0..count).map(move |number| first.wrapping_add(number))
}

#[tokio::test]
async fn no_answer_is_another_steps() {
    let mut hits = 0;
    for seed in worlds(400, 20_000) {
        hits += world(seed, None).await;
    }
    assert!(hits > 400, "some of it is remembered: {hits}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_off_a_shelf_that_has_little_room() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = SqliteShelf::open(ShelfOptions::within(folder.path(), 20_000)).unwrap();
    let shelf: Arc<dyn Shelf> = Arc::new(shelf);
    // All worlds share it: their steps are alike, and not the same.
    let tasks: Vec<_> = worlds(150, 5_000).map(|seed| tokio::spawn(world(seed, Some(Arc::clone(&shelf))))).collect();
    let mut hits = 0;
    for task in tasks {
        hits += task.await.unwrap();
    }
    assert!(hits > 150, "some of it is remembered: {hits}");
}
