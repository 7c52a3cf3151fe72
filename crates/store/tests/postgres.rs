//! The contract over PostgreSQL, and what only PostgreSQL does.

mod contract;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use caudal_store::{
    Clock, Range, Store, StoreError, StreamId,
    postgres::{Options, Postgres},
};
use caudal_testkit::Postgres as Server;
use contract::{Database, all, append, chain, id, make, record, run};

/// One server for all cases of this file; each has a schema of its own.
fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    let server = SERVER.get_or_init(Server::start);
    if server.is_none() {
        eprintln!("skipped: PostgreSQL is not installed (Debian: postgresql)");
    }
    server.as_ref()
}

struct Schema {
    server: &'static Server,
    name: String,
}

impl Schema {
    fn new() -> Option<Self> {
        let server = server()?;
        Some(Self { server, name: server.name() })
    }

    fn options(&self) -> Options {
        Options { schema: self.name.clone(), pool_size: 4, ..Options::at(self.server.url()) }
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&format!("set search_path to {}; {sql}", self.name))
    }
}

impl Database for Schema {
    fn open(&self, clock: Clock) -> Arc<dyn Store> {
        Arc::new(Postgres::open(Options { clock, ..self.options() }).expect("a store"))
    }
}

contract::whole_contract!(Schema::new());

#[test]
fn what_was_changed_behind_its_back_is_never_given_back() {
    let changes = [
        "update records set body = 'other' where sequence = 3",
        "update records set kind = 'other' where sequence = 3",
        "update records set time = time - 1 where sequence = 3",
        "update records set meta = '{}' where sequence = 3",
        "update records set digest = decode(repeat('00', 32), 'hex') where sequence = 3",
        "update records set chain = decode(repeat('00', 32), 'hex') where sequence = 3",
        "update records set chain = '' where sequence = 3",
        "delete from records where sequence = 3",
        "delete from records where sequence = 5",
        "delete from records",
        "update records set sequence = 100 where sequence = 3",
        "update streams set meta = '{\"patient\": \"another\"}'",
        "update streams set created = created - 1",
        "update streams set name = 'b' where name = 'a'",
        "update streams set sequence = 4",
        "update streams set chain = decode(repeat('00', 32), 'hex')",
    ];
    for change in changes {
        let Some(schema) = Schema::new() else { return };
        let store = schema.store();
        run(async {
            make(&*store, "a").await;
            store.append(append("a", (0..5).map(|_| record("one", "1")).collect())).await.expect("appended");
            assert_eq!(all(&*store, "a").await.len(), 5);
            assert_eq!(store.check().await.expect("checked"), Vec::<String>::new());
        });
        schema.sql(change);
        let name = if change.contains("'b'") { "b" } else { "a" };
        let read = run(store.read(&id(name), Range::after(0, 10)));
        assert!(matches!(read, Err(StoreError::Damaged(_))), "{change}: {read:?}");
        if change.contains("streams") {
            let appended = run(store.append(append(name, vec![record("one", "2")])));
            assert!(matches!(appended, Err(StoreError::Damaged(_))), "{change}: {appended:?}");
        }
    }
}

#[test]
fn records_of_a_kind_that_were_removed_are_noticed() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.store();
    let kind = || Range { kind: Some("one".into()), ..Range::after(0, 9) };
    run(async {
        make(&*store, "a").await;
        store.append(append("a", (0..5).map(|_| record("one", "1")).collect())).await.expect("appended");
        assert_eq!(store.read(&id("a"), kind()).await.map(|found| found.len()), Ok(5));
        schema.sql("delete from records where sequence = 5");
        let read = store.read(&id("a"), kind()).await;
        assert!(matches!(read, Err(StoreError::Damaged(_))), "{read:?}");
        assert_eq!(store.read(&id("a"), Range::after(0, 2)).await.map(|found| found.len()), Ok(2));
    });
}

#[test]
fn a_damaged_stream_is_refused_alone() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.store();
    run(async {
        for name in ["a", "b"] {
            make(&*store, name).await;
            store.append(append(name, vec![record("one", "1")])).await.expect("appended");
        }
        schema.sql("update streams set chain = decode(repeat('00', 32), 'hex') where name = 'a'");
        let tried: Vec<_> = (0..20)
            .map(|number| ["a", "b"][number % 2])
            .map(|name| (name, tokio::spawn(store.append(append(name, vec![record("one", "2")])))))
            .collect();
        for (name, tried) in tried {
            assert_eq!(tried.await.expect("a try").is_ok(), name == "b");
        }
    });
}

#[test]
fn a_newer_form_is_left_alone() {
    let Some(schema) = Schema::new() else { return };
    drop(schema.store());
    schema.sql("update form set form = 99");
    let opened = Postgres::open(schema.options()).err();
    assert_eq!(opened, Some(StoreError::Newer { found: 99, known: 1 }));
}

#[test]
fn many_start_at_once() {
    let Some(schema) = Schema::new() else { return };
    let opened: Vec<_> = (0..6)
        .map(|_| {
            let options = schema.options();
            std::thread::spawn(move || Postgres::open(options).map(drop))
        })
        .collect();
    for opened in opened {
        assert_eq!(opened.join().expect("no panic"), Ok(()));
    }
}

#[test]
fn what_cannot_be_reached_or_is_not_safe_is_told() {
    let Some(schema) = Schema::new() else { return };
    let open = |url: &str| Postgres::open(Options { url: url.to_owned(), ..schema.options() }).err();
    let refused = open("host=/nowhere user=test");
    assert!(matches!(refused, Some(StoreError::Unreachable(_))), "{refused:?}");
    let refused = open("host=127.0.0.1 port=1 user=test");
    assert!(matches!(refused, Some(StoreError::Unreachable(_))), "{refused:?}");
    let refused = open("no address at all");
    assert!(matches!(refused, Some(StoreError::Unreachable(_))), "{refused:?}");
    let refused = open(&format!("{} sslmode=require", schema.server.url()));
    assert!(matches!(refused, Some(StoreError::Unsupported(_))), "{refused:?}");
    let refused = open(&schema.server.url().replace("dbname=postgres", "dbname=none"));
    assert!(matches!(refused, Some(StoreError::Unreachable(_))), "{refused:?}");
    schema.server.sql("create database latin encoding latin1 template template0");
    let refused = open(&schema.server.url().replace("dbname=postgres", "dbname=latin"));
    assert!(matches!(refused, Some(StoreError::Unsupported(_))), "{refused:?}");
    assert!(!format!("{:?}", Options::at("postgres://me:secret@host/db")).contains("secret"));
}

#[test]
fn commits_wait_for_the_disk_even_where_the_database_would_not() {
    let Some(schema) = Schema::new() else { return };
    let options = format!("{} options='-c synchronous_commit=off'", schema.server.url());
    let store = Postgres::open(Options { url: options, ..schema.options() }).expect("a store");
    run(async {
        make(&store, "a").await;
        store.append(append("a", vec![record("one", "1")])).await.expect("appended");
    });
    let said = schema.sql(
        "create table seen (what text); create function see() returns trigger language plpgsql as
         $$ begin insert into seen values (current_setting('synchronous_commit')); return new; end $$;
         create trigger see before insert on records for each row execute function see()",
    );
    assert_eq!(said, "");
    run(store.append(append("a", vec![record("one", "1")]))).expect("appended");
    assert_eq!(schema.sql("select * from seen").trim(), "on");
}

#[test]
fn texts_with_nul_are_refused_alone() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.store();
    run(async {
        make(&*store, "a").await;
        let odd = record("o\0dd", "1");
        let tried = store.append(append("a", vec![odd])).await;
        assert!(matches!(tried, Err(StoreError::Unsupported(_))), "{tried:?}");
        assert_eq!(store.stream(&id("a\0")).await, Ok(None));
        assert_eq!(store.read(&id("a\0"), Range::after(0, 1)).await, Err(StoreError::NoStream(id("a\0"))));
        store.append(append("a", vec![record("one", &b"\0"[..])])).await.expect("bodies may hold any byte");
    });
}

#[test]
fn followers_hear_of_other_processes_too() {
    let Some(schema) = Schema::new() else { return };
    let stores = [schema.store(), schema.store()];
    run(async {
        make(&*stores[0], "a").await;
        let mut follower = stores[1].follow(&id("a"));
        stores[0].append(append("a", vec![record("one", "1")])).await.expect("appended");
        tokio::time::timeout(Duration::from_secs(10), follower.changed()).await.expect("told").expect("it lives");
        assert_eq!(*follower.borrow_and_update(), 1);
    });
}

#[test]
fn a_pool_grows_no_further_than_it_may_and_shrinks_again() {
    let Some(schema) = Schema::new() else { return };
    let options = Options { pool_size: 4, max_overflow: 4, ..schema.options() };
    let store = Arc::new(Postgres::open(options).expect("a store"));
    run(async {
        make(&*store, "a").await;
        let records = (0..200).map(|_| record("one", vec![b'x'; 10_000])).collect();
        store.append(append("a", records)).await.expect("appended");
        let reads: Vec<_> = (0..64).map(|_| tokio::spawn(store.read(&id("a"), Range::after(0, 200)))).collect();
        for read in reads {
            assert_eq!(read.await.expect("a read").expect("records").len(), 200);
        }
    });
    let figures = store.figures();
    assert!(figures.connections <= 8 && figures.connections_max == 8, "{figures:?}");
    let end = Instant::now() + Duration::from_secs(60);
    while store.figures().connections > 4 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(store.figures().connections <= 4, "{:?}", store.figures());
}

#[test]
fn who_waits_too_long_for_a_connection_is_told() {
    let Some(schema) = Schema::new() else { return };
    let options =
        Options { pool_size: 1, max_overflow: 0, pool_timeout: Duration::from_millis(200), ..schema.options() };
    let store = Postgres::open(options).expect("a store");
    run(async {
        make(&store, "a").await;
        // Somebody holds the tables for a while: all connections wait.
        let held = schema
            .server
            .program("psql")
            .args(["-qX", "-d", &schema.server.url(), "-c"])
            .arg(format!("begin; lock table {}.records in access exclusive mode; select pg_sleep(2)", schema.name))
            .stdout(std::process::Stdio::null())
            .spawn();
        let mut held = held.expect("psql");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let reads: Vec<_> = (0..16).map(|_| tokio::spawn(store.read(&id("a"), Range::after(0, 1)))).collect();
        let mut told = 0;
        for read in reads {
            match read.await.expect("a read") {
                Ok(_) => {}
                Err(StoreError::Unreachable(_)) => told += 1,
                Err(error) => panic!("{error}"),
            }
        }
        assert!(told > 0);
        held.wait().expect("psql ends");
        assert_eq!(store.read(&id("a"), Range::after(0, 1)).await, Ok(Vec::new()));
    });
}

#[test]
fn the_room_of_sealed_records_is_given_back_after_a_cut_off_seal() {
    let Some(schema) = Schema::new() else { return };
    let store = schema.store();
    run(async {
        make(&*store, "a").await;
        store.append(append("a", (0..5_000).map(|_| record("one", "1")).collect())).await.expect("appended");
        schema.sql("create table kept as select * from records");
        let some = store.read(&id("a"), Range::after(3_999, 1)).await.expect("a record");
        let last = caudal_store::Head { sequence: 4_000, time: some[0].time, chain: some[0].chain };
        let note = caudal_store::ArchiveNote { file: "one".into(), time: 1, records: 4_000, bytes: 1, digest: [0; 32] };
        let parts = vec![caudal_store::ArchivePart { stream: id("a"), first: 1, last }];
        store.seal(caudal_store::Archive { note, parts }).await.expect("sealed");
    });
    drop(store);
    // As if the server had been killed between the mark and the removal.
    schema.sql("insert into records select * from kept on conflict do nothing; update sealed set swept = false");
    let store = schema.store();
    let rows = || schema.sql("select count(*) from records").trim().parse::<u32>().expect("a count");
    let end = Instant::now() + Duration::from_secs(20);
    while rows() > 1_000 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(rows(), 1_000);
    assert_eq!(run(all(&*store, "a")).len(), 1_000);
}

/// A server that goes away and comes back under load: whoever was not answered is told so, and nothing is lost.
#[test]
fn a_server_that_restarts_loses_nothing_that_was_acknowledged() {
    let Some(server) = Server::start() else {
        eprintln!("skipped: PostgreSQL is not installed (Debian: postgresql)");
        return;
    };
    let full = std::env::var_os("CAUDAL_TEST_FULL").is_some();
    let store = Arc::new(Postgres::open(Options { pool_size: 8, ..Options::at(server.url()) }).expect("a store"));
    run(async {
        let names = ["a", "b", "c"];
        for name in names {
            make(&*store, name).await;
        }
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let writers: Vec<_> = (0..12)
            .map(|writer| tokio::spawn(write(Arc::clone(&store), names[writer % 3], Arc::clone(&stop))))
            .collect();
        let rounds = if full { 100 } else { 4 };
        for round in 0..rounds {
            tokio::time::sleep(Duration::from_millis(100 + fastrand::u64(..200))).await;
            tokio::task::block_in_place(|| {
                if round % 2 == 0 {
                    server.kill();
                } else {
                    server.stop();
                }
                server.go();
            });
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let (mut acknowledged, mut refused) = (Vec::new(), 0);
        for writer in writers {
            let (some, told) = writer.await.expect("a writer");
            acknowledged.extend(some);
            refused += told;
        }
        let mut found = std::collections::HashMap::new();
        let mut records = 0;
        for name in names {
            let some = all(&*store, name).await;
            let stream = store.stream(&id(name)).await.expect("asked").expect("a stream");
            assert_eq!(chain(stream.origin(), &some), stream.head.chain);
            assert!(some.iter().zip(1..).all(|(record, place)| record.sequence == place));
            records += some.len();
            found.extend(some.into_iter().map(|record| (record.id, (StreamId::new("test", name), record.sequence))));
        }
        assert_eq!(found.len(), records, "no record is there twice");
        for (uuid, place) in &acknowledged {
            assert_eq!(found.get(uuid), Some(place), "what was acknowledged is where it was said to be");
        }
        assert!(refused > 0 && !acknowledged.is_empty());
        assert_eq!(store.check().await.expect("checked"), Vec::<String>::new());
        println!(
            "{rounds} restarts: {} acknowledged, {refused} told to come again, {records} kept",
            acknowledged.len()
        );
    });
}

type Places = Vec<(uuid::Uuid, (StreamId, u64))>;

async fn write(store: Arc<Postgres>, name: &'static str, stop: Arc<std::sync::atomic::AtomicBool>) -> (Places, u32) {
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        let one = record("one", vec![b'x'; 300]);
        let uuid = one.id;
        match store.append(append(name, vec![one])).await {
            Ok(appended) => acknowledged.push((uuid, (id(name), appended.first))),
            Err(StoreError::Unreachable(_)) => {
                refused += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    (acknowledged, refused)
}

#[test]
fn a_name_is_held_again_when_its_session_was_broken_off() {
    let Some(schema) = Schema::new() else { return };
    let (first, second) = (schema.store(), schema.store());
    let name = uuid::Uuid::new_v4();
    run(async {
        first.hold(name).await.expect("it is held");
        let sessions =
            "select count(pg_terminate_backend(pid)) from pg_locks where locktype = 'advisory' and objsubid = 1
            and classid::bigint << 32 | objid::bigint";
        assert_eq!(schema.sql(&format!("{sessions} = {}", name.as_u64_pair().1.cast_signed())).trim(), "1");
        let start = Instant::now();
        while second.held(name).await != Ok(true) {
            assert!(start.elapsed() < Duration::from_secs(10), "it is not held again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(start.elapsed() > Duration::from_millis(300), "the session was broken off for a while");
    });
}

/// A way to the server that can be cut: what comes then is taken and never answered.
struct Wire {
    port: u16,
    cut: Arc<std::sync::atomic::AtomicBool>,
}

impl Wire {
    fn to(server: &Server) -> Self {
        use std::{
            net::{TcpListener, TcpStream},
            os::unix::net::UnixStream,
            sync::atomic::Ordering::Relaxed,
        };
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let wire = Self { port: listener.local_addr().expect("an address").port(), cut: Arc::default() };
        let folder = server.url().split_whitespace().next().expect("a host").trim_start_matches("host=").to_owned();
        let (socket, cut) = (format!("{folder}/.s.PGSQL.5432"), Arc::clone(&wire.cut));
        let pass = |cut: Arc<std::sync::atomic::AtomicBool>,
                    mut from: Box<dyn std::io::Read + Send>,
                    mut to: Box<dyn std::io::Write + Send>| {
            std::thread::spawn(move || {
                let mut piece = [0; 64 << 10];
                while let Ok(count @ 1..) = from.read(&mut piece) {
                    if !cut.load(Relaxed) && to.write_all(&piece[..count]).is_err() {
                        return;
                    }
                }
            });
        };
        std::thread::spawn(move || {
            // Held, so that what is cut stays open.
            let mut held: Vec<(TcpStream, Option<UnixStream>)> = Vec::new();
            for client in listener.incoming().flatten() {
                let server = (!cut.load(Relaxed)).then(|| UnixStream::connect(&socket).expect("the server"));
                if let Some(server) = &server {
                    let (to, from) = (server.try_clone().expect("a way"), server.try_clone().expect("a way"));
                    pass(Arc::clone(&cut), Box::new(client.try_clone().expect("a way")), Box::new(to));
                    pass(Arc::clone(&cut), Box::new(from), Box::new(client.try_clone().expect("a way")));
                }
                held.push((client, server));
            }
        });
        wire
    }

    fn options(&self, schema: &Schema) -> Options {
        let url = format!("host=127.0.0.1 port={} user=test dbname=postgres", self.port);
        Options { url, max_overflow: 0, pool_timeout: PATIENCE, ..schema.options() }
    }

    fn cut(&self) {
        self.cut.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

const PATIENCE: Duration = Duration::from_millis(700);

/// Whether that was answered within the pool's patience, and why not.
fn in_time(what: &str, start: Instant, outcome: Result<(), StoreError>) {
    assert!(matches!(outcome, Err(StoreError::Unreachable(_))), "{what}: {outcome:?}");
    assert!(start.elapsed() < PATIENCE + Duration::from_millis(500), "{what} took {:?}", start.elapsed());
}

#[test]
fn silent_server_is_given_up_within_the_pools_timeout() {
    let Some(schema) = Schema::new() else { return };
    let wire = Wire::to(schema.server);
    let store = Postgres::open(wire.options(&schema)).expect("a store");
    run(async {
        make(&store, "a").await;
        // Several connections, so that there are several that must be tried and given up.
        let reads: Vec<_> = (0..4).map(|_| tokio::spawn(store.read(&id("a"), Range::after(0, 10)))).collect();
        for read in reads {
            read.await.expect("a read").expect("read");
        }
        // The writers' connections are tried only when they were idle for a while.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        wire.cut();
        let start = Instant::now();
        let appends: Vec<_> =
            (0..8).map(|_| tokio::spawn(store.append(append("a", vec![record("one", "1")])))).collect();
        let reads: Vec<_> = (0..8).map(|_| tokio::spawn(store.read(&id("a"), Range::after(0, 10)))).collect();
        for read in reads {
            in_time("a read", start, read.await.expect("a read").map(drop));
        }
        for append in appends {
            in_time("an append", start, append.await.expect("an append").map(drop));
        }
    });
    let start = Instant::now();
    in_time("an opening", start, Postgres::open(wire.options(&schema)).map(drop));
    // A silent server is given up.
    std::mem::forget(store);
}

#[test]
fn caller_waits_no_longer_than_the_pools_timeout_for_a_connection() {
    let Some(schema) = Schema::new() else { return };
    let store =
        Postgres::open(Options { max_overflow: 0, pool_timeout: PATIENCE, ..schema.options() }).expect("a store");
    run(async {
        make(&store, "a").await;
        let lock = format!("begin; lock table {}.records in access exclusive mode; select pg_sleep(3)", schema.name);
        let url = schema.server.url();
        let locking = std::thread::spawn(move || {
            std::process::Command::new("psql").args(["-qAtX", "-d", &url, "-c", &lock]).output().expect("psql")
        });
        tokio::time::sleep(Duration::from_millis(500)).await;
        let start = Instant::now();
        // The first take all connections and wait for the table; the others wait for a connection.
        let reads: Vec<_> = (0..12).map(|_| tokio::spawn(store.read(&id("a"), Range::after(0, 10)))).collect();
        let mut refused = 0;
        for read in reads {
            if let Err(error) = read.await.expect("a read") {
                assert!(error.to_string().contains("stayed in use for 0.7 s"), "{error}");
                refused += 1;
                assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
            }
        }
        assert!(refused >= 8, "{refused}");
        locking.join().expect("it is let go");
    });
}
