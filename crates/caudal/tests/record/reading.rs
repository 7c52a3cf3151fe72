//! What is recorded, read: consultations, events, timelines; and followed live.

use std::time::Duration;

use caudal_testkit::{
    Server,
    http::{Ask, Connection, get},
};
use serde_json::{Value, json};

use crate::{SHARED, all, append, ask_with, fill, keeps, make, message, numbers, read, refused, well};

/// Events that make a state: a message that is changed, one that is withdrawn, and facts.
fn visit(server: &Server) -> String {
    let id = make(server);
    let events = [
        json!({"event_type": "MESSAGE_RECEIVED", "payload": {"message": "Me duele", "message_id": "m-1"}, "user_id": "p"}),
        json!({"event_type": "MESSAGE_RECEIVED", "payload": {"message": "no", "message_id": "m-2"}, "user_id": "p"}),
        json!({"event_type": "MESSAGE_UPDATED", "payload": {"message_id": "m-1", "message": "Me duele mucho"}}),
        json!({"event_type": "MESSAGE_DELETED", "payload": {"message_id": "m-2"}, "user_id": "p"}),
        json!({"event_type": "DEMOGRAPHICS_UPDATED", "payload": {"age": 41}, "user_id": "dra", "metadata": {"redacted": true}}),
        json!({"event_type": "DEMOGRAPHICS_UPDATED", "payload": {"age": null, "gender": "female"}, "user_id": "dra"}),
        json!({"event_type": "SYMPTOMS_UPDATED", "payload": {"primary_symptoms": ["dolor torácico"]}, "user_id": "dra"}),
        json!({"event_type": "URGENCY_CLASSIFIED", "payload": {"urgency_level": "high"}, "user_id": "dra"}),
    ];
    for event in events {
        well(&append(server, &id, &event.to_string()));
    }
    id
}

#[test]
fn a_consultation_stands_where_its_events_say() {
    let server = SHARED.get();
    let id = visit(&server);
    let told = read(&server, &format!("/consultations/{id}"));
    let told = &told["consultation"];
    assert_eq!((&told["consultation_id"], &told["event_count"]), (&json!(id), &json!(8)));
    assert_eq!(told["about"]["user_id"], "dra. López");
    let state = &told["state"];
    assert_eq!((&state["event_count"], &state["sequence"]), (&json!(8), &json!(8)));
    assert_eq!(state["patient_data"], json!({"age": 41, "gender": "female"}));
    assert_eq!(state["symptoms"]["primary_symptoms"], json!(["dolor torácico"]));
    let text = state["messages"].to_string();
    assert!(text.contains("Me duele mucho") && !text.contains("\"no\""), "{text}");
    // Asked again, and after another event, it is the same and one more.
    assert_eq!(read(&server, &format!("/consultations/{id}"))["consultation"]["state"], *state);
    well(&append(&server, &id, &message(9)));
    assert_eq!(read(&server, &format!("/consultations/{id}"))["consultation"]["state"]["event_count"], 9);
    let soap = read(&server, &format!("/consultations/{id}/soap"));
    assert!(soap.to_string().contains("dolor torácico"), "{soap}");
    for path in ["", "/soap", "/events", "/events/1", "/events/1/receipt", "/head", "/events/stream"] {
        refused(&server.get(&format!("/consultations/nobody{path}")), 404, "not_found");
    }
}

#[test]
fn whole_numbers_beyond_64_bits_keep_their_digits() {
    const BIG: &str = "12345678901234567890123";
    let server = SHARED.get();
    let made = server.post_json("/consultations", &format!(r#"{{"user_id":"dra","patient_stub":{{"folio":{BIG}}}}}"#));
    let id = well(&made)["consultation_id"].as_str().unwrap().to_owned();
    for (kind, payload) in [
        ("EXTRACTION_COMPLETED", format!(r#"{{"extraction_data":{{"z":{BIG}}}}}"#)),
        ("SYMPTOMS_UPDATED", format!(r#"{{"primary_symptoms":[{BIG}]}}"#)),
        ("MESSAGE_RECEIVED", format!(r#"{{"message":"m","metadata":{{"id":{BIG}}}}}"#)),
        ("SOAP_SECTION_COMPLETED", format!(r#"{{"section":"plan","content":{{"folio":{BIG}}}}}"#)),
    ] {
        well(&append(&server, &id, &format!(r#"{{"event_type":"{kind}","payload":{payload}}}"#)));
    }
    let digits = |path: &str| {
        let text = server.get(path).text();
        assert!(!text.contains("1.2345678901234568e"), "{path}: {text}");
        text.matches(BIG).count()
    };
    assert_eq!(digits(&format!("/consultations/{id}")), 5);
    assert_eq!(digits(&format!("/consultations/{id}/soap")), 1);
    assert_eq!(digits(&format!("/consultations/{id}/events")), 4);
    let export = format!(r#"{{"consultation_id":"{id}","formats":["md","json","csv"]}}"#);
    let export = well(&server.post_json("/api/exports", &export))["export_id"].as_str().unwrap().to_owned();
    // Of a message its words stand in the page, and not what is said about it; the note follows the events.
    for (file, count) in [("md", 4), ("json", 5), ("csv", 4)] {
        assert_eq!(digits(&format!("/api/exports/{export}/download/consultation.{file}")), count, "{file}");
    }
}

#[test]
fn what_events_come_to_is_the_same_with_and_without_snapshots() {
    let server = keeps(&["--record-snapshot-every", "3"]);
    let shared = SHARED.get();
    let (id, other) = (visit(&server), visit(&shared));
    let state = |server: &Server, id: &str| {
        let mut state = read(server, &format!("/consultations/{id}"))["consultation"]["state"].take();
        // Their ids and times are their own.
        state.as_object_mut().unwrap().retain(|name, _| {
            ["event_count", "sequence", "events_by_type", "patient_data", "symptoms", "urgency"]
                .contains(&name.as_str())
        });
        state
    };
    let first = state(&server, &id);
    assert_eq!(first, state(&shared, &other));
    for more in 0..7 {
        well(&append(&server, &id, &message(more)));
        let state = state(&server, &id);
        assert_eq!((&state["event_count"], &state["patient_data"]), (&json!(9 + more), &first["patient_data"]));
    }
}

#[test]
fn events_come_in_pages() {
    let server = SHARED.get();
    let id = make(&server);
    fill(&server, &id, 1_200);
    well(&append(&server, &id, r#"{"event_type":"clinic:NOTE","payload":{"n":1}}"#));
    fill(&server, &id, 10);
    let page = |query: &str| {
        let page = read(&server, &format!("/consultations/{id}/events{query}"));
        assert_eq!((&page["event_count"], &page["consultation_id"]), (&json!(1_211), &json!(id)));
        let sequences = page["events"].as_array().unwrap().iter().map(|event| event["sequence"].as_u64().unwrap());
        let sequences: Vec<u64> = sequences.collect();
        assert_eq!(page["returned_count"], sequences.len());
        sequences
    };
    assert!(page("").into_iter().eq(1..=100));
    assert!(page("?limit=1000").into_iter().eq(1..=1_000));
    assert!(page("?limit=1000&offset=1000").into_iter().eq(1_001..=1_211));
    assert_eq!(page("?limit=2&after=7"), [8, 9]);
    assert_eq!(page("?limit=2&after=7&offset=3"), [11, 12]);
    assert_eq!(page("?after=1211"), [0; 0]);
    assert_eq!(page("?offset=4000000000"), [0; 0]);
    assert_eq!(page("?after=9223372036854775807&offset=10"), [0; 0]);
    assert_eq!(page("?type=clinic:NOTE"), [1_201]);
    assert_eq!(page("?type=clinic%3ANOTE&after=1201"), [0; 0]);
    assert_eq!(page("?type=MESSAGE_RECEIVED&offset=1199&limit=3"), [1_200, 1_202, 1_203]);
    assert_eq!(page("?type=NONE"), [0; 0]);
    for query in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=-1",
        "offset=-1",
        "after=1.5",
        "after=9223372036854775808",
        "page=2",
    ] {
        refused(&server.get(&format!("/consultations/{id}/events?{query}")), 400, "invalid_parameter");
    }
}

#[test]
fn one_event_is_found_by_its_id_or_its_place() {
    let server = SHARED.get();
    let (id, other) = (make(&server), make(&server));
    fill(&server, &id, 3);
    let second = read(&server, &format!("/consultations/{id}/events/2"));
    let name = second["event_id"].as_str().unwrap();
    assert_eq!(read(&server, &format!("/consultations/{id}/events/{name}")), second);
    assert_eq!(second["payload"]["n"], 2);
    for which in [
        "0",
        "4",
        "-1",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "x",
        "%00",
        &"9".repeat(400),
    ] {
        refused(&server.get(&format!("/consultations/{id}/events/{which}")), 404, "not_found");
    }
    refused(&server.get(&format!("/consultations/{other}/events/{name}")), 404, "not_found");
}

#[test]
fn consultations_are_listed_in_every_order() {
    let server = keeps(&[]);
    let ids: Vec<_> = [3, 1, 2]
        .iter()
        .map(|events| {
            let id = make(&server);
            fill(&server, &id, *events);
            id
        })
        .collect();
    for (route, name) in [("/consultations", "consultations"), ("/api/timeline/sessions", "sessions")] {
        let listed = |query: &str| {
            let page = read(&server, &format!("{route}?{query}"));
            assert_eq!(page["total"], 3, "{page}");
            let field = if name == "sessions" { "session_id" } else { "consultation_id" };
            let place = |one: &Value| ids.iter().position(|id| one[field] == **id).unwrap();
            page[name].as_array().unwrap().iter().map(place).collect::<Vec<_>>()
        };
        assert_eq!(listed(""), [2, 1, 0]);
        assert_eq!(listed("sort=recent"), [2, 1, 0]);
        assert_eq!(listed("sort=oldest"), [0, 1, 2]);
        assert_eq!(listed("sort=events_desc"), [0, 2, 1]);
        assert_eq!(listed("sort=events_asc"), [1, 2, 0]);
        assert_eq!(listed("sort=oldest&limit=1&offset=1"), [1]);
        assert_eq!(listed("offset=3"), [0; 0]);
        for query in ["sort=newest", "limit=0", "limit=501", "order=oldest"] {
            refused(&server.get(&format!("{route}?{query}")), 400, "invalid_parameter");
        }
    }
    let stats = read(&server, "/api/timeline/stats");
    assert_eq!((&stats["sessions"], &stats["longest_session"]), (&json!(3), &json!(3)), "{stats}");
    assert!(stats["events_since_start"].as_u64().unwrap() >= 6 && stats["last_session_at"].is_string(), "{stats}");
}

#[test]
fn a_timeline_says_what_was_checked() {
    let server = SHARED.get();
    let id = visit(&server);
    let told = read(&server, &format!("/api/timeline/sessions/{id}"));
    assert_eq!(
        (&told["session_id"], &told["event_count"], &told["returned_count"]),
        (&json!(id), &json!(8), &json!(8))
    );
    let events = told["events"].as_array().unwrap();
    for (event, plain) in events.iter().zip(all(&server, &id)) {
        for field in ["event_id", "sequence", "timestamp", "event_type", "audit_hash"] {
            assert_eq!(event[field], plain[field]);
        }
        assert_eq!(
            (&event["badges"]["hash_verified"], &event["badges"]["policy_compliant"]),
            (&json!("OK"), &json!("OK"))
        );
    }
    assert_eq!((&events[0]["summary"], &events[0]["user_id"]), (&json!("Me duele"), &json!("p")));
    let badge = |number: usize, name: &str| events[number]["badges"][name].as_str().unwrap().to_owned();
    assert_eq!((badge(0, "redaction_applied"), badge(4, "redaction_applied")), ("N/A".to_owned(), "OK".to_owned()));
    // Of the third nobody said who says it.
    assert_eq!((badge(0, "audit_logged"), badge(2, "audit_logged")), ("OK".to_owned(), "FAIL".to_owned()));
    // A page from the middle is checked against the link before it.
    let page = read(&server, &format!("/api/timeline/sessions/{id}?after=3&limit=2"));
    let sequences: Vec<_> = page["events"].as_array().unwrap().iter().map(|event| event["sequence"].clone()).collect();
    assert_eq!(sequences, [4, 5]);
    assert_eq!(page["events"][0]["badges"]["hash_verified"], "OK");
    refused(&server.get("/api/timeline/sessions/nobody"), 404, "not_found");
    refused(&server.get(&format!("/api/timeline/sessions/{id}?limit=501")), 400, "invalid_parameter");
    let beyond = read(&server, &format!("/api/timeline/sessions/{id}?after=9223372036854775807"));
    assert_eq!(beyond["returned_count"], 0);
}

#[test]
fn hashes_are_compared_one_to_a_hundred() {
    let server = SHARED.get();
    let id = make(&server);
    fill(&server, &id, 2);
    let event = read(&server, &format!("/consultations/{id}/events/1"));
    let link = read(&server, &format!("/consultations/{id}"))["consultation"]["chain_hash"].take();
    let compare = |items: Value| server.post_json("/api/timeline/verify-hash", &json!({"items": items}).to_string());
    let right = json!({"target_id": event["event_id"], "expected_hash": event["audit_hash"]});
    let of_all = json!({"target_id": id, "expected_hash": link});
    let good = well(&compare(json!([right, of_all])));
    assert_eq!((&good["all_valid"], &good["total"], &good["valid"]), (&json!(true), &json!(2), &json!(2)), "{good}");
    assert!(good["duration_ms"].is_number() && good["items"][0]["match"] == true);
    let bad = well(&compare(json!([
        right,
        {"target_id": event["event_id"], "expected_hash": "00".repeat(32)},
        {"target_id": "nobody", "expected_hash": "00".repeat(32)},
        {"target_id": id, "expected_hash": "x"},
    ])));
    assert_eq!((&bad["all_valid"], &bad["valid"], &bad["invalid"]), (&json!(false), &json!(1), &json!(3)));
    assert_eq!(bad["items"][1]["computed_hash"], event["audit_hash"]);
    assert!(bad["items"][2]["computed_hash"].is_null() && bad["items"][3]["error"].is_string());
    assert_eq!(well(&compare(json!(vec![right.clone(); 100])))["valid"], 100);
    refused(&compare(json!([])), 400, "invalid_parameter");
    refused(&compare(json!(vec![right; 101])), 400, "invalid_parameter");
    refused(&server.post_json("/api/timeline/verify-hash", r#"{"items":[{"target_id":1}]}"#), 400, "invalid_parameter");
    refused(&server.post_json("/api/timeline/verify-hash", ""), 400, "invalid_parameter");
}

/// Somebody who follows a consultation.
struct Follower {
    connection: Connection,
    heard: String,
}

impl Follower {
    fn new(server: &Server, id: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut connection = server.connect();
        let path = format!("/consultations/{id}/events/stream{query}");
        connection.send_head(&Ask { headers, ..get(&path) }).unwrap();
        let head = connection.read_head().unwrap();
        assert_eq!((head.status, head.header("content-type")), (200, "text/event-stream"));
        Self { connection, heard: String::new() }
    }

    /// The next event: its id, its name, its data. None at the end.
    fn next(&mut self) -> Option<(u64, String, Value)> {
        loop {
            if let Some((event, rest)) = self.heard.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.heard = rest;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let Some(id) = field("id: ") else { continue };
                let data = serde_json::from_str(&field("data: ").unwrap()).unwrap();
                return Some((id.parse().unwrap(), field("event: ").unwrap(), data));
            }
            let chunk = self.connection.read_chunk().unwrap()?;
            self.heard.push_str(&String::from_utf8(chunk).unwrap());
        }
    }
}

#[test]
fn followers_hear_what_is_there_and_what_comes() {
    let server = SHARED.get();
    let id = make(&server);
    fill(&server, &id, 250);
    let mut follower = Follower::new(&server, &id, "", &[]);
    let mut events = Vec::new();
    for number in 1..=250 {
        let (sequence, name, event) = follower.next().unwrap();
        assert_eq!((sequence, name.as_str()), (number, "MESSAGE_RECEIVED"));
        events.push(event);
    }
    assert_eq!(events, all(&server, &id), "what is followed is what is read");
    let mut second = Follower::new(&server, &id, "?after=250", &[]);
    let mut back = Follower::new(&server, &id, "", &[("Last-Event-ID", "249")]);
    assert_eq!(back.next().unwrap().0, 250);
    for number in 251..260 {
        well(&append(&server, &id, &message(number)));
        for follower in [&mut follower, &mut second, &mut back] {
            let (sequence, _, event) = follower.next().unwrap();
            assert_eq!((sequence, numbers(&[event])), (number, vec![number]));
        }
    }
    // What stands in the address counts before what a browser remembers; nonsense in the header is not heard.
    assert_eq!(Follower::new(&server, &id, "?after=9", &[("Last-Event-ID", "200")]).next().unwrap().0, 10);
    assert_eq!(Follower::new(&server, &id, "", &[("Last-Event-ID", "abc")]).next().unwrap().0, 1);
    refused(&server.get(&format!("/consultations/{id}/events/stream?after=x")), 400, "invalid_parameter");
    // Beyond everything there is nothing, and nothing breaks.
    drop(Follower::new(&server, &id, "", &[("Last-Event-ID", "18446744073709551615")]));
    assert_eq!(server.ask(&ask_with("/livez", &[])).status, 200);
}

#[test]
fn whoever_follows_is_noted_under_the_name_of_the_request() {
    let server = keeps(&[]);
    let id = make(&server);
    let path = format!("/consultations/{id}/events/stream");
    for headers in [&[][..], &[("X-Request-ID", "ward-7")]] {
        let mut follower = server.connect();
        follower.send_head(&Ask { headers, ..get(&path) }).unwrap();
        let answer = follower.read_head().unwrap();
        let noted = read(&server, "/api/audit/logs?limit=1")["logs"][0].take();
        assert_eq!(
            (&noted["event_type"], &noted["payload"]["consultation_id"]),
            (&json!("EVENTS_FOLLOWED"), &json!(id))
        );
        assert_eq!(noted["payload"]["request_id"], answer.header("x-request-id"));
    }
}

#[test]
fn a_server_that_goes_lets_its_followers_go() {
    let mut server = keeps(&[]);
    let id = make(&server);
    fill(&server, &id, 2);
    let mut follower = Follower::new(&server, &id, "", &[]);
    assert_eq!((follower.next().unwrap().0, follower.next().unwrap().0), (1, 2));
    server.signal("TERM");
    assert!(follower.next().is_none(), "the stream ends as it should");
    // exit_timeout_secs would be half a minute.
    assert!(server.wait(Duration::from_secs(10)).success(), "{}", server.log());
}
