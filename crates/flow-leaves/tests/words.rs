//! `template`, `script`, and templates in what is said about other leaves.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use caudal_flow::{Fault, Value, value};
use common::{check, fails, make, refused, run};

#[tokio::test]
async fn templates_are_worked_out() {
    let input = value!({"name": "Ada", "n": [1, 2]});
    let template = |template: Value| Value::Map([("template", template)].into_iter().collect());
    check(
        "template",
        template(value!("Hello {{ input.name }}, {{ input.n|length }}!")),
        input.clone(),
        value!("Hello Ada, 2!"),
    )
    .await;
    check("template", template(value!("{{ input.n }}")), input.clone(), value!([1, 2])).await;
    let object = value!({"who": "{{ output.name }}", "all": ["{{ output.n[0] }}", 7]});
    check("template", template(object), input.clone(), value!({"who": "Ada", "all": [1, 7]})).await;
    let context = run("template", template(value!("{{ context.x }}")), input.clone(), value!({"x": 3})).await;
    assert_eq!(context, Ok(value!(3)));
    fails("template", template(value!("{{ input.nmae }}")), input, Fault::Input, "did you mean name?").await;
    refused("template", template(value!("{{ input. }}")), "template: ");
    refused("template", template(value!("{{ os.environ }}")), "template: the name os is not known");
    refused("template", Value::Null, "missing field `template`");
}

#[tokio::test]
async fn expressions_give_values() {
    let input = value!({"score": 0.7, "tags": ["x"]});
    check("script", value!({"expression": "input.score > 0.5 and 'x' in input.tags"}), input.clone(), value!(true))
        .await;
    let both = value!({"expressions": {"good": "input.score > 0.9", "tag": "input.tags[0]|upper"}});
    check("script", both, input, value!({"good": false, "tag": "X"})).await;
    refused("script", value!({"expression": "input.score >"}), "expression: ");
    refused("script", value!({"expressions": {"a": "1", "b": "("}}), "expressions.b: ");
    refused("script", value!({}), "say either expression or expressions");
    refused("script", value!({"expression": "1", "expressions": {"a": "1"}}), "say either");
}

#[tokio::test]
async fn what_is_said_about_a_leaf_may_be_worked_out() {
    let said = value!({"operation": "{{ context.how }}", "field": "{{ context.what }}_usd"});
    let context = value!({"how": "sum", "what": "price"});
    let rows = value!([{"price_usd": 1}, {"price_usd": 2}]);
    assert_eq!(run("aggregate", said.clone(), rows.clone(), context).await, Ok(value!(3.0)));
    let wrong = run("aggregate", said, rows, value!({"how": "guess", "what": "price"})).await.unwrap_err();
    assert_eq!((wrong.fault, wrong.again), (Fault::Input, false));
    assert!(wrong.message.contains("operation: unknown variant `guess`"), "{wrong}");
    let seconds = value!({"seconds": "{{ input / 1000 }}"});
    assert_eq!(run("sleep", seconds, value!(1), Value::Null).await, Ok(value!(1)));
    refused("fail", value!({"message": "{{ nobody }}"}), "the name nobody is not known");
    refused("aggregate", value!({"operatoin": "{{ input }}"}), "unknown field `operatoin`");
    assert!(make("http", value!({"url": "{{ input }}", "timeout": 3})).is_ok());
    assert!(!make("http", value!({"url": "{{ context.url }}"})).unwrap().repeatable());
}
