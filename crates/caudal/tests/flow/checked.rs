//! Pipelines that are looked at and not run: `validate`, `explain`, `visualize`, `schema`, `leaves`, `init`.

use serde_json::{Value, json};

use crate::{GREET, Place};

const WRONG: &str = "\
name: wrong
steps:
  - name: first
    uses: passthrough
    imput: x
  - name: second
    kind: conditional
    condition_expression: 'steps.frist'
    branches:
      a: [{name: x, uses: passthruogh}]
";

/// Checks that one of the findings is that.
#[track_caller]
fn found(findings: &[Value], at: (u64, u64), code: &str, hint: &str) {
    let same = |finding: &&Value| finding["line"] == at.0 && finding["column"] == at.1 && finding["code"] == code;
    let finding = findings.iter().find(same).unwrap_or_else(|| panic!("{at:?} {code}: {findings:?}"));
    assert!(finding["hint"].as_str().unwrap().contains(hint), "{finding}");
    assert!(!finding["message"].as_str().unwrap().is_empty());
}

#[test]
fn findings_tell_where_why_and_how_to_mend_it() {
    let place = Place::with(&[GREET, WRONG]);
    let out = place.run(&["validate", "wrong", "--json"]);
    assert_eq!(out.status.code(), Some(4));
    let told: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(told["valid"], false);
    let findings = told["findings"].as_array().unwrap();
    found(findings, (5, 5), "V-K1", "did you mean input?");
    found(findings, (8, 27), "V-T4", "did you mean first?");
    found(findings, (10, 27), "V-A6", "did you mean passthrough?");
    assert!(findings.iter().all(|finding| finding["file"].as_str().unwrap().ends_with("wrong.yaml")), "{told}");

    let all = place.bad(4, &["validate"]);
    assert!(all.contains("greet.yaml: 0 errors") && all.contains("wrong.yaml: 2 errors, 1 warnings"), "{all}");
    assert_eq!(place.json(&["validate", "greet", "--json"]), json!({"valid": true, "findings": []}));
}

#[test]
fn warnings_count_where_that_is_wanted() {
    let place = Place::with(&["name: odd\nsteps:\n  - {name: idle}\n"]);
    assert!(place.good(&["validate", "odd"]).contains("0 errors, 1 warnings"));
    assert!(place.bad(4, &["validate", "odd", "--strict"]).contains("V-A1"));
}

#[test]
fn hostile_files_are_refused_and_nothing_else_happens() {
    let bomb: String = (1..30).map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}]\n", n - 1)).collect();
    let bomb = format!("name: bomb\nsteps: []\na0: &a0 [1, 1]\n{bomb}");
    let long = format!("name: long\nsteps: [{{name: '{}'}}]\n", "x".repeat(10 << 20));
    let tabs = "name: tabs\nsteps:\n\t- x\n";
    let place = Place::with(&[&bomb, &long, tabs, "name: sort\nsteps: 7\n"]);
    for (name, code) in [("bomb", "V-Y2"), ("long", "V-Y2"), ("tabs", "V-Y1"), ("sort", "V-K2")] {
        let said = place.bad(4, &["validate", name]);
        assert!(said.contains(code) && said.len() < 10_000, "{name}: {}", &said[..said.len().min(300)]);
    }
    place.write("a.yaml", "imports: {b: b.yaml}\nsteps: [{name: x, uses: imports.b}]\n");
    place.write("b.yaml", "imports: {a: a.yaml}\nsteps: [{name: x, uses: imports.a}]\n");
    assert!(place.bad(3, &["validate", "a"]).contains("a.yaml → b.yaml → a.yaml"));
}

#[test]
fn pipelines_are_told_and_drawn() {
    let place = Place::with(&[GREET, crate::ASK]);
    assert_eq!(place.good(&["explain", "greet"]), "greet\n1. words\n");
    let drawn = place.good(&["visualize", "ask"]);
    assert!(drawn.starts_with("flowchart TD") && drawn.contains("approve"), "{drawn}");
    place.good(&["visualize", "ask", "--format", "svg", "-o", "ask.svg"]);
    let svg = std::fs::read_to_string(place.path("ask.svg")).unwrap();
    let mut reader = quick_xml::Reader::from_str(&svg);
    loop {
        match reader.read_event().unwrap() {
            quick_xml::events::Event::Eof => break,
            event => assert!(!format!("{event:?}").contains("script")),
        }
    }
    assert!(svg.starts_with("<svg") && svg.contains("approve"), "{svg}");
}

#[test]
fn editors_are_told_the_form() {
    let place = Place::new();
    let schema = place.json(&["schema"]);
    assert!(schema["properties"]["steps"].is_object() && schema["$defs"]["step"].is_object(), "{schema}");
    let leaves = place.good(&["leaves", "--json"]);
    let leaves: Vec<Value> = leaves.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for name in ["detect", "infer", "llm", "http", "record", "script", "template", "to_csv", "aggregate"] {
        assert!(leaves.iter().any(|leaf| leaf["name"] == name), "{name}");
    }
}

#[test]
fn who_begins_is_given_a_pipeline_that_runs() {
    let place = Place::new();
    let words = place.good(&["init"]);
    assert!(words.ends_with("caudal flow run pipelines/hello.yaml --input World --summary\n"), "{words}");
    assert_eq!(place.good(&["run", "hello", "--input", "World"]), "Hello, World! ¡Hola, World!\n");
    assert_eq!(place.good(&["run", "hello"]), "Hello, World! ¡Hola, mundo!\n", "no input is no empty name");
    place.write("hello.yaml", GREET);
    assert!(place.good(&["init"]).contains("hello.yaml is there already"));
    assert_eq!(place.good(&["run", "hello", "--input", "World"]), "Hello, World!\n", "what is there stays");
}
