//! A process that runs pipelines is killed at any moment, and its runs go on in another: nothing that was kept is done
//! again, everything ends as it should, and no run is left behind.

mod child;

use std::{
    collections::{BTreeMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use caudal_flow::journal::{Runs, Story};
use child::{EXPECTED, effects, engine, start};

/// How often the process is killed: in seconds here, in full behind `cargo xtask soak`.
fn kills() -> u32 {
    if std::env::var_os("CAUDAL_TEST_FULL").is_some() { 1_000 } else { 12 }
}

/// What is kept of each run, as `run/path`.
async fn kept(runs: &dyn Runs) -> (HashSet<String>, Vec<Story>) {
    let (mut kept, mut stories) = (HashSet::new(), Vec::new());
    for run in runs.list(10_000, 0).await.expect("a list").runs {
        let story = Story::read(runs, &run.id).await.expect("a story");
        let mut seen = HashSet::new();
        for path in &story.order {
            assert!(seen.insert(path), "{path} of {} was kept twice", run.id);
            kept.insert(format!("{}/{path}", run.id));
        }
        stories.push(story);
    }
    (kept, stories)
}

/// How often each leaf was called.
fn counts(folder: &Path) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(effects(folder)).unwrap_or_default().lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_and_does_nothing_twice() {
    let (mut total, mut slowest, began) = (0, Duration::ZERO, Instant::now());
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    while total < kills() {
        // A folder of its own now and then, so that lists stay short.
        let folder = tempfile::tempdir().expect("a folder");
        for round in 0..10 {
            let mut child = start(folder.path(), round);
            std::thread::sleep(Duration::from_micros(random.u64(20_000..400_000)));
            child.kill().expect("a process to kill");
            child.wait().expect("its end");
            total += 1;
            let since = Instant::now();
            resume(folder.path()).await;
            slowest = slowest.max(since.elapsed());
        }
    }
    println!(
        "{total} kills in {:?}; all runs of a process were taken up again in at most {slowest:?}",
        began.elapsed()
    );
}

/// What is kept once every run has ended: those that go their own way may take a moment longer than who began them.
async fn ended(engine: &caudal_flow::Engine) -> (HashSet<String>, Vec<Story>) {
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let (kept, stories) = kept(&**engine.runs()).await;
        if stories.iter().all(|story| story.ended.is_some()) || Instant::now() > patience {
            return (kept, stories);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Takes up what was left, and looks at what it came to.
async fn resume(folder: &Path) {
    let (engine, definition) = engine(folder);
    let (before, stories) = kept(&**engine.runs()).await;
    let called = counts(folder);
    for (run, story) in engine.runs().list(10_000, 0).await.expect("a list").runs.iter().zip(stories) {
        if story.ended.is_some() {
            continue;
        }
        if let Some((_, name)) = story.begun.pipeline.split_once('#') {
            let aside = definition.aside(name).expect("a background step");
            let ran = engine.resume(&aside, &run.id, [].into(), false).await.expect("to be taken up").await;
            assert_eq!(ran.output(), Ok(37.into()));
            continue;
        }
        let answers = story.paused.map(|_| [("".into(), true.into())].into()).unwrap_or_default();
        let mut ran = engine.resume(&definition, &run.id, answers, false).await.expect("to be taken up").await;
        if let caudal_flow::Outcome::Paused(_) = ran.outcome {
            let answers = [("".into(), true.into())].into();
            ran = engine.resume(&definition, &run.id, answers, false).await.expect("to be taken up").await;
        }
        assert_eq!(ran.output().map(|value| value.to_json()).as_deref(), Ok(EXPECTED));
    }
    let again = counts(folder);
    for step in &before {
        assert_eq!(called.get(step), again.get(step), "{step} was kept, and done again");
    }
    let (after, stories) = ended(&engine).await;
    assert!(after.is_superset(&before));
    for story in stories {
        let expected = if story.begun.pipeline.contains('#') { "37" } else { EXPECTED };
        let ended = story.ended.expect("every run to end");
        assert_eq!((&*ended.status, ended.output.to_json().as_str()), ("completed", expected));
    }
}
