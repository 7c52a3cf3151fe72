//! What every engine of the store promises. Each engine's test file runs all of it over a database of its own.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use caudal_store::{
    Append, Archive, ArchiveNote, ArchivePart, Clock, Digest, Key, List, NewRecord, NewStream, Order, Range, Record,
    Snapshot, Store, StoreError, StreamId, link,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Opens one database again and again. What it is given as a clock it must use.
pub(crate) trait Database {
    fn open(&self, clock: Clock) -> Arc<dyn Store>;

    fn store(&self) -> Arc<dyn Store> {
        self.open(Clock::system())
    }
}

macro_rules! contract {
    ($make:expr => $($case:ident),+ $(,)?) => {
        $(#[test]
        fn $case() {
            let Some(database) = $make else { return };
            contract::run(contract::$case(&database));
        })+
    };
}
pub(crate) use contract;

/// All cases.
macro_rules! whole_contract {
    ($make:expr) => {
        contract::contract!($make =>
            appended_records_are_read_back_in_order, a_stream_is_made_once, versions_are_kept_to,
            a_key_is_done_once, one_bad_append_fails_alone, many_writers_leave_no_gap, times_never_go_back,
            the_newest_snapshot_is_kept, reads_are_bounded, streams_are_listed, sealed_records_leave_no_trace_but_the_chain,
            followers_are_told, odd_bytes_survive, what_was_acknowledged_is_there_after_a_restart,
            a_store_tells_how_it_does, ids_are_found, a_name_is_held_as_long_as_its_process_is_there,
        );
    };
}
pub(crate) use whole_contract;

pub(crate) fn run<F: Future>(case: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(case)
}

pub(crate) fn id(name: &str) -> StreamId {
    StreamId::new("test", name)
}

pub(crate) fn record(kind: &str, body: impl Into<Bytes>) -> NewRecord {
    let body = body.into();
    let digest = Sha256::digest(&body).into();
    NewRecord { id: Uuid::now_v7(), kind: kind.into(), meta: Bytes::from_static(b"{\"by\": \"me\"}"), body, digest }
}

pub(crate) fn append(name: &str, records: Vec<NewRecord>) -> Append {
    Append { stream: id(name), expected: None, key: None, records }
}

pub(crate) async fn make(store: &dyn Store, name: &str) {
    store.create(NewStream { id: id(name), meta: Bytes::from_static(b"{}") }).await.expect("a new stream");
}

pub(crate) async fn all(store: &dyn Store, name: &str) -> Vec<Record> {
    let (mut records, mut after) = (Vec::new(), 0);
    loop {
        let some = store.read(&id(name), Range::after(after, 500)).await.expect("records");
        let Some(last) = some.last() else { return records };
        after = last.sequence;
        records.extend(some);
    }
}

/// Follows the chain from its beginning.
pub(crate) fn chain(origin: Digest, records: &[Record]) -> Digest {
    records.iter().fold(origin, |before, record| {
        let link = link(&before, &record.leaf());
        assert_eq!(link, record.chain, "record {}", record.sequence);
        link
    })
}

pub(crate) async fn appended_records_are_read_back_in_order(database: &impl Database) {
    let store = database.store();
    make(&*store, "a").await;
    let mut sent = Vec::new();
    for number in 0..20 {
        let records = vec![record("one", format!("{number}")), record("two", format!("{number}!"))];
        sent.extend(records.clone());
        let appended = store.append(append("a", records)).await.expect("appended");
        assert_eq!((appended.first, appended.last), (number * 2 + 1, number * 2 + 2));
        assert!(!appended.repeated);
    }
    let found = all(&*store, "a").await;
    assert_eq!(found.len(), 40);
    for (number, (found, sent)) in found.iter().zip(&sent).enumerate() {
        assert_eq!(found.sequence, number as u64 + 1);
        assert_eq!((&found.id, &found.kind, &found.meta, &found.body), (&sent.id, &sent.kind, &sent.meta, &sent.body));
    }
    let stream = store.stream(&id("a")).await.expect("asked").expect("a stream");
    assert_eq!(stream.head.sequence, 40);
    assert_eq!(chain(stream.origin(), &found), stream.head.chain);
    assert_eq!(store.append(append("b", vec![record("one", "1")])).await, Err(StoreError::NoStream(id("b"))));
    assert_eq!(store.read(&id("b"), Range::after(0, 1)).await, Err(StoreError::NoStream(id("b"))));
    assert_eq!(store.stream(&id("b")).await, Ok(None));
    assert_eq!(store.check().await.expect("checked"), Vec::<String>::new());
}

pub(crate) async fn a_stream_is_made_once(database: &impl Database) {
    let store = database.store();
    let new = |meta| NewStream { id: id("a"), meta: Bytes::from_static(meta) };
    let first = store.create(new(b"first")).await.expect("made");
    assert_eq!(store.create(new(b"second")).await, Err(StoreError::Exists(id("a"))));
    assert_eq!(store.stream(&id("a")).await, Ok(Some(first)));
    let makers: Vec<_> = (0..8)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.create(NewStream { id: id("c"), meta: Bytes::new() }).await.is_ok() })
        })
        .collect();
    let mut made = 0;
    for maker in makers {
        made += usize::from(maker.await.expect("a maker"));
    }
    assert_eq!(made, 1);
}

pub(crate) async fn versions_are_kept_to(database: &impl Database) {
    let store = database.store();
    make(&*store, "a").await;
    let at = |expected| Append { expected: Some(expected), ..append("a", vec![record("one", "1")]) };
    store.append(at(0)).await.expect("the first");
    let conflict = StoreError::Version { stream: id("a"), expected: 0, actual: 1 };
    assert_eq!(store.append(at(0)).await, Err(conflict));
    store.append(at(1)).await.expect("the second");
    assert_eq!(all(&*store, "a").await.len(), 2);
    // Of those who compete for one place, one gets it.
    let rivals: Vec<_> = (0..16).map(|_| tokio::spawn(store.append(at(2)))).collect();
    let mut won = 0;
    for rival in rivals {
        won += usize::from(rival.await.expect("a rival").is_ok());
    }
    assert_eq!((won, all(&*store, "a").await.len()), (1, 3));
}

pub(crate) async fn a_key_is_done_once(database: &impl Database) {
    let store = database.store();
    make(&*store, "a").await;
    make(&*store, "b").await;
    let keyed = |request: u8, stream: &str| Append {
        key: Some(Key { name: "k".into(), request: [request; 32] }),
        ..append(stream, vec![record("one", "1"), record("one", "2")])
    };
    let first = store.append(keyed(1, "a")).await.expect("appended");
    store.append(append("a", vec![record("one", "3")])).await.expect("appended");
    let again = store.append(keyed(1, "a")).await.expect("recognised");
    assert!(again.repeated && !first.repeated);
    assert_eq!((again.first, again.last, again.time, again.chain), (first.first, first.last, first.time, first.chain));
    assert_eq!(store.append(keyed(2, "a")).await, Err(StoreError::KeyReused));
    // Another stream's keys are others.
    assert!(!store.append(keyed(2, "b")).await.expect("appended").repeated);
    assert_eq!(all(&*store, "a").await.len(), 3);
    drop(store);
    let store = database.store();
    assert!(store.append(keyed(1, "a")).await.expect("recognised").repeated);
    // Sent many times at once, it is done once.
    let same = Append { key: Some(Key { name: "n".into(), request: [0; 32] }), ..append("a", vec![record("n", "n")]) };
    let tries: Vec<_> = (0..16)
        .map(|_| Append { records: vec![record("n", "n")], ..same.clone() })
        .map(|append| tokio::spawn(store.append(append)))
        .collect();
    let mut fresh = 0;
    for tried in tries {
        fresh += usize::from(!tried.await.expect("a try").expect("done or recognised").repeated);
    }
    assert_eq!((fresh, all(&*store, "a").await.len()), (1, 4));
}

pub(crate) async fn one_bad_append_fails_alone(database: &impl Database) {
    let store = database.store();
    make(&*store, "a").await;
    let taken = record("one", "1");
    store.append(append("a", vec![taken.clone()])).await.expect("appended");
    let mut tried = Vec::new();
    for number in 0..40 {
        let bad = number % 4 == 0;
        let mut records = vec![record("one", "2"), record("one", "3")];
        if bad {
            records[1].id = taken.id;
        }
        tried.push((bad, tokio::spawn(store.append(append("a", records)))));
    }
    for (bad, tried) in tried {
        let outcome = tried.await.expect("a try");
        assert_eq!(outcome.as_ref().err(), bad.then_some(&StoreError::Duplicate), "{outcome:?}");
    }
    let found = all(&*store, "a").await;
    assert_eq!(found.len(), 1 + 30 * 2);
    let stream = store.stream(&id("a")).await.expect("asked").expect("a stream");
    assert_eq!(chain(stream.origin(), &found), stream.head.chain);
}

pub(crate) async fn many_writers_leave_no_gap(database: &impl Database) {
    // Two stores over one database: two processes.
    let stores = [database.store(), database.store()];
    make(&*stores[0], "a").await;
    let writers: Vec<_> = (0..32)
        .map(|writer| {
            let store = Arc::clone(&stores[writer % 2]);
            tokio::spawn(async move {
                for number in 0..25 {
                    let records = vec![record("one", format!("{writer} {number}"))];
                    store.append(append("a", records)).await.expect("appended");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("a writer");
    }
    let found = all(&*stores[1], "a").await;
    assert_eq!(found.len(), 32 * 25);
    assert!(found.iter().zip(1..).all(|(record, place)| record.sequence == place));
    let stream = stores[0].stream(&id("a")).await.expect("asked").expect("a stream");
    assert_eq!(chain(stream.origin(), &found), stream.head.chain);
    for writer in 0..32 {
        let start = format!("{writer} ");
        let own = found.iter().filter_map(|record| std::str::from_utf8(&record.body).ok()?.strip_prefix(&start));
        let own: Vec<u32> = own.filter_map(|number| number.parse().ok()).collect();
        assert_eq!(own, (0..25).collect::<Vec<_>>(), "writer {writer}'s records stand in its order");
    }
}

pub(crate) async fn times_never_go_back(database: &impl Database) {
    let time = Arc::new(AtomicI64::new(5_000_000));
    let told = Arc::clone(&time);
    let store = database.open(Clock::new(move || told.load(Relaxed)));
    make(&*store, "a").await;
    for now in [6_000_000, 1_000_000, -5, 7_000_000, 6_999_999] {
        time.store(now, Relaxed);
        store.append(append("a", vec![record("one", "1")])).await.expect("appended");
    }
    let times: Vec<i64> = all(&*store, "a").await.iter().map(|record| record.time).collect();
    assert_eq!(times, [6_000_000, 6_000_000, 6_000_000, 7_000_000, 7_000_000]);
}

pub(crate) async fn the_newest_snapshot_is_kept(database: &impl Database) {
    let store = database.store();
    make(&*store, "a").await;
    assert_eq!(store.snapshot(&id("a")).await, Ok(None));
    for _ in 0..5 {
        store.append(append("a", vec![record("one", "1")])).await.expect("appended");
    }
    let snapshot = |sequence| Snapshot { sequence, body: Bytes::from(format!("at {sequence}")) };
    for sequence in [2, 4, 3] {
        store.keep_snapshot(&id("a"), snapshot(sequence), false).await.expect("kept");
    }
    assert_eq!(store.snapshot(&id("a")).await, Ok(Some(snapshot(4))));
    // What has not happened cannot be summed up.
    store.keep_snapshot(&id("a"), snapshot(6), true).await.expect("ignored");
    assert_eq!(store.snapshot(&id("a")).await, Ok(Some(snapshot(4))));
    // One that was found wrong is replaced by an older one.
    store.keep_snapshot(&id("a"), snapshot(2), true).await.expect("kept");
    assert_eq!(store.snapshot(&id("a")).await, Ok(Some(snapshot(2))));
}

pub(crate) async fn reads_are_bounded(database: &impl Database) {
    let store = database.store();
    make(&*store, "a").await;
    let kinds = ["odd", "even"];
    let records = (1..=30).map(|number| record(kinds[(number + 1) % 2], vec![b'x'; 1000])).collect();
    store.append(append("a", records)).await.expect("appended");
    let read = |range| store.read(&id("a"), range);
    let places = |records: Vec<Record>| records.iter().map(|record| record.sequence).collect::<Vec<_>>();
    assert_eq!(places(read(Range::after(10, 3)).await.expect("some")), [11, 12, 13]);
    assert_eq!(places(read(Range::after(29, 3)).await.expect("some")), [30]);
    assert_eq!(places(read(Range::after(30, 3)).await.expect("none")), [0u64; 0]);
    assert_eq!(places(read(Range { bytes: 2_500, ..Range::after(0, 100) }).await.expect("some")), [1, 2]);
    assert_eq!(places(read(Range { bytes: 1, ..Range::after(0, 100) }).await.expect("one")), [1]);
    let even = Range { kind: Some("even".into()), ..Range::after(3, 3) };
    assert_eq!(places(read(even).await.expect("some")), [4, 6, 8]);
}

pub(crate) async fn streams_are_listed(database: &impl Database) {
    let time = Arc::new(AtomicI64::new(0));
    let told = Arc::clone(&time);
    let store = database.open(Clock::new(move || told.load(Relaxed)));
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        time.store(100 * (number as i64 + 1), Relaxed);
        make(&*store, name).await;
    }
    store.create(NewStream { id: StreamId::new("other", "d"), meta: Bytes::new() }).await.expect("made");
    for (name, count) in [("b", 3), ("a", 1), ("c", 2)] {
        time.fetch_add(100, Relaxed);
        store.append(append(name, (0..count).map(|_| record("one", "1")).collect())).await.expect("appended");
    }
    let list = |order, limit, offset, idle_since| List { space: "test".into(), order, limit, offset, idle_since };
    let names = |list| async {
        let page = store.streams(list).await.expect("a page");
        (page.streams.iter().map(|stream| stream.id.name.to_string()).collect::<Vec<_>>().join(" "), page.total)
    };
    for (order, expected) in
        [(Order::Newest, "c b a"), (Order::Oldest, "a b c"), (Order::Longest, "b c a"), (Order::Shortest, "a c b")]
    {
        assert_eq!(names(list(order, 10, 0, None)).await, (expected.to_owned(), 3));
    }
    assert_eq!(names(list(Order::Newest, 1, 1, None)).await, ("b".to_owned(), 3));
    assert_eq!(names(list(Order::Oldest, 10, 0, Some(500))).await, ("a b".to_owned(), 2));
}

pub(crate) async fn sealed_records_leave_no_trace_but_the_chain(database: &impl Database) {
    let store = database.store();
    make(&*store, "a").await;
    let records: Vec<_> = (0..10).map(|number| record("one", format!("{number}"))).collect();
    let first = records[0].id;
    store.append(append("a", records)).await.expect("appended");
    let before = all(&*store, "a").await;
    let head = |sequence: usize| caudal_store::Head {
        sequence: sequence as u64,
        time: before[sequence - 1].time,
        chain: before[sequence - 1].chain,
    };
    let archive = |file: &str, first, last| {
        let note = ArchiveNote { file: file.into(), time: 7, records: 6, bytes: 100, digest: [3; 32] };
        Archive { note, parts: vec![ArchivePart { stream: id("a"), first, last }] }
    };
    let wrong = caudal_store::Head { chain: [9; 32], ..head(6) };
    assert_eq!(store.seal(archive("x", 1, wrong)).await, Err(StoreError::NotSealed(id("a"))));
    assert_eq!(store.seal(archive("x", 2, head(6))).await, Err(StoreError::NotSealed(id("a"))));
    assert_eq!(all(&*store, "a").await, before);
    store.seal(archive("one", 1, head(6))).await.expect("sealed");
    assert_eq!(all(&*store, "a").await, before[6..]);
    assert_eq!(store.seal(archive("two", 1, head(6))).await, Err(StoreError::NotSealed(id("a"))));
    store.append(append("a", vec![record("one", "11")])).await.expect("appended");
    store.seal(archive("two", 7, head(9))).await.expect("sealed");
    let after = all(&*store, "a").await;
    assert_eq!((after.len(), after[0].sequence, chain(head(9).chain, &after)), (2, 10, after[1].chain));
    let parts = store.sealed(&id("a")).await.expect("archives");
    let parts: Vec<_> = parts.iter().map(|part| (&*part.file, part.first, part.last)).collect();
    assert_eq!(parts, [("one", 1, 6), ("two", 7, 9)]);
    // A file that was written again has another digest, and holds what it held.
    let again = ArchiveNote { file: "one".into(), time: 7, records: 6, bytes: 200, digest: [4; 32] };
    store.seal(Archive { note: again.clone(), parts: Vec::new() }).await.expect("noted");
    assert_eq!(store.archives().await.expect("archives"), [again, archive("two", 7, head(9)).note]);
    assert_eq!(store.check().await, Ok(Vec::new()));
    let links = store.sealed(&id("a")).await.expect("archives").into_iter().map(|part| part.chain);
    assert!(links.eq([head(6).chain, head(9).chain]));
    assert_eq!(store.find(first).await, Ok(Some((id("a"), 1))), "it is known where it stood");
    let duplicate = append("a", vec![NewRecord { id: first, ..record("one", "1") }]);
    assert_eq!(store.append(duplicate).await, Err(StoreError::Duplicate));
    assert_eq!(store.stream(&id("a")).await.expect("asked").expect("a stream").sealed, 9);
    drop(store);
    let store = database.store();
    assert_eq!(all(&*store, "a").await, after);
    store.append(append("a", vec![record("one", "12")])).await.expect("goes on");
    assert_eq!(store.check().await.expect("checked"), Vec::<String>::new());
}

pub(crate) async fn followers_are_told(database: &impl Database) {
    let store = database.store();
    make(&*store, "a").await;
    make(&*store, "b").await;
    let mut follower = store.follow(&id("a"));
    store.append(append("b", vec![record("one", "1")])).await.expect("appended");
    assert!(!follower.has_changed().expect("it lives"));
    store.append(append("a", vec![record("one", "1"), record("one", "2")])).await.expect("appended");
    tokio::time::timeout(Duration::from_secs(10), follower.changed()).await.expect("told").expect("it lives");
    assert_eq!(*follower.borrow_and_update(), 2);
}

pub(crate) async fn odd_bytes_survive(database: &impl Database) {
    let store = database.store();
    let name = "ñ/../\u{1F600} '\"; drop table records; --";
    make(&*store, name).await;
    let bodies = [Bytes::new(), Bytes::from_static(&[0, 255, 0, 128]), Bytes::from(vec![7; 3 << 20])];
    let records: Vec<_> = bodies.iter().map(|body| record("x:ÑAME", body.clone())).collect();
    store.append(append(name, records)).await.expect("appended");
    let found = all(&*store, name).await;
    assert!(found.iter().map(|record| &record.body).eq(bodies.iter()));
    assert_eq!(&*found[0].kind, "x:ÑAME");
    assert_eq!(
        store
            .streams(List { space: "test".into(), order: Order::Newest, limit: 1, offset: 0, idle_since: None })
            .await
            .expect("a page")
            .streams[0]
            .id
            .name,
        name.into()
    );
}

pub(crate) async fn what_was_acknowledged_is_there_after_a_restart(database: &impl Database) {
    for round in 0..3 {
        let store = database.store();
        if round == 0 {
            make(&*store, "a").await;
        }
        for _ in 0..5 {
            store.append(append("a", vec![record("one", "1")])).await.expect("appended");
        }
    }
    let store = database.store();
    let found = all(&*store, "a").await;
    assert_eq!(found.len(), 15);
    let stream = store.stream(&id("a")).await.expect("asked").expect("a stream");
    assert_eq!(chain(stream.origin(), &found), stream.head.chain);
}

pub(crate) async fn a_store_tells_how_it_does(database: &impl Database) {
    let store = database.store();
    make(&*store, "a").await;
    for _ in 0..3 {
        store.append(append("a", vec![record("one", "1"), record("one", "1")])).await.expect("appended");
    }
    all(&*store, "a").await;
    let figures = store.figures();
    assert_eq!((figures.appended, figures.failures, figures.waiting), (6, 0, 0));
    let other = StreamId::new("other", "a");
    store.create(NewStream { id: other.clone(), meta: Bytes::new() }).await.expect("made");
    let appended = Append { stream: other, expected: None, key: None, records: vec![record("one", "1")] };
    store.append(appended).await.expect("appended");
    let spaces = store.figures();
    let space = |name: &str| (spaces.space(name).appended, spaces.space(name).waiting);
    assert_eq!((space(&id("a").space), space("other"), space("none")), ((6, 0), (1, 0), (0, 0)));
    assert!(figures.commits >= 3 && figures.connections >= 1 && figures.connections_max >= figures.connections);
    assert!(figures.slowest.iter().any(|statement| statement.count >= 1));
}

pub(crate) async fn ids_are_found(database: &impl Database) {
    let store = database.store();
    make(&*store, "a").await;
    let records = vec![record("one", "1"), record("one", "2")];
    let second = records[1].id;
    store.append(append("a", records)).await.expect("appended");
    assert_eq!(store.find(second).await, Ok(Some((id("a"), 2))));
    assert_eq!(store.find(Uuid::now_v7()).await, Ok(None));
}

pub(crate) async fn a_name_is_held_as_long_as_its_process_is_there(database: &impl Database) {
    let (name, other) = (Uuid::new_v4(), Uuid::new_v4());
    let (first, second) = (database.store(), database.store());
    first.hold(name).await.expect("it is held");
    for store in [&first, &second] {
        assert_eq!(store.held(name).await, Ok(true));
        assert_eq!(store.held(other).await, Ok(false));
    }
    second.hold(other).await.expect("it is held");
    drop(first);
    // A session's end is known a moment later.
    for turn in 0.. {
        match second.held(name).await.expect("an answer") {
            true => assert!(turn < 500, "it is still held"),
            false => break,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(second.held(other).await, Ok(true));
}
