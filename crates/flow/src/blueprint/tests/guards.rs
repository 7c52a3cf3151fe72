//! What must hold, where states lead when somebody has answered, and what branches agree on.

use super::{
    runs::{answered, fails, gives},
    *,
};

#[test]
fn invariants_hold_after_each_step() {
    let file = |rule: &str| {
        format!(
            "{{static_invariants: [\"{rule}\"], steps: [{{name: a, uses: add}}, {{name: b, uses: 'module:double'}}]}}"
        )
    };
    gives(&file("output < 10"), value!(1), value!(4));
    gives(&file("{{ context.name == 'Ada' }}"), value!(1), value!(4));
    fails(&file("output < 10"), value!(5), "the invariant `output < 10` does not hold");
    fails(&file("output < 10"), value!(5), "the step b failed");
    fails(&file("context.balance >= 0"), value!(1), "balance is not there");
    let step =
        "steps: [{name: a, uses: add, static_invariants: ['output > 3'], fallback: {name: f, input: 9}}, {name: b}]";
    gives(step, value!(3), value!(4));
    fails(step, value!(1), "the invariant `output > 3` does not hold");
    let sees = "steps: [{name: a, input: 5, sink_to: k, static_invariants: ['context.k == 5']}]";
    gives(sees, value!(0), value!(5));
    let sources = files(&[("child.yaml", "{static_invariants: [output < 3], steps: [{name: x, uses: add}]}")]);
    let text = "{imports: {c: child.yaml}, steps: [{name: a, uses: imports.c}, {name: b, uses: imports.c}]}";
    let (definition, _) = Blueprint::read(text, &sources, &registry()).expect("a pipeline");
    assert_eq!(runs::ran(&definition, value!(0)).output(), Ok(value!(2)));
    assert!(runs::ran(&definition, value!(1)).output().is_err());
}

#[test]
fn only_what_is_there_is_changed() {
    let step =
        "steps: [{name: a, updates_context: true, validate_fields: true}, {name: b, input: '{{ context.name }}'}]";
    gives(step, value!({"name": "Bo"}), value!("Bo"));
    fails(step, value!({"nam": "Bo"}), "it sets context.nam, which is not there");
    gives(&step.replace(", validate_fields: true", ""), value!({"nam": "Bo"}), value!("Ada"));
}

const ASKING: &str = "
steps:
  - kind: StateMachine
    name: s
    start_state: ask
    end_states: [done]
    states:
      ask:
        - {kind: hitl, name: h, message: Well?, sink_to: said}
        - {name: rest, uses: fail}
      again: [{name: x, input: '{{ context.said }} again'}]
    transitions:
      - {from: ask, on: pause, to: again, when: output == 'no'}
      - {from: ask, on: pause, to: done}
      - {from: again, to: ask}
      - {from: '*', on: failure, to: done}
";

#[test]
fn states_lead_on_when_somebody_has_answered() {
    let machine = good(ASKING);
    assert_eq!(answered(&machine, value!(0), &["yes"]), value!("yes"));
    assert_eq!(answered(&machine, value!(0), &["no", "no", "yes"]), value!("yes"));
    let goes_on = good(&ASKING.replace(", on: pause", ", on: success").replace("uses: fail", "uses: upper"));
    assert_eq!(answered(&goes_on, value!(0), &["well"]), value!("WELL"));
    // A machine within is left for the one around, and from within other steps.
    let deep = "{kind: loop, name: l, loop: {max_loops: 3, body: [{kind: hitl, name: h, message: Well?}]}}";
    let nested = good(
        &ASKING
            .replace("{kind: hitl, name: h, message: Well?, sink_to: said}", deep)
            .replace("context.said", "previous_step"),
    );
    assert_eq!(answered(&nested, value!(0), &["no", "yes"]), value!("yes"));
    let both =
        "{kind: parallel, name: p, branches: {a: {kind: hitl, name: h, message: Well?}, b: {name: y, input: 1}}}";
    let branches = good(&ASKING.replace("{kind: hitl, name: h, message: Well?, sink_to: said}", both));
    assert_eq!(answered(&branches, value!(0), &["yes"]), value!("yes"));
}

#[test]
fn an_output_names_the_next_state() {
    let text = "steps: [{kind: StateMachine, name: s, start_state: a, end_states: [c], states: {a: {name: x, input: {next_state: b}}, b: {name: y, input: there}}}]";
    gives(text, value!(0), value!("there"));
}

#[test]
fn branches_agree() {
    let agree = |outputs: [&str; 3], reduce: &str| {
        let [a, b, c] = outputs;
        format!(
            "steps: [{{kind: parallel, name: p, reduce: {reduce}, branches: {{a: {{name: x, input: {a}}}, b: {{name: y, input: {b}}}, c: {{name: z, input: {c}}}}}}}]"
        )
    };
    gives(&agree(["one", "'two\n'", "' two'"], "majority_vote"), value!(0), value!("one"));
    gives(&agree(["one", "'two '", "' two'"], "code_consensus"), value!(0), value!("two "));
    gives(&agree(["one", "two", "three"], "code_consensus"), value!(0), value!("one"));
    gives(&agree(["1", "2", "2"], "code_consensus"), value!(0), value!(2));
    gives(&agree(["one", "2", "2"], "{mode: code_consensus}"), value!(0), value!(2));
    gives(&agree(["b", "bb", "abab"], "{mode: judge_selection, evaluator: liked}"), value!("abab"), value!("bb"));
    gives(&agree(["a", "c", "d"], "{mode: judge_selection, evaluator: liked}"), value!(0), value!("a"));
    fails(&agree(["a", "c", "d"], "{mode: judge_selection, evaluator: upper}"), value!(0), "the evaluator gave string");
}
