//! The server killed in the middle of runs, and started again.

use caudal_testkit::{Server, http::PATIENCE};
use serde_json::{Value, json};

use crate::{ASK, Place, answered, kept::slow, local::Local, refused, until};

/// Runs at the same time.
const RUNS: usize = 5;

fn report(server: &Server, number: usize) -> Value {
    answered(200, &server.get(&format!("/api/v1/runs/r{number}")))
}

/// A server ends by `signal` in the middle of runs; the next one goes on where they were.
fn ends_by(signal: &str) {
    let local = Local::counting();
    let place = slow(&local, 3.0);
    let mut server = place.serve();
    for number in 0..RUNS {
        let order = json!({"run_id": format!("r{number}")}).to_string();
        let answer = server.post_json("/api/v1/pipelines/slow/run?wait=false", &order);
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    // Where the second step runs, the first is kept.
    until("all are in the middle", || (0..RUNS).all(|number| report(&server, number)["steps"][1]["name"] == "sleep"));
    server.signal(signal);
    server.wait(PATIENCE);
    assert_eq!(local.paths(), ["/first"; RUNS], "{}", server.log());

    let server = place.serve();
    until("all are done", || (0..RUNS).all(|number| report(&server, number)["status"] == "completed"));
    let count = |path: &str| local.paths().iter().filter(|own| *own == path).count();
    assert_eq!((count("/first"), count("/second")), (RUNS, RUNS), "no step that was kept is done twice");
    // Nobody asked for them here: they are told of under their own names.
    let told = answered(200, &server.get("/admin/requests/r0"));
    assert_eq!((&told["status"], &told["pipeline"]["pipeline"]), (&json!(200), &json!("slow")), "{told}");
    let listed = answered(200, &server.get("/api/v1/runs"));
    assert!(listed["runs"].as_array().unwrap().iter().all(|run| run["status"] == "completed"), "{listed}");
}

#[test]
fn a_server_takes_up_what_it_was_killed_in() {
    ends_by("KILL");
}

#[test]
fn a_server_that_is_stopped_leaves_runs_to_the_next() {
    ends_by("TERM");
}

#[test]
fn a_run_waits_over_a_restart_and_knows_its_pipeline() {
    let place = Place::with(&[ASK]);
    let mut server = place.serve();
    for name in ["one", "two"] {
        let order = json!({"run_id": name, "input": "this"}).to_string();
        assert_eq!(server.post_json("/api/v1/pipelines/ask/run", &order).status, 202);
    }
    server.signal("KILL");
    server.wait(PATIENCE);
    let server = place.serve();
    let done = answered(200, &server.post_json("/api/v1/runs/one/resume", r#"{"answer": true}"#));
    assert_eq!(done["output"], json!({"good": true}));
    drop(server);

    place.write("ask.yaml", &ASK.replace("good", "fine"));
    let server = place.serve();
    let answer = server.post_json("/api/v1/runs/two/resume", r#"{"answer": true}"#);
    refused(409, "run_state", "another version of the pipeline ask", &answer);
    assert_eq!(answered(200, &server.get("/api/v1/runs/two"))["status"], "paused");
    drop(server);

    // On the command line it is the same run.
    place.write("ask.yaml", ASK);
    assert_eq!(place.json(&["resume", "two", "--answer", "false", "--json"])["output"], json!({"good": false}));
}
