//! Files that are made to hurt: nothing panics, nothing takes long, all is told.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

#[track_caller]
fn refused(text: &str, said: &str) {
    let start = Instant::now();
    let findings = read(text).err().expect("it is refused");
    let told = findings.iter().map(|finding| format!("{finding}\n")).collect::<String>();
    assert!(told.contains(said), "{} does not say {said}", &told[..told.len().min(400)]);
    assert!(start.elapsed() < Duration::from_secs(5), "it took {:?}", start.elapsed());
    assert!(told.len() < 100_000, "{} bytes of findings", told.len());
}

#[test]
fn bombs() {
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..30 {
        let before = format!("*a{}", n - 1);
        laughs += &format!("a{n}: &a{n} [{}]\n", [&*before; 10].join(", "));
    }
    refused(&laughs, "anchors counted each time");
    refused("a: &a [*a]", "V-Y2");
    refused(&format!("a: {}1{}", "[".repeat(5_000), "]".repeat(5_000)), "recursion limit");
    refused(&format!("a: {}1{}", "[".repeat(100), "]".repeat(100)), "more than 64 deep");
    refused(&"- ".repeat(5_000), "more than 64 deep");
    refused(&format!("name: {}", "x".repeat(10 << 20)), "1048576 are the most");
    refused(&format!("{}: 1", "x".repeat(500_000)), "V-");
    refused(&format!("steps: [{}]", "{uses: x},".repeat(20_000)), "V-");
    refused(&(0..100_000).map(|n| format!("k{n}: 1\n")).collect::<String>(), "V-Y2");
    refused(&format!("steps: [{{name: a, input: '{{{{ {} }}}}'}}]", "(".repeat(60_000)), "V-T3");
    refused(&format!("steps: [{{name: a, input: '{}'}}]", "{{ 1 }}".repeat(20_000)), "65536 are the most");
    refused("!!python/object/apply:os.system ['ls']", "V-K2");
}

#[test]
fn imports_that_multiply() {
    let mut sources = BTreeMap::new();
    for n in 0..8 {
        let uses = format!("{{name: a, uses: imports.x}}{}", ", {name: b, uses: imports.x}".repeat(30));
        sources.insert(format!("{n}.yaml"), format!("{{imports: {{x: {}.yaml}}, steps: [{uses}]}}", n + 1));
    }
    sources.insert("7.yaml".to_owned(), "steps: [{name: a, uses: upper}]".to_owned());
    let findings = Blueprint::read_file("0.yaml", &sources, &registry()).err().expect("it is refused");
    assert!(findings.iter().any(|finding| finding.message.contains("more than 10000 steps")), "{findings:?}");
    let deep =
        (0..40).fold("{name: a}".to_owned(), |step, _| format!("{{kind: cache, name: a, wrapped_step: {step}}}"));
    refused(&format!("steps: [{deep}]"), "within each other");
}

#[test]
fn files_stay_in_their_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("inside");
    std::fs::create_dir(&inside).expect("a folder");
    std::fs::write(folder.path().join("secret.yaml"), "steps: []").expect("a file");
    std::fs::write(inside.join("main.yaml"), "{imports: {x: link.yaml}, steps: []}").expect("a file");
    std::fs::write(inside.join("good.yaml"), "steps: []").expect("a file");
    #[cfg(unix)]
    std::os::unix::fs::symlink("../secret.yaml", inside.join("link.yaml")).expect("a link");
    let sources = crate::Folder::new(&inside);
    assert!(Blueprint::read_file("good.yaml", &sources, &registry()).is_ok());
    for name in ["main.yaml", "../secret.yaml", "link.yaml", "gone.yaml"] {
        let findings = Blueprint::read_file(name, &sources, &registry()).err().expect(name);
        assert_eq!(findings[0].code, "V-I1", "{name}");
    }
}

pub(super) const WHOLE: &str = "
version: '0.1'
name: whole
agents: {w: {model: m, system_prompt: p, output_schema: {type: string}}}
steps:
  - {name: a, uses: agents.w, input: '{{ context.x or previous_step }}', config: {max_retries: 2, timeout_s: 3}}
  - {kind: parallel, name: p, branches: {a: [{name: x}], b: {name: y}}, reduce: union}
  - {kind: conditional, name: c, condition_expression: output > 1, branches: {yes: [{name: z}], no: []}}
  - kind: loop
    name: l
    loop: {body: [{name: b, uses: add}], max_loops: 2, exit_expression: output, init: [{set: context.a, value: 1}]}
  - {kind: map, name: m, map: {iterable_input: items, body: [{name: i, input: '{{ this }}'}]}}
  - &h {kind: hitl, name: h, message: 'Well?', input_schema: {type: string}}
  - {<<: *h, name: h2}
  - {kind: cache, name: k, wrapped_step: {name: w, uses: upper}}
  - {kind: tree_search, name: t, proposer: grow, evaluator: count_b}
  - {kind: StateMachine, name: s, start_state: a, states: {a: []}, transitions: [{from: a, on: success, to: a}]}
  - {kind: dynamic_router, name: r, router: {router_agent: upper, branches: {a: []}}}
  - {kind: agentic_loop, name: g, planner: plan, registry: {x: upper}}
";

#[test]
fn the_whole_form_is_read() {
    assert_eq!(good(WHOLE).steps.len(), 12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is changed in a file, it is read or told of.
    #[test]
    fn changed_files_never_panic(changes in prop::collection::vec((0..2_000usize, 0..12usize), 1..6)) {
        const SIGNS: [&str; 12] = ["", "{", "}", "[", "]", ": ", "\n", "'", "{{", "*h", "- ", "\u{1f980}"];
        let mut text: Vec<char> = WHOLE.chars().collect();
        for (at, sign) in changes {
            let at = at % text.len();
            text.splice(at..at + 1, SIGNS[sign].chars());
        }
        let text: String = text.into_iter().collect();
        if let Ok((definition, _)) = read(&text) {
            for draw in [crate::explain, crate::mermaid, crate::svg] {
                assert!(!draw(&definition).is_empty());
            }
        }
    }

    #[test]
    fn anything_is_read_or_told_of(text in "\\PC{0,200}") {
        let _ = read(&text);
        let _ = read(&format!("steps: [{{name: a, input: \"{{{{ {} }}}}\"}}]", text.replace(['"', '\\'], "'")));
    }
}
