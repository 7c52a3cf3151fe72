//! `caudal bench` against real servers.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use caudal_load::{
    ClosedLoop, Control, EndReason, Limits, OpenLoop, Request, Schedule, Target, closed_loop, open_loop,
};
use caudal_testkit::{
    Repo, Server, fixture, fixture_path,
    http::{self, post, tensor_request},
};
use serde_json::{Value, json};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const INFER: &str = "/v2/models/m/infer";

fn repo() -> Repo {
    Repo::nanodet("").model("m", "double", "").model("slow", "slow", "instances: 1").encoder(
        "enc",
        "encoder",
        "embedding: {max_tokens: 64}",
    )
}

fn server() -> Server {
    Server::start(CAUDAL, &repo(), &["--model-control-mode", "explicit", "--load-model", "*"])
}

fn tiny() -> Server {
    Server::start(CAUDAL, &Repo::new().model("m", "double", ""), &[])
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address())
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(CAUDAL).arg("bench").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a load that should end with `code`; what it printed as JSON.
fn report(code: i32, arguments: &[&str]) -> Value {
    let output = bench(&[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    assert!(output.stderr.is_empty(), "nothing but JSON: {}", said(&output));
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    adds_up(&report);
    report
}

fn adds_up(report: &Value) {
    let number = |value: &Value| value.as_u64().unwrap();
    let sum = |values: &Value| values.as_object().unwrap().values().map(number).sum::<u64>();
    let not_sent = number(&report["not_sent"]["over_limit"]) + number(&report["not_sent"]["left"]);
    assert_eq!(number(&report["planned"]), number(&report["sent"]) + not_sent, "{report:#}");
    let ended = number(&report["answered"]) + sum(&report["errors"]) + number(&report["unfinished"]);
    assert_eq!(number(&report["sent"]), ended, "{report:#}");
    assert_eq!(number(&report["answered"]), sum(&report["statuses"]), "{report:#}");
}

fn arrivals(server: &Server) -> Vec<Value> {
    let text = server.get("/admin/requests/trace?format=arrivals").text();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What `server` remembers, as a file.
fn record(server: &Server) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&server.get("/admin/requests/trace?format=arrivals").body).unwrap();
    file
}

fn file(content: &[u8], ending: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn infer(server: &Server) {
    let body = tensor_request(&[[1.0; 4]], "");
    assert_eq!(http::once(server.address(), &post(INFER, &[], body.as_bytes())).unwrap().status, 200);
}

/// One request of each kind, over some time.
fn one_of_each(server: &Server) {
    let picture = fixture("double_decker_bus.jpg");
    let pause = || thread::sleep(Duration::from_millis(120));
    infer(server);
    pause();
    assert_eq!(server.post_picture("/predict/nanodet", &picture).status, 200);
    pause();
    let form = [("file", Some("bus.jpg"), picture.as_slice())];
    assert_eq!(server.post_form("/predict_batch/nanodet", &form).status, 200);
    assert_eq!(server.post_form("/api/v1/inference/image?model=nanodet", &form).status, 200);
    pause();
    let texts = json!({ "model": "enc", "input": ["a man is eating", "who is eating?"] }).to_string();
    assert_eq!(server.post_json("/v1/embeddings", &texts).status, 200);
    // A model that nobody knows, and a change of the server: neither can be sent again.
    assert_eq!(server.post_json("/v2/models/nobody/infer", "{}").status, 404);
    assert_eq!(server.post_json("/v2/repository/models/slow/unload", "").status, 200);
}

#[test]
fn what_was_recorded_is_sent_again() {
    let first = server();
    one_of_each(&first);
    let (trace, recorded) = (record(&first), arrivals(&first));
    drop(first);
    let second = server();
    let report = report(0, &["replay", text(trace.path()), "--url", &url(&second), "--speed", "0.5"]);
    assert_eq!(
        (&report["kind"], &report["planned"], &report["statuses"]),
        (&json!("replay"), &json!(5), &json!({"200": 5}))
    );
    assert_eq!(report["bodies"], json!({ "given": 0, "made": 5, "none": 0 }));
    let skipped: Vec<&str> =
        report["skipped"].as_array().unwrap().iter().map(|one| one["route"].as_str().unwrap()).collect();
    assert_eq!(skipped, ["POST /v2/models/{model}/infer", "POST /v2/repository/models/{model}/unload"], "{report:#}");
    // The other server saw the same, at half the pace.
    let replayed = arrivals(&second);
    let of = |arrivals: &[Value], key: &str| -> Vec<Value> {
        let kept = arrivals
            .iter()
            .filter(|one| one["status"] == 200 && one["route"] != "POST /v2/repository/models/{model}/unload");
        kept.map(|one| one[key].clone()).collect()
    };
    assert_eq!(replayed.len(), 5, "{replayed:#?}");
    // The two forms came one right after the other.
    let sorted = |arrivals: &[Value]| {
        let mut both: Vec<(String, String)> = of(arrivals, "route")
            .iter()
            .zip(of(arrivals, "model"))
            .map(|(route, model)| (route.to_string(), model.to_string()))
            .collect();
        both.sort();
        both
    };
    assert_eq!(sorted(&replayed), sorted(&recorded));
    for (was, is) in of(&recorded, "received_bytes").iter().zip(of(&replayed, "received_bytes")).skip(1) {
        let (was, is) = (was.as_f64().unwrap(), is.as_f64().unwrap());
        assert!((is / was - 1.0).abs() < 0.15, "{was} {is}");
    }
    let span = |arrivals: &[Value]| of(arrivals, "at_ms").last().unwrap().as_f64().unwrap();
    assert!(span(&replayed) > span(&recorded) * 1.5, "{} {}", span(&replayed), span(&recorded));
    let length = report["recorded"]["length_s"].as_f64().unwrap();
    assert!((length * 1e3 - span(&recorded)).abs() < 1e-6, "{report:#}");
    assert_eq!(report["recorded"]["total_ms"]["count"], 5);
    let routes = report["routes"].as_array().unwrap();
    assert_eq!(routes.len(), 5, "each route with its model: {routes:#?}");
    for times in ["latency_ms", "server_ms", "recorded_ms"] {
        assert!(routes.iter().all(|one| one[times]["count"] == 1), "{times} in {routes:#?}");
    }
}

#[test]
fn a_report_has_what_programs_and_people_look_for() {
    let server = tiny();
    (0..20).for_each(|_| infer(&server));
    let trace = record(&server);
    let arguments = ["replay", text(trace.path()), "--url", &url(&server)];
    let told = report(0, &arguments);
    for times in
        [&told["latency_ms"], &told["server"]["total_ms"], &told["recorded"]["total_ms"], &told["generator"]["lag_ms"]]
    {
        let number = |name: &str| times[name].as_f64().unwrap_or_else(|| panic!("{name} in {told:#}"));
        let order = ["min", "p50", "p90", "p95", "p99", "max"].map(number);
        assert!(order.is_sorted() && number("mean") > 0.0 && number("count") == 20.0, "{told:#}");
    }
    let stages = told["server"]["stages"].as_array().unwrap();
    assert!(
        stages.iter().any(|stage| stage["stage"] == "infer" && stage["mean_ms"].as_f64().unwrap() > 0.0),
        "{told:#}"
    );
    assert!(told["throughput"].as_f64().unwrap() > 0.0 && told["generator"]["cpu"].as_f64().unwrap() > 0.0);
    assert!(told["error_latency_ms"].is_null() && told["errors"] == json!({}));
    let last = report(0, &[&arguments[..], &["--last", "0s"]].concat());
    assert_eq!(last["planned"], 1, "the last arrival alone");
    let output = bench(&arguments);
    let table = said(&output);
    for words in
        ["20 of 20 arrivals", "200: 20", "within the server, as recorded", "p99", "stages", "infer", "generator"]
    {
        assert!(table.contains(words), "{words:?} is not in {table}");
    }
}

#[test]
fn files_are_sent_where_they_are_given() {
    let server = server();
    let picture = fixture("double_decker_bus.jpg");
    server.post_picture("/predict/nanodet", &picture);
    infer(&server);
    server.post_json("/v1/embeddings", r#"{"model":"enc","input":"hello"}"#);
    let trace = record(&server);
    let tensors = file(tensor_request(&[[1.0; 4], [2.0; 4]], "").as_bytes(), ".json");
    let words = file(b"one two three", ".txt");
    let (small, large) = (fixture_path("text_line.png"), fixture_path("coffee.png"));
    let files = [text(&small), text(&large), text(tensors.path()), text(words.path())];
    let report = report(0, &[&["replay", text(trace.path()), "--url", &url(&server), "--input"], &files[..]].concat());
    assert_eq!(report["bodies"], json!({ "given": 3, "made": 0, "none": 0 }));
    let replayed = &arrivals(&server)[3..];
    let sizes: Vec<u64> = replayed.iter().map(|one| one["received_bytes"].as_u64().unwrap()).collect();
    let embeddings = json!({ "input": "one two three", "model": "enc" }).to_string().len() as u64;
    let tensors = fs::metadata(tensors.path()).unwrap().len();
    assert_eq!(sizes, [fs::metadata(&small).unwrap().len(), tensors, embeddings], "the nearest in size");
}

#[test]
fn what_is_no_trace_is_refused_with_its_line() {
    let server = tiny();
    infer(&server);
    let recorded = fs::read_to_string(record(&server).path()).unwrap();
    for (bad, words) in [
        ("hello\n", "invalid trace: line 2: expected value"),
        ("{\"at_ms\": 1}\n", "invalid trace: line 2: missing field `route`"),
    ] {
        let trace = file(format!("{recorded}{bad}").as_bytes(), ".ndjson");
        let output = bench(&["replay", text(trace.path()), "--url", &url(&server)]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    }
    for (bad, words) in [
        (String::new(), "the trace is empty"),
        (recorded.replace("\"m\"", "null"), "no model was recorded"),
        (recorded.replace("POST /v2/models/{model}/infer", "GET /admin/memory"), "admin routes are not replayed"),
        (recorded.replace("\"m\"", "\"nobody\""), "the server responded with 404"),
    ] {
        let trace = file(bad.as_bytes(), ".ndjson");
        let output = bench(&["replay", text(trace.path()), "--url", &url(&server)]);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("nothing to replay") && said(&output).contains(words), "{}", said(&output));
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let server = tiny();
    infer(&server);
    let (trace, body) = (record(&server), file(tensor_request(&[[1.0; 4]], "").as_bytes(), ".json"));
    let here = url(&server);
    let fails = |code: i32, words: &str, arguments: &[&str]| {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(words), "{words:?} is not in {}", said(&output));
        assert!(output.stdout.is_empty(), "{}", said(&output));
    };
    let run =
        |more: &[&'static str]| [&["run", "--url", &here, "--model", "m", "--input", text(body.path())], more].concat();
    fails(2, "--connections", &run(&[]));
    fails(2, "cannot be used with", &run(&["--connections", "1", "--rate", "1"]));
    fails(2, "between 0.001 and 1000000", &run(&["--rate", "0"]));
    fails(2, "between 1 and 10000", &run(&["--connections", "0"]));
    fails(2, "at most a day", &run(&["--connections", "1", "--duration", "2d"]));
    fails(2, "--duration", &run(&["--connections", "1", "--duration", "soon"]));
    fails(2, "between 0.001 and 1000", &["replay", text(trace.path()), "--url", &here, "--speed", "0"]);
    fails(2, "https://", &["replay", text(trace.path()), "--url", "ftp://127.0.0.1"]);
    fails(1, "cannot be read", &["replay", "/nowhere/at/all", "--url", &here]);
    drop(server);
    fails(1, "cannot reach", &["replay", text(trace.path()), "--url", &here]);
    fails(1, "cannot reach", &run(&["--connections", "1"]));
}

#[test]
fn a_model_is_asked_by_connections_or_at_a_rate() {
    let server = tiny();
    let body = file(tensor_request(&[[1.0; 4]], "").as_bytes(), ".json");
    let here = url(&server);
    let run =
        |more: &[&'static str]| [&["run", "--url", &here, "--model", "m", "--input", text(body.path())], more].concat();
    let closed = report(0, &run(&["--connections", "3", "--requests", "200", "--duration", "1m"]));
    assert_eq!(
        (&closed["kind"], &closed["ended"], &closed["answered"]),
        (&json!("closed"), &json!("requests"), &json!(200))
    );
    assert_eq!((&closed["generator"]["connections"], &closed["generator"]["lag_ms"]), (&json!(3), &Value::Null));
    let metric = || server.metric("http_requests_total", r#"route="/v2/models/{model}/infer",status="200""#);
    let before = metric();
    let open = report(0, &run(&["--rate", "100", "--duration", "500ms", "--warmup", "200ms"]));
    assert_eq!((&open["kind"], &open["planned"], &open["warm_up"]), (&json!("open"), &json!(50), &json!(20)));
    assert_eq!((before, metric()), (200.0, 270.0), "the server counts them too");
    let poisson =
        |seed| report(0, &run(&["--rate", "100", "--duration", "500ms", "--arrivals", "poisson", "--seed", seed]));
    assert_eq!(poisson("7")["planned"], poisson("7")["planned"], "equal seeds, equal times");
}

#[test]
fn errors_make_the_exit_code() {
    let server = server();
    let body = file(tensor_request(&[[1.0; 4]], "").as_bytes(), ".json");
    let here = url(&server);
    let run = |model: &'static str, more: &[&'static str]| {
        [&["run", "--url", &here, "--model", model, "--input", text(body.path())], more].concat()
    };
    let unknown = report(1, &run("nobody", &["--connections", "1", "--requests", "3"]));
    assert_eq!((&unknown["statuses"], &unknown["codes"]), (&json!({"404": 3}), &json!({"model_not_found": 3})));
    let crowded = report(1, &run("slow", &["--rate", "50", "--duration", "400ms", "--in-flight", "2"]));
    assert_eq!(crowded["planned"], 20, "{crowded:#}");
    assert!(crowded["not_sent"]["over_limit"].as_u64().unwrap() > 0, "{crowded:#}");
    assert!(crowded["warnings"].to_string().contains("not sent"), "{crowded:#}");
}

#[test]
fn a_load_that_is_refused_altogether_ends_early() {
    let server = tiny();
    let body = file(tensor_request(&[[1.0; 4]], "").as_bytes(), ".json");
    let here = url(&server);
    for load in [["--connections", "2"], ["--rate", "200"]] {
        let began = Instant::now();
        let words = ["run", "--url", &here, "--model", "nobody", "--input", text(body.path()), "--duration", "1m"];
        let output = bench(&[&words[..], &load].concat());
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(began.elapsed() < Duration::from_secs(20), "it went on");
        let told = said(&output);
        assert!(told.contains("refused all of the first requests with 404 (model_not_found)"), "{told}");
        assert!(told.contains("check the model's name and the URL"), "{told}");
    }
}

#[test]
fn a_load_needs_connections_or_a_rate() {
    let output = bench(&["run", "--model", "m", "--input", "x.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("--connections <N>|--rate <N>"), "{}", said(&output));
    let both = bench(&["run", "--model", "m", "--input", "x.json", "--rate", "1", "--connections", "1"]);
    assert_eq!(both.status.code(), Some(2));
    assert!(said(&both).contains("cannot be used with"), "{}", said(&both));
}

#[test]
fn ctrl_c_ends_with_the_report_so_far() {
    let server = tiny();
    let body = file(tensor_request(&[[1.0; 4]], "").as_bytes(), ".json");
    let load = Command::new(CAUDAL)
        .args(["bench", "run", "--json", "--url", &url(&server), "--model", "m", "--input", text(body.path())])
        .args(["--rate", "50", "--duration", "10m"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let end = Instant::now() + http::PATIENCE;
    while arrivals(&server).len() < 3 {
        assert!(Instant::now() < end);
        thread::sleep(Duration::from_millis(10));
    }
    let status = Command::new("kill").args(["-INT", &load.id().to_string()]).status().unwrap();
    assert!(status.success());
    let output = load.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    adds_up(&report);
    assert_eq!(report["ended"], "stopped");
    assert!(report["answered"].as_u64().unwrap() >= 1, "{report:#}");
}

#[test]
fn tests_can_do_without_the_command_line() {
    let server = tiny();
    let body = tensor_request(&[[1.0; 4]], "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (closed, open) = runtime.block_on(async {
        let target = Target::connect(&url(&server)).await.unwrap();
        let (requests, warm_up) = ([Request::post(INFER, "application/json", body)].into(), Duration::ZERO);
        let (limits, duration) = (Limits { requests: 50, ..Limits::default() }, Duration::from_secs(60));
        let config = ClosedLoop { target, requests, connections: 2, warm_up, duration, limits };
        let schedule = Schedule::Poisson { rate: 200.0, duration, seed: 1 };
        let (target, requests) = (config.target.clone(), config.requests.clone());
        let open = OpenLoop { target, requests, schedule, warm_up, limits };
        // Both at once: each has a thread of its own.
        tokio::join!(closed_loop(config, Control::default()), open_loop(open, Control::default()))
    });
    for report in [closed.unwrap(), open.unwrap()] {
        assert_eq!((report.ended, report.answered, report.failed()), (EndReason::Requests, 50, 0));
    }
    assert_eq!(arrivals(&server).len(), 100);
}
