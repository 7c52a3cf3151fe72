//! What changes while the server serves: models by PATCH, settings at SIGHUP; and models as Triton describes them.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{fs, process::Command, thread, time::Duration};

use caudal_testkit::{
    Repo, Server,
    http::{Answer, Ask, once, post, tensor_request},
};
use serde_json::{Value, json};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const PICTURE: &[u8] = include_bytes!("../../../fixtures/chelsea.png");

fn patch(server: &Server, model: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let path = format!("/admin/models/{model}");
    server.ask(&Ask { method: "PATCH", ..post(&path, headers, body.as_bytes()) })
}

fn state(server: &Server, model: &str) -> Value {
    let answer = server.get(&format!("/admin/models/{model}"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn a_change_holds_from_the_next_batch_on() {
    // Whoever waits for company waits for long: until the delay is changed.
    let yaml = "instances: 1\nthreads: 1\nbatching: {max_batch_size: 8, max_queue_delay_ms: 10000}";
    let server = Server::start(CAUDAL, &Repo::new().model("m", "double", yaml), &[]);
    let (address, body) = (server.address(), tensor_request(&[[1.0; 4]], ""));
    let waits = {
        let body = body.clone();
        thread::spawn(move || once(address, &post("/v2/models/m/infer", &[], body.as_bytes())).unwrap())
    };
    while state(&server, "m")["queue_depth"] == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let changed = patch(
        &server,
        "m",
        &[],
        r#"{"batching": {"max_queue_delay_ms": 0, "max_batch_size": 2, "preferred_batch_size": [2],
            "queue_policy": {"low": {"max_queue_size": 3}}}, "instances": 3}"#,
    );
    assert_eq!(changed.status, 200, "{}", changed.text());
    let answer = waits.join().unwrap();
    assert_eq!(answer.status, 200);
    let now = state(&server, "m");
    assert_eq!(now["instances"], 3);
    assert_eq!(
        (&now["batching"]["max_batch_size"], &now["batching"]["preferred_batch_size"]),
        (&json!(2), &json!([2])),
        "{now}"
    );
    assert_eq!(now["batching"]["queue_policy"]["low"]["max_queue_size"], 3, "{now}");
    assert_eq!(now["batching"]["max_queue_size"], 128, "what is not said stays: {now}");
    let three = server.post_json("/v2/models/m/infer", &tensor_request(&[[1.0; 4]; 3], ""));
    assert_eq!((three.status, three.text().contains("1 to 2 rows")), (400, true), "{}", three.text());
    assert_eq!(patch(&server, "m", &[], r#"{"instances": 1}"#).status, 200);
    assert_eq!(server.post_json("/v2/models/m/infer", &body).status, 200);
}

#[test]
fn thresholds_change_for_requests_that_name_none() {
    let server = Server::start(CAUDAL, &Repo::nanodet("thresholds: {conf: 0.3}"), &[]);
    let found = |query: &str| {
        let answer = server.post_picture(&format!("/predict/nanodet{query}"), PICTURE).json();
        answer["detections"].as_array().unwrap().len()
    };
    assert_eq!(found(""), 1);
    assert_eq!(patch(&server, "nanodet", &[], r#"{"thresholds": {"conf": 0.99}}"#).status, 200);
    assert_eq!((found(""), found("?conf=0.3")), (0, 1));
    assert_eq!(state(&server, "nanodet")["thresholds"]["conf"].as_f64().unwrap() as f32, 0.99);
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let repo = Repo::new().model("m", "double", "").model("fixed", "fixed", "");
    let server = Server::start(CAUDAL, &repo, &[]);
    let before = state(&server, "m");
    for (model, body, status, words) in [
        ("m", r#"{"instances": 0}"#, 400, "instances is at least 1"),
        ("m", r#"{"instnaces": 2}"#, 400, "did you mean \\\"instances\\\"?"),
        ("m", r#"{"batching": {"max_batchsize": 2}}"#, 400, "did you mean \\\"max_batch_size\\\"?"),
        ("m", r#"{"labels": ["a"], "instances": 2}"#, 400, "only thresholds, batching and instances"),
        ("m", r#"{"thresholds": {"conf": 0.5}, "instances": 2}"#, 400, "it has no thresholds"),
        ("m", r#"{"batching": {"preserve_ordering": true}}"#, 400, "from the first request on"),
        ("m", "{", 400, "the body"),
        ("m", "[1]", 400, "the body"),
        (
            "fixed",
            r#"{"batching": {"max_batch_size": 2}}"#,
            400,
            "are not joined, so batching.max_batch_size is 1: the first dimension of x",
        ),
        ("nobody", "{}", 404, "there is no model"),
    ] {
        let answer = patch(&server, model, &[], body);
        assert_eq!((answer.status, answer.text().contains(words)), (status, true), "{body}: {}", answer.text());
    }
    assert_eq!(patch(&server, "m", &[("Authorization", "Bearer guess")], "{}").status, 401);
    assert_eq!(state(&server, "m"), before);
}

#[test]
fn settings_are_read_again_when_that_is_asked_for() {
    let repo = Repo::new().model("m", "double", "");
    let config = repo.path("caudal.yaml");
    fs::write(&config, "max_file_size_mb: 1\nbacklog: 100").unwrap();
    let server = Server::start(CAUDAL, &repo, &["--config", config.to_str().unwrap()]);
    let large = tensor_request(&vec![[1.0; 4]; 100_000], "");
    assert!(large.len() > 1 << 20, "{}", large.len());
    let status = || server.post_json("/v2/models/m/infer", &large).status;
    assert_eq!(status(), 413);
    fs::write(&config, "max_file_size_mb: 8\nbacklog: 200\nlog_level: debug").unwrap();
    server.signal("HUP");
    server.log_line("these take a restart to change: backlog");
    assert_eq!(status(), 400, "it is read, and has too many rows");
    fs::write(&config, "max_file_size_mb: 1\nmax_images: many").unwrap();
    server.signal("HUP");
    let line = server.log_line("the settings stay as they are");
    assert!(line.contains("max_images"), "{line}");
    assert_eq!(status(), 400);
}

#[test]
fn settings_follow_their_file_where_it_is_watched() {
    let repo = Repo::new().model("m", "double", "");
    let config = repo.path("caudal.yaml");
    fs::write(&config, "watch: true\nslow_request_threshold_ms: 100").unwrap();
    let server = Server::start(CAUDAL, &repo, &["--config", config.to_str().unwrap()]);
    fs::write(&config, "watch: true\nslow_request_threshold_ms: 0").unwrap();
    let line = server.log_line("settings read again");
    assert!(line.contains("slow_request_threshold_ms"), "{line}");
    assert_eq!(server.post_json("/v2/models/m/infer", &tensor_request(&[[1.0; 4]], "")).status, 200);
    server.log_line("Slow request");
}

#[test]
fn a_model_of_tritons_serves_as_its_configuration_says() {
    let config = r#"
        name: "m" backend: "onnxruntime" max_batch_size: 4
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
        instance_group [ { count: 2 kind: KIND_CPU } ]
        dynamic_batching { preferred_batch_size: [ 2, 4 ] max_queue_delay_microseconds: 500 preserve_ordering: true }
    "#;
    let repo = Repo::new().model("m", "double", "").file("m/config.pbtxt", config.as_bytes());
    let server = Server::start(CAUDAL, &repo, &[]);
    let now = state(&server, "m");
    assert_eq!((&now["instances"], &now["batching"]["max_batch_size"]), (&json!(2), &json!(4)), "{now}");
    assert_eq!(now["batching"]["preferred_batch_size"], json!([2, 4]), "{now}");
    assert_eq!(now["batching"]["max_queue_delay_ms"], 0.5, "{now}");
    assert_eq!(server.post_json("/v2/models/m/infer", &tensor_request(&[[1.0; 4]; 4], "")).status, 200);
    drop(server);

    let repo = repo.file("m/config.pbtxt", b"max_batch_size: 4\nmax_batchsize: 8").model("other", "double", "");
    let server = Server::start(CAUDAL, &repo, &[]);
    let line = server.log_line("model not loaded");
    assert!(line.contains("config.pbtxt") && line.contains("max_batchsize"), "{line}");
    assert_eq!(server.get("/v2/models/other/ready").status, 200, "the others serve");
    let root = repo.path("");
    let doctor = ["models", "doctor", "--model-repository", root.to_str().unwrap()];
    let told = Command::new(CAUDAL).args(doctor).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains("did you mean \"max_batch_size\"?"), "{told}");
}

#[test]
fn a_folder_that_is_no_number_is_no_version() {
    let repo = Repo::new().file("m/latest/model.onnx", b"").model("double", "double", "");
    let server = Server::start(CAUDAL, &repo, &[]);
    let line = server.log_line("model not loaded");
    assert!(
        line.contains("\"latest\" is not a version number") || line.contains("\\\"latest\\\" is not a version number"),
        "{line}"
    );
    assert_eq!(server.get("/v2/models/m/ready").status, 503);
}

#[test]
fn the_schema_knows_every_key() {
    let told = Command::new(CAUDAL).args(["models", "schema"]).output().unwrap();
    let schema: Value = serde_json::from_slice(&told.stdout).unwrap();
    let batching = &schema["properties"]["batching"]["properties"];
    assert!(batching["preferred_batch_size"].is_object(), "{schema}");
    let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
    caudal_testkit::check_document("model.schema.json", &text);
}
