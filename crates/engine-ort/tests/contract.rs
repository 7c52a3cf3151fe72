//! ONNX Runtime honours the backend contract, and reports errors clearly.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{path::Path, sync::LazyLock};

use caudal_engine::{Backend, LoadOptions};
use caudal_engine_ort::{LibrarySource, OnnxRuntime, locate_library};
use caudal_testkit::{contract, model_file};

static BACKEND: LazyLock<OnnxRuntime> = LazyLock::new(|| {
    let (path, source) = locate_library(None).expect("run `cargo xtask setup` first");
    OnnxRuntime::load_library(&path, source).expect("the library that setup installs can be loaded")
});

#[test]
fn onnx_runtime_honours_backend_contract() {
    contract::check(&*BACKEND, &model_file("double"));
}

#[test]
fn run_in_progress_can_be_interrupted() {
    let model = BACKEND.load_model(&model_file("slow"), &LoadOptions::for_cpu(1)).unwrap();
    contract::check_interrupt(&model, 20, 4);
}

#[test]
fn spec_matches_model_file() {
    let load = |name| BACKEND.load_model(&model_file(name), &LoadOptions::for_cpu(1)).unwrap().spec().clone();
    assert!(!load("fixed").has_batch_dimension());
    assert_eq!(load("fixed").inputs[0].to_string(), "x FP32 [1, 4]");
    assert_eq!(load("free").inputs.len(), 2);
    assert_eq!(load("free").inputs[1].to_string(), "b FP32 [length]");
}

#[test]
fn invalid_model_file_is_refused_with_reason() {
    let error = BACKEND
        .load_model(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")), &LoadOptions::for_cpu(1))
        .err()
        .unwrap();
    let words = error.to_string();
    assert!(words.contains("Cargo.toml is not a model that can be loaded"), "{words}");
    assert_eq!(words.lines().count(), 1, "one sentence: {words}");
}

#[test]
fn describe_version_names_release() {
    let words = BACKEND.describe_version();
    assert!(words.starts_with("ONNX Runtime 1."), "{words}");
}

#[test]
fn invalid_library_gives_one_sentence() {
    let text = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    // A library is loaded once per process, so the wrong one is tried in a separate process.
    if std::env::var_os("CAUDAL_TEST_WRONG_LIBRARY").is_some() {
        println!("{}", OnnxRuntime::load_library(text, LibrarySource::Setting).err().unwrap());
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "invalid_library_gives_one_sentence", "--nocapture"])
        .env("CAUDAL_TEST_WRONG_LIBRARY", "1")
        .output()
        .unwrap();
    let words = String::from_utf8(child.stdout).unwrap();
    assert!(words.contains("Cargo.toml (from the setting onnxruntime_library) is not a usable"), "{words}");
}
