//! New versions of models, made beside a server that serves the old ones.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{Repo, Server, fixture, fixture_path};
use serde_json::Value;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

fn models(repo: &Repo, arguments: &[&str]) -> Output {
    Command::new(CAUDAL).arg("models").args(arguments).arg("--model-repository").arg(repo.path("")).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn picture(name: &str) -> String {
    fixture_path(name).display().to_string()
}

/// Every number within `tolerance`, all else equal.
fn same(a: &Value, b: &Value, tolerance: f64) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= tolerance,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, tolerance)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b, tolerance)))
        }
        _ => a == b,
    }
}

/// The server polls: it goes on with the old version until the new one is there, whole, and answers the same then.
#[test]
fn fused_models_answer_the_same() {
    let orientation = "kind: classify\nlabels: ['0', '180']
preprocessing: {size: [192, 48], color: bgr, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}";
    let repo = Repo::nanodet("")
        .file("orientation/1/model.onnx", &fixture("models/text_orientation.onnx"))
        .file("orientation/model.yaml", orientation.as_bytes())
        .file("selfie/1/model.onnx", &fixture("models/selfie.onnx"))
        .file("selfie/model.yaml", b"labels: [person]")
        .model("yolov5", "yolov5", "")
        .model("yolox", "yolox", "labels: [left, right]")
        .model("ssd", "ssd", "labels: [left, right]\npreprocessing: {size: [64, 64]}");
    let server = Server::start(CAUDAL, &repo, &["--model-control-mode", "poll", "--repository-poll-secs", "0.05"]);
    let cases = [
        ("nanodet", "detections", "double_decker_bus.jpg", 0.05),
        ("orientation", "classifications", "text_line.png", 1e-4),
        ("selfie", "segments", "astronaut.png", 0.0),
        ("yolov5", "detections", "chelsea.png", 0.01),
        ("yolox", "detections", "double_decker_bus.jpg", 0.01),
        ("ssd", "detections", "coffee.png", 0.01),
    ];
    let ask =
        |model: &str, file: &str| server.post_picture(&format!("/predict/{model}?masks=rle"), &fixture(file)).json();
    let before = cases.map(|(model, _, file, _)| ask(model, file));
    for ((model, found, file, tolerance), before) in cases.into_iter().zip(before) {
        let output = models(&repo, &["fuse", model, "--images", &picture(file)]);
        assert!(output.status.success(), "{}", said(&output));
        let end = Instant::now() + Duration::from_secs(20);
        let after = loop {
            let answer = ask(model, file);
            assert_eq!(answer["status"], "success", "{answer}");
            if answer["version"] == "2" {
                break answer;
            }
            assert!(Instant::now() < end, "{model}: the new version does not serve");
            thread::sleep(Duration::from_millis(10));
        };
        assert!(!before[found].as_array().unwrap().is_empty(), "{before}");
        assert!(same(&before[found], &after[found], tolerance), "{model}: {before} {after}");
    }
}

#[test]
fn the_quickest_version_within_the_bound_is_written_and_serves() {
    let repo = Repo::nanodet("");
    let images = [picture("double_decker_bus.jpg"), picture("chelsea.png")];
    let only = ["--only", "int8-chains", "--seconds", "0.1", "--json"];
    let arguments = [&["optimize", "nanodet", "--images", &images[0], &images[1]], &only[..]].concat();
    let output = models(&repo, &arguments);
    assert!(output.status.success(), "{}", said(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let candidates = report["candidates"].as_array().unwrap();
    assert_eq!((&candidates[0]["name"], &report["pictures"]), (&"serving".into(), &2.into()));
    let chosen = candidates.iter().find(|candidate| candidate["name"] == report["chosen"]).unwrap();
    assert!(chosen["loss"].as_f64().unwrap() <= 0.02, "{report:#}");
    assert_eq!(report["version"], "2");
    let detected = Command::new(CAUDAL)
        .args(["detect", "--json", &images[0], "--model-repository"])
        .arg(repo.path(""))
        .output()
        .unwrap();
    let seen: Value = serde_json::from_slice(&detected.stdout).unwrap();
    assert_eq!((&seen["version"], &seen["detections"][0]["class"]), (&"2".into(), &"bus".into()));
}

#[test]
fn what_is_asked_wrongly_is_said_in_words_and_nothing_is_written() {
    let empty = tempfile::tempdir().unwrap();
    let empty = empty.path().display().to_string();
    let damaged = [&fixture("models/selfie.onnx")[..1000], &[0xff; 9]].concat();
    let repo = Repo::nanodet("").model("tensors", "double", "").file("damaged/1/model.onnx", &damaged);
    let bus = &picture("double_decker_bus.jpg");
    for (arguments, words) in [
        (&["optimize", "nanodet", "--images", &empty][..], "holds no pictures"),
        (&["optimize", "nanodet", "--images", &picture("coco80.txt"), "--only", "fp16"], "not a picture"),
        (&["optimize", "nanodet", "--images", "/nowhere.jpg"], "cannot be used"),
        (&["optimize", "nanodet"], "--images"),
        (&["optimize", "nanodet", "--images", bus, "--max-loss", "2"], "--max-loss is a number between 0 and 1"),
        (&["optimize", "nanodet", "--images", bus, "--write", "int4"], "there is no candidate \"int4\""),
        (&["optimize", "nanodet", "--images", bus, "--labels", &empty], "no image has a box"),
        (&["optimize", "tensors", "--images", bus], "the model tensors is not an image model"),
        (&["fuse", "tensors"], "the model tensors is not an image model"),
        (&["fuse", "nanodte"], "did you mean \"nanodet\"?"),
        (&["fuse", "nanodet", "--only", "all"], "preprocess"),
        (&["fuse", "damaged"], "is not an ONNX file"),
    ] {
        let output = models(&repo, arguments);
        assert!(!output.status.success() && said(&output).contains(words), "{arguments:?}: {}", said(&output));
    }
    for model in ["nanodet", "tensors", "damaged"] {
        let names = fs::read_dir(repo.path(model)).unwrap().map(|entry| entry.unwrap().file_name());
        let made: Vec<_> = names.filter(|name| name != "1" && name != "model.yaml").collect();
        assert!(made.is_empty(), "{model}: {made:?}");
    }
}
