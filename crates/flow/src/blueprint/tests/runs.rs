//! Every kind of step, read from a file and run by the real engine.

use std::collections::HashMap;

use super::*;
use crate::{Engine, Limits, Options, Outcome, RunOptions, Status};

fn wait<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work)
}

pub(super) fn ran(definition: &Definition, input: Value) -> crate::Ran {
    let context = value!({"items": [1, 2, 3], "name": "Ada", "on": true}).as_map().cloned().unwrap_or_default();
    let options = RunOptions { context, ..RunOptions::default() };
    wait(Engine::new(Options::default()).run(definition, input, options))
}

#[track_caller]
pub(super) fn gives(text: &str, input: Value, expected: Value) {
    assert_eq!(ran(&good(text), input).output().expect("an output"), expected, "{text}");
}

/// What a run gives of which each question is answered by the next of these.
pub(super) fn answered(definition: &Definition, input: Value, answers: &[&str]) -> Value {
    let engine = Engine::new(Options::default());
    wait(async {
        let mut ran = engine.run(definition, input, RunOptions::default()).await;
        for answer in answers {
            assert!(matches!(ran.outcome, Outcome::Paused(_)), "{answer}: {:?}", ran.outcome);
            let answers = HashMap::from([("".into(), Value::from(*answer))]);
            ran = engine.resume(definition, &ran.id, answers, false).await.expect("a run").await;
        }
        ran.output().expect("an output")
    })
}

#[track_caller]
pub(super) fn fails(text: &str, input: Value, expected: &str) {
    let error = ran(&good(text), input).output().expect_err(text);
    assert!(error.to_string().contains(expected), "{error} does not say {expected}");
}

#[test]
fn steps_and_leaves() {
    gives("steps: [{name: a, uses: 'module:double'}, {step: b, agent: upper}]", value!(2), value!(""));
    gives("steps: [{name: a, agent: {id: add, params: {n: 5}}}]", value!(2), value!(7));
    gives("steps: [{name: a, agent: {id: flujo.builtins.add}}]", value!(2), value!(3));
    gives("steps: [{name: a, uses: add, with: {n: 5}}]", value!(2), value!(7));
    gives("steps: {name: a}", value!(2), value!(2));
    gives("steps: [{name: a, uses: upper, input: 'x{{ context.name }}'}]", value!(2), value!("XADA"));
    gives(
        "steps: [{name: a, input: {all: '{{ context.items }}', n: '{{ previous_step }}'}}]",
        value!(2),
        value!({"all": [1, 2, 3], "n": 2}),
    );
    gives(
        "steps: [{name: a, uses: add}, {name: b-c, uses: add}, {name: d, input: '{{ steps.a.output }} {{ steps[\"b-c\"].output + steps.a }}'}]",
        value!(1),
        value!("2 5"),
    );
    gives("steps: [{name: a, uses: second_try}]", value!(null), value!(2));
    fails("steps: [{name: a, uses: second_try, config: {max_retries: 0}}]", value!(null), "not yet");
    fails("steps: [{name: a, uses: fail}]", value!(null), "it always fails");
    gives("steps: [{name: a, uses: fail, fallback: {name: b, uses: add}}]", value!(1), value!(2));
    gives(
        "steps: [{name: a, sink_to: found.x}, {name: b, input: '{{ context.found.x }}!'}]",
        value!("y"),
        value!("y!"),
    );
    gives(
        "steps: [{name: a, updates_context: true}, {name: b, input: '{{ context.k }}'}]",
        value!({"k": 1}),
        value!(1),
    );
    fails("steps: [{name: a, input_schema: {type: string}}]", value!(1), "its input does not fit");
    fails("steps: [{name: a, output_schema: {type: string}}]", value!(1), "its output does not fit");
    fails("steps: [{name: a, validators: ['output > 5']}]", value!(1), "`output > 5` does not hold");
    fails("steps: [{name: a, plugins: [{name: output > 5, priority: 1}]}]", value!(1), "does not hold");
    fails("{input_schema: {type: string}, steps: [{name: a}]}", value!(1), "input does not fit");
    fails("{output_schema: {type: string}, steps: [{name: a}]}", value!(1), "output does not fit");
    fails("steps: [{name: a, uses: add, input: '{{ context.nam }}'}]", value!(1), "did you mean name?");
}

#[test]
fn agents_are_leaves() {
    let text = "
agents:
  writer: {model: 'openai:x', system_prompt: Be kind, output_schema: {type: string}, timeout: '30', max_retries: 2}
steps:
  - {name: a, uses: agents.writer, config: {temperature: 0.5}}
";
    let told = value!({"model": "openai:x", "system_prompt": "Be kind", "output_schema": {"type": "string"}, "temperature": 0.5});
    gives(text, value!("hi"), Value::list([told, value!("hi")]));
    let sources = files(&[("prompts/a.txt", "Hello {{ who }}")]);
    let text = "{agents: {w: {model: m, system_prompt: {from_file: prompts/a.txt, variables: {who: Ada}}}}, steps: [{name: a, uses: agents.w}]}";
    let (definition, _) = Blueprint::read(text, &sources, &registry()).expect("a pipeline");
    let expected = value!([{"model": "m", "system_prompt": "Hello Ada"}, 1]);
    assert_eq!(ran(&definition, value!(1)).output(), Ok(expected));
}

#[test]
fn branches() {
    let parallel = |more: &str| {
        format!(
            "steps: [{{kind: parallel, name: p, branches: {{b: [{{name: x, uses: add}}], a: {{name: y, uses: 'module:double'}}}}{more}}}]"
        )
    };
    gives(&parallel(""), value!(5), value!({"a": 10, "b": 6}));
    gives(&parallel(", reduce: values"), value!(5), value!([6, 10]));
    gives(&parallel(", reduce: {mode: keys}"), value!(5), value!(["b", "a"]));
    gives(&parallel(", reduce: first"), value!(5), value!(6));
    gives(&parallel(", reduce: output.a + output.b"), value!(5), value!(16));
    let failing = "steps: [{kind: parallel, name: p, on_branch_failure: IGNORE, branches: {a: [{name: x, uses: fail}], b: [{name: y}]}}]";
    gives(failing, value!(1), value!({"b": 1}));
    let merging = |rule: &str| {
        format!(
            "steps: [{{kind: parallel, name: p, merge_strategy: {rule}, branches: {{a: [{{name: x, input: 1, sink_to: k}}], b: [{{name: y, input: 2, sink_to: k}}]}}}}, {{name: k, input: '{{{{ context.k }}}}'}}]"
        )
    };
    gives(&merging("keep_first"), value!(0), value!(1));
    gives(&merging("overwrite"), value!(0), value!(2));
    fails(&merging("context_update"), value!(0), "sets context.k");
    fails(&merging("no_merge"), value!(0), "k is not there");
    let mapped = "steps: [{kind: parallel, name: p, field_mapping: {a: [k]}, branches: {a: [{name: x, input: 1, sink_to: k}, {name: z, input: 3, sink_to: l}], b: [{name: y}]}}, {name: k, input: '{{ context.k }} {{ context.l or 0 }}'}]";
    gives(mapped, value!(0), value!("1 0"));
}

#[test]
fn branches_see_only_the_listed_names_of_the_context() {
    let steps = |rule: &str, after: &str| {
        format!(
            "steps: [{{name: s, input: 1, sink_to: seen}}, {{name: h, input: 2, sink_to: hidden}}, \
             {{kind: parallel, name: p, context_include_keys: [seen], merge_strategy: {rule}, branches: {{b: [\
             {{name: x, input: '{{{{ context.seen }}}} {{{{ context.hidden or 0 }}}}', sink_to: new}}, \
             {{name: y, input: 7, sink_to: seen}}]}}}}, {{name: after, input: '{after}'}}]"
        )
    };
    let all = "{{ context.new or 0 }}, {{ context.seen }}, {{ context.hidden }}";
    gives(&steps("context_update", all), value!(0), value!("1 0, 7, 2"));
    gives(&steps("overwrite", all), value!(0), value!("0, 7, 2"));
    gives(&steps("no_merge", all), value!(0), value!("0, 1, 2"));
}

#[test]
fn choices() {
    let choice = |when: &str| {
        format!(
            "steps: [{{kind: conditional, name: c, {when}, branches: {{yes: [{{name: y, input: Y}}], 'false': [{{name: n, input: N}}], cat: [{{name: k, input: C}}]}}}}]"
        )
    };
    gives(&choice("condition_expression: previous_step > 3"), value!(5), value!("Y"));
    gives(&choice("condition_expression: '{{ previous_step > 3 }}'"), value!(1), value!("N"));
    gives(&choice("condition_expression: \"'cat'\""), value!(1), value!("C"));
    gives(&choice("condition_expression: context.nothing.deep == 'x'"), value!(1), value!("N"));
    gives(&choice("default_branch: [{name: d, input: D}]"), value!("cat"), value!("C"));
    gives(&choice("condition_expression: previous_step"), value!("Yes"), value!("Y"));
    gives(&choice("condition_expression: previous_step"), value!([]), value!("N"));
    gives(
        &choice("condition_expression: previous_step, default_branch: {name: d, input: D}"),
        value!("no"),
        value!("D"),
    );
    fails(&choice("condition_expression: previous_step"), value!("no"), "there is no branch no, only yes, false, cat");
    fails(&choice("condition_expression: previous_step > 3"), value!("5"), "between string and number");
    let both = "steps: [{kind: conditional, name: c, condition_expression: input, branches: {Yes: [{name: y, input: Y}], no: [{name: n, input: N}]}}]";
    for (said, expected) in [(value!("no"), "N"), (value!("yes"), "Y"), (value!(false), "N"), (value!(1), "Y")] {
        gives(both, said, value!(expected));
    }
    gives(
        "steps: [{kind: conditional, name: c, condition_expression: output, branches: {a: {name: y}}, default_branch: {name: d, input: D}}]",
        value!("zzz"),
        value!("D"),
    );
    gives(
        "steps: [{kind: dynamic_router, name: r, router: {router_agent: passthrough, branches: {a: [{name: x, input: 1}], b: [{name: y, input: 2}]}}}]",
        value!(["b"]),
        value!({"b": 2}),
    );
}

#[test]
fn unlike_kinds_decide_nothing() {
    let wrong = "is not supported between";
    fails("steps: [{name: a, input: x, validators: ['output > 1']}]", value!(0), wrong);
    fails("steps: [{name: a, input: '{{ none }}', static_invariants: ['output < 1']}]", value!(0), wrong);
    fails(
        "steps: [{kind: loop, name: l, loop: {body: [{name: x, input: []}], max_loops: 2, exit_expression: output >= 1}}]",
        value!(0),
        wrong,
    );
    fails("steps: [{name: a, input: '{% if output > 1 %}x{% endif %}'}]", value!("5"), wrong);
    fails(
        "steps: [{kind: StateMachine, name: m, start_state: a, end_states: [b], states: {a: [{name: x}], b: []}, \
         transitions: [{from: a, to: b, when: output > 1}]}]",
        value!("5"),
        wrong,
    );
}

#[test]
fn values_by_their_tags() {
    let given = |value: &str| format!("steps: [{{name: a, input: {{v: {value}}}}}]");
    for (written, expected) in [
        ("!!float 3", value!(3.0)),
        ("!!float '2.50'", value!(2.5)),
        ("!!int '3'", value!(3)),
        ("!!int \"-7\"", value!(-7)),
        ("!!str 3", value!("3")),
        ("!!str yes", value!("yes")),
        ("! 3", value!("3")),
        ("!!bool 'yes'", value!(true)),
        ("!!null ''", value!(null)),
        ("!<tag:yaml.org,2002:float> 1", value!(1.0)),
        ("!!seq [1]", value!([1])),
        ("!!map {a: !!float 1}", value!({"a": 1.0})),
        ("18446744073709551615", value!(u64::MAX)),
        ("'3'", value!("3")),
    ] {
        let output = ran(&good(&given(written)), value!(0)).output().expect(written);
        assert_eq!(output.to_json(), value!({ "v": expected }).to_json(), "{written}");
    }
    let long = "-123456789012345678901234567890";
    let output = ran(&good(&given(long)), value!(0)).output().expect(long);
    assert_eq!(output.to_json(), format!("{{\"v\":{long}}}"));
}

#[test]
fn loops() {
    gives("steps: [{kind: loop, name: l, loop: {body: [{name: x, uses: add}], max_loops: 3}}]", value!(0), value!(3));
    gives(
        "steps: [{kind: loop, name: l, loop: {body: [{name: x, uses: add}], exit_expression: output >= 4}}]",
        value!(0),
        value!(4),
    );
    fails(
        "steps: [{kind: loop, name: l, loop: {body: [{name: x, uses: add}], exit_expression: output > 5}}]",
        value!(0),
        "5 turns were not enough",
    );
    let state = "
steps:
  - kind: loop
    name: l
    loop:
      init: [{set: context.log, value: []}, {set: context.n, value: '{{ previous_step }}'}]
      body: [{name: x, uses: add}]
      state:
        append: [{target: context.log, value: '{{ output }}'}]
        merge: [{target: context.seen, value: '{\"last\": {{ output }}}'}]
      max_loops: 2
      output_template: {log: '{{ context.log }}', n: '{{ context.n }}', seen: '{{ context.seen }}'}
";
    gives(state, value!(7), value!({"log": [8, 9], "n": 7, "seen": {"last": 9}}));
    gives(
        "steps: [{kind: loop, name: l, loop: {body: [{name: x}], max_loops: 2, propagation: {next_input: '{{ output ~ 1 }}'}}}]",
        value!("a"),
        value!("a1"),
    );
    let context = "steps: [{kind: loop, name: l, loop: {body: [{name: x}], max_loops: 2, propagation: context}}, {name: y, input: '{{ output.name }}'}]";
    gives(context, value!(1), value!("Ada"));
}

#[test]
fn maps() {
    let map = |more: &str| {
        format!(
            "steps: [{{kind: map, name: m, map: {{body: [{{name: x, uses: add, input: '{{{{ this }}}}'}}], {more}}}}}]"
        )
    };
    gives(&map("iterable_input: items"), value!(0), value!([2, 3, 4]));
    gives(&map("iterable_input: context.items, concurrency: 2"), value!(0), value!([2, 3, 4]));
    gives(&map("iterable_input: '{{ previous_step }}'"), value!([5]), value!([6]));
    gives(
        &map("iterable_input: items, finalize: {output_template: '{{ output|join(\"+\") }}'}"),
        value!(0),
        value!("2+3+4"),
    );
    gives(&map("iterable_input: items, init: {set: [{target: context.items, value: [9]}]}"), value!(0), value!([10]));
    let failing = "steps: [{kind: map, name: m, map: {iterable_input: items, on_item_failure: ignore, body: [{name: x, uses: fail}]}}]";
    gives(failing, value!(0), value!([null, null, null]));
    fails(&map("iterable_input: name"), value!(0), "goes through a list");
}

#[test]
fn what_a_run_was_given_is_known_where_it_is_asked_for() {
    let text = "steps: [{name: x, uses: add}, {name: y, input: '{{ context.initial_prompt }} {{ previous_step }}'}]";
    gives(text, value!(1), value!("1 2"));
}

#[test]
fn somebody_is_asked() {
    let text = "steps: [{kind: hitl, name: h, message: 'Is {{ previous_step }} right?', input_schema: {type: boolean}, sink_to: answer}, {name: x, input: '{{ context.answer }}'}]";
    let (definition, engine) = (good(text), Engine::new(Options::default()));
    wait(async {
        let first = engine.run(&definition, value!(1), RunOptions::default()).await;
        let Outcome::Paused(prompts) = &first.outcome else { panic!("{:?}", first.outcome) };
        assert_eq!((&prompts[0].message, &prompts[0].schema), (&value!("Is 1 right?"), &value!({"type": "boolean"})));
        let answer = |value: Value| HashMap::from([("".into(), value)]);
        let wrong = engine.resume(&definition, &first.id, answer(value!("x")), false).await.expect("a run").await;
        let Outcome::Paused(prompts) = &wrong.outcome else { panic!("{:?}", wrong.outcome) };
        assert!(prompts[0].refused.is_some(), "{prompts:?}");
        let done = engine.resume(&definition, &first.id, answer(value!(true)), false).await.expect("a run").await;
        assert_eq!(done.output(), Ok(value!(true)));
    });
}

#[test]
fn answers_are_remembered() {
    let text = "steps: [{kind: cache, name: c, ttl_s: 60, wrapped_step: {name: x, uses: add}}]";
    let (definition, engine) = (good(text), Engine::new(Options::default()));
    wait(async {
        for (input, expected, cached) in [(1, 2, false), (1, 2, true), (5, 6, false)] {
            let ran = engine.run(&definition, Value::from(input), RunOptions::default()).await;
            assert_eq!((ran.entries[0].cached, ran.output()), (cached, Ok(Value::from(expected))));
        }
    });
}

#[test]
fn state_machines() {
    let text = "
steps:
  - kind: StateMachine
    name: s
    start_state: work
    end_states: [done]
    states:
      work: [{name: w, uses: add}]
      mend: {steps: [{name: m, input: 100}]}
    transitions:
      - {from: work, on: success, to: done, when: output > 3}
      - {from: work, on: success, to: work}
      - {from: '*', on: failure, to: mend}
      - {from: mend, on: success, to: done}
";
    gives(text, value!(0), value!(4));
    gives(&text.replace("uses: add", "uses: fail"), value!(0), value!(100));
}

#[test]
fn trees_and_planners() {
    let search = "steps: [{kind: tree_search, name: t, proposer: grow, evaluator: count_b, strategy: beam, candidate_validator: \"not output.startswith('a')\"}]";
    gives(search, value!(""), value!({"best": "bbb", "level": 3, "reached": true, "score": 1.0}));
    gives(
        &search.replace("strategy: beam, ", ""),
        value!(""),
        value!({"best": "bbb", "level": 3, "reached": true, "score": 1.0}),
    );
    let planner = "steps: [{kind: agentic_loop, name: a, planner: plan, registry: {shout: upper}}]";
    let command = value!({"type": "run_agent", "agent_name": "shout", "input_data": "hello"});
    let noted =
        Value::Map([("generated_command", command), ("execution_result", value!("HELLO"))].into_iter().collect());
    gives(planner, value!("greet"), Value::list([noted]));
}

#[test]
fn imports() {
    let sources = files(&[
        (
            "main.yaml",
            "{imports: {child: parts/child.yaml}, steps: [{name: a, uses: imports.child, config: {outputs: {k: mine.k}}}, {name: b, input: '{{ previous_step }} {{ context.mine.k }}'}]}",
        ),
        (
            "parts/child.yaml",
            "{imports: {other: ./other.yaml}, steps: [{name: x, uses: imports.other}, {name: y, sink_to: k}]}",
        ),
        ("parts/other.yaml", "{name: other, steps: [{name: x, uses: add}]}"),
    ]);
    let told = |config: &str, child: &str, input: Value| {
        let child = format!("steps: [{{name: x, input: '{{{{ {child} }}}}'}}]");
        let main = format!(
            "{{imports: {{c: c.yaml}}, steps: [{{name: t, input: [], sink_to: conversation_history}}, {{name: a, uses: imports.c, input: '{{{{ context.given }}}}', config: {{{config}}}}}]}}"
        );
        let (definition, _) = Blueprint::read(&main, &files(&[("c.yaml", &child)]), &registry()).expect("a pipeline");
        let context = [("given", input), ("import_artifacts", value!({"k": 1}))].into_iter().collect();
        let options = RunOptions { context, ..RunOptions::default() };
        wait(Engine::new(Options::default()).run(&definition, Value::Null, options)).output()
    };
    assert_eq!(told("", "context.initial_prompt", value!("hi")), Ok(value!("hi")));
    assert_eq!(told("inherit_context: true", "context.initial_prompt", value!("hi")), Ok(value!("hi")));
    assert_eq!(told("", "context.conversation_history", value!(1)), Ok(value!([])));
    assert!(told("inherit_conversation: false", "context.conversation_history", value!(1)).is_err());
    let artifacts = "context.import_artifacts";
    assert_eq!(told("input_to: import_artifacts", artifacts, value!(1)), Ok(value!({"initial_input": 1, "k": 1})));
    assert_eq!(told("input_to: both, input_scratchpad_key: x", artifacts, value!(1)), Ok(value!({"k": 1, "x": 1})));
    assert_eq!(told("input_to: both", artifacts, value!({"k": 2})), Ok(value!({"k": 2})));
    assert_eq!(told("input_to: both", "context.initial_prompt", value!(2)), Ok(value!(2)));
    assert!(told("input_to: initial_prompt", artifacts, value!(2)).is_err());

    let (definition, findings) = Blueprint::read_file("main.yaml", &sources, &registry()).expect("a pipeline");
    assert!(findings.iter().all(|finding| finding.code == "V-A1"), "{findings:?}");
    assert_eq!((&*definition.name, ran(&definition, value!(1)).output()), ("main", Ok(value!("2 2"))));
}

#[test]
fn limits_and_background() {
    let definition = good(
        "{name: n, description: d, durable: true, timeout_s: 5, usage_limits: {total_cost_usd_limit: 0.5, total_tokens_limit: 10, total_steps_limit: 1}, steps: [{name: a, uses: add}, {name: b, uses: add}]}",
    );
    assert_eq!(definition.limits, Limits { cost: Some(500_000), tokens: Some(10), steps: Some(1) });
    assert!(definition.durable && definition.timeout.is_some() && &*definition.description == "d");
    assert!(
        ran(&definition, value!(1))
            .output()
            .is_err_and(|error| error.to_string().contains("1 are left") || error.to_string().contains("are left"))
    );
    let background = ran(&good("steps: [{name: a, uses: add, config: {execution_mode: background}}]"), value!(1));
    assert_eq!(background.entries[0].status, Status::Completed);
    assert_eq!(background.output(), Ok(value!(1)));
}

#[test]
fn as_deep_as_a_file_may_be() {
    let cached = |step, _| format!("{{kind: cache, name: a, wrapped_step: {step}}}");
    let deep = (0..31).fold("{name: a, uses: add}".to_owned(), cached);
    gives(&format!("steps: [{deep}]"), value!(1), value!(2));
    let again = |step, _| format!("{{kind: loop, name: a, loop: {{max_loops: 1, body: [{step}]}}}}");
    let deep = (0..19).fold("{name: a, uses: add}".to_owned(), again);
    gives(&format!("steps: [{deep}]"), value!(1), value!(2));
}
