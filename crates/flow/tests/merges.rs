//! What becomes of the contexts of parallel branches, beside a model that knows nothing of how it is done: random branches
//! that change random names, of objects within as well, that meet, and of which some fail.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use caudal_flow::{Kind, Map, Merge, Outcome, Parallel, RunOptions, Step, StepError, Steps, Value, function};
use common::{define, engine};
use proptest::prelude::*;

/// A value of the model: the same that JSON has, without sharing.
#[derive(Debug, Clone, PartialEq)]
enum Model {
    Null,
    Number(i64),
    Object(Object),
}

type Object = BTreeMap<String, Model>;

impl Model {
    fn value(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Number(number) => (*number).into(),
            Self::Object(object) => Value::Map(map(object)),
        }
    }
}

fn map(object: &Object) -> Map {
    object.iter().map(|(name, value)| (name.as_str(), value.value())).collect()
}

fn names() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(str::to_owned)
}

fn values() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![1 => Just(Model::Null), 4 => (0i64..3).prop_map(Model::Number)];
    leaf.prop_recursive(2, 12, 3, |inner| prop::collection::btree_map(names(), inner, 0..4).prop_map(Model::Object))
}

fn objects() -> impl Strategy<Value = Object> {
    prop::collection::btree_map(names(), values(), 0..5)
}

/// A branch: what it sets in the context, or that it fails; some set names one by one.
#[derive(Debug, Clone)]
struct Branch {
    sets: Object,
    fails: bool,
    within: Vec<(String, String, i64)>,
}

fn branches() -> impl Strategy<Value = Vec<Branch>> {
    let within = prop::collection::vec((names(), names(), 0i64..3), 0..3);
    let branch = (objects(), prop::bool::weighted(0.15), within).prop_map(|(sets, fails, within)| Branch {
        sets,
        fails,
        within,
    });
    prop::collection::vec(branch, 0..4)
}

fn rules() -> impl Strategy<Value = Merge> {
    use Merge::*;
    prop::sample::select(vec![ContextUpdate, Overwrite, NoMerge, ErrorOnConflict, KeepFirst])
}

impl Branch {
    /// The context after it.
    fn after(&self, before: &Object) -> Object {
        let mut after = before.clone();
        after.extend(self.sets.clone());
        for (name, within, number) in &self.within {
            let object = after.entry(name.clone()).or_insert(Model::Null);
            if !matches!(object, Model::Object(_)) {
                *object = Model::Object(Object::new());
            }
            if let Model::Object(object) = object {
                object.insert(within.clone(), Model::Number(*number));
            }
        }
        after
    }

    /// The same as steps.
    fn steps(&self) -> Steps {
        let (sets, fails) = (Value::Map(map(&self.sets)), self.fails);
        let give =
            function(
                "sets",
                move |_| if fails { Err(StepError::failed("it fails").for_good()) } else { Ok(sets.clone()) },
            );
        let first = Step::act("sets", give).with(|policy| policy.updates_context = true);
        let more = self.within.iter().map(|(name, within, number)| {
            let number = *number;
            let path = format!("{name}.{within}");
            Step::act("one", function("one", move |_| Ok(number.into()))).with(|policy| policy.sink = Some(path.into()))
        });
        Steps::new([first].into_iter().chain(more))
    }
}

/// What changed at a place: `was` before, and what a branch has there now if that is something else.
fn changed(was: &Object, now: &Object) -> Object {
    now.iter().filter(|(name, value)| was.get(*name) != Some(value)).map(|(n, v)| (n.clone(), v.clone())).collect()
}

/// What several made of one place, given what each changed it to, or that it took it away; none if they do not agree.
fn agreed(was: Option<&Model>, made: &[Option<&Model>]) -> Option<Option<Model>> {
    let Some((first, rest)) = made.split_first() else { return Some(was.cloned()) };
    if rest.iter().all(|other| other == first) {
        return Some(first.cloned());
    }
    let object =
        |model: &Option<&Model>| if let Some(Model::Object(object)) = model { Some(object.clone()) } else { None };
    let objects: Vec<Object> = made.iter().map(object).collect::<Option<_>>()?;
    // Within objects each name is a place of its own.
    let was = object(&was).unwrap_or_default();
    let names: BTreeSet<&String> = objects.iter().flat_map(|object| object.keys()).chain(was.keys()).collect();
    let mut all = Object::new();
    for name in names {
        let made: Vec<Option<&Model>> =
            objects.iter().map(|object| object.get(name)).filter(|made| *made != was.get(name)).collect();
        all.extend(agreed(was.get(name), &made)?.map(|value| (name.clone(), value)));
    }
    Some(Some(Model::Object(all)))
}

/// The context after all branches; none if they do not agree.
fn merged(rule: Merge, keys: &[String], before: &Object, branches: &[Branch]) -> Option<Object> {
    // Branches see these names alone.
    let wanted = |name: &String| keys.is_empty() || keys.contains(name);
    let listed = |object: &Object| -> Object { object.clone().into_iter().filter(|(name, _)| wanted(name)).collect() };
    let seen = listed(before);
    let changes: Vec<Object> = branches.iter().map(|branch| changed(&seen, &branch.after(&seen))).collect();
    let free = |context: &Object, name: &String| matches!(context.get(name), None | Some(Model::Null));
    let mut context = before.clone();
    match rule {
        Merge::NoMerge => {}
        Merge::Overwrite => context.extend(changes.last().map(listed).unwrap_or_default()),
        Merge::KeepFirst => {
            for (name, value) in changes.into_iter().flatten() {
                if free(&context, &name) {
                    context.insert(name, value);
                }
            }
        }
        Merge::ErrorOnConflict => {
            for (name, value) in changes.into_iter().flatten() {
                if !free(&context, &name) && context.get(&name) != Some(&value) {
                    return None;
                }
                context.insert(name, value);
            }
        }
        Merge::ContextUpdate => {
            for name in changes.iter().flat_map(Object::keys).collect::<BTreeSet<_>>() {
                let made: Vec<_> = changes.iter().filter(|c| c.contains_key(name)).map(|c| c.get(name)).collect();
                context.extend(agreed(seen.get(name), &made)?.map(|value| (name.clone(), value)));
            }
        }
    }
    Some(context)
}

fn many() -> u32 {
    if std::env::var_os("CAUDAL_TEST_FULL").is_some() { 200_000 } else { 3_000 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: many(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn contexts_go_together_as_the_rule_says(
        rule in rules(),
        keys in prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(names(), 1..3)],
        before in objects(),
        branches in branches(),
        ignore in any::<bool>(),
    ) {
        let named = (0..).zip(&branches).map(|(number, branch): (usize, _)| (Arc::from(format!("b{number}")), branch.steps()));
        let parallel = Parallel {
            merge: rule,
            keys: keys.iter().map(|key| Arc::from(key.as_str())).collect(),
            ignore_failures: ignore,
            ..Parallel::new(named.collect())
        };
        let definition = define([Step::new("par", Kind::Parallel(Arc::new(parallel)))]);
        let options = RunOptions { context: map(&before), ..RunOptions::default() };
        let ran = futures_util::FutureExt::now_or_never(engine().run(&definition, Value::Null, options));
        let ran = ran.expect("nothing in it waits");

        let good: Vec<Branch> = branches.iter().filter(|branch| !branch.fails).cloned().collect();
        let expected = match good.len() < branches.len() && !ignore {
            true => Err("it fails"),
            false => merged(rule, &keys, &before, &good).ok_or("already"),
        };
        match (ran.outcome, expected) {
            (Outcome::Completed(value), Ok(expected)) => {
                prop_assert_eq!(Value::Map(ran.context), Model::Object(expected).value());
                prop_assert_eq!(value.as_map().map(Map::len), Some(good.len()), "each that did not fail has its output");
            }
            (Outcome::Failed(error), Err(words)) => prop_assert!(error.to_string().contains(words), "{}", error),
            (outcome, expected) => prop_assert!(false, "{:?}, and the model says {:?}", outcome, expected),
        }
    }
}
