//! The small leaves, run by an engine as pipelines run them.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use caudal_flow::{Fault, Value, value};
use common::{check, fails, keeps, make, refused, run};

#[tokio::test]
async fn texts() {
    check("stringify", Value::Null, value!("as it is"), value!("as it is")).await;
    check("stringify", Value::Null, value!({"a": [1, null]}), value!(r#"{"a":[1,null]}"#)).await;
    check("flujo.builtins.stringify", Value::Null, value!(1.5), value!("1.5")).await;
    check("passthrough", Value::Null, value!([1, {"a": 2}]), value!([1, {"a": 2}])).await;
}

#[tokio::test]
async fn lists() {
    check("flatten", Value::Null, value!([[1, 2], [3], 4, [[5]], []]), value!([1, 2, 3, 4, [5]])).await;
    check("flatten", Value::Null, value!({"items": [[1], 2]}), value!([1, 2])).await;
    check("flatten", Value::Null, value!("no list"), value!([])).await;
}

#[tokio::test]
async fn fields_are_selected_and_renamed() {
    let both = value!({"include": ["id", "name"], "rename": {"name": "display_name"}});
    let user = value!({"id": 1, "name": "Ada", "secret": true});
    check("select_fields", both.clone(), user.clone(), value!({"id": 1, "display_name": "Ada"})).await;
    check("select_fields", both.clone(), value!([{"name": "x"}]), value!([{"display_name": "x"}])).await;
    let renamed = value!({"rename": {"name": "n"}});
    check("select_fields", renamed, user.clone(), value!({"id": 1, "n": "Ada", "secret": true})).await;
    check("select_fields", Value::Null, value!({"data": {"a": 1, "b": 2}, "include": ["b"]}), value!({"b": 2})).await;
    check("select_fields", both, value!("text"), value!("text")).await;
}

#[tokio::test]
async fn numbers_are_put_together() {
    let rows = value!([{"price": 1}, {"price": 2.5}, {"price": "dear"}, {"price": null}, {"other": 9}]);
    let of = |operation: &str| value!({"operation": operation, "field": "price"});
    check("aggregate", of("sum"), rows.clone(), value!(3.5)).await;
    for name in ["avg", "average", "mean"] {
        check("aggregate", of(name), rows.clone(), value!(1.75)).await;
    }
    check("aggregate", of("min"), rows.clone(), value!(1.0)).await;
    check("aggregate", of("max"), rows.clone(), value!(2.5)).await;
    check("aggregate", of("median"), rows.clone(), value!(1.75)).await;
    check("aggregate", of("count"), rows.clone(), value!(3)).await;
    check("aggregate", value!({"operation": "count"}), rows, value!(5)).await;
    check("aggregate", value!({"operation": "median"}), value!([3, 1, 2]), value!(2.0)).await;
    check("aggregate", of("sum"), value!([]), value!(0.0)).await;
    check("aggregate", of("avg"), value!([]), value!(0.0)).await;
    check("aggregate", of("min"), value!([]), Value::Null).await;
    let ids = value!([9007199254740993u64, 9007199254740992u64, 7]);
    check("aggregate", value!({"operation": "max"}), ids.clone(), value!(9007199254740993u64)).await;
    check("aggregate", value!({"operation": "sum"}), ids.clone(), value!(18014398509481992u64)).await;
    check("aggregate", value!({"operation": "min"}), ids, value!(7.0)).await;
    check("aggregate", Value::Null, value!({"data": [{"a": 2}], "operation": "sum", "field": "a"}), value!(2.0)).await;
    fails("aggregate", Value::Null, value!([1]), Fault::Input, "nobody says").await;
    refused("aggregate", value!({"operation": "product"}), "operation: unknown variant `product`");
}

#[tokio::test]
async fn tables() {
    let rows = value!([{"id": 1, "price": 2.5}, {"id": 2, "name": "a \"b\", c\nd"}]);
    let all = "id,name,price\r\n1,,2.5\r\n2,\"a \"\"b\"\", c\nd\",\r\n";
    check("to_csv", Value::Null, rows.clone(), value!(all)).await;
    check("to_csv", value!({"headers": ["price", "id"]}), rows.clone(), value!("price,id\r\n2.5,1\r\n,2\r\n")).await;
    check("to_csv", Value::Null, value!({"rows": [{"a": 1}], "headers": ["a"]}), value!("a\r\n1\r\n")).await;
    check("to_csv", Value::Null, value!({"a": null}), value!("a\r\n\"\"\r\n")).await;
    check("to_csv", Value::Null, value!([1, {"value": [2]}]), value!("value\r\n1\r\n[2]\r\n")).await;
    check("to_csv", Value::Null, value!([]), value!("")).await;
    // A spreadsheet would compute these.
    let wild =
        value!([{"=a": "=cmd|' /C calc'!A0"}, {"=a": "  +1"}, {"=a": "@x"}, {"=a": "\t1"}, {"=a": -1}, {"=a": "＝1"}]);
    let tame = "'=a\r\n'=cmd|' /C calc'!A0\r\n'  +1\r\n'@x\r\n'\t1\r\n-1\r\n'＝1\r\n";
    check("to_csv", Value::Null, wild.clone(), value!(tame)).await;
    let raw =
        tame.lines().map(|line| line.strip_prefix('\'').unwrap_or(line)).collect::<Vec<_>>().join("\r\n") + "\r\n";
    check("to_csv", value!({"formulas": true}), wild, value!(raw)).await;
}

#[tokio::test]
async fn json_is_found_in_texts() {
    let text = "Sure! Here it is:\n```json\n{\"total\": {\"usd\": 3}, \"n\": [7]}\n```\nAnything else?";
    check("extract_from_text", Value::Null, value!(text), value!({"total": {"usd": 3}, "n": [7]})).await;
    check("extract_from_text", value!({"field": "total.usd"}), value!(text), value!(3)).await;
    check("extract_from_text", value!({"field": "n.0"}), value!(text), value!(7)).await;
    check("extract_from_text", Value::Null, value!("{broken [1, 2] and more"), value!([1, 2])).await;
    check("extract_from_text", value!({"field": "score"}), value!("**Score**: 8\nName: x"), value!(8)).await;
    check("extract_from_text", value!({"field": "name"}), value!("- Name: Ada L.\n"), value!("Ada L.")).await;
    check("extract_from_text", value!({"default": []}), value!("nothing"), value!([])).await;
    check("extract_from_text", Value::Null, value!({"text": "a: 1", "field": "a"}), value!(1)).await;
    fails("extract_from_text", Value::Null, value!("nothing"), Fault::Input, "no JSON").await;
    let many = "[".repeat(100_000);
    fails("extract_from_text", Value::Null, value!(many), Fault::Input, "no JSON").await;
}

#[tokio::test]
async fn much_is_worked_through_aside() {
    let many = |n: i64| Value::list((0..n).map(|n| value!({"n": n})));
    let said = value!({"operation": "max", "field": "n"});
    check("aggregate", said.clone(), many(10), value!(9.0)).await;
    check("aggregate", said, many(100_000), value!(99_999.0)).await;
    check("stringify", Value::Null, value!(["x".repeat(100_000)]), value!(format!("[\"{}\"]", "x".repeat(100_000))))
        .await;
}

#[tokio::test]
async fn confirmations() {
    for yes in [value!("Yes"), value!(" y "), value!(""), Value::Null, value!(true)] {
        check("check_user_confirmation", Value::Null, yes, value!("approved")).await;
    }
    check("check_user_confirmation", Value::Null, value!("of course not"), value!("denied")).await;
}

#[tokio::test]
async fn the_context_is_read_and_changed() {
    let context = value!({"settings": {"theme": "light", "size": 1}, "n": 1});
    let with = |path: &str, value: Value| Value::Map([("path", value!(path)), ("value", value)].into_iter().collect());
    let set = value!({"settings": {"theme": "dark", "size": 1}, "n": 1});
    keeps("context_set", with("settings.theme", value!("dark")), Value::Null, &context, set.clone()).await;
    keeps("context_set", Value::Null, with("context.settings.theme", value!("dark")), &context, set.clone()).await;
    keeps("context_set", value!({"path": "settings.theme"}), value!("dark"), &context, set).await;
    let deep = value!({"settings": {"theme": "light", "size": 1}, "n": {"a": {"b": null}}});
    keeps("context_set", with("n.a.b", Value::Null), Value::Null, &context, deep).await;
    let merged = value!({"settings": {"theme": "dark", "size": 1, "new": 2}, "n": 1});
    let more = value!({"theme": "dark", "new": 2});
    keeps("flujo.builtins.context_merge", with("settings", more.clone()), Value::Null, &context, merged.clone()).await;
    keeps("context_merge", value!({"path": "settings"}), more, &context, merged).await;
    let get = |said: Value, input: Value| run("context_get", said, input, context.clone());
    assert_eq!(get(value!({"path": "settings.theme"}), Value::Null).await.unwrap(), value!("light"));
    assert_eq!(get(value!({"path": "settings.theme"}), value!("before")).await.unwrap(), value!("light"));
    assert_eq!(get(Value::Null, value!({"path": "none.at.all", "default": 0})).await.unwrap(), value!(0));
    assert_eq!(get(Value::Null, value!("n")).await.unwrap(), value!(1));
    fails("context_set", Value::Null, value!(1), Fault::Input, "which place").await;
    fails("context_merge", value!({"path": "a"}), value!(1), Fault::Input, "an object is joined").await;
}

#[tokio::test]
async fn failures_on_purpose() {
    fails("fail", value!({"message": "no luck"}), Value::Null, Fault::Failed, "no luck").await;
    fails("fail", value!({"code": "step_timeout"}), Value::Null, Fault::TimedOut, "told to fail").await;
    let step = caudal_flow::Step::new("try", caudal_flow::Kind::Act(make("fail", value!({"times": 2})).unwrap()));
    let step = step.with(|policy| {
        policy.retry.more = 2;
        policy.retry.wait = std::time::Duration::from_millis(1);
    });
    assert_eq!(common::run_step(step, value!("in"), Value::Null).await.unwrap(), value!("in"));
}

#[tokio::test(start_paused = true)]
async fn time() {
    let before = tokio::time::Instant::now();
    check("sleep", value!({"seconds": 90}), value!("in"), value!("in")).await;
    assert_eq!(before.elapsed().as_secs(), 90);
    refused("sleep", value!({"seconds": -1}), "seconds: it waits for 0 to 3600 seconds, not -1");
    refused("sleep", value!({"seconds": 1e300}), "seconds: ");
    refused("sleep", Value::Null, "missing field `seconds`");
    let now = run("now", Value::Null, Value::Null, Value::Null).await.unwrap();
    assert!(now.as_text().unwrap().starts_with("20") && now.as_text().unwrap().ends_with('Z'), "{now}");
    assert!(run("now", value!({"form": "unix"}), Value::Null, Value::Null).await.unwrap().as_f64().unwrap() > 1.7e9);
    assert!(!make("now", Value::Null).unwrap().repeatable());
}

#[test]
fn every_leaf_says_what_it_is_about() {
    let registry = common::registry();
    for (name, leaf) in registry.iter() {
        assert!(leaf.about.ends_with('.') && leaf.about.len() > 20, "{name}: {}", leaf.about);
        assert!(leaf.settings.get("type").is_some(), "{name} has no schema: {}", leaf.settings);
        let own = name.strip_prefix("flujo.builtins.").unwrap_or(name);
        assert!(registry.get(own).is_some(), "{name} has no name of its own");
    }
    refused("to_csv", value!({"header": []}), "unknown field `header`");
    refused("to_csv", value!([]), "its settings are an object, not array");
}

#[test]
fn the_reference_is_what_leaves_say() {
    caudal_testkit::check_document("leaves.md", &caudal_flow_leaves::reference(&common::registry()));
}
