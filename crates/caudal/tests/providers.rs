//! Who runs a model: one that is missing is said, a fallback must be declared, and is never silent.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::process::{Command, Output};

use caudal_testkit::{Repo, Server, fixture, http::tensor_request};
use serde_json::Value;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

fn run(repo: &Repo, arguments: &[&str]) -> Output {
    let repository = repo.path("").display().to_string();
    Command::new(CAUDAL).args(arguments).args(["--model-repository", &repository]).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The library that `cargo xtask setup` brings has no XNNPACK.
fn repo() -> Repo {
    Repo::new()
        .model("wanted", "double", "providers: [xnnpack]")
        .model("fallback", "double", "providers: [xnnpack, cpu]")
        .model("plain", "double", "graph_optimization: basic")
        .model("exact", "double", "precision: bf16")
}

#[test]
fn one_that_is_missing_is_said_and_a_declared_fallback_serves() {
    let server = Server::start(CAUDAL, &repo(), &[]);
    let health = server.get("/health").json();
    assert_eq!(health["models"]["wanted"]["ready"], false);
    let line = server.log_line("model=\"wanted\"");
    for words in ["the provider xnnpack is not in", "which has cpu", "--use_xnnpack", "as a fallback"] {
        assert!(line.contains(words), "{words:?} is not in {line}");
    }
    assert!(server.log_line("model=\"exact\"").contains("openvino or tensorrt"));

    let fell_back = server.log_line("a fallback runs the model");
    assert!(fell_back.contains("model=\"fallback\"") && fell_back.contains("xnnpack"), "{fell_back}");
    assert_eq!(health["models"]["fallback"]["provider"], "cpu");
    assert_eq!(health["models"]["fallback"]["instead_of"], "xnnpack");
    let metadata = server.get("/v2/models/fallback").json();
    assert_eq!((&metadata["provider"], &metadata["instead_of"]), (&Value::from("cpu"), &Value::from("xnnpack")));
    let metadata = server.get("/v2/models/plain").json();
    assert_eq!((&metadata["provider"], &metadata["instead_of"]), (&Value::from("cpu"), &Value::Null));
    let labels = "model=\"fallback\",provider=\"cpu\",instead_of=\"xnnpack\"";
    assert!((server.metric("caudal_model_provider", labels) - 1.0).abs() < f64::EPSILON);

    let body = tensor_request(&[[1.0, 2.0, 3.0, 4.0]], "");
    let answer = server.post_json("/v2/models/fallback/infer", &body).json();
    assert_eq!(answer["outputs"][0]["data"], serde_json::json!([2.0, 4.0, 6.0, 8.0]));
}

#[test]
fn the_command_line_says_the_same() {
    let repo = repo();
    let list = said(&run(&repo, &["models", "list"]));
    assert!(list.contains("cpu instead of xnnpack") && list.contains("wanted    not ready"), "{list}");
    let show: Value = serde_json::from_slice(&run(&repo, &["models", "show", "fallback", "--json"]).stdout).unwrap();
    assert_eq!((&show["provider"], &show["instead_of"]), (&Value::from("cpu"), &Value::from("xnnpack")));
    let doctor = run(&repo, &["models", "doctor"]);
    assert!(!doctor.status.success());
    assert!(said(&doctor).contains("the provider xnnpack is not in"), "{}", said(&doctor));
}

#[test]
fn the_servers_own_choice_is_for_models_that_say_nothing() {
    let repo = Repo::new().model("plain", "double", "").model("own", "double", "providers: [cpu]");
    let refused = run(&repo, &["serve", "--http-port", "0", "--providers", "xnnpack"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("providers = xnnpack: the provider xnnpack is not in"), "{}", said(&refused));

    let server = Server::start(CAUDAL, &repo, &["--providers", "xnnpack, cpu"]);
    let health = server.get("/health").json();
    assert_eq!(health["models"]["plain"]["instead_of"], "xnnpack");
    assert_eq!(health["models"]["own"]["instead_of"], Value::Null);
}

const PICTURES: [&str; 3] = ["double_decker_bus.jpg", "chelsea.png", "coffee.png"];

/// Boxes above 0.4 of one picture: corners, confidence, class.
fn boxes(server: &Server, picture: &str) -> Vec<([f64; 4], f64, String)> {
    let answer = server.ask(&caudal_testkit::http::post("/predict/nanodet?conf=0.4", &[], &fixture(picture))).json();
    let found = answer["detections"].as_array().unwrap().iter().map(|found| {
        let corners = ["x1", "y1", "x2", "y2"].map(|side| found[side].as_f64().unwrap());
        (corners, found["confidence"].as_f64().unwrap(), found["class"].as_str().unwrap().to_owned())
    });
    found.collect()
}

/// `cargo xtask providers` fetches the library and runs this.
#[test]
#[ignore = "needs the library that `cargo xtask setup openvino` brings; run by `cargo xtask providers`"]
fn openvino_finds_the_same_boxes() {
    let library = caudal_types::cached_openvino().display().to_string();
    let own = Server::start(CAUDAL, &Repo::nanodet(""), &[]);
    for (precision, pixels, confidence) in [("f32", 0.1, 0.001), ("bf16", 8.0, 0.08)] {
        let repo = Repo::nanodet(&format!("providers: [openvino]\nprecision: {precision}"));
        let server = Server::start(CAUDAL, &repo, &["--onnxruntime-library", &library]);
        let health = server.get("/health").json();
        let model = &health["models"]["nanodet"];
        assert_eq!((&model["provider"], &model["left_to_cpu"]), (&Value::from("openvino"), &Value::from(0)));
        let (mut moved, mut changed, mut count) = (0.0f64, 0.0f64, 0);
        for picture in PICTURES {
            for (corners, conf, class) in boxes(&own, picture) {
                // What lies near the threshold may fall on either side of it.
                let near = |other: &[f64; 4]| corners.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                let others = boxes(&server, picture);
                let same = others.iter().filter(|other| other.2 == class);
                let best = same.min_by(|a, b| near(&a.0).total_cmp(&near(&b.0)));
                let Some(best) = best.filter(|_| conf > 0.5) else {
                    assert!(conf <= 0.5, "{precision}: {class} {conf} of {picture} is gone");
                    continue;
                };
                (moved, changed) = (moved.max(near(&best.0)), changed.max((best.1 - conf).abs()));
                count += 1;
            }
        }
        println!(
            "| openvino {precision} | {count} boxes above 0.5 found again | moved {moved:.2} px | confidence {changed:.4} |"
        );
        assert!(count >= 4 && moved <= pixels && changed <= confidence);
    }
}
