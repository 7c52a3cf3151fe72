//! Events streamed in, as lines or as the file of a form, with and without acknowledgements.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    thread,
    time::Duration,
};

use caudal_testkit::{
    Server,
    http::{Answer, Ask, Connection, chunk, form, post},
};
use serde_json::{Value, json};

use crate::{
    JSON, NDJSON, SHARED, all, count, either, keeps, lines, make, message, numbers, read, refused, well, whole,
};

const MIB: u64 = 1 << 20;
const ACKNOWLEDGED: [(&str, &str); 3] = [NDJSON, ("Accept", "application/x-ndjson"), ("Transfer-Encoding", "chunked")];

fn path(id: &str) -> String {
    format!("/consultations/{id}/events/stream")
}

/// Streams `body` in, with its length.
fn stream(server: &Server, id: &str, body: impl AsRef<[u8]>) -> Answer {
    server.ask(&post(&path(id), &[NDJSON], body.as_ref()))
}

/// Begins a stream whose body comes in chunks.
fn begin(server: &Server, id: &str, headers: &[(&str, &str)]) -> Connection {
    let mut connection = server.connect();
    connection.send_head(&Ask { method: "POST", path: &path(id), headers, body: None }).unwrap();
    connection
}

/// What an answer in lines says.
fn said(answer: &Answer) -> Vec<Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn lines_are_events() {
    let server = SHARED.get();
    let id = make(&server);
    let done = stream(&server, &id, lines(1, 3));
    let expected = json!({"consultation_id": id, "appended": 3, "last_sequence": 3, "event_count": 3});
    assert_eq!((done.status, done.json()), (201, expected));
    // The last line without its end, blank ones, ends of lines as Windows writes them.
    let odd = format!("\n\r\n{}\r\n \t \n\n{}\r\n{}", message(4), message(5), message(6));
    assert_eq!(well(&stream(&server, &id, odd))["appended"], 3);
    // In chunks that end anywhere.
    let mut connection = begin(&server, &id, &[NDJSON, ("Transfer-Encoding", "chunked")]);
    for piece in lines(7, 40).as_bytes().chunks(17) {
        connection.send_chunk(piece).unwrap();
    }
    connection.send_chunk(b"").unwrap();
    assert_eq!(well(&connection.read().unwrap())["event_count"], 40);
    // Nothing is nothing.
    let nothing = well(&stream(&server, &id, "\n\n"));
    assert_eq!(nothing["appended"], 0, "{nothing}");
    assert!(numbers(&all(&server, &id)).into_iter().eq(1..=40));
    assert_eq!(whole(&server, &id), 40);
}

#[test]
fn a_file_of_a_form_is_the_same() {
    let server = SHARED.get();
    let id = make(&server);
    let body = lines(1, 5_000);
    let done = server.post_form(&path(&id), &[("note", None, b"x"), ("file", Some("events.ndjson"), body.as_bytes())]);
    assert_eq!((done.status, &done.json()["appended"]), (201, &json!(5_000)));
    let more = lines(5_001, 5_002);
    assert_eq!(server.post_form(&path(&id), &[("events", None, more.as_bytes())]).status, 201);
    refused(&server.post_form(&path(&id), &[("note", None, b"x")]), 400, "missing_file");
    refused(&server.ask(&post(&path(&id), &[("Content-Type", "multipart/form-data")], b"x")), 400, "invalid_request");
    assert_eq!(count(&server, &id), 5_002);

    // Half a form: what came whole is kept, and the sender is told how far it went.
    let (content_type, form) = form(&[("file", Some("events.ndjson"), lines(5_003, 5_012).as_bytes())]);
    let cut = &form[..form.len() - 60];
    let half = server.ask(&post(&path(&id), &[("Content-Type", &content_type)], cut));
    refused(&half, 400, "invalid_request");
    let kept = half.json()["error"]["details"]["appended"].as_u64().unwrap();
    assert!(kept < 10, "{}", half.text());
    assert_eq!((count(&server, &id), whole(&server, &id)), (5_002 + kept, 5_002 + kept));
}

#[test]
fn a_bad_line_is_named_and_those_before_it_are_kept() {
    let server = SHARED.get();
    let id = make(&server);
    let stopped = |answer: &Answer, status: u16, code: &str, line: u64, kept: u64, last: u64| {
        let words = refused(answer, status, code);
        assert!(words.contains(&format!("line {line}: ")), "{words}");
        assert!(words.contains(&format!("{kept} events before it are kept")), "{words}");
        let details = &answer.json()["error"]["details"];
        assert_eq!(*details, json!({"line": line, "appended": kept, "last_sequence": last}));
    };
    let bad = format!("{}\n{{\"event_type\":\n{}", lines(1, 1_500), lines(1_501, 1_600));
    stopped(&stream(&server, &id, bad), 400, "invalid_json", 1_502, 1_500, 1_500);
    assert!(numbers(&all(&server, &id)).into_iter().eq(1..=1_500));
    let first = stream(&server, &id, "[1]\n");
    assert_eq!(first.json()["error"]["details"]["appended"], 0, "{}", first.text());

    let unknown = format!("{}{}\n", lines(1_501, 1_502), r#"{"event_type":"NONE","payload":{}}"#);
    stopped(&stream(&server, &id, unknown), 422, "invalid_event", 3, 2, 1_502);
    let huge = format!("{}{}\n", lines(1_503, 1_503), message(1).replace("Hola", &"x".repeat(1 << 20)));
    stopped(&stream(&server, &id, &huge), 413, "body_too_large", 2, 1, 1_503);
    // One that never ends is not waited for.
    let mut connection = begin(&server, &id, &[NDJSON, ("Transfer-Encoding", "chunked")]);
    connection.send_chunk(lines(1_504, 1_504).as_bytes()).unwrap();
    let endless = chunk(&[b'x'; 64 << 10]);
    let _ = (0..40).try_for_each(|_| connection.send(&endless));
    stopped(&connection.read().unwrap(), 413, "body_too_large", 2, 1, 1_504);
    assert_eq!(whole(&server, &id), 1_504);
}

#[test]
fn doubled_id_is_named_by_its_line_and_lines_before_it_are_kept() {
    let server = SHARED.get();
    let named = |number: u64, id: u64| {
        message(number).replacen('{', &format!(r#"{{"event_id":"0191d2b0-0000-7000-8000-{id:012}","#), 1)
    };
    for (before, id) in [(1, 1), (700, 2)] {
        let name = make(&server);
        let doubled = format!("{}\n{}{}\n{}", named(0, id), lines(1, before), named(before + 1, id), message(9));
        let answer = stream(&server, &name, doubled);
        let (line, kept) = (before + 2, before + 1);
        let words = refused(&answer, 409, "exists");
        assert!(words.starts_with(&format!("line {line}: ")), "{words}");
        let details = &answer.json()["error"]["details"];
        assert_eq!((&details["line"], &details["appended"]), (&json!(line), &json!(kept)), "{details}");
        assert!(numbers(&all(&server, &name)).into_iter().eq(0..kept), "those before it, and none after it");
    }
    // The same event twice is recorded once.
    let name = make(&server);
    let twice = well(&stream(&server, &name, format!("{0}\n{0}\n{1}\n", named(1, 3), message(2))));
    assert_eq!((&twice["appended"], &twice["repeated"], &twice["last_sequence"]), (&json!(2), &json!(1), &json!(2)));
}

#[test]
fn stream_that_is_sent_again_records_what_is_missing() {
    let server = SHARED.get();
    let id = make(&server);
    let named = |number: u64| {
        message(number).replacen('{', &format!(r#"{{"event_id":"0191d2b1-0000-7000-8000-{number:012}","#), 1) + "\n"
    };
    let all_lines = |count: u64| (1..=count).map(named).collect::<String>();
    let expecting =
        |lines: &str| server.ask(&post(&format!("{}?expected_version=0", path(&id)), &[NDJSON], lines.as_bytes()));
    assert_eq!(expecting(&all_lines(600)).status, 201);
    let again = expecting(&all_lines(1_300));
    assert_eq!(again.status, 201, "{}", again.text());
    let told = again.json();
    assert_eq!(
        (&told["appended"], &told["repeated"], &told["last_sequence"]),
        (&json!(700), &json!(600), &json!(1_300))
    );
    let whole_again = stream(&server, &id, format!("\u{feff}{}", all_lines(1_300)));
    assert_eq!((whole_again.status, &whole_again.json()["repeated"]), (200, &json!(1_300)), "{}", whole_again.text());
    assert!(numbers(&all(&server, &id)).into_iter().eq(1..=1_300));
    assert_eq!(whole(&server, &id), 1_300);
}

#[test]
fn nothing_is_recorded_after_a_group_that_was_refused() {
    let server = SHARED.get();
    let id = make(&server);
    for lines in [lines(1, 5_000), lines(1, 1)] {
        let answer = server.ask(&post(&format!("{}?expected_version=1", path(&id)), &[NDJSON], lines.as_bytes()));
        let words = refused(&answer, 409, "version_conflict");
        assert!(words.starts_with("line 1: ") && words.contains("; 0 events before it are kept"), "{words}");
        assert_eq!(count(&server, &id), 0);
    }
    let inside = message(0).replacen('{', r#"{"expected_version":7,"#, 1);
    let answer = stream(&server, &id, format!("{}{inside}\n{}", lines(1, 600), lines(601, 5_000)));
    let words = refused(&answer, 409, "version_conflict");
    assert!(words.starts_with("line 601: "), "{words}");
    assert_eq!(answer.json()["error"]["details"], json!({"line": 601, "appended": 600, "last_sequence": 600}));
    assert_eq!((count(&server, &id), whole(&server, &id)), (600, 600));
}

#[test]
fn what_a_stream_expects_must_hold() {
    let server = SHARED.get();
    let id = make(&server);
    let with = |version: &str| {
        server.ask(&post(&format!("{}?expected_version={version}", path(&id)), &[NDJSON], lines(1, 2).as_bytes()))
    };
    refused(&with("1"), 409, "version_conflict");
    assert_eq!(with("0").status, 201);
    refused(&with("0"), 409, "version_conflict");
    refused(&with("-1"), 400, "invalid_parameter");
    refused(&with("x"), 400, "invalid_parameter");
    // Within the stream as well.
    let inside = message(3).replacen('{', r#"{"expected_version":7,"#, 1);
    let answer = stream(&server, &id, format!("{}\n{inside}\n", message(3)));
    refused(&answer, 409, "version_conflict");
    assert_eq!(count(&server, &id), 3);
    refused(&server.ask(&post(&path(&id), &[NDJSON, ("Idempotency-Key", "k")], b"")), 400, "invalid_parameter");
    refused(&server.ask(&post(&path(&id), &[JSON], message(4).as_bytes())), 415, "unsupported_media_type");
    refused(&stream(&server, "nobody", lines(1, 1)), 404, "not_found");
    assert_eq!(count(&server, &id), 3);
}

#[test]
fn what_is_acknowledged_can_be_read() {
    let server = SHARED.get();
    let id = make(&server);
    let mut connection = begin(&server, &id, &ACKNOWLEDGED);
    let mut sender = connection.sender().unwrap();
    let sending = thread::spawn(move || {
        for group in 0..20 {
            sender.write_all(&chunk(lines(group * 500 + 1, group * 500 + 500).as_bytes())).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
        sender.write_all(&chunk(b"")).unwrap();
    });
    let head = connection.read_head().unwrap();
    assert_eq!((head.status, head.header("content-type")), (200, "application/x-ndjson"));
    let (mut told, mut last) = (0, None);
    while let Some(piece) = connection.read_chunk().unwrap() {
        for line in String::from_utf8(piece).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if let Some(acknowledged) = line["acknowledged"].as_u64() {
                assert!(acknowledged > told && line["last_sequence"] == acknowledged, "{line} after {told}");
                assert!(count(&server, &id) >= acknowledged, "{line}");
                told = acknowledged;
            }
            last = Some(line);
        }
    }
    sending.join().unwrap();
    let expected = json!({"consultation_id": id, "appended": 10_000, "last_sequence": 10_000, "event_count": 10_000});
    assert_eq!((last.unwrap(), told > 0), (expected, true));
    assert!(numbers(&all(&server, &id)).into_iter().eq(1..=10_000));
    // How it ends is told in the last line, whatever it is.
    let answer = server.ask(&post(&path(&id), &ACKNOWLEDGED[..2], format!("{}{{x\n", lines(1, 3)).as_bytes()));
    assert_eq!(answer.status, 200);
    let end = &said(&answer).pop().unwrap()["error"];
    assert_eq!((&end["code"], &end["details"]["appended"]), (&json!("invalid_json"), &json!(3)));
    assert_eq!(end["details"]["last_sequence"], 10_003);
}

#[test]
fn who_reads_only_at_the_end_does_not_stall() {
    let server = SHARED.get();
    let id = make(&server);
    let all_of_them = either(200_000, 2_000_000);
    let mut connection = begin(&server, &id, &ACKNOWLEDGED);
    let small: String = r#"{"event_type":"a:B","payload":{}}"#.to_owned() + "\n";
    let thousand = chunk(small.repeat(1_000).as_bytes());
    for _ in 0..all_of_them / 1_000 {
        connection.send(&thousand).unwrap();
    }
    connection.send_chunk(b"").unwrap();
    let end = said(&connection.read().unwrap()).pop().unwrap();
    assert_eq!(end["appended"], all_of_them);
    assert_eq!((count(&server, &id), whole(&server, &id)), (all_of_them, all_of_them));
}

#[test]
fn who_hangs_up_midway_finds_what_was_acknowledged() {
    let server = SHARED.get();
    let id = make(&server);
    let mut connection = begin(&server, &id, &ACKNOWLEDGED);
    connection.send_chunk(lines(1, 2_000).as_bytes()).unwrap();
    connection.send_chunk(b"{\"event_type\":\"MESSAGE_REC").unwrap();
    assert_eq!(connection.read_head().unwrap().status, 200);
    let piece = connection.read_chunk().unwrap().unwrap();
    let told: Value = serde_json::from_slice(piece.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    connection.stream().shutdown(Shutdown::Both).unwrap();
    drop(connection);
    let there = count(&server, &id);
    assert!(there >= told["acknowledged"].as_u64().unwrap() && there <= 2_000, "{told} of {there}");
    let events = all(&server, &id);
    assert!(numbers(&events).into_iter().eq(1..=events.len() as u64));
    // And whoever is told nothing on the way: a beginning of what was sent, or nothing.
    let other = make(&server);
    let mut connection = begin(&server, &other, &[NDJSON, ("Transfer-Encoding", "chunked")]);
    connection.send_chunk(lines(1, 2_000).as_bytes()).unwrap();
    drop(connection);
    let events = all(&server, &other);
    assert!(numbers(&events).into_iter().eq(1..=events.len() as u64) && events.len() <= 2_000);
    assert_eq!(well(&stream(&server, &other, lines(1, 1)))["appended"], 1);
    whole(&server, &other);
}

#[test]
fn who_pauses_too_long_is_not_waited_for() {
    let server = keeps(&["--body-timeout-secs", "1"]);
    let id = make(&server);
    let mut connection = begin(&server, &id, &[NDJSON, ("Transfer-Encoding", "chunked")]);
    connection.send_chunk(lines(1, 3).as_bytes()).unwrap();
    let answer = connection.read().unwrap();
    refused(&answer, 408, "body_timeout");
    assert_eq!(answer.json()["error"]["details"]["appended"], 3, "{}", answer.text());
    assert_eq!(count(&server, &id), 3);
}

#[test]
fn a_long_stream_takes_little_memory() {
    let server = keeps(&[]);
    let id = make(&server);
    let long = message(1).replace("Hola", &"x".repeat(1_000)) + "\n";
    let piece = chunk(long.repeat(1_000).as_bytes());
    // Streams so many MiB in, and tells how many were resident at most meanwhile.
    let stream = |mib: u64| {
        let pieces = mib * MIB / (long.len() as u64 * 1_000);
        let mut connection = begin(&server, &id, &[NDJSON, ("Transfer-Encoding", "chunked")]);
        let mut most = 0;
        for number in 0..pieces {
            connection.send(&piece).unwrap();
            if number % 8 == 0 {
                most = most.max(server.resident());
            }
        }
        connection.send_chunk(b"").unwrap();
        assert_eq!(well(&connection.read().unwrap())["appended"], pieces * 1_000);
        most / MIB
    };
    let fresh = server.resident() / MIB;
    // The store keeps 64 MiB of pages at hand: a stream fills them, and however long it is, no more.
    let warm = stream(96);
    let length = either(60, 5_000);
    let most = stream(length);
    println!(
        "{fresh} MiB resident, {warm} after the first 96 MiB, {most} at most while {length} MiB more were streamed in"
    );
    assert!(warm - fresh < 64 + 60, "{fresh} MiB, then {warm}");
    assert!(most.saturating_sub(warm) < either(20, 60), "{warm} MiB, then {most}");
}

#[test]
fn streams_side_by_side_stay_in_order() {
    let server = SHARED.get();
    let ids: Vec<_> = (0..6).map(|_| make(&server)).collect();
    thread::scope(|scope| {
        for id in &ids {
            let server = &server;
            scope.spawn(move || assert_eq!(well(&stream(server, id, lines(1, 3_000)))["appended"], 3_000));
        }
    });
    for id in &ids {
        assert!(numbers(&all(&server, id)).into_iter().eq(1..=3_000));
    }
}

#[test]
fn whoever_follows_sees_what_is_streamed() {
    let server = SHARED.get();
    let id = make(&server);
    let mut follower = server.connect();
    let headers = [("Accept", "text/event-stream")];
    follower.send_head(&Ask { method: "GET", path: &path(&id), headers: &headers, body: None }).unwrap();
    assert_eq!(follower.read_head().unwrap().header("content-type"), "text/event-stream");
    assert_eq!(stream(&server, &id, lines(1, 1_000)).status, 201);
    let mut heard = String::new();
    while heard.matches("\n\n").count() < 1_000 {
        heard.push_str(&String::from_utf8(follower.read_chunk().unwrap().unwrap()).unwrap());
    }
    let ids: Vec<u64> = heard.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    assert!(ids.into_iter().eq(1..=1_000));
    assert_eq!(read(&server, &format!("/consultations/{id}"))["consultation"]["event_count"], 1_000);
}

#[test]
fn a_length_that_is_not_kept_breaks_off() {
    let server = SHARED.get();
    let id = make(&server);
    let mut connection = server.connect();
    let path = path(&id);
    let headers = [NDJSON, ("Content-Length", "100000")];
    connection.send_head(&Ask { method: "POST", path: &path, headers: &headers, body: None }).unwrap();
    connection.send(lines(1, 3).as_bytes()).unwrap();
    connection.stream().shutdown(Shutdown::Write).unwrap();
    // Whether an answer still reaches who hung up is not promised.
    let mut rest = BufReader::new(connection.sender().unwrap());
    let mut line = String::new();
    let _ = rest.read_line(&mut line).and_then(|_| rest.read_to_string(&mut String::new()));
    assert!(!line.starts_with("HTTP/1.1 2"), "{line}");
    let events = all(&server, &id);
    assert!(events.len() <= 3 && numbers(&events).into_iter().eq(1..=events.len() as u64));
}
