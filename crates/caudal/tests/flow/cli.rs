//! `caudal flow run`: what it takes, what it prints, what it ends with.

use serde_json::{Value, json};

use crate::{GREET, Place, good, local::Local, said, told};

/// Runs `greet` so, and looks at what it prints.
#[track_caller]
fn prints(words: &[&str], expected: &str) {
    let place = Place::with(&[GREET]);
    assert_eq!(place.good(&[&["run", "greet"], words].concat()), expected, "{words:?}");
}

#[test]
fn what_it_is_given_and_how_it_tells() {
    prints(&["--input", "Ada"], "Hello, Ada!\n");
    prints(&["--input", "-1"], "Hello, -1!\n");
    prints(&["--input", r#"{"a": 1}"#], "Hello, {\"a\":1}!\n");
    prints(&["--input", "Ada", "--final-output-format", "json"], "\"Hello, Ada!\"\n");
    prints(&["--input", "Ada", "--final-output-format", "md"], "Hello, Ada!\n");
    prints(&["--input", "Ada", "--ephemeral"], "Hello, Ada!\n");
    prints(&["--input", "Ada", "--summary"], "Hello, Ada!\n");
    prints(&["--input", "Ada", "--live"], "Hello, Ada!\n");
}

#[test]
fn the_input_comes_from_elsewhere_too() {
    let place = Place::with(&[GREET]);
    let out = told(&mut place.command(&["run", "greet", "--input", "-"]), "Grace\n");
    assert_eq!(out.stdout, b"Hello, Grace!\n", "{}", said(&out));
    let out = told(&mut place.command(&["run", "greet", "--input", "-"]), "[1, 2]");
    assert_eq!(out.stdout, b"Hello, [1,2]!\n", "{}", said(&out));
    assert_eq!(good(place.command(&["run", "greet"]).env("FLUJO_INPUT", "Edsger")), "Hello, Edsger!\n");
    let both = &mut place.command(&["run", "greet", "--input", "Barbara"]);
    assert_eq!(good(both.env("FLUJO_INPUT", "Edsger")), "Hello, Barbara!\n", "what is said counts more");
    let file = place.pipelines().join("greet.yaml");
    assert_eq!(
        place.good(&["run", file.to_str().unwrap(), "--input", "Ada"]),
        "Hello, Ada!\n",
        "a file is named as well"
    );
}

#[test]
fn the_context_is_there_from_the_beginning() {
    let text = "name: known\nsteps:\n  - {name: a, uses: script, with: {expression: context.n}}\n";
    let place = Place::with(&[text]);
    assert_eq!(place.good(&["run", "known", "--context-data", r#"{"n": 1}"#]), "1\n");
    std::fs::write(place.path("context.yaml"), "n: 41\n").unwrap();
    assert_eq!(place.good(&["run", "known", "--context-file", "context.yaml"]), "41\n");
    assert!(place.bad(2, &["run", "known", "--context-data", "7"]).contains("is an object"));
    let missing = place.bad(1, &["run", "known"]);
    assert!(missing.contains("n is not there") && missing.contains("step_input"), "{missing}");
}

#[test]
fn with_json_there_is_one_document_and_nothing_else() {
    let place = Place::with(&[GREET]);
    let out = place.run(&["run", "greet", "--input", "Ada", "--json"]);
    assert_eq!((out.stderr.len(), out.stdout.iter().filter(|byte| **byte == b'\n').count()), (0, 1), "{}", said(&out));
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&report["status"], &report["output"]), (&json!("completed"), &json!("Hello, Ada!")));
    assert!(report["run_id"].as_str().is_some_and(|id| !id.is_empty()), "{report}");
    let [step] = &report["steps"].as_array().unwrap()[..] else { panic!("{report}") };
    let told = (&step["name"], &step["status"], &step["output"], &step["cache_hit"]);
    assert_eq!(told, (&json!("words"), &json!("completed"), &json!("Hello, Ada!"), &json!(false)));
    assert!(step["duration_ms"].as_f64().is_some_and(|ms| ms >= 0.0), "{step}");

    let place =
        Place::with(&["name: broken\nsteps:\n  - {name: a, uses: fail, with: {message: no luck, again: false}}\n"]);
    let out = place.run(&["run", "broken", "--json"]);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((out.status.code(), &report["status"]), (Some(1), &json!("failed")));
    assert_eq!((&report["error"]["step"], &report["error"]["message"]), (&json!("a"), &json!("no luck")), "{report}");
}

#[test]
fn a_summary_shows_where_the_time_went() {
    let slow = "{name: slow, uses: sleep, with: {seconds: 0.05}}";
    let place = Place::with(&[&format!("name: timed\nsteps:\n  - {slow}\n  - {{name: quick, uses: passthrough}}\n")]);
    let out = place.run(&["run", "timed", "--summary", "--input", "x"]);
    let words = String::from_utf8_lossy(&out.stderr).into_owned();
    for wanted in ["✓ slow", "✓ quick", "0 tokens", "it waited for slow → quick"] {
        assert!(words.contains(wanted), "{wanted:?} is not in {words}");
    }
    assert_eq!(out.stdout, b"x\n");
}

#[test]
fn codes_tell_what_went_wrong() {
    let broken = "name: broken\nsteps:\n  - {name: a, uses: fail, with: {message: no luck}}\n";
    let unknown = "name: unknown\nsteps:\n  - {name: a, uses: passthruogh}\n";
    let alone = "name: alone\nimports: {other: other/there.yaml}\nsteps:\n  - {name: a, uses: imports.other}\n";
    let wrong = "name: wrong\nsteps:\n  - {name: a, kind: lop}\n";
    let both = "name: both\nsteps:\n  - {name: a, uses: passthruogh}\n  - {name: b, kind: lop}\n";
    let place = Place::with(&[GREET, broken, unknown, alone, wrong, both]);
    let check = |code: i32, words: &[&str], told: &str| {
        let said = place.bad(code, words);
        assert!(said.contains(told), "{words:?}: {told:?} is not in {said}");
    };
    check(1, &["run", "broken"], "a: no luck (step_failed)");
    check(2, &["run", "gret"], "is it greet?");
    check(2, &["run", "greet", "--no-such"], "--no-such");
    check(2, &["run"], "<PIPELINE>");
    check(2, &["run", "greet", "--timeout", "soon"], "soon");
    check(3, &["run", "unknown"], "did you mean passthrough?");
    check(3, &["run", "alone"], "there is no file other/there.yaml");
    check(4, &["run", "wrong"], "error V-K4");
    check(4, &["run", "both"], "error V-K4");
    check(1, &["show", "nobody"], "there is no run nobody");
    check(1, &["run", "greet", "--run-id", "a/b"], "a run's name has");
}

#[test]
fn limits_of_a_run_are_kept() {
    let place = Place::with(&["name: long\nsteps:\n  - {name: a, uses: sleep, with: {seconds: 60}}\n"]);
    let late = place.bad(1, &["run", "long", "--timeout", "100ms"]);
    assert!(late.contains("the run's time is up"), "{late}");
    let agent = "name: dear\nsteps:\n  - {name: a, uses: llm, with: {model: 'local:m'}}\n";
    let (place, server) = (Place::with(&[agent]), Local::counting());
    let words = ["run", "dear", "--input", "x", "--max-tokens", "100"];
    let out = place.command(&words).env("LOCAL_BASE_URL", server.url("/v1")).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(said(&out).contains("budget_exceeded"), "{}", said(&out));
    assert!(server.seen().is_empty(), "it is refused before it is sent");
}

#[test]
fn a_dry_run_does_nothing() {
    let server = Local::counting();
    let ask = format!("{{name: ask, uses: http, with: {{url: '{}'}}}}", server.url("/asked"));
    let schema = "input_schema: {type: object}";
    let place = Place::with(&[&format!("name: net\n{schema}\nsteps:\n  - {ask}\n")]);
    place.write("flow.yaml", "allow: ['127.0.0.1']\n");
    let told = place.good(&["run", "net", "--input", "{}", "--dry-run"]);
    assert!(told.contains("1. ask"), "{told}");
    assert!(server.seen().is_empty() && !place.data().exists());
    let wrong = place.bad(2, &["run", "net", "--input", "text", "--dry-run"]);
    assert!(wrong.contains("the input does not fit"), "{wrong}");
    place.good(&["run", "net", "--input", "{}"]);
    assert_eq!(server.paths(), ["/asked"]);
}
