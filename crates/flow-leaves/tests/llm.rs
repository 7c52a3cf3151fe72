//! `llm`, asking a server of this machine that speaks `/chat/completions`, well and badly.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use caudal_flow::{
    Definition, Each, Engine, Fault, Kind, Limits, Options, Outcome, Ran, RunError, RunOptions, Step, StepError, Steps,
    Usage, Value, What, value,
};
use caudal_flow_leaves::{Llm, Parts, Price, Prices, Provider};
use common::{
    made, registry_of, run_step,
    server::{Part, Reply, Seen, Server},
    step,
};
use serde_json::json;

/// A provider `local` that is `server`, at a dollar for a million tokens that are read and two for as many that are written.
fn parts(server: &Server) -> Parts {
    let provider = Provider { base_url: server.url("/v1"), key_env: None };
    let prices = Prices::new(BTreeMap::from([("local:m".to_owned(), Price::per_million(1.0, 2.0))]));
    let keys = |name: &str| (name == "LOCAL_API_KEY").then(|| " sk-secret\n".to_owned());
    Parts { llm: Llm::new(BTreeMap::from([("local".to_owned(), provider)]), prices, keys), ..Parts::default() }
}

fn said(more: Value) -> Value {
    Value::Map(value!({"model": "local:m"}).as_map().unwrap().merged(more.as_map().unwrap()))
}

fn model(server: &Server, more: Value) -> Step {
    step(made(&registry_of(parts(server)), "llm", said(more)).unwrap())
}

async fn ask(server: &Server, more: Value, input: Value) -> Result<Value, StepError> {
    run_step(model(server, more), input, Value::Null).await
}

/// With so many tries, one after the other.
async fn tried(server: &Server, more: Value, tries: u32) -> Ran {
    let step = model(server, more).with(|policy| {
        policy.retry.more = tries - 1;
        policy.retry.wait = Duration::from_millis(1);
    });
    common::ran(step, value!("hi"), Value::Null).await
}

fn completion(content: &str) -> serde_json::Value {
    json!({
        "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    })
}

async fn says(content: &'static str) -> Server {
    Server::start(move |_| Reply::json(completion(content))).await
}

async fn answers(reply: Reply) -> Server {
    Server::start(move |_| reply.clone()).await
}

const SPENT: Usage = Usage { tokens_in: 10, tokens_out: 5, cost: 20 };

fn event(content: &str) -> Part {
    Part::Text(format!("data: {}\n\n", json!({"choices": [{"delta": {"content": content}}]})))
}

fn end() -> [Part; 3] {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}});
    [
        Part::Text(format!("data: {}\r\n\r\n", json!({"choices": [{"delta": {}, "finish_reason": "stop"}]}))),
        Part::Text(format!("data: {usage}\n\n")),
        Part::Text("data: [DONE]\n\n".to_owned()),
    ]
}

fn streamed(parts: impl IntoIterator<Item = Part>) -> Reply {
    parts.into_iter().fold(Reply::new(200, "text/event-stream", ": ping\n\n"), Reply::then)
}

#[track_caller]
fn refused(answer: Result<Value, StepError>, fault: Fault, again: bool, words: &str) -> StepError {
    let error = answer.unwrap_err();
    assert_eq!((error.fault, error.again), (fault, again), "{error}");
    assert!(error.message.contains(words), "{error}");
    assert!(!error.message.contains("sk-secret") && !error.hint.contains("sk-secret"));
    error
}

#[tokio::test]
async fn a_model_is_asked_as_its_provider_wants_it() {
    let server = says("Hello!").await;
    let more = value!({"system_prompt": "Be kind.", "temperature": 0.5, "model_settings": {"top_p": 1, "seed": 7, "max_tokens": 9}});
    assert_eq!(ask(&server, more, value!("hi")).await, Ok(value!("Hello!")));
    let Seen { method, path, .. } = &server.seen()[0];
    assert_eq!((&**method, &**path), ("POST", "/v1/chat/completions"));
    assert_eq!(server.seen()[0].header("authorization"), "Bearer sk-secret");
    assert!(server.seen()[0].header("idempotency-key").ends_with("/leaf"));
    let expected = json!({
        "model": "m", "temperature": 0.5, "top_p": 1, "seed": 7, "max_tokens": 9,
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}],
    });
    assert_eq!(server.seen()[0].json(), expected);

    ask(&server, value!({}), value!({"a": 1})).await.unwrap();
    let talk = value!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]);
    ask(&server, value!({}), talk.clone()).await.unwrap();
    ask(&server, value!({}), value!([{"role": "root", "content": "a"}])).await.unwrap();
    let messages: Vec<_> = server.seen()[1..].iter().map(|seen| seen.json()["messages"].clone()).collect();
    assert_eq!(messages[0], json!([{"role": "user", "content": "{\"a\":1}"}]));
    assert_eq!(messages[1], serde_json::Value::from(&talk));
    assert_eq!(messages[2][0]["role"], "user", "what is no conversation is what the user says");

    let context = value!({"conversation_history": [{"role": "user", "content": "a", "timestamp": 1}]});
    run_step(model(&server, value!({"use_history": true})), value!("b"), context).await.unwrap();
    let told = server.seen()[4].json()["messages"].clone();
    assert_eq!(told, json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]));
}

#[tokio::test]
async fn a_stream_is_heard_as_it_comes() {
    let parts = [event("Hel"), Part::Wait(20), event("lo"), Part::Text("data: {\"choi".into()), Part::Wait(20)];
    let rest = Part::Text("ces\": [{\"delta\": {\"content\": \"!\"}}]}\n\n".to_owned());
    let server = answers(streamed(parts.into_iter().chain([rest]).chain(end()))).await;
    let definition = Definition::new("test", Steps::new([model(&server, value!({"stream": true}))]));
    let engine = Engine::new(Options::default());
    let run = engine.begin(&definition, value!("hi"), RunOptions::default()).await.ok().unwrap();
    let (_, mut events) = run.handle().watch();
    let ran = run.await;
    assert_eq!(ran.outcome, Outcome::Completed(value!("Hello!")));
    assert_eq!(ran.usage, SPENT);
    let mut heard = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let What::Said(part) = event.what {
            heard.push(part.to_string());
        }
    }
    assert_eq!(heard, ["Hel", "lo", "!"]);
    let asked = server.seen()[0].json();
    assert_eq!((&asked["stream"], &asked["stream_options"]["include_usage"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn an_answer_fits_its_schema_or_is_asked_for_again() {
    let schema = value!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}});
    let server = Server::start(|seen| {
        let again = seen.json()["messages"].as_array().unwrap().len() > 1;
        Reply::json(completion(if again { "{\"n\": 3}" } else { "{\"n\": \"three\"}" }))
    })
    .await;
    let more = value!({"output_schema": schema});
    let once = tried(&server, more.clone(), 1).await;
    assert_eq!(once.usage, SPENT, "what was spent on what came to nothing counts");
    refused(ask(&server, more.clone(), value!("hi")).await, Fault::Output, true, "does not fit its schema: at /n");
    let twice = tried(&server, more, 2).await;
    assert_eq!(twice.outcome, Outcome::Completed(value!({"n": 3})));
    assert_eq!(twice.usage, SPENT + SPENT);
    let last = server.seen().last().unwrap().json();
    assert_eq!(last["response_format"]["json_schema"]["schema"]["required"], json!(["n"]));
    let told = last["messages"][1]["content"].as_str().unwrap();
    assert!(told.contains("was not accepted: the answer does not fit its schema: at /n"), "{told}");

    let object = says("{}").await;
    let more = value!({"output_schema": {"type": "object"}, "processing": {"structured_output": "off"}});
    assert_eq!(ask(&object, more, value!("hi")).await, Ok(value!({})));
    assert!(object.seen()[0].json().get("response_format").is_none());

    let list = says("```json\n[1, 2]\n```").await;
    let more = value!({"output_schema": {"type": "array", "items": {"type": "integer"}}});
    assert_eq!(ask(&list, more, value!("hi")).await, Ok(value!([1, 2])));
    let asked = list.seen()[0].json();
    assert!(
        asked.get("response_format").is_none() && asked["messages"][0]["content"].to_string().contains("JSON schema")
    );
}

#[tokio::test]
async fn a_try_that_failed_on_the_way_is_no_news_to_the_model() {
    let server = answers(Reply::new(503, "text/plain", "")).await;
    tried(&server, value!({}), 2).await;
    assert_eq!(server.seen().len(), 2);
    assert_eq!(server.seen()[1].json()["messages"], json!([{"role": "user", "content": "hi"}]));
}

/// An answer is paid for: what is odd beside its words does not throw it away.
#[tokio::test]
async fn odd_figures_and_forms_are_read() {
    let odd = |usage: serde_json::Value, message: serde_json::Value| json!({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage});
    let plain = || json!({"role": "assistant", "content": "Hello!", "refusal": ""});
    let parts = json!({"content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo!"}]});
    for (answer, tokens) in [
        (odd(json!({"prompt_tokens": 10.0, "completion_tokens": 5.0}), plain()), Some((10, 5))),
        (odd(json!({"prompt_tokens": "10", "completion_tokens": null}), plain()), Some((10, 0))),
        (odd(json!({"prompt_tokens": 10, "completion_tokens": 5}), parts), Some((10, 5))),
        (odd(json!({"prompt_tokens": -1, "completion_tokens": {}}), plain()), None),
        (odd(json!("free"), plain()), None),
        (odd(json!(null), plain()), None),
    ] {
        let server = answers(Reply::json(answer.clone())).await;
        let ran = tried(&server, value!({}), 1).await;
        assert_eq!(ran.outcome, Outcome::Completed(value!("Hello!")), "{answer}");
        match tokens {
            Some(tokens) => assert_eq!((ran.usage.tokens_in, ran.usage.tokens_out), tokens, "{answer}"),
            None => assert!(ran.usage.tokens_in > 0 && ran.usage.tokens_out > 0, "what is not said is reckoned high"),
        }
    }
    let last = json!({"choices": null, "usage": {"prompt_tokens": 10.0, "completion_tokens": 5.0}});
    let begun = json!({"choices": [{"delta": {"content": "Hi"}, "finish_reason": ""}], "usage": null});
    let stop = json!({"choices": [{"delta": null, "finish_reason": "stop"}]});
    let events = [begun, stop, last].map(|data| Part::Text(format!("data: {data}\n\n")));
    let server = answers(streamed(events)).await;
    let ran = tried(&server, value!({"stream": true}), 1).await;
    assert_eq!((ran.outcome, ran.usage), (Outcome::Completed(value!("Hi")), SPENT));

    let fenced = says("Here:\n```json\n{\"title\": \"t\"}\n```\n").await;
    let more = value!({"output_schema": {"type": "object", "required": ["title"]}});
    assert_eq!(ask(&fenced, more, value!("hi")).await, Ok(value!({"title": "t"})));
}

#[tokio::test]
async fn whoever_fails_says_how() {
    let wrong = |status: u16, text: &str| answers(Reply::new(status, "application/json", text));
    let hi = || value!("hi");
    let key = wrong(401, r#"{"error": {"message": "Incorrect API key provided"}}"#).await;
    refused(
        ask(&key, value!({}), hi()).await,
        Fault::Unauthorized,
        false,
        "local answers 401 (Unauthorized): Incorrect",
    );
    let busy = answers(Reply::new(429, "application/json", "{}").with("retry-after", "3")).await;
    let error = refused(ask(&busy, value!({}), hi()).await, Fault::TooManyRequests, true, "429");
    assert_eq!(error.after, Some(Duration::from_secs(3)));
    refused(ask(&wrong(500, "").await, value!({}), hi()).await, Fault::Unreachable, true, "500");
    refused(ask(&wrong(400, "no such model").await, value!({}), hi()).await, Fault::Failed, false, "no such model");
    let moved = answers(Reply::to(307, "http://127.0.0.1:1/")).await;
    refused(ask(&moved, value!({}), hi()).await, Fault::Failed, false, "sends on");
    for (text, again, words) in [
        ("{\"choices\": [", true, "no chat completion"),
        ("<html>", true, "no chat completion"),
        ("{}", true, "without a word"),
        (r#"{"choices": [{"message": {"content": null}}]}"#, true, "without a word"),
        (r#"{"choices": [{"message": {"refusal": "I won't."}}]}"#, false, "does not answer that: I won't."),
        (
            r#"{"choices": [{"message": {"content": "a"}, "finish_reason": "length"}]}"#,
            false,
            "reached the limit of 4096 tokens",
        ),
    ] {
        refused(ask(&wrong(200, text).await, value!({}), hi()).await, Fault::Output, again, words);
    }
    let error = wrong(200, r#"{"error": {"message": "overloaded"}}"#).await;
    refused(ask(&error, value!({}), hi()).await, Fault::Unreachable, true, "local failed: overloaded");
    let cut = answers(Reply::new(200, "application/json", "{\"cho").then(Part::Cut)).await;
    refused(ask(&cut, value!({}), hi()).await, Fault::Unreachable, true, "broke off");
    let slow = answers(Reply { parts: vec![Part::Wait(3_000)], ..Reply::json(json!({})) }).await;
    let late = ask(&slow, value!({"timeout": "0.1"}), hi()).await;
    refused(late, Fault::TimedOut, true, "local did not answer within 100ms");
}

#[tokio::test]
async fn streams_that_end_badly_fail_and_are_paid_for() {
    let stream = value!({"stream": true});
    for (reply, fault, words) in [
        (streamed([event("Hel"), Part::Cut]), Fault::Unreachable, "broke off"),
        (streamed([event("Hel")]), Fault::Unreachable, "broke off in the middle"),
        (streamed([event("Hel"), Part::Text("data: {oops\n\n".into())]), Fault::Output, "no chat completion"),
        (
            streamed([event("Hel"), Part::Text("data: {\"error\": {\"message\": \"gone\"}}\n\n".into())]),
            Fault::Unreachable,
            "local failed: gone",
        ),
    ] {
        let ran = tried(&answers(reply).await, stream.clone(), 1).await;
        let Outcome::Failed(RunError::Step { error, .. }) = &ran.outcome else { panic!("{:?}", ran.outcome) };
        assert_eq!((error.fault, error.again), (fault, true), "{error}");
        assert!(error.message.contains(words), "{error}");
        assert!(ran.usage.tokens_in > 0 && ran.usage.tokens_out == 3, "what was read and said counts: {:?}", ran.usage);
    }
    let empty = answers(streamed(end())).await;
    refused(ask(&empty, stream.clone(), value!("hi")).await, Fault::Output, true, "without a word");
    let endless = answers((0..40).fold(streamed([]), |reply, _| reply.then(Part::Text("x".repeat(60_000))))).await;
    refused(ask(&endless, stream.clone(), value!("hi")).await, Fault::Output, false, "more than it may");
    let slow = answers(streamed([event("a"), Part::Wait(3_000)])).await;
    let late = Value::Map(stream.as_map().unwrap().with("timeout", value!(0.1)));
    refused(ask(&slow, late, value!("hi")).await, Fault::TimedOut, true, "did not answer within");
}

async fn limited(server: &Server, more: Value, limits: Limits) -> Ran {
    let definition = Definition::new("test", Steps::new([model(server, more)]));
    let options = RunOptions { limits, ..RunOptions::default() };
    Engine::new(Options::default()).run(&definition, value!("hi"), options).await
}

#[tokio::test]
async fn nobody_is_asked_who_might_cost_too_much() {
    let server = says("Hello!").await;
    let tokens = |tokens| Limits { tokens: Some(tokens), ..Limits::default() };
    let ran = limited(&server, value!({"max_tokens": 500}), tokens(400)).await;
    let Outcome::Failed(RunError::Step { error, .. }) = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!(error.fault, Fault::Budget);
    assert!(server.seen().is_empty());
    let ran = limited(&server, value!({"max_tokens": 50}), tokens(400)).await;
    assert_eq!((ran.outcome, ran.usage), (Outcome::Completed(value!("Hello!")), SPENT));
    let cents = Limits { cost: Some(900), ..Limits::default() };
    let ran = limited(&server, value!({"max_tokens": 500}), cents).await;
    let Outcome::Failed(RunError::Step { error, .. }) = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert!(error.message.contains("USD"), "{error}");
    assert!(matches!(limited(&server, value!({"max_tokens": 300}), cents).await.outcome, Outcome::Completed(_)));
}

#[tokio::test]
async fn budget_without_max_tokens_limits_the_answer_to_a_share_of_what_is_left() {
    let server = says("Hello!").await;
    let tokens = |tokens| Limits { tokens: Some(tokens), ..Limits::default() };
    let ran = limited(&server, value!({}), tokens(2_000)).await;
    assert_eq!((ran.outcome, ran.usage), (Outcome::Completed(value!("Hello!")), SPENT));
    let asked = server.seen()[0].json()["max_tokens"].as_u64().unwrap();
    assert!((800..1_000).contains(&asked), "half of what the question leaves: {asked}");
    let cost = Limits { cost: Some(2_000), ..Limits::default() };
    assert!(matches!(limited(&server, value!({}), cost).await.outcome, Outcome::Completed(_)));
    let by_cost = server.seen()[1].json()["max_tokens"].as_u64().unwrap();
    assert!((300..500).contains(&by_cost), "a token of the answer costs two millionths: {by_cost}");
    let ran = limited(&server, value!({}), tokens(100)).await;
    let Outcome::Failed(RunError::Step { error, .. }) = ran.outcome else { panic!("{:?}", ran.outcome) };
    assert_eq!((error.fault, server.seen().len()), (Fault::Budget, 2));
    assert!(
        error.message.contains("and 100 of 100 are left: ") && error.message.contains("16 for the answer"),
        "{error}"
    );
}

#[tokio::test]
async fn steps_at_the_same_time_wait_for_budget_that_others_give_back() {
    let server = Server::start(|_| {
        let mut reply = Reply::json(completion("Hello!"));
        reply.parts.insert(0, Part::Wait(100));
        reply
    })
    .await;
    let body = Steps::new([model(&server, value!({}))]);
    let each = Each { items: None, body, at_once: 8, ignore_failures: false };
    let map = Step::new("all", Kind::Map(Arc::new(each)));
    let definition = Definition::new("test", Steps::new([map]));
    let limits = Limits { tokens: Some(1_200), ..Limits::default() };
    let options = RunOptions { limits, ..RunOptions::default() };
    let questions: Vec<Value> = (0..8).map(|number| Value::from(format!("question {number}"))).collect();
    let ran = Engine::new(Options::default()).run(&definition, questions.into(), options).await;
    assert_eq!(ran.outcome, Outcome::Completed(Value::list(vec![value!("Hello!"); 8])));
    assert_eq!(ran.usage.tokens(), 8 * SPENT.tokens());
}

#[tokio::test]
async fn who_is_turned_away_pays_nothing() {
    let busy = answers(Reply::new(429, "text/plain", "")).await;
    assert_eq!(tried(&busy, value!({}), 1).await.usage, Usage::NONE);
    let mut completion = completion("Hello, how are you?");
    completion.as_object_mut().unwrap().remove("usage");
    let silent = answers(Reply::json(completion)).await;
    let ran = tried(&silent, value!({"max_tokens": 7}), 1).await;
    assert!(
        ran.usage.tokens_in > 2 && ran.usage.tokens_out == 7,
        "who does not say is believed the worst: {:?}",
        ran.usage
    );
}

#[tokio::test]
async fn what_was_asked_is_paid_for_though_nobody_waits_for_it() {
    let server = answers(streamed([event("Hel"), Part::Wait(5_000)])).await;
    let definition = Definition::new("test", Steps::new([model(&server, value!({"stream": true}))]));
    let engine = Engine::new(Options::default());
    let run = engine.begin(&definition, value!("hi"), RunOptions::default()).await.ok().unwrap();
    let handle = run.handle();
    let (_, mut events) = handle.watch();
    let run = tokio::spawn(run);
    while !matches!(events.recv().await.unwrap().what, What::Said(_)) {}
    handle.cancel();
    let ran = run.await.unwrap();
    assert_eq!(ran.outcome, Outcome::Failed(RunError::Cancelled));
    assert!(ran.usage.tokens_in > 0 && ran.usage.tokens_out == 3, "{:?}", ran.usage);
}

#[tokio::test]
async fn who_is_asked_is_the_servers_to_say() {
    let server = says("Hello!").await;
    let asked = |model: &str| {
        let action = made(&registry_of(parts(&server)), "llm", value!({"model": model})).unwrap();
        run_step(step(action), value!("hi"), Value::Null)
    };
    let none = refused(asked("gpt-4o-mini").await, Fault::Unauthorized, false, "there is no key for openai");
    assert!(none.hint.contains("OPENAI_API_KEY"));
    let unknown = refused(asked("nobody:m").await, Fault::Input, false, "there is no provider \"nobody\"");
    assert!(unknown.hint.contains("openai:nobody:m") && unknown.hint.contains("NOBODY_BASE_URL"), "{}", unknown.hint);
    let url = server.url("/other/");
    let environment = move |name: &str| match name {
        "OPENAI_BASE_URL" => Some(url.clone()),
        _ => None,
    };
    let llm = Llm::new(BTreeMap::new(), Prices::default(), environment);
    let registry = registry_of(Parts { llm, ..Parts::default() });
    let action = made(&registry, "llm", value!({"model": "gpt:x"})).unwrap();
    assert!(run_step(step(action), value!("hi"), Value::Null).await.is_err());
    let action = made(&registry, "llm", value!({"model": "openai:llama3:8b"})).unwrap();
    assert!(run_step(step(action), value!("hi"), Value::Null).await.is_ok());
    let seen = server.seen().pop().unwrap();
    assert_eq!((&*seen.path, seen.header("authorization")), ("/other/chat/completions", ""));
    assert_eq!(seen.json()["model"], "llama3:8b");
    let strict = Llm::new(BTreeMap::new(), Prices::default().strict(), |_| Some("http://127.0.0.1:1".to_owned()));
    let action = made(&registry_of(Parts { llm: strict, ..Parts::default() }), "llm", value!({"model": "m"})).unwrap();
    refused(run_step(step(action), value!("hi"), Value::Null).await, Fault::Failed, false, "what openai:m costs");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let wrong = |more: Value| common::make("llm", said(more)).err().unwrap();
    assert!(common::make("llm", value!({})).err().unwrap().contains("missing field `model`"));
    assert!(wrong(value!({"api_key": "x"})).contains("unknown field `api_key`"));
    assert!(wrong(value!({"base_url": "http://x"})).contains("unknown field `base_url`"));
    assert_eq!(wrong(value!({"model_settings": {"n": 100}})), "model_settings: n is not for a pipeline to say");
    assert_eq!(wrong(value!({"temperature": 3})), "temperature: it is 0 to 2, not 3");
    assert!(wrong(value!({"max_tokens": 0})).starts_with("max_tokens: "));
    assert!(wrong(value!({"model_settings": {"max_tokens": "many"}})).starts_with("max_tokens: "));
    assert!(wrong(value!({"timeout": "soon"})).contains("a number is wanted"));
    assert!(wrong(value!({"timeout": 1e9})).starts_with("timeout: "));
    assert!(wrong(value!({"output_schema": {"type": 7}})).starts_with("output_schema: "));
    assert!(common::make("llm", said(value!({"max_retries": "2", "timeout": 30}))).is_ok());
}
