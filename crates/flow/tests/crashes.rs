//! Runs that are broken off between any two lines of their journals come to the same place when they are taken up.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use caudal_flow::{
    Allowance, Cached, Call, Definition, Engine, Flows, Handle, Human, Kind, Limits, Options, Outcome, Parallel,
    Router, Run, RunError, Step, StepError, Steps, Usage, Value, function,
    journal::{Line, Listing, MemoryRuns, Reply, Runs, Story},
    later, value,
};
use common::{add, give, kept as define, named, over};
use futures_util::FutureExt;
use uuid::Uuid;

/// Runs kept in memory by something that writes slowly and fails at times.
#[derive(Default)]
struct Shaky {
    runs: MemoryRuns,
    /// Whether the first write of several lines fails.
    groups_fail: AtomicBool,
    /// So many writes fail.
    fails: AtomicU32,
    /// Whether all owners are taken for gone.
    all_gone: AtomicBool,
}

impl Runs for Shaky {
    fn create(&self, id: &str, begun: Bytes) -> Reply<()> {
        self.runs.create(id, begun)
    }

    fn append(&self, id: &str, expected: u64, lines: Vec<Line>) -> Reply<()> {
        let group = lines.len() > 1 && self.groups_fail.swap(false, Relaxed);
        let fails = self.fails.fetch_update(Relaxed, Relaxed, |fails| fails.checked_sub(1)).is_ok();
        let appended = (!group && !fails).then(|| self.runs.append(id, expected, lines));
        async move {
            tokio::time::sleep(Duration::from_millis(10)).await;
            match appended {
                Some(appended) => appended.await,
                None => Err(RunError::Store(caudal_store::StoreError::Closed)),
            }
        }
        .boxed()
    }

    fn read(&self, id: &str) -> Reply<Option<(Bytes, Vec<Line>)>> {
        self.runs.read(id)
    }

    fn list(&self, limit: u32, offset: u64) -> Reply<Listing> {
        self.runs.list(limit, offset)
    }

    fn keep(&self, hash: &str, bytes: Bytes) -> Reply<()> {
        self.runs.keep(hash, bytes)
    }

    fn kept(&self, hash: &str) -> Reply<Option<Bytes>> {
        self.runs.kept(hash)
    }

    fn attend(&self, name: Uuid) -> Reply<()> {
        self.runs.attend(name)
    }

    fn attended(&self, name: Uuid) -> Reply<bool> {
        let gone = self.all_gone.load(Relaxed);
        self.runs.attended(name).map(move |there| there.map(|there| there && !gone)).boxed()
    }
}

fn engine() -> Engine {
    over(Arc::new(MemoryRuns::default()))
}

type Calls = Arc<Mutex<Vec<String>>>;

/// A leaf that tells when it is called.
fn told(name: &str, calls: &Calls) -> Step {
    let calls = Arc::clone(calls);
    let act = function(name, move |call| {
        calls.lock().unwrap().push(call.key());
        Ok(call.input.clone())
    });
    Step::act(name, act)
}

/// A leaf that does what `act` does, time after time, and from then on never ends.
fn in_turn(name: &str, acts: impl IntoIterator<Item = fn(Call) -> Result<Value, StepError>>) -> Step {
    let acts = Arc::new(Mutex::new(acts.into_iter().collect::<std::collections::VecDeque<_>>()));
    let act = later(name, move |call| {
        let act = acts.lock().unwrap().pop_front();
        async move {
            match act {
                Some(act) => act(call),
                None => std::future::pending().await,
            }
        }
    });
    Step::act(name, act)
}

fn hangs(name: &str) -> Step {
    in_turn(name, [])
}

fn sequence(name: &str, steps: impl IntoIterator<Item = Step>) -> Step {
    Step::new(name, Kind::Sequence(Steps::new(steps)))
}

fn ask(name: &str) -> Step {
    Step::new(name, Kind::Human(Arc::new(Human { message: None, answers: None, schema: Value::Null })))
}

/// Lets a run go its way until it hangs, and drops it, as a process that is killed does.
async fn killed(run: Run) -> Handle {
    let handle = run.handle();
    tokio::time::timeout(Duration::from_millis(100), run).await.unwrap_err();
    handle
}

async fn begun(engine: &Engine, definition: &Definition) -> Run {
    engine.begin(definition, 1.into(), named("a")).await.map_err(|(_, error)| error).unwrap()
}

async fn resumed(engine: &Engine, definition: &Definition) -> Run {
    engine.resume(definition, "a", HashMap::new(), false).await.unwrap()
}

#[tokio::test]
async fn nothing_goes_on_from_a_line_that_was_lost() {
    let calls = Calls::default();
    let branch = |name: &str| (Arc::from(name), Steps::new([told("before", &calls), told("after", &calls)]));
    let all = Parallel::new(["x", "y", "z"].map(branch).into());
    let definition = define([Step::new("par", Kind::Parallel(Arc::new(all)))]);
    let engine = over(Arc::new(Shaky { groups_fail: true.into(), ..Shaky::default() }));
    let ran = begun(&engine, &definition).await.await;
    assert!(matches!(ran.outcome, Outcome::Failed(RunError::Store(_))), "{:?}", ran.outcome);
    let story = Story::read(&**engine.runs(), "a").await.unwrap();
    for branch in ["x", "y", "z"] {
        let went_on = calls.lock().unwrap().contains(&format!("a/par/{branch}/after"));
        let kept = story.done.contains_key(&format!("par/{branch}/before"));
        assert!(kept || !went_on, "{branch} went on, and its first step is not kept: {:?}", story.order);
    }
}

#[tokio::test]
async fn what_failed_is_tried_again_after_a_crash_too() {
    let fail = |_: Call| Err(StepError::failed("not yet"));
    let hang_then_done = in_turn("sometimes", [fail as fn(Call) -> _]);
    let definition = define([add(1), hang_then_done]);
    let engine = engine();
    assert!(matches!(begun(&engine, &definition).await.await.outcome, Outcome::Failed(RunError::Step { .. })));
    killed(resumed(&engine, &definition).await).await;
    // It would fail at once with what it failed of the first time.
    killed(resumed(&engine, &definition).await).await;
    let story = Story::read(&**engine.runs(), "a").await.unwrap();
    assert_eq!(story.order, ["add 1"], "what is tried again is not told of");
}

#[tokio::test]
async fn what_cannot_help_is_not_tried_again_after_a_crash() {
    let calls = Calls::default();
    let refuse = |_: Call| Err(StepError::failed("never").for_good());
    let body = sequence("body", [told("first", &calls), in_turn("refuse", [refuse as fn(Call) -> _])]);
    let body = body.with(|policy| {
        (policy.retry.more, policy.retry.wait) = (1, Duration::ZERO);
        policy.fallback = Some(Arc::new(hangs("instead")));
    });
    let definition = define([body]);
    let engine = engine();
    killed(begun(&engine, &definition).await).await;
    killed(resumed(&engine, &definition).await).await;
    assert_eq!(*calls.lock().unwrap(), ["a/body/first"]);
}

#[tokio::test]
async fn a_try_that_took_too_long_is_not_gone_on_with() {
    let calls = Calls::default();
    let body = sequence("body", [told("first", &calls), in_turn("slow", []), told("last", &calls)]);
    let body = body.with(|policy| {
        (policy.retry.more, policy.retry.wait) = (1, Duration::ZERO);
        policy.timeout = Some(Duration::from_millis(70));
        policy.fallback = Some(Arc::new(hangs("instead")));
    });
    let definition = define([body]);
    let engine = engine();
    killed(begun(&engine, &definition).await).await;
    let handle = resumed(&engine, &definition).await;
    let entries = killed(handle).await.log().entries();
    let slow = entries.iter().filter(|entry| entry.label == caudal_flow::Label::Name("slow".into())).count();
    assert_eq!((slow, calls.lock().unwrap().len()), (1, 2), "the second try alone goes on: {entries:?}");
}

#[tokio::test]
async fn an_answer_that_was_taken_is_kept() {
    let calls = Calls::default();
    let definition = define([ask("approve"), told("after", &calls)]);
    let engine = engine();
    begun(&engine, &definition).await.await;
    let answer = |answer: i64| [("".into(), answer.into())].into();
    drop(engine.resume(&definition, "a", answer(41), false).await.unwrap());
    assert_eq!(resumed(&engine, &definition).await.await.output(), Ok(41.into()));
}

#[tokio::test]
async fn what_is_done_instead_is_no_step_of_what_failed() {
    let calls = Calls::default();
    let fail = |_: Call| Err(StepError::failed("no"));
    let body = sequence("body", [give(7), in_turn("fails", [fail as fn(Call) -> _])]);
    let body = body.with(|policy| policy.fallback = Some(Arc::new(hangs("give"))));
    let definition = define([body, told("after", &calls)]);
    let engine = engine();
    killed(begun(&engine, &definition).await).await;
    killed(resumed(&engine, &definition).await).await;
    assert!(calls.lock().unwrap().is_empty(), "what the body gave was taken for what is done instead");
}

#[tokio::test]
async fn steps_of_all_names_are_told_apart() {
    let calls = Calls::default();
    let names = ["a", "a", "a#2", "a#2", "a"];
    let definition = define(names.map(|name| told(name, &calls)));
    begun(&engine(), &definition).await.await;
    let mut called = calls.lock().unwrap().clone();
    called.sort();
    called.dedup();
    assert_eq!(called.len(), names.len(), "{called:?}");
    let (calls, slash) = (Calls::default(), Calls::default());
    let definition = define([sequence("x", [told("y", &calls)]), told("x/y", &slash)]);
    begun(&engine(), &definition).await.await;
    assert_ne!(*calls.lock().unwrap(), *slash.lock().unwrap());
}

#[tokio::test]
async fn a_branch_that_is_chosen_twice_is_done_once() {
    let calls = Calls::default();
    let parallel = Parallel::new(vec![("x".into(), Steps::new([told("step", &calls)]))]);
    let router = Router { chooser: Box::new(give(value!(["x", "x"]))), parallel };
    let definition = define([Step::new("route", Kind::Router(Arc::new(router)))]);
    assert_eq!(begun(&engine(), &definition).await.await.output(), Ok(value!({"x": 1})));
    assert_eq!(*calls.lock().unwrap(), ["a/route/x/step"]);
}

fn spend(name: &str, fails: bool) -> Step {
    let act = function(name, move |call| {
        let spent = Usage { tokens_in: 50, ..Usage::NONE };
        call.reserve(Usage { tokens_in: 60, ..Usage::NONE })?.settle(spent);
        if fails { Err(StepError::failed("spent in vain")) } else { Ok(Value::Null) }
    });
    Step::act(name, act)
}

fn of_hundred() -> Limits {
    Limits { tokens: Some(100), ..Limits::default() }
}

#[tokio::test]
async fn what_was_spent_in_vain_is_spent() {
    let mut definition = define([spend("fails", true)]);
    definition.limits = of_hundred();
    let engine = engine();
    let failed = begun(&engine, &definition).await.await.output().unwrap_err().to_string();
    assert!(failed.contains("spent in vain"), "{failed}");
    for _ in 0..2 {
        let failed = resumed(&engine, &definition).await.await.output().unwrap_err().to_string();
        assert!(failed.contains("it needs 60 tokens, and 50 of 100 are left"), "{failed}");
    }
    // What took too long has spent, too.
    let late = sequence("late", [spend("one", false), hangs("slow")]).with(|policy| {
        policy.timeout = Some(Duration::from_millis(20));
        policy.fallback = Some(Arc::new(ask("more")));
    });
    let mut definition = define([late, spend("two", false)]);
    definition.limits = of_hundred();
    let ran = engine.run(&definition, Value::Null, named("b")).await;
    assert!(matches!(ran.outcome, Outcome::Paused(_)), "{:?}", ran.outcome);
    let more = [("".into(), Value::Null)].into();
    let ran = engine.resume(&definition, "b", more, false).await.unwrap().await;
    assert_eq!(ran.usage.tokens_in, 50);
    let error = ran.output().unwrap_err().to_string();
    assert!(error.contains("it needs 60 tokens, and 50 of 100 are left"), "{error}");
}

#[tokio::test]
async fn what_all_runs_spend_is_counted_once() {
    let mut definition = define([spend("one", false), ask("more"), ask("still more")]);
    let all = Arc::new(Allowance::new(Limits { tokens: Some(1_000), ..Limits::default() }, None));
    definition.all_runs = Some(Arc::clone(&all));
    let engine = engine();
    begun(&engine, &definition).await.await;
    for step in ["more", "still more"] {
        let answer = [(step.into(), Value::Null)].into();
        engine.resume(&definition, "a", answer, false).await.unwrap().await;
    }
    assert_eq!(all.spent()[1], 50, "it spent once, and was taken up twice");
}

#[tokio::test]
async fn what_goes_its_own_way_may_be_called_anything() {
    let long = "far away ".repeat(30);
    for name in ["tell them", "größer", &*long] {
        let calls = Calls::default();
        let aside = told(name, &calls).with(|policy| policy.background = true);
        let engine = engine();
        let definition = define([aside, add(1)]);
        let ran = begun(&engine, &definition).await.await;
        assert_eq!(ran.output(), Ok(2.into()), "{name}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(calls.lock().unwrap().len(), 1, "{name}");
        assert_eq!(engine.replay(&definition, "a").await.unwrap().output(), Ok(2.into()));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(calls.lock().unwrap().len(), 1, "a replay calls nobody");
    }
}

#[tokio::test]
async fn what_goes_its_own_way_is_taken_up_by_what_it_is() {
    let hangs = |name: &str, what: &str| {
        Step::act(name, later(what, |_| std::future::pending())).with(|policy| policy.background = true)
    };
    let within = sequence("outer", [hangs("inner", "a third")]).with(|policy| policy.background = true);
    let mut definition = define([hangs("tell", "one"), sequence("s", [hangs("tell", "another")]), within]);
    definition.name = "a#b".into();
    let runs = Arc::new(MemoryRuns::default());
    begun(&over(Arc::clone(&runs) as Arc<dyn Runs>), &definition).await.await.output().unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let flows = Flows::new(over(runs), [definition]);
    for id in ["a.tell", "a.s.tell", "a.outer.outer.inner"] {
        let going = flows.resume(id, HashMap::new(), true).await.map(|going| Arc::clone(&going.id));
        assert_eq!(going, Ok(id.into()));
    }
}

#[tokio::test]
async fn who_cannot_be_written_for_a_moment_is_taken_up_later() {
    let runs = Arc::new(Shaky::default());
    let definition = define([hangs("slow")]);
    killed(begun(&over(Arc::clone(&runs) as Arc<dyn Runs>), &definition).await).await;
    runs.all_gone.store(true, Relaxed);
    runs.fails.store(1, Relaxed);
    let flows = Flows::new(over(runs), [definition]);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    flows.take_up_aside(Duration::from_millis(20), move |taken| {
        let taken = taken.unwrap();
        tell.send((taken.runs.len(), taken.left)).unwrap();
    });
    let mut looks = Vec::new();
    while looks.len() < 5 && !looks.contains(&(1, 0)) {
        looks.push(told.recv().await.unwrap());
    }
    assert!(looks.contains(&(1, 0)), "{looks:?}");
}

#[tokio::test]
async fn a_run_is_found_while_it_goes_on() {
    let engine = common::engine();
    let definition = common::define([hangs("slow")]);
    let begin = || engine.begin(&definition, 1.into(), named("a"));
    let first = begin().await.unwrap();
    assert_eq!(begin().await.err().map(|(_, error)| error), Some(RunError::Exists("a".into())));
    assert!(engine.live("a").is_some(), "who is refused does not take it off the list");
    drop(first);
    assert!(engine.live("a").is_none());
    drop(begin().await.unwrap());
}

#[tokio::test]
async fn what_another_runs_step_failed_of_is_kept() {
    let calls = Calls::default();
    let counted = Arc::clone(&calls);
    let slow = later("slow", move |call| {
        counted.lock().unwrap().push(call.key());
        async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(StepError::failed("no"))
        }
    });
    let cached = Step::new("cache", Kind::Cache(Arc::new(Cached::new(Step::act("slow", slow)))));
    let definition = define([cached.with(|policy| policy.fallback = Some(Arc::new(hangs("instead"))))]);
    let engine = engine();
    let other = engine.begin(&definition, 1.into(), named("other")).await.unwrap();
    tokio::join!(killed(other), killed(begun(&engine, &definition).await));
    killed(resumed(&engine, &definition).await).await;
    assert_eq!(*calls.lock().unwrap(), ["other/cache/slow"], "it went on without it, and goes on without it");
}

#[tokio::test]
async fn a_run_that_was_taken_up_again_is_not_forgotten() {
    let runs = MemoryRuns::default();
    let line = |kind: &str| vec![Line { kind: kind.into(), body: "{}".into() }];
    for number in 0..2_000 {
        let id = number.to_string();
        runs.create(&id, Bytes::new()).await.unwrap();
        runs.append(&id, 0, line("ended")).await.unwrap();
        if number == 0 {
            runs.append(&id, 1, line("resumed")).await.unwrap();
        }
    }
    assert!(runs.read("0").await.unwrap().is_some(), "it goes on");
    assert_eq!(runs.list(1, 0).await.unwrap().total, 1_001);
}

#[tokio::test]
async fn what_is_cancelled_is_not_paused_any_more() {
    let engine = engine();
    let run = begun(&engine, &define([hangs("slow")])).await;
    run.handle().cancel();
    run.handle().pause();
    assert_eq!(run.await.outcome, Outcome::Failed(RunError::Cancelled));
}

#[tokio::test]
async fn what_panics_beside_the_leaves_fails_its_run_alone() {
    let panics = || caudal_flow::rule("bad", |_| panic!("on purpose"));
    let mut wrong = define([add(1)]);
    wrong.gives = Some(caudal_flow::check("bad", |_| panic!("on purpose")));
    let rule = define([add(1).with(|policy| policy.input = Some(panics()))]);
    let validator = caudal_flow::check("bad", |_| panic!("on purpose"));
    let check = define([add(1).with(|policy| policy.validators = vec![validator])]);
    for definition in [wrong, rule, check] {
        let flows = Flows::new(engine(), [definition.clone()]);
        let (outcome, report) = flows.begin(&definition, 1.into(), named("a")).await.unwrap().wait().await.unwrap();
        let Outcome::Failed(error) = outcome else { panic!("{outcome:?}") };
        assert!(error.to_string().contains("on purpose"), "{error}");
        assert_eq!((report.status, flows.running()), ("failed", 0));
        assert_eq!(Story::read(&**flows.engine().runs(), "a").await.unwrap().status(), "failed");
    }
}

#[tokio::test]
async fn what_a_run_survived_stays_as_it_was_when_what_failed_is_tried_again() {
    let (calls, good) = (Calls::default(), Arc::new(AtomicBool::new(false)));
    let flaky = |name: &str| {
        let (calls, good) = (Arc::clone(&calls), Arc::clone(&good));
        let act = function(name, move |call| {
            calls.lock().unwrap().push(call.key());
            if good.load(Relaxed) { Ok(call.input.clone()) } else { Err(StepError::failed("no").for_good()) }
        });
        Step::act(name, act)
    };
    let survived = flaky("survived").with(|policy| policy.fallback = Some(Arc::new(give(5))));
    let definition = define([survived, flaky("fatal")]);
    let engine = engine();
    assert!(begun(&engine, &definition).await.await.output().is_err());
    good.store(true, Relaxed);
    assert_eq!(
        resumed(&engine, &definition).await.await.output(),
        Ok(5.into()),
        "what came after rests on the fallback"
    );
    assert_eq!(*calls.lock().unwrap(), ["a/survived", "a/fatal", "a/fatal"]);
}

#[tokio::test]
async fn a_run_that_could_not_be_written_is_not_told_of_as_running() {
    let runs = Arc::new(Shaky::default());
    let engine = Engine::new(Options { runs: Some(Arc::clone(&runs) as Arc<dyn Runs>), ..Options::default() });
    let definition = define([add(1)]);
    let flows = Flows::new(engine, [definition.clone()]);
    runs.fails.store(1, Relaxed);
    let broken = flows.begin(&definition, 1.into(), named("a")).await.unwrap().wait().await.unwrap().0;
    assert!(matches!(broken, Outcome::Failed(RunError::Store(_))), "{broken:?}");
    assert_eq!(flows.engine().story("a").await.unwrap().status(), "interrupted");
    let listed = flows.engine().runs().list(1, 0).await.unwrap().runs;
    assert_eq!(flows.engine().status(&listed[0]).await.unwrap().1, "interrupted");
    let [(_, taken)] = <[_; 1]>::try_from(flows.take_up().await.unwrap()).ok().unwrap();
    assert_eq!(taken.unwrap().wait().await.unwrap().0, Outcome::Completed(2.into()));
}

#[tokio::test]
async fn large_values_go_with_the_last_run_that_had_them() {
    let runs = MemoryRuns::default();
    let line =
        |kind: &str, hash: &str| Line { kind: kind.into(), body: format!(r#"{{"x":{{"$blob":"{hash}"}}}}"#).into() };
    for (id, hash) in [("first", "own"), ("second", "own"), ("third", "other")] {
        runs.create(id, Bytes::new()).await.unwrap();
        runs.keep(hash, "large".into()).await.unwrap();
        runs.append(id, 0, vec![line("step", hash)]).await.unwrap();
    }
    let over = async |id: &str| runs.append(id, 1, vec![line("ended", "")]).await.unwrap();
    let others = async |from: u32| {
        for number in from..from + 1_000 {
            runs.create(&number.to_string(), Bytes::new()).await.unwrap();
            runs.append(&number.to_string(), 0, vec![line("ended", "")]).await.unwrap();
        }
    };
    over("first").await;
    others(0).await;
    assert!(runs.read("first").await.unwrap().is_none() && runs.kept("own").await.unwrap().is_some());
    over("second").await;
    others(1_000).await;
    assert!(runs.kept("own").await.unwrap().is_none() && runs.kept("other").await.unwrap().is_some());
}

#[tokio::test]
async fn what_is_cancelled_while_it_begins_to_wait_is_cancelled() {
    let human = Human { message: None, answers: None, schema: Value::Null };
    let definition = define([Step::new("ask", Kind::Human(Arc::new(human)))]);
    let engine = over(Arc::new(Shaky::default()));
    let run = tokio::spawn(begun(&engine, &definition).await);
    // The line that it waits is being written.
    tokio::time::sleep(Duration::from_millis(5)).await;
    engine.cancel("a").await.unwrap();
    assert!(matches!(run.await.unwrap().outcome, Outcome::Paused(_)));
    assert_eq!(engine.story("a").await.unwrap().status(), "cancelled");
}
