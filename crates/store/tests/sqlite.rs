//! The contract over SQLite, and what only SQLite does.

mod contract;

use std::{path::PathBuf, sync::Arc};

use caudal_store::{
    Clock, Range, Store, StoreError,
    sqlite::{Options, Sqlite},
};
use contract::{Database, all, append, id, make, record, run};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("caudal.db")
    }
}

impl Database for Folder {
    fn open(&self, clock: Clock) -> Arc<dyn Store> {
        Arc::new(Sqlite::open(Options { clock, ..Options::within(self.0.path()) }).expect("a store"))
    }
}

contract::whole_contract!(Some(Folder::new()));

#[test]
fn what_was_changed_behind_its_back_is_never_given_back() {
    let folder = Folder::new();
    let changes = [
        "update records set body = cast('other' as blob) where sequence = 3",
        "update records set kind = 'other' where sequence = 3",
        "update records set time = time - 1 where sequence = 3",
        "update records set meta = cast('{}' as blob) where sequence = 3",
        "update records set digest = zeroblob(32) where sequence = 3",
        "update records set chain = zeroblob(32) where sequence = 3",
        "delete from records where sequence = 3",
        "update records set sequence = 100 where sequence = 3",
        "update streams set meta = cast('{\"patient\": \"another\"}' as blob)",
        "update streams set created = created - 1",
        "update streams set name = 'b' where name = 'a'",
    ];
    for change in changes {
        let _ = std::fs::remove_file(folder.file());
        let store = folder.store();
        run(async {
            make(&*store, "a").await;
            store.append(append("a", (0..5).map(|_| record("one", "1")).collect())).await.expect("appended");
            assert_eq!(all(&*store, "a").await.len(), 5);
        });
        drop(store);
        let raw = rusqlite::Connection::open(folder.file()).expect("the database");
        assert!(raw.execute(change, []).expect(change) > 0);
        drop(raw);
        let store = folder.store();
        let name = if change.contains("'b'") { "b" } else { "a" };
        let read = run(store.read(&id(name), caudal_store::Range::after(0, 10)));
        assert!(matches!(read, Err(StoreError::Damaged(_))), "{change}: {read:?}");
        drop(store);
    }
}

#[test]
fn a_damaged_head_is_not_carried_on() {
    let folder = Folder::new();
    let store = folder.store();
    run(async {
        make(&*store, "a").await;
        store.append(append("a", vec![record("one", "1")])).await.expect("appended");
    });
    drop(store);
    let raw = rusqlite::Connection::open(folder.file()).expect("the database");
    raw.execute("update streams set chain = zeroblob(32)", []).expect("changed");
    drop(raw);
    let store = folder.store();
    let appended = run(store.append(append("a", vec![record("one", "2")])));
    assert!(matches!(appended, Err(StoreError::Damaged(_))), "{appended:?}");
}

#[test]
fn a_backup_made_under_load_is_whole_and_can_be_restored() {
    let folder = Folder::new();
    let store = folder.store();
    let copy = folder.0.path().join("copy.db");
    let count = run(async {
        make(&*store, "a").await;
        store
            .append(append("a", (0..2_000).map(|_| record("one", vec![b'x'; 1_000])).collect()))
            .await
            .expect("appended");
        let writer = tokio::spawn({
            let store = Arc::clone(&store);
            async move {
                for _ in 0..200 {
                    store.append(append("a", vec![record("one", "more")])).await.expect("appended");
                }
            }
        });
        store.backup(copy.clone(), Arc::new(|_, _| ())).await.expect("copied");
        writer.await.expect("the writer");
        assert!(store.backup(copy.clone(), Arc::new(|_, _| ())).await.is_err(), "nothing is overwritten");
        all(&*store, "a").await.len()
    });
    assert_eq!(count, 2_200);
    let other = Folder::new();
    Sqlite::restore(&copy, &other.file()).expect("restored");
    assert!(Sqlite::restore(&copy, &other.file()).is_err(), "nothing is overwritten");
    let restored = run(async {
        let restored = other.store();
        let found = all(&*restored, "a").await;
        restored.append(append("a", vec![record("one", "goes on")])).await.expect("appended");
        found
    });
    assert!((2_000..=2_200).contains(&restored.len()), "{}", restored.len());
    assert_eq!(restored, run(all(&*store, "a"))[..restored.len()]);
    std::fs::write(other.0.path().join("no.db"), b"not a database, and yet rather long").expect("written");
    let refused = Sqlite::restore(&other.0.path().join("no.db"), &other.0.path().join("x.db"));
    assert!(matches!(refused, Err(StoreError::Damaged(_))), "{refused:?}");
}

#[test]
fn the_room_of_sealed_records_is_given_back_after_a_cut_off_seal() {
    let folder = Folder::new();
    let store = folder.store();
    run(async {
        make(&*store, "a").await;
        store.append(append("a", (0..5_000).map(|_| record("one", "1")).collect())).await.expect("appended");
    });
    let raw = rusqlite::Connection::open(folder.file()).expect("the database");
    raw.execute_batch("create temp table kept as select * from records").expect("kept");
    run(async {
        let some = store.read(&id("a"), caudal_store::Range::after(3_999, 1)).await.expect("a record");
        let last = caudal_store::Head { sequence: 4_000, time: some[0].time, chain: some[0].chain };
        let note = caudal_store::ArchiveNote { file: "one".into(), time: 1, records: 4_000, bytes: 1, digest: [0; 32] };
        let parts = vec![caudal_store::ArchivePart { stream: id("a"), first: 1, last }];
        store.seal(caudal_store::Archive { note, parts }).await.expect("sealed");
    });
    drop(store);
    // As if the server had been killed between the mark and the removal.
    raw.execute_batch("insert or ignore into records select * from kept; update sealed set swept = 0")
        .expect("as before");
    let store = folder.store();
    let rows = || raw.query_row("select count(*) from records", [], |row| row.get::<_, u32>(0)).expect("a count");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while rows() > 1_000 && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(rows(), 1_000);
    assert_eq!(run(all(&*store, "a")).len(), 1_000);
}

#[test]
fn one_server_at_a_time() {
    let folder = Folder::new();
    let held = caudal_store::lock(folder.0.path()).expect("free");
    assert_eq!(caudal_store::lock(folder.0.path()).err(), Some(StoreError::InUse(folder.0.path().to_owned())));
    drop(held);
    caudal_store::lock(folder.0.path()).expect("free again");
}

#[test]
fn a_newer_form_is_left_alone() {
    let folder = Folder::new();
    drop(folder.store());
    let raw = rusqlite::Connection::open(folder.file()).expect("the database");
    raw.pragma_update(None, "user_version", 99).expect("changed");
    drop(raw);
    let opened = Sqlite::open(Options::within(folder.0.path()));
    assert_eq!(opened.err(), Some(StoreError::Newer { found: 99, known: 1 }));
}

#[test]
fn appends_of_one_caller_stay_in_their_order_when_room_is_short() {
    use futures_util::{StreamExt, stream::FuturesOrdered};
    let folder = Folder::new();
    let options = Options { waiting_bytes: 8 << 10, ..Options::within(folder.0.path()) };
    let store: Arc<dyn Store> = Arc::new(Sqlite::open(options).expect("a store"));
    run(async {
        make(&*store, "a").await;
        // Large ones have to wait for room; small ones would find some.
        let sizes = [6_000, 10, 3_000, 10, 10, 7_000, 10];
        let body = |number: usize| format!("{number:05}{}", "x".repeat(sizes[number % sizes.len()]));
        let mut on_their_way = FuturesOrdered::new();
        for number in 0..400 {
            on_their_way.push_back(store.append(append("a", vec![record("one", body(number))])));
            // Some are waited for, as by a stream that goes on reading.
            if number % 5 == 0 {
                on_their_way.next().await.expect("one").expect("appended");
            }
        }
        while let Some(appended) = on_their_way.next().await {
            appended.expect("appended");
        }
        for (number, found) in all(&*store, "a").await.iter().enumerate() {
            assert_eq!(found.body, body(number).as_bytes(), "record {number}");
        }
    });
}

#[test]
fn a_log_whose_database_is_gone_is_not_begun_anew() {
    let folder = Folder::new();
    let options = || Options::within(folder.0.path());
    let log = folder.0.path().join("caudal.db-wal");
    std::fs::write(&log, [1; 100]).expect("a log");
    let error = Sqlite::open(options()).expect_err("its database is missing");
    assert!(matches!(&error, StoreError::Damaged(words) if words.contains("is missing")), "{error}");
    assert!(log.exists() && !folder.0.path().join("caudal.db").exists());
    std::fs::remove_file(log).expect("removed");
    Sqlite::open(options()).expect("a new store");
}

#[test]
fn records_that_were_removed_are_noticed_by_reads_of_their_range() {
    let (last, middle) = ("delete from records where sequence = 5", "delete from records where sequence = 3");
    let [one, other] = [Some("one"), Some("other")];
    for (change, kind, missing) in [
        (last, None, 5),
        ("delete from records where sequence > 3", None, 4),
        ("delete from records", None, 1),
        (last, one, 5),
        // Of a record that is missing it is not known which kind it had.
        (last, other, 5),
        (middle, one, 3),
    ] {
        let folder = Folder::new();
        let store = folder.store();
        run(async {
            make(&*store, "a").await;
            let kinds = ["one", "other", "one", "other", "one"];
            store.append(append("a", kinds.map(|kind| record(kind, "1")).into())).await.expect("appended");
        });
        let raw = rusqlite::Connection::open(folder.file()).expect("the database");
        raw.execute(change, []).expect(change);
        let read = |after, limit| {
            let range = Range { kind: kind.map(Into::into), ..Range::after(after, limit) };
            run(store.read(&id("a"), range))
        };
        let damaged = StoreError::Damaged(format!("test a has no record {missing}"));
        assert_eq!(read(0, 9), Err(damaged), "{change}, {kind:?}");
        if change == last {
            assert_eq!(read(0, 1).map(|found| found.len()), Ok(1), "what stands before it is still read");
        }
    }
}
