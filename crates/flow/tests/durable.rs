//! Durable runs: the same contract in memory, over SQLite and over PostgreSQL.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use caudal_flow::{
    Cached, Engine, Flows, Human, Kind, Loop, Outcome, Parallel, Report, RunError, RunOptions, Status, Step, StepError,
    Steps, Usage, Value, function,
    journal::{Line, MAX_RECOVERIES, MemoryRuns, Runs, StoredRuns, Story},
    later, rule, value,
};
use caudal_store::{postgres, sqlite};
use caudal_testkit::Postgres as Server;
use common::{add, give, kept as define, named, over as engine, text};

/// Where runs are kept, opened again as another process would.
trait Place {
    fn open(&self) -> Arc<dyn Runs>;
}

struct Memory(MemoryRuns);

impl Place for Memory {
    fn open(&self) -> Arc<dyn Runs> {
        Arc::new(self.0.clone())
    }
}

struct Folder(tempfile::TempDir);

impl Place for Folder {
    fn open(&self) -> Arc<dyn Runs> {
        let store = sqlite::Sqlite::open(sqlite::Options::within(self.0.path())).expect("a store");
        Arc::new(StoredRuns::new(Arc::new(store)))
    }
}

struct Schema(&'static Server, String);

impl Place for Schema {
    fn open(&self) -> Arc<dyn Runs> {
        let options = postgres::Options { schema: self.1.clone(), pool_size: 4, ..postgres::Options::at(self.0.url()) };
        Arc::new(StoredRuns::new(Arc::new(postgres::Postgres::open(options).expect("a store"))))
    }
}

fn memory() -> Option<Memory> {
    Some(Memory(MemoryRuns::default()))
}

fn folder() -> Option<Folder> {
    Some(Folder(tempfile::tempdir().expect("a folder")))
}

fn schema() -> Option<Schema> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let Some(server) = SERVER.get_or_init(Server::start) else {
        eprintln!("skipped: PostgreSQL is not installed (Debian: postgresql)");
        return None;
    };
    Some(Schema(server, server.name()))
}

type Calls = Arc<Mutex<Vec<String>>>;

/// A leaf that tells when it is called.
fn told(name: &str, calls: &Calls) -> Step {
    let calls = Arc::clone(calls);
    let act = function(name, move |call| {
        calls.lock().unwrap().push(call.key());
        Ok(Value::from(call.input.as_i64().unwrap_or(0) + 1))
    });
    Step::act(name, act)
}

fn ask(name: &str) -> Step {
    let human = Human { message: None, answers: None, schema: Value::Null };
    Step::new(name, Kind::Human(Arc::new(human)))
}

async fn steps_are_kept_and_told(place: impl Place) {
    let engine = engine(place.open());
    let ran = engine.run(&define([add(1), add(2)]), 1.into(), named("a")).await;
    assert_eq!(ran.output(), Ok(4.into()));
    let story = Story::read(&**engine.runs(), "a").await.unwrap();
    assert_eq!(story.order, ["add 1", "add 2"]);
    assert_eq!(story.done["add 2"].answer, Ok(4.into()));
    assert_eq!(
        (&*story.ended.as_ref().unwrap().status, &story.ended.as_ref().unwrap().output),
        ("completed", &4.into())
    );
    let error = engine.run(&define([add(1)]), 1.into(), named("a")).await.output();
    assert_eq!(error, Err(RunError::Exists("a".into())));
    assert_eq!(Story::read(&**engine.runs(), "b").await.unwrap_err(), RunError::Unknown("b".into()));
    engine.run(&define([add(1)]), 1.into(), named("z")).await;
    let listing = engine.runs().list(10, 0).await.unwrap();
    assert_eq!(listing.runs.iter().map(|run| &*run.id).collect::<Vec<_>>(), ["z", "a"]);
    assert_eq!(&*listing.runs[0].last.as_ref().unwrap().kind, "ended");
}

async fn a_run_waits_for_days_and_goes_on_elsewhere(place: impl Place) {
    let calls = Calls::default();
    let definition = || define([told("before", &calls), ask("approve"), told("after", &calls)]);
    {
        let ran = engine(place.open()).run(&definition(), 1.into(), named("a")).await;
        let Outcome::Paused(prompts) = ran.outcome else { panic!("{:?}", ran.outcome) };
        assert_eq!((&*prompts[0].path, &prompts[0].message), ("approve", &2.into()));
    }
    let engine = engine(place.open());
    let told = Report::told("a", &Story::read(&**engine.runs(), "a").await.unwrap());
    let steps: Vec<_> = told.steps.iter().map(|step| (&*step.path, step.kind, step.status)).collect();
    assert_eq!(steps, [("before", "step", Status::Completed), ("approve", "hitl", Status::Paused)]);
    let resume = |answers: HashMap<Arc<str>, Value>| {
        let (engine, definition) = (engine.clone(), definition());
        async move { Ok::<_, RunError>(engine.resume(&definition, "a", answers, false).await?.await) }
    };
    let nothing = resume(HashMap::new()).await.map(|ran| ran.outcome);
    assert_eq!(nothing, Err(RunError::Answer("the run waits for an answer".into())));
    let elsewhere = resume([("other".into(), Value::Null)].into()).await.map(|ran| ran.outcome);
    assert_eq!(elsewhere, Err(RunError::Answer("no step other asks".into())));
    let ran = resume([("approve".into(), 41.into())].into()).await.unwrap();
    assert_eq!(ran.entries.iter().map(|entry| entry.recalled).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(ran.output(), Ok(42.into()));
    assert_eq!(*calls.lock().unwrap(), ["a/before", "a/after"], "each was called once");
    assert_eq!(resume(HashMap::new()).await.map(|ran| ran.outcome), Err(RunError::State("completed already")));
}

async fn of_two_who_resume_one_wins(place: impl Place) {
    let definition = define([
        ask("approve"),
        Step::act(
            "slow",
            later("slow", |call| async move {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Ok(call.input.clone())
            }),
        ),
    ]);
    engine(place.open()).run(&definition, 1.into(), named("a")).await;
    let (one, two) = (engine(place.open()), engine(place.open()));
    let answer = |engine: Engine, answer: i64| {
        let definition = definition.clone();
        async move { engine.resume(&definition, "a", [("".into(), answer.into())].into(), false).await?.await.output() }
    };
    let (first, second) = tokio::join!(tokio::spawn(answer(one, 1)), tokio::spawn(answer(two, 2)));
    let (first, second) = (first.unwrap(), second.unwrap());
    let won = [&first, &second].into_iter().filter(|went| went.is_ok()).count();
    assert_eq!(won, 1, "{first:?} {second:?}");
    let lost = if first.is_ok() { second } else { first };
    // An answer that comes when the run continues already finds that it asks nothing any more.
    assert!(matches!(lost, Err(RunError::Taken | RunError::State(_))), "{lost:?}");
}

async fn who_lost_a_run_can_write_nothing_more(place: impl Place) {
    let stalled = Arc::new(tokio::sync::Notify::new());
    let wait = Arc::clone(&stalled);
    let slow = later("slow", move |call| {
        let wait = Arc::clone(&wait);
        async move {
            wait.notified().await;
            Ok(call.input.clone())
        }
    });
    let definition = define([add(1), Step::act("slow", slow), add(1)]);
    let (one, two) = (engine(place.open()), engine(place.open()));
    let first = one.begin(&definition, 1.into(), named("a")).await.map_err(|(_, error)| error).unwrap();
    let first = tokio::spawn(first);
    while Story::read(&**two.runs(), "a").await.unwrap().done.is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let second = two.resume(&definition, "a", HashMap::new(), true).await.unwrap();
    let second = tokio::spawn(second);
    tokio::time::sleep(Duration::from_millis(20)).await;
    stalled.notify_waiters();
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!(first.outcome, Outcome::Failed(RunError::Taken), "who stalled is told when it comes back");
    assert_eq!(second.output(), Ok(3.into()));
    let story = Story::read(&**two.runs(), "a").await.unwrap();
    assert_eq!(story.order, ["add 1", "slow", "add 1#2"]);
}

async fn what_failed_is_tried_again_and_nothing_else(place: impl Place) {
    let (calls, good) = (Calls::default(), Arc::new(AtomicBool::new(false)));
    let now = Arc::clone(&good);
    let sometimes = function("sometimes", move |call| match now.load(Relaxed) {
        true => Ok(call.input.clone()),
        false => Err(StepError::failed("not yet").hint("wait")),
    });
    let definition = define([told("before", &calls), Step::act("sometimes", sometimes), told("after", &calls)]);
    let first = engine(place.open());
    assert!(matches!(
        first.run(&definition, 1.into(), named("a")).await.outcome,
        Outcome::Failed(RunError::Step { .. })
    ));
    let story = Story::read(&**first.runs(), "a").await.unwrap();
    let failure = story.ended.unwrap().error.unwrap();
    assert_eq!(
        (&*failure.step, &*failure.code, &*failure.message, &*failure.hint),
        ("sometimes", "step_failed", "not yet", "wait")
    );
    good.store(true, Relaxed);
    let second = engine(place.open());
    let ran = second.resume(&definition, "a", HashMap::new(), false).await.unwrap().await;
    assert_eq!(ran.output(), Ok(3.into()));
    assert_eq!(*calls.lock().unwrap(), ["a/before", "a/after"]);
}

async fn what_took_too_long_is_not_tried_again_after_a_crash(place: impl Place) {
    let calls = Calls::default();
    let asked = Arc::new(AtomicBool::new(false));
    // The second time it would be quick.
    let slow = later("slow", move |call| {
        let before = asked.swap(true, Relaxed);
        async move {
            if !before {
                std::future::pending::<()>().await;
            }
            Ok(call.input.clone())
        }
    });
    let hangs = later("hangs", |_| std::future::pending());
    let body = Step::new("body", Kind::Sequence(Steps::new([told("first", &calls), Step::act("slow", slow)])));
    let body = body.with(|policy| {
        policy.timeout = Some(Duration::from_millis(50));
        policy.fallback = Some(Arc::new(told("instead", &calls)));
    });
    let definition = define([body, Step::act("hangs", hangs)]);
    let first = engine(place.open());
    let run = first.begin(&definition, 1.into(), named("a")).await.unwrap();
    // Broken off while it hangs, as by a crash.
    tokio::time::timeout(Duration::from_secs(2), run).await.unwrap_err();
    let second = engine(place.open());
    let run = second.resume(&definition, "a", HashMap::new(), true).await.unwrap();
    let handle = run.handle();
    tokio::time::timeout(Duration::from_millis(500), run).await.unwrap_err();
    assert_eq!(*calls.lock().unwrap(), ["a/body/first", "a/body/instead"]);
    let entries = handle.log().entries();
    let status = |name: &str| {
        entries.iter().find(|entry| entry.label == caudal_flow::Label::Name(name.into())).map(|entry| entry.status)
    };
    assert_eq!((status("body"), status("instead")), (Some(Status::Completed), Some(Status::Completed)));
}

async fn a_run_that_is_left_goes_on_when_it_is_resumed(place: impl Place) {
    let calls = Calls::default();
    let slow = later("slow", |call| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(call.input.clone())
    });
    let branch = |name: &str| (Arc::from(name), Steps::new([told(name, &calls), Step::act("slow", Arc::clone(&slow))]));
    let both = Parallel::new(["x", "y"].map(branch).into());
    let definition = define([Step::new("par", Kind::Parallel(Arc::new(both)))]);
    let first = engine(place.open());
    let run = first.begin(&definition, 1.into(), named("a")).await.unwrap();
    let handle = run.handle();
    let run = tokio::spawn(run);
    while calls.lock().unwrap().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handle.pause();
    assert_eq!(run.await.unwrap().outcome, Outcome::Paused(Vec::new()));
    assert_eq!(Story::read(&**first.runs(), "a").await.unwrap().status(), "paused");
    let second = engine(place.open());
    let answered = second.resume(&definition, "a", [("".into(), 1.into())].into(), false).await.err();
    assert_eq!(answered, Some(RunError::State("not asking a question now")));
    let ran = second.resume(&definition, "a", HashMap::new(), false).await.unwrap().await;
    assert_eq!(ran.output(), Ok(value!({"x": 2, "y": 2})));
    assert_eq!(calls.lock().unwrap().len(), 2, "nothing is done twice");
}

/// A run is broken off again and again while its steps are being written down.
async fn what_is_broken_off_while_it_is_written_ends_well(place: impl Place) {
    let engine = engine(place.open());
    let chain = define((0..30).map(add));
    for turn in 0..30 {
        let id = format!("cancelled {turn}").replace(' ', "-");
        let run = engine.begin(&chain, 1.into(), named(&id)).await.unwrap();
        let handle = run.handle();
        let run = tokio::spawn(run);
        tokio::time::sleep(Duration::from_micros(turn * 300)).await;
        handle.cancel();
        let outcome = run.await.unwrap().outcome;
        let story = Story::read(&**engine.runs(), &id).await.unwrap();
        let status = story.ended.as_ref().map(|ended| &*ended.status);
        match outcome {
            Outcome::Completed(_) => assert_eq!(status, Some("completed")),
            Outcome::Failed(RunError::Cancelled) => assert_eq!(status, Some("cancelled")),
            other => panic!("{other:?}"),
        }
    }
    // The same of a step with steps within that takes too long.
    for turn in 0..30 {
        let body = Step::new("body", Kind::Sequence(Steps::new((0..30).map(add))));
        let body = body.with(|policy| {
            policy.timeout = Some(Duration::from_micros(100 + turn * 300));
            policy.fallback = Some(Arc::new(give(5)));
        });
        let ran = engine.run(&define([body, add(1)]), 1.into(), named(&format!("late-{turn}"))).await;
        let output = ran.output().unwrap();
        assert!(output == 6.into() || output == 437.into(), "{output}");
    }
}

async fn what_is_too_deep_to_be_read_again_is_not_kept(place: impl Place) {
    let mut deep = serde_json::json!(1);
    for _ in 0..120 {
        deep = serde_json::json!([deep]);
    }
    let engine = engine(place.open());
    // Of a value of Rust nothing is known before it is written.
    let mut definition =
        caudal_flow::Pipeline::<i64, i64>::new("test").step("deep", move |_: &i64, _| Ok(deep.clone())).define();
    definition.durable = true;
    let ran = engine.run(&definition, 1.into(), named("a")).await;
    let Outcome::Failed(RunError::Step { error, .. }) = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert!(error.message.contains("more than 100 deep"), "{error}");
    let story = Story::read(&**engine.runs(), "a").await.unwrap();
    assert_eq!(&*story.ended.unwrap().status, "failed");
}

async fn a_run_is_replayed_without_calling_anybody(place: impl Place) {
    let calls = Calls::default();
    let branches = ["x", "y"].map(|name| (Arc::from(name), Steps::new([told(name, &calls)])));
    let again = Loop::new(Steps::new([told("turn", &calls)]), 3);
    let definition = define([
        Step::new("par", Kind::Parallel(Arc::new(Parallel::new(branches.into())))),
        give(5),
        Step::new("loop", Kind::Loop(Arc::new(again))),
        Step::new("cache", Kind::Cache(Arc::new(Cached::new(told("cached", &calls))))),
    ]);
    let engine = engine(place.open());
    let ran = engine.run(&definition, 1.into(), named("a")).await;
    assert_eq!(ran.output(), Ok(9.into()));
    let called = calls.lock().unwrap().clone();
    assert_eq!(called, ["a/par/x/x", "a/par/y/y", "a/loop/0/turn", "a/loop/1/turn", "a/loop/2/turn", "a/cache/cached"]);
    let replayed = engine.replay(&definition, "a").await.unwrap();
    assert!(replayed.entries.iter().filter(|entry| entry.kind == "step").all(|entry| entry.recalled));
    assert_eq!(replayed.output(), Ok(9.into()));
    assert_eq!(*calls.lock().unwrap(), called);
    let other = define([add(1)]);
    assert_eq!(engine.replay(&other, "a").await.unwrap_err(), RunError::Foreign("test".into()));
    assert_eq!(engine.resume(&other, "a", HashMap::new(), false).await.err(), Some(RunError::Foreign("test".into())));
}

async fn large_values_stand_beside_the_run(place: impl Place) {
    let large = "x".repeat(200_000);
    let (calls, alike) = (Calls::default(), value!({"$blob": "none"}));
    let definition = define([give(large.clone()), give(alike.clone()), told("last", &calls), ask("end")]);
    let first = engine(place.open());
    first.run(&definition, text(&large), named("a")).await;
    let (begun, lines) = first.runs().read("a").await.unwrap().unwrap();
    assert!(begun.len() < 2_000 && lines.iter().map(|line| line.body.len()).sum::<usize>() < 2_000);
    let story = Story::read(&**first.runs(), "a").await.unwrap();
    assert_eq!((story.begun.input, &story.done["give"].answer), (text(&large), &Ok(text(&large))));
    assert_eq!(story.done["give#2"].answer, Ok(alike), "what looks like a reference is none");
}

async fn what_was_spent_is_known_after_a_pause(place: impl Place) {
    let spend = later("spend", |call| async move {
        let most = Usage { tokens_in: 60, ..Usage::NONE };
        call.reserve(most)?.settle(Usage { tokens_in: 50, cost: 7, ..Usage::NONE });
        Ok(Value::Null)
    });
    let definition =
        || define([Step::act("one", Arc::clone(&spend)), ask("more"), Step::act("two", Arc::clone(&spend))]);
    let limits = caudal_flow::Limits { tokens: Some(100), ..Default::default() };
    let options = RunOptions { limits, ..named("a") };
    engine(place.open()).run(&definition(), Value::Null, options).await;
    let ran =
        engine(place.open()).resume(&definition(), "a", [("".into(), Value::Null)].into(), false).await.unwrap().await;
    assert_eq!((ran.usage.tokens_in, ran.usage.cost), (50, 7));
    let error = ran.output().unwrap_err().to_string();
    assert!(error.contains("it needs 60 tokens, and 50 of 100 are left"), "{error}");
}

async fn a_run_is_cancelled_where_it_waits(place: impl Place) {
    let definition = define([ask("approve")]);
    let engine = engine(place.open());
    engine.run(&definition, 1.into(), named("a")).await;
    engine.cancel("a").await.unwrap();
    assert_eq!(engine.cancel("a").await, Err(RunError::State("over already")));
    assert_eq!(engine.resume(&definition, "a", HashMap::new(), false).await.err(), Some(RunError::State("cancelled")));
    assert_eq!(engine.cancel("b").await, Err(RunError::Unknown("b".into())));
}

async fn a_journal_of_another_version_is_refused(place: impl Place) {
    let runs = place.open();
    let begun = value!({"form": 2, "pipeline": "test", "version": "", "input": 1, "context": {}, "owner": {"host": "", "boot": "", "pid": 1, "began": 1}});
    runs.create("new", begun.to_json().into()).await.unwrap();
    runs.create("torn", "{\"form\"".into()).await.unwrap();
    runs.create("odd", begun.to_json().replace(":2,", ":1,").into()).await.unwrap();
    runs.append("odd", 0, vec![Line { kind: "dance".into(), body: "{}".into() }]).await.unwrap();
    let engine = engine(runs);
    for (id, words) in [("new", "it has the form 2"), ("torn", "EOF"), ("odd", "a line of the sort dance")] {
        let error = engine.resume(&define([add(1)]), id, HashMap::new(), false).await.err().unwrap();
        assert!(matches!(&error, RunError::Journal(said) if said.contains(words)), "{error}");
    }
}

async fn branches_that_ask_are_answered_one_by_one(place: impl Place) {
    let branches = ["x", "y"].map(|name| (Arc::from(name), Steps::new([ask("ask"), add(1)])));
    let definition = define([Step::new("par", Kind::Parallel(Arc::new(Parallel::new(branches.into()))))]);
    let engine = engine(place.open());
    let ran = engine.run(&definition, 0.into(), named("a")).await;
    assert!(matches!(&ran.outcome, Outcome::Paused(prompts) if prompts.len() == 2), "{:?}", ran.outcome);
    assert_eq!(ran.entries[0].status, Status::Paused);
    let say = |answers: &[(&str, i64)]| {
        let answers = answers.iter().map(|(path, n)| (Arc::from(*path), Value::from(*n))).collect();
        let (engine, definition) = (engine.clone(), definition.clone());
        async move { Ok::<_, RunError>(engine.resume(&definition, "a", answers, false).await?.await.outcome) }
    };
    assert!(matches!(say(&[("", 1)]).await, Err(RunError::Answer(words)) if words.contains("2 steps ask")));
    let half = say(&[("par/y/ask", 5)]).await.unwrap();
    assert!(
        matches!(&half, Outcome::Paused(prompts) if &*prompts[0].path == "par/x/ask" && prompts.len() == 1),
        "{half:?}"
    );
    assert_eq!(say(&[("", 1)]).await.unwrap(), Outcome::Completed(value!({"x": 2, "y": 6})));
}

async fn what_a_condition_saw_is_what_it_sees_again(place: impl Place) {
    // What the first step gives changes from call to call; the run goes on with what it gave first.
    let count = Arc::new(std::sync::atomic::AtomicI64::new(0));
    let next = function("next", move |_| Ok(count.fetch_add(1, Relaxed).into()));
    let branch = |name: &str| (Arc::from(name), Steps::new([ask(name)]));
    let choose = caudal_flow::Conditional {
        when: rule("zero", |view| Ok((view.output == &Value::from(0)).into())),
        branches: vec![branch("true"), branch("false")],
        otherwise: None,
    };
    let definition = define([Step::act("next", next), Step::new("if", Kind::Conditional(Arc::new(choose)))]);
    let engine = engine(place.open());
    engine.run(&definition, Value::Null, named("a")).await;
    let ran =
        engine.resume(&definition, "a", [("if/true/true".into(), "yes".into())].into(), false).await.unwrap().await;
    assert_eq!(ran.output(), Ok("yes".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_while_a_run_is_begun_leaves_none_behind() {
    let place = folder().unwrap();
    let definition = define([add(1)]);
    let flows = Flows::new(engine(place.open()), [definition.clone()]);
    for number in 0..100 {
        let begin = flows.begin(&definition, 1.into(), named(&number.to_string()));
        // Dropped before, while or after it is written down.
        let _ = tokio::time::timeout(Duration::from_micros(number * 20), begin).await;
    }
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let listing = flows.engine().runs().list(200, 0).await.unwrap();
        let mut left = 0;
        for run in &listing.runs {
            left += usize::from(flows.engine().status(run).await.unwrap().1 != "completed");
        }
        if left == 0 && !listing.runs.is_empty() {
            return;
        }
        assert!(std::time::Instant::now() < patience, "{left} of {} runs were left behind", listing.total);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A process goes while another is there: dropped, its store is closed, as at its end.
async fn runs_of_a_process_that_goes_are_taken_up(place: impl Place) {
    let wait = Arc::new(AtomicBool::new(true));
    let slow = later("slow", move |call| {
        let first = wait.swap(false, Relaxed);
        async move { if first { std::future::pending().await } else { Ok(call.input.clone()) } }
    });
    let definition = define([add(1), Step::act("slow", slow)]);
    let first = engine(place.open());
    let run = tokio::spawn(first.begin(&definition, 1.into(), named("a")).await.unwrap());
    let second = Flows::new(engine(place.open()), [definition.clone()]);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    second.take_up_aside(Duration::from_millis(50), move |taken| tell.send(taken.unwrap().runs.len()).unwrap());
    for _ in 0..5 {
        assert_eq!(told.recv().await, Some(0), "nobody takes a run from a process that is there");
    }
    let status = async |id: &str| second.report(id).await.unwrap().status;
    assert_eq!(status("a").await, "running");
    let refused = second.resume("a", HashMap::new(), false).await.err();
    assert_eq!(refused, Some(RunError::Taken));
    run.abort();
    let _ = run.await;
    drop(first);
    while told.recv().await.unwrap() == 0 {}
    while status("a").await != "completed" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_process_that_goes_are_taken_up_over_sqlite() {
    runs_of_a_process_that_goes_are_taken_up(folder().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_a_process_that_goes_are_taken_up_over_postgres() {
    let Some(schema) = schema() else { return };
    runs_of_a_process_that_goes_are_taken_up(schema).await;
}

/// Does `work` as a process of its own: what it began and is not done when it ends is gone.
fn as_a_process<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(work)
    });
    process.join().unwrap()
}

/// Recovers what was left, and gives what came of each.
fn recover(runs: Arc<dyn Runs>, definition: &caudal_flow::Definition, wait: Duration) -> Vec<Result<(), RunError>> {
    let definition = definition.clone();
    as_a_process(async move {
        let taken = Flows::new(engine(runs), [definition]).take_up().await.unwrap();
        tokio::time::sleep(wait).await;
        taken.into_iter().map(|(_, went)| went.map(|_| ())).collect()
    })
}

/// A run that ends each process that recovers it.
fn a_run_recovered_without_progress_is_given_up(place: &impl Place) {
    let stuck = later("stuck", |_| async { std::future::pending().await });
    let definition = define([Step::act("stuck", stuck)]);
    let (runs, begun) = (place.open(), definition.clone());
    as_a_process(async move { drop(engine(runs).begin(&begun, 1.into(), named("a")).await.unwrap()) });
    let story = || {
        let runs = place.open();
        as_a_process(async move { Story::read(&*runs, "a").await.unwrap() })
    };
    for number in 1..=MAX_RECOVERIES {
        assert_eq!(recover(place.open(), &definition, Duration::ZERO), [Ok(())], "recovery {number}");
        assert_eq!(story().recoveries, number);
    }
    assert_eq!(recover(place.open(), &definition, Duration::ZERO), [Err(RunError::GivenUp(MAX_RECOVERIES))]);
    let (runs, own) = (place.open(), definition.clone());
    let report = as_a_process(async move { Flows::new(engine(runs), [own]).report("a").await.unwrap() });
    assert_eq!(report.status, "interrupted");
    assert!(report.error.as_ref().unwrap().message.contains("recovered 3 times"), "{report:?}");
    // A caller may resume it; the count then starts from zero.
    let runs = place.open();
    as_a_process(async move {
        drop(Flows::new(engine(runs), [definition]).resume("a", HashMap::new(), false).await.unwrap());
    });
    assert_eq!(story().recoveries, 0);
}

/// One that comes further each time is recovered each time.
fn a_run_recovered_with_progress_goes_on(place: &impl Place) {
    let once = Arc::new(AtomicBool::new(false));
    let steps = (0..5).map(|number| {
        let (once, name) = (Arc::clone(&once), format!("step {number}"));
        let step = later(name.clone(), move |call| {
            let open = once.swap(false, Relaxed);
            async move { if open { Ok(call.input.clone()) } else { std::future::pending().await } }
        });
        Step::act(name, step)
    });
    let definition = define(steps);
    let (runs, begun) = (place.open(), definition.clone());
    as_a_process(async move { drop(engine(runs).begin(&begun, 1.into(), named("a")).await.unwrap()) });
    for number in 1..=5 {
        once.store(true, Relaxed);
        let went = recover(place.open(), &definition, Duration::from_millis(200));
        assert_eq!(went, [Ok(())], "recovery {number}");
    }
}

/// A process that leaves its runs before it ends costs them no attempt.
fn a_run_that_was_left_has_lost_no_attempt(place: &impl Place) {
    let stuck = later("stuck", |_| async { std::future::pending().await });
    let definition = define([Step::act("stuck", stuck)]);
    let (runs, begun) = (place.open(), definition.clone());
    as_a_process(async move { drop(engine(runs).begin(&begun, 1.into(), named("a")).await.unwrap()) });
    for number in 0..=MAX_RECOVERIES {
        let (runs, definition) = (place.open(), definition.clone());
        let went: Vec<_> = as_a_process(async move {
            let flows = Flows::new(engine(runs), [definition]);
            let taken = flows.take_up().await.unwrap();
            flows.leave_runs().await;
            taken.into_iter().map(|(_, went)| went.map(|_| ())).collect()
        });
        assert_eq!(went, [Ok(())], "recovery {number}");
        let runs = place.open();
        let story = as_a_process(async move { Story::read(&*runs, "a").await.unwrap() });
        assert_eq!((story.status(), story.recoveries), ("interrupted", 0));
    }
}

#[test]
fn a_run_that_was_left_has_lost_no_attempt_over_sqlite() {
    a_run_that_was_left_has_lost_no_attempt(&folder().unwrap());
}

#[test]
fn a_run_without_progress_is_given_up_over_sqlite() {
    a_run_recovered_without_progress_is_given_up(&folder().unwrap());
}

#[test]
fn a_run_without_progress_is_given_up_over_postgres() {
    let Some(schema) = schema() else { return };
    a_run_recovered_without_progress_is_given_up(&schema);
}

#[test]
fn a_run_with_progress_goes_on_over_sqlite() {
    a_run_recovered_with_progress_goes_on(&folder().unwrap());
}

macro_rules! contract {
    ($($case:ident,)+) => {
        mod in_memory { $(#[tokio::test(flavor = "multi_thread")] async fn $case() { if let Some(place) = super::memory() { super::$case(place).await; } })+ }
        mod over_sqlite { $(#[tokio::test(flavor = "multi_thread")] async fn $case() { if let Some(place) = super::folder() { super::$case(place).await; } })+ }
        mod over_postgres { $(#[tokio::test(flavor = "multi_thread")] async fn $case() { if let Some(place) = super::schema() { super::$case(place).await; } })+ }
    };
}

contract! {
    steps_are_kept_and_told,
    a_run_waits_for_days_and_goes_on_elsewhere,
    of_two_who_resume_one_wins,
    who_lost_a_run_can_write_nothing_more,
    what_failed_is_tried_again_and_nothing_else,
    what_took_too_long_is_not_tried_again_after_a_crash,
    a_run_that_is_left_goes_on_when_it_is_resumed,
    what_is_broken_off_while_it_is_written_ends_well,
    what_is_too_deep_to_be_read_again_is_not_kept,
    a_run_is_replayed_without_calling_anybody,
    large_values_stand_beside_the_run,
    what_was_spent_is_known_after_a_pause,
    a_run_is_cancelled_where_it_waits,
    a_journal_of_another_version_is_refused,
    branches_that_ask_are_answered_one_by_one,
    what_a_condition_saw_is_what_it_sees_again,
}
