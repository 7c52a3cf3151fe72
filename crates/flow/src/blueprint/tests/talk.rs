//! Conversations of loops: what is kept of them, and who is told.

use super::{runs::ran, *};

/// A loop of two turns in conversation, and after it what is kept.
fn talking(body: &str, more: &str) -> Definition {
    good(&format!(
        "steps: [{{name: l, kind: loop, loop: {{body: [{body}], max_loops: 2, conversation: true{more}}}}}, {{name: h, input: '{{{{ context.conversation_history }}}}'}}]"
    ))
}

fn lines(turns: &Value) -> Vec<String> {
    let word = |turn: &Value, key: &str| turn.get(key).and_then(Value::as_text).unwrap_or_default().to_owned();
    turns
        .as_list()
        .expect("turns")
        .iter()
        .map(|turn| format!("{}: {}", word(turn, "role"), word(turn, "content")))
        .collect()
}

#[track_caller]
fn says(body: &str, more: &str, input: Value, expected: &[&str]) {
    assert_eq!(lines(&ran(&talking(body, more), input).output().expect("a conversation")), expected, "{body} {more}");
}

#[test]
fn who_says_what() {
    let bang = "{name: bang, input: '{{ input }}!'}";
    let mark = "{name: mark, input: '{{ input }}?'}";
    says(bang, "", value!("hi"), &["user: hi", "assistant: hi!", "assistant: hi!!"]);
    says(bang, "", value!({"a": 1}), &["user: {\"a\":1}", "assistant: {\"a\":1}!", "assistant: {\"a\":1}!!"]);
    says(bang, "", value!(null), &["assistant: !", "assistant: !!"]);
    let both = &format!("{bang}, {mark}");
    says(both, "", value!("a"), &["user: a", "assistant: a!?", "assistant: a!?!?"]);
    let all = ", ai_turn_source: all_agents";
    says(
        both,
        all,
        value!("a"),
        &["user: a", "assistant: a!", "assistant: a!?", "assistant: a!?!", "assistant: a!?!?"],
    );
    let one = ", ai_turn_source: named_steps, named_steps: [bang]";
    says(both, one, value!("a"), &["user: a", "assistant: a!", "assistant: a!?!"]);
    let user = ", user_turn_sources: bang";
    says(both, user, value!("a"), &["user: a", "user: a!", "assistant: a!?", "user: a!?!", "assistant: a!?!?"]);
}

#[test]
fn what_is_said_is_words() {
    let asks = |action: &str| format!("{{name: q, input: {{action: {action}, question: Which one?}}}}");
    let seed = "user: x";
    says(&asks("ask"), "", value!("x"), &[seed, "assistant: Which one?"]);
    says(&asks("finish"), "", value!("x"), &[seed]);
    says(
        "{name: q, input: '{\"action\": \"ask\", \"question\": \"So?\"}'}",
        "",
        value!("x"),
        &[seed, "assistant: So?"],
    );
    says("{name: q, input: done}", "", value!("x"), &[seed]);
    // What is no words is passed over: the last words of the turn are those before.
    says("{name: a, input: said}, {name: b, input: {good: true}}", "", value!("x"), &[seed, "assistant: said"]);
    let named = ", ai_turn_source: named_steps, named_steps: [b]";
    says("{name: b, input: {good: true}}", named, value!("x"), &[seed, "assistant: {\"good\":true}"]);
    let branches = "{kind: parallel, name: p, branches: {b: {name: x, input: second}, a: {name: y, input: first}}}";
    let all = ", ai_turn_source: all_agents, history_management: {strategy: truncate_turns, max_turns: 2}";
    says(branches, all, value!("x"), &[seed, "assistant: second", "assistant: first"]);
}

#[test]
fn the_first_and_the_latest_are_kept() {
    let count = "{name: n, input: '{{ input|length }}: {{ input }}'}";
    let turns = |most: u32| format!(", history_management: {{strategy: truncate_turns, max_turns: {most}}}");
    says(count, &turns(1), value!("go"), &["user: go", "assistant: 5: 2: go"]);
    says(count, &turns(2), value!("go"), &["user: go", "assistant: 2: go", "assistant: 5: 2: go"]);
    says(count, &turns(3), value!("go"), &["user: go", "assistant: 2: go", "assistant: 5: 2: go"]);
    let tokens = |most: u32| format!(", history_management: {{max_tokens: {most}}}");
    says(count, &tokens(1), value!("go"), &["user: go", "assistant: 5: 2: go"]);
    says(count, &tokens(100), value!("go"), &["user: go", "assistant: 2: go", "assistant: 5: 2: go"]);
}

#[test]
fn people_answer_in_it() {
    let body = "{name: ask, kind: hitl, message: 'How is {{ input }}?'}, {name: reply, input: 'So {{ input }}.'}";
    let definition = talking(body, "");
    let talked = runs::answered(&definition, value!("it"), &["good", "better"]);
    let expected = [
        "user: it",
        "assistant: How is it?",
        "user: good",
        "assistant: So good.",
        "assistant: How is So good.?",
        "user: better",
        "assistant: So better.",
    ];
    assert_eq!(lines(&talked), expected);
    let silent = talking(body, ", user_turn_sources: []");
    assert!(!lines(&runs::answered(&silent, value!("it"), &["good", "better"])).contains(&"user: good".to_owned()));
}

#[test]
fn agents_within_are_told() {
    let file = |more: &str, step: &str| {
        format!(
            "{{agents: {{w: {{model: m, system_prompt: p}}}}, steps: [{{name: l, kind: loop, loop: {{body: [{{name: a, uses: agents.w{step}}}], max_loops: 1{more}}}}}]}}"
        )
    };
    let told = |more: &str, step: &str| {
        let output = ran(&good(&file(more, step)), value!("x")).output().expect("an output");
        output.as_list().and_then(|list| list[0].get("use_history").cloned())
    };
    assert_eq!(told("", ""), None);
    assert_eq!(told(", conversation: true", ""), Some(value!(true)));
    assert_eq!(told(", conversation: true", ", use_history: false"), Some(value!(false)));
    assert_eq!(told(", conversation: false", ""), None);
}

#[test]
fn a_conversation_that_is_none_is_told() {
    let text = "steps: [{name: l, kind: loop, loop: {body: [{name: a}], max_loops: 1, conversation: true, init: {set: [{target: context.conversation_history, value: x}]}}}]";
    let error = ran(&good(text), value!("x")).output().expect_err("no conversation").to_string();
    assert!(error.contains("context.conversation_history is string"), "{error}");
}
