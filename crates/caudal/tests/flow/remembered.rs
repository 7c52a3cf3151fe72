//! Answers of steps that outlast their process, with `--flow-cache sqlite`.

use std::fs;

use serde_json::{Value, json};

use crate::{Place, answered, local::Local, serve};

/// A pipeline that remembers what a server answers.
fn remembers(local: &Local) -> Place {
    let cached = format!(
        "name: kept\nsteps:\n  - name: same\n    kind: cache\n    wrapped_step: {{name: asked, uses: http, with: {{url: '{}', gives: body}}}}\n",
        local.url("/")
    );
    let place = Place::with(&[&cached]);
    place.write("flow.yaml", "allow: ['127.0.0.1']\n");
    place
}

/// Whether the step was remembered, in a run of its own process.
#[track_caller]
fn remembered(place: &Place, more: &[&str]) -> bool {
    let report = place.json(&[&["run", "kept", "--input", "x", "--json"], more].concat());
    assert_eq!(report["output"], json!({"ok": true}), "{report}");
    report["steps"][0]["cache_hit"].as_bool().unwrap()
}

const DISK: [&str; 2] = ["--flow-cache", "sqlite"];

#[test]
fn the_next_command_finds_what_the_one_before_was_answered() {
    let local = Local::counting();
    let place = remembers(&local);
    assert!(!remembered(&place, &DISK));
    assert!(remembered(&place, &DISK));
    assert_eq!(local.seen().len(), 1, "it was asked once");
    assert!(place.data().join("flow-cache.db").exists());
    assert!(!remembered(&place, &[]), "without the setting, a process remembers for itself alone");
    assert_eq!(local.seen().len(), 2);
}

#[test]
fn old_answers_and_those_to_other_settings_are_not_found() {
    let local = Local::counting();
    let place = remembers(&local);
    assert!(!remembered(&place, &DISK));
    std::thread::sleep(std::time::Duration::from_millis(30));
    assert!(!remembered(&place, &[&DISK[..], &["--flow-cache-ttl-secs", "0.02"]].concat()));
    std::thread::sleep(std::time::Duration::from_millis(30));
    assert!(!remembered(&place, &DISK), "an answer holds as long as was said when it was made");
    assert!(remembered(&place, &DISK));
    place.write("flow.yaml", "allow: ['127.0.0.0/8']\n");
    assert!(!remembered(&place, &DISK), "leaves may answer otherwise");
}

#[test]
fn a_cache_that_cannot_be_fails_nothing() {
    let local = Local::counting();
    let place = remembers(&local);
    fs::create_dir_all(place.data().join("flow-cache.db")).unwrap();
    let mut command = place.command(&["run", "kept", "--input", "x", "--json", "--flow-cache", "sqlite"]);
    let output = command.env("CAUDAL_LOG_LEVEL", "warn").output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["output"], json!({"ok": true}));
    let told = String::from_utf8_lossy(&output.stderr).matches("no answers are remembered").count();
    assert_eq!(told, 1, "{}", String::from_utf8_lossy(&output.stderr));
    let wrong = place.bad(2, &["run", "kept", "--flow-cache", "redis"]);
    assert!(wrong.contains("it is memory or sqlite"), "{wrong}");
}

#[test]
fn a_server_shares_it_with_commands_and_with_the_server_after_it() {
    let local = Local::counting();
    let place = remembers(&local);
    assert!(!remembered(&place, &DISK));
    for _ in 0..2 {
        let server = serve(&place.pipelines(), &place.data(), &[("CAUDAL_FLOW_CACHE", "sqlite")]);
        let report = answered(200, &server.post_json("/api/v1/pipelines/kept/run", r#"{"input": "x"}"#));
        assert_eq!(report["steps"][0]["cache_hit"], true, "{report}");
    }
    assert_eq!(local.seen().len(), 1);
}
