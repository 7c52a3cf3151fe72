//! The example of agents, against a server that speaks chat completions.

use serde_json::{Value, json};

use crate::{
    Place,
    local::{Local, Reply, Seen, completion},
    root, said, serve,
    server::event,
};

const REPORT: &str = "The pump stopped twice this week.";
const KEY: &str = "sk-of-the-test";

/// What the models say, by which of them is asked for what.
fn words(seen: &Seen) -> &'static str {
    match (seen.body["model"].as_str(), seen.body["response_format"].is_null()) {
        (Some("large"), _) => "Send somebody today.",
        (_, false) => r#"{"urgency": "high", "reason": "it stops"}"#,
        (_, true) => "A pump stops.",
    }
}

/// Runs the example; tells the code it ends with and its report.
fn run(server: &Local, key: &str) -> (i32, Value) {
    let place = Place::new();
    let words = ["run", "agents", "--input", REPORT, "--json"];
    let mut command = place.command_in(&root("examples/pipelines"), &words);
    command.env("LOCAL_BASE_URL", server.url("/v1")).env("LOCAL_API_KEY", key);
    let output = command.output().unwrap();
    assert!(!said(&output).contains(KEY), "a key is told to nobody");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    (output.status.code().unwrap(), report)
}

fn step<'a>(report: &'a Value, name: &str) -> &'a Value {
    let steps = report["steps"].as_array().unwrap();
    steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("there is no step {name}: {report}"))
}

/// What was spent: tokens read and written, and millionths of a dollar.
fn spent(of: &Value) -> (u64, u64, u64) {
    let usage = &of["usage"];
    let cost = (usage["cost_usd"].as_f64().unwrap() * 1e6).round() as u64;
    (usage["tokens_in"].as_u64().unwrap(), usage["tokens_out"].as_u64().unwrap(), cost)
}

#[test]
fn agents_speak_at_the_same_time_and_a_judge_decides() {
    let server = Local::start(|seen, _| completion(seen, words(seen)));
    let (code, report) = run(&server, KEY);
    assert_eq!((code, &report["status"]), (0, &json!("completed")), "{report}");
    let expected = json!({"urgency": "high", "summary": "A pump stops.", "decision": "Send somebody today."});
    assert_eq!(report["output"], expected);
    assert_eq!(spent(&report), (300, 30, 900), "three answers, at 2 and 10 dollars for a million tokens");
    for name in ["sorter", "writer", "judge"] {
        assert_eq!(spent(step(&report, name)), (100, 10, 300), "{name}");
    }

    let seen = server.seen();
    assert_eq!(server.paths(), ["/v1/chat/completions"; 3]);
    assert!(seen.iter().all(|seen| seen.key == format!("Bearer {KEY}")));
    let streamed: Vec<bool> = seen.iter().map(|seen| seen.body["stream"] == true).collect();
    assert_eq!(streamed.iter().filter(|streamed| **streamed).count(), 1, "the writer's alone");
    let asked = seen[2].body["messages"][1]["content"].as_str().unwrap();
    assert_eq!(asked, "Report: A pump stops.\nUrgent, because: it stops");
    // The judge waits for the slower of both, and both for nobody.
    let began = |name: &str| step(&report, name)["began_ms"].as_f64().unwrap();
    let ended = |name: &str| began(name) + step(&report, name)["duration_ms"].as_f64().unwrap();
    assert!(began("judge") >= ended("sorter").max(ended("writer")) - 0.01, "{report}");
}

#[test]
fn what_is_not_urgent_is_not_judged() {
    let server = Local::start(|seen, _| {
        let words = words(seen);
        completion(seen, if words.starts_with('{') { r#"{"urgency": "low", "reason": "all is well"}"# } else { words })
    });
    let (_, report) = run(&server, KEY);
    assert_eq!(report["output"]["decision"], "Nothing needs to be done now.", "{report}");
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn an_answer_that_does_not_fit_is_asked_for_again() {
    let server = Local::start(|seen, _| {
        let again = seen.body["messages"].as_array().unwrap().len() > 2;
        let words = words(seen);
        completion(seen, if words.starts_with('{') && !again { r#"{"urgency": "very"}"# } else { words })
    });
    let (code, report) = run(&server, KEY);
    assert_eq!((code, &step(&report, "sorter")["attempts"]), (0, &json!(2)), "{report}");
    assert_eq!(spent(step(&report, "sorter")), (200, 20, 600), "the answer that did not fit was paid for, too");
    let again = server.seen().into_iter().map(|seen| seen.body["messages"].to_string());
    assert_eq!(again.filter(|messages| messages.contains("was not accepted")).count(), 1);
}

#[test]
fn who_is_asked_too_often_says_when_to_come_again() {
    let server = Local::start(|seen, _| match seen.body["model"] == "large" {
        false => completion(seen, words(seen)),
        true => Reply::json(429, &json!({"error": {"message": "slow down"}})).with("Retry-After: 1"),
    });
    let (code, report) = run(&server, KEY);
    let error = &report["error"];
    assert_eq!(
        (code, &error["code"], &error["step"]),
        (1, &json!("step_too_many_requests"), &json!("judge")),
        "{report}"
    );
    assert_eq!(step(&report, "judge")["attempts"], 3);
    assert!(step(&report, "judge")["duration_ms"].as_f64().unwrap() >= 2_000.0, "it waits as long as it is told");

    let server = Local::start(|seen, before| match before {
        0 => Reply::json(429, &json!({"error": {"message": "slow down"}})).with("Retry-After: 1"),
        _ => completion(seen, words(seen)),
    });
    let (code, report) = run(&server, KEY);
    assert_eq!((code, &report["status"]), (0, &json!("completed")), "{report}");
    assert_eq!((server.seen().len(), spent(&report)), (4, (300, 30, 900)), "who is turned away pays nothing");
}

#[test]
fn a_wrong_key_is_said_and_not_tried_again() {
    let server = Local::start(|_, _| Reply::json(401, &json!({"error": {"message": "Incorrect API key provided."}})));
    let (code, report) = run(&server, KEY);
    let error = &report["error"];
    assert_eq!((code, &error["code"]), (1, &json!("step_unauthorized")), "{report}");
    assert!(error["message"].as_str().unwrap().contains("Incorrect API key provided."), "{error}");
    assert_eq!((server.seen().len(), spent(&report)), (2, (0, 0, 0)), "each of both once");
}

#[test]
fn words_are_heard_as_they_come() {
    let local = Local::start(|seen, _| completion(seen, words(seen)));
    let place = Place::new();
    let variables = [("LOCAL_BASE_URL", &*local.url("/v1")), ("LOCAL_API_KEY", KEY)];
    let server = serve(&root("examples/pipelines"), &place.data(), &variables);
    let path = "/api/v1/pipelines/agents/run?wait=false";
    let begun = server.post_json(path, &json!({"input": REPORT, "run_id": "r"}).to_string());
    assert_eq!(begun.status, 202, "{}", begun.text());
    let events = server.get("/api/v1/runs/r/events").text();
    let (kind, report) = events.trim_end().rsplit("\n\n").next().and_then(event).unwrap();
    assert_eq!((kind, spent(&report)), ("run_finished", (300, 30, 900)), "{events}");
    let all: Vec<_> = events.split("\n\n").filter_map(event).collect();
    let ended = |name: &str| all.iter().any(|(kind, data)| *kind == "step_finished" && data.to_string().contains(name));
    assert!(["sorter", "writer", "judge"].iter().all(|name| ended(name)), "{events}");
    assert!(!events.contains(KEY) && !server.log().contains(KEY), "a key is told to nobody");
}
