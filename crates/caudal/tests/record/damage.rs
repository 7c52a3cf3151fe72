//! What happens to the folder: bytes that change on the disk, a disk that is full.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
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
    // Reading takes a note of who reads, for which there may be no room either; the server lives, and says so.
    assert_eq!(server.get("/livez").status, 200);
    fs::remove_file(&ballast).unwrap();
    assert_eq!(well(&append(&server, &id, &message(2)))["sequence"], told + 1, "without a restart, and without a gap");
    assert_eq!((count(&server, &id), whole(&server, &id)), (told + 1, told + 1));
}
