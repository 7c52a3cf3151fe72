//! Steps that do nothing, in memory.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use caudal_flow::{Definition, Engine, Options, Pipeline, RunOptions, Value};
use tokio::runtime::Builder;

/// Steps of a chain.
const CHAIN: usize = 1_000;
/// Runs between two looks at the clock.
const LOOK: u64 = 64;

/// Counts what is done within that time, and how long it took.
pub(crate) fn measure(name: &str, time: Duration) -> (u64, Duration) {
    let (definition, input, each) = scenario(name.trim_end_matches("-all"));
    let engine = Engine::new(Options::default());
    if !name.ends_with("-all") {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(again(engine, definition, input, each, time));
    }
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let runtime = Builder::new_multi_thread().worker_threads(cores).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        let one = || tokio::spawn(again(engine.clone(), definition.clone(), input.clone(), each, time));
        let tasks: Vec<_> = (0..cores * 2).map(|_| one()).collect();
        let mut count = 0;
        for task in tasks {
            count += task.await.expect("a task").0;
        }
        (count, start.elapsed())
    })
}

async fn again(engine: Engine, definition: Definition, input: Value, each: u64, time: Duration) -> (u64, Duration) {
    // What is remembered is remembered before the clock starts.
    let ran = engine.run(&definition, input.clone(), RunOptions::default()).await;
    assert!(ran.output().is_ok(), "the pipeline comes to its end");
    let looks = if each > LOOK { 1 } else { LOOK };
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        for _ in 0..looks {
            engine.run(&definition, input.clone(), RunOptions::default()).await;
        }
        count += looks * each;
        tokio::task::yield_now().await;
    }
    (count, start.elapsed())
}

/// A pipeline, what it is given, and how many a run counts for.
fn scenario(name: &str) -> (Definition, Value, u64) {
    match name {
        "chain" => (chain(CHAIN), Value::from(0), CHAIN as u64),
        "runs" => (chain(1), Value::from(0), 1),
        "cached" => (cached(CHAIN), text(), CHAIN as u64),
        "cached-runs" => (cached(1), text(), 1),
        "mixed" => (mixed(), Value::from(0), 5),
        name => panic!("there is no case {name}"),
    }
}

/// A text of 1 KB.
fn text() -> Value {
    Value::from("x".repeat(1_000))
}

fn chain(steps: usize) -> Definition {
    let start = Pipeline::<i64, i64>::new("chain");
    (0..steps).fold(start, |chain, number| chain.step(format!("s{number}"), |x: &i64, _| Ok(x + 1))).define()
}

fn cached(steps: usize) -> Definition {
    let start = Pipeline::<String, String>::new("cached");
    (0..steps).fold(start, |chain, _| chain.step("same", |text: &String, _| Ok(text.clone())).cached()).define()
}

fn mixed() -> Definition {
    let branch = |name: &str| Pipeline::<i64, i64>::new(name).step("inc", |x: &i64, _| Ok(x + 1));
    Pipeline::<i64, i64>::new("mixed")
        .parallel("four", ["a", "b", "c", "d"].map(branch))
        .step("one", |_: &BTreeMap<String, i64>, _| Ok(1_i64))
        .cached()
        .define()
}
