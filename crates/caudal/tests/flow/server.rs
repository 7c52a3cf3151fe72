//! Pipelines by HTTP: listed, run, followed, answered, broken off.

use std::{sync::Arc, thread, time::Duration};

use caudal_testkit::{
    Server,
    http::{Answer, Ask, Connection, get, post},
};
use serde_json::{Value, json};

use crate::{ASK, GREET, Place, answered, kept::slow, local::Local, refused, until};

const RUN_ASK: &str = r#"{"input": "this"}"#;

fn run(server: &Server, pipeline: &str, order: &str) -> Answer {
    server.post_json(&format!("/api/v1/pipelines/{pipeline}/run"), order)
}

/// Begins a run and does not wait; tells where it is told of.
fn begin(server: &Server, pipeline: &str, order: &str) -> String {
    let headers = [("Content-Type", "application/json"), ("Prefer", "respond-async")];
    let answer = server.ask(&post(&format!("/api/v1/pipelines/{pipeline}/run"), &headers, order.as_bytes()));
    let told = answered(202, &answer);
    let place = answer.header("location").to_owned();
    assert_eq!((&told["location"], &told["status"]), (&json!(place), &json!("running")));
    assert_eq!(told["events"], format!("{place}/events"));
    place
}

fn ended(server: &Server, place: &str, status: &str) -> Value {
    until(&format!("{place} is {status}"), || answered(200, &server.get(place))["status"] == status);
    answered(200, &server.get(place))
}

#[test]
fn pipelines_are_listed_and_run() {
    let place = Place::with(&[GREET, ASK, "name: bad\nsteps: 7\n"]);
    let server = place.serve();
    let listed = answered(200, &server.get("/api/v1/pipelines"));
    assert_eq!((&listed["total"], &listed["pipelines"][1]["name"]), (&json!(2), &json!("greet")), "{listed}");
    assert!(server.log().contains("bad.yaml is no pipeline"), "{}", server.log());
    assert_eq!(
        (&listed["invalid"][0]["file"], &listed["invalid"][0]["findings"][0]["line"]),
        (&json!("bad"), &json!(2))
    );
    refused(422, "invalid_pipeline", "bad is no pipeline: line 2", &run(&server, "bad", "{}"));
    let about = answered(200, &server.get("/api/v1/pipelines/ask"));
    let steps = json!([{"name": "approve", "kind": "hitl"}, {"name": "told", "kind": "step"}]);
    assert_eq!((&about["steps"], &about["run"]), (&steps, &json!("/api/v1/pipelines/ask/run")), "{about}");

    let done = run(&server, "greet", r#"{"input": "Ada", "run_id": "mine"}"#);
    assert_eq!(done.header("location"), "/api/v1/runs/mine");
    let report = answered(200, &done);
    assert_eq!((&report["status"], &report["output"]), (&json!("completed"), &json!("Hello, Ada!")));
    assert_eq!(report["steps"][0]["cache_hit"], false);
    assert_eq!(answered(200, &server.get("/api/v1/runs/mine")), report, "who looks again sees the same");
    assert_eq!(answered(200, &run(&server, "greet", ""))["output"], "Hello, !", "nothing is an order, too");
    assert_eq!(answered(200, &run(&server, "greet", "\u{feff}{\"input\": \"Bo\"}"))["output"], "Hello, Bo!");
}

#[test]
fn a_run_is_followed_to_its_end() {
    let local = Local::counting();
    let server = slow(&local, 0.3).serve_and_keep();
    let at = begin(&server.1, "slow", "{}");
    let mut connection = server.1.connect();
    let followed = connection.ask(&get(&format!("{at}/events"))).unwrap();
    assert_eq!(followed.header("content-type"), "text/event-stream");
    let text = followed.text();
    let events: Vec<(&str, Value)> = text.split("\n\n").filter_map(event).collect();
    let names = |kind: &str| -> Vec<&str> {
        let of = events.iter().filter(|(own, _)| *own == kind);
        of.filter_map(|(_, data)| data["name"].as_str()).collect()
    };
    assert_eq!(names("step_finished"), ["first", "sleep", "second"], "{text}");
    let (last, report) = events.last().unwrap();
    assert_eq!((*last, &report["status"]), ("run_finished", &json!("completed")), "{text}");
    assert_eq!(ended(&server.1, &at, "completed")["output"], report["output"]);
    // Who comes late hears the same end.
    let late = server.1.get(&format!("{at}/events")).text();
    assert!(late.contains("event: run_finished"), "{late}");
}

#[test]
fn a_run_that_nobody_waits_for_is_told_of_like_a_request() {
    let place = Place::with(&[GREET, ASK]);
    let server = place.serve();
    let at = begin(&server, "greet", r#"{"input": "Ada", "run_id": "mine"}"#);
    ended(&server, &at, "completed");
    until("it is told of", || server.get("/admin/requests/mine").status == 200);
    let told = answered(200, &server.get("/admin/requests/mine"));
    assert_eq!((&told["status"], &told["route"]), (&json!(200), &json!("POST /api/v1/pipelines/{name}/run")), "{told}");
    let steps = told["pipeline"]["steps"].as_array().unwrap_or_else(|| panic!("{told}"));
    assert_eq!((steps.len(), &steps[0]["path"]), (1, &json!("words")), "{told}");
    let at = begin(&server, "ask", r#"{"input": "this", "run_id": "asks"}"#);
    ended(&server, &at, "paused");
    until("it is told of", || server.get("/admin/requests/asks").status == 200);
    assert_eq!(answered(200, &server.get("/admin/requests/asks"))["status"], 202);
}

/// The kind of a server-sent event and what it says; those of steps that begin or end, and of the run's end, have an id.
pub(crate) fn event(text: &str) -> Option<(&str, Value)> {
    let (id, rest) = numbered(text);
    let (kind, data) = rest.strip_prefix("event: ")?.split_once("\ndata: ")?;
    let has_id = matches!(kind, "step_started" | "step_finished" | "run_finished" | "run_paused");
    assert!(!has_id || id.is_some(), "{text}");
    Some((kind, serde_json::from_str(data).unwrap()))
}

/// The id of an event, and the rest of it.
fn numbered(text: &str) -> (Option<&str>, &str) {
    match text.strip_prefix("id: ").and_then(|text| text.split_once('\n')) {
        Some((id, rest)) => (Some(id), rest),
        None => (None, text),
    }
}

/// What a follower is sent that has received all up to the id `last`.
fn since(server: &Server, at: &str, last: &str) -> Answer {
    server.ask(&Ask { headers: &[("Last-Event-ID", last)], ..get(&format!("{at}/events")) })
}

#[test]
fn a_follower_that_comes_back_is_sent_the_rest() {
    let greeting = "name: greeting\nsteps:\n  - {name: a, uses: passthrough}\n  - {name: b, uses: passthrough}\n";
    let place = Place::with(&[greeting, ASK]);
    let server = place.serve();
    assert_eq!(run(&server, "greeting", r#"{"run_id": "r"}"#).status, 200);
    let at = "/api/v1/runs/r";
    let whole = server.get(&format!("{at}/events")).text();
    let events: Vec<&str> = whole.trim_end().split("\n\n").collect();
    let ids: Vec<&str> = events.iter().map(|event| numbered(event).0.unwrap()).collect();
    assert_eq!(ids.len(), 3, "{whole}");
    assert_eq!(since(&server, at, ids[0]).text().trim_end(), events[1..].join("\n\n"));
    assert_eq!(since(&server, at, ids[1]).text().trim_end(), events[2]);
    assert_eq!(since(&server, at, ids[2]).status, 204, "browsers come back until they are told that there is no more");
    assert_eq!(since(&server, at, "of-another-run").text(), whole);

    let at = run(&server, "ask", RUN_ASK).header("location").to_owned();
    let paused = server.get(&format!("{at}/events")).text();
    let (kind, _) = paused.trim_end().split("\n\n").last().and_then(event).unwrap();
    let last = paused.trim_end().split("\n\n").last().and_then(|event| numbered(event).0).unwrap();
    let waiting = since(&server, &at, last);
    assert_eq!((kind, waiting.status), ("run_paused", 200), "it may be resumed");
    assert!(waiting.text().starts_with(": "), "{}", waiting.text());
    answered(200, &server.post_json(&format!("{at}/resume"), r#"{"answer": true}"#));
    let text = since(&server, &at, last).text();
    assert!(text.trim_end().split("\n\n").filter_map(event).any(|(kind, _)| kind == "run_finished"), "{text}");
}

#[test]
fn a_follower_that_comes_back_during_the_run_misses_nothing() {
    let local = Local::counting();
    let (_place, server) = slow(&local, 0.5).serve_and_keep();
    let at = begin(&server, "slow", "{}");
    until("the first step is done", || answered(200, &server.get(&at))["steps"][0]["status"] == "completed");
    let first = server.get(&format!("{at}/events")).text();
    let ids: Vec<&str> = first.trim_end().split("\n\n").filter_map(|event| numbered(event).0).collect();
    for (seen, last) in ids.iter().enumerate().take(ids.len() - 1) {
        let rest = since(&server, &at, last).text();
        let events: Vec<_> = rest.trim_end().split("\n\n").filter_map(|event| numbered(event).0).collect();
        let ended: Vec<&str> = ids[seen + 1..].iter().copied().filter(|id| events.contains(id)).collect();
        assert!(!events.contains(last) && !events.is_empty() && ended == events, "{last}: {first}\n{rest}");
    }
}

impl Place {
    /// A server of it, and itself, for it must stay.
    fn serve_and_keep(self) -> (Self, Server) {
        let server = self.serve();
        (self, server)
    }
}

#[test]
fn somebody_answers_and_must_answer_well() {
    let place = Place::with(&[ASK]);
    let server = place.serve();
    let asked = run(&server, "ask", RUN_ASK);
    let at = asked.header("location").to_owned();
    let report = answered(202, &asked);
    assert_eq!((&report["status"], &report["prompts"][0]["message"]), (&json!("paused"), &json!("Is this good?")));
    assert_eq!(report["prompts"][0]["schema"], json!({"type": "boolean"}));
    let resume = |body: &str| server.post_json(&format!("{at}/resume"), body);
    refused(400, "invalid_parameter", "does not fit", &resume(r#"{"answer": "maybe"}"#));
    refused(400, "invalid_parameter", "waits for an answer", &resume("{}"));
    refused(400, "invalid_parameter", "no step nobody asks", &resume(r#"{"answers": {"nobody": true}}"#));
    refused(400, "invalid_parameter", "not understood", &resume(r#"{"anser": true}"#));
    assert_eq!(answered(200, &server.get(&at))["status"], "paused", "it still waits");
    let done = answered(200, &resume(r#"{"answers": {"approve": true}}"#));
    assert_eq!((&done["status"], &done["output"]), (&json!("completed"), &json!({"good": true})));
    refused(409, "run_state", "completed already", &resume(r#"{"answer": true}"#));
    assert_eq!(answered(200, &server.get(&at))["output"], json!({"good": true}));
}

#[test]
fn of_two_who_answer_one_wins() {
    let place = Place::with(&[ASK]);
    let server = Arc::new(place.serve());
    for turn in 0..10 {
        let at = run(&server, "ask", RUN_ASK).header("location").to_owned();
        let answering: Vec<_> = ["true", "false"]
            .into_iter()
            .map(|answer| {
                let (server, path) = (Arc::clone(&server), format!("{at}/resume"));
                thread::spawn(move || server.post_json(&path, &format!("{{\"answer\": {answer}}}")))
            })
            .collect();
        let answers: Vec<Answer> = answering.into_iter().map(|thread| thread.join().unwrap()).collect();
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 1), "turn {turn}: {answers:?}");
        refused(409, "run_state", "", lost[0]);
        assert_eq!(answered(200, &server.get(&at))["output"], won[0].json()["output"], "turn {turn}");
    }
}

#[test]
fn runs_are_broken_off() {
    let local = Local::counting();
    let (_place, server) = slow(&local, 60.0).serve_and_keep();
    for pipeline in ["slow", "passing"] {
        let at = begin(&server, pipeline, "{}");
        until("the first step is done", || answered(200, &server.get(&at))["steps"][0]["status"] == "completed");
        let cancelled = answered(200, &server.post_json(&format!("{at}/cancel"), ""));
        assert_eq!(cancelled["status"], "cancelled");
        let report = ended(&server, &at, "cancelled");
        assert_eq!(report["steps"][1]["status"], "cancelled", "{report}");
    }
    assert_eq!(local.paths(), ["/first", "/first"]);
    let listed = answered(200, &server.get("/api/v1/runs?status=cancelled"));
    assert_eq!(listed["returned_count"], 1, "only one of both is kept: {listed}");
}

#[test]
fn who_hangs_up_ends_a_run_that_nobody_keeps() {
    let local = Local::counting();
    let (_place, server) = slow(&local, 2.0).serve_and_keep();
    for pipeline in ["slow", "passing"] {
        let path = format!("/api/v1/pipelines/{pipeline}/run");
        let order = format!("{{\"run_id\": \"{pipeline}\"}}");
        let mut connection = Connection::open(server.address()).unwrap();
        let ask = post(&path, &[("Content-Type", "application/json")], order.as_bytes());
        connection.send_head(&ask).unwrap();
        connection.send(order.as_bytes()).unwrap();
        until("the run has begun", || server.get(&format!("/api/v1/runs/{pipeline}")).status == 200);
        drop(connection);
    }
    ended(&server, "/api/v1/runs/passing", "cancelled");
    ended(&server, "/api/v1/runs/slow", "completed");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(local.paths().iter().filter(|path| *path == "/second").count(), 1, "{:?}", local.paths());
}

#[test]
fn what_cannot_be_is_said_clearly() {
    let place = Place::with(&[
        GREET,
        ASK,
        "name: taking\ninput_schema: {type: integer}\nsteps: [{name: a, uses: passthrough}]\n",
    ]);
    let server = place.serve();
    refused(404, "not_found", "there is greet", &run(&server, "gret", "{}"));
    refused(404, "not_found", "/api/v1/pipelines lists all", &run(&server, "elephant", "{}"));
    refused(404, "not_found", "start the server again", &run(&server, "elephant", "{}"));
    refused(400, "invalid_parameter", "not understood", &run(&server, "greet", "{"));
    refused(400, "invalid_parameter", "unknown field", &run(&server, "greet", r#"{"imput": 1}"#));
    refused(400, "invalid_parameter", "timeout_s", &run(&server, "greet", r#"{"timeout_s": -1}"#));
    refused(400, "invalid_parameter", "run's name", &run(&server, "greet", r#"{"run_id": "a b"}"#));
    refused(400, "invalid_parameter", "does not fit", &run(&server, "taking", r#"{"input": "text"}"#));
    for path in ["/api/v1/runs/nobody", "/api/v1/runs/nobody/events"] {
        refused(404, "not_found", "there is no run nobody", &server.get(path));
    }
    for what in ["resume", "cancel"] {
        refused(
            404,
            "not_found",
            "there is no run nobody",
            &server.post_json(&format!("/api/v1/runs/nobody/{what}"), "{}"),
        );
    }
    run(&server, "ask", r#"{"input": 1, "run_id": "r"}"#);
    refused(409, "exists", "there is a run r already", &run(&server, "ask", r#"{"input": 1, "run_id": "r"}"#));
    assert_eq!(server.get("/api/v1/pipelines/nobody").status, 404);
}

#[test]
fn whole_numbers_keep_their_digits_on_their_way() {
    let digits = "12345678901234567890123";
    let kept = "name: kept\nsteps:\n  - {name: a, uses: script, with: {expression: input}}\n  \
                - {name: r, uses: record, with: {consultation: c, create: true, event_type: 't:x', user_id: dr, payload: '{{ input }}'}}\n  \
                - {name: ask, kind: hitl}\n";
    let place = Place::with(&[kept]);
    let server = place.serve();
    let asked = run(&server, "kept", &format!("{{\"run_id\": \"r\", \"input\": {{\"folio\": {digits}}}}}"));
    assert_eq!(asked.status, 202, "{}", asked.text());
    assert!(asked.text().contains(&format!("\"output\":{{\"folio\":{digits}}}")), "{}", asked.text());
    assert!(server.get("/consultations/c/events").text().contains(digits));
    let done = server.post_json("/api/v1/runs/r/resume", &format!("{{\"answer\": [{digits}]}}"));
    assert!(done.text().contains(&format!("\"output\":[{digits}]")), "{}", done.text());
    drop(server);
    assert!(place.good(&["show", "r", "--json"]).contains(&format!("\"output\":[{digits}]")));
    let replayed = place.good(&["replay", "r", "--json"]);
    assert!(replayed.contains(&format!("\"same\":true,\"recorded\":[{digits}]")), "{replayed}");
}

#[test]
fn a_step_that_fails_is_told_with_its_run() {
    let broken = "name: broken\nsteps:\n  - {name: a, uses: fail, with: {message: no luck, again: false}}\n";
    let place = Place::with(&[broken]);
    let server = place.serve();
    let answer = run(&server, "broken", r#"{"run_id": "r"}"#);
    assert!(answer.status >= 400, "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!((&error["details"]["run_id"], &error["details"]["step"]), (&json!("r"), &json!("a")), "{error}");
    let report = answered(200, &server.get("/api/v1/runs/r"));
    assert_eq!((&report["status"], &report["error"]["message"]), (&json!("failed"), &json!("no luck")));
}
