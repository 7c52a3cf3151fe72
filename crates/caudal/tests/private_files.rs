//! Modes of what Caudal writes: its user's alone, whatever the umask, unless the settings let the group read.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use caudal_testkit::{Server, http::post};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const PIPELINE: &str =
    "name: kept\nsteps:\n  - name: same\n    kind: cache\n    wrapped_step: {name: given, uses: passthrough}\n";

/// A program that runs `caudal` under `umask`.
fn under(umask: &str, folder: &Path) -> PathBuf {
    let program = folder.join(format!("caudal-{umask}"));
    fs::write(&program, format!("#!/bin/sh\numask {umask}\nexec '{CAUDAL}' \"$@\"\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    program
}

/// All files and folders below `folder`, and it, with their modes.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let (mut found, mut waiting) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.push((path, meta.mode() & 0o777));
    }
    found
}

/// Starts a server with `data` below `folder`, records, runs and exports something, and leaves it running.
fn work(program: &Path, folder: &Path, arguments: &[&str]) -> Server {
    fs::create_dir_all(folder.join("pipelines")).unwrap();
    fs::write(folder.join("pipelines/kept.yaml"), PIPELINE).unwrap();
    let (data, pipelines) = (folder.join("data"), folder.join("pipelines"));
    let places = ["--data-dir", data.to_str().unwrap(), "--pipelines", pipelines.to_str().unwrap()];
    let profiles = folder.join("data/exports/profiles");
    let more = ["--flow-cache", "sqlite", "--profile-output-dir", profiles.to_str().unwrap()];
    let server =
        Server::start_at(program.to_str().unwrap(), Path::new("no-models"), &[&places, &more, arguments].concat());
    let made = server.post_json("/consultations", r#"{"user_id":"dr"}"#).json();
    let id = made["consultation_id"].as_str().unwrap();
    let event = r#"{"event_type":"MESSAGE_RECEIVED","payload":{"message":"hola"},"user_id":"dr"}"#;
    assert_eq!(server.post_json(&format!("/consultations/{id}/events"), event).status, 201);
    let export = format!(r#"{{"consultation_id":"{id}","formats":["md","json","csv"]}}"#);
    assert_eq!(server.post_json("/api/exports", &export).status, 201);
    let run = server.ask(&post("/api/v1/pipelines/kept/run", &[], br#"{"input": 1, "run_id": "r"}"#));
    assert_eq!(run.status, 200, "{}", run.text());
    assert_eq!(server.post_json("/admin/profiling/export", "").status, 201);
    let record = |words: &[&str]| {
        let done = Command::new(program).arg("record").args(words).env("CAUDAL_DATA_DIR", &data).output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    record(&["seal", id]);
    record(&["backup", data.join("exports/backup.db").to_str().unwrap()]);
    record(&["export", id, "-o", data.join("exports/by-hand").to_str().unwrap()]);
    server
}

#[test]
fn files_belong_to_the_user_alone_under_any_umask() {
    for umask in ["000", "022"] {
        let home = tempfile::tempdir().unwrap();
        let server = work(&under(umask, home.path()), home.path(), &[]);
        let found = modes(&home.path().join("data"));
        let names = [
            "caudal.db",
            "caudal.db-wal",
            "caudal.db-shm",
            "flow-cache.db",
            "archives",
            "head.key",
            "admin.token",
            "backup.db",
        ];
        for name in names {
            assert!(found.iter().any(|(path, _)| path.ends_with(name)), "{name}: {found:?}");
        }
        let open: Vec<_> = found.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
        assert!(open.is_empty(), "umask {umask}: {open:?}");
        let archives: Vec<_> =
            found.iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "h5")).collect();
        assert!(!archives.is_empty() && archives.iter().all(|(_, mode)| *mode == 0o400), "{archives:?}");
        let token = server.token_file().unwrap();
        assert_eq!(fs::metadata(token).unwrap().mode() & 0o077, 0);
    }
}

#[test]
fn files_of_an_earlier_start_are_corrected_and_others_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let program = under("022", home.path());
    let server = work(&program, home.path(), &[]);
    drop(server);
    let data = home.path().join("data");
    for (path, mode) in modes(&data) {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode | if path.is_dir() { 0o055 } else { 0o244 }))
            .unwrap();
    }
    let other = data.join("notes.txt");
    fs::write(&other, "mine").unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o644)).unwrap();
    let server = Server::start_at(CAUDAL, Path::new("no-models"), &["--data-dir", data.to_str().unwrap()]);
    server.log_line("their modes are corrected");
    let open: Vec<_> = modes(&data)
        .into_iter()
        .filter(|(path, mode)| mode & 0o077 != 0 && *path != other && !path.ends_with("models"))
        .collect();
    assert!(open.is_empty(), "{open:?}");
    let written = |(path, mode): &(PathBuf, u32)| path.extension().is_some_and(|end| end == "h5") && mode & 0o222 != 0;
    assert!(!modes(&data).iter().any(written), "archives are written once");
    assert_eq!(fs::metadata(&other).unwrap().mode() & 0o777, 0o644, "not Caudal's");
}

#[test]
fn commands_without_a_server_correct_files_of_an_earlier_process() {
    let home = tempfile::tempdir().unwrap();
    let (data, program) = (home.path().join("data"), under("000", home.path()));
    let run = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).env("CAUDAL_DATA_DIR", &data).env("CAUDAL_FLOW_CACHE", "sqlite");
        let done = command.output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    };
    let pipeline = home.path().join("kept.yaml");
    fs::write(&pipeline, PIPELINE).unwrap();
    let event = ["--type", "MESSAGE_RECEIVED", "--payload", r#"{"message":"hola"}"#, "--user", "dr", "--create"];
    run(&[&["record", "append", "c1"], &event[..]].concat());
    let flow = ["flow", "run", pipeline.to_str().unwrap(), "--input", "1"];
    for words in [&flow[..], &["record", "list"]] {
        // The cache is the matter of pipelines, but lies in the same folder.
        run(&flow);
        for (path, mode) in modes(&data) {
            let opened = mode | if path.is_dir() { 0o055 } else { 0o044 };
            fs::set_permissions(&path, fs::Permissions::from_mode(opened)).unwrap();
        }
        run(words);
        let found = modes(&data);
        assert!(found.iter().any(|(path, _)| path.ends_with("flow-cache.db")), "{found:?}");
        let open: Vec<_> = found.iter().filter(|(_, mode)| mode & 0o077 != 0).collect();
        assert!(open.is_empty(), "{words:?}: {open:?}");
    }
}

#[test]
fn group_reads_where_the_settings_say_so_but_no_secret() {
    let home = tempfile::tempdir().unwrap();
    let _server = work(&under("077", home.path()), home.path(), &["--data-group-read", "true"]);
    for (path, mode) in modes(&home.path().join("data")) {
        assert_eq!(mode & 0o027, 0, "{}: {mode:o}", path.display());
        let by_hand = ["backup.db", "by-hand", "archives"].iter().any(|name| path.iter().any(|part| part == *name));
        let secret = ["head.key", "admin.token", "audit.reserve"].iter().any(|name| path.ends_with(name));
        if !by_hand {
            assert_eq!(mode & 0o040 == 0, secret, "{}: {mode:o}", path.display());
        }
    }
}
