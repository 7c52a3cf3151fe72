//! What each sort of step does, with the pipelines put together by hand.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::{sync::Arc, time::Duration};

use caudal_flow::{
    Cached, Change, Conditional, Each, Engine, Fault, How, Human, Import, Kind, Knows, Loop, Machine, Map, Merge, On,
    Options, Outcome, Parallel, Pipeline, Propagate, Reduce, Retry, Router, RunError, RunOptions, Search, Status, Step,
    StepError, Steps, Strategy, Transition, Value, check, function, later, rule, value,
};
use common::{add, define, engine, give, runs, set, text};

/// Runs `steps` and compares the output.
async fn gives(steps: impl IntoIterator<Item = Step>, input: Value, output: Value) {
    assert_eq!(runs(steps, input).await.output(), Ok(output));
}

/// Runs `steps`, which must fail with these words.
async fn fails(steps: impl IntoIterator<Item = Step>, fault: Fault, words: &str) {
    match runs(steps, Value::Null).await.outcome {
        Outcome::Failed(RunError::Step { error, .. }) => {
            assert_eq!(error.fault, fault, "{error}");
            assert!(error.message.contains(words), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

fn branches(names: &[(&str, Steps)]) -> Vec<(Arc<str>, Steps)> {
    names.iter().map(|(name, steps)| (Arc::from(*name), steps.clone())).collect()
}

fn parallel(change: impl FnOnce(&mut Parallel), names: &[(&str, Steps)]) -> Step {
    let mut parallel = Parallel::new(branches(names));
    change(&mut parallel);
    Step::new("par", Kind::Parallel(Arc::new(parallel)))
}

fn one(step: Step) -> Steps {
    Steps::new([step])
}

#[tokio::test]
async fn steps_follow_each_other() {
    gives([add(1), add(2), add(3)], 1.into(), 7.into()).await;
    gives([], text("nothing to do"), text("nothing to do")).await;
}

#[tokio::test]
async fn branches_are_given_the_same_and_make_an_object() {
    let names = [("a", one(add(1))), ("b", one(add(10)))];
    gives([parallel(|_| (), &names)], 1.into(), value!({"a": 2, "b": 11})).await;
    let reduced = |reduce: Reduce| parallel(move |parallel| parallel.reduce = Some(reduce), &names);
    gives([reduced(Reduce::Keys)], 1.into(), value!(["a", "b"])).await;
    gives([reduced(Reduce::Values)], 1.into(), value!([2, 11])).await;
    gives([reduced(Reduce::First)], 1.into(), 2.into()).await;
    gives([reduced(Reduce::Last)], 1.into(), 11.into()).await;
    gives([reduced(Reduce::Concat)], 1.into(), value!([2, 11])).await;
    gives(
        [reduced(Reduce::Rule(rule("sum", |view| {
            Ok(view.output.as_map().unwrap().iter().filter_map(|(_, value)| value.as_i64()).sum::<i64>().into())
        })))],
        1.into(),
        13.into(),
    )
    .await;
    let votes = [("a", one(give(1))), ("b", one(give(2))), ("c", one(give(2)))];
    gives([parallel(|parallel| parallel.reduce = Some(Reduce::Majority), &votes)], Value::Null, 2.into()).await;
    let maps = [("a", one(give(value!({"x": 1, "y": 1})))), ("b", one(give(value!({"y": 2}))))];
    gives([parallel(|parallel| parallel.reduce = Some(Reduce::Union), &maps)], Value::Null, value!({"x": 1, "y": 2}))
        .await;
}

/// What `rule` makes of a context `{"old": 0, "map": {"k": 0}}` that two branches change.
async fn merged(rule: Merge, first: Value, second: Value) -> Result<Value, RunError> {
    let names = [("a", one(set(first))), ("b", one(set(second)))];
    let steps = [parallel(|parallel| parallel.merge = rule, &names)];
    let context = value!({"old": 0, "map": {"k": 0}}).as_map().cloned().unwrap();
    let options = RunOptions { context, ..RunOptions::default() };
    let ran = engine().run(&define(steps), Value::Null, options).await;
    let context = ran.context.clone();
    ran.output().map(|_| Value::Map(context))
}

#[tokio::test]
async fn contexts_merge_as_the_rule_says() {
    let with = |changes: Value| {
        let before = value!({"old": 0, "map": {"k": 0}});
        Ok(Value::Map(before.as_map().unwrap().merged(changes.as_map().unwrap())))
    };
    let conflict = |went: Result<Value, RunError>| {
        let error = went.unwrap_err().to_string();
        assert!(error.contains("it is") && error.contains("already"), "{error}");
    };
    use Merge::*;
    assert_eq!(merged(ContextUpdate, value!({"x": 1}), value!({"y": 2})).await, with(value!({"x": 1, "y": 2})));
    assert_eq!(merged(ContextUpdate, value!({"x": 1}), value!({"x": 1})).await, with(value!({"x": 1})));
    assert_eq!(merged(ContextUpdate, value!({"old": 1}), value!({"y": 2})).await, with(value!({"old": 1, "y": 2})));
    conflict(merged(ContextUpdate, value!({"x": 1}), value!({"x": 2})).await);
    let both = merged(ContextUpdate, value!({"map": {"k": 0, "a": 1}}), value!({"map": {"k": 0, "b": 2}})).await;
    assert_eq!(both, with(value!({"map": {"k": 0, "a": 1, "b": 2}})));
    conflict(merged(ContextUpdate, value!({"map": {"k": 1}}), value!({"map": {"k": 2}})).await);

    assert_eq!(merged(Overwrite, value!({"x": 1, "z": 3}), value!({"x": 2})).await, with(value!({"x": 2})));
    assert_eq!(merged(NoMerge, value!({"x": 1}), value!({"old": 2})).await, with(value!({})));
    assert_eq!(merged(KeepFirst, value!({"x": 1}), value!({"x": 2, "y": 3})).await, with(value!({"x": 1, "y": 3})));
    assert_eq!(merged(KeepFirst, value!({"old": 1}), value!({})).await, with(value!({})));
    assert_eq!(merged(ErrorOnConflict, value!({"x": 1}), value!({"y": 2})).await, with(value!({"x": 1, "y": 2})));
    conflict(merged(ErrorOnConflict, value!({"x": 1}), value!({"x": 2})).await);
    conflict(merged(ErrorOnConflict, value!({"old": 1}), value!({})).await);
}

#[tokio::test]
async fn overwrite_brings_back_only_the_listed_names() {
    let names = [("a", one(set(value!({"x": 1, "y": 1})))), ("b", one(set(value!({"z": 2, "y": 2}))))];
    let overwrite = |parallel: &mut Parallel| {
        parallel.keys = vec!["x".into(), "z".into()];
        parallel.merge = Merge::Overwrite;
    };
    let ran = runs([parallel(overwrite, &names)], Value::Null).await;
    assert_eq!(Value::Map(ran.context), value!({"z": 2}));
}

#[tokio::test]
async fn a_branch_that_fails_fails_all_or_is_left_out() {
    let names = [("good", one(give(1))), ("bad", one(broken()))];
    fails([parallel(|_| (), &names)], Fault::Failed, "it broke").await;
    gives([parallel(|parallel| parallel.ignore_failures = true, &names)], Value::Null, value!({"good": 1})).await;
}

fn broken() -> Step {
    Step::act("broken", function("broken", |_| Err(StepError::failed("it broke"))))
}

fn when(name: &str, branches_of: &[(&str, Steps)], otherwise: Option<Steps>) -> Step {
    let name: Arc<str> = name.into();
    let when = rule(Arc::clone(&name), move |view| Ok(view.output.get(&name).cloned().unwrap_or_default()));
    Step::new("choose", Kind::Conditional(Arc::new(Conditional { when, branches: branches(branches_of), otherwise })))
}

#[tokio::test]
async fn a_condition_chooses_by_name_or_by_yes_and_no() {
    let step = |otherwise| when("kind", &[("cat", one(give("meow"))), ("dog", one(give("woof")))], otherwise);
    gives([step(None)], value!({"kind": "dog"}), text("woof")).await;
    gives([step(Some(one(give("?"))))], value!({"kind": "cow"}), text("?")).await;
    fails([give(value!({"kind": "cow"})), step(None)], Fault::Failed, "there is no branch cow, only cat, dog").await;
    let yes = |found: Value| {
        let step = when("found", &[("true", one(give("yes"))), ("false", one(give("no")))], None);
        async move { runs([step], value!({"found": serde_json(&found)})).await.output().unwrap() }
    };
    for (found, answer) in
        [(value!(true), "yes"), (value!(0), "no"), (value!([1]), "yes"), (value!([]), "no"), (Value::Null, "no")]
    {
        assert_eq!(yes(found.clone()).await, text(answer), "{found}");
    }
    let no = when("found", &[("true", one(give("yes"))), ("false", one(give("no")))], None);
    let found = value!({"found": "no"});
    fails([give(found), no], Fault::Failed, "there is no branch no, only true, false").await;
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_longer_than_the_longest() {
    let busy = |after: u64| {
        let busy = function("busy", move |call| match call.attempt {
            1 => Err(StepError::new(Fault::TooManyRequests, "too often").after(Duration::from_secs(after))),
            _ => Ok("came back".into()),
        });
        Step::act("busy", busy).with(|policy| {
            policy.retry.more = 1;
            policy.retry.longest = Duration::from_secs(20);
            policy.fallback = Some(Arc::new(give("plan B")));
        })
    };
    let began = tokio::time::Instant::now();
    gives([busy(86_400)], Value::Null, text("plan B")).await;
    assert!(began.elapsed() < Duration::from_secs(1), "no part of such a wait is spent");
    gives([busy(20)], Value::Null, text("came back")).await;
    assert!(began.elapsed() >= Duration::from_secs(20));
    let alone = busy(86_400).with(|policy| policy.fallback = None);
    let ran = runs([alone], Value::Null).await;
    let Outcome::Failed(RunError::Step { error, .. }) = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!(error.message, "too often");
    assert!(error.hint.contains("86400s") && error.hint.contains("retry_longest_s allows 20s"), "{}", error.hint);
}

fn serde_json(value: &Value) -> caudal_flow::serde_json::Value {
    value.into()
}

#[tokio::test]
async fn a_loop_ends_when_it_is_enough_and_at_its_limit() {
    let looped = |change: fn(&mut Loop), most| {
        let mut again = Loop::new(one(add(1)), most);
        change(&mut again);
        Step::new("loop", Kind::Loop(Arc::new(again)))
    };
    gives([looped(|_| (), 5)], 0.into(), 5.into()).await;
    gives(
        [looped(|again| again.until = Some(rule("ten", |view| Ok((view.output.as_i64() >= Some(3)).into()))), 9)],
        0.into(),
        3.into(),
    )
    .await;
    let never = looped(|again| (again.until, again.must_end) = (Some(rule("never", |_| Ok(false.into()))), true), 4);
    fails([give(0), never], Fault::Failed, "4 turns were not enough").await;
    let kept = looped(
        |again| {
            again.init = vec![Change { how: How::Set, path: "seen".into(), value: rule("none", |_| Ok(value!([]))) }];
            again.state = vec![Change {
                how: How::Append,
                path: "context.seen".into(),
                value: rule("it", |view| Ok(view.output.clone())),
            }];
            again.output = Some(rule("seen", |view| Ok(view.context.get("seen").cloned().unwrap_or_default())));
        },
        3,
    );
    gives([kept], 0.into(), value!([1, 2, 3])).await;
    let fixed = looped(|again| again.next = Propagate::Rule(rule("ten", |_| Ok(10.into()))), 3);
    gives([fixed], 0.into(), 11.into()).await;
}

#[tokio::test]
async fn a_map_keeps_the_order_of_its_items() {
    let slow = later("slow", |call| async move {
        let ms = call.input.as_i64().unwrap_or(0) as u64;
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(Value::from(ms * 2))
    });
    let each = |at_once, ignore_failures| {
        let body = one(Step::act("slow", Arc::clone(&slow)));
        Step::new("map", Kind::Map(Arc::new(Each { items: None, body, at_once, ignore_failures })))
    };
    tokio::time::pause();
    for at_once in [1, 2, 8] {
        gives([each(at_once, false)], value!([30, 10, 20]), value!([60, 20, 40])).await;
    }
    gives([each(3, false)], value!([]), value!([])).await;
    fails([give(7), each(1, false)], Fault::Input, "goes through a list, and was given number").await;
    let began = tokio::time::Instant::now();
    gives([each(3, false)], value!([100, 100, 100]), value!([200, 200, 200])).await;
    assert!(began.elapsed() < Duration::from_millis(150), "they wait at the same time");
}

#[tokio::test]
async fn items_that_fail_are_null_where_that_is_allowed() {
    let odd = function("odd", |call| match call.input.as_i64() {
        Some(n) if n % 2 == 1 => Ok(n.into()),
        _ => Err(StepError::failed("even")),
    });
    for at_once in [1, 4] {
        let body = one(Step::act("odd", Arc::clone(&odd)));
        let each = Each { items: None, body, at_once, ignore_failures: true };
        gives([Step::new("map", Kind::Map(Arc::new(each)))], value!([1, 2, 3]), value!([1, null, 3])).await;
    }
}

#[tokio::test]
async fn a_router_runs_the_branches_that_are_chosen() {
    let router = |choice: Value| {
        let parallel = Parallel::new(branches(&[("a", one(add(1))), ("b", one(add(2))), ("c", one(add(3)))]));
        Step::new("route", Kind::Router(Arc::new(Router { chooser: Box::new(give(choice)), parallel })))
    };
    gives([router("b".into())], 10.into(), value!({"b": 12})).await;
    gives([router(value!(["c", "a"]))], 10.into(), value!({"a": 11, "c": 13})).await;
    gives([router(value!({"a": 1, "b": 2}))], 10.into(), value!({"a": 2, "b": 4})).await;
    fails([router("z".into())], Fault::Output, "it chose z, and there are a, b, c").await;
}

#[tokio::test]
async fn an_imported_pipeline_sees_and_gives_what_it_may() {
    let import = |inherits, outputs: Option<Vec<(Arc<str>, Arc<str>)>>| {
        let steps = Steps::new([set(value!({"inner": 1, "more": 2})), give("done")]);
        Step::new(
            "import",
            Kind::Import(Arc::new(Import {
                pipeline: "other".into(),
                steps,
                knows: Knows::default(),
                inherits,
                outputs,
                ignore_failures: false,
            })),
        )
    };
    let context =
        |step: Step| async move { Value::Map(runs([set(value!({"outer": 0})), step], Value::Null).await.context) };
    assert_eq!(context(import(true, None)).await, value!({"outer": 0, "inner": 1, "more": 2}));
    assert_eq!(context(import(false, None)).await, value!({"outer": 0}));
    let some = Some(vec![("inner".into(), "result.inner".into())]);
    assert_eq!(context(import(false, some)).await, value!({"outer": 0, "result": {"inner": 1}}));
}

#[tokio::test]
async fn states_lead_to_each_other() {
    let machine = |most| {
        let states = branches(&[
            ("draft", one(add(1))),
            ("check", one(add(0))),
            ("repair", one(add(10))),
            ("done", Steps::new([])),
        ]);
        let to = |from: &str, to: &str, on, when| Transition { from: Some(from.into()), on, when, to: to.into() };
        let good = rule("good", |view| Ok((view.output.as_i64() > Some(5)).into()));
        let transitions = vec![
            to("draft", "check", On::Success, None),
            to("check", "done", On::Success, Some(good)),
            to("check", "repair", On::Success, None),
            to("repair", "check", On::Success, None),
        ];
        Step::new(
            "machine",
            Kind::Machine(Arc::new(Machine {
                start: "draft".into(),
                ends: vec!["done".into()],
                states,
                transitions,
                most,
            })),
        )
    };
    gives([machine(10)], 0.into(), 11.into()).await;
    gives([machine(10)], 9.into(), 10.into()).await;
    fails([give(0), machine(2)], Fault::Failed, "2 states were passed").await;
}

#[tokio::test]
async fn a_tree_is_searched_for_the_best() {
    // From n it proposes 2n and 2n + 1; the closer to 21 the better: 1, 2, 5, 10, 21.
    let search = |strategy, most| {
        let proposer = Step::act(
            "propose",
            function("propose", |call| {
                let n = call.input.as_i64().unwrap_or(0);
                Ok(value!([n * 2, n * 2 + 1]))
            }),
        );
        let evaluator = Step::act(
            "rate",
            function("rate", |call| Ok(Value::from(1.0 - (call.input.as_i64().unwrap_or(0) - 21).abs() as f64 / 21.0))),
        );
        let tree = Search {
            proposer: Box::new(proposer),
            evaluator: Box::new(evaluator),
            strategy,
            branching: 2,
            width: 8,
            depth: 6,
            most,
            goal: Some(1.0),
            must_reach: true,
            cost: Some(rule("free", |_| Ok(0.0.into()))),
            valid: None,
        };
        Step::new("search", Kind::Search(Arc::new(tree)))
    };
    let found = value!({"best": 21, "score": 1.0, "level": 4, "reached": true});
    gives([search(Strategy::Beam, 100)], 1.into(), found.clone()).await;
    gives([search(Strategy::AStar, 100)], 1.into(), found).await;
    fails([give(1), search(Strategy::Beam, 1)], Fault::Failed, "the best of 1 proposals").await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_with_pauses_that_grow() {
    let tried = |until: u32, more| {
        let act = function("flaky", move |call| match call.attempt {
            attempt if attempt < until => Err(StepError::failed(format!("try {attempt}"))),
            attempt => Ok(attempt.into()),
        });
        let wait = Duration::from_millis(100);
        Step::act("flaky", act).with(|policy| policy.retry = Retry { more, wait, jitter: false, ..Retry::default() })
    };
    let began = tokio::time::Instant::now();
    gives([tried(4, 3)], Value::Null, 4.into()).await;
    assert_eq!(began.elapsed(), Duration::from_millis(100 + 200 + 400));
    fails([tried(4, 2)], Fault::Failed, "try 3").await;
    let busy = function("busy", |call| match call.attempt {
        1 => Err(StepError::failed("busy").after(Duration::from_secs(7))),
        _ => Ok(Value::Null),
    });
    let began = tokio::time::Instant::now();
    gives([Step::act("busy", busy).with(|policy| policy.retry.more = 1)], Value::Null, Value::Null).await;
    assert!(began.elapsed() >= Duration::from_secs(7), "whoever was asked knows best");
}

#[tokio::test(start_paused = true)]
async fn what_takes_too_long_is_broken_off() {
    let slow = later("slow", |_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(Value::Null)
    });
    let step = Step::act("slow", Arc::clone(&slow)).with(|policy| policy.timeout = Some(Duration::from_secs(2)));
    let began = tokio::time::Instant::now();
    fails([step.clone()], Fault::TimedOut, "longer than 2s").await;
    assert_eq!(began.elapsed().as_secs(), 2);
    let saved = step.with(|policy| policy.fallback = Some(Arc::new(give("instead"))));
    gives([saved], Value::Null, text("instead")).await;
    let whole = RunOptions { timeout: Some(Duration::from_secs(5)), ..RunOptions::default() };
    let ran = engine().run(&define([Step::act("slow", slow)]), Value::Null, whole).await;
    assert_eq!(ran.outcome, Outcome::Failed(RunError::TimedOut));
    assert_eq!(ran.entries[0].status, Status::Cancelled);
}

#[tokio::test]
async fn a_run_that_never_waits_can_be_cancelled_too() {
    let steps = Loop::new(one(add(1)), u32::MAX);
    let engine = Engine::new(Options { most_steps: usize::MAX, ..Options::default() });
    let definition = define([Step::new("for ever", Kind::Loop(Arc::new(steps)))]);
    let run = engine.begin(&definition, 0.into(), RunOptions::default()).await.map_err(|(_, error)| error).unwrap();
    let handle = run.handle();
    let ran = tokio::spawn(run);
    std::thread::sleep(Duration::from_millis(5));
    tokio::task::yield_now().await;
    handle.cancel();
    assert_eq!(ran.await.unwrap().outcome, Outcome::Failed(RunError::Cancelled));
    let endless = Step::new("for ever", Kind::Loop(Arc::new(Loop::new(one(add(1)), u32::MAX))));
    fails([give(0), endless], Fault::Budget, "the run has taken 100000 steps").await;
}

#[tokio::test]
async fn a_panic_is_its_steps_failure_alone() {
    fails([Step::act("bad", function("bad", |_| panic!("on purpose")))], Fault::Panicked, "on purpose").await;
    fails([Step::act("bad", later("bad", |_| async { panic!("later {}", 1) }))], Fault::Panicked, "later 1").await;
    let saved = Step::act("bad", function("bad", |_| panic!("on purpose")))
        .with(|policy| policy.fallback = Some(Arc::new(give(1))));
    gives([saved], Value::Null, 1.into()).await;
}

#[tokio::test]
async fn what_is_wrong_is_turned_down() {
    let number =
        || check("number", |value| value.as_i64().map(drop).ok_or_else(|| format!("{} is no number", value.sort())));
    fails([give("x"), add(1).with(|policy| policy.takes = Some(number()))], Fault::Input, "string is no number").await;
    fails([give("x").with(|policy| policy.gives = Some(number()))], Fault::Output, "string is no number").await;
    let better = function("better", |call| Ok(call.feedback().map_or(text("bad"), |words| text(&words))));
    let refined = Step::act("better", better).with(|policy| {
        policy.validators =
            vec![check("long", |value| if value.as_text() == Some("bad") { Err("too short".into()) } else { Ok(()) })];
        policy.retry = Retry { more: 2, wait: Duration::ZERO, ..Retry::default() };
    });
    gives([refined], Value::Null, text("its output was turned down: too short")).await;
}

#[tokio::test]
async fn an_answer_is_remembered_by_what_it_depends_on() {
    let counted = || {
        let count = std::sync::atomic::AtomicI64::new(0);
        function("count", move |call| {
            let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(value!({"n": n, "of": serde_json(&call.input)}))
        })
    };
    let engine = engine();
    let act = counted();
    let cached = |names: Option<&[&str]>| {
        let names = names.map(|names| names.iter().map(|name| Arc::from(*name)).collect());
        let mut step = Cached::new(Step::act("count", Arc::clone(&act)));
        step.context = names;
        Step::new("cache", Kind::Cache(Arc::new(step)))
    };
    let count = |step: Step, input: i64, context: Value| {
        let engine = engine.clone();
        async move {
            let options = RunOptions { context: context.as_map().cloned().unwrap(), ..RunOptions::default() };
            let ran = engine.run(&define([step]), input.into(), options).await;
            let cached = ran.entries[0].cached;
            (ran.output().unwrap().get("n").and_then(Value::as_i64).unwrap(), cached)
        }
    };
    assert_eq!(count(cached(None), 1, value!({})).await, (0, false));
    assert_eq!(count(cached(None), 1, value!({})).await, (0, true));
    assert_eq!(count(cached(None), 2, value!({})).await, (1, false), "another input");
    assert_eq!(count(cached(None), 1, value!({"x": 1})).await, (2, false), "another context");
    assert_eq!(count(cached(Some(&["y"])), 1, value!({"x": 1})).await, (3, false));
    assert_eq!(count(cached(Some(&["y"])), 1, value!({"x": 2})).await, (3, true), "what it may not look at");
    assert_eq!(count(cached(Some(&["y"])), 1, value!({"y": 2})).await, (4, false), "what it looks at");
}

#[tokio::test]
async fn one_of_many_makes_what_all_want_and_failures_are_not_remembered() {
    let made = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = Arc::clone(&made);
    let slow = later("slow", move |call| {
        let count = Arc::clone(&count);
        async move {
            let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            if n == 0 { Err(StepError::failed("the first fails")) } else { Ok(call.input.clone()) }
        }
    });
    let engine = engine();
    let definition = define([Step::new("cache", Kind::Cache(Arc::new(Cached::new(Step::act("slow", slow)))))]);
    let all =
        || futures_util::future::join_all((0..50).map(|_| engine.run(&definition, 1.into(), RunOptions::default())));
    assert!(all().await.into_iter().all(|ran| ran.output().is_err()));
    assert!(all().await.into_iter().all(|ran| ran.output() == Ok(1.into())));
    assert_eq!(made.load(std::sync::atomic::Ordering::Relaxed), 2);
}

#[tokio::test]
async fn who_waits_in_a_cached_step_is_asked_itself() {
    let slow = later("slow", |call| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(call.input.clone())
    });
    let human = Kind::Human(Arc::new(Human { message: None, answers: None, schema: Value::Null }));
    let within = Kind::Sequence(Steps::new([Step::act("slow", slow), Step::new("ask", human)]));
    let cached = Cached::new(Step::new("both", within));
    let definition = define([Step::new("cache", Kind::Cache(Arc::new(cached)))]);
    let engine = engine();
    let run = || engine.run(&definition, 1.into(), RunOptions::default());
    let (first, second) = tokio::join!(run(), run());
    for ran in [first, second] {
        assert!(matches!(&ran.outcome, Outcome::Paused(_)), "{ran:?}");
        assert!(ran.entries.iter().any(|entry| entry.kind == "hitl"), "{ran:?}");
    }
}

#[tokio::test]
async fn somebody_is_asked_and_the_run_waits() {
    let ask = |name: &str| {
        Step::new(
            name,
            Kind::Human(Arc::new(Human {
                message: Some(rule("words", |view| Ok(format!("is {} right?", view.output).into()))),
                answers: Some(check("yes or no", |value| {
                    if matches!(value, Value::Bool(_)) { Ok(()) } else { Err("say yes or no".into()) }
                })),
                schema: value!({"type": "boolean"}),
            })),
        )
    };
    let engine = engine();
    let definition =
        define([add(1), ask("approve"), Step::act("not", function("not", |call| Ok((!call.input.truthy()).into())))]);
    let ran = engine.run(&definition, 1.into(), RunOptions::default()).await;
    let Outcome::Paused(prompts) = &ran.outcome else { panic!("{ran:?}") };
    assert_eq!((&*prompts[0].path, &prompts[0].message), ("approve", &text("is 2 right?")));
    let say = |answer: Value| {
        let (engine, definition, id) = (engine.clone(), definition.clone(), Arc::clone(&ran.id));
        async move {
            Ok::<_, RunError>(engine.resume(&definition, &id, [("".into(), answer)].into(), false).await?.await.outcome)
        }
    };
    let refused = say("perhaps".into()).await;
    assert!(
        matches!(&refused, Ok(Outcome::Paused(prompts)) if prompts[0].refused.as_deref() == Some("say yes or no")),
        "{refused:?}"
    );
    assert_eq!(say(true.into()).await, Ok(Outcome::Completed(false.into())));
    assert_eq!(say(true.into()).await, Err(RunError::State("completed already")));
}

#[tokio::test]
async fn what_goes_its_own_way_is_not_waited_for() {
    let (told, heard) = std::sync::mpsc::channel();
    let slow = later("slow", move |call| {
        let told = told.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(30)).await;
            told.send(call.input.clone()).unwrap();
            Ok(Value::Null)
        }
    });
    let aside = Step::act("slow", slow).with(|policy| policy.background = true);
    gives([add(1), aside, add(1)], 1.into(), 3.into()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(heard.try_recv(), Ok(2.into()));
}

#[tokio::test]
async fn typed_pipelines_hand_on_what_they_made_as_it_is() {
    #[derive(Debug, Clone, serde::Serialize, serde::Deserialize, PartialEq)]
    struct Picture {
        pixels: Vec<u8>,
    }
    let halves = Pipeline::<u64, u64>::new("typed")
        .step("picture", |size: &u64, _| Ok(Picture { pixels: vec![7; *size as usize] }))
        .both(
            "both",
            Pipeline::<Picture, Picture>::new("count")
                .step("count", |picture: &Picture, _| Ok(picture.pixels.len() as u64)),
            Pipeline::<Picture, Picture>::new("first")
                .step("first", |picture: &Picture, _| Ok(u32::from(picture.pixels[0]))),
        )
        .step("sum", |both: &(u64, u32), _| Ok(both.0 + u64::from(both.1)))
        .either(
            "large",
            |n: &u64| *n > 50,
            Pipeline::<u64, u64>::new("yes").step("yes", |_: &u64, _| Ok("large".to_owned())),
            Pipeline::<u64, u64>::new("no").step("no", |_: &u64, _| Ok("small".to_owned())),
        )
        .define();
    assert_eq!(engine().run(&halves, 100.into(), RunOptions::default()).await.output(), Ok("large".into()));
    assert_eq!(engine().run(&halves, 3.into(), RunOptions::default()).await.output(), Ok("small".into()));
    let words = Pipeline::<String, String>::new("words")
        .step("split", |text: &String, _| Ok(text.split(' ').map(str::to_owned).collect::<Vec<_>>()))
        .map(
            "lengths",
            Pipeline::<String, String>::new("length").step("length", |word: &String, _| Ok(word.len() as u64)),
            4,
        )
        .define();
    assert_eq!(engine().run(&words, "a bb ccc".into(), RunOptions::default()).await.output(), Ok(value!([1, 2, 3])));
}

#[tokio::test]
async fn a_summary_of_the_context_is_kept_where_it_is_wanted() {
    let steps = [
        give(5).with(|policy| policy.sink = Some("result.first".into())),
        give(value!({"second": 6})).with(|policy| policy.updates_context = true),
    ];
    assert_eq!(Value::Map(runs(steps, Value::Null).await.context), value!({"result": {"first": 5}, "second": 6}));
    fails([give(5).with(|policy| policy.updates_context = true)], Fault::Output, "gave number, not an object").await;
    assert_eq!(Map::default(), runs([give(1)], Value::Null).await.context);
}

#[tokio::test]
async fn what_grows_with_each_turn_has_an_end() {
    let wrap = |view: &caudal_flow::View<'_>| {
        Ok(value!({"within": 0}).as_map().unwrap().with("within", view.output.clone()).into())
    };
    let grows = "more than 100 deep";
    let turns = 50_000;
    // By what a leaf makes, by what the next turn is given, and by what the context gathers.
    let leaf = function("wrap", |call| Ok(Value::list([call.input.clone()])));
    let body = Steps::new([Step::act("wrap", leaf)]);
    fails([Step::new("loop", Kind::Loop(Arc::new(Loop::new(body, turns))))], Fault::Output, grows).await;
    let next = Loop { next: Propagate::Rule(rule("wrap", wrap)), ..Loop::new(Steps::new([]), turns) };
    fails([Step::new("loop", Kind::Loop(Arc::new(next)))], Fault::Output, grows).await;
    let gathers = rule("gather", |view| Ok(Value::Map(view.context.clone())));
    let change = Change { path: "all".into(), how: How::Set, value: gathers };
    let state = Loop { state: vec![change], ..Loop::new(Steps::new([]), turns) };
    fails([Step::new("loop", Kind::Loop(Arc::new(state)))], Fault::Output, grows).await;
    let nested = (0..120).fold(Value::Null, |value, _| Value::list([value]));
    let refused = runs([add(1)], nested).await.output().unwrap_err().to_string();
    assert!(refused.contains("the pipeline's input does not fit") && refused.contains(grows), "{refused}");
}
