//! Processes that are killed while they append, and many that append at once.

use std::{
    fs,
    time::{Duration, Instant},
};

use caudal_store::Clock;
use caudal_testkit::Postgres as Server;

use crate::{
    chance, child,
    child::{Place, Seen},
    full, rounds,
};

/// How many kills one database sees: the next begins with an empty one.
const LIFE: usize = 100;

#[test]
fn a_killed_process_loses_nothing_on_sqlite() {
    kill("sqlite", rounds(20, 10_000), || {
        let folder = tempfile::tempdir().expect("a folder");
        (Place::Folder(folder.path().join("db").display().to_string()), folder)
    });
}

#[test]
fn a_killed_process_loses_nothing_on_postgresql() {
    let Some(server) = Server::start() else {
        eprintln!("skipped: PostgreSQL is not installed (Debian: postgresql)");
        return;
    };
    kill("postgresql", rounds(6, 1_000), || {
        let place = Place::Server { url: server.url(), schema: server.name() };
        (place, tempfile::tempdir().expect("a folder"))
    });
}

fn kill(engine: &str, rounds: usize, place: impl Fn() -> (Place, tempfile::TempDir)) {
    let mut chance = chance(engine);
    let (mut records, mut acknowledged, mut longest, mut done) = (0, 0, Duration::ZERO, 0);
    while done < rounds {
        let (place, folder) = place();
        let acks = folder.path().join("acks");
        let (mut seen, mut told) = (Seen::default(), 0);
        for _ in 0..LIFE.min(rounds - done) {
            let mut process = child::start("forever", &place, &acks);
            // Some are killed while they start, most while they append.
            std::thread::sleep(Duration::from_millis(chance.u64(5..150)));
            process.kill().expect("killed");
            process.wait().expect("ended");
            done += 1;
            // Sometimes the next one comes upon what the one before it left.
            if done < rounds && chance.u8(..3) == 0 {
                continue;
            }
            let start = Instant::now();
            let store = place.open(Clock::system()).expect("it opens");
            longest = longest.max(start.elapsed());
            let all = fs::read_to_string(&acks).unwrap_or_default();
            records += seen.check(&*store, &all[told..]);
            acknowledged += all[told..].lines().count();
            told = all.len();
        }
        let store = place.open(Clock::system()).expect("it opens");
        assert_eq!(contract_run(store.check()).expect("checked"), Vec::<String>::new());
    }
    assert!(acknowledged > 0);
    println!(
        "{engine}: {done} kills, {acknowledged} appends acknowledged, {records} records, opened in at most {longest:?}"
    );
}

fn contract_run<F: std::future::Future>(future: F) -> F::Output {
    crate::contract::run(future)
}

#[test]
fn nobody_hears_that_the_database_is_locked() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::Folder(folder.path().join("db").display().to_string());
    let store = place.open(Clock::system()).expect("a store");
    contract_run(async {
        for name in child::STREAMS {
            crate::contract::make(&*store, name).await;
        }
    });
    let seconds = if full() { 600 } else { 3 };
    let processes: Vec<_> = (0..2)
        .map(|number| {
            let told = folder.path().join(format!("told {number}"));
            let mut command = child::command("writers", &place, &told);
            (command.env("CHILD_SECONDS", seconds.to_string()).spawn().expect("a process"), told)
        })
        .collect();
    let mut done = 0;
    for (mut process, told) in processes {
        assert!(process.wait().expect("ended").success(), "a writer was refused");
        let told = fs::read_to_string(told).expect("figures");
        let (count, longest) = told.split_once(' ').expect("two numbers");
        println!("16 writers of one process of two: {count} appends in {seconds} s, the slowest took {longest} ms");
        done += count.parse::<usize>().expect("a number");
    }
    assert_eq!(Seen::default().check(&*store, ""), done);
}
