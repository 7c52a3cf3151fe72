//! How many records a store takes, each acknowledged once it is on disk.
//!
//! `cargo run --release -p caudal-store --example measure -- [sqlite|postgres] [FOLDER] [SECONDS] [WRITERS]`

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use caudal_store::{Append, NewRecord, NewStream, Store, StreamId, postgres, sqlite};
use caudal_testkit::Postgres as Server;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Streams that are appended to.
const STREAMS: usize = 500;
/// Bytes of a record's body.
const BODY: usize = 1_024;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |place: usize, usual: &str| words.get(place).map_or(usual.to_owned(), String::clone);
    let (engine, folder, seconds) = (word(0, "sqlite"), word(1, "."), word(2, "5"));
    let seconds: u64 = seconds.parse().expect("a number of seconds");
    let writers: usize = word(3, "2").parse().expect("a number of writers");
    let server = (engine == "postgres").then(|| Server::start().expect("PostgreSQL is installed"));
    if let Some(server) = &server {
        pgbench(server, seconds);
    }
    for (tasks, batch) in [(1, 1), (16, 1), (64, 1), (4, 256), (8, 256), (64, 16)] {
        let place = tempfile::tempdir_in(&folder).expect("a folder");
        let store: Arc<dyn Store> = match &server {
            None => Arc::new(sqlite::Sqlite::open(sqlite::Options::within(place.path())).expect("a store")),
            Some(server) => Arc::new(open(server, writers)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (records, took, p99) = runtime.block_on(measure(&store, tasks, batch, Duration::from_secs(seconds)));
        let figures = store.figures();
        println!(
            "{engine}: {tasks:>3} tasks, {batch:>3} records each: {:>9.0} records/s, p99 {p99:?}, {:.1} records a commit, \
             {:.0} commits/s, {:.2} ms each, log {}",
            records as f64 / took.as_secs_f64(),
            figures.appended as f64 / figures.commits as f64,
            figures.commits as f64 / took.as_secs_f64(),
            figures.committing.as_secs_f64() * 1e3 / figures.commits as f64,
            size(place.path()),
        );
    }
}

fn size(folder: &Path) -> String {
    let bytes = std::fs::metadata(folder.join("caudal.db-wal")).map_or(0, |file| file.len());
    format!("{} MiB", bytes >> 20)
}

fn open(server: &Server, writers: usize) -> postgres::Postgres {
    postgres::Postgres::open(postgres::Options {
        schema: server.name(),
        writers,
        ..postgres::Options::at(server.url())
    })
    .expect("a store")
}

async fn measure(store: &Arc<dyn Store>, tasks: usize, batch: usize, time: Duration) -> (u64, Duration, Duration) {
    let made = (0..STREAMS).map(|number| store.create(NewStream { id: stream(number), meta: Vec::new().into() }));
    for made in futures_util::future::join_all(made).await {
        made.expect("made");
    }
    let body = bytes::Bytes::from(vec![b'x'; BODY]);
    let digest = Sha256::digest(&body).into();
    let (done, start) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let (store, done, body) = (Arc::clone(store), Arc::clone(&done), body.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                let mut number = task * 37;
                while start.elapsed() < time {
                    number += 1;
                    let record = || NewRecord {
                        id: Uuid::now_v7(),
                        kind: "note".into(),
                        meta: (&b"{\"by\": \"measure\"}"[..]).into(),
                        body: body.clone(),
                        digest,
                    };
                    let records = (0..batch).map(|_| record()).collect();
                    let append = Append { stream: stream(number % STREAMS), expected: None, key: None, records };
                    let begun = Instant::now();
                    store.append(append).await.expect("appended");
                    times.push(begun.elapsed());
                    done.fetch_add(batch as u64, Relaxed);
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a task"));
    }
    times.sort_unstable();
    (done.load(Relaxed), start.elapsed(), times[times.len() * 99 / 100])
}

fn stream(number: usize) -> StreamId {
    StreamId::new("measure", format!("s{number}"))
}

/// What PostgreSQL's own benchmark reaches with one insert a commit.
fn pgbench(server: &Server, seconds: u64) {
    server.sql(
        "create table events (seq bigserial primary key, stream int, body text, ts timestamptz default now());
         create index on events (stream, seq)",
    );
    let script = tempfile::NamedTempFile::new().expect("a file");
    let body = "x".repeat(BODY);
    let lines = format!("\\set s random(1, 500)\ninsert into events (stream, body) values (:s, '{body}');\n");
    std::fs::write(script.path(), lines).expect("a script");
    let mut pgbench = std::process::Command::new("pgbench");
    pgbench.args(["-n", "-M", "prepared", "-c", "16", "-j", "1", "-T", &seconds.to_string(), "-f"]);
    pgbench.arg(script.path()).args(["-d", &server.url()]);
    let said = pgbench.output().expect("pgbench").stdout;
    let said = String::from_utf8_lossy(&said);
    println!("pgbench, 16 clients: {}", said.lines().filter(|line| line.starts_with("tps")).collect::<String>());
}
