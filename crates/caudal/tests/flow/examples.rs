//! The examples that need no provider: they run as they are written.

use std::process::Command;

use serde_json::{Value, json};

use crate::{CAUDAL, Place, answered, good, root, said, serve};

const PICTURE: &str = r#"{"path": "double_decker_bus.jpg"}"#;

fn example(place: &Place, words: &[&str]) -> Command {
    place.command_in(&root("examples/pipelines"), words)
}

fn report(place: &Place, words: &[&str]) -> Value {
    serde_json::from_str(&good(&mut example(place, words))).unwrap()
}

/// The types of a consultation's events, as `caudal record tail` has them.
fn recorded(place: &Place, consultation: &Value) -> Vec<(String, Value)> {
    let mut command = Command::new(CAUDAL);
    command.args(["record", "tail", consultation.as_str().unwrap()]).env("CAUDAL_DATA_DIR", place.data());
    let events = good(&mut command);
    let event = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let events = events.lines().map(event);
    events.map(|event| (event["event_type"].as_str().unwrap().to_owned(), event["payload"].clone())).collect()
}

fn steps_named<'a>(report: &'a Value, name: &str) -> Vec<&'a Value> {
    report["steps"].as_array().unwrap().iter().filter(|step| step["name"] == name).collect()
}

#[test]
fn all_examples_are_right() {
    let place = Place::new();
    let checked = report(&place, &["validate", "--strict", "--json"]);
    assert_eq!(checked, json!({"valid": true, "findings": []}));
}

#[test]
fn a_photograph_waits_for_a_person_and_goes_on_in_another_process() {
    let place = Place::new();
    let asked = report(&place, &["run", "triage", "--run-id", "bus", "--input", PICTURE, "--json"]);
    assert_eq!((&asked["run_id"], &asked["status"]), (&json!("bus"), &json!("paused")), "{asked}");
    let prompt = &asked["prompts"][0];
    assert_eq!(prompt["path"], "sort/people/approve");
    assert_eq!(prompt["message"], "There are 2 people on it. May it be kept?");

    let refused = example(&place, &["resume", "bus", "--answer", "perhaps"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        said(&refused).contains("the answer does not fit: \"perhaps\" is not of type \"boolean\""),
        "{}",
        said(&refused)
    );

    let done = report(&place, &["resume", "bus", "--answer", "true", "--json"]);
    let consultation = &done["output"]["consultation_id"];
    assert_eq!(done["output"], json!({"approved": true, "people": 2, "consultation_id": consultation}));
    let recalled = |name: &str| steps_named(&done, name)[0]["recalled"] == true;
    assert!(recalled("look") && recalled("note") && !recalled("decide"), "{done}");
    let events = recorded(&place, consultation);
    let types: Vec<&str> = events.iter().map(|(name, _)| &**name).collect();
    assert_eq!(types, ["triage:PICTURE_SEEN", "triage:DECIDED"], "each once");
    let classes = json!(["bus", "car", "person"]);
    assert_eq!(events[0].1, json!({"kind": "people", "objects": {"objects": 5, "people": 2, "classes": classes}}));
    assert_eq!(events[1].1, json!({"approved": true, "asked_for": 2}));
}

#[test]
fn a_photograph_without_people_asks_nobody() {
    let place = Place::new();
    let done = report(&place, &["run", "triage", "--input", r#"{"path": "coffee.png"}"#, "--json"]);
    assert_eq!((&done["status"], &done["output"]["people"]), (&json!("completed"), &json!(0)), "{done}");
    let events = recorded(&place, &done["output"]["consultation_id"]);
    assert_eq!((events.len(), &events[0].1["objects"]["classes"]), (1, &json!(["dining table"])));

    let wrong = example(&place, &["run", "triage", "--input", r#"{"picture": 1}"#]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(1), "{}", said(&wrong));
    assert!(said(&wrong).contains("\"path\" is a required property"), "{}", said(&wrong));
    let outside = example(&place, &["run", "triage", "--input", r#"{"path": "../Cargo.toml"}"#]).output().unwrap();
    assert_eq!(outside.status.code(), Some(1));
    assert!(said(&outside).contains("step_forbidden"), "{}", said(&outside));
}

#[test]
fn the_same_picture_is_looked_at_once() {
    let place = Place::new();
    let input = r#"{"pictures": [{"path": "coffee.png"}, {"path": "chelsea.png"}, {"path": "coffee.png"}, {"path": "none.png"}]}"#;
    let done = report(&place, &["run", "folder", "--input", input, "--json"]);
    let table = "objects,classes,width,height\r\n1,dining table,600,400\r\n1,cat,451,300\r\n1,dining table,600,400\r\n";
    assert_eq!((&done["output"]["table"], &done["output"]["pictures"]), (&json!(table), &json!(3)), "{done}");
    assert_eq!(done["output"]["objects"].as_f64(), Some(3.0));
    let hits: Vec<bool> = steps_named(&done, "seen").iter().map(|step| step["cache_hit"] == true).collect();
    assert_eq!(hits.iter().filter(|hit| **hit).count(), 1, "{done}");
    assert_eq!(steps_named(&done, "detect").len(), 3, "two pictures, and one that is not there");

    let none = report(&place, &["run", "folder", "--input", r#"{"folder": "canonical"}"#, "--json"]);
    assert_eq!(none["output"], json!({"objects": 0.0, "pictures": 0, "table": "objects,classes,width,height\r\n"}));
}

#[test]
fn a_server_remembers_from_run_to_run_and_asks_people_too() {
    let place = Place::new();
    let server = serve(&root("examples/pipelines"), &place.data(), &[]);
    let listed = answered(200, &server.get("/api/v1/pipelines"));
    let names: Vec<&str> =
        listed["pipelines"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["agents", "folder", "triage"]);

    let input = r#"{"input": {"pictures": [{"path": "coffee.png"}]}}"#;
    let run = || answered(200, &server.post_json("/api/v1/pipelines/folder/run", input));
    let hit = |report: &Value| steps_named(report, "seen")[0]["cache_hit"] == true;
    let (first, second) = (run(), run());
    assert_eq!((hit(&first), hit(&second)), (false, true));
    assert_eq!(first["output"], second["output"]);

    let asked = server.post_json("/api/v1/pipelines/triage/run", &format!("{{\"input\": {PICTURE}}}"));
    let place_of = asked.header("location").to_owned();
    assert_eq!(answered(202, &asked)["status"], "paused");
    let done = answered(200, &server.post_json(&format!("{place_of}/resume"), r#"{"answer": false}"#));
    assert_eq!(done["output"]["approved"], false, "{done}");
    let path = format!("/consultations/{}/events", done["output"]["consultation_id"].as_str().unwrap());
    let events = answered(200, &server.get(&path));
    assert_eq!(events["events"].as_array().unwrap().len(), 2, "{events}");
}
