//! Whatever is sent, the answer says what is wrong and what to do, nothing is recorded, and the server lives.

use caudal_testkit::{
    Repo, Server,
    http::{Ask, post},
};
use serde_json::json;

use crate::{
    CAUDAL, JSON, NDJSON, SHARED, all, append, batch, count, keyed, make, message, read, refused, well, whole,
};

/// An event of somebody's own with this payload.
fn own(payload: &str) -> String {
    format!(r#"{{"event_type":"a:B","payload":{payload}}}"#)
}

/// Sends a body by every door, and expects the same refusal from each.
fn everywhere(server: &Server, body: &[u8], status: u16, code: &str) {
    let id = make(server);
    let send = |path: &str, kind: (&str, &str), body: &[u8]| {
        server.ask(&post(&format!("/consultations/{id}/events{path}"), &[kind], body))
    };
    let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
    let told = refused(&send("", JSON, body), status, code);
    println!("{shown}: {told}");
    let several = [b"{\"events\":[", message(1).as_bytes(), b",", body, b"]}"].concat();
    let answer = send("/batch", JSON, &several);
    assert_eq!(answer.status, status, "{shown} in a batch: {}", answer.text());
    // What stands on several lines is several lines.
    if !body.contains(&b'\n') && !body.is_empty() {
        let answer = send("/stream", NDJSON, body);
        let told = refused(&answer, status, code);
        assert!(told.starts_with("line 1: "), "{told}");
    }
    assert_eq!((count(server, &id), whole(server, &id)), (0, 0), "{shown}");
}

#[test]
fn what_is_no_json_is_refused() {
    let server = SHARED.get();
    let deep = own(&format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000)));
    let objects = own(&format!("{}1{}", "{\"a\":".repeat(10_000), "}".repeat(10_000)));
    for body in [
        "{",
        "{\"event_type\"",
        "{\"event_type\":",
        "{\"event_type\":\"a:B\",\"payload\":",
        r#"{"event_type":"a:B","payload":{}"#,
        r#"{"event_type":"a:B","payload":{}} {}"#,
        r#"{"event_type":"a:B","payload":{},}"#,
        r#"{'event_type':'a:B','payload':{}}"#,
        &own(r#"{"a":1,"a":2}"#),
        &own(r#"{"b":[{"a":1,"\u0061":2}]}"#),
        r#"{"event_type":"a:B","event_type":"a:C","payload":{}}"#,
        &own(r#"{"a":NaN}"#),
        &own(r#"{"a":-Infinity}"#),
        &own(r#"{"a":1e400}"#),
        &own(r#"{"a":01}"#),
        &own(r#"{"a":.5}"#),
        &own(r#"{"a":"\ud83d"}"#),
        &own(r#"{"a":"\ude00\ud83d"}"#),
        &own(r#"{"\ud83d":1}"#),
        &own("{\"a\":\"\u{1}\"}"),
        &own(r#"{"a":"\x"}"#),
        &own(&format!(r#"{{"a":{}}}"#, "9".repeat(4_301))),
        &deep,
        &objects,
    ] {
        everywhere(&server, body.as_bytes(), 400, "invalid_json");
    }
    everywhere(&server, b"{\"event_type\":\"a:B\",\"payload\":{\"a\":\"\xff\"}}", 400, "invalid_json");
    everywhere(&server, b"{\"event_type\":\"a:B\",\"payload\":{\"a\":\"\xed\xa0\x80\"}}", 400, "invalid_json");
}

#[test]
fn what_is_no_event_is_refused() {
    let server = SHARED.get();
    for body in [
        "[]",
        "1",
        "nul",
        "}",
        r#""event""#,
        "{}",
        r#"{"event_type":"a:B"}"#,
        r#"{"payload":{}}"#,
        r#"{"event_type":7,"payload":{}}"#,
        r#"{"event_type":null,"payload":{}}"#,
        &own("[]"),
        &own("null"),
        &own(r#""text""#),
        r#"{"event_type":"a:B","payload":{},"user":"x"}"#,
        r#"{"event_type":"a:B","payload":{},"metadata":[]}"#,
        r#"{"event_type":"a:B","payload":{},"event_id":"x"}"#,
        r#"{"event_type":"a:B","payload":{},"expected_version":-1}"#,
        r#"{"event_type":"a:B","payload":{},"expected_version":99999999999999999999}"#,
    ] {
        everywhere(&server, body.as_bytes(), 400, "invalid_parameter");
    }
    let typo = append(&server, &make(&server), r#"{"event_typ":"a:B","payload":{}}"#);
    assert!(refused(&typo, 400, "invalid_parameter").contains("event_type"), "{}", typo.text());
    for body in [
        r#"{"event_type":"NONE","payload":{}}"#,
        r#"{"event_type":"MESSAGE_RECEIVED","payload":{}}"#,
        r#"{"event_type":"MESSAGE_RECEIVED","payload":{"message":7}}"#,
        r#"{"event_type":"URGENCY_CLASSIFIED","payload":{"urgency_level":"dire"}}"#,
        r#"{"event_type":"DEMOGRAPHICS_UPDATED","payload":{"age":-1}}"#,
    ] {
        everywhere(&server, body.as_bytes(), 422, "invalid_event");
    }
    let id = make(&server);
    refused(&append(&server, &id, ""), 400, "empty_body");
    refused(&append(&server, &id, " \n "), 400, "empty_body");
    for body in ["", "[]", "{}", r#"{"events":{}}"#, r#"{"events":[],"more":1}"#, r#"{"events":[1"#] {
        assert_eq!(batch(&server, &id, body).status, 400, "{body}");
    }
    assert_eq!(count(&server, &id), 0);
}

#[test]
fn what_is_unusual_and_right_is_kept_as_it_is() {
    let server = SHARED.get();
    let id = make(&server);
    let digits = "9".repeat(4_300);
    let depth = 60;
    let deep = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let payloads = [
        r#"{"nul": "a\u0000b"}"#.to_owned(),
        format!(r#"{{"n": {digits}}}"#),
        format!(r#"{{"n": -{digits}}}"#),
        format!(r#"{{"deep": {deep}}}"#),
        r#"{"": ""}"#.to_owned(),
        r#"{"a": "\ud83d\ude00", "ñ\u0301": "\u2028"}"#.to_owned(),
        r#"{"__proto__": {"constructor": null}}"#.to_owned(),
        r#"{"path": "../../etc/passwd", "sql": "'; DROP TABLE events; --"}"#.to_owned(),
        "{}".to_owned(),
    ];
    for (number, payload) in payloads.iter().enumerate() {
        let answer = append(&server, &id, &own(payload));
        assert_eq!(answer.status, 201, "{payload}: {}", answer.text());
        let text = server.get(&format!("/consultations/{id}/events/{}", number + 1)).text();
        match payload.contains("\\ud83d") {
            true => assert!(text.contains("😀") && text.contains("ñ\u{301}"), "{text}"),
            false => assert!(text.contains(payload.as_str()), "{payload} in {text}"),
        }
    }
    // A key without a namespace's name or a field that is null is not said.
    let quiet = r#"{"event_type":"a:B","payload":{"x":null},"user_id":null,"session_id":null,"metadata":null,"event_id":null,"expected_version":null}"#;
    assert_eq!(append(&server, &id, quiet).status, 201);
    assert_eq!(whole(&server, &id), payloads.len() as u64 + 1);
}

#[test]
fn what_is_too_large_is_refused() {
    let server = SHARED.get();
    let id = make(&server);
    let event = |bytes: usize| own(&format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - own(r#"{"a":""}"#).len())));
    assert_eq!(append(&server, &id, &event(1 << 20)).status, 201);
    let refused_for = refused(&append(&server, &id, &event((1 << 20) + 1)), 413, "body_too_large");
    assert!(refused_for.contains("1 MiB"), "{refused_for}");
    let several = format!(r#"{{"events":[{},{}]}}"#, message(1), event((1 << 20) + 1));
    assert!(refused(&batch(&server, &id, &several), 413, "body_too_large").contains("event 1 of the batch"));
    let many = vec![event(1 << 20); 17].join(",");
    refused(&batch(&server, &id, &format!(r#"{{"events":[{many}]}}"#)), 413, "body_too_large");
    let large = format!(r#"{{"user_id":"{}"}}"#, "x".repeat(65 << 10));
    refused(&server.post_json("/consultations", &large), 413, "body_too_large");
    refused(&server.post_json(&format!("/consultations/{id}/verify"), &large), 413, "body_too_large");
    refused(&server.post_json("/api/exports", &large), 413, "body_too_large");
    assert_eq!(count(&server, &id), 1);
    // And a length that nobody could send is no reason to take memory for it.
    let (mut connection, path) = (server.connect(), format!("/consultations/{id}/events"));
    let headers = [JSON, ("Content-Length", "9000000000000000000")];
    connection.send_head(&Ask { method: "POST", path: &path, headers: &headers, body: None }).unwrap();
    refused(&connection.read().unwrap(), 413, "body_too_large");
}

#[test]
fn bodies_of_another_kind_are_refused() {
    let server = SHARED.get();
    let id = make(&server);
    let routes = [
        "/consultations".to_owned(),
        format!("/consultations/{id}/events"),
        format!("/consultations/{id}/events/batch"),
        format!("/consultations/{id}/verify"),
        "/api/exports".to_owned(),
        "/api/timeline/verify-hash".to_owned(),
    ];
    for path in &routes {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
            let answer = server.ask(&post(path, &[("Content-Type", kind)], message(1).as_bytes()));
            refused(&answer, 415, "unsupported_media_type");
        }
    }
    let charset = [("Content-Type", "Application/JSON; charset=utf-8")];
    assert_eq!(server.ask(&post(&routes[1], &charset, message(1).as_bytes())).status, 201);
    assert_eq!(server.ask(&post(&routes[1], &[], message(1).as_bytes())).status, 201);
    let put = Ask { method: "PUT", path: &routes[1], headers: &[JSON], body: Some(b"{}") };
    refused(&server.ask(&put), 405, "method_not_allowed");
    for path in ["", "/events", "/events/1"] {
        let path = format!("/consultations/{id}{path}");
        let delete = Ask { method: "DELETE", path: &path, headers: &[], body: None };
        refused(&server.ask(&delete), 405, "method_not_allowed");
    }
    assert_eq!(count(&server, &id), 2, "there is no way to take anything away");
}

#[test]
fn consultations_that_cannot_be_are_refused() {
    let server = SHARED.get();
    let before = read(&server, "/consultations?limit=1")["total"].as_u64().unwrap();
    for body in [
        "{}",
        "[]",
        "x",
        r#"{"user_id":7}"#,
        r#"{"user_id":"dra","user":"x"}"#,
        r#"{"user_id":"dra","user_id":"x"}"#,
        r#"{"user_id":"dra","consultation_id":""}"#,
        r#"{"user_id":"dra","consultation_id":"../etc"}"#,
        r#"{"user_id":"dra","consultation_id":".hidden"}"#,
        r#"{"user_id":"dra","consultation_id":"a b"}"#,
        r#"{"user_id":"dra","consultation_id":"ñ"}"#,
        r#"{"user_id":"dra","patient_stub":{"a":1,"a":2}}"#,
        r#"{"user_id":"dra","patient_stub":{"a":"\ud800"}}"#,
        &format!(r#"{{"user_id":"dra","consultation_id":"{}"}}"#, "a".repeat(201)),
        &format!(r#"{{"user_id":"dra","patient_stub":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000)),
    ] {
        let answer = server.post_json("/consultations", body);
        assert!(matches!(answer.code().as_str(), "invalid_parameter" | "invalid_json"), "{body}: {}", answer.text());
        refused(&answer, 400, &answer.code());
    }
    refused(&server.post_json("/consultations", ""), 400, "empty_body");
    // Others make some meanwhile, but none of these.
    let page = read(&server, "/consultations?limit=500");
    assert!(page["total"].as_u64().unwrap() >= before);
    assert!(
        page["consultations"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| { !["../etc", ".hidden", "a b", "ñ", ""].contains(&one["consultation_id"].as_str().unwrap()) })
    );
}

#[test]
fn names_that_nothing_has_are_not_found() {
    let server = SHARED.get();
    for name in ["nobody", "%00", "..%2f..%2fetc", "%F0%9F%98%80", "'%20OR%201=1", &"x".repeat(5_000)] {
        refused(&server.get(&format!("/consultations/{name}")), 404, "not_found");
        refused(&append(&server, name, &message(1)), 404, "not_found");
        refused(&batch(&server, name, &format!(r#"{{"events":[{}]}}"#, message(1))), 404, "not_found");
        refused(&keyed(&server, &format!("/consultations/{name}/events"), "k", &message(1)), 404, "not_found");
        refused(&server.get(&format!("/api/timeline/sessions/{name}")), 404, "not_found");
    }
    // What is no text is no name.
    for path in [
        "/consultations/%FF",
        "/consultations/%FF/events/stream",
        "/consultations/x/events/%FF/receipt",
        "/api/exports/%C0%AF",
    ] {
        refused(&server.get(path), 400, "invalid_request");
    }
    refused(&append(&server, "%FF", &message(1)), 400, "invalid_request");
}

#[test]
fn a_server_that_keeps_nothing_says_so() {
    let server = Server::start(CAUDAL, &Repo::new().model("double", "double", ""), &[]);
    for path in [
        "/consultations",
        "/consultations/x",
        "/consultations/x/events",
        "/consultations/x/events/stream",
        "/api/timeline/stats",
        "/api/audit/logs",
    ] {
        refused(&server.get(path), 501, "record_off");
    }
    refused(&server.post_json("/consultations", r#"{"user_id":"dra"}"#), 501, "record_off");
    refused(&append(&server, "x", &message(1)), 501, "record_off");
    refused(&server.ask(&post("/consultations/x/events/stream", &[NDJSON], message(1).as_bytes())), 501, "record_off");
    assert_eq!(server.get("/readyz").status, 200);
}

#[test]
fn a_key_of_bytes_that_are_no_text_is_refused() {
    let server = SHARED.get();
    let id = make(&server);
    let mut connection = server.connect();
    let body = message(1);
    let head =
        format!("POST /consultations/{id}/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    connection.send(&[head.as_bytes(), b"Idempotency-Key: \xff\xfe\r\n\r\n", body.as_bytes()].concat()).unwrap();
    refused(&connection.read().unwrap(), 400, "invalid_parameter");
    assert_eq!(all(&server, &id), [json!(null); 0]);
    assert_eq!(well(&append(&server, &id, &body))["sequence"], 1);
}
