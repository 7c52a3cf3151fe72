//! Connections whose answer takes long: they stay as long as the client takes some of it, and count as long as they last.

use std::{
    fs,
    io::Read,
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::http::{self, Ask, Connection, get, post};

use crate::{NDJSON, append, fill, keeps, make, message, numbers, read, well};

/// A server that closes idle connections after a second.
fn impatient(arguments: &[&str]) -> caudal_testkit::Server {
    keeps(&[&["--keep-alive-secs", "1", "--header-timeout-secs", "1"], arguments].concat())
}

/// A consultation with `count` events of `bytes` each.
fn make_large(server: &caudal_testkit::Server, count: usize, bytes: usize) -> String {
    let id = make(server);
    let text = "x".repeat(bytes);
    let event = format!(r#"{{"event_type":"MESSAGE_RECEIVED","payload":{{"message":"{text}"}},"user_id":"dra"}}"#);
    for _ in 0..count {
        well(&append(server, &id, &event));
    }
    id
}

#[test]
fn follower_stays_connected_longer_than_the_keep_alive_timeout() {
    let server = impatient(&[]);
    let id = make(&server);
    let mut follower = Connection::open(server.address()).unwrap();
    follower.send_head(&get(&format!("/consultations/{id}/events/stream"))).unwrap();
    assert_eq!(follower.read_head().unwrap().status, 200);
    for number in 1..=6 {
        thread::sleep(Duration::from_millis(600));
        well(&append(&server, &id, &message(number)));
        let heard = follower.read_chunk().unwrap().expect("the stream continues");
        assert!(String::from_utf8(heard).unwrap().contains(&format!("Hola {number}\"")), "event {number}");
    }
}

#[test]
fn followers_that_hear_nothing_cost_no_reads() {
    const FOLLOWERS: u64 = 150;
    let server = keeps(&["--memory-monitoring", "false"]);
    let id = make(&server);
    let follow = |_| {
        let mut follower = Connection::open(server.address()).unwrap();
        follower.send_head(&get(&format!("/consultations/{id}/events/stream"))).unwrap();
        assert_eq!(follower.read_head().unwrap().status, 200);
        follower
    };
    let _followers: Vec<_> = (0..FOLLOWERS).map(follow).collect();
    let reads = || -> u64 {
        let counts = fs::read_to_string(format!("/proc/{}/io", server.pid())).unwrap();
        counts.lines().find_map(|line| line.strip_prefix("syscr: ")).unwrap().parse().unwrap()
    };
    let before = reads();
    // The database is polled every second, for all followers together.
    thread::sleep(Duration::from_millis(1500));
    let grown = reads() - before;
    assert!(grown < FOLLOWERS, "{grown} reads for {FOLLOWERS} followers");
}

#[test]
fn large_answer_that_is_read_slowly_arrives_whole() {
    let server = impatient(&[]);
    let id = make_large(&server, 8, 900_000);
    let mut client = Connection::open(server.address()).unwrap();
    // Read in pieces with pauses: 3 s in all, three times the timeout.
    client.send_head(&get(&format!("/consultations/{id}/events?limit=8"))).unwrap();
    let head = client.read_head().unwrap();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, "chunked"), "in pieces");
    let mut body = Vec::new();
    while let Some(chunk) = client.read_chunk().unwrap() {
        body.extend(chunk);
        thread::sleep(Duration::from_millis(30));
    }
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((answer["returned_count"].as_u64(), answer["event_count"].as_u64()), (Some(8), Some(8)));
    let events = answer["events"].as_array().unwrap();
    assert!(events.iter().all(|event| event["payload"]["message"].as_str().unwrap().len() == 900_000));
}

#[test]
fn list_in_pieces_holds_the_same_events_as_pages_do() {
    let server = keeps(&[]);
    let id = make(&server);
    // 3 x 500 events of some 700 bytes with their hashes: several pieces.
    for _ in 0..3 {
        fill(&server, &id, 500);
    }
    let page = |query: &str| read(&server, &format!("/consultations/{id}/events?{query}"));
    for query in
        ["limit=1000", "limit=1000&offset=300", "limit=900&after=700", "limit=1000&type=MESSAGE_RECEIVED&offset=200"]
    {
        let whole = page(query);
        let events = whole["events"].as_array().unwrap();
        assert_eq!(whole["returned_count"].as_u64().unwrap() as usize, events.len(), "{query}");
        let first = events[0]["sequence"].as_u64().unwrap();
        let expected: Vec<u64> = (first..).take(events.len()).collect();
        let sequences: Vec<u64> = events.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
        assert_eq!(sequences, expected, "{query}");
        assert_eq!(numbers(events)[0], (first - 1) % 500 + 1, "{query}");
    }
    assert_eq!(page("limit=1000&offset=300")["events"].as_array().unwrap().len(), 1000);
    assert_eq!(page("limit=1000&offset=1400")["events"].as_array().unwrap().len(), 100);
    assert_eq!(page("limit=1000&type=NONE_OF_THESE")["events"].as_array().unwrap().len(), 0);
}

#[test]
fn client_that_stops_reading_is_disconnected_and_gives_its_slot_back() {
    let server = impatient(&[]);
    let id = make_large(&server, 14, 900_000);
    let mut stalled = Connection::open(server.address()).unwrap();
    stalled.send_head(&get(&format!("/consultations/{id}/events?limit=14"))).unwrap();
    let in_progress = || read(&server, "/health")["performance"]["requests_in_progress"].as_u64().unwrap();
    let began = Instant::now();
    while in_progress() == 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "an answer that is not sent yet counts");
        thread::sleep(Duration::from_millis(10));
    }
    while in_progress() > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "a client that reads nothing is disconnected");
        thread::sleep(Duration::from_millis(50));
    }
    let mut all = Vec::new();
    let cut = stalled.stream().read_to_end(&mut all);
    assert!(cut.is_err() || all.len() < 14 * 900_000, "the answer was cut");
}

#[test]
fn uploads_without_a_deadline_have_slots_of_their_own() {
    let server = keeps(&["--concurrency-limit", "4", "--body-timeout-secs", "2"]);
    let id = make(&server);
    let path = format!("/consultations/{id}/events/stream");
    let upload = Ask { headers: &[NDJSON, ("Transfer-Encoding", "chunked")], ..post(&path, &[], b"") };
    let upload = Ask { body: None, ..upload };
    let mut open: Vec<Connection> = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(server.address()).unwrap();
        connection.send_head(&upload).unwrap();
        connection.send_chunk(b" ").unwrap();
        open.push(connection);
    }
    let began = Instant::now();
    while read(&server, "/health")["performance"]["requests_in_progress"].as_u64() != Some(2) {
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    let mut third = Connection::open(server.address()).unwrap();
    third.send_head(&upload).unwrap();
    assert_eq!(third.read_head().unwrap().status, 429, "half of concurrency_limit");
    for number in 1..=4 {
        well(&append(&server, &id, &message(number)));
    }
    // Bytes that come too slowly end an upload, though it never pauses for long.
    let began = Instant::now();
    let slow = &mut open[0];
    while began.elapsed() < Duration::from_secs(3) {
        thread::sleep(Duration::from_millis(300));
        if slow.send_chunk(b" ").is_err() {
            break;
        }
    }
    assert_eq!(slow.read().unwrap().status, 408);
}

#[test]
fn oversized_head_is_refused() {
    let server = crate::SHARED.get();
    let filler = "a".repeat(200_000);
    let answer = http::once(server.address(), &Ask { headers: &[("X-Filler", &filler)], ..get("/livez") });
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 431));
    let filler = "a".repeat(30_000);
    let answer = http::once(server.address(), &Ask { headers: &[("X-Filler", &filler)], ..get("/livez") });
    assert_eq!(answer.unwrap().status, 200);
}

#[test]
fn image_parameters_on_routes_without_images_are_refused() {
    let server = crate::SHARED.get();
    for path in ["/v1/embeddings?model=other", "/v2/models/any/infer?conf=0.9"] {
        let refused = server.post_json(path, "{}");
        assert_eq!(refused.status, 400, "{path}: {}", refused.text());
        assert!(refused.text().contains("has no effect on this route"), "{}", refused.text());
    }
}
