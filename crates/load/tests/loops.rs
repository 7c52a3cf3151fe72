//! Load loops against servers that misbehave.
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
    ArrivalTrace, ClosedLoop, Control, EndReason, Inputs, Limits, OpenLoop, Report, Request, Schedule, Target,
    closed_loop, open_loop, plan_replay,
};

const MS: Duration = Duration::from_millis(1);

/// Starts a server that passes each connection after the first, which only probes it, to `serve`.
async fn start_server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().skip(1) {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    Target::connect(&url).await.unwrap()
}

/// Reads one request and returns its first line; `None` if the client has disconnected.
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<String> {
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

fn write_response(stream: &mut impl Write, headers: &str, body: &str) {
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {headers}Content-Length: {length}\r\n\r\n{body}");
}

/// Responds to every request of a connection with `headers`, after `pause`.
fn respond_after(pause: Duration, headers: &'static str) -> impl Fn(TcpStream) + Send + Sync + 'static {
    move |stream| {
        let mut reader = BufReader::new(stream);
        while read_request(&mut reader).is_some() {
            thread::sleep(pause);
            write_response(reader.get_mut(), headers, "{}");
        }
    }
}

fn post_requests() -> Arc<[Request]> {
    [Request::post("/x", "text/plain", "12345")].into()
}

async fn run_open_loop(target: Target, rate: f64, duration: Duration, limits: Limits) -> Report {
    let schedule = Schedule::Constant { rate, duration };
    let config = OpenLoop { target, requests: post_requests(), schedule, warm_up: Duration::ZERO, limits };
    let report = open_loop(config, Control::default()).await.unwrap();
    assert_counts_add_up(&report);
    report
}

fn assert_counts_add_up(report: &Report) {
    let failures: u64 = report.errors.values().sum();
    assert_eq!(report.planned, report.sent + report.not_sent.over_limit + report.not_sent.left, "{report:?}");
    assert_eq!(report.sent, report.answered + failures + report.unfinished, "{report:?}");
    assert_eq!(report.answered, report.statuses.values().sum::<u64>(), "{report:?}");
}

#[tokio::test]
async fn open_loop_counts_all_requests() {
    let target =
        start_server(respond_after(Duration::ZERO, "200 OK\r\nServer-Timing: infer;dur=1.5, total;dur=2\r\n")).await;
    let report = run_open_loop(target, 200.0, 500 * MS, Limits::default()).await;
    assert_eq!((report.planned, report.answered, report.failed()), (100, 100, 0));
    assert_eq!((report.sent_bytes, report.received_bytes), (500, 200));
    let server = report.server.unwrap();
    assert_eq!((server.stages[0].stage.as_str(), server.total_ms.count), ("infer", 100));
    assert!((server.stages[0].mean_ms - 1.5).abs() < 1e-9 && (server.total_ms.p50 / 2.0 - 1.0).abs() < 2e-3);
    assert_eq!(report.generator.lag_ms.unwrap().count, 100);
    // The first request opens a connection; the number of further ones depends on the machine.
    assert!((1..=100).contains(&report.generator.connections));
}

#[tokio::test]
async fn open_loop_measures_a_stalled_server_from_the_scheduled_time() {
    // Each connection responds 400 ms after it was opened.
    let target = start_server(respond_after(400 * MS, "200 OK\r\n")).await;
    let report = run_open_loop(target, 100.0, 200 * MS, Limits::default()).await;
    assert_eq!((report.planned, report.answered), (20, 20), "no request waits for the previous one");
    assert!(report.latency_ms.unwrap().min >= 399.0, "{report:?}");
    assert!(report.generator.most_at_once >= 2, "{report:?}");
}

#[tokio::test]
async fn open_loop_counts_requests_over_the_limit() {
    let target = start_server(respond_after(400 * MS, "200 OK\r\n")).await;
    let report = run_open_loop(target, 100.0, 200 * MS, Limits { in_flight: 3, ..Limits::default() }).await;
    assert_eq!(report.planned, 20);
    assert!(report.not_sent.over_limit > 0 && report.generator.most_at_once <= 3, "{report:?}");
    assert_eq!(report.failed(), report.not_sent.over_limit);
    assert!(report.warnings.iter().any(|warning| warning.contains("not sent")), "{:?}", report.warnings);
}

#[tokio::test]
async fn failures_are_counted_by_kind() {
    let few = |timeout| Limits { timeout, ..Limits::default() };
    let silent = start_server(|stream| {
        let mut reader = BufReader::new(stream);
        while read_request(&mut reader).is_some() {}
    });
    let report = run_open_loop(silent.await, 50.0, 100 * MS, few(100 * MS)).await;
    assert_eq!((report.errors["timeout"], report.answered, report.latency_ms), (5, 0, None));
    let rude = start_server(|stream| {
        read_request(&mut BufReader::new(stream.try_clone().unwrap()));
    });
    let report = run_open_loop(rude.await, 50.0, 100 * MS, few(5_000 * MS)).await;
    assert_eq!(report.errors.get("reset"), Some(&5), "{report:?}");
    assert!(report.first_error.is_some());
    let strange = start_server(|stream| {
        let mut reader = BufReader::new(stream);
        read_request(&mut reader);
        let _ = reader.get_mut().write_all(b"SSH-2.0-OpenSSH_9.6\r\n");
    });
    let report = run_open_loop(strange.await, 50.0, 100 * MS, few(5_000 * MS)).await;
    assert_eq!(report.errors.get("other"), Some(&5), "{report:?}");
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::connect(&format!("http://{}", gone.local_addr().unwrap())).await.unwrap();
    drop(gone);
    let report = run_open_loop(target, 50.0, 100 * MS, few(5_000 * MS)).await;
    assert_eq!(report.errors.get("refused"), Some(&5), "{report:?}");
}

#[tokio::test]
async fn errors_are_counted_by_status_and_code() {
    let target = start_server(|stream| {
        let mut reader = BufReader::new(stream);
        while read_request(&mut reader).is_some() {
            let body = r#"{"error":{"code":"queue_full","message":"full","hint":"wait"}}"#;
            write_response(reader.get_mut(), "429 Too Many Requests\r\n", body);
        }
    });
    let report = run_open_loop(target.await, 50.0, 100 * MS, Limits::default()).await;
    assert_eq!((report.statuses[&429], report.codes["queue_full"], report.failed()), (5, 5, 5));
    assert!(report.latency_ms.is_none() && report.error_latency_ms.unwrap().count == 5);
}

#[tokio::test]
async fn closed_connections_are_replaced() {
    // One response per connection, without announcing that it is the last.
    let target = start_server(|stream| {
        let mut reader = BufReader::new(stream);
        read_request(&mut reader);
        write_response(reader.get_mut(), "200 OK\r\n", "");
    });
    let report = run_open_loop(target.await, 5.0, 800 * MS, Limits::default()).await;
    assert_eq!((report.statuses.get(&200), report.generator.connections), (Some(&4), 4), "{report:?}");
}

#[tokio::test]
async fn closed_loop_has_one_request_per_connection() {
    static MOST: AtomicUsize = AtomicUsize::new(0);
    static NOW: AtomicUsize = AtomicUsize::new(0);
    let target = start_server(|stream| {
        let mut reader = BufReader::new(stream);
        while read_request(&mut reader).is_some() {
            MOST.fetch_max(NOW.fetch_add(1, SeqCst) + 1, SeqCst);
            thread::sleep(2 * MS);
            NOW.fetch_sub(1, SeqCst);
            write_response(reader.get_mut(), "200 OK\r\n", "{}");
        }
    });
    let limits = Limits { requests: 60, ..Limits::default() };
    let duration = Duration::from_secs(60);
    let config = ClosedLoop {
        target: target.await,
        requests: post_requests(),
        connections: 3,
        warm_up: Duration::ZERO,
        duration,
        limits,
    };
    let report = closed_loop(config, Control::default()).await.unwrap();
    assert_counts_add_up(&report);
    assert_eq!((report.ended, report.answered, report.generator.connections), (EndReason::Requests, 60, 3));
    assert_eq!((MOST.load(SeqCst), report.generator.lag_ms), (3, None));
    assert!(report.latency_ms.unwrap().min >= 1.99);
}

#[tokio::test]
async fn warm_up_requests_are_not_counted() {
    let target = start_server(respond_after(Duration::ZERO, "200 OK\r\n")).await;
    let schedule = Schedule::Constant { rate: 100.0, duration: 300 * MS };
    let config = OpenLoop { target, requests: post_requests(), schedule, warm_up: 200 * MS, limits: Limits::default() };
    let report = open_loop(config, Control::default()).await.unwrap();
    assert_counts_add_up(&report);
    assert_eq!((report.warm_up, report.sent, report.latency_ms.unwrap().count), (20, 10, 10));
}

#[tokio::test]
async fn stopped_load_reports_its_results() {
    let target = start_server(respond_after(10_000 * MS, "200 OK\r\n")).await;
    let schedule = Schedule::At((0..100).map(|i| (i * 50 * MS, 0)).collect());
    let config =
        OpenLoop { target, requests: post_requests(), schedule, warm_up: Duration::ZERO, limits: Limits::default() };
    let control = Control::default();
    let load = tokio::spawn(open_loop(config, control.clone()));
    while control.progress().sent < 2 {
        tokio::time::sleep(MS).await;
    }
    control.stop();
    let report = load.await.unwrap().unwrap();
    assert_counts_add_up(&report);
    assert_eq!((report.ended, report.planned, report.unfinished), (EndReason::Stopped, 100, report.sent));
    assert!(report.sent >= 2 && report.not_sent.left > 0, "{report:?}");
}

#[tokio::test]
async fn replay_sends_the_recorded_requests_in_order() {
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let target = start_server(|stream| {
        let mut reader = BufReader::new(stream);
        while let Some(first) = read_request(&mut reader) {
            SEEN.lock().unwrap().push(first);
            write_response(reader.get_mut(), "200 OK\r\n", "{}");
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
    let trace = ArrivalTrace::read_lines(text.concat().as_bytes()).unwrap();
    let replay = plan_replay(&trace, target.await, &Inputs::default(), 2.0).await.unwrap();
    assert_eq!((replay.request_count(), replay.duration()), (4, 150 * MS));
    let report = replay.run(Limits::default(), Control::default()).await.unwrap();
    assert_counts_add_up(&report);
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
