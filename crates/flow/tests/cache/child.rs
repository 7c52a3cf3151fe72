//! Processes that share a file, and one that is killed while it writes.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use caudal_flow::Shelf;

use crate::{answer, found, key, open, until};

/// Answers that a child writes, over and over.
const MANY: u64 = 400;

fn words(number: u64) -> String {
    format!("{number} ").repeat(100 + number as usize % 50)
}

/// Runs this test binary again, as a process that writes without end.
fn start(folder: &Path, from: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child::child", "--exact", "--nocapture"]).env("CHILD_FOLDER", folder);
    command.env("CHILD_FROM", from.to_string()).stdout(Stdio::null()).spawn().unwrap()
}

/// Not a test of its own: what the others start.
#[test]
fn child() {
    let Ok(folder) = std::env::var("CHILD_FOLDER") else { return };
    let from: u64 = std::env::var("CHILD_FROM").unwrap().parse().unwrap();
    let shelf = open(Path::new(&folder));
    for number in (from..from + MANY).cycle() {
        shelf.put(&key(number), answer(words(number)), None);
        std::thread::sleep(Duration::from_micros(50));
    }
}

async fn count(folder: &Path) -> usize {
    let (shelf, mut count) = (open(folder), 0);
    for number in 0..2 * MANY {
        if let Some(value) = found(&shelf, number).await {
            assert_eq!(value, words(number).into());
            count += 1;
        }
    }
    count
}

#[tokio::test]
async fn two_processes_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut children = [start(folder.path(), 0), start(folder.path(), MANY)];
    until("both have written all", || {
        let shelf = open(folder.path());
        let connection = rusqlite::Connection::open(folder.path().join("flow-cache.db")).unwrap();
        drop(shelf);
        connection.query_row("select count(*) from answers", [], |row| row.get(0)) == Ok(2 * MANY)
    });
    assert_eq!(count(folder.path()).await, 2 * MANY as usize);
    for child in &mut children {
        assert_eq!(child.try_wait().unwrap(), None, "neither is hindered by the other");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn a_process_killed_while_it_writes_leaves_a_file_that_can_be_read() {
    let (folder, rounds) =
        (tempfile::tempdir().unwrap(), if std::env::var_os("CAUDAL_TEST_FULL").is_some() { 200 } else { 8 });
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut most = 0;
    for _ in 0..rounds {
        let mut child = start(folder.path(), 0);
        std::thread::sleep(Duration::from_millis(random.u64(20..150)));
        child.kill().unwrap();
        child.wait().unwrap();
        most = most.max(count(folder.path()).await);
    }
    assert!(most > 0, "some of it was written");
    assert!(!folder.path().join("flow-cache.db.damaged").exists());
}
