//! How a server goes: what was begun is finished, nobody is cut off, new work is told so.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Repo, Server,
    http::{self, Connection, get, post, tensor_request},
    load::Load,
};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

/// One instance of the slow model: some tenths of a second a row, up to `max_batch_size` rows at once.
fn slow(max_batch_size: usize, arguments: &[&str]) -> Server {
    let yaml = format!("instances: 1\nthreads: 1\nbatching: {{max_batch_size: {max_batch_size}}}");
    Server::start(CAUDAL, &Repo::new().model("slow", "slow", &yaml), arguments)
}

fn infer(address: SocketAddr, rows: usize) -> thread::JoinHandle<std::io::Result<http::Answer>> {
    let body = tensor_request(&vec![[1.0; 4]; rows], "");
    thread::spawn(move || http::once(address, &post("/v2/models/slow/infer", &[], body.as_bytes())))
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn work_in_progress_is_finished_while_new_work_is_turned_away() {
    let mut server = slow(1, &[]);
    let mut kept = server.connect();
    assert_eq!(kept.ask(&get("/readyz")).unwrap().status, 200);
    let begun: Vec<_> = (0..3).map(|_| infer(server.address(), 1)).collect();
    until("two wait", || server.get("/health").json()["models"]["slow"]["queue_depth"] == 2);
    server.signal("TERM");
    until("it is not ready any more", || server.get("/readyz").status == 503);
    // On a connection that is open already and on a new one.
    for connection in [&mut kept, &mut server.connect()] {
        let body = tensor_request(&[[1.0; 4]], "");
        let turned_away = connection.ask(&post("/v2/models/slow/infer", &[], body.as_bytes())).unwrap();
        assert_eq!(turned_away.status, 503);
        assert_eq!(turned_away.header("connection"), "close");
        assert!(turned_away.text().contains("shutting_down"));
    }
    assert_eq!(server.get("/livez").status, 200);
    assert_eq!(server.get("/health").json()["status"], "draining");
    for request in begun {
        assert_eq!(request.join().unwrap().unwrap().status, 200);
    }
    assert!(server.wait(Duration::from_secs(10)).success());
}

#[test]
fn what_takes_too_long_is_cut_short() {
    let mut server = slow(64, &["--exit-timeout-secs", "1"]);
    let endless = infer(server.address(), 60);
    until("it runs", || server.get("/health").json()["models"]["slow"]["busy_instances"] == 1);
    let began = Instant::now();
    server.signal("TERM");
    let status = server.wait(Duration::from_secs(10));
    assert_eq!(status.code(), Some(1));
    assert!((0.9..5.0).contains(&began.elapsed().as_secs_f64()), "{:?}", began.elapsed());
    assert!(endless.join().unwrap().is_err());
    assert!(server.log().contains("exit_timeout_secs is over"), "{}", server.log());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = slow(64, &[]);
    let _endless = infer(server.address(), 60);
    until("it runs", || server.get("/health").json()["models"]["slow"]["busy_instances"] == 1);
    server.signal("INT");
    until("it drains", || server.get("/readyz").status == 503);
    server.signal("INT");
    assert_eq!(server.wait(Duration::from_secs(5)).code(), Some(130));
}

#[test]
fn an_idle_connection_does_not_hold_it_up() {
    let mut server = slow(64, &[]);
    let mut idle = server.connect();
    idle.ask(&get("/livez")).unwrap();
    let silent = server.connect();
    let began = Instant::now();
    server.signal("TERM");
    assert!(server.wait(Duration::from_secs(10)).success());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn silent_newcomers_do_not_hold_it_up() {
    for _ in 0..5 {
        let mut server = slow(64, &[]);
        let address = server.address();
        let newcomers = thread::spawn(move || {
            let mut silent = Vec::new();
            while let Ok(connection) = Connection::open(address) {
                silent.push(connection);
                thread::sleep(Duration::from_micros(200));
            }
            silent
        });
        thread::sleep(Duration::from_millis(50));
        server.signal("TERM");
        let began = Instant::now();
        assert!(server.wait(Duration::from_secs(20)).success(), "{}", server.log());
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        drop(newcomers.join().unwrap());
    }
}

/// Sends SIGTERM in the middle of load, `times` over: no request that the server took on may fail, and no
/// connection that it accepted may be reset.
fn terminate_under_load(times: usize) {
    for round in 0..times {
        let repo = Repo::new().model("double", "double", "");
        let mut server = Server::start(CAUDAL, &repo, &[]);
        let address = server.address();
        let load = thread::spawn(move || {
            let body = tensor_request(&[[1.0; 4]], "");
            let load = Load { connections: 16, duration: Duration::from_millis(400), rate: None };
            load.run(address, &post("/v2/models/double/infer", &[("Connection", "keep-alive")], body.as_bytes()))
        });
        let newcomers = thread::spawn(move || connect_until_refused(address));
        thread::sleep(Duration::from_millis(80 + 7 * (round as u64 % 10)));
        server.signal("TERM");
        assert!(server.wait(Duration::from_secs(10)).success(), "round {round}: {}", server.log());
        let samples = load.join().unwrap();
        let answered = samples.iter().filter(|sample| sample.status == 200).count();
        assert!(answered > 0, "round {round}");
        for sample in &samples {
            let told = matches!(sample.status, 200 | 503) || sample.status == 0 && is_refusal(&sample.failure);
            assert!(told, "round {round}: {sample:?}");
        }
        if let Some(reset) = newcomers.join().unwrap() {
            panic!("round {round}: an accepted connection failed: {reset}");
        }
    }
}

/// A connection that was never accepted, or one that was idle when it was closed: the client may try elsewhere.
fn is_refusal(failure: &str) -> bool {
    failure.contains("refused") || failure.contains("unexpected end of file")
}

/// Opens one connection after another and asks on each, until none is accepted any more; gives what went wrong
/// with one that was.
fn connect_until_refused(address: SocketAddr) -> Option<String> {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        match Connection::open(address) {
            Err(_) => return None,
            Ok(mut connection) => match connection.ask(&get("/livez")) {
                Ok(answer) if answer.status == 200 => {}
                other => return Some(format!("{other:?}")),
            },
        }
    }
    None
}

#[test]
fn nobody_is_cut_off_when_it_ends_under_load() {
    terminate_under_load(if std::env::var_os("CAUDAL_TEST_FULL").is_some() { 100 } else { 5 });
}
