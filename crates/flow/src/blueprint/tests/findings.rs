//! What is told of files that are wrong or odd, a line each.

use super::*;
use crate::Severity;

/// `text` has one finding, at `place`, of `code`, which says `said`.
#[track_caller]
fn finds(text: &str, place: (usize, usize), code: &str, said: &str) {
    let findings = match read(text) {
        Ok((_, findings)) | Err(findings) => findings,
    };
    let shown = findings.iter().map(|finding| format!("{finding}\n")).collect::<String>();
    let fits = |finding: &&Finding| (finding.line, finding.column, finding.code) == (place.0, place.1, code);
    let Some(finding) = findings.iter().find(fits) else { panic!("{text}\n{shown}") };
    let whole = finding.to_string();
    assert!(whole.contains(said), "{whole} does not say {said}");
    assert!(!finding.hint.is_empty());
}

#[track_caller]
fn warns(text: &str, place: (usize, usize), code: &str, said: &str) {
    finds(text, place, code, said);
    let (_, findings) = read(text).expect("odd, not wrong");
    assert!(findings.iter().all(|finding| finding.severity == Severity::Warning));
}

/// A file of one step, at line 2, column 6.
fn one(step: &str) -> String {
    format!("steps:\n  - {{name: a, {step}}}")
}

#[test]
fn files() {
    finds("", (1, 1), "V-Y1", "empty");
    finds("a: [", (2, 1), "V-Y1", "no YAML");
    finds("a: 1\na: 2", (2, 1), "V-Y1", "a stands twice");
    finds("a: 1\n---\nb: 2", (2, 1), "V-Y1", "several documents");
    finds("a: !!int x", (1, 10), "V-K2", "x is no value of !!int");
    finds("a: !!int 3.0", (1, 10), "V-K2", "3.0 is no value of !!int");
    finds("a: !!float .nan", (1, 12), "V-K2", "no value of !!float");
    finds("a: !mine x", (1, 10), "V-K2", "the tag !mine is not known");
    finds("a: !!set {b, c}", (1, 10), "V-K2", "the tag !!set is not known");
    finds("a: !!python/tuple [1]", (1, 19), "V-K2", "known are !!str");
    finds("[1]", (1, 1), "V-K2", "a pipeline is an object, and this is array");
    finds("{name: x}", (1, 1), "V-K3", "a pipeline has no steps");
    finds("{steps: 5}", (1, 9), "V-K2", "a list of steps");
    finds("{steps: [5]}", (1, 10), "V-K2", "a step is an object");
    finds("{stepz: [], steps: []}", (1, 2), "V-K1", "did you mean steps?");
    finds("{version: '0.2', steps: []}", (1, 11), "V-K2", "version cannot be 0.2");
    finds("{durable: maybe, steps: []}", (1, 11), "V-K2", "durable is true or false");
    finds("{timeout_s: -1, steps: []}", (1, 13), "V-A7", "a number, 0 or more");
    finds("{usage_limits: {cost: 1}, steps: []}", (1, 17), "V-K1", "usage_limits has no key cost");
    finds("{input_schema: {type: nonsense}, steps: []}", (1, 16), "V-S1", "no JSON schema");
    warns(
        "{input_schema: {enum: [yes, 'no', true]}, steps: []}",
        (1, 24),
        "V-K5",
        "yes without quotes is the boolean true",
    );
    warns(&one("input_schema: {properties: {a: {const: off}}}"), (2, 54), "V-K5", "write 'off' for the text");
    finds("{templates: {undefined: strickt}, steps: []}", (1, 25), "V-K2", "did you mean strict?");
    finds("{static_invariants: [x], steps: []}", (1, 22), "V-T3", "the name x is not known");
    finds("{static_invariants: x, steps: []}", (1, 21), "V-K2", "static_invariants is a list of texts");
    assert!(read("{version: 0.1, steps: []}").is_ok());
    assert!(read("\u{feff}{version: 0.1, steps: []}").is_ok_and(|(_, odd)| odd.is_empty()));
}

#[test]
fn steps() {
    finds("steps: [{uses: add}]", (1, 9), "V-K3", "a step has no name");
    finds(&one("kind: paralel"), (2, 21), "V-K4", "did you mean parallel?");
    finds(&one("kind: zzz"), (2, 21), "V-K4", "known are step, parallel");
    finds(&one("uzes: add"), (2, 15), "V-K1", "did you mean uses?");
    finds(&one("default_branch: []"), (2, 15), "V-K1", "it belongs to kind: conditional");
    finds(&one("uses: ad"), (2, 21), "V-A6", "did you mean add?");
    finds(&one("uses: [add]"), (2, 21), "V-K2", "uses is a text");
    finds(&one("uses: add, agent: add"), (2, 33), "V-K2", "not both");
    finds(&one("uses: add, with: {n: x}"), (2, 21), "V-A6", "settings of add do not fit");
    finds(&one("uses: upper, with: {n: x}"), (2, 21), "V-A6", "takes none, and is told n");
    finds(&one("uses: upper, config: {temperature: 1}"), (2, 21), "V-A6", "told temperature");
    finds(&one("agent: {ids: add}"), (2, 22), "V-K3", "a leaf has no id");
    finds(&one("agent: {id: add, para: {}}"), (2, 32), "V-K1", "a leaf has no key para");
    finds(&one("uses: agents.writer"), (2, 21), "V-A6", "there is no agent writer");
    finds(&one("config: {max_retries: many}"), (2, 37), "V-A7", "max_retries is a whole number");
    finds(&one("config: {max_retry: 1}"), (2, 24), "V-K1", "did you mean max_retries?");
    finds(&one("validators: ['1 +']"), (2, 28), "V-A6", "neither a check nor an expression");
    finds(&one("plugins: x"), (2, 24), "V-K2", "plugins is a list");
    finds(&one("fallback: {uses: add}"), (2, 25), "V-K3", "a step has no name");
    warns(&one("meta: {x: 1}"), (2, 5), "V-A1", "does nothing");
    warns(&one("uses: add, config: {on_failure: skip}"), (2, 47), "V-K5", "of imports alone");
    warns(&one("kind: hitl, processing: {aop: full}"), (2, 45), "V-K5", "aop changes nothing here");
    assert!(
        read(&one("kind: hitl, processing: {aop: 'off', structured_output: auto}"))
            .is_ok_and(|(_, odd)| odd.is_empty())
    );
    finds(&one("kind: hitl, processing: {structured: off}"), (2, 40), "V-K1", "known are structured_output, aop");
}

#[test]
fn words() {
    finds(&one("input: '{{ contxt.a }}'"), (2, 26), "V-T3", "did you mean context?");
    finds(&one("input: '{{ output | to_json }}'"), (2, 35), "V-T3", "did you mean tojson?");
    finds(&one("input: {a: [x, '{{ 1 + }}']}"), (2, 36), "V-T3", "cannot be read");
    finds("steps:\n  - name: a\n    input: |\n      x\n      {{ y }}", (5, 1), "V-T3", "the name y is not known");
    finds(&one("input: '{% for x in range(9) %}{% endfor %}'"), (2, 35), "V-T3", "the name range is not known");
    warns(&one("uses: add, input: '{{ previous_step.output }}'"), (2, 33), "V-T1", "has no .output");
    warns(&one("uses: add, input: '{{ this.x }}'"), (2, 33), "V-T2", "no map is around");
    warns(&one("uses: add, input: '{{ steps.b.output }}'"), (2, 33), "V-T4", "there is no step b");
}

#[test]
fn kinds() {
    finds(&one("kind: parallel"), (2, 5), "V-K3", "parallel has no branches");
    finds(
        &one("kind: parallel, branches: {a: []}, merge_strategy: overwrit"),
        (2, 66),
        "V-K2",
        "did you mean overwrite?",
    );
    finds(&one("kind: parallel, branches: {a: []}, reduce: judge_selection"), (2, 58), "V-K3", "has no evaluator");
    finds(
        &one("kind: parallel, branches: {a: []}, reduce: {mode: first, x: 1}"),
        (2, 72),
        "V-K1",
        "reduce has no key x",
    );
    assert!(
        read(&one("kind: parallel, ignore_branch_names: true, branches: {a: []}")).is_ok_and(|(_, odd)| odd.is_empty())
    );
    finds(&one("kind: parallel, branches: {a: []}, field_mapping: {b: [x]}"), (2, 66), "V-K2", "there is no branch b");
    warns(
        &one("kind: parallel, branches: {a: {name: x, sink_to: k}, b: {name: y, sink_to: context.k}}"),
        (2, 41),
        "V-P1",
        "both write to context.k",
    );
    finds(&one("kind: conditional, condition: 'lambda: 1', branches: {a: []}"), (2, 45), "V-A6", "there is no rule");
    finds(&one("kind: conditional, branches: {yes: [], true: []}"), (2, 54), "V-K2", "two branches true");
    finds(&one("kind: conditional"), (2, 5), "V-K3", "a choice has no branches");
    finds(&one("kind: loop"), (2, 5), "V-K3", "a loop has no loop");
    finds(&one("kind: loop, loop: {max_loops: 1}"), (2, 33), "V-K3", "a loop has no body");
    finds(&one("kind: loop, loop: {body: [], max_loops: 0}"), (2, 55), "V-L1", "no turns");
    finds(&one("kind: loop, loop: {body: [], init: 5}"), (2, 50), "V-K2", "an object or a list");
    finds(&one("kind: loop, loop: {body: [], init: [{x: 1}]}"), (2, 51), "V-K2", "set, append or merge");
    finds(
        &one("kind: loop, loop: {body: [], init: [{set: 'a..b', value: 1}]}"),
        (2, 57),
        "V-K2",
        "no place in the context",
    );
    finds(&one("kind: loop, loop: {body: [], propagation: sideways}"), (2, 57), "V-K2", "cannot be given sideways");
    warns(&one("kind: loop, loop: {body: []}"), (2, 33), "V-L1", "it goes once");
    let talk = |more: &str| one(&format!("kind: loop, loop: {{body: [], max_loops: 1, {more}}}"));
    warns(&talk("history_management: {}"), (2, 78), "V-K5", "history_management changes nothing");
    warns(&talk("conversation: true, history_template: x"), (2, 96), "V-K5", "history_template changes nothing");
    let summary = "conversation: true, history_management: {strategy: summarize}";
    warns(&talk(summary), (2, 109), "V-K5", "summarize keeps the latest turns");
    finds(&talk("conversation: true, history_management: {max: 1}"), (2, 99), "V-K1", "has no key max");
    finds(&talk("conversation: true, ai_turn_source: lst"), (2, 94), "V-K2", "did you mean last?");
    finds(&talk("conversation: true, ai_turn_source: named_steps"), (2, 94), "V-K3", "no named_steps");
    finds(&one("kind: map, map: {body: []}"), (2, 31), "V-K3", "a map has no iterable_input");
    finds(&one("kind: map, map: {body: [], iterable_input: 'a b'}"), (2, 58), "V-T3", "cannot be read");
    finds(&one("kind: dynamic_router, router: {branches: {a: []}}"), (2, 45), "V-K3", "has no router_agent");
    finds(&one("kind: cache"), (2, 5), "V-K3", "a cache has no wrapped_step");
    finds(&one("kind: agentic_loop, planner: plan"), (2, 5), "V-K3", "has no registry");
    finds(&one("kind: agentic_loop, planner: plan, registry: module.x"), (2, 60), "V-K2", "registry is an object");
    finds(&one("kind: tree_search, proposer: grow"), (2, 5), "V-K3", "has no evaluator");
    finds(&one("kind: StateMachine, states: {a: []}"), (2, 5), "V-K3", "has no start_state");
    finds(&one("kind: StateMachine, states: {work: []}, start_state: wrok"), (2, 68), "V-SM1", "did you mean work?");
    finds(
        &one("kind: StateMachine, states: {a: []}, start_state: a, transitions: [{from: a, to: b}]"),
        (2, 96),
        "V-SM1",
        "there is no state b",
    );
    warns(
        &one(
            "kind: StateMachine, states: {a: [], b: []}, start_state: a, transitions: [{from: a, to: b, when: output.last_output == 1}]",
        ),
        (2, 112),
        "V-K5",
        "there is no event around it",
    );
    warns(
        &one("kind: StateMachine, states: {a: []}, start_state: a, end_states: [b]"),
        (2, 5),
        "V-SM1",
        "lead from a to an end",
    );
}

#[track_caller]
fn of_imports(sources: &[(&str, &str)], file: &str, code: &str, said: &str) {
    let findings = Blueprint::read_file("main.yaml", &files_of(sources), &registry()).err().expect("findings");
    let shown = findings.iter().map(|finding| format!("{finding}\n")).collect::<String>();
    let fits = |finding: &&Finding| &*finding.file == file && finding.code == code && finding.message.contains(said);
    assert!(findings.iter().any(|finding| fits(&finding)), "{shown} does not say {said}");
}

fn files_of(sources: &[(&str, &str)]) -> BTreeMap<String, String> {
    super::files(sources)
}

#[test]
fn imports() {
    let main = |path: &str| format!("{{imports: {{x: {path}}}, steps: [{{name: a, uses: imports.x}}]}}");
    let cycle = [("main.yaml", &*main("b.yaml")), ("b.yaml", &*main("c/c.yaml")), ("c/c.yaml", &*main("../b.yaml"))];
    of_imports(&cycle, "c/c.yaml", "V-I3", "b.yaml → c/c.yaml → b.yaml");
    of_imports(&[("main.yaml", &main("main.yaml"))], "", "V-I3", "main.yaml → main.yaml");
    of_imports(&[("main.yaml", &main("gone.yaml"))], "", "V-I1", "there is no file gone.yaml");
    of_imports(&[("main.yaml", &main("../out.yaml"))], "", "V-I1", "leads out of the folder");
    of_imports(&[("main.yaml", &main("/etc/passwd"))], "", "V-I1", "leads out of the folder");
    of_imports(
        &[("main.yaml", &main("b.yaml")), ("b.yaml", "steps: [{name: a, uses: zzz}]")],
        "b.yaml",
        "V-A6",
        "no leaf zzz",
    );
    of_imports(&[("main.yaml", "steps: [{name: a, uses: imports.x}]")], "", "V-I1", "there is no import x");
    let chain: Vec<(String, String)> =
        (0..20).map(|n| (format!("{n}.yaml"), main(&format!("{}.yaml", n + 1)))).collect();
    let mut chain: Vec<(&str, &str)> = chain.iter().map(|(name, text)| (&**name, &**text)).collect();
    let first = main("0.yaml");
    chain.push(("main.yaml", &first));
    of_imports(&chain, "6.yaml", "V-Y2", "more than 8 files");
}
