//! What a server knows of itself: requests remembered, sections ranked, bottlenecks named.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    collections::BTreeSet,
    fs, thread,
    time::{Duration, Instant},
};

use caudal_testkit::{
    Repo, Server, fixture,
    http::{self, get, post, tensor_request},
};
use serde_json::Value;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const INFER: &str = "/v2/models/m/infer";
const SLOW: &str = "/v2/models/slow/infer";

/// A model that answers at once, and one of some tenths of a second a row that joins four of them.
fn server(arguments: &[&str]) -> Server {
    let slow = "instances: 1\nthreads: 1\nbatching: {max_batch_size: 4}";
    Server::start(CAUDAL, &Repo::new().model("m", "double", "").model("slow", "slow", slow), arguments)
}

fn ask(server: &Server, path: &str, id: &str) {
    let body = tensor_request(&[[1.0; 4]], "");
    let answer = http::once(server.address(), &post(path, &[("X-Request-ID", id)], body.as_bytes())).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn json(server: &Server, path: &str) -> Value {
    let answer = server.get(path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

fn ids(requests: &Value) -> Vec<&str> {
    let requests = requests["requests"].as_array().unwrap();
    requests.iter().map(|request| request["request_id"].as_str().unwrap()).collect()
}

#[test]
fn requests_are_remembered_and_what_they_carried_is_not() {
    let server = server(&[]);
    ask(&server, SLOW, "slow-one");
    ask(&server, INFER, "quick-one");
    let secret = "/v2/models/m/infer?timeout_ms=12345";
    ask(&server, secret, "quick-two");
    assert_eq!(server.post_json("/v2/models/m/infer", "{").status, 400);
    let latest = json(&server, "/admin/requests");
    assert_eq!(ids(&latest)[1..], ["quick-two", "quick-one", "slow-one"]);
    assert_eq!(latest["requests"][0]["status"], 400);
    assert_eq!(ids(&json(&server, "/admin/requests?sort=slowest&limit=1")), ["slow-one"]);
    assert_eq!(ids(&json(&server, "/admin/requests?model=slow")), ["slow-one"]);
    assert_eq!(json(&server, "/admin/requests?status=4xx")["requests"].as_array().unwrap().len(), 1);
    let one = json(&server, "/admin/requests/quick-two");
    assert!(!one.to_string().contains("12345"), "{one}");
    assert_eq!((&one["model"], &one["version"], &one["status"]), (&"m".into(), &"1".into(), &200.into()));
    assert_eq!(one["route"], "POST /v2/models/{model}/infer");
    assert_eq!(one["batch"]["reason"], "drained", "{one}");
    assert!(one["received_bytes"].as_u64().unwrap() > 10 && one["sent_bytes"].as_u64().unwrap() > 10, "{one}");
    // The stages follow each other without a gap and make up the whole.
    let stages = one["stages"].as_array().unwrap();
    let mut end = 0.0;
    for stage in stages {
        assert!((stage["start_ms"].as_f64().unwrap() - end).abs() < 1e-9, "{one}");
        end += stage["ms"].as_f64().unwrap();
    }
    assert!((one["total_ms"].as_f64().unwrap() - end).abs() < 1e-9, "{one}");
    assert!(stages.iter().any(|stage| stage["stage"] == "infer"), "{one}");
}

#[test]
fn who_shared_a_run_is_told() {
    let server = server(&[]);
    thread::scope(|scope| {
        scope.spawn(|| ask(&server, SLOW, "first"));
        let end = Instant::now() + Duration::from_secs(20);
        while json(&server, "/health")["models"]["slow"]["busy_instances"] != 1 {
            assert!(Instant::now() < end);
        }
        // These wait for the first, and run together.
        for id in ["a", "b", "c"] {
            let server = &server;
            scope.spawn(move || ask(server, SLOW, id));
        }
    });
    let one = json(&server, "/admin/requests/a");
    let others: BTreeSet<&str> =
        one["shared_with"].as_array().unwrap().iter().map(|other| other["request_id"].as_str().unwrap()).collect();
    assert_eq!(others, BTreeSet::from(["b", "c"]), "{one}");
    assert_eq!((&one["batch"]["requests"], &one["batch"]["rows"]), (&3.into(), &3.into()), "{one}");
    assert_eq!(json(&server, "/admin/requests/first")["shared_with"], Value::Array(Vec::new()));
}

#[test]
fn a_timeline_holds_each_request_with_its_stages() {
    let server = server(&[]);
    (0..3).for_each(|i| ask(&server, INFER, &format!("r{i}")));
    let trace = json(&server, "/admin/requests/trace");
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |kind: &str| events.iter().filter(|event| event["cat"] == kind).count();
    assert_eq!(of("request"), 3);
    assert!(of("stage") >= 9, "{trace:#}");
    let number = |event: &Value, key: &str| event[key].as_f64().unwrap();
    for stage in events.iter().filter(|event| event["cat"] == "stage") {
        let around = events.iter().any(|request| {
            request["cat"] == "request"
                && request["tid"] == stage["tid"]
                && number(request, "ts") <= number(stage, "ts") + 1e-3
                && number(stage, "ts") + number(stage, "dur") <= number(request, "ts") + number(request, "dur") + 1e-3
        });
        assert!(around, "{stage} lies within no request");
    }
    let arrivals = server.get("/admin/requests/trace?format=arrivals");
    let lines: Vec<Value> = arrivals.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["at_ms"], &lines[0]["model"]), (3, &0.0.into(), &"m".into()));
}

fn section<'a>(stats: &'a Value, group: &str, name: &str) -> &'a Value {
    let sections = stats["sections"].as_array().unwrap();
    sections
        .iter()
        .find(|section| section["group"] == group && section["name"] == name)
        .unwrap_or_else(|| panic!("{group} {name} is not in {stats:#}"))
}

#[test]
fn sections_are_ranked_and_stages_agree_with_the_metrics() {
    let server = server(&[]);
    let picture = fixture("double_decker_bus.jpg");
    (0..7).for_each(|i| ask(&server, INFER, &format!("r{i}")));
    ask(&server, SLOW, "slow");
    let stats = json(&server, "/admin/profiling/stats?sort=max&top=500&recent=true");
    assert_eq!(stats["sections"][0]["name"], "infer", "{stats:#}");
    let infer = section(&stats, "POST /v2/models/{model}/infer", "infer");
    assert_eq!((&infer["count"], infer["recent_ms"].as_array().unwrap().len()), (&8.into(), 8));
    let number = |name: &str| infer[name].as_f64().unwrap();
    assert!(number("min_ms") <= number("p50_ms") && number("p50_ms") <= number("p99_ms"), "{infer}");
    assert!(number("p99_ms") <= number("max_ms") && number("last_ms") == number("max_ms"), "{infer}");
    assert!((number("mean_ms") * 8.0 - number("total_ms")).abs() < 1e-3, "{infer}");
    let metric = server.metric("caudal_stage_duration_seconds_sum", r#"stage="infer""#);
    assert!((metric * 1e3 - number("total_ms")).abs() < 1e-3, "one truth: {metric} {infer}");
    assert_eq!(section(&stats, "POST /v2/models/{model}/infer", "queue")["kind"], "wait");
    assert_eq!(json(&server, "/admin/profiling/stats?top=2")["sections"].as_array().unwrap().len(), 2);
    assert_ne!(server.post_picture("/predict/m", &picture).status, 200);
}

#[test]
fn pictures_pass_sections_of_their_own() {
    let server = Server::start(CAUDAL, &Repo::nanodet(""), &[]);
    let picture = fixture("double_decker_bus.jpg");
    for _ in 0..3 {
        assert_eq!(server.post_picture("/predict/nanodet", &picture).status, 200);
    }
    let stats = json(&server, "/admin/profiling/stats?top=500");
    let decode = section(&stats, "caudal_vision::decode", "decode");
    assert_eq!((&decode["count"], &decode["kind"]), (&3.into(), &"work".into()));
    // What the stage took holds what the section within it took.
    let stage = section(&stats, "POST /predict/{model}", "decode");
    assert!(stage["total_ms"].as_f64().unwrap() >= decode["total_ms"].as_f64().unwrap(), "{stage} {decode}");
    let bytes = decode["allocated_bytes"].as_u64().unwrap();
    assert!(bytes >= 546 * 413 * 3, "pixels were allocated: {decode}");
}

#[test]
fn bottlenecks_are_named_with_the_worst_first() {
    let server = server(&["--bottleneck-threshold-ms", "20"]);
    (0..5).for_each(|i| ask(&server, SLOW, &format!("r{i}")));
    let found = json(&server, "/admin/profiling/bottlenecks");
    assert_eq!(found["threshold_ms"], 20.0);
    let worst = &found["bottlenecks"][0];
    assert_eq!((&worst["name"], &worst["severity"]), (&"infer".into(), &"high".into()), "{found:#}");
    assert!(worst["share"].as_f64().unwrap() > 0.8, "{found:#}");
    let lax = json(&server, "/admin/profiling/bottlenecks?threshold_ms=100000");
    assert!(lax["bottlenecks"].as_array().unwrap().iter().all(|bottleneck| bottleneck["severity"] == "low"), "{lax:#}");
}

#[test]
fn budgets_tell_what_is_spent_of_them() {
    let budgets = "/v2/models/{model}/infer = 60000, /v2/models/{model}/infer infer = 20, /predict/{model} = 5";
    let server = server(&["--latency-budgets", budgets]);
    (0..9).for_each(|i| ask(&server, INFER, &format!("r{i}")));
    ask(&server, SLOW, "slow");
    let told = json(&server, "/admin/profiling/budgets");
    let [whole, infer, idle] = &told["budgets"].as_array().unwrap()[..] else { panic!("{told:#}") };
    assert_eq!((&whole["stage"], &whole["breaches"], &whole["requests"]), (&"total".into(), &0.into(), &10.into()));
    assert!(whole["spent"].as_f64().unwrap() < 1.0, "{told:#}");
    assert_eq!((&infer["breaches"], &infer["over"]), (&1.into(), &0.1.into()), "{told:#}");
    assert_eq!(infer["burn"], 2.0, "one in ten, where one in twenty may: {told:#}");
    assert!(infer["spent"].as_f64().unwrap() > 1.0 && idle["spent"].is_null(), "{told:#}");
    let metric = server.metric("caudal_budget_breaches_total", r#"route="/v2/models/{model}/infer",stage="infer""#);
    assert_eq!(metric, 1.0);
}

#[test]
fn a_stage_that_becomes_slower_is_noticed_with_the_time_since_when() {
    let server = server(&["--profile-window-secs", "0.1"]);
    let marks = |least: usize| {
        let path = "/admin/profiling/history?group=POST%20/v2/models/%7Bmodel%7D/infer&name=infer";
        json(&server, path)["windows"].as_array().unwrap().len() >= least
    };
    let mut number = 0;
    let mut load = |path: &str, until: usize| {
        let end = Instant::now() + Duration::from_secs(60);
        while !marks(until) {
            ask(&server, path, &number.to_string());
            number += 1;
            assert!(Instant::now() < end, "no history");
        }
    };
    load(INFER, 6);
    load(SLOW, 12);
    let found = json(&server, "/admin/profiling/bottlenecks");
    let change = found["changes"].as_array().unwrap().iter().find(|change| change["name"] == "infer");
    let change = change.unwrap_or_else(|| panic!("{found:#}"));
    assert!(change["ratio"].as_f64().unwrap() > 10.0, "{found:#}");
    assert!(change["reason"].as_str().unwrap().contains("slower since"), "{found:#}");
}

#[test]
fn key_figures_follow_the_traffic() {
    let server = server(&["--kpi-bucket-secs", "0.2"]);
    (0..9).for_each(|i| ask(&server, INFER, &format!("r{i}")));
    assert_eq!(server.post_json(INFER, "{").status, 400);
    let route = "&route=/v2/models/%7Bmodel%7D/infer";
    let told = json(&server, &format!("/api/kpis?window=1m{route}"));
    let summary = &told["summary"];
    assert_eq!(
        (&summary["requests"], &summary["client_errors"], &summary["error_rate"]),
        (&10.into(), &1.into(), &0.0.into())
    );
    assert!(summary["p50_ms"].as_f64().unwrap() <= summary["p99_ms"].as_f64().unwrap(), "{told}");
    let end = Instant::now() + Duration::from_secs(20);
    let counted = || {
        let series = json(&server, &format!("/api/kpis?view=timeseries{route}"));
        let points = series["timeseries"].as_array().unwrap().clone();
        (points.len(), points.iter().map(|point| point["requests"].as_u64().unwrap()).sum::<u64>())
    };
    // Some more buckets end, in which nothing came.
    let until = loop {
        let (buckets, requests) = counted();
        if requests >= 10 {
            break buckets + 3;
        }
        assert!(Instant::now() < end, "buckets end");
        thread::sleep(Duration::from_millis(20));
    };
    while counted().0 < until {
        assert!(Instant::now() < end, "buckets end");
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(counted().1, 10, "each request is in one bucket");
    // Requests of an operator are not user work.
    (0..5).for_each(|_| drop(server.get("/livez")));
    drop(server.get("/metrics"));
    let of = |query: &str| json(&server, &format!("/api/kpis?window=1m{query}"));
    let work = of("");
    assert_eq!((&work["scope"], &work["summary"]["requests"]), (&"work".into(), &10.into()), "{work}");
    assert!(work["service"]["requests"].as_u64().unwrap() >= 6, "{work}");
    assert!(of("&scope=service")["summary"]["requests"].as_u64().unwrap() >= 6);
    assert!(of("&scope=all")["summary"]["requests"].as_u64().unwrap() >= 16);
    assert_eq!(server.get("/api/kpis?scope=users").status, 400);
    let chips = json(&server, &format!("/api/kpis?view=chips&window=24h{route}"));
    assert_eq!((&chips["chips"][0]["id"], &chips["window"]), (&"requests_per_second".into(), &"24h".into()));
    for (path, words) in [("/api/kpis?window=2m", "1m, 5m, 15m"), ("/api/kpis?view=graph", "summary, chips")] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.text().contains(words)), (400, true), "{}", answer.text());
    }
}

/// Lines about slow requests in the server's log.
fn slow_lines(server: &Server) -> usize {
    server.log().matches("Slow request: ").count()
}

#[test]
fn slow_requests_are_those_that_take_several_runs_of_their_model() {
    let server = server(&[]);
    ask(&server, SLOW, "its-own-time");
    assert_eq!(slow_lines(&server), 0, "{}", server.log());
    let strict = self::server(&["--slow-request-threshold-ms", "100"]);
    ask(&strict, SLOW, "what-is-set-holds");
    assert!(strict.log_line("Slow request: ").contains("infer"), "{}", strict.log());
}

#[test]
fn slow_requests_fill_no_log() {
    let server = server(&["--slow-request-threshold-ms", "0"]);
    (0..60).for_each(|i| ask(&server, INFER, &format!("r{i}")));
    let lines = || slow_lines(&server);
    let end = Instant::now() + Duration::from_secs(10);
    while lines() < 5 {
        assert!(Instant::now() < end, "{}", server.log());
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(100));
    // One span, or the next one's too, should this machine be slow.
    assert!((5..=10).contains(&lines()), "{}", server.log());
}

#[test]
fn a_models_operators_are_timed_while_it_serves() {
    let repo = Repo::nanodet("");
    let server = Server::start(CAUDAL, &repo, &[]);
    let told = json(&server, "/admin/models/nanodet/operators?runs=3&top=5");
    assert_eq!((&told["model"], &told["runs"]), (&"nanodet".into(), &3.into()), "{told:#}");
    let operators = told["operators"].as_array().unwrap();
    assert_eq!(operators.len(), 5);
    assert!(operators[0]["total_us"].as_u64() >= operators[4]["total_us"].as_u64(), "{told:#}");
    // Convolutions are most of a network of convolutions, and no operator takes more than the run.
    assert_eq!(
        (&told["kinds"][0]["kind"], &told["kinds"][0]["provider"]),
        (&"Conv".into(), &"CPUExecutionProvider".into())
    );
    let share = told["kinds"].as_array().unwrap().iter().map(|kind| kind["share"].as_f64().unwrap()).sum::<f64>();
    assert!(share > 0.7 && share <= 1.0, "{share} {told:#}");
    let left: Vec<_> = fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let pid = format!("caudal-operators-{}-", server.pid());
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(&pid)), "its file is removed");
    assert_eq!(server.get("/admin/models/nanodet/operators?runs=0").status, 400);
    assert_eq!(server.get("/admin/models/nobody/operators").status, 404);
    let output = std::process::Command::new(CAUDAL)
        .args(["models", "profile", "nanodet", "--runs", "2", "--top", "3", "--model-repository"])
        .arg(repo.path(""))
        .output()
        .unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("2 runs of") && table.contains("Conv"), "{table}");
}

#[test]
fn tables_are_answered_and_written() {
    let server = server(&["--profile-output-dir", "kept/profiles"]);
    ask(&server, INFER, "one");
    let csv = server.get("/admin/profiling/export?format=csv");
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    assert!(csv.text().starts_with("name,group,kind,count,"), "{}", csv.text());
    assert!(csv.text().contains("infer,POST /v2/models/{model}/infer,work,1,"), "{}", csv.text());
    assert!(server.get("/admin/profiling/export?format=txt").text().contains("POST /v2/models/{model}/infer · infer"));
    assert!(json(&server, "/admin/profiling/export").as_array().unwrap().len() > 3);
    let saved = server.post_json("/admin/profiling/export?format=csv", "");
    assert_eq!(saved.status, 201, "{}", saved.text());
    let folder = server.home().join("kept/profiles");
    let file = fs::read_to_string(folder.join(saved.json()["file"].as_str().unwrap())).unwrap();
    assert!(file.contains("infer,POST /v2/models/{model}/infer,work,1,"), "{file}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing half-written is left");
}

#[test]
fn a_table_that_cannot_be_written_is_an_error_that_says_so() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "mine").unwrap();
    // A file where a folder should be, a folder within a file, and one in which not even root may make files.
    for folder in [file.clone(), file.join("below"), "/proc".into(), "/proc/nowhere".into()] {
        let server = server(&["--profile-output-dir", folder.to_str().unwrap()]);
        let answer = server.post_json("/admin/profiling/export", "");
        assert_eq!((answer.status, answer.code().as_str()), (500, "export_failed"), "{}", answer.text());
        assert!(answer.text().contains("set profile_output_dir"), "{}", answer.text());
        assert!(!answer.text().contains(folder.to_str().unwrap()), "no answer names a file: {}", answer.text());
        assert!(server.log_line("cannot be written").contains(folder.to_str().unwrap()));
        let line = server.log_line("POST /admin/profiling/export failed: ");
        assert!(line.contains(&format!("request_id={:?}", answer.header("x-request-id"))), "{line}");
        assert_eq!(server.get("/admin/profiling/export").status, 200, "it is told all the same");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn what_is_asked_wrongly_is_refused_and_nobody_else_may_ask() {
    let server = server(&[]);
    for (path, words) in [
        ("/admin/requests?sorted=x", "did you mean \\\"sort\\\"?"),
        ("/admin/requests?sort=quickest", "it is one of latest, slowest"),
        ("/admin/requests?limit=0", "it is a number from 1 to 100000"),
        ("/admin/requests?status=abc", "200, 503 or 5xx"),
        ("/admin/requests?route=/nowhere", "there is no route"),
        ("/admin/requests/trace?format=svg", "chrome, arrivals"),
        ("/admin/profiling/stats?sort=slowest", "total, self, mean"),
        ("/admin/profiling/stats?top=many", "it is a number from 1"),
        ("/admin/profiling/bottlenecks?threshold_ms=-1", "it is a number from"),
        ("/admin/profiling/bottlenecks?window_minutes=1e9", "it is a number from 0.01 to 1440"),
        ("/admin/profiling/history?name=infer", "group is missing"),
        ("/admin/profiling/export?format=xml", "json, csv, txt"),
    ] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.text().contains(words)), (400, true), "{path}: {}", answer.text());
    }
    assert_eq!(server.get("/admin/requests/unknown").status, 404);
    for path in ["/admin/requests", "/admin/requests/x", "/admin/profiling/stats", "/admin/profiling/export"] {
        let headers = [("Authorization", "Bearer guess")];
        let answer = server.ask(&http::Ask { headers: &headers, ..get(path) });
        assert_eq!(answer.status, 401, "{path}");
    }
}

#[test]
fn switched_off_it_remembers_nothing() {
    let server = server(&["--enable-profiling", "false"]);
    ask(&server, INFER, "one");
    assert_eq!(json(&server, "/admin/requests")["requests"], Value::Array(Vec::new()));
    let stats = json(&server, "/admin/profiling/stats");
    assert_eq!((&stats["enabled"], &stats["sections"]), (&false.into(), &Value::Array(Vec::new())));
}
