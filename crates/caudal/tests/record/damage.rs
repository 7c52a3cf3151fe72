//! What happens to the folder: bytes that change on the disk, a disk that is full.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::{Server, http};
use serde_json::json;

use crate::{append, count, fill, keeps_in, make, message, numbers, read, refused, well, whole};

/// Ends a server as its owner would, so that all it keeps is in one file; tells which.
fn close(mut server: Server, folder: &Path) -> PathBuf {
    server.signal("TERM");
    assert!(server.wait(http::PATIENCE).success(), "{}", server.log());
    folder.join("caudal.db")
}

/// Replaces `old` wherever it stands in a file: pages that were split keep copies of what they held.
fn change(file: &Path, old: &str, new: &str) {
    assert_eq!(old.len(), new.len());
    let mut bytes = fs::read(file).unwrap();
    let places = (0..=bytes.len() - old.len()).filter(|place| bytes[*place..].starts_with(old.as_bytes()));
    let places: Vec<usize> = places.collect();
    assert!(!places.is_empty(), "{old:?} is not in {}", file.display());
    for place in places {
        bytes[place..place + new.len()].copy_from_slice(new.as_bytes());
    }
    fs::write(file, bytes).unwrap();
}

#[test]
fn what_was_changed_on_the_disk_is_told_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let server = keeps_in(folder.path());
    let (id, other) = (make(&server), make(&server));
    fill(&server, &id, 50);
    fill(&server, &other, 1);
    let head = read(&server, &format!("/consultations/{id}/head"));
    let file = close(server, folder.path());
    change(&file, "Hola 37", "Hola 73");
    let server = keeps_in(folder.path());
    let verdict = well(&server.post_json(&format!("/consultations/{id}/verify"), ""));
    assert_eq!(
        (&verdict["valid"], &verdict["first_bad_event"], &verdict["events"]),
        (&json!(false), &json!(37), &json!(36))
    );
    assert!(verdict["fault"].is_string() && verdict.get("head").is_none(), "{verdict}");
    let badly = |path: &str| refused(&server.get(&format!("/consultations/{id}{path}")), 500, "record_damaged");
    for path in ["/events/37", "/events?after=36", "/events/37/receipt", "", "/soap", "/head"] {
        badly(path);
    }
    refused(&server.post_json("/api/exports", &json!({"consultation_id": id}).to_string()), 500, "record_damaged");
    // What is whole is told, here and elsewhere, and more can be said.
    let before = read(&server, &format!("/consultations/{id}/events?limit=36"));
    assert!(numbers(before["events"].as_array().unwrap()).into_iter().eq(1..=36));
    assert_eq!(read(&server, &format!("/consultations/{id}/events/38"))["payload"]["n"], 38);
    assert_eq!(well(&append(&server, &id, &message(51)))["sequence"], 51);
    assert_eq!(whole(&server, &other), 1);
    // Put back, it is what it was.
    let file = close(server, folder.path());
    change(&file, "Hola 73", "Hola 37");
    let server = keeps_in(folder.path());
    assert_eq!(whole(&server, &id), 51);
    let mut head = head;
    head.as_object_mut().unwrap().remove("public_key");
    let verdict = well(&server.post_json(&format!("/consultations/{id}/verify"), &head.to_string()));
    assert_eq!(verdict["valid"], true, "{verdict}");
}

/// A small disk of its own; gone when dropped.
struct Disk(PathBuf);

impl Disk {
    /// One of so many MiB, if this machine lets us.
    fn new(folder: &Path, mib: u32) -> Option<Self> {
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(folder);
        let mounted = command.output().is_ok_and(|output| output.status.success());
        mounted.then(|| Self(folder.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_it_goes_on_once_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = Disk::new(folder.path(), 24) else {
        println!("this machine lets nobody mount a disk");
        return;
    };
    let ballast = folder.path().join("ballast");
    fs::write(&ballast, vec![0; 8 << 20]).unwrap();
    let server = keeps_in(&folder.path().join("data"));
    let id = make(&server);
    let long = message(1).replace("Hola", &"x".repeat(500_000));
    let mut told = 0;
    let refusal = loop {
        let answer = append(&server, &id, &long);
        if answer.status != 201 {
            break answer;
        }
        told += 1;
        assert!(told < 100, "24 MiB hold no 50 MB");
    };
    refused(&refusal, 507, "disk_full");
    // Reading takes a note of who reads, for which room was taken while there was some.
    fs::write(folder.path().join("rest"), vec![0; 24 << 20]).unwrap_err();
    // What is small may still find room among pages that were written before.
    while append(&server, &id, &message(1)).status == 201 {
        told += 1;
        assert!(told < 3_000, "a full disk has room without an end");
    }
    assert_eq!(count(&server, &id), told, "reads go on");
    assert_eq!(server.get("/livez").status, 200);
    let health = read(&server, "/health");
    assert_eq!(health["status"], "degraded", "{health}");
    assert!(health["record"]["audit_waiting"].as_u64().unwrap() > 0, "{health}");
    assert_eq!(server.get("/readyz").status, 503);
    fs::remove_file(folder.path().join("rest")).unwrap();
    fs::remove_file(&ballast).unwrap();
    assert_eq!(well(&append(&server, &id, &message(2)))["sequence"], told + 1, "without a restart, and without a gap");
    assert_eq!((count(&server, &id), whole(&server, &id)), (told + 1, told + 1));
    let end = Instant::now() + http::PATIENCE;
    while read(&server, "/health")["record"]["audit_waiting"] != 0 || server.get("/readyz").status != 200 {
        assert!(Instant::now() < end, "what waited is not recorded: {}", server.log());
        thread::sleep(Duration::from_millis(20));
    }
    let logs = read(&server, "/api/audit/logs?limit=1000");
    let late = logs["logs"].as_array().unwrap().iter().filter(|log| log["payload"]["noted_at"].is_string());
    assert!(late.count() > 0, "who read meanwhile stands in the audit log: {logs}");
}

#[test]
fn database_that_vanished_or_was_replaced_acknowledges_nothing() {
    for (name, act) in [("removed", 0), ("replaced", 1), ("log removed", 2)] {
        let folder = tempfile::tempdir().unwrap();
        let mut server = keeps_in(folder.path());
        let id = make(&server);
        assert_eq!(append(&server, &id, &message(1)).status, 201);
        let (file, log) = (folder.path().join("caudal.db"), folder.path().join("caudal.db-wal"));
        match act {
            0 => [&file, &log].into_iter().for_each(|file| fs::remove_file(file).unwrap()),
            1 => {
                fs::copy(&file, folder.path().join("copy")).unwrap();
                fs::rename(folder.path().join("copy"), &file).unwrap();
            }
            _ => fs::remove_file(&log).unwrap(),
        }
        refused(&append(&server, &id, &message(2)), 503, "store_unavailable");
        assert_eq!(server.get("/readyz").status, 503, "{name}");
        server.signal("KILL");
        server.wait(http::PATIENCE);
    }
}

#[test]
fn exports_fill_no_disk() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--data-dir", folder.path().to_str().unwrap(), "--record-exports-mb", "1"];
    let server = Server::start_at(crate::CAUDAL, Path::new("no-models"), &arguments);
    let id = make(&server);
    let long = message(1).replace("Hola", &"x".repeat(100_000));
    assert_eq!(append(&server, &id, &long).status, 201);
    let order = json!({"consultation_id": id, "formats": ["md", "json", "csv"]}).to_string();
    let made = (0..20).map(|_| server.post_json("/api/exports", &order)).take_while(|answer| answer.status == 201);
    let made = made.count();
    assert!((2..5).contains(&made), "{made} exports of 300 KB");
    refused(&server.post_json("/api/exports", &order), 429, "too_many_requests");
    let folders = fs::read_dir(folder.path().join("exports")).unwrap().count();
    assert_eq!(folders, made, "nothing is left of one that was refused");
}
