//! The subcommands that need no server.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    process::{Command, Output},
};

use caudal_testkit::{Repo, fixture, fixture_path};
use serde_json::Value;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

fn run(repo: &Repo, arguments: &[&str]) -> Output {
    Command::new(CAUDAL)
        .args(arguments)
        .args(["--model-repository", &repo.path("").display().to_string()])
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn picture(name: &str) -> String {
    fixture_path(name).display().to_string()
}

#[test]
fn detect_prints_a_table_or_json() {
    let repo = Repo::nanodet("");
    let output = run(&repo, &["detect", &picture("double_decker_bus.jpg"), "--conf", "0.8"]);
    assert!(output.status.success());
    assert!(said(&output).contains("bus") && said(&output).contains("infer"), "{}", said(&output));
    let output = run(&repo, &["detect", "--json", &picture("double_decker_bus.jpg"), &picture("chelsea.png")]);
    let lines: Vec<Value> = said(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["detections"][0]["class"], "bus");
    assert_eq!(lines[1]["detections"][0]["class"], "cat");
    assert!(lines[0]["file"].as_str().unwrap().ends_with("double_decker_bus.jpg"), "in the order given");
}

#[test]
fn detect_takes_folders_and_tells_of_each_failure() {
    let repo = Repo::nanodet("");
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("deeper")).unwrap();
    fs::write(folder.path().join("a.jpg"), fixture("double_decker_bus.jpg")).unwrap();
    fs::write(folder.path().join("deeper/a.png"), fixture("chelsea.png")).unwrap();
    fs::write(folder.path().join("broken.jpg"), b"no picture").unwrap();
    fs::write(folder.path().join("notes.txt"), b"not even called one").unwrap();
    let drawn = folder.path().join("drawn");
    let path = folder.path().display().to_string();
    let output = run(&repo, &["detect", "--json", "--draw", &drawn.display().to_string(), &path]);
    assert_eq!(output.status.code(), Some(1), "one of them failed");
    let lines: Vec<Value> =
        String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1]["error"].as_str().unwrap().contains("not a picture"), "{}", lines[1]);
    for name in ["a.jpg", "a-2.jpg"] {
        assert_eq!(fs::read(drawn.join(name)).unwrap()[..2], [0xff, 0xd8], "{name}");
    }
}

#[test]
fn detect_never_writes_over_the_picture_it_read() {
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("bus.jpg");
    fs::write(&picture, fixture("double_decker_bus.jpg")).unwrap();
    let path = folder.path().display().to_string();
    let output = run(&Repo::nanodet(""), &["detect", &picture.display().to_string(), "--draw", &path]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read(&picture).unwrap(), fixture("double_decker_bus.jpg"));
    assert!(folder.path().join("bus-2.jpg").exists());
}

#[test]
fn detect_says_what_is_wrong_with_what_it_was_told() {
    let repo = Repo::nanodet("");
    let fails = |arguments: &[&str], words: &str| {
        let output = run(&repo, arguments);
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(words), "{}", said(&output));
    };
    let bus = picture("double_decker_bus.jpg");
    fails(&["detect", "/no/such.jpg"], "/no/such.jpg: it cannot be read");
    fails(&["detect", &bus, "--conf", "7"], "between 0 and 1");
    fails(&["detect", &bus, "--model", "nanodot"], "did you mean \"nanodet\"?");
    fails(&["detect", &bus, "--classes", "unicorn"], "knows no class \"unicorn\"");
}

#[test]
fn models_are_listed_shown_and_examined() {
    let repo = Repo::nanodet("aliases: [small]\nlabels: names.txt")
        .file("nanodet/names.txt", fs::read_to_string(fixture_path("coco80.txt")).unwrap().as_bytes())
        .model("double", "double", "");
    let list = said(&run(&repo, &["models", "list"]));
    assert!(list.contains("nanodet  1        detect") && list.contains("also small"), "{list}");
    assert!(list.contains("double   1        tensors"), "{list}");
    let show = said(&run(&repo, &["models", "show", "small"]));
    for words in ["images FP32 [batch, 3, 416, 416]", "detect (yolov8)", "416x416", "80: person, bicycle"] {
        assert!(show.contains(words), "{show}");
    }
    let json: Value = serde_json::from_slice(&run(&repo, &["models", "show", "nanodet", "--json"]).stdout).unwrap();
    assert_eq!((json["family"].as_str(), json["labels"][5].as_str()), (Some("yolov8"), Some("bus")));
    let doctor = run(&repo, &["models", "doctor"]);
    assert!(doctor.status.success() && said(&doctor).contains("all models are well"), "{}", said(&doctor));
}

#[test]
fn the_doctor_names_place_fault_and_mend() {
    let repo = Repo::new()
        .file("loose.onnx", b"")
        .file("text/1/model.onnx", b"no model")
        .model("blind", "double", "kind: detect")
        .model("few", "double", "labels: [a, b]\nkind: detect");
    let output = run(&repo, &["models", "doctor", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let find =
        |place: &str| findings.iter().find(|finding| finding["place"].as_str().unwrap().contains(place)).unwrap();
    assert_eq!(find("loose.onnx")["severity"], "note");
    assert!(find("text/1/model.onnx")["mend"].as_str().unwrap().contains("export the model to ONNX again"));
    assert!(find("blind")["problem"].as_str().unwrap().contains("takes no pictures"));
    assert_eq!(run(&repo, &["models", "show", "text"]).status.code(), Some(1));
    assert!(said(&run(&repo, &["models", "show", "blnd"])).contains("did you mean \"blind\"?"));
}

#[test]
fn help_names_every_setting_with_its_default_and_its_variable() {
    let help = said(&Command::new(CAUDAL).args(["serve", "--help"]).output().unwrap());
    for words in
        ["--http-port <PORT>", "[default: 8000]", "[env: CAUDAL_HTTP_PORT]", "--exit-timeout-secs", "--grpc-port"]
    {
        assert!(help.contains(words), "{words}: {help}");
    }
    assert_eq!(Command::new(CAUDAL).arg("srve").output().unwrap().status.code(), Some(2));
}

#[test]
fn help_groups_settings_and_begins_with_the_important() {
    let help = said(&Command::new(CAUDAL).args(["serve", "--help"]).output().unwrap());
    let at = |words: &str| help.find(words).unwrap_or_else(|| panic!("{words}: {help}"));
    let headings = ["Basic settings:", "Models:", "Limits and timeouts:", "Memory:", "PostgreSQL:", "OpenTelemetry:"];
    let places: Vec<usize> = headings.iter().map(|heading| at(heading)).collect();
    assert!(places.is_sorted(), "{help}");
    assert!(at("--http-port") < at("Models:") && at("--otel-disabled") > at("OpenTelemetry:"), "{help}");
    assert!(!help.contains("Other settings") && !help.contains("divided by commas"), "{help}");
}

/// The settings that `caudal config` shows, run in an empty folder.
fn config(arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    Command::new(CAUDAL).arg("config").args(arguments).current_dir(folder.path()).output().unwrap()
}

#[test]
fn port_is_another_name_of_http_port() {
    for flag in ["--port", "--http-port"] {
        let shown: Value = serde_json::from_slice(&config(&["--json", flag, "9000"]).stdout).unwrap();
        assert_eq!(shown["http_port"]["value"], "9000", "{flag}");
    }
    let help = said(&Command::new(CAUDAL).args(["serve", "--help"]).output().unwrap());
    assert!(help.contains("[alias: --port]"), "{help}");
}

#[test]
fn a_switch_needs_no_value() {
    for (arguments, expected) in [
        (&["--json", "--watch"][..], "true"),
        (&["--json", "--watch", "--http-port", "9000"], "true"),
        (&["--json", "--watch", "false"], "false"),
        (&["--json", "--watch=true"], "true"),
        (&["--json"], "false"),
    ] {
        let shown: Value = serde_json::from_slice(&config(arguments).stdout).unwrap();
        assert_eq!(shown["watch"]["value"], expected, "{arguments:?}");
    }
    assert_eq!(config(&["--watch", "perhaps"]).status.code(), Some(2));
}

#[test]
fn config_tells_unset_values_from_automatic_ones() {
    let shown = said(&config(&[]));
    let line = |name: &str| {
        let line = shown.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("{name}: {shown}"))
    };
    for name in ["data_dir", "database_url", "admin_port", "seal_after_days", "model_memory_mb", "otel_endpoint"] {
        assert!(line(name).contains("(not set)"), "{}", line(name));
    }
    for name in ["io_threads", "instances", "threads", "max_batch_size", "onnxruntime_library"] {
        assert!(line(name).contains("(automatic)"), "{}", line(name));
    }
}

#[test]
fn the_profile_of_a_model_has_one_column_of_kinds() {
    let repo = Repo::new().model("double", "double", "");
    let told = said(&run(&repo, &["models", "profile", "double", "--runs", "2"]));
    let headings: Vec<&str> = told.lines().filter(|line| line.contains("ms a run   share")).collect();
    assert_eq!(headings.len(), 2, "{told}");
    for heading in headings {
        assert_eq!(heading.split_whitespace().filter(|word| *word == "kind").count(), 1, "{told}");
    }
    let help = said(&Command::new(CAUDAL).args(["models", "profile", "--help"]).output().unwrap());
    assert!(help.contains("<MODEL>") && help.contains("its folder in the repository"), "{help}");
}

#[test]
fn what_commands_print_holds_no_escapes() {
    let name = "m\u{1b}[2J\u{9b}31m\u{202e}";
    let repo = Repo::new().file(&format!("{name}/1/model.onnx"), b"no model");
    for command in [&["models", "doctor"][..], &["models", "list"], &["models", "show", name], &["detect", "x.jpg"]] {
        let printed = said(&run(&repo, command));
        let acts = |letter: char| letter != '\n' && letter.is_control() || letter == '\u{202e}';
        assert!(!printed.contains(acts) && printed.contains("31m"), "{command:?}: {printed:?}");
    }
    let found: Value = serde_json::from_slice(&run(&repo, &["models", "doctor", "--json"]).stdout).unwrap();
    assert!(found[0]["place"].as_str().unwrap().contains(name), "JSON says the same: {found}");
}
