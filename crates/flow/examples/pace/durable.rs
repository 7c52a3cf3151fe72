//! Steps that are kept before the next begins, beside what the disk and the store do.

use std::{
    fs::File,
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use caudal_flow::{Definition, Engine, Options, Pipeline, RunOptions, Value, journal::StoredRuns};
use caudal_store::{Append, NewRecord, NewStream, Store, StreamId, sqlite};
use futures_util::future::join_all;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Builder;
use uuid::Uuid;

/// Runs that go on at the same time.
pub(crate) const MANY: usize = 256;
/// Steps of a run: few enough that runs begin and end while others go on.
const STEPS: usize = 20;
/// Steps of a run that is alone.
const LONG: usize = 100;
/// Bytes of what a step's line takes in the journal, about.
const LINE: usize = 250;

/// Appends that are flushed one by one.
pub(crate) fn flushes(folder: &Path, time: Duration) -> (u64, Duration) {
    let place = tempfile::tempdir_in(folder).expect("a folder");
    let mut file = File::create(place.path().join("flush")).expect("a file");
    let (line, start, mut count) = ([b'x'; LINE], Instant::now(), 0);
    while start.elapsed() < time {
        file.write_all(&line).and_then(|()| file.sync_data()).expect("a disk");
        count += 1;
    }
    (count, start.elapsed())
}

fn store(place: &Path) -> Arc<dyn Store> {
    Arc::new(sqlite::Sqlite::open(sqlite::Options::within(place)).expect("a store"))
}

/// Steps of so many runs at the same time.
pub(crate) fn steps(folder: &Path, time: Duration, runs: usize) -> (u64, Duration) {
    let place = tempfile::tempdir_in(folder).expect("a folder");
    let engine =
        Engine::new(Options { runs: Some(Arc::new(StoredRuns::new(store(place.path())))), ..Options::default() });
    let mut definition = chain(if runs == 1 { LONG } else { STEPS });
    definition.durable = true;
    let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        let tasks = (0..runs).map(|_| tokio::spawn(again(engine.clone(), definition.clone(), time)));
        let counts = join_all(tasks).await;
        (counts.into_iter().map(|count| count.expect("a task")).sum(), start.elapsed())
    })
}

fn chain(steps: usize) -> Definition {
    let start = Pipeline::<i64, i64>::new("durable");
    (0..steps).fold(start, |chain, number| chain.step(format!("s{number}"), |x: &i64, _| Ok(x + 1))).define()
}

async fn again(engine: Engine, definition: Definition, time: Duration) -> u64 {
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        let ran = engine.run(&definition, Value::from(0), RunOptions::default()).await;
        assert!(ran.outcome.eq(&caudal_flow::Outcome::Completed((definition.steps.len() as i64).into())), "it ends");
        count += definition.steps.len() as u64;
    }
    count
}

/// Records that the store takes of as many writers as there are runs in the case of many.
pub(crate) fn records(folder: &Path, time: Duration) -> (u64, Duration) {
    let place = tempfile::tempdir_in(folder).expect("a folder");
    let store = store(place.path());
    let runtime = Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        let tasks = (0..MANY).map(|number| tokio::spawn(appends(Arc::clone(&store), number, time)));
        let counts = join_all(tasks).await;
        (counts.into_iter().map(|count| count.expect("a task")).sum(), start.elapsed())
    })
}

async fn appends(store: Arc<dyn Store>, number: usize, time: Duration) -> u64 {
    let id = StreamId::new("pace", number.to_string());
    store.create(NewStream { id: id.clone(), meta: bytes::Bytes::new() }).await.expect("a stream");
    let body = bytes::Bytes::from(vec![b'x'; LINE]);
    let digest = Sha256::digest(&body).into();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        let record = NewRecord {
            id: Uuid::now_v7(),
            kind: "step".into(),
            meta: bytes::Bytes::new(),
            digest,
            body: body.clone(),
        };
        let append = Append { stream: id.clone(), expected: Some(count), key: None, records: vec![record] };
        store.append(append).await.expect("it is kept");
        count += 1;
    }
    count
}
