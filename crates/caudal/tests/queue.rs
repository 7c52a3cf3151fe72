//! Who waits, who is turned away, who is too late: over a real server with a model that takes its time.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    net::SocketAddr,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use caudal_testkit::{
    Repo, Server, fixture,
    http::{self, Answer, Connection, post, tensor_request},
};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const INFER: &str = "/v2/models/slow/infer";

/// One instance of the slow model: some tenths of a second a row.
fn slow(yaml: &str, arguments: &[&str]) -> Server {
    let yaml = format!("instances: 1\nthreads: 1\n{yaml}");
    Server::start(CAUDAL, &Repo::new().model("slow", "slow", &yaml), arguments)
}

fn infer(address: SocketAddr, value: f32, parameters: &str) -> JoinHandle<(Answer, Duration)> {
    infer_rows(address, 1, value, parameters)
}

fn infer_rows(address: SocketAddr, rows: usize, value: f32, parameters: &str) -> JoinHandle<(Answer, Duration)> {
    let body = tensor_request(&vec![[value; 4]; rows], parameters);
    thread::spawn(move || {
        let began = Instant::now();
        let answer = http::once(address, &post(INFER, &[], body.as_bytes())).unwrap();
        (answer, began.elapsed())
    })
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < end, "it never came to this: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn busy(server: &Server) -> u64 {
    server.get("/health").json()["models"]["slow"]["busy_instances"].as_u64().unwrap()
}

fn waiting(server: &Server) -> u64 {
    server.get("/health").json()["models"]["slow"]["queue_depth"].as_u64().unwrap()
}

/// Rows of a run that lasts while a test asks for more, also where other processes take most of the machine.
const LONG: usize = 3;

fn occupy(server: &Server, rows: usize) -> JoinHandle<(Answer, Duration)> {
    let running = infer_rows(server.address(), rows, 1.0, "");
    until("the model runs", || busy(server) == 1);
    running
}

/// Milliseconds spent at `stage`, as the answer's header tells.
fn spent(answer: &Answer, stage: &str) -> f64 {
    let timing = answer.header("server-timing");
    let metric = timing.split(", ").find_map(|metric| metric.strip_prefix(&format!("{stage};dur=")));
    metric.map_or(0.0, |ms| ms.parse().unwrap())
}

fn error(answer: &Answer) -> String {
    answer.json()["error"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_full_queue_answers_429_with_the_time_to_come_back() {
    let server = slow("batching: {max_queue_size: 2, max_batch_size: 1}", &[]);
    let running = occupy(&server, 1);
    let queued = [2.0, 3.0].map(|value| infer(server.address(), value, ""));
    until("two wait", || waiting(&server) == 2);
    let (refused, _) = infer(server.address(), 4.0, "").join().unwrap();
    assert_eq!(refused.status, 429);
    assert!(error(&refused).starts_with("queue_full: 2 requests already wait"), "{}", refused.text());
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    for (i, entry) in [running].into_iter().chain(queued).enumerate() {
        let (answer, _) = entry.join().unwrap();
        assert_eq!(answer.json()["outputs"][0]["data"][0], 2.0 * (i as f64 + 1.0));
    }
    assert_eq!(server.metric("caudal_queue_entries_total", "refused_full"), 1.0);
}

#[test]
fn more_requests_than_the_server_may_work_on_answer_429_and_probes_still_pass() {
    let server = slow("", &["--concurrency-limit", "1"]);
    let running = occupy(&server, LONG);
    let (refused, _) = infer(server.address(), 2.0, "").join().unwrap();
    assert_eq!((refused.status, error(&refused).starts_with("too_many_requests")), (429, true));
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(running.join().unwrap().0.status, 200);
}

#[test]
fn deadlines_hold_while_every_instance_is_busy() {
    let server = slow("", &[]);
    let running = occupy(&server, LONG);
    let late = infer(server.address(), 2.0, "\"timeout\":200000");
    let (answer, took) = late.join().unwrap();
    assert_eq!((answer.status, error(&answer).starts_with("deadline_exceeded")), (504, true), "{}", answer.text());
    assert!(took >= Duration::from_millis(200), "{took:?}");
    assert!(spent(&answer, "queue") > 50.0, "it tells where it was: {}", answer.header("server-timing"));
    assert_eq!(waiting(&server), 0, "its place is free");
    assert_eq!(busy(&server), 1, "while the model still runs");
    assert_eq!(running.join().unwrap().0.status, 200);
}

/// The model is loaded within that time as well, so it is one that is slow only with what it is asked.
#[test]
fn the_default_deadline_holds_while_the_model_runs() {
    let repo = Repo::new().model("loop", "loop", "instances: 1\nthreads: 1\n");
    let server = Server::start(CAUDAL, &repo, &["--request-timeout-ms", "200"]);
    let answer = ask_loop(server.address(), 1 << 40, "");
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(spent(&answer, "infer") > 40.0, "{}", answer.header("server-timing"));
}

#[test]
fn a_short_timeout_of_the_models_own_protocol_never_ends_in_200() {
    let server = Server::start(CAUDAL, &Repo::new().model("double", "double", ""), &[]);
    for _ in 0..50 {
        let answer = server.post_json("/v2/models/double/infer", &tensor_request(&[[1.0; 4]], "\"timeout\":1"));
        assert_eq!(answer.status, 504, "{}", answer.text());
    }
    let late = ["late", "refused_deadline"].map(|outcome| server.metric("caudal_queue_entries_total", outcome));
    assert!(late.iter().sum::<f64>() <= 50.0, "{late:?}");
}

#[test]
fn a_run_that_is_too_late_for_everybody_is_stopped() {
    let server = slow("", &[]);
    let body = tensor_request(&[[1.0; 4]; 40], "\"timeout\":100000");
    let began = Instant::now();
    let answer = server.post_json(INFER, &body);
    assert_eq!(answer.status, 504);
    until("the instance is free", || busy(&server) == 0);
    assert!(began.elapsed() < Duration::from_secs(5), "forty rows would take far longer");
    assert_eq!(infer(server.address(), 3.0, "").join().unwrap().0.status, 200);
}

#[test]
fn who_hangs_up_frees_its_place_and_its_run() {
    let server = slow("", &[]);
    let hang_up = |rows: usize| {
        let body = tensor_request(&vec![[1.0; 4]; rows], "");
        let mut connection = Connection::open(server.address()).unwrap();
        connection.send_head(&post(INFER, &[], body.as_bytes())).unwrap();
        connection.send(body.as_bytes()).unwrap();
        connection
    };
    let running = hang_up(40);
    until("the model runs", || busy(&server) == 1);
    let queued = hang_up(1);
    until("one waits", || waiting(&server) == 1);
    drop(queued);
    until("the place is free", || waiting(&server) == 0);
    drop(running);
    until("the instance is free", || busy(&server) == 0);
    assert_eq!(server.metric("caudal_queue_entries_total", "abandoned"), 2.0);
    assert_eq!(server.metric("caudal_queue_entries_total", "late"), 0.0);
}

/// A question to the model whose time follows from the number of its `trips`.
fn ask_loop(address: SocketAddr, trips: u64, more: &str) -> Answer {
    let input = serde_json::json!({ "name": "trips", "shape": [1], "datatype": "INT64", "data": [trips] });
    let body = format!(r#"{{"inputs": [{input}]{more}}}"#);
    http::once(address, &post("/v2/models/loop/infer", &[], body.as_bytes())).unwrap()
}

/// Runs are made as long as they must be on this machine for half of one to be far more than a request's way to admission;
/// that half is the deadline. What was measured counts for seconds only: a machine that stalls measures again.
#[test]
fn what_cannot_be_in_time_is_refused_before_any_work() {
    const LONG_MS: f64 = 100.0;
    const MEASURED_WITHIN: Duration = Duration::from_secs(5);
    const FRESH: Duration = Duration::from_secs(1);
    let server = Server::start(CAUDAL, &Repo::new().model("loop", "loop", "instances: 1\nthreads: 1\n"), &[]);
    let runs = || server.metric("model_inference_duration_seconds_count", "loop");
    let mut trips = 1 << 10;
    while spent(&ask_loop(server.address(), trips, ""), "infer") < LONG_MS {
        trips *= 2;
    }
    for _ in 0..10 {
        let began = Instant::now();
        let answers: Vec<Answer> = (0..8).map(|_| ask_loop(server.address(), trips, "")).collect();
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        let (measured, before) = (Instant::now(), runs());
        let quickest = answers.iter().map(|answer| spent(answer, "infer")).fold(f64::INFINITY, f64::min);
        let half = format!(r#", "parameters": {{"timeout": {}}}"#, (quickest * 500.0) as u64);
        let refused = ask_loop(server.address(), trips, &half);
        let admitted_late = refused.status == 504 && spent(&refused, "queue") + spent(&refused, "infer") == 0.0;
        if admitted_late || began.elapsed() > MEASURED_WITHIN || measured.elapsed() > FRESH {
            continue;
        }
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert!(error(&refused).starts_with("deadline_unreachable"), "{}", refused.text());
        assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
        assert_eq!(runs(), before);
        return;
    }
    panic!("the machine stalled each time");
}

#[test]
fn the_urgent_overtake() {
    let server = slow("batching: {max_batch_size: 1}", &[]);
    let running = occupy(&server, 1);
    let mut order = Vec::new();
    for (value, parameters) in [(2.0, "\"priority\":3"), (3.0, "\"priority\":2"), (4.0, "\"priority\":1")] {
        let before = waiting(&server);
        order.push((value, infer(server.address(), value, parameters)));
        until("it waits", || waiting(&server) == before + 1);
    }
    let mut done: Vec<(f32, Duration)> =
        order.into_iter().map(|(value, entry)| (value, entry.join().unwrap().1)).collect();
    // All were sent within a moment of each other, so who took least was served first.
    done.sort_by_key(|(_, took)| *took);
    assert_eq!(done.iter().map(|(value, _)| *value).collect::<Vec<_>>(), [4.0, 3.0, 2.0]);
    running.join().unwrap();
}

/// With zeros this model is done within microseconds; how long it takes follows from the number it is given.
#[test]
fn a_deadline_holds_for_a_tiny_model_whose_time_follows_from_values() {
    let server = Server::start(CAUDAL, &Repo::new().model("loop", "loop", ""), &["--io-threads", "1"]);
    let address = server.address();
    let ask = |trips: u64, timeout: &'static str| move || ask_loop(address, trips, timeout).status;
    assert_eq!(ask(3, "")(), 200);
    let endless: Vec<_> =
        (0..2).map(|_| thread::spawn(ask(1 << 40, r#", "parameters": {"timeout": 2000000}"#))).collect();
    thread::sleep(Duration::from_millis(100));
    let asked = Instant::now();
    assert_eq!(server.get("/livez").status, 200);
    assert!(asked.elapsed() < Duration::from_secs(1), "not held up until a deadline: {:?}", asked.elapsed());
    endless.into_iter().for_each(|one| assert_eq!(one.join().unwrap(), 504));
    assert_eq!(ask(3, "")(), 200, "its instances are free again");
}

#[test]
fn batches_form_under_load_and_mix_no_answers() {
    let repo =
        Repo::new().model("double", "double", "instances: 2\nbatching: {max_batch_size: 8, max_queue_delay_ms: 2}");
    let server = Server::start(CAUDAL, &repo, &[]);
    let address = server.address();
    let clients: Vec<_> = (0..16)
        .map(|client| {
            thread::spawn(move || {
                let mut connection = Connection::open(address).unwrap();
                for i in 0..60 {
                    let value = (client * 1000 + i) as f32;
                    let body = tensor_request(&[[value, 1.0, 2.0, value]], "");
                    let answer = connection.ask(&post("/v2/models/double/infer", &[], body.as_bytes())).unwrap();
                    let doubled = serde_json::json!([2.0 * value, 2.0, 4.0, 2.0 * value]);
                    assert_eq!(answer.json()["outputs"][0]["data"], doubled);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let runs = server.metric("model_inference_batch_size_count", "double");
    let rows = server.metric("model_inference_batch_size_sum", "double");
    assert!(rows >= 960.0 && runs < rows, "{runs} runs of {rows} rows");
    let reasons = ["drained", "full"].map(|reason| server.metric("caudal_batches_total", reason));
    assert!(reasons.iter().sum::<f64>() >= runs - 3.0, "each run has its reason: {reasons:?} {runs}");
}

#[test]
fn pictures_in_a_batch_get_the_boxes_they_get_alone() {
    let repo = Repo::nanodet("instances: 1\nbatching: {max_batch_size: 4, max_queue_delay_ms: 1000}");
    let server = Server::start(CAUDAL, &repo, &[]);
    let pictures = ["double_decker_bus.jpg", "chelsea.png", "astronaut.png", "coffee.png"].map(fixture);
    let alone: Vec<_> = pictures
        .iter()
        .map(|picture| server.post_picture("/predict/nanodet", picture).json()["detections"].clone())
        .collect();
    let before = server.metric("model_inference_batch_size_count", "nanodet");
    let parts: Vec<_> = pictures.iter().map(|picture| ("images", Some("p"), &picture[..])).collect();
    let together = server.post_form("/predict_batch/nanodet", &parts).json();
    assert_eq!(server.metric("model_inference_batch_size_count", "nanodet") - before, 1.0, "they ran as one batch");
    for (alone, together) in alone.iter().zip(together["results"].as_array().unwrap()) {
        assert_alike(alone, &together["detections"]);
    }
}

/// Equal but for rounding: 1e-5 of a confidence, and what that is in pixels.
fn assert_alike(a: &serde_json::Value, b: &serde_json::Value) {
    let (a, b) = (a.as_array().unwrap(), b.as_array().unwrap());
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a["class"], b["class"]);
        let differ = |name: &str| (a[name].as_f64().unwrap() - b[name].as_f64().unwrap()).abs();
        assert!(differ("confidence") <= 1e-5, "{a} {b}");
        assert!(["x1", "y1", "x2", "y2"].iter().all(|corner| differ(corner) <= 1e-2), "{a} {b}");
    }
}
