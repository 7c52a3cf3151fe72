//! What may befall the file, and that nothing of it befalls a run.

use std::{fs, path::Path, sync::Arc};

use caudal_flow::{Found, Shelf, ShelfOptions, SqliteShelf, StepCache};
use rusqlite::Connection;

use crate::{HOUR, ROOM, answer, ask, found, key, open};

fn file(folder: &Path) -> std::path::PathBuf {
    folder.join("flow-cache.db")
}

/// A file with answers 0 to 99, and all of it in the one file.
fn filled(folder: &Path) {
    let shelf = open(folder);
    for number in 0..100u64 {
        shelf.put(&key(number), answer(format!("{number} ").repeat(200)), None);
    }
    drop(shelf);
    let connection = Connection::open(file(folder)).unwrap();
    connection.execute_batch("pragma wal_checkpoint(truncate)").unwrap();
}

/// The shelf is empty and takes answers.
async fn begins_anew(folder: &Path) {
    assert_eq!(found(&open(folder), 1).await, None);
    open(folder).put(&key(1), answer("new"), None);
    assert_eq!(found(&open(folder), 1).await, Some("new".into()));
}

#[tokio::test]
async fn what_is_no_cache_of_ours_is_set_aside_and_not_lost() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(file(folder.path()), "these are notes, and none of SQLite's files").unwrap();
    begins_anew(folder.path()).await;
    let aside = fs::read_to_string(folder.path().join("flow-cache.db.damaged")).unwrap();
    assert!(aside.starts_with("these are notes"));

    let folder = tempfile::tempdir().unwrap();
    let other = Connection::open(file(folder.path())).unwrap();
    other.execute_batch("create table letters (text); insert into letters values ('Dear Ada')").unwrap();
    drop(other);
    begins_anew(folder.path()).await;
    let aside = Connection::open(folder.path().join("flow-cache.db.damaged")).unwrap();
    let text: String = aside.query_row("select text from letters", [], |row| row.get(0)).unwrap();
    assert_eq!(text, "Dear Ada");
}

#[tokio::test]
async fn another_form_is_emptied() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let connection = Connection::open(file(folder.path())).unwrap();
    connection.execute_batch("alter table answers rename to responses; pragma user_version = 9999").unwrap();
    drop(connection);
    begins_anew(folder.path()).await;
    assert!(!folder.path().join("flow-cache.db.damaged").exists());
}

#[tokio::test]
async fn wherever_the_file_ends_there_is_no_wrong_answer_and_no_failure() {
    let whole = tempfile::tempdir().unwrap();
    filled(whole.path());
    let bytes = fs::read(file(whole.path())).unwrap();
    for length in [0, 1, 99, 100, 4_095, 4_096, bytes.len() / 3, bytes.len() / 2, bytes.len() - 4_096, bytes.len() - 1]
    {
        lives_with(&bytes[..length], &format!("{length} bytes")).await;
    }
}

#[tokio::test]
async fn whatever_is_written_over_there_is_no_wrong_answer_and_no_failure() {
    let whole = tempfile::tempdir().unwrap();
    filled(whole.path());
    let bytes = fs::read(file(whole.path())).unwrap();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let rounds = if std::env::var_os("CAUDAL_TEST_FULL").is_some() { 500 } else { 25 };
    for _ in 0..rounds {
        let mut damaged = bytes.clone();
        for _ in 0..random.usize(1..200) {
            let place = random.usize(0..damaged.len());
            damaged[place] = random.u8(..);
        }
        lives_with(&damaged, &format!("seed {seed}")).await;
    }
}

/// A cache over such a file gives what was put there or makes it, and does not fail.
async fn lives_with(bytes: &[u8], what: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(file(folder.path()), bytes).unwrap();
    for _ in 0..2 {
        let shelf = open(folder.path());
        let cache = StepCache::new(ROOM, Some(HOUR), Some(Arc::new(shelf)));
        for number in 0..100u64 {
            let expected = format!("{number} ").repeat(200);
            assert_eq!(ask(&cache, number, expected.clone()).await.0, expected.into(), "{what}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_deleted_is_made_anew_by_who_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = open(folder.path());
    shelf.put(&key(1), answer(1), None);
    for entry in fs::read_dir(folder.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let cache = StepCache::new(ROOM, Some(HOUR), Some(Arc::new(shelf)));
    assert_eq!(ask(&cache, 2, "made").await, ("made".into(), Found::Made));
    begins_anew(folder.path()).await;
}

#[tokio::test]
async fn where_nothing_can_be_kept_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("taken"), "").unwrap();
    let Err(error) = SqliteShelf::open(ShelfOptions::within(&folder.path().join("taken"), ROOM)) else { panic!() };
    assert!(error.to_string().contains("no answers are remembered in"), "{error}");
}
