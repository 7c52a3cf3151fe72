//! Leaves in pipelines that are written down, as Flujo's users write them.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::collections::BTreeMap;

use caudal_flow::{Blueprint, Engine, Folder, Options, Ran, RunOptions, Value, value};
use caudal_flow_leaves::{Allow, Llm, Net, Parts, Price, Prices, Provider};
use common::{
    registry_of,
    server::{Reply, Server},
};
use serde_json::json;

/// Reads a pipeline that may ask `server`, and runs it.
async fn ran(text: &str, server: &Server, input: Value) -> Ran {
    let provider = Provider { base_url: server.url("/v1"), key_env: None };
    let prices = Prices::new(BTreeMap::from([("local:*".to_owned(), Price::per_million(1.0, 2.0))]));
    let llm = Llm::new(BTreeMap::from([("local".to_owned(), provider)]), prices, |_| None);
    let net = Net::new(Allow::new(["127.0.0.1"]).unwrap());
    let registry = registry_of(Parts { llm, net, ..Parts::default() });
    let read = Blueprint::read(text, &Folder::new("."), &registry);
    let (definition, _) = read.unwrap_or_else(|findings| panic!("{findings:#?}"));
    let context = value!({"api": server.url("/prices"), "mood": "kind"}).as_map().unwrap().clone();
    let options = RunOptions { context, ..RunOptions::default() };
    Engine::new(Options::default()).run(&definition, input, options).await
}

async fn server() -> Server {
    Server::start(|seen| match seen.path.as_str() {
        "/prices" => Reply::json(json!([[{"id": 1, "price": 2}], [{"id": 2, "price": 3.5, "old": true}]])),
        _ => {
            let said = json!({"score": 9, "why": "because"}).to_string();
            let choices = json!([{"message": {"content": said}, "finish_reason": "stop"}]);
            Reply::json(json!({"choices": choices, "usage": {"prompt_tokens": 4, "completion_tokens": 6}}))
        }
    })
    .await
}

const TABLE: &str = r#"
version: "0.1"
name: table
steps:
  - kind: step
    name: fetch
    agent:
      id: "flujo.builtins.http_get"
      params: {url: "{{ context.api }}", timeout: 5}
  - kind: step
    name: rows
    agent: {id: "flujo.builtins.flatten"}
    input: "{{ steps.fetch.output.body }}"
  - kind: step
    name: total
    agent: {id: "flujo.builtins.aggregate", params: {operation: mean, field: price}}
  - kind: step
    name: remember
    agent: {id: "flujo.builtins.context_set"}
    input: {path: "found.mean", value: "{{ previous_step }}"}
    updates_context: true
  - kind: step
    name: view
    agent: {id: "flujo.builtins.select_fields", params: {include: [id, price], rename: {price: usd}}}
    input: "{{ steps.rows.output }}"
  - kind: step
    name: csv
    agent: {id: "flujo.builtins.to_csv", params: {headers: [id, usd]}}
  - name: end
    uses: template
    with: {template: "{{ context.found.mean }}: {{ previous_step }}"}
"#;

#[tokio::test]
async fn what_is_fetched_becomes_a_table() {
    let ran = ran(TABLE, &server().await, Value::Null).await;
    assert_eq!(ran.output().unwrap(), value!("2.75: id,usd\r\n1,2\r\n2,3.5\r\n"));
}

const AGENT: &str = r#"
version: "0.1"
name: judge
agents:
  judge:
    model: "local:small"
    system_prompt: "You are {{ context.mood }}."
    model_settings: {max_tokens: 50}
    output_schema: {type: object, required: [score], properties: {score: {type: integer}}}
steps:
  - kind: step
    name: ask
    uses: agents.judge
    config: {temperature: 0.2, top_k: 40, max_retries: 2, timeout_s: 10}
    input: "How is {{ previous_step }}?"
    usage_limits: {total_tokens_limit: 1000}
  - name: good
    uses: script
    with: {expression: "input.score >= 8"}
"#;

#[tokio::test]
async fn an_agent_is_a_model_with_its_prompt() {
    let server = server().await;
    let ran = ran(AGENT, &server, value!("it")).await;
    assert_eq!((ran.usage.tokens_in, ran.usage.tokens_out, ran.usage.cost), (4, 6, 16));
    assert_eq!(ran.output().unwrap(), value!(true));
    let asked = server.seen()[0].json();
    assert_eq!((&asked["model"], &asked["temperature"], &asked["top_k"]), (&json!("small"), &json!(0.2), &json!(40)));
    let told = json!([{"role": "system", "content": "You are kind."}, {"role": "user", "content": "How is it?"}]);
    assert_eq!(asked["messages"], told);
}

#[tokio::test]
async fn names_that_are_not_there_are_what_the_file_says_in_every_leaf() {
    let server = server().await;
    let file = |undefined: &str, step: &str| {
        format!("version: \"0.1\"\nname: x\ntemplates: {{undefined: {undefined}}}\nsteps:\n  - {step}\n")
    };
    for (step, expected) in [
        ("{name: a, uses: template, with: {template: '<{{ context.nobody }}>'}}", value!("<>")),
        ("{name: a, uses: script, with: {expression: context.nobody}}", value!(null)),
        (
            "{name: a, uses: context_set, with: {path: x.y, value: '<{{ context.nobody }}>'}}",
            value!({"x": {"y": "<>"}}),
        ),
        ("{name: a, input: '<{{ context.nobody }}>'}", value!("<>")),
    ] {
        for undefined in ["ignore", "warn"] {
            let ran = ran(&file(undefined, step), &server, value!("it")).await;
            assert_eq!(ran.output().unwrap(), expected, "{undefined}: {step}");
        }
    }
    let strict = file("strict", "{name: a, uses: template, with: {template: '{{ context.nobody }}'}}");
    assert!(ran(&strict, &server, value!("it")).await.output().is_err());
}

#[test]
fn what_is_wrong_is_found_before_it_runs() {
    let registry = common::registry();
    let finds = |step: &str, words: &str| {
        let text = format!("version: \"0.1\"\nname: x\nsteps:\n  - {step}\n");
        let findings = Blueprint::read(&text, &Folder::new("."), &registry).err().unwrap();
        assert!(findings.iter().any(|finding| format!("{finding:?}").contains(words)), "{findings:?}");
    };
    finds("{name: a, uses: http, with: {url: 'file:///x'}}", "only http and https");
    finds("{name: a, uses: aggregate, with: {operation: product}}", "operation");
    finds("{name: a, uses: script, with: {expression: 'input.'}}", "expression");
    finds("{name: a, uses: template, with: {template: '{{ x }}'}}", "the name x is not known");
    finds("{name: a, uses: sleep, with: {seconds: -1}}", "it waits for 0 to 3600 seconds");
    finds("{name: a, uses: detect, with: {modle: x}}", "modle");
    finds("{name: a, uses: detekt}", "detect");
}

#[tokio::test]
async fn agents_of_a_loop_are_told_its_conversation() {
    let server = Server::start(|seen| {
        let heard = seen.json()["messages"].as_array().map_or(0, Vec::len);
        let choices = json!([{"message": {"content": format!("heard {heard}")}, "finish_reason": "stop"}]);
        Reply::json(json!({"choices": choices, "usage": {"prompt_tokens": 4, "completion_tokens": 6}}))
    })
    .await;
    let text = "
agents: {w: {model: 'local:m', system_prompt: Be kind., output_schema: {type: string}}}
steps:
  - name: talk
    kind: loop
    loop: {body: [{name: more, uses: agents.w}], max_loops: 3, conversation: true, history_management: {strategy: truncate_turns, max_turns: 2}}
";
    let ran = ran(text, &server, value!("go")).await;
    assert_eq!(ran.output(), Ok(value!("heard 4")));
    let told = |number: usize| {
        let messages = server.seen()[number].json()["messages"].clone();
        let messages: Vec<String> =
            messages.as_array().unwrap().iter().map(|said| format!("{} {}", said["role"], said["content"])).collect();
        messages.join(" ").replace('"', "")
    };
    // What is asked was said last, and is not said twice.
    assert_eq!(told(0), "system Be kind. user go");
    assert_eq!(told(1), "system Be kind. user go user heard 2");
    assert_eq!(told(2), "system Be kind. user go assistant heard 2 user heard 3");
}
