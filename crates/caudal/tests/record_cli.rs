//! `caudal record …`, the program itself, alone and beside a server.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use caudal_testkit::{Repo, Server};
use serde_json::{Value, json};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

/// A data folder, and room beside it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn data(&self) -> PathBuf {
        self.path("data")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(CAUDAL);
        command.arg("record").args(words).env("CAUDAL_DATA_DIR", self.data()).current_dir(self.0.path());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What a command says that does what it should.
    fn good(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.good(words)).unwrap()
    }

    /// What a command says that ends with `code`.
    fn bad(&self, code: i32, words: &[&str]) -> String {
        let output = self.run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        said(&output)
    }

    fn message(&self, id: &str, words: &str) -> Value {
        let payload = json!({"message": words}).to_string();
        self.json(&["append", id, "--type", "MESSAGE_RECEIVED", "--payload", &payload, "--user", "dr", "--create"])
    }

    /// Flips a bit wherever `words` stand in the database.
    fn flip(&self, words: &str) {
        let mut flipped = 0;
        for name in ["caudal.db", "caudal.db-wal"] {
            let file = self.data().join(name);
            let Ok(mut bytes) = fs::read(&file) else { continue };
            let found = |place: &usize| bytes[*place..].starts_with(words.as_bytes());
            let places: Vec<_> = (0..bytes.len()).filter(found).collect();
            flipped += places.len();
            places.iter().for_each(|place| bytes[*place] ^= 1);
            fs::write(&file, bytes).unwrap();
        }
        assert!(flipped > 0, "{words}");
    }

    fn events(&self, id: &str) -> Vec<Value> {
        self.good(&["tail", id]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn events_are_appended_listed_and_shown() {
    let folder = Folder::new();
    let first = folder.message("c1", "Hola");
    assert_eq!((first["sequence"].as_u64(), first["consultation_id"].as_str()), (Some(1), Some("c1")));
    fs::write(folder.path("event.json"), r#"{"message": "dolor de cabeza"}"#).unwrap();
    let words = ["append", "c1", "--type", "MESSAGE_RECEIVED", "--payload", "@event.json", "--expected-version", "1"];
    assert_eq!(folder.json(&words)["sequence"], 2);
    folder.message("c2", "another");

    let list = folder.good(&["list", "--sort", "events_desc"]);
    assert!(list.lines().nth(1).unwrap().starts_with("c1 "), "{list}");
    let lines = folder.good(&["list", "--json", "--limit", "1"]);
    let only: Value = serde_json::from_str(lines.trim()).unwrap();
    assert_eq!((only["consultation_id"].as_str(), only["event_count"].as_u64()), (Some("c2"), Some(1)));
    let shown = folder.good(&["show", "c1"]);
    assert!(shown.contains("MESSAGE_RECEIVED 2") && shown.contains("0 % complete"), "{shown}");
    let shown = folder.json(&["show", "c1", "--json"]);
    assert_eq!((&shown["event_count"], &shown["about"]["user_id"]), (&json!(2), &json!("dr")));
    assert_eq!(shown["state"]["messages"].as_array().unwrap().len(), 2);
    assert_eq!(folder.events("c1")[1]["payload"]["message"], "dolor de cabeza");
    assert_eq!(folder.good(&["tail", "c1", "--after", "1"]).lines().count(), 1);
    let stats = folder.json(&["stats", "--json"]);
    assert_eq!((&stats["consultations"], &stats["events"], &stats["engine"]), (&json!(2), &json!(3), &json!("sqlite")));
    assert!(folder.good(&["stats"]).contains("consultations"));
}

#[test]
fn event_with_an_id_of_its_own_is_appended_once() {
    let folder = Folder::new();
    let append = |payload: &str| {
        let id = ["--event-id", "0191d2c0-0000-7000-8000-000000000001"];
        let words = ["append", "c1", "--type", "a:B", "--create", "--payload", payload];
        folder.run(&[&words[..], &id[..]].concat())
    };
    let read = |output: &Output| serde_json::from_slice::<Value>(&output.stdout).unwrap();
    // A file that an editor on Windows wrote has a byte order mark in front.
    let payload = "\u{feff}{\"n\": 12345678901234567890123}";
    let mut first = read(&append(payload));
    let again = append(payload);
    first["repeated"] = true.into();
    assert_eq!((again.status.code(), read(&again), again.stderr.len()), (Some(0), first, 0));
    let other = append(r#"{"n": 2}"#);
    assert_eq!(other.status.code(), Some(1));
    assert!(said(&other).contains("the event with the sequence 1 has the id"), "{}", said(&other));
    assert!(folder.good(&["show", "c1", "--json"]).contains(r#""event_count": 1"#));
    assert!(folder.good(&["tail", "c1"]).contains("12345678901234567890123"));
}

#[test]
fn what_is_asked_wrongly_is_said() {
    let folder = Folder::new();
    let absent = folder.bad(1, &["list"]);
    assert!(absent.contains("there is no record in") && !folder.data().exists(), "{absent}");
    let nowhere = folder.command(&["list"]).env_remove("CAUDAL_DATA_DIR").output().unwrap();
    assert!(nowhere.status.code() == Some(2) && said(&nowhere).contains("--data-dir"), "{}", said(&nowhere));
    folder.message("c1", "Hola");
    assert!(folder.bad(1, &["show", "c9"]).contains("caudal record list"));
    assert!(folder.bad(1, &["receipt", "c1", "9"]).contains("caudal record tail"));
    let append = |payload, more: &[&str]| {
        let words = ["append", "c1", "--type", "MESSAGE_RECEIVED", "--payload", payload];
        folder.run(&[&words, more].concat())
    };
    for payload in ["{", "[]", r#"{"message": "a", "message": "b"}"#, "{}"] {
        assert_eq!(append(payload, &[]).status.code(), Some(2), "{payload}");
    }
    let late = append(r#"{"message": "a"}"#, &["--expected-version", "7"]);
    assert!(late.status.code() == Some(1) && said(&late).contains("expected_version 1"), "{}", said(&late));
    folder.bad(2, &["append", "c1", "--type", "MESAGE", "--payload", "{}"]);
    folder.bad(2, &["seal", "--codec", "zip"]);
    folder.bad(2, &["seal", "--size-limit", "much"]);
    folder.bad(2, &["verify"]);
    assert_eq!(folder.events("c1").len(), 1, "nothing of that was recorded");
}

#[test]
fn tail_follows_what_other_processes_append() {
    let folder = Folder::new();
    folder.message("c1", "one");
    let mut tail = folder.command(&["tail", "c1", "-f"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap()["sequence"].clone();
    assert_eq!(next(), 1);
    folder.message("c1", "two");
    assert_eq!(next(), 2);
    tail.kill().unwrap();
    tail.wait().unwrap();
}

#[test]
fn a_reader_who_leaves_is_no_fault() {
    let folder = Folder::new();
    // More than a pipe holds.
    fs::write(folder.path("long.json"), json!({"message": "x".repeat(200_000)}).to_string()).unwrap();
    folder.json(&["append", "c1", "--type", "MESSAGE_RECEIVED", "--payload", "@long.json", "--create"]);
    let mut tail = folder.command(&["tail", "c1"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 10];
    tail.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = tail.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
}

#[test]
fn heads_and_receipts_prove_what_they_say() {
    let folder = Folder::new();
    let made: Vec<_> = (0..5).map(|number| folder.message("c1", &format!("number {number}"))).collect();
    let second = &made[1];
    let key = folder.good(&["key"]);
    folder.good(&["head", "c1", "-o", "head.json"]);
    folder.good(&["receipt", "c1", second["event_id"].as_str().unwrap(), "-o", "receipt.json"]);
    folder.message("c1", "later");
    let kept = ["verify", "c1", "--head", "head.json", "--key", key.trim()];
    assert!(folder.good(&kept).contains("good c1: 6 events"));
    // Offline: no folder of a record is named.
    let offline = |file: &str, key: &str| {
        let mut command = folder.command(&["verify-receipt", file, "--key", key]);
        command.env_remove("CAUDAL_DATA_DIR").output().unwrap()
    };
    let good = offline("receipt.json", key.trim());
    assert!(good.status.success() && said(&good).contains("is number 2 of c1"), "{}", said(&good));

    let receipt = fs::read_to_string(folder.path("receipt.json")).unwrap();
    fs::write(folder.path("forged.json"), receipt.replace("number 1", "number 7")).unwrap();
    let forged = offline("forged.json", key.trim());
    assert!(forged.status.code() == Some(1) && said(&forged).contains("BAD"), "{}", said(&forged));
    // What no hash covers would be read as proven.
    for place in ["", "/event", "/chain", "/tree", "/head"] {
        let mut more: Value = serde_json::from_str(&receipt).unwrap();
        more.pointer_mut(place).unwrap()["note"] = "and the patient agreed".into();
        fs::write(folder.path("more.json"), more.to_string()).unwrap();
        let more = offline("more.json", key.trim());
        assert!(more.status.code() == Some(1) && said(&more).contains("no hash covers"), "{place}: {}", said(&more));
    }
    let mut more: Value = serde_json::from_slice(&fs::read(folder.path("head.json")).unwrap()).unwrap();
    more["note"] = "and the patient agreed".into();
    fs::write(folder.path("more.json"), more.to_string()).unwrap();
    assert!(folder.bad(1, &["verify", "c1", "--head", "more.json"]).contains("no hash covers"));
    let other = Folder::new();
    other.message("c1", "x");
    let stranger = offline("receipt.json", other.good(&["key"]).trim());
    assert!(stranger.status.code() == Some(1) && said(&stranger).contains("another key"), "{}", said(&stranger));
    let mut head: Value = serde_json::from_slice(&fs::read(folder.path("head.json")).unwrap()).unwrap();
    head["sequence"] = 4.into();
    fs::write(folder.path("head.json"), head.to_string()).unwrap();
    assert!(folder.bad(1, &kept).contains("BAD head"));
    folder.bad(2, &["verify-receipt", "head.json"]);
    folder.bad(2, &["verify-receipt", "receipt.json", "--key", "ab"]);
}

#[test]
fn record_on_a_disk_that_nobody_can_write_to_is_verified() {
    let folder = Folder::new();
    folder.message("c1", "Hola");
    let key = folder.data().join("head.key");
    folder.good(&["head", "c1"]);
    assert!(key.is_file());
    let place = folder.path("mounted");
    fs::create_dir(&place).unwrap();
    let mounted =
        |words: &[&str]| Command::new("mount").args(words).arg(&place).output().is_ok_and(|out| out.status.success());
    let data = folder.data();
    let mount = |with_log: bool| {
        // A log that a process left behind: what is in it is read of a copy.
        if with_log {
            fs::write(data.join("caudal.db-wal"), [0; 64]).unwrap();
        }
        mounted(&["--bind", data.to_str().unwrap()]) && mounted(&["-o", "remount,ro,bind"])
    };
    for with_log in [false, true] {
        if !mount(with_log) {
            println!("skipped: this machine lets nobody mount a disk");
            return;
        }
        let verified = folder.command(&["verify", "--all"]).env("CAUDAL_DATA_DIR", &place).output().unwrap();
        let shown = folder.command(&["show", "c1"]).env("CAUDAL_DATA_DIR", &place).output().unwrap();
        let out = folder.path(&format!("exported-{with_log}"));
        let open = format!("umask 000 && exec '{CAUDAL}' record export c1 -o '{}'", out.display());
        let exported = Command::new("sh").args(["-c", &open]).env("CAUDAL_DATA_DIR", &place).output().unwrap();
        let refused = folder
            .command(&["append", "c1", "--type", "MESSAGE_RECEIVED", "--payload", "{}"])
            .env("CAUDAL_DATA_DIR", &place)
            .output()
            .unwrap();
        assert!(Command::new("umount").arg(&place).status().unwrap().success());
        assert!(verified.status.success() && said(&verified).contains("good: 1 consultations"), "{}", said(&verified));
        assert!(shown.status.success() && said(&shown).contains("noted nowhere"), "{}", said(&shown));
        assert!(!refused.status.success(), "{}", said(&refused));
        assert!(exported.status.success(), "{}", said(&exported));
        let files = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
        for path in files.chain([out.clone()]) {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
    }
}

#[test]
fn what_people_read_of_a_record_holds_no_escapes() {
    let folder = Folder::new();
    let payload = json!({"message": "x"}).to_string();
    let user = "\u{1b}]0;owned\u{7}\u{1b}[2J\nSOAP note      100 % complete, committed";
    folder.good(&["append", "c1", "--type", "MESSAGE_RECEIVED", "--payload", &payload, "--user", user, "--create"]);
    for words in [&["show", "c1"][..], &["tail", "c1"], &["list"], &["show", "c1", "--json"]] {
        let told = folder.good(words);
        assert!(!told.contains(['\u{1b}', '\u{7}']), "{words:?}: {told}");
        assert_eq!(
            told.lines().filter(|line| line.starts_with("SOAP note")).count(),
            usize::from(words == ["show", "c1"])
        );
    }
}

#[test]
fn exports_are_checked_against_their_manifest() {
    let folder = Folder::new();
    folder.message("c1", "Hola");
    folder.good(&["export", "c1", "-o", "out", "--format", "md,json,csv"]);
    let key = folder.good(&["key"]);
    let verify = ["verify-export", "out", "--key", key.trim()];
    assert_eq!(folder.good(&verify).matches("good ").count(), 3);
    assert!(folder.bad(2, &["export", "c1", "-o", "out"]).contains("is there already"));
    let manifest = folder.path("out/manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replacen('{', "{\"note\": \"and the patient agreed\",", 1)).unwrap();
    assert!(folder.bad(1, &verify).contains("no hash covers"));
    fs::write(&manifest, text).unwrap();
    let file = folder.path("out/consultation.csv");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("Hola", "Holá")).unwrap();
    let told = folder.bad(1, &verify);
    assert!(told.contains("BAD consultation.csv") && told.contains("good consultation.md"), "{told}");
}

#[test]
fn what_is_sealed_is_read_across_the_seam() {
    let folder = Folder::new();
    for number in 0..4 {
        folder.message("c1", &format!("number {number}"));
    }
    folder.message("c2", "young");
    assert!(folder.good(&["seal"]).contains("nothing to seal"), "all are young");
    let before = folder.events("c1");
    let done = folder.json(&["seal", "c1", "--codec", "zstd-3", "--json"]);
    assert_eq!((&done["consultations"], &done["events"]), (&json!(1), &json!(4)));
    assert_eq!(folder.events("c1"), before);
    folder.message("c1", "after the seal");
    let events = folder.events("c1");
    assert_eq!((events.len(), &events[..4]), (5, &before[..]));
    assert!(folder.good(&["verify", "c1"]).contains("good c1: 5 events"));
    folder.good(&["seal", "--older-than", "0s"]);
    let stats = folder.json(&["stats", "--json"]);
    assert_eq!((&stats["archives"], &stats["archived_events"]), (&json!(2), &json!(6)));
    let all = folder.json(&["verify", "--all", "--json"]);
    assert_eq!((&all["valid"], &all["consultations"], &all["archives"]), (&json!(true), &json!(2), &json!(2)));
    assert_eq!(folder.events("c1"), events);

    let archive = folder.data().join("archives").join(done["files"][0].as_str().unwrap());
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, bytes).unwrap();
    assert!(folder.bad(1, &["verify", "--all"]).contains("BAD archive "));
}

#[test]
fn list_in_pieces_crosses_from_archive_to_store_without_a_gap() {
    let folder = Folder::new();
    // More than one piece of a list, and no whole number of events to a piece.
    for _ in 0..7 {
        folder.message("c1", &"x".repeat(100_000));
    }
    folder.json(&["seal", "c1", "--json"]);
    for _ in 0..3 {
        folder.message("c1", "after the seal");
    }
    let data = folder.data().display().to_string();
    let server = Server::start(CAUDAL, &Repo::new(), &["--data-dir", &data]);
    let listed = server.get("/consultations/c1/events?limit=100").json();
    let sequences: Vec<u64> =
        listed["events"].as_array().unwrap().iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=10).collect::<Vec<_>>());
    assert_eq!(listed["returned_count"], 10);
}

#[test]
fn an_archive_that_is_newer_than_a_restored_backup_is_kept() {
    let folder = Folder::new();
    folder.message("c1", "before the backup");
    folder.good(&["backup", "early.db"]);
    folder.message("c1", "after the backup");
    let restore = || {
        fs::rename(folder.data().join("caudal.db"), folder.path("moved-away.db")).unwrap();
        folder.good(&["restore", "early.db"]);
    };
    let newer = folder.json(&["seal", "c1", "--json"])["files"][0].as_str().unwrap().to_owned();
    restore();
    // What a seal that was cut off has left: a file that is not whole, and one that the store knows nothing of though it has
    // all that is in it.
    let archives = folder.data().join("archives");
    let cut = archives.join(".sealed-20200101T000000-0001.h5.part");
    fs::write(&cut, "begun").unwrap();
    let done = folder.json(&["seal", "c1", "--json"]);
    assert!(archives.join(&newer).exists(), "it alone holds the second event");
    assert!(archives.join(done["files"][0].as_str().unwrap()).exists() && !cut.exists());
    assert_eq!(folder.events("c1").len(), 1);
    restore();
    folder.good(&["seal", "c1"]);
    assert!(archives.join(&newer).exists());
    let files = fs::read_dir(&archives).unwrap().filter(|file| file.as_ref().unwrap().path().extension().is_some());
    assert_eq!(files.count(), 2, "the store held all of the second: it is gone, and was written anew");
}

#[test]
fn a_flipped_byte_is_told_with_its_event() {
    let folder = Folder::new();
    folder.message("c0", "well");
    for number in 1..=5 {
        folder.message("c1", &format!("marked-{number}"));
    }
    assert!(folder.good(&["verify", "--all"]).starts_with("good"));
    folder.flip("marked-3");
    let told = folder.bad(1, &["verify", "--all"]);
    assert!(told.contains("BAD consultation c1: the first bad event is 3") && !told.contains("c0"), "{told}");
    assert!(folder.bad(1, &["verify", "c1"]).contains("BAD c1: the first bad event is 3"));
    let one: Value = serde_json::from_slice(&folder.run(&["verify", "c1", "--json"]).stdout).unwrap();
    assert_eq!((&one["valid"], &one["first_bad_event"]), (&json!(false), &json!(3)));
    folder.good(&["verify", "c0"]);
}

#[test]
fn damage_beside_the_events_is_told_too() {
    let log = Folder::new();
    log.message("c1", "Hola");
    log.good(&["show", "c1"]);
    log.good(&["tail", "c1"]);
    log.flip("EVENTS_READ");
    let told = log.bad(1, &["verify", "--all"]);
    assert!(told.contains("BAD audit log: the first bad event is 2") && told.contains("1 faults"), "{told}");

    let list = Folder::new();
    list.message("c1", "Hola");
    list.flip("session_id");
    let told = list.bad(1, &["verify", "--all"]);
    assert!(told.contains("BAD consultation number 1 of the list") && told.contains("BAD database"), "{told}");

    let archives = Folder::new();
    archives.message("c1", "Hola");
    archives.good(&["seal", "c1"]);
    fs::remove_dir_all(archives.data().join("archives")).unwrap();
    let told = archives.bad(1, &["verify", "--all"]);
    assert!(told.contains("BAD consultation c1") && told.contains("BAD archive sealed-"), "{told}");

    let database = Folder::new();
    database.message("c1", "Hola");
    database.flip("SQLite format 3");
    assert!(database.bad(1, &["verify", "--all"]).contains("is not a database"));
}

#[test]
fn a_backup_made_beside_a_server_is_restored() {
    let folder = Folder::new();
    let data = folder.data().display().to_string();
    let server = Server::start(CAUDAL, &Repo::new(), &["--data-dir", &data]);
    server.post_json("/consultations", r#"{"user_id": "dr", "consultation_id": "c1"}"#);
    let event = r#"{"event_type": "MESSAGE_RECEIVED", "payload": {"message": "Hola"}}"#;
    let append = || assert_eq!(server.post_json("/consultations/c1/events", event).status, 201);
    (0..50).for_each(|_| append());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                append();
            }
        });
        let told = folder.good(&["backup", "copy.db"]);
        done.store(true, Relaxed);
        assert!(told.contains("head.key"), "{told}");
    });
    // Beside the server, commands read and write.
    let count = folder.events("c1").len();
    assert_eq!(folder.message("c1", "by hand")["sequence"], count as u64 + 1);
    append();
    assert_eq!(folder.events("c1").len(), count + 2);
    assert!(folder.bad(1, &["backup", "copy.db"]).contains("is there already"));
    assert!(folder.bad(1, &["restore", "copy.db"]).contains("another process uses"));

    let restore = |from: &str, to: &Path| {
        folder.command(&["restore", from, "--data-dir", &to.display().to_string()]).output().unwrap()
    };
    let place = folder.path("restored");
    let restored = restore("copy.db", &place);
    assert!(restored.status.success() && said(&restored).contains("1 consultations"), "{}", said(&restored));
    let verify = folder.good(&["verify", "--all", "--json", "--data-dir", &place.display().to_string()]);
    let found: Value = serde_json::from_str(&verify).unwrap();
    assert!(found["valid"] == true && found["events"].as_u64().unwrap() >= 50, "{found}");
    let again = restore("copy.db", &place);
    assert!(again.status.code() == Some(1) && said(&again).contains("is there already"), "{}", said(&again));
    fs::write(folder.path("broken.db"), "no database").unwrap();
    let elsewhere = folder.path("elsewhere");
    assert_eq!(restore("broken.db", &elsewhere).status.code(), Some(1));
    assert!(!elsewhere.join("caudal.db").exists());
}

/// A corpus as its users have it, with an event that is no JSON; `more`: with events that came later.
const CORPUS: &str = r#"
import hashlib, json, sys, uuid, h5py
path, more = sys.argv[1], len(sys.argv) > 2
def event(number, name, kind, payload):
    text = json.dumps(payload, sort_keys=True, ensure_ascii=False)
    return json.dumps({"event_id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{name} {number}")), "consultation_id": name,
        "event_type": kind, "payload": payload, "timestamp": "2025-10-29T10:00:00+00:00",
        "metadata": {"user_id": "dra. López", "session_id": name, "source": "fi_consult_service"},
        "audit_hash": hashlib.sha256(text.encode()).hexdigest()}, ensure_ascii=False)
with h5py.File(path, "w") as file:
    file.create_group("metadata")
    for name, count in (("session_0", 700), ("session_1", 3)):
        events = [event(number, name, "MESSAGE_RECEIVED", {"message": f"dolor {number} ñ"}) for number in range(count)]
        events.append(event(count, name, "VITALS_SEEN", {"pulse": 70}))
        if name == "session_1":
            events.append("no JSON")
            # An id that another consultation's event has.
            events.append(event(0, "session_0", "MESSAGE_RECEIVED", {"message": "same id"}))
            if more:
                events.append(event(99, name, "MESSAGE_RECEIVED", {"message": "later"}))
        group = file.create_group("consultations/" + name)
        group.create_dataset("events", data=events, dtype=h5py.string_dtype("utf-8"), maxshape=(None,), compression="gzip")
"#;

fn corpus(folder: &Folder, words: &[&str]) -> bool {
    let library = caudal_types::cache_dir().join("h5py");
    if !library.join("h5py/__init__.py").is_file() {
        eprintln!("skipped: h5py is missing; `cargo xtask setup` brings it");
        return false;
    }
    let mut command = Command::new("python3");
    command.args(["-c", CORPUS]).arg(folder.path("corpus.h5")).args(words).env("PYTHONPATH", library);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    true
}

#[test]
fn a_corpus_is_imported_once_however_often_it_is_tried() {
    let folder = Folder::new();
    if !corpus(&folder, &[]) {
        return;
    }
    let done = folder.json(&["import", "corpus.h5", "--json"]);
    let expected = json!({
        "consultations": 2, "made": 2, "events": 707, "already_there": 0, "differing": 0, "renamed": 2, "as_text": 1,
        "as_bytes": 0, "wrong_hashes": 0, "skipped": [], "damaged": [],
    });
    assert_eq!(done, expected);
    let events = folder.events("session_1");
    assert_eq!((events.len(), &events[0]["event_type"]), (6, &json!("MESSAGE_RECEIVED")));
    assert_eq!(events[0]["payload"]["message"], "dolor 0 ñ");
    let meta = &events[0]["metadata"];
    assert_eq!(
        (&meta["user_id"], &meta["original_timestamp"]),
        (&json!("dra. López"), &json!("2025-10-29T10:00:00+00:00"))
    );
    assert_eq!(meta["original_audit_hash"], events[0]["audit_hash"]);
    assert_eq!(events[0]["occurred_at"], "2025-10-29T10:00:00.000000Z");
    assert_ne!(events[0]["timestamp"], events[0]["occurred_at"], "the chain's own time is that of the import");
    assert_eq!(events[3]["event_type"], "imported:VITALS_SEEN");
    assert_eq!((&events[4]["event_type"], &events[4]["payload"]["text"]), (&json!("imported:TEXT"), &json!("no JSON")));
    let first = &folder.events("session_0")[0]["event_id"];
    assert_ne!(&events[5]["event_id"], first);
    assert_eq!(&events[5]["metadata"]["original_event_id"], first);

    let again = folder.json(&["import", "corpus.h5", "--json"]);
    assert_eq!((&again["events"], &again["already_there"], &again["made"]), (&json!(0), &json!(707), &json!(0)));
    assert!(corpus(&folder, &["more"]));
    let words = folder.good(&["import", "corpus.h5"]);
    assert!(words.starts_with("1 events of 2 consultations, 0 of these new; 707 events"), "{words}");
    assert_eq!(folder.events("session_1").len(), 7);
    assert!(folder.good(&["verify", "--all"]).starts_with("good"));
    fs::write(folder.path("text.h5"), "a text").unwrap();
    assert!(folder.bad(1, &["import", "text.h5"]).contains("not an HDF5 file"));
}

/// A corpus with all that its layout has: attributes, interactions, embeddings, snapshots, and what nobody knows.
const LAYOUT: &str = r#"
import json, sys, h5py, numpy
text = h5py.string_dtype("utf-8")
with h5py.File(sys.argv[1], "w") as file:
    meta = file.create_group("metadata")
    meta.attrs["corpus_id"], meta.attrs["created_at"], meta.attrs["sizes"] = "corpus-1", "2025-01-01T00:00:00", [1, 2]
    for name in ("s1", "s2"):
        group = file.create_group("consultations/" + name)
        group.attrs["created_at"], group.attrs["updated_at"] = "2025-03-01T09:00:00+00:00", "2025-03-02T09:00:00+00:00"
        group.attrs["event_count"] = numpy.int64(1)
    events = [json.dumps({"event_type": "MESSAGE_RECEIVED", "payload": {"message": "hola"}, "timestamp": "2025-03-01T10:00:00Z"}).encode(),
              b'{"event_type": "x:y", "payload": {"m": "caf\xe9"}}']
    set = file["consultations/s1"].create_dataset("events", (5,), maxshape=(None,), dtype=h5py.string_dtype("ascii"))
    set[:2] = events
    file["consultations/s1"].create_group("snapshots").create_dataset("2025-03-01T10:00:00", data=b"{}")
    file["consultations/elsewhere"] = h5py.ExternalLink("other.h5", "/consultations/s1")
    inter = file.create_group("interactions")
    for column, values in {"session_id": ["s1", "s2", "s1"], "interaction_id": ["i1", "i2", "i3"], "prompt": ["a", "b", "c"],
                           "timestamp": ["2025-03-01T11:00:00-06:00"] * 3, "model": ["m"] * 3}.items():
        inter.create_dataset(column, data=values, dtype=text, compression="gzip")
    inter.create_dataset("tokens", data=numpy.array([5, 6, 7], dtype="i4"))
    emb = file.create_group("embeddings")
    emb.create_dataset("interaction_id", data=["i1", "i9"], dtype=text)
    emb.create_dataset("vector", data=numpy.array([[0.5, -1.0], [2.0, 3.0]], dtype="f4"))
    file.create_dataset("notes", data=[1, 2, 3])
"#;

/// Writes `name` by a Python script that is given its path; `false` where h5py is missing.
fn written(folder: &Folder, name: &str, script: &str) -> bool {
    let library = caudal_types::cache_dir().join("h5py");
    if !library.join("h5py/__init__.py").is_file() {
        eprintln!("skipped: h5py is missing; `cargo xtask setup` brings it");
        return false;
    }
    let output =
        Command::new("python3").args(["-c", script]).arg(folder.path(name)).env("PYTHONPATH", library).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", said(&output));
    true
}

#[test]
fn corpus_keeps_its_times_interactions_and_embeddings() {
    let folder = Folder::new();
    if !written(&folder, "corpus.h5", LAYOUT) {
        return;
    }
    let done = folder.json(&["import", "corpus.h5", "--json"]);
    assert_eq!((&done["consultations"], &done["made"], &done["events"]), (&json!(3), &json!(3), &json!(7)), "{done}");
    assert_eq!(done["as_bytes"], 1);
    let skipped: Vec<&str> = done["skipped"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
    for part in [
        "metadata/@sizes",
        "notes (3 rows)",
        "consultations/elsewhere (a link",
        "snapshots (a group of 1)",
        "events (3 empty rows)",
    ] {
        assert!(skipped.iter().any(|skipped| skipped.contains(part)), "{part}: {skipped:?}");
    }
    assert_eq!(skipped.len(), 5, "{skipped:?}");

    let events = folder.events("s1");
    let kinds: Vec<&str> = events.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    let interaction = "imported:INTERACTION";
    assert_eq!(kinds, ["MESSAGE_RECEIVED", "imported:BYTES", interaction, interaction, "imported:EMBEDDING"]);
    assert_eq!(
        events[2]["payload"],
        json!({"session_id": "s1", "interaction_id": "i1", "prompt": "a", "tokens": 5, "model": "m",
        "timestamp": "2025-03-01T11:00:00-06:00"})
    );
    assert_eq!(events[2]["occurred_at"], "2025-03-01T17:00:00.000000Z");
    let vector = &events[4]["payload"]["vector"];
    assert_eq!((&vector["dimensions"], &vector["float32_base64"]), (&json!(2), &json!("AAAAPwAAgL8=")));
    // An embedding of an interaction that is not there is kept apart.
    assert_eq!(folder.events("embeddings")[0]["payload"]["interaction_id"], "i9");

    let shown = folder.json(&["show", "s1", "--json"]);
    assert_eq!(shown["original_created_at"], "2025-03-01T09:00:00.000000Z");
    let original = &shown["about"]["original"];
    assert_eq!(
        (&original["updated_at"], &original["corpus"]["corpus_id"]),
        (&json!("2025-03-02T09:00:00+00:00"), &json!("corpus-1"))
    );
    let messages = shown["state"]["messages"].as_array().unwrap();
    assert_eq!(messages[0]["received_at"], 1_740_823_200_000_000_i64, "its own time, 2025-03-01T10:00:00Z");
    let again = folder.json(&["import", "corpus.h5", "--json"]);
    assert_eq!(
        (&again["events"], &again["already_there"], &again["made"]),
        (&json!(0), &json!(7), &json!(0)),
        "{again}"
    );
    assert!(folder.good(&["verify", "--all"]).starts_with("good"));
}

#[test]
fn own_archive_is_imported_into_another_record() {
    let source = Folder::new();
    for number in 0..3 {
        source.message("c1", &format!("dolor {number} ñ"));
    }
    let original = source.events("c1");
    let archive = |codec: &str, name: &str| {
        let folder = Folder::new();
        for event in &original {
            let payload = event["payload"].to_string();
            folder.good(&[
                "append",
                "c1",
                "--type",
                "MESSAGE_RECEIVED",
                "--payload",
                &payload,
                "--user",
                "dr",
                "--create",
            ]);
        }
        let done = folder.json(&["seal", "c1", "--codec", codec, "--json"]);
        let file = folder.data().join("archives").join(done["files"][0].as_str().unwrap());
        fs::copy(&file, source.path(name)).unwrap();
        // What is there already is recognised, in the record that it came from too.
        let again = folder.json(&["import", file.to_str().unwrap(), "--json"]);
        assert_eq!((&again["events"], &again["already_there"]), (&json!(0), &json!(3)), "{codec}: {again}");
        folder
    };
    for codec in ["none", "gzip-1", "gzip-4", "lzf", "lz4", "zstd-3"] {
        let name = format!("{codec}.h5");
        let sealed = archive(codec, &name).events("c1");
        let other = Folder::new();
        fs::copy(source.path(&name), other.path(&name)).unwrap();
        let done = other.json(&["import", &name, "--json"]);
        assert_eq!(
            (&done["made"], &done["events"], &done["wrong_hashes"]),
            (&json!(1), &json!(3), &json!(0)),
            "{codec}: {done}"
        );
        let events = other.events("c1");
        for (event, sealed) in events.iter().zip(&sealed) {
            for member in ["event_id", "event_type", "payload", "audit_hash"] {
                assert_eq!(event[member], sealed[member], "{codec}");
            }
            assert_eq!(event["occurred_at"], sealed["timestamp"], "{codec}");
            assert_eq!(event["metadata"]["user_id"], "dr");
        }
        assert_eq!(other.json(&["show", "c1", "--json"])["about"]["user_id"], "dr");
        let again = other.json(&["import", &name, "--json"]);
        assert_eq!((&again["events"], &again["already_there"]), (&json!(0), &json!(3)), "{codec}: {again}");
        assert!(other.good(&["verify", "--all"]).starts_with("good"));
    }
    // A consultation that is damaged is named, and brings nothing.
    let other = Folder::new();
    let mut bytes = fs::read(source.path("none.h5")).unwrap();
    let at = bytes.windows(7).position(|window| window == b"dolor 1").unwrap();
    bytes[at] ^= 1;
    fs::write(other.path("bad.h5"), bytes).unwrap();
    let words = other.bad(1, &["import", "bad.h5"]);
    assert!(words.contains("1 consultations are damaged") && words.contains("is not what was written"), "{words}");
    assert_eq!(other.good(&["list", "--json"]), "");
}

/// A record with two consultations in an archive; the archive's file, which can be written to.
fn sealed() -> (Folder, PathBuf) {
    let folder = Folder::new();
    for id in ["c1", "c2"] {
        for number in 0..3 {
            folder.message(id, &format!("dolor {number}"));
        }
    }
    let done = folder.json(&["seal", "--older-than", "0s", "--codec", "none", "--json"]);
    let file = folder.data().join("archives").join(done["files"][0].as_str().unwrap());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    (folder, file)
}

#[test]
fn archive_that_was_opened_to_write_is_read_and_verified() {
    let (folder, file) = sealed();
    let name = file.strip_prefix(folder.0.path()).unwrap().to_str().unwrap().to_owned();
    if !written(&folder, &name, "import sys, h5py\nh5py.File(sys.argv[1], 'a').close()") {
        return;
    }
    assert_eq!(folder.events("c1").len(), 3);
    assert!(folder.good(&["verify", "--all"]).starts_with("good"));
    assert!(folder.good(&["reindex"]).contains("is as it was sealed"));
    // What is written into it does no harm, and is told.
    assert!(written(&folder, &name, "import sys, h5py\nh5py.File(sys.argv[1], 'a').attrs['x'] = 1"));
    assert_eq!(folder.events("c1").len(), 3);
    assert!(folder.bad(1, &["verify", "--all"]).contains("its events are whole"));
    assert!(folder.good(&["reindex"]).contains("6 events rewritten"));
    assert!(folder.good(&["verify", "--all"]).starts_with("good"));
}

#[test]
fn archive_whose_index_is_gone_is_written_again() {
    let (folder, file) = sealed();
    let events = folder.events("c2");
    let mut bytes = fs::read(&file).unwrap();
    bytes[..512].fill(0);
    fs::write(&file, &bytes).unwrap();
    assert!(folder.bad(1, &["tail", "c2"]).contains("caudal record reindex"));
    let done = folder.json(&["reindex", "--codec", "none", "--json"])["archives"][0].clone();
    assert_eq!((&done["whole"], &done["events"], &done["lost"]), (&json!(false), &json!(6), &json!([])), "{done}");
    assert_eq!(folder.events("c2"), events);
    assert!(folder.good(&["verify", "--all"]).starts_with("good"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o400);
    let kept = file.with_file_name(done["kept"].as_str().unwrap());
    assert_eq!(fs::read(kept).unwrap(), bytes, "what was there stays");
    assert!(folder.good(&["reindex"]).contains("is as it was sealed"));

    // An event is damaged: by the index all others are read, so the file stays.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let id = events[0]["event_id"].as_str().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(id.len()).position(|window| window == id.as_bytes()).unwrap();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    fs::write(&file, &bytes).unwrap();
    let words = folder.bad(1, &["reindex"]);
    assert!(words.contains("it stays as it is") && words.contains("chunk 0 of c2 is not what was written"), "{words}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert_eq!(folder.events("c1").len(), 3);
    // Without the index, what can be read is brought back, and the rest is named.
    bytes[..512].fill(0);
    fs::write(&file, &bytes).unwrap();
    let words = folder.bad(1, &["reindex"]);
    assert!(words.contains("3 events rewritten") && words.contains(": c2: "), "{words}");
    assert_eq!(folder.events("c1").len(), 3);
    assert!(folder.bad(1, &["tail", "c2"]).contains("event 1 of c2 is not in it"));
    assert!(folder.bad(1, &["verify", "--all"]).contains("BAD consultation c2"));
}

/// Writes a corpus, and has it open until its standard input ends.
const OPEN: &str = r#"
import sys, h5py
file = h5py.File(sys.argv[1], "w")
file.create_group("consultations/c1").create_dataset("events", data=["{}"])
file.flush()
print("ready", flush=True)
sys.stdin.read()
"#;

#[test]
fn user_says_whether_files_are_locked_that_are_imported() {
    let folder = Folder::new();
    let library = caudal_types::cache_dir().join("h5py");
    if !library.join("h5py/__init__.py").is_file() {
        eprintln!("skipped: h5py is missing; `cargo xtask setup` brings it");
        return;
    }
    let mut python = Command::new("python3");
    python.args(["-c", OPEN]).arg(folder.path("open.h5")).env("PYTHONPATH", library);
    let mut writer = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(writer.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    let words = folder.bad(1, &["import", "open.h5"]);
    assert!(words.contains("HDF5_USE_FILE_LOCKING=FALSE") && !words.contains("h5clear"), "{words}");
    let read = folder.command(&["import", "open.h5"]).env("HDF5_USE_FILE_LOCKING", "FALSE").output().unwrap();
    drop(writer.stdin.take());
    writer.wait().unwrap();
    assert!(read.status.success(), "{}", said(&read));
    assert_eq!(folder.events("c1").len(), 1);
}
