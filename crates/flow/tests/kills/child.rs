//! The process that is killed: it begins runs of a pipeline that has steps of all sorts, one after the other, several at
//! the same time, until its end.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use caudal_flow::{
    Action, Cached, Change, Conditional, Definition, Each, Engine, How, Human, Import, Kind, Knows, Loop, Machine, On,
    Options, Outcome, Parallel, Reduce, Retry, Router, RunOptions, Search, Step, StepError, Steps, Strategy,
    Transition, Value, journal::StoredRuns, later, rule, value,
};
use caudal_store::sqlite::{self, Sqlite};

/// What the pipeline gives.
pub(crate) const EXPECTED: &str = r#"{"answer":true,"branches":37,"choice":"small","seen":3}"#;

/// The file in which every call of a leaf is noted, before the leaf answers.
pub(crate) fn effects(folder: &Path) -> PathBuf {
    folder.join("effects")
}

/// A leaf that notes its call, waits a little, and gives what `give` makes of its input.
fn leaf(folder: &Path, name: &str, give: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Step {
    let (file, give) = (effects(folder), Arc::new(give));
    let act: Arc<dyn Action> = later(name, move |call| {
        let (file, give) = (file.clone(), Arc::clone(&give));
        async move {
            let mut file =
                File::options().append(true).create(true).open(file).map_err(|e| StepError::failed(e.to_string()))?;
            file.write_all(format!("{}\n", call.key()).as_bytes())
                .map_err(|error| StepError::failed(error.to_string()))?;
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..3_000))).await;
            Ok(give(&call.input))
        }
    });
    Step::act(name, act)
}

fn add(folder: &Path, name: &str, more: i64) -> Step {
    leaf(folder, name, move |input| (input.as_i64().unwrap_or(0) + more).into())
}

fn kind(name: &str, kind: Kind) -> Step {
    Step::new(name, kind)
}

/// A pipeline with steps of all sorts: from 1 to 37 on the way, and then somebody is asked.
fn pipeline(folder: &Path) -> Definition {
    let one = |name: &str, more| Steps::new([add(folder, name, more)]);
    let sum = rule("sum", |view| {
        Ok(view.output.as_map().map_or(0, |map| map.iter().filter_map(|(_, v)| v.as_i64()).sum::<i64>()).into())
    });
    let parallel = |names: &[&str]| Parallel {
        reduce: Some(Reduce::Rule(Arc::clone(&sum))),
        ..Parallel::new(names.iter().map(|name| (Arc::from(*name), one(name, 1))).collect())
    };
    let flaky = {
        let file = effects(folder);
        later("flaky", move |call| {
            let file = file.clone();
            async move {
                if call.attempt < 2 {
                    return Err(StepError::failed("the first try fails"));
                }
                let noted = File::options()
                    .append(true)
                    .create(true)
                    .open(file)
                    .and_then(|mut file| file.write_all(format!("{}\n", call.key()).as_bytes()));
                noted.map_err(|error| StepError::failed(error.to_string()))?;
                Ok(call.input.clone())
            }
        })
    };
    let retried = Step::act("flaky", flaky)
        .with(|policy| policy.retry = Retry { more: 1, wait: Duration::from_millis(1), ..Retry::default() });
    let saved = leaf(folder, "bad", |_| Value::Null)
        .with(|policy| policy.gives = Some(caudal_flow::check("never", |_| Err("never good".into()))))
        .with(|policy| policy.retry.more = 0)
        .with(|policy| policy.fallback = Some(Arc::new(add(folder, "instead", 0))));
    let again = Loop {
        state: vec![Change {
            how: How::Append,
            path: "seen".into(),
            value: rule("it", |view| Ok(view.output.clone())),
        }],
        ..Loop::new(one("turn", 1), 3)
    };
    let items = rule("items", |view| Ok(Value::list((0..4).map(|_| view.output.clone()))));
    let each = Each { items: Some(items), body: one("item", 0), at_once: 2, ignore_failures: false };
    let router = Router {
        chooser: Box::new(leaf(folder, "choose", |_| value!(["x", "y"]))),
        parallel: parallel(&["x", "y", "z"]),
    };
    let states = vec![(Arc::from("work"), one("work", 1)), (Arc::from("done"), Steps::new([]))];
    let transitions = vec![Transition { from: None, on: On::Success, when: None, to: "done".into() }];
    let machine = Machine { start: "work".into(), ends: vec!["done".into()], states, transitions, most: 5 };
    let import = Import {
        pipeline: "other".into(),
        steps: one("imported", 0),
        knows: Knows::default(),
        inherits: true,
        outputs: None,
        ignore_failures: false,
    };
    let search = Search {
        proposer: Box::new(leaf(folder, "propose", |input| Value::list([input.clone(), input.clone()]))),
        evaluator: Box::new(leaf(folder, "rate", |_| 1.0.into())),
        strategy: Strategy::Beam,
        branching: 2,
        width: 1,
        depth: 2,
        most: 3,
        goal: Some(1.0),
        must_reach: true,
        cost: None,
        valid: None,
    };
    let choose = Conditional {
        when: rule("large", |view| Ok((view.output.as_i64() > Some(1_000)).into())),
        branches: vec![
            ("true".into(), Steps::new([leaf(folder, "large", |_| "large".into())])),
            ("false".into(), Steps::new([leaf(folder, "small", |_| "small".into())])),
        ],
        otherwise: None,
    };
    let pick = |name: &'static str, pick: fn(&Value) -> Value| {
        Step::act(name, caudal_flow::function(name, move |call| Ok(pick(&call.input))))
    };
    let context = |name: &'static str| {
        Step::act(name, caudal_flow::function(name, move |call| Ok(call.input.clone())))
            .with(|policy| policy.sink = Some(name.into()))
    };
    let aside = leaf(folder, "aside", Value::clone).with(|policy| policy.background = true);
    let steps = Steps::new([
        add(folder, "first", 0),
        retried,
        saved,
        kind("parallel", Kind::Parallel(Arc::new(parallel(&["a", "b", "c"])))),
        kind("loop", Kind::Loop(Arc::new(again))),
        kind("map", Kind::Map(Arc::new(each))),
        pick("sum", |input| {
            input.as_list().map_or(0, |list| list.iter().filter_map(Value::as_i64).sum::<i64>()).into()
        }),
        pick("less", |input| (input.as_i64().unwrap_or(0) - 19).into()),
        kind("route", Kind::Router(Arc::new(router))),
        kind("cache", Kind::Cache(Arc::new(Cached::new(add(folder, "cached", 0))))),
        kind("machine", Kind::Machine(Arc::new(machine))),
        kind("import", Kind::Import(Arc::new(import))),
        kind("search", Kind::Search(Arc::new(search))),
        pick("best", |input| input.get("best").cloned().unwrap_or_default()),
        context("branches"),
        aside,
        kind("if", Kind::Conditional(Arc::new(choose))),
        context("choice"),
        kind("approve", Kind::Human(Arc::new(Human { message: None, answers: None, schema: Value::Null }))),
        Step::act(
            "all",
            caudal_flow::function("all", |call| {
                let from = |name: &str| call.context.get(name).cloned().unwrap_or_default();
                let seen = from("seen").as_list().map_or(0, <[Value]>::len);
                Ok(Value::Map(
                    [
                        ("answer", call.input.clone()),
                        ("branches", from("branches")),
                        ("choice", from("choice")),
                        ("seen", seen.into()),
                    ]
                    .into_iter()
                    .collect(),
                ))
            }),
        ),
    ]);
    let mut definition = Definition::new("all kinds", steps);
    definition.durable = true;
    definition
}

/// An engine over the folder's database, and the pipeline.
pub(crate) fn engine(folder: &Path) -> (Engine, Definition) {
    let store = Sqlite::open(sqlite::Options::within(folder)).expect("a store");
    let runs = Arc::new(StoredRuns::new(Arc::new(store)));
    (Engine::new(Options { runs: Some(runs), ..Options::default() }), pipeline(folder))
}

/// Runs this test binary again, as the process that is killed.
pub(crate) fn start(folder: &Path, round: u32) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command
        .args(["child::child", "--exact", "--nocapture"])
        .env("CHILD_FOLDER", folder)
        .env("CHILD_ROUND", round.to_string());
    command.stdout(Stdio::null()).spawn().expect("a process")
}

/// Not a test of its own: what the other starts.
#[test]
fn child() {
    let Ok(folder) = std::env::var("CHILD_FOLDER") else { return };
    let round = std::env::var("CHILD_ROUND").expect("a round");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async move {
        let (engine, definition) = engine(Path::new(&folder));
        let work = (0..4).map(|task| {
            let (engine, definition, round) = (engine.clone(), definition.clone(), round.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    let id: Arc<str> = format!("{round}-{task}-{number}").into();
                    let options = RunOptions { id: Some(Arc::clone(&id)), ..RunOptions::default() };
                    let ran = engine.run(&definition, 1.into(), options).await;
                    assert!(matches!(ran.outcome, Outcome::Paused(_)), "{:?}", ran.outcome);
                    let answers = [("".into(), true.into())].into();
                    let ran = engine.resume(&definition, &id, answers, false).await.expect("a run").await;
                    assert_eq!(ran.output().map(|value| value.to_json()).as_deref(), Ok(EXPECTED));
                }
            })
        });
        futures_util::future::join_all(work).await;
    });
}
