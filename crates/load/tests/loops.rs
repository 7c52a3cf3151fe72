//! Loops against servers that behave badly, each in its way.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use caudal_load::{
    ClosedLoop, Control, Ended, Inputs, Limits, OpenLoop, Report, Request, Schedule, Target, Trace, closed_loop,
    open_loop, prepare,
};

const MS: Duration = Duration::from_millis(1);

/// A server that gives each connection after the first (which only asks whether anybody is there) to `serve`.
async fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().skip(1) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    Target::reach(&url).await.unwrap()
}

/// Reads one request and gives its first line; none when the client has left.
fn read(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let (mut length, mut first) = (0, String::new());
    reader.read_line(&mut first).ok().filter(|read| *read > 0)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()?;
    Some(first.trim_end().to_owned())
}

fn answer(stream: &mut impl Write, headers: &str, body: &str) {
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {headers}Content-Length: {length}\r\n\r\n{body}");
}

/// Answers every request of a connection with `headers`, after `pause`.
fn well(pause: Duration, headers: &'static str) -> impl Fn(TcpStream) + Send + Sync + 'static {
    move |stream| {
        let mut reader = BufReader::new(stream);
        while read(&mut reader).is_some() {
            thread::sleep(pause);
            answer(reader.get_mut(), headers, "{}");
        }
    }
}

fn post() -> Arc<[Request]> {
    [Request::post("/x", "text/plain", "12345")].into()
}

async fn open(target: Target, rate: f64, duration: Duration, limits: Limits) -> Report {
    let schedule = Schedule::Constant { rate, duration };
    let config = OpenLoop { target, requests: post(), schedule, warm_up: Duration::ZERO, limits };
    let report = open_loop(config, Control::default()).await.unwrap();
    adds_up(&report);
    report
}

fn adds_up(report: &Report) {
    let failures: u64 = report.errors.values().sum();
    assert_eq!(report.planned, report.sent + report.not_sent.over_limit + report.not_sent.left, "{report:?}");
    assert_eq!(report.sent, report.answered + failures + report.unfinished, "{report:?}");
    assert_eq!(report.answered, report.statuses.values().sum::<u64>(), "{report:?}");
}

#[tokio::test]
async fn an_open_loop_sends_all_and_counts_all() {
    let target = server(well(Duration::ZERO, "200 OK\r\nServer-Timing: infer;dur=1.5, total;dur=2\r\n")).await;
    let report = open(target, 200.0, 500 * MS, Limits::default()).await;
    assert_eq!((report.planned, report.answered, report.failed()), (100, 100, 0));
    assert_eq!((report.sent_bytes, report.received_bytes), (500, 200));
    let server = report.server.unwrap();
    assert_eq!((server.stages[0].stage.as_str(), server.total_ms.count), ("infer", 100));
    assert!((server.stages[0].mean_ms - 1.5).abs() < 1e-9 && (server.total_ms.p50 / 2.0 - 1.0).abs() < 2e-3);
    assert_eq!(report.generator.lag_ms.unwrap().count, 100);
    // The first needs a connection; how many more depends on the machine.
    assert!((1..=100).contains(&report.generator.connections));
}

#[tokio::test]
async fn who_waits_for_a_stalled_server_is_counted_from_its_own_time() {
    // Each connection answers 400 ms after it was opened: nobody gets an answer before.
    let target = server(well(400 * MS, "200 OK\r\n")).await;
    let report = open(target, 100.0, 200 * MS, Limits::default()).await;
    assert_eq!((report.planned, report.answered), (20, 20), "none waits for the one before");
    assert!(report.latency_ms.unwrap().min >= 399.0, "{report:?}");
    assert!(report.generator.most_at_once >= 2, "{report:?}");
}

#[tokio::test]
async fn what_is_over_the_limit_is_counted_and_not_sent() {
    let target = server(well(400 * MS, "200 OK\r\n")).await;
    let report = open(target, 100.0, 200 * MS, Limits { in_flight: 3, ..Limits::default() }).await;
    assert_eq!(report.planned, 20);
    assert!(report.not_sent.over_limit > 0 && report.generator.most_at_once <= 3, "{report:?}");
    assert_eq!(report.failed(), report.not_sent.over_limit);
    assert!(report.warnings.iter().any(|warning| warning.contains("not sent")), "{:?}", report.warnings);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let few = |timeout| Limits { timeout, ..Limits::default() };
    let silent = server(|stream| {
        let mut reader = BufReader::new(stream);
        while read(&mut reader).is_some() {}
    });
    let report = open(silent.await, 50.0, 100 * MS, few(100 * MS)).await;
    assert_eq!((report.errors["timeout"], report.answered, report.latency_ms), (5, 0, None));
    let rude = server(|stream| {
        read(&mut BufReader::new(stream.try_clone().unwrap()));
    });
    let report = open(rude.await, 50.0, 100 * MS, few(5_000 * MS)).await;
    assert_eq!(report.errors.get("reset"), Some(&5), "{report:?}");
    assert!(report.first_error.is_some());
    let strange = server(|stream| {
        let mut reader = BufReader::new(stream);
        read(&mut reader);
        let _ = reader.get_mut().write_all(b"SSH-2.0-OpenSSH_9.6\r\n");
    });
    let report = open(strange.await, 50.0, 100 * MS, few(5_000 * MS)).await;
    assert_eq!(report.errors.get("other"), Some(&5), "{report:?}");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::reach(&format!("http://{}", gone.local_addr().unwrap())).await.unwrap();
    drop(gone);
    let report = open(target, 50.0, 100 * MS, few(5_000 * MS)).await;
    assert_eq!(report.errors.get("refused"), Some(&5), "{report:?}");
}

#[tokio::test]
async fn errors_are_counted_by_status_and_code() {
    let target = server(|stream| {
        let mut reader = BufReader::new(stream);
        while read(&mut reader).is_some() {
            let body = r#"{"error":{"code":"queue_full","message":"full","hint":"wait"}}"#;
            answer(reader.get_mut(), "429 Too Many Requests\r\n", body);
        }
    });
    let report = open(target.await, 50.0, 100 * MS, Limits::default()).await;
    assert_eq!((report.statuses[&429], report.codes["queue_full"], report.failed()), (5, 5, 5));
    assert!(report.latency_ms.is_none() && report.error_latency_ms.unwrap().count == 5);
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_is_replaced() {
    // One answer a connection, without a word that it is the last.
    let target = server(|stream| {
        let mut reader = BufReader::new(stream);
        read(&mut reader);
        answer(reader.get_mut(), "200 OK\r\n", "");
    });
    let report = open(target.await, 5.0, 800 * MS, Limits::default()).await;
    assert_eq!((report.statuses.get(&200), report.generator.connections), (Some(&4), 4), "{report:?}");
}

#[tokio::test]
async fn a_closed_loop_has_one_request_a_connection() {
    static MOST: AtomicUsize = AtomicUsize::new(0);
    static NOW: AtomicUsize = AtomicUsize::new(0);
    let target = server(|stream| {
        let mut reader = BufReader::new(stream);
        while read(&mut reader).is_some() {
            MOST.fetch_max(NOW.fetch_add(1, SeqCst) + 1, SeqCst);
            thread::sleep(2 * MS);
            NOW.fetch_sub(1, SeqCst);
            answer(reader.get_mut(), "200 OK\r\n", "{}");
        }
    });
    let limits = Limits { requests: 60, ..Limits::default() };
    let duration = Duration::from_secs(60);
    let config = ClosedLoop {
        target: target.await,
        requests: post(),
        connections: 3,
        warm_up: Duration::ZERO,
        duration,
        limits,
    };
    let report = closed_loop(config, Control::default()).await.unwrap();
    adds_up(&report);
    assert_eq!((report.ended, report.answered, report.generator.connections), (Ended::Requests, 60, 3));
    assert_eq!((MOST.load(SeqCst), report.generator.lag_ms), (3, None));
    assert!(report.latency_ms.unwrap().min >= 1.99);
}

#[tokio::test]
async fn what_warms_up_is_sent_and_not_counted() {
    let target = server(well(Duration::ZERO, "200 OK\r\n")).await;
    let schedule = Schedule::Constant { rate: 100.0, duration: 300 * MS };
    let config = OpenLoop { target, requests: post(), schedule, warm_up: 200 * MS, limits: Limits::default() };
    let report = open_loop(config, Control::default()).await.unwrap();
    adds_up(&report);
    assert_eq!((report.warm_up, report.sent, report.latency_ms.unwrap().count), (20, 10, 10));
}

#[tokio::test]
async fn a_load_that_is_stopped_tells_what_it_has() {
    let target = server(well(10_000 * MS, "200 OK\r\n")).await;
    let schedule = Schedule::At((0..100).map(|i| (i * 50 * MS, 0)).collect());
    let config = OpenLoop { target, requests: post(), schedule, warm_up: Duration::ZERO, limits: Limits::default() };
    let control = Control::default();
    let load = tokio::spawn(open_loop(config, control.clone()));
    while control.progress().sent < 2 {
        tokio::time::sleep(MS).await;
    }
    control.stop();
    let report = load.await.unwrap().unwrap();
    adds_up(&report);
    assert_eq!((report.ended, report.planned, report.unfinished), (Ended::Stopped, 100, report.sent));
    assert!(report.sent >= 2 && report.not_sent.left > 0, "{report:?}");
}

#[tokio::test]
async fn a_replay_asks_what_was_asked_in_its_order() {
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let target = server(|stream| {
        let mut reader = BufReader::new(stream);
        while let Some(first) = read(&mut reader) {
            SEEN.lock().unwrap().push(first);
            answer(reader.get_mut(), "200 OK\r\n", "{}");
        }
    });
    let line = |at: u64, route: &str, model: &str| {
        format!("{{\"at_ms\":{at},\"route\":\"{route}\",\"model\":{model},\"status\":200,\"total_ms\":1}}\n")
    };
    let text = [
        line(1000, "GET /v2/models/{model}", "\"a\""),
        line(1100, "POST /predict/{model}", "\"a b\""),
        line(1200, "GET /v2/models/{model}", "\"b\""),
        line(1200, "POST /v2/repository/models/{model}/load", "\"b\""),
        line(1300, "GET /v1/models", "null"),
    ];
    let trace = Trace::read(text.concat().as_bytes()).unwrap();
    let replay = prepare(&trace, target.await, &Inputs::default(), 2.0).await.unwrap();
    assert_eq!((replay.requests(), replay.duration()), (4, 150 * MS));
    let report = replay.run(Limits::default(), Control::default()).await.unwrap();
    adds_up(&report);
    let seen = SEEN.lock().unwrap();
    let expected = ["GET /v2/models/a", "POST /predict/a%20b", "GET /v2/models/b", "GET /v1/models"];
    assert_eq!(*seen, expected.map(|line| format!("{line} HTTP/1.1")));
    let routes: Vec<_> =
        report.routes.iter().map(|one| (one.route.as_str(), one.model.as_deref(), one.planned)).collect();
    let expected = [
        ("GET /v2/models/{model}", Some("a"), 1),
        ("POST /predict/{model}", Some("a b"), 1),
        ("GET /v2/models/{model}", Some("b"), 1),
        ("GET /v1/models", None, 1),
    ];
    assert_eq!(routes, expected);
    assert!(report.routes.iter().all(|one| one.latency_ms.unwrap().count == 1 && one.failed == 0));
    assert_eq!((report.answered, report.skipped[0].requests, report.bodies.unwrap().none), (4, 1, 3));
}
