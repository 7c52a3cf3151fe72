//! Requests as a collector is told of them, and what is told when there is none.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod collector;
mod metrics;

use std::{fs, net::TcpListener, process::Command, thread};

use caudal_testkit::{
    Repo, Server,
    http::{self, Answer, PATIENCE, get, post, tensor_request},
};
use collector::{Certificate, Collector, Manner, text, wait_for};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const INFER: &str = "/v2/models/m/infer";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A server that sends spans to `collector` at once, but for what `arguments` say.
fn server(collector: &str, arguments: &[&str]) -> Server {
    let repo =
        Repo::new().model("m", "double", "").model("slow", "slow", "instances: 1\nbatching: {max_batch_size: 4}");
    Server::start(CAUDAL, &repo, &[&["--otel-endpoint", collector, "--otel-delay-ms", "0"], arguments].concat())
}

fn ask_with(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    http::once(server.address(), &post(path, headers, tensor_request(&[[1.0; 4]], "").as_bytes())).unwrap()
}

/// Sends the request `id`, whose caller says `traceparent`.
fn ask(server: &Server, id: &str, traceparent: &str) {
    let headers = [("X-Request-ID", id), ("traceparent", traceparent)];
    let headers = if traceparent.is_empty() { &headers[..1] } else { &headers[..] };
    let answer = ask_with(server, INFER, headers);
    assert_eq!((answer.status, answer.header("x-request-id")), (200, id), "{}", answer.text());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| &*span.name).collect()
}

#[test]
fn spans_tell_what_the_server_itself_remembers() {
    let collector = Collector::http(Manner::Takes);
    let server = server(&collector.endpoint(), &[]);
    let answer = ask_with(&server, "/v2/models/slow/infer", &[]);
    let id = answer.header("x-request-id");
    let (around, within) = collector.request(id);
    let remembered = server.get(&format!("/admin/requests/{id}")).json();
    assert_eq!(remembered["trace_id"], hex(&around.trace_id));
    assert_eq!(around.name, "POST /v2/models/{model}/infer");
    assert!(around.parent_span_id.is_empty() && around.status.is_none());
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/v2/models/{model}/infer"),
        ("url.path", "/v2/models/slow/infer"),
        ("url.scheme", "http"),
        ("http.response.status_code", "200"),
        ("http.response.body.size", &answer.body.len().to_string()),
        ("caudal.model.name", "slow"),
        ("caudal.model.version", "1"),
        ("caudal.run.number", &remembered["batch"]["number"].to_string()),
        ("caudal.run.reason", remembered["batch"]["reason"].as_str().unwrap()),
    ] {
        assert_eq!(text(&around, key).as_deref(), Some(value), "{key}: {around:?}");
    }
    let nanos = |value: &Value| (value.as_f64().unwrap() * 1e6).round() as u64;
    let lasts = |span: &Span| span.end_time_unix_nano - span.start_time_unix_nano;
    assert_eq!(lasts(&around), nanos(&remembered["total_ms"]));
    let arrived = remembered["at"].as_f64().unwrap() * 1e9;
    assert!((arrived - around.start_time_unix_nano as f64).abs() < 5e9, "{arrived}: {around:?}");
    assert_eq!(names(&within), ["queue", "infer"]);
    for span in &within {
        let stages = remembered["stages"].as_array().unwrap();
        let stage = stages.iter().find(|stage| stage["stage"] == *span.name).unwrap();
        assert_eq!(lasts(span), nanos(&stage["ms"]), "{span:?}: {stage}");
        assert_eq!(span.start_time_unix_nano - around.start_time_unix_nano, nanos(&stage["start_ms"]));
        assert!(span.end_time_unix_nano <= around.end_time_unix_nano, "{span:?} lies within {around:?}");
        assert_eq!((&span.trace_id, text(span, "caudal.model.name").as_deref()), (&around.trace_id, Some("slow")));
    }
    // Counted once the collector's answer is read, which is after it has them.
    wait_for(|| (server.metric("caudal_otlp_spans_exported_total", "") == 3.0).then_some(()));
    assert_eq!(server.metric("caudal_otlp_spans_dropped_total", "queue_full"), 0.0);
    assert_eq!(collector.headers()["request"], "POST /v1/traces HTTP/1.1");
    assert_eq!(collector.resource()["service.name"], "caudal");
}

#[test]
fn every_stage_is_a_span_where_that_is_asked_for() {
    let collector = Collector::http(Manner::Takes);
    let server = server(&collector.endpoint(), &["--otel-stages", "true"]);
    ask(&server, "staged", "");
    let (_, within) = collector.request("staged");
    let remembered = server.get("/admin/requests/staged").json();
    let stages: Vec<&str> =
        remembered["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(names(&within), stages);
}

#[test]
fn who_shared_a_run_has_its_number() {
    let collector = Collector::http(Manner::Takes);
    let server = server(&collector.endpoint(), &[]);
    let slow = "/v2/models/slow/infer";
    thread::scope(|scope| {
        scope.spawn(|| ask_with(&server, slow, &[]));
        wait_for(|| (server.get("/health").json()["models"]["slow"]["busy_instances"] == 1).then_some(()));
        for id in ["a", "b"] {
            let server = &server;
            scope.spawn(move || ask_with(server, slow, &[("X-Request-ID", id)]));
        }
    });
    let run = |id| {
        let (_, within) = collector.request(id);
        let infer = within.iter().find(|span| span.name == "infer").unwrap();
        ["caudal.run.number", "caudal.run.requests", "caudal.run.rows"].map(|key| text(infer, key).unwrap())
    };
    assert_eq!(run("a"), run("b"));
    assert_eq!(run("a")[1..], ["2", "2"]);
}

#[test]
fn the_callers_trace_goes_on_and_its_decision_holds() {
    let collector = Collector::http(Manner::Takes);
    // Whatever begins here is not told of.
    let server =
        server(&collector.endpoint(), &["--otel-sampler", "parentbased_traceidratio", "--otel-sampler-arg", "0"]);
    ask(&server, "begins", "");
    ask(&server, "malformed", &format!("00-{TRACE}-{PARENT}-1"));
    ask(&server, "not-sampled", &format!("00-{TRACE}-{PARENT}-00"));
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    let twice = [("X-Request-ID", "twice"), ("traceparent", &*sampled), ("traceparent", &*sampled)];
    assert_eq!(ask_with(&server, INFER, &twice).status, 200);
    let headers = [
        ("X-Request-ID", "sampled"),
        ("traceparent", &*sampled),
        ("tracestate", "vendor=one"),
        ("tracestate", "other=two"),
    ];
    assert_eq!(ask_with(&server, INFER, &headers).status, 200);
    let (around, within) = collector.request("sampled");
    assert_eq!((hex(&around.trace_id), hex(&around.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!(around.trace_state, "vendor=one,other=two");
    assert_eq!(around.flags & 0x301, 0x301, "sampled, and its parent is elsewhere");
    assert_eq!(names(&within), ["queue", "infer"]);
    assert!(within.iter().all(|span| span.flags & 0x301 == 0x101), "{within:?}");
    assert_eq!(collector.requests().len(), 1, "the other four are not told of");
    assert_eq!(server.get("/admin/requests/not-sampled").json()["trace_id"], Value::Null);
}

#[test]
fn what_is_malformed_begins_a_trace_of_its_own() {
    let collector = Collector::http(Manner::Takes);
    let server = server(&collector.endpoint(), &[]);
    ask(&server, "malformed", &format!("ff-{TRACE}-{PARENT}-00"));
    let (around, _) = collector.request("malformed");
    assert_ne!(hex(&around.trace_id), TRACE);
    assert!(around.parent_span_id.is_empty());
    ask(&server, "not-sampled", &format!("00-{TRACE}-{PARENT}-00"));
    ask(&server, "last", "");
    collector.request("last");
    assert_eq!(collector.requests().len(), 2);
}

#[test]
fn every_door_goes_on_with_a_trace_and_questions_begin_none() {
    let collector = Collector::http(Manner::Takes);
    let server = server(&collector.endpoint(), &[]);
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    let doors = [
        ("GET", "/health", "GET /health", 200),
        ("GET", "/metrics", "GET /metrics", 200),
        ("GET", "/admin/requests", "GET /admin/requests", 200),
        ("GET", "/admin/memory", "GET /admin/memory", 200),
        ("GET", "/v2/models/m", "GET /v2/models/{model}", 200),
        ("GET", "/docs/", "GET /docs", 200),
        ("GET", "/nowhere", "HTTP", 404),
        ("POST", "/predict/m", "POST /predict/{model}", 415),
        ("POST", "/predict_batch/m", "POST /predict_batch/{model}", 415),
        ("POST", "/v1/embeddings", "POST /v1/embeddings", 415),
        ("POST", "/v2/models/other/infer", "POST /v2/models/{model}/infer", 404),
    ];
    for (i, (method, path, name, status)) in doors.into_iter().enumerate() {
        let id = format!("door-{i}");
        let headers = [("X-Request-ID", &*id), ("traceparent", &*sampled)];
        let ask = http::Ask { method, path, headers: &headers, body: (method == "POST").then_some(b"{}") };
        let answer = server.ask(&ask);
        let (around, _) = collector.request(&id);
        assert_eq!((&*around.name, hex(&around.trace_id)), (name, TRACE.to_owned()), "{path}");
        assert_eq!(text(&around, "http.response.status_code"), Some(answer.status.to_string()), "{path}");
        assert_eq!(answer.status / 100, status / 100, "{path}: {}", answer.text());
        assert_eq!(text(&around, "error.type").is_some(), status >= 400, "{path}");
        assert!(around.status.is_none(), "what the caller did wrong is no error of the server: {path}");
    }
    assert_eq!(server.ask(&get("/health")).status, 200);
    ask(&server, "last", "");
    collector.request("last");
    assert_eq!(collector.requests().len(), doors.len() + 1);
}

#[test]
fn grpc_by_the_standards_own_variables() {
    let collector = Collector::grpc(None);
    let repo = Repo::new().model("m", "double", "");
    let endpoint = collector.endpoint();
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=some%20body,authorization=Bearer x"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "30000"),
        ("OTEL_SERVICE_NAME", "eyes"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=other"),
        ("OTEL_TRACES_SAMPLER", "always_on"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        // What is empty says nothing.
        ("OTEL_TRACES_SAMPLER_ARG", ""),
    ];
    let server = Server::start_in(CAUDAL, &repo.path(""), &[], &variables);
    ask(&server, "by-grpc", "");
    let (around, within) = collector.request("by-grpc");
    assert_eq!((&*around.name, names(&within)), ("POST /v2/models/{model}/infer", vec!["queue", "infer"]));
    let headers = collector.headers();
    assert_eq!((&*headers["x-tenant"], &*headers["authorization"]), ("some body", "Bearer x"));
    let resource = collector.resource();
    assert_eq!((&*resource["service.name"], &*resource["deployment.environment.name"]), ("eyes", "test"));
    let shown = Command::new(CAUDAL).arg("config").envs(variables).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned() + &server.get("/health").text();
    assert!(shown.contains("otel_headers") && !shown.contains("Bearer x"), "keys are not shown");
}

#[test]
fn headers_and_gzip_by_http() {
    let collector = Collector::http(Manner::Takes);
    let all = format!("{}/otlp/", collector.endpoint());
    let server = server(&all, &["--otel-headers", "x-tenant=me", "--otel-compression", "gzip"]);
    ask(&server, "packed", "");
    collector.request("packed");
    let headers = collector.headers();
    assert_eq!((&*headers["request"], &*headers["x-tenant"]), ("POST /otlp/v1/traces HTTP/1.1", "me"));
    assert_eq!(headers["content-type"], "application/x-protobuf");
}

#[test]
fn a_collector_is_trusted_by_its_certificate_and_only_so() {
    let certificate = Certificate::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &certificate.pem).unwrap();
    let trusted = ["--otel-certificate", file.path().to_str().unwrap()];
    let by_http = Collector::http_with(Manner::Takes, Some(&certificate));
    for (protocol, collector) in [("http/protobuf", &by_http), ("grpc", &Collector::grpc(Some(&certificate)))] {
        let arguments = ["--otel-protocol", protocol];
        let stranger = server(&collector.endpoint(), &arguments);
        ask(&stranger, "stranger", "");
        wait_for(|| (stranger.metric("caudal_otlp_spans_dropped_total", "failed") == 3.0).then_some(()));
        let server = server(&collector.endpoint(), &[&arguments[..], &trusted].concat());
        ask(&server, "known", "");
        collector.request("known");
        assert_eq!(collector.requests().len(), 1, "{protocol}");
    }
}

/// An address at which nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn ends(mut server: Server) -> String {
    server.signal("TERM");
    assert!(server.wait(PATIENCE).success());
    server.log()
}

#[test]
fn without_a_collector_serving_goes_on_and_losses_are_counted() {
    for protocol in ["http/protobuf", "grpc"] {
        let server = server(&nobody(), &["--otel-protocol", protocol]);
        (0..20).for_each(|i| ask(&server, &format!("r{i}"), ""));
        let lost = || server.metric("caudal_otlp_spans_dropped_total", "failed");
        wait_for(|| (lost() >= 3.0).then_some(()));
        (20..40).for_each(|i| ask(&server, &format!("r{i}"), ""));
        assert_eq!(server.metric("caudal_otlp_spans_exported_total", ""), 0.0);
        let log = ends(server);
        assert_eq!(log.matches("export of spans failed").count(), 1, "{log}");
    }
}

#[test]
fn a_collector_that_never_answers_fills_the_queue_and_no_more() {
    let collector = Collector::http(Manner::Silent);
    let server = server(&collector.endpoint(), &["--otel-queue-size", "4", "--otel-timeout-ms", "600000"]);
    ask(&server, "first", "");
    collector.wait_for_asked(1);
    (0..20).for_each(|i| ask(&server, &format!("r{i}"), ""));
    assert_eq!(server.metric("caudal_otlp_spans_dropped_total", "queue_full"), 16.0 * 3.0);
    let log = ends(server);
    assert!(log.contains("export of the last spans timed out"), "{log}");
}

#[test]
fn a_collector_that_comes_back_is_told_again() {
    let collector = Collector::http(Manner::Refuses);
    let server = server(&collector.endpoint(), &[]);
    for i in 0..3 {
        ask(&server, &format!("lost-{i}"), "");
        collector.wait_for_asked(i + 1);
    }
    wait_for(|| (server.metric("caudal_otlp_spans_dropped_total", "failed") == 9.0).then_some(()));
    collector.behave(Manner::Takes);
    ask(&server, "told", "");
    collector.request("told");
    assert!(server.log_line("collector accepts spans again").contains("lost=9"), "{}", server.log());
    assert_eq!(collector.requests().len(), 1);
    assert_eq!(server.log().matches("export of spans failed").count(), 1);
    assert!(!server.log().contains(&collector.address.to_string()), "an address may hold a secret");
    // One that is busy is asked again with the same spans.
    collector.behave(Manner::Busy);
    ask(&server, "again", "");
    collector.wait_for_asked(5);
    collector.behave(Manner::Takes);
    collector.request("again");
    // What it does not want is not sent twice.
    collector.behave(Manner::Picky);
    ask(&server, "picked", "");
    wait_for(|| (server.metric("caudal_otlp_spans_dropped_total", "rejected") == 1.0).then_some(()));
    assert_eq!(server.metric("caudal_otlp_spans_exported_total", ""), 8.0);
    assert_eq!(server.metric("caudal_otlp_spans_dropped_total", "failed"), 9.0);
}

#[test]
fn the_last_spans_are_sent_before_the_end() {
    let collector = Collector::http(Manner::Takes);
    let server = server(&collector.endpoint(), &["--otel-delay-ms", "3600000"]);
    ask(&server, "last", "");
    assert_eq!(collector.spans().len(), 0);
    ends(server);
    collector.request("last");
}

#[test]
fn a_full_batch_does_not_wait() {
    let collector = Collector::http(Manner::Takes);
    let server = server(&collector.endpoint(), &["--otel-delay-ms", "3600000", "--otel-batch-size", "5"]);
    (0..12).for_each(|i| ask(&server, &format!("r{i}"), ""));
    collector.request("r9");
    assert_eq!(collector.requests().len(), 10);
}

#[test]
fn log_lines_of_a_request_that_is_told_of_name_its_trace() {
    let collector = Collector::http(Manner::Takes);
    let server = server(
        &collector.endpoint(),
        &["--otel-sampler", "parentbased_always_off", "--slow-request-threshold-ms", "0", "--log-format", "json"],
    );
    ask(&server, "told", &format!("00-{TRACE}-{PARENT}-01"));
    ask(&server, "untold", "");
    let line =
        |id: &str| -> Value { serde_json::from_str(&server.log_line(&format!("\"request_id\":\"{id}\""))).unwrap() };
    assert_eq!(line("told")["trace_id"], TRACE);
    assert_eq!(line("untold")["trace_id"], Value::Null);
}

#[test]
fn lines_of_what_a_request_sets_off_name_it() {
    for (format, named) in [("text", "request_id=\"{}\""), ("json", "\"request_id\":\"{}\"")] {
        let arguments = ["--model-control-mode", "explicit", "--log-format", format, "--log-level", "debug"];
        let repo = Repo::new().model("m", "double", "");
        let server = Server::start(CAUDAL, &repo, &arguments);
        let (load, unload) = ("/v2/repository/models/m/load", "/v2/repository/models/m/unload");
        for (id, path, body) in [("one", load, ""), ("two", INFER, ""), ("three", unload, "")] {
            let body = if path == INFER { tensor_request(&[[1.0; 4]], "") } else { body.to_owned() };
            let answer = server.ask(&post(path, &[("X-Request-ID", id)], body.as_bytes()));
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        for (id, words) in [("one", "model ready"), ("two", "/infer took"), ("three", "model unloaded")] {
            let line = server.log_line(words);
            assert!(line.contains(&named.replace("{}", id)), "{id}: {line}");
            assert_eq!(format == "json", serde_json::from_str::<Value>(&line).is_ok(), "{line}");
        }
        assert!(!server.log_line("listening on").contains("request_id"));
    }
}

#[test]
fn who_wakes_a_model_is_named() {
    let repo = Repo::new().model("m", "double", "");
    let server = Server::start(CAUDAL, &repo, &["--idle-unload-secs", "0.05"]);
    server.log_line("model put to rest");
    ask(&server, "waker", "");
    assert!(server.log_line("request_id=\"waker\"").contains("model ready"), "{}", server.log());
}

#[test]
fn what_cannot_be_is_said_at_the_start() {
    let repo = Repo::new().model("m", "double", "");
    let check = |name: &str, value: &str, code: i32, words: &str| {
        let mut command = Command::new(CAUDAL);
        command.args(["serve", "--http-port", "0", "--log-level", "off", "--model-repository"]).arg(repo.path(""));
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://localhost:1").env(name, value);
        let output = command.current_dir(repo.path("")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), said.trim().lines().count()), (Some(code), 1), "{said}");
        assert!(said.contains(words), "{name}: {said}");
    };
    check("OTEL_EXPORTER_OTLP_ENDPOINT", "collector", 2, "$OTEL_EXPORTER_OTLP_ENDPOINT");
    check("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", 2, "http/protobuf or grpc");
    check("OTEL_TRACES_SAMPLER", "sometimes", 2, "parentbased_traceidratio");
    check("OTEL_TRACES_SAMPLER_ARG", "half", 2, "0 to 1");
    check("OTEL_TRACES_EXPORTER", "zipkin", 2, "otlp or none");
    check("OTEL_BSP_MAX_QUEUE_SIZE", "-1", 2, "$OTEL_BSP_MAX_QUEUE_SIZE");
    check("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such.pem", 1, "/no/such.pem");
    check("OTEL_EXPORTER_OTLP_HEADERS", "secret", 2, "name=value");
}

#[test]
fn who_names_no_collector_tells_nobody() {
    let server = Server::start(CAUDAL, &Repo::new().model("m", "double", ""), &[]);
    ask(&server, "r", &format!("00-{TRACE}-{PARENT}-01"));
    check_nothing_exported(&server, "caudal_otlp");
}

/// Counters whose names begin with `prefix` are there, and all are 0.
fn check_nothing_exported(server: &Server, prefix: &str) {
    let metrics = server.get("/metrics").text();
    let mut counted = metrics.lines().filter(|line| line.starts_with(prefix));
    assert!(counted.all(|line| line.ends_with(" 0") || line.ends_with(" 0.0")), "{metrics}");
}
