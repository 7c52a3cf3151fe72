//! Runs that are kept: listed, shown, taken up by another process, gone through again, ended.

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{ASK, GREET, Place, local::Local, until};

/// A place with a durable pipeline that asks `server` twice and sleeps between.
pub(crate) fn slow(server: &Local, seconds: f64) -> Place {
    let ask = |name: &str| {
        format!("  - {{name: {name}, uses: http, with: {{url: '{}'}}}}\n", server.url(&format!("/{name}")))
    };
    let sleep = format!("  - {{name: sleep, uses: sleep, with: {{seconds: {seconds}}}}}\n");
    let steps = [ask("first"), sleep, ask("second")].concat();
    let place = Place::with(&[
        &format!("name: slow\ndurable: true\nsteps:\n{steps}"),
        &format!("name: passing\ndurable: false\nsteps:\n{steps}"),
    ]);
    place.write("flow.yaml", "allow: ['127.0.0.1']\n");
    place
}

/// The status of a run, as it is listed.
fn status(place: &Place, id: &str) -> Value {
    let listed = place.good(&["list", "--json"]);
    let runs = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    runs.into_iter().find(|run| run["run_id"] == id).map(|run| run["status"].clone()).unwrap_or_default()
}

/// Runs `slow`, and waits until its first step is kept.
fn begun(place: &Place) -> Child {
    let mut command = place.command(&["run", "slow", "--run-id", "s"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the first step is kept", || {
        let shown = place.run(&["show", "s", "--json"]);
        let report: Value = serde_json::from_slice(&shown.stdout).unwrap_or_default();
        report["steps"]
            .as_array()
            .is_some_and(|steps| steps.iter().any(|step| step["name"] == "first" && step["status"] == "completed"))
    });
    child
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id() as i32), signal).unwrap();
}

#[test]
fn ctrl_c_leaves_a_run_that_goes_on_where_it_was() {
    let server = Local::counting();
    let place = slow(&server, 5.0);
    let child = begun(&place);
    assert_eq!(status(&place, "s"), "running");
    let taken = place.bad(1, &["resume", "s"]);
    assert!(taken.contains("another process has taken the run up"), "{taken}");
    signal(&child, Signal::SIGINT);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130));
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(words.contains("paused. Continue with: ") && words.contains("caudal flow resume s --data-dir "), "{words}");
    assert_eq!((status(&place, "s"), server.paths()), (json!("paused"), vec!["/first".to_owned()]));

    let done = place.json(&["resume", "s", "--json"]);
    assert_eq!((&done["status"], &done["steps"][0]["recalled"]), (&json!("completed"), &json!(true)), "{done}");
    assert_eq!(server.paths(), ["/first", "/second"], "nothing is done twice");
    assert_eq!(status(&place, "s"), "completed");
    assert!(place.bad(1, &["resume", "s"]).contains("the run is completed already"));
    assert_eq!(server.paths().len(), 2);
}

#[test]
fn a_run_whose_process_was_killed_is_found_and_taken_up() {
    let server = Local::counting();
    let place = slow(&server, 3.0);
    let child = begun(&place);
    signal(&child, Signal::SIGKILL);
    child.wait_with_output().unwrap();
    assert_eq!(status(&place, "s"), "interrupted");
    assert_eq!(place.good(&["resume", "--all"]), "s  completed\n");
    assert_eq!(place.good(&["resume", "--all"]), "", "there is no other");
    assert_eq!(server.paths(), ["/first", "/second"]);

    let again = place.json(&["replay", "s", "--json"]);
    assert_eq!((&again["same"], &again["replay"]["status"]), (&json!(true), &json!("completed")), "{again}");
    assert_eq!(server.paths().len(), 2, "nobody is asked when a run is gone through again");
    let lines = place.good(&["trace", "s", "--json"]);
    let steps: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["first", "sleep", "second"]);
    assert!(place.good(&["trace", "s"]).lines().count() == 3);
}

#[test]
fn runs_are_listed_and_shown() {
    let durable = GREET.replace("name: greet\n", "name: kept\ndurable: true\n");
    let place = Place::with(&[&durable, ASK]);
    place.good(&["run", "kept", "--run-id", "one", "--input", "Ada"]);
    place.good(&["run", "ask", "--run-id", "two", "--input", "this"]);
    let listed = place.good(&["list", "--json"]);
    let runs: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = runs
        .iter()
        .map(|run| [&run["run_id"], &run["pipeline"], &run["status"]].map(|value| value.as_str().unwrap()))
        .collect();
    assert_eq!(told, [["two", "ask", "paused"], ["one", "kept", "completed"]], "the latest first");
    assert!(runs[0]["created_at"].as_str().unwrap().ends_with('Z'));
    let paused = place.good(&["list", "--status", "paused"]);
    assert!(paused.contains("two") && !paused.contains("one "), "{paused}");
    assert_eq!(place.good(&["list", "--limit", "1", "--json"]).lines().count(), 1);

    let shown = place.json(&["show", "one", "--json"]);
    assert_eq!((&shown["output"], &shown["steps"][0]["output"]), (&json!("Hello, Ada!"), &json!("Hello, Ada!")));
    let asks = place.json(&["show", "two", "--json"]);
    assert_eq!(
        (&asks["status"], &asks["prompts"][0]["message"]),
        (&json!("paused"), &json!("Is this good?")),
        "{asks}"
    );
    let waits = asks["steps"].as_array().and_then(|steps| steps.last()).unwrap();
    assert_eq!((&waits["path"], &waits["status"]), (&asks["prompts"][0]["path"], &json!("paused")), "{asks}");
    let taken = place.bad(1, &["run", "kept", "--run-id", "one"]);
    assert!(taken.contains("there is a run one already"), "{taken}");
}

#[test]
fn an_answer_is_taken_once_and_must_fit() {
    let place = Place::with(&[ASK]);
    let asked = place.run(&["run", "ask", "--run-id", "r", "--input", "this"]);
    let words = String::from_utf8_lossy(&asked.stderr).into_owned();
    assert!(words.contains("step \"approve\" is waiting for an answer: Is this good?"), "{words}");
    assert!(words.contains("caudal flow resume r --data-dir "), "{words}");
    assert_eq!((asked.status.code(), asked.stdout.len()), (Some(0), 0));
    assert!(place.bad(1, &["resume", "r", "--answer", "maybe"]).contains("does not fit"));
    assert!(place.bad(1, &["resume", "r"]).contains("waits for an answer"));
    assert!(place.bad(1, &["resume", "r", "--at", "nowhere", "--answer", "true"]).contains("no step nowhere asks"));
    assert_eq!(status(&place, "r"), "paused", "it still waits");
    let out = crate::told(&mut place.command(&["resume", "r", "--answer", "-", "--json"]), "true\n");
    let done: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(done["output"], json!({"good": true}));
    assert!(place.bad(1, &["resume", "r", "--answer", "false"]).contains("completed already"));
    assert_eq!(place.json(&["show", "r", "--json"])["output"], json!({"good": true}));
}

/// The command that continues a run, as it was printed, with `answer` put in.
fn printed(words: &str, answer: &str) -> String {
    let line = words.lines().find(|line| line.contains("flow resume")).unwrap_or_else(|| panic!("{words}"));
    line.trim().replace('…', answer)
}

#[test]
fn printed_resume_command_works_when_pasted() {
    let place = Place::new();
    let (folder, data) = (place.path("my pipelines"), place.path("it's data"));
    fs::create_dir_all(place.path("out side")).unwrap();
    fs::create_dir_all(&folder).unwrap();
    let file = place.path("out side/ask me.yaml");
    fs::write(&file, ASK).unwrap();
    let settings = place.path("my settings.yaml");
    fs::write(&settings, format!("data_dir: \"{}\"\nlog_level: \"off\"\n", data.display())).unwrap();
    let plain = |command: &mut Command| {
        for name in ["CAUDAL_DATA_DIR", "CAUDAL_PIPELINES", "CAUDAL_MODEL_REPOSITORY", "FLUJO_INPUT"] {
            command.env_remove(name);
        }
        command.current_dir(place.path("")).stdin(Stdio::null()).output().unwrap()
    };
    let by_flags = ["--data-dir", data.to_str().unwrap(), "--pipelines", folder.to_str().unwrap()];
    let by_file = ["--config", settings.to_str().unwrap(), "--pipelines", folder.to_str().unwrap()];
    for (id, options) in [("r's(1)&2;", &by_flags), ("r2", &by_file)] {
        let mut command = Command::new(crate::CAUDAL);
        let words = ["flow", "run", file.to_str().unwrap(), "--input", "this", "--run-id", id];
        let asked = plain(command.args(words).args(options));
        let words = String::from_utf8_lossy(&asked.stderr).into_owned();
        let done = plain(Command::new("sh").arg("-c").arg(printed(&words, "true")));
        assert!(done.status.success(), "{words}{}", String::from_utf8_lossy(&done.stderr));
        let good: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(good, json!({"good": true}), "{words}");
    }
    // What a run that waits is shown with works as well, where its pipeline is in the folder.
    fs::copy(&file, folder.join("ask.yaml")).unwrap();
    plain(Command::new(crate::CAUDAL).args(["flow", "run", "ask", "--run-id", "r3"]).args(by_flags));
    let shown = plain(Command::new(crate::CAUDAL).args(["flow", "show", "r3"]).args(by_flags));
    let words = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(plain(Command::new("sh").arg("-c").arg(printed(&words, "false"))).status.success(), "{words}");
}

#[test]
fn a_run_of_a_file_is_resumed_from_it() {
    let place = Place::new();
    let file = place.path("elsewhere.yaml");
    fs::write(&file, ASK).unwrap();
    for id in ["one", "two", "three"] {
        place.good(&["run", file.to_str().unwrap(), "--input", "this", "--run-id", id]);
    }
    let good = place.good(&["resume", "one", "--at", "approve", "--answer", "true"]);
    assert_eq!(serde_json::from_str::<Value>(&good).unwrap(), json!({"good": true}));
    assert!(place.run(&["replay", "one"]).status.success());
    fs::write(&file, ASK.replace("Is {{", "Was {{")).unwrap();
    assert!(place.bad(1, &["resume", "two", "--answer", "true"]).contains("another version of the pipeline ask"));
    fs::remove_file(&file).unwrap();
    let gone = place.bad(1, &["resume", "two", "--answer", "true"]);
    assert!(gone.contains("there is no pipeline ask") && gone.contains("--pipelines"), "{gone}");
    place.write("ask.yaml", ASK);
    place.good(&["resume", "three", "--answer", "true"]);
}

#[test]
fn run_that_is_not_stored_names_no_command() {
    let place = Place::with(&[ASK]);
    let ephemeral = place.run(&["run", "ask", "--ephemeral"]);
    let words = String::from_utf8_lossy(&ephemeral.stderr).into_owned();
    assert!(words.contains("was not stored") && !words.contains("flow resume"), "{words}");
    for (name, value) in
        [("FLUJO_STATE_MODE", "memory"), ("FLUJO_STATE_URI", "memory://"), ("CAUDAL_FLOW_DURABLE", "false")]
    {
        let run = place.command(&["run", "ask", "--run-id", "m"]).env(name, value).output().unwrap();
        let words = String::from_utf8_lossy(&run.stderr).into_owned();
        assert!(words.contains("was not stored"), "{name}: {words}");
    }
    assert!(place.bad(1, &["show", "m"]).contains("there is no run m"));
}

#[test]
fn of_two_processes_that_answer_one_wins() {
    let place = Place::with(&[ASK]);
    place.good(&["run", "ask", "--run-id", "r", "--input", "this"]);
    let answer = |answer: &str| {
        let mut command = place.command(&["resume", "r", "--answer", answer]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let answering: Vec<Child> = ["true", "false", "true", "false"].map(answer).into();
    let ended: Vec<_> = answering.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let codes: Vec<_> = ended.iter().map(|output| output.status.code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{ended:?}");
    assert_eq!(codes.iter().filter(|code| **code == Some(1)).count(), 3, "{ended:?}");
    let won = ended.iter().find(|output| output.status.success()).unwrap();
    let good: Value = serde_json::from_slice(&won.stdout).unwrap();
    assert_eq!(place.json(&["show", "r", "--json"])["output"], good);
}

#[test]
fn a_run_that_is_ended_never_goes_on() {
    let place = Place::with(&[ASK]);
    place.good(&["run", "ask", "--run-id", "r", "--input", "this"]);
    assert_eq!(place.good(&["cancel", "r"]), "r  cancelled\n");
    assert!(place.bad(1, &["resume", "r", "--answer", "true"]).contains("the run is cancelled"));
    assert!(place.bad(1, &["cancel", "r"]).contains("over already"));
    assert_eq!(status(&place, "r"), "cancelled");
    assert!(place.bad(1, &["resume", "nobody"]).contains("there is no run nobody"));
}

#[test]
fn a_run_of_another_version_is_not_taken_up() {
    let place = Place::with(&[ASK]);
    place.good(&["run", "ask", "--run-id", "r", "--input", "this"]);
    place.write("ask.yaml", &ASK.replace("Is {{", "Was {{"));
    let said = place.bad(1, &["resume", "r", "--answer", "true"]);
    assert!(said.contains("another version of the pipeline ask"), "{said}");
    place.write("ask.yaml", ASK);
    place.good(&["resume", "r", "--answer", "true"]);
}

#[test]
fn what_failed_is_tried_from_where_it_failed() {
    let server = Local::start(|seen, before| {
        crate::local::Reply::json(if seen.path == "/second" && before == 0 { 400 } else { 200 }, &json!({}))
    });
    let place = slow(&server, 0.0);
    assert!(place.bad(1, &["run", "slow", "--run-id", "s"]).contains("second: 127.0.0.1 answers 400"));
    assert_eq!(status(&place, "s"), "failed");
    place.good(&["resume", "s"]);
    assert_eq!(server.paths(), ["/first", "/second", "/second"]);
}
