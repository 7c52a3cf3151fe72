//! ONNX Runtime keeps the contract of a backend, and says clearly what it cannot do.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{path::Path, sync::LazyLock};

use caudal_engine::{Backend, LoadOptions};
use caudal_engine_ort::{LibrarySource, OnnxRuntime, locate};
use caudal_testkit::{contract, model_file};

static BACKEND: LazyLock<OnnxRuntime> = LazyLock::new(|| {
    let (path, source) = locate(None).expect("run `cargo xtask setup` first");
    OnnxRuntime::load(&path, source).expect("the library that setup installs can be loaded")
});

#[test]
fn it_keeps_the_contract() {
    contract::check(&*BACKEND, &model_file("double"));
}

#[test]
fn a_run_in_progress_can_be_stopped() {
    let model = BACKEND.load(&model_file("slow"), &LoadOptions::cpu(1)).unwrap();
    contract::check_interrupt(&model, 20, 4);
}

#[test]
fn shapes_are_read_as_the_file_has_them() {
    let load = |name| BACKEND.load(&model_file(name), &LoadOptions::cpu(1)).unwrap().spec().clone();
    assert!(!load("fixed").batched());
    assert_eq!(load("fixed").inputs[0].to_string(), "x FP32 [1, 4]");
    assert_eq!(load("free").inputs.len(), 2);
    assert_eq!(load("free").inputs[1].to_string(), "b FP32 [length]");
}

#[test]
fn a_file_that_is_no_model_is_refused_in_words() {
    let error = BACKEND
        .load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")), &LoadOptions::cpu(1))
        .err()
        .unwrap();
    let words = error.to_string();
    assert!(words.contains("Cargo.toml is not a model that can be loaded"), "{words}");
    assert_eq!(words.lines().count(), 1, "one sentence: {words}");
}

#[test]
fn it_says_which_release_it_is() {
    let words = BACKEND.describe();
    assert!(words.starts_with("ONNX Runtime 1."), "{words}");
}

#[test]
fn a_library_that_is_none_is_one_clear_sentence() {
    let text = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
    // Loading is once per process, so the wrong library is tried in a process of its own.
    if std::env::var_os("CAUDAL_TEST_WRONG_LIBRARY").is_some() {
        println!("{}", OnnxRuntime::load(text, LibrarySource::Setting).err().unwrap());
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_library_that_is_none_is_one_clear_sentence", "--nocapture"])
        .env("CAUDAL_TEST_WRONG_LIBRARY", "1")
        .output()
        .unwrap();
    let words = String::from_utf8(child.stdout).unwrap();
    assert!(words.contains("Cargo.toml (from the setting onnxruntime_library) is not a usable"), "{words}");
}
