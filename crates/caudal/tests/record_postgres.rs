//! The record over PostgreSQL from end to end: servers and `caudal record` over one real database.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use caudal_testkit::{
    Postgres, Server,
    http::{Answer, Connection, get, post},
};
use serde_json::{Value, json};
use tempfile::TempDir;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const NDJSON: (&str, &str) = ("Content-Type", "application/x-ndjson");
/// Events that are acknowledged before the server is killed.
const BEFORE: usize = 200;
/// Events that each of several appends, one by one.
const EACH: u64 = 150;

/// A schema of the database, and a folder: what servers share.
struct Place {
    folder: TempDir,
    settings: [String; 6],
}

/// One server for all; none where PostgreSQL is not installed.
fn postgres() -> Option<&'static Postgres> {
    static POSTGRES: OnceLock<Option<Postgres>> = OnceLock::new();
    let postgres = POSTGRES.get_or_init(Postgres::start).as_ref();
    if postgres.is_none() {
        eprintln!("skipped: PostgreSQL is not installed (Debian: postgresql)");
    }
    postgres
}

impl Place {
    /// None where PostgreSQL is not installed.
    fn new() -> Option<Self> {
        let postgres = postgres()?;
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data").display().to_string();
        let pairs = [("--data-dir", data), ("--database-url", postgres.url()), ("--database-schema", postgres.name())];
        let [folder_, url, schema] = pairs.map(|(flag, value)| [flag.to_owned(), value]);
        let settings = [folder_, url, schema].concat().try_into().unwrap();
        Some(Self { folder, settings })
    }

    fn server(&self) -> Server {
        let settings = self.settings.each_ref().map(String::as_str);
        Server::start_at(CAUDAL, Path::new("no-models"), &settings)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(CAUDAL);
        command.arg("record").args(words).args(&self.settings).current_dir(&self.folder);
        command
    }

    /// What `caudal record` says.
    fn record(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        let said = |bytes| String::from_utf8(bytes).unwrap();
        assert!(output.status.success(), "{words:?}: {}", said(output.stderr));
        said(output.stdout)
    }
}

/// An answer that must be a success, as JSON.
fn well(answer: &Answer) -> Value {
    assert!((200..300).contains(&answer.status), "{}: {}", answer.status, answer.text());
    answer.json()
}

fn read(server: &Server, path: &str) -> Value {
    well(&server.get(path))
}

fn message(number: u64) -> Value {
    json!({"event_type": "MESSAGE_RECEIVED", "payload": {"message": format!("Hola {number}"), "n": number}})
}

fn make(server: &Server) -> String {
    let made = well(&server.post_json("/consultations", r#"{"user_id":"dra. López"}"#));
    made["consultation_id"].as_str().unwrap().to_owned()
}

/// Messages in one body, a line each.
fn stream(server: &Server, id: &str, numbers: std::ops::Range<u64>) -> Value {
    let lines: String = numbers.map(|number| message(number).to_string() + "\n").collect();
    well(&server.ask(&post(&format!("/consultations/{id}/events/stream"), &[NDJSON], lines.as_bytes())))
}

/// All events of a consultation, whose sequence has no gap and whose hashes are right.
fn all(server: &Server, id: &str) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    loop {
        let mut page = read(server, &format!("/consultations/{id}/events?limit=1000&after={}", events.len()));
        match page["events"].take() {
            Value::Array(page) if !page.is_empty() => events.extend(page),
            _ => break,
        }
    }
    assert!(events.iter().map(|event| event["sequence"].as_u64().unwrap()).eq(1..=events.len() as u64));
    let verdict = well(&server.ask(&post(&format!("/consultations/{id}/verify"), &[], b"")));
    assert_eq!((&verdict["valid"], &verdict["events"]), (&json!(true), &json!(events.len())), "{verdict}");
    events
}

/// Appends one by one until the server is gone; tells the sequence and the hash of each that was acknowledged.
fn append_on(server: &Server, id: &str, answered: &AtomicUsize) -> Vec<(u64, String)> {
    let (mut connection, mut told) = (Connection::open(server.address()).unwrap(), Vec::new());
    let path = format!("/consultations/{id}/events");
    for number in 0.. {
        let Ok(answer) = connection.ask(&post(&path, &[JSON], message(number).to_string().as_bytes())) else { break };
        let answer = well(&answer);
        told.push((answer["sequence"].as_u64().unwrap(), answer["audit_hash"].as_str().unwrap().to_owned()));
        answered.fetch_add(1, Relaxed);
    }
    told
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let Some(place) = Place::new() else { return };
    let mut server = place.server();
    let (id, busy) = (make(&server), make(&server));
    let events = format!("/consultations/{id}/events");
    let keyed = |server: &Server| {
        let headers = [JSON, ("Idempotency-Key", "once")];
        well(&server.ask(&post(&events, &headers, message(1).to_string().as_bytes())))
    };
    let first = keyed(&server);
    let batch = json!({"events": [message(2), message(3)], "expected_version": 1}).to_string();
    assert_eq!(well(&server.post_json(&format!("{events}/batch"), &batch))["last_sequence"], 3);
    assert_eq!(stream(&server, &id, 4..2_004)["appended"], 2_000);
    let late = server.post_json(&format!("{events}/batch"), &batch);
    assert_eq!((late.status, late.code().as_str()), (409, "version_conflict"));
    let before = all(&server, &id);
    let state = read(&server, &format!("/consultations/{id}"));
    let export = well(&server.post_json("/api/exports", &json!({"consultation_id": id}).to_string()));
    let export = format!("/api/exports/{}", export["export_id"].as_str().unwrap());
    let file = server.get(&format!("{export}/download/consultation.json")).text();
    assert!(file.contains("Hola 2003"), "{file}");

    let answered = AtomicUsize::new(0);
    let told = thread::scope(|scope| {
        let clients: Vec<_> = (0..3).map(|_| scope.spawn(|| append_on(&server, &busy, &answered))).collect();
        while answered.load(Relaxed) < BEFORE {
            thread::sleep(Duration::from_millis(2));
        }
        server.signal("KILL");
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    server.wait(Duration::from_secs(10));

    let server = place.server();
    assert_eq!(all(&server, &id), before);
    assert_eq!(read(&server, &format!("/consultations/{id}")), state);
    let again = keyed(&server);
    assert_eq!((&again["event_id"], &again["repeated"]), (&first["event_id"], &json!(true)));
    assert_eq!(well(&server.ask(&post(&format!("{export}/verify"), &[], b"")))["valid"], true);
    assert_eq!(server.get(&format!("{export}/download/consultation.json")).text(), file);
    let kept = all(&server, &busy);
    for (sequence, hash) in told {
        assert_eq!(kept[sequence as usize - 1]["audit_hash"], hash, "event {sequence} was acknowledged");
    }
}

#[test]
fn two_servers_append_to_one_consultation() {
    let Some(place) = Place::new() else { return };
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(|| place.server());
        (place.server(), one.join().unwrap())
    });
    let id = make(&one);
    // Whoever follows by one server hears what came by the other too.
    let mut follower = one.connect();
    follower.send_head(&get(&format!("/consultations/{id}/events/stream"))).unwrap();
    assert_eq!(follower.read_head().unwrap().status, 200);
    let path = format!("/consultations/{id}/events");
    thread::scope(|scope| {
        for server in [&one, &other] {
            scope.spawn(|| assert_eq!(stream(server, &id, 0..EACH)["appended"], EACH));
            scope.spawn(|| {
                for number in 0..EACH {
                    well(&server.post_json(&path, &message(number).to_string()));
                }
            });
        }
    });
    let events = all(&one, &id);
    assert_eq!((events.len() as u64, &events), (4 * EACH, &all(&other, &id)));
    for path in [format!("/consultations/{id}"), format!("/consultations/{id}/head")] {
        assert_eq!(read(&one, &path), read(&other, &path));
    }
    let mut heard = String::new();
    while heard.matches("\n\n").count() < events.len() {
        heard.push_str(&String::from_utf8(follower.read_chunk().unwrap().unwrap()).unwrap());
    }
    let ids = heard.lines().filter_map(|line| line.strip_prefix("id: ")?.parse::<u64>().ok());
    assert!(ids.eq(1..=4 * EACH));
}

#[test]
fn the_command_line_reads_and_writes_the_same_record() {
    let Some(place) = Place::new() else { return };
    // Without a server, before there was one.
    let payload = message(1)["payload"].to_string();
    let append = ["append", "c1", "--type", "MESSAGE_RECEIVED", "--payload", &payload];
    let json = |words: &[&str]| serde_json::from_str::<Value>(&place.record(words)).unwrap();
    assert_eq!(json(&[&append[..], &["--create"]].concat())["sequence"], 1);
    assert_eq!(json(&["verify", "c1", "--json"])["events"], 1, "in a folder that nobody has made");
    let server = place.server();
    assert_eq!(stream(&server, "c1", 2..4)["last_sequence"], 3);
    // Beside one.
    assert_eq!(json(&append)["sequence"], 4);
    assert_eq!(all(&server, "c1").len(), 4);
    let listed = json(&["list", "--json"]);
    assert_eq!((&listed["consultation_id"], &listed["event_count"]), (&json!("c1"), &json!(4)));
    let (shown, told) = (json(&["show", "c1", "--json"]), read(&server, "/consultations/c1"));
    assert_eq!(shown["state"], told["consultation"]["state"]);
    let verified = json(&["verify", "--all", "--json"]);
    assert_eq!((&verified["valid"], &verified["events"]), (&json!(true), &json!(4)), "{verified}");
    assert_eq!(
        json(&["verify", "c1", "--json"])["head"],
        well(&server.ask(&post("/consultations/c1/verify", &[], b"")))["head"]
    );
    let stats = json(&["stats", "--json"]);
    assert_eq!(
        (&stats["engine"], &stats["consultations"], &stats["events"]),
        (&json!("postgresql"), &json!(1), &json!(4))
    );
    assert!(stats["database_bytes"].is_null() && !place.record(&["stats"]).contains("of log"), "{stats}");
    // What is of SQLite alone says so, and touches nothing.
    for (words, told) in [(["backup", "copy.db"], "pg_dump"), (["restore", "copy.db"], "PostgreSQL")] {
        fs::write(place.folder.path().join("copy.db"), "").unwrap();
        let output = place.command(&words).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(told), "{said}");
    }
    assert!(!place.folder.path().join("data/caudal.db").exists());
}

#[test]
fn documented_view_shows_events_to_psql() {
    let Some(place) = Place::new() else { return };
    let payload = message(1)["payload"].to_string();
    place.record(&["append", "c1", "--type", "MESSAGE_RECEIVED", "--payload", &payload, "--user", "dr", "--create"]);
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/store.md")).unwrap();
    let (_, rest) = document.split_once("```sql\n").unwrap();
    let (view, _) = rest.split_once("```").unwrap();
    let schema = &place.settings[5];
    let view = view.replace("caudal.", &format!("{schema}.")).replace("caudal_events", &format!("{schema}_events"));
    let select = "consultation, sequence, event_type, payload ->> 'message', metadata ->> 'user_id', \
                  now() - appended_at < interval '1 hour', length(audit_hash)";
    let shown = postgres().unwrap().sql(&format!("{view}; select {select} from {schema}_events"));
    let said = message(1)["payload"]["message"].as_str().unwrap().to_owned();
    assert_eq!(shown.trim(), format!("c1|1|MESSAGE_RECEIVED|{said}|dr|t|64"));
}
