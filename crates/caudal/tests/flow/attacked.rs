//! What callers and files of pipelines cannot do: lose a step, fill the log, kill the server, lead a client elsewhere.

use std::{process::Stdio, time::Instant};

use caudal_testkit::{Server, http::PATIENCE};
use serde_json::{Value, json};

use crate::{GREET, Place, answered, refused, said, told, until};

fn run(server: &Server, name: &str, order: &Value) -> caudal_testkit::http::Answer {
    server.post_json(&format!("/api/v1/pipelines/{name}/run"), &order.to_string())
}

fn begin(server: &Server, name: &str, order: &Value) -> caudal_testkit::http::Answer {
    server.post_json(&format!("/api/v1/pipelines/{name}/run?wait=false"), &order.to_string())
}

const NAP: &str = "name: nap\nsteps:\n  - {name: s, uses: sleep, with: {seconds: 600}}\n";
const FAILS: &str = "name: fails\nsteps:\n  - {name: f, uses: fail, with: {message: '{{ input }}', again: false}}\n";

#[test]
fn log_of_a_failed_step_holds_no_input_and_no_line_of_a_caller() {
    let place = Place::with(&[FAILS]);
    let mut server = place.serve();
    let words = "Juana Inventada\n2026-01-01T00:00:00.000000Z  INFO listening on http://evil.example\r\u{1b}[2J";
    let answer = run(&server, "fails", &json!({"input": words, "run_id": "r"}));
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("Juana Inventada"), "the caller is told why");
    server.signal("TERM");
    server.wait(PATIENCE);
    let log = server.log();
    assert!(!log.contains("Juana") && !log.contains("evil.example"), "{log}");
    let line = log.lines().find(|line| line.contains("a step failed")).expect("the failure is logged");
    assert!(line.contains("WARN") && line.contains("step_failed") && line.contains("run_id=\"r\""), "{line}");
}

#[test]
fn address_that_may_not_be_asked_is_the_callers_fault() {
    let place = Place::with(&["name: ask\nsteps:\n  - {name: a, uses: http}\n"]);
    let server = place.serve();
    refused(403, "forbidden", "169.254.169.254", &run(&server, "ask", &json!({"input": "http://169.254.169.254/"})));
    assert!(!server.log().contains(" ERROR "), "{}", server.log());
}

#[test]
fn run_names_that_lead_elsewhere_are_refused() {
    let place = Place::with(&[GREET]);
    let server = place.serve();
    for name in [".", "..", "%2e", "%2e%2e", "a%2fb", "a?b", "a#b", "a/b", "a\\b", "a b", "", "ñ"] {
        refused(400, "invalid_parameter", "run's name", &run(&server, "greet", &json!({"input": 1, "run_id": name})));
    }
    for name in ["...", "a.b", "x~1", "2026-01-01T00:00:00+01:00", "a@b,(c)!$&'*;="] {
        let answer = run(&server, "greet", &json!({"input": 1, "run_id": name}));
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let location = answer.header("location").to_owned();
        assert_eq!(answered(200, &server.get(&location))["run_id"], name);
    }
}

#[test]
fn background_step_whose_name_is_taken_fails_its_run() {
    let work = "\
name: bg
steps:
  - {name: work, uses: template, with: {template: done}, config: {execution_mode: background}}
  - {name: after, uses: passthrough}
";
    let place = Place::with(&[work, NAP, GREET]);
    let server = place.serve();
    assert_eq!(begin(&server, "nap", &json!({"input": 1, "run_id": "a.work"})).status, 202);
    let answer = run(&server, "bg", &json!({"input": 1, "run_id": "a"}));
    assert!(answer.status >= 400 && answer.text().contains("a.work, and there is one, of nap"), "{}", answer.text());
    // One that is over has the name, too.
    assert_eq!(run(&server, "greet", &json!({"input": 1, "run_id": "b.work"})).status, 200);
    assert!(run(&server, "bg", &json!({"input": 1, "run_id": "b"})).status >= 400);
    answered(200, &run(&server, "bg", &json!({"input": 1, "run_id": "c"})));
    until("the step is done", || server.get("/api/v1/runs/c.work").status == 200);
    assert_eq!(answered(200, &server.get("/api/v1/runs/c.work"))["pipeline"], "bg#work");
}

#[test]
fn runs_that_nobody_waits_for_have_a_limit() {
    let place = Place::with(&[NAP, GREET]);
    let words = ["--pipelines", "pipelines", "--flow-max-runs", "3", "--flow-runs-mb", "1"];
    let folder = place.path("");
    let words =
        words.map(|word| if word == "pipelines" { format!("{}pipelines", folder.display()) } else { word.to_owned() });
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let server = Server::start_in(crate::CAUDAL, &crate::root("models"), &words, &[]);
    let nap = |bytes: usize| json!({"input": "x".repeat(bytes), "durable": false});
    assert_eq!(begin(&server, "nap", &nap(700_000)).status, 202);
    refused(429, "too_many_requests", "flow_runs_mb", &begin(&server, "nap", &nap(700_000)));
    for _ in 0..2 {
        assert_eq!(begin(&server, "nap", &nap(10)).status, 202);
    }
    refused(429, "too_many_requests", "3 runs go on here", &begin(&server, "nap", &nap(10)));
    refused(429, "too_many_requests", "3 runs go on here", &run(&server, "greet", &json!({"input": 1})));
}

#[test]
fn run_that_kills_its_process_is_recovered_three_times() {
    let place = Place::with(&[NAP]);
    let mut server = place.serve();
    assert_eq!(begin(&server, "nap", &json!({"input": 1, "run_id": "p"})).status, 202);
    for _ in 0..3 {
        server.signal("KILL");
        server.wait(PATIENCE);
        server = place.serve();
        until("it is recovered", || server.log().contains("runs that were interrupted go on"));
    }
    server.signal("KILL");
    server.wait(PATIENCE);
    server = place.serve();
    until("it is given up", || server.log().contains("stays interrupted until it is resumed"));
    assert!(!server.log().contains("runs that were interrupted go on"), "{}", server.log());
    let report = answered(200, &server.get("/api/v1/runs/p"));
    assert_eq!((&report["status"], &report["error"]["code"]), (&json!("interrupted"), &json!("run_state")), "{report}");
    let resumed = server.post_json("/api/v1/runs/p/resume?wait=false", "{}");
    assert_eq!(resumed.status, 202, "{}", resumed.text());
    assert_eq!(answered(200, &server.get("/api/v1/runs/p"))["status"], "running");
}

#[test]
fn expressions_and_contexts_that_grow_without_end_fail_soon() {
    let upper = format!(
        "name: upper\nsteps:\n  - {{name: t, uses: script, with: {{expression: '(input{})|length'}}}}\n",
        "|upper|lower".repeat(300)
    );
    let double = "\
name: double
steps:
  - name: m
    kind: loop
    loop:
      max_loops: 99
      exit_expression: 'context.n == input'
      init: {set: [{target: context.x, value: []}, {target: context.n, value: 0}]}
      state: {append: [{target: context.x, value: '{{ context.x }}'}], set: [{target: context.n, value: '{{ context.n + 1 }}'}]}
      body: [{name: a, uses: passthrough}]
      output: {x: '{{ context.x }}'}
";
    let place = Place::with(&[&upper, double]);
    let long = json!("a".repeat(5 << 20)).to_string();
    for (name, input, why) in
        [("upper", &*long, "works through more than"), ("double", "60", "the value holds more than")]
    {
        let since = Instant::now();
        let output = told(place.command(&["run", name, "--input", "-", "--ephemeral"]).stdout(Stdio::piped()), input);
        assert!(!output.status.success() && said(&output).contains(why), "{}", said(&output));
        assert!(since.elapsed().as_secs() < 20, "{:?}", since.elapsed());
    }
}

#[test]
fn files_with_a_mark_in_front_are_read() {
    let place = Place::new();
    place.write("x.yaml", &format!("\u{feff}{GREET}"));
    place.write("flow.yaml", "\u{feff}strict_prices: true\n");
    place.good(&["validate", "x"]);
    let output = told(&mut place.command(&["run", "x", "--input", "-"]), "\u{feff}\"Ada\"");
    assert!(said(&output).contains("Hello, Ada!"), "{}", said(&output));
}

#[test]
fn what_people_read_of_a_file_holds_no_escapes() {
    let place = Place::new();
    place.write("bad.yaml", "name: bad\nsteps:\n  - {name: a, uses: \"no\\e[2J\\nforged\"}\n");
    let output = place.run(&["validate", "bad"]);
    let text = said(&output);
    assert!(!text.contains('\u{1b}') && text.contains("no\\x1b[2J\\nforged"), "{text}");
}
