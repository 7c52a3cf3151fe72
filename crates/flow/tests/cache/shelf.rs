//! What a shelf adds: answers that outlast their process, for as long as they hold and as there is room.

use std::{sync::Arc, time::Duration};

use caudal_flow::{Found, Shelf, ShelfOptions, SqliteShelf, StepCache};

use crate::{HOUR, Hand, ROOM, answer, ask, found, key, open, open_at};

#[tokio::test]
async fn what_is_put_there_is_there_for_who_comes_next() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3 {
        let shelf = open(folder.path());
        for before in 0..number {
            assert_eq!(found(&shelf, before).await, Some(before.into()));
        }
        assert_eq!(found(&shelf, number).await, None);
        shelf.put(&key(number), answer(number), None);
    }
}

#[tokio::test]
async fn its_time_goes_on_and_does_not_begin_anew() {
    let (folder, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let minute = Duration::from_secs(60);
    open_at(folder.path(), ROOM, &hand).put(&key(1), answer(1), Some(HOUR));
    for left in (1..60).rev().step_by(7) {
        hand.0.store(
            1_700_000_000_000_000 + (3_600 - i64::from(left) * 60) * 1_000_000,
            std::sync::atomic::Ordering::Relaxed,
        );
        let shelved = open_at(folder.path(), ROOM, &hand).get(&key(1)).await.unwrap();
        assert_eq!((shelved.left, shelved.age), (Some(minute * left), HOUR - minute * left));
    }
    hand.forward(4 * minute);
    assert_eq!(found(&open_at(folder.path(), ROOM, &hand), 1).await, None);
}

#[tokio::test]
async fn what_is_found_holds_in_memory_for_what_is_left() {
    let (folder, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    open_at(folder.path(), ROOM, &hand).put(&key(1), answer("old"), Some(HOUR));
    hand.forward(HOUR - Duration::from_millis(100));
    let cache = |ttl| StepCache::new(ROOM, Some(ttl), Some(Arc::new(open_at(folder.path(), ROOM, &hand))));
    let hourly = cache(HOUR);
    assert_eq!(ask(&hourly, 1, "new").await, ("old".into(), Found::Remembered));
    tokio::time::sleep(Duration::from_millis(150)).await;
    hand.forward(Duration::from_millis(150));
    assert_eq!(ask(&hourly, 1, "new").await, ("new".into(), Found::Made));
}

#[tokio::test]
async fn who_wants_younger_answers_is_not_given_old_ones() {
    let (folder, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    open_at(folder.path(), ROOM, &hand).put(&key(1), answer("old"), Some(HOUR));
    hand.forward(Duration::from_secs(90));
    let cache = |ttl| StepCache::new(ROOM, Some(ttl), Some(Arc::new(open_at(folder.path(), ROOM, &hand))));
    assert_eq!(ask(&cache(Duration::from_secs(91)), 1, "new").await, ("old".into(), Found::Remembered));
    assert_eq!(ask(&cache(Duration::from_secs(90)), 1, "new").await, ("new".into(), Found::Made));
}

#[tokio::test]
async fn what_the_answers_are_about_tells_them_apart() {
    let folder = tempfile::tempdir().unwrap();
    let about = |about: &str| {
        SqliteShelf::open(ShelfOptions { about: about.into(), ..ShelfOptions::within(folder.path(), ROOM) }).unwrap()
    };
    about("1.0").put(&key(1), answer("of 1.0"), None);
    assert_eq!(found(&about("1.1"), 1).await, None);
    assert_eq!(found(&about("1.0"), 1).await, Some("of 1.0".into()));
}

/// Room for ten answers of about 1,000 bytes.
const TEN: u64 = 10 * 1_300;

#[tokio::test]
async fn the_least_recently_used_go_first() {
    let (folder, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let put = |number: u64| {
        open_at(folder.path(), TEN, &hand).put(&key(number), answer("x".repeat(1_000)), None);
        hand.forward(Duration::from_secs(1));
    };
    (0..10).for_each(put);
    hand.forward(HOUR);
    for number in [0, 3] {
        assert!(found(&open_at(folder.path(), TEN, &hand), number).await.is_some());
        hand.forward(Duration::from_secs(1));
    }
    (10..16).for_each(put);
    let shelf = open_at(folder.path(), TEN, &hand);
    let mut kept = Vec::new();
    for number in 0..16 {
        kept.extend(found(&shelf, number).await.map(|_| number));
    }
    assert_eq!(kept, [0, 3, 8, 9, 10, 11, 12, 13, 14, 15]);
}

#[tokio::test]
async fn a_smaller_limit_makes_the_file_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let size = || std::fs::metadata(folder.path().join("flow-cache.db")).unwrap().len();
    let room = |bytes| SqliteShelf::open(ShelfOptions::within(folder.path(), bytes)).unwrap();
    let shelf = room(ROOM);
    for number in 0..40 {
        shelf.put(&key(number), answer("x".repeat(100_000)), None);
    }
    drop(shelf);
    drop(room(500_000));
    // What is written stands in the log first; a checkpoint brings it into the file.
    let connection = rusqlite::Connection::open(folder.path().join("flow-cache.db")).unwrap();
    connection.execute_batch("pragma wal_checkpoint(truncate)").unwrap();
    let kept: u64 = connection.query_row("select count(*) from answers", [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 4);
    assert!(size() < 1_000_000, "{}", size());
}

#[tokio::test]
async fn answers_whose_time_is_over_are_removed() {
    let (folder, hand) = (tempfile::tempdir().unwrap(), Hand::new());
    let shelf = open_at(folder.path(), ROOM, &hand);
    for number in 0..5 {
        shelf.put(&key(number), answer(number), Some(Duration::from_secs(if number < 3 { 10 } else { 1_000 })));
    }
    drop(shelf);
    hand.forward(Duration::from_secs(10));
    drop(open_at(folder.path(), ROOM, &hand));
    let connection = rusqlite::Connection::open(folder.path().join("flow-cache.db")).unwrap();
    let left: (u64, u64) = connection
        .query_row("select count(*), (select bytes from room) - sum(bytes) from answers", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(left, (2, 0), "and what is counted is what there is");
}

#[tokio::test]
async fn an_answer_larger_than_all_room_is_not_kept_and_moves_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let room = || SqliteShelf::open(ShelfOptions::within(folder.path(), TEN)).unwrap();
    room().put(&key(1), answer("small"), None);
    room().put(&key(2), answer("x".repeat(TEN as usize)), None);
    room().put(&key(3), answer("x".repeat(40 << 20)), None);
    let shelf = room();
    assert_eq!((found(&shelf, 1).await, found(&shelf, 2).await), (Some("small".into()), None));
    assert_eq!(found(&shelf, 3).await, None);
}

#[tokio::test]
async fn more_than_finds_room_to_wait_is_dropped_and_nobody_waits() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = open(folder.path());
    // Somebody else writes, so that nothing of it can be written.
    let other = rusqlite::Connection::open(folder.path().join("flow-cache.db")).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let began = std::time::Instant::now();
    for number in 0..20_000 {
        shelf.put(&key(number), answer(number), None);
    }
    assert!(began.elapsed() < Duration::from_secs(2), "nobody waits for the disk: {:?}", began.elapsed());
    other.execute_batch("rollback").unwrap();
    drop(shelf);
    let kept: u64 = other.query_row("select count(*) from answers", [], |row| row.get(0)).unwrap();
    assert!((1_000..3_000).contains(&kept), "{kept}");
}
