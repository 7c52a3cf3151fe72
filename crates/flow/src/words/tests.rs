//! What expressions and templates give and refuse, a line each.

mod blocks;

use super::*;
use crate::{Fault, Formula, Map, StepError, Value, View, value};

fn context() -> Map {
    let value = value!({
        "user": {"name": "Ada", "tags": ["x", "y"], "none": null},
        "items": [3, 1, 2], "score": 0.75, "big": 18446744073709551615u64, "yes": true, "text": " Some Text ",
    });
    value.as_map().cloned().unwrap_or_default()
}

fn ask(source: &str) -> Result<Value, StepError> {
    let (output, context) = (value!({"a": [1, 2], "label": "cat"}), context());
    Expression::parse(source).unwrap_or_else(|error| panic!("{source}: {error}")).value(&View::of(&output, &context))
}

#[track_caller]
fn gives(source: &str, expected: Value) {
    assert_eq!(ask(source).unwrap_or_else(|error| panic!("{source}: {error}")), expected, "{source}");
}

#[track_caller]
fn fails(source: &str, expected: &str) {
    let error = ask(source).expect_err(source);
    assert!(error.message.contains(expected), "{source}: {} does not say {expected}", error.message);
    assert!(!error.again && !error.hint.is_empty());
}

#[track_caller]
fn unread(source: &str, column: usize, expected: &str) {
    let error = Expression::parse(source).err().expect(source);
    assert!(error.message.contains(expected), "{source}: {} does not say {expected}", error.message);
    assert_eq!(error.column, column, "{source}: {}", error.message);
}

fn fill(shape: Value, undefined: Undefined) -> Result<Value, StepError> {
    let (output, context) = (value!({"a": [1, 2], "label": "cat"}), context());
    Shape::parse_as(&shape, undefined).expect("a template").value(&View::of(&output, &context))
}

#[track_caller]
fn filled(shape: Value, expected: Value) {
    assert_eq!(fill(shape.clone(), Undefined::Strict).expect("a value"), expected, "{shape}");
}

fn long(source: &str, bytes: usize) -> Result<Value, StepError> {
    let output = Value::text("a".repeat(bytes));
    Expression::parse(source).expect(source).value(&View::of(&output, &Map::default()))
}

/// Whatever makes much of a long text, and the text once more, is refused before it is made, and soon.
#[test]
fn expressions_that_work_through_too_much_are_refused() {
    const LONG: usize = 10 << 20;
    let many = |what: &str, between: &str, times: usize| vec![what; times].join(between);
    let sources = [
        format!("([{}]|string)|length", many("input", ",", 900)),
        format!("(input{})|length", "|upper|lower".repeat(450)),
        format!("({})|length", many("input", " ~ ", 60)),
        format!("[{}]|join('-')|length", many("input", ",", 60)),
        format!("[{}]|map('upper')|list|length", many("input", ",", 60)),
        format!("({})|length", many("input.upper()", " ~ ", 40)),
        format!("[{}]|sort|length", many("input", ",", 60)),
        format!("{{'a': [{}]}}|string|length", many("input", ",", 60)),
        format!("[{}]", many("input", ",", 60)),
    ];
    for source in &sources {
        let since = std::time::Instant::now();
        let error = long(source, LONG).expect_err(source);
        assert!(error.message.contains("works through more than 128 MiB"), "{}", error.message);
        assert!(!error.again && since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    }
    assert_eq!(long("input|upper|length", LONG).unwrap(), value!(LONG));
    assert_eq!(long("input", 200 << 20).unwrap().as_text().map(str::len), Some(200 << 20), "to hand it on is no work");
    let parts = format!("input{}", "[1:]".repeat(40));
    assert!(Expression::parse(&parts).err().is_some_and(|error| error.message.contains("takes parts")));
}

/// A list that holds itself twice, again and again: small in memory, and without an end when it is gone through.
fn doubled(times: usize) -> Value {
    (0..times).fold(value!(["x"]), |value, _| Value::list([value.clone(), value]))
}

#[test]
fn expressions_over_doubled_values_come_to_an_end() {
    let context = Map::default().with("x", doubled(50));
    for source in
        ["context.x|string|length", "context.x|tojson", "'' ~ context.x", "context.x|list|string", "[context.x]"]
    {
        let view = View::of(&Value::Null, &context);
        assert!(Expression::parse(source).unwrap().value(&view).is_err(), "{source}");
    }
    assert!(doubled(50).check_bounds().is_err());
    assert!(doubled(10).check_bounds().is_ok());
}

#[test]
fn filters_take_arguments_by_name() {
    gives("context.items|sort(reverse=true)", value!([3, 2, 1]));
    gives("[{'a': 1}, {'a': 2}]|map(attribute='a')|list", value!([1, 2]));
    gives("[{'a': 1}, {'b': 2}]|map(attribute='a', default=0)|list", value!([1, 0]));
    gives("[{'a': 1}, {'a': 2}]|sum(attribute='a')", value!(3));
    gives("['B', 'a']|sort(case_sensitive=true)|join('-')", value!("B-a"));
    gives("[{'a': 'x'}, {'a': 'X'}]|unique(attribute='a')|length", value!(1));
    gives("[{'a': true}, {'a': false}]|selectattr('a')|list", value!([{"a": true}]));
    gives("[1, 2, 3]|select('odd')|list", value!([1, 3]));
    gives("[1, 2, 3]|reject('odd')|list", value!([2]));
    gives("{'b': 1, 'a': 2}|dictsort|first", value!(["a", 2]));
    gives("{'a': 1}|items|list", value!([["a", 1]]));
    gives("'a,b'|split(',')|list", value!(["a", "b"]));
    gives("[1, 2]|zip(['a', 'b'])|list", value!([[1, "a"], [2, "b"]]));
    gives("[{'k': 1, 'v': 2}]|groupby('k')|list|length", value!(1));
    gives("[3, 1]|min ~ '' ~ [3, 1]|max", value!("13"));
    gives("'abc'|reverse", value!("cba"));
}

#[test]
fn expressions() {
    gives("1", value!(1));
    gives("-1.5", value!(-1.5));
    gives("'x'", value!("x"));
    gives("none", value!(null));
    gives("true and not false", value!(true));
    gives("True", value!(true));
    gives("[1, 'a', {'b': 2}]", value!([1, "a", {"b": 2}]));
    gives("output.label", value!("cat"));
    gives("previous_step['label'] == 'cat'", value!(true));
    gives("output.a[1]", value!(2));
    gives("output.a[-1]", value!(2));
    gives("this.label ~ '!' ~ item.label", value!("cat!cat"));
    gives("input", value!({"a": [1, 2], "label": "cat"}));
    gives("context.user.name", value!("Ada"));
    gives("context.user.none", value!(null));
    gives("context.score > 0.5 and context.score <= 0.75", value!(true));
    gives("'x' in context.user.tags", value!(true));
    gives("'z' not in context.user.tags", value!(true));
    gives("'name' in context.user", value!(true));
    gives("context.big", value!(18446744073709551615u64));
    gives("context.items == [3, 1, 2]", value!(true));
    gives("context.user == {'name': 'Ada', 'tags': ['x', 'y'], 'none': none}", value!(true));
    gives("1 if context.yes else 2", value!(1));
    gives("context.items|length + 1", value!(4));
    gives("resume_input", value!(null));
    gives("steps", value!({}));
}

#[test]
fn methods_and_filters() {
    gives("context.user.get('name')", value!("Ada"));
    gives("context.user.get('nobody')", value!(null));
    gives("context.user.get('nobody', 'x')", value!("x"));
    gives("{'a': 1}.get('a')", value!(1));
    gives("context.text.strip().lower()", value!("some text"));
    gives("context.text.upper()", value!(" SOME TEXT "));
    gives("'abc'.startswith('ab') and 'abc'.endswith('bc')", value!(true));
    gives("context.items|join(', ')", value!("3, 1, 2"));
    gives("[{'a': 1}, none, 'x']|join('-')", value!("{\"a\":1}--x"));
    gives("'Ab'|upper ~ 'Ab'|lower", value!("ABab"));
    gives("context.user|tojson", value!("{\"name\":\"Ada\",\"none\":null,\"tags\":[\"x\",\"y\"]}"));
    gives("context.items|sort", value!([1, 2, 3]));
    gives("context.items|first", value!(3));
    gives("'aXa'|replace('X', '-')", value!("a-a"));
    gives("3|times(4)", value!(12));
    gives("context.score|times(2)", value!(1.5));
    fails("'x'.format(1)", "no method format");
    fails("'x'.__class__()", "no method __class__");
    fails("(1).get('a')", "get is asked of an object");
}

#[test]
fn what_is_not_there() {
    gives("context.nobody or 'default'", value!("default"));
    gives("context.nobody|default('d')", value!("d"));
    gives("context.nobody is defined", value!(false));
    fails("context.nobody == 'x'", "nobody is not there");
    fails("context.usr", "did you mean user?");
    fails("context.user.nam", "did you mean name?");
    fails("context.user.zzzzz", "there is name, none, tags");
    fails("context.zzz.deeper", "zzz is not there");
    fails("context.zzz|upper", "zzz is not there");
    fails("steps.first", "first is not there; there is nothing");
    // What is reckoned with what is not there.
    fails("context.n + 1", "`context.n + 1`: n is not there; there is big, items");
    fails("1 - context.scor", "scor is not there; did you mean score?");
    fails("context.usr|length / 2", "did you mean user?");
    fails("-context.scor", "did you mean score?");
    fails("context.scor < 1", "did you mean score?");
    fails("context.scor in context.items", "did you mean score?");
    fails("1 in context.itms", "did you mean items?");
    fails("context.nobody ~ 'x'", "nobody is not there");
    fails("context.items[7] + 1", "there is no item 7: the list has 3");
    fails("context.items[7]", "there is no item 7");
    fails("context.text.name", "context.text is string, which has no name");
    fails("context.score.x + 1", "context.score is number, which has no x");
    fails("context.user['nam'] + 1", "did you mean name?");
    assert_eq!(
        Expression::question("context.n + 1 > 2").map(|question| question
            .value(&View::of(&Value::Null, &context()))
            .map_err(|error| error.message.contains("n is not there"))),
        Ok(Err(true))
    );
    assert_eq!(ask("context.usr").map_err(|error| error.fault), Err(Fault::Input));
    let (output, context) = (Value::Null, context());
    let question = Expression::question("context.done.deep == 'x'").expect("a question");
    assert_eq!(question.value(&View::of(&output, &context)), Ok(value!(false)));
    for undefined in [Undefined::Warn, Undefined::Ignore] {
        assert_eq!(fill(value!("<{{ context.zzz.deeper }}>"), undefined), Ok(value!("<>")));
        assert_eq!(fill(value!("{{ context.zzz }}"), undefined), Ok(value!(null)));
    }
}

#[test]
fn templates() {
    filled(value!("plain } { text"), value!("plain } { text"));
    filled(value!("{{ context.items }}"), value!([3, 1, 2]));
    filled(value!("  {{- context.items -}}\n"), value!([3, 1, 2]));
    filled(value!("{{ {'a': {'b': '}}'}} }}"), value!({"a": {"b": "}}"}}));
    filled(value!("Hello {{ context.user.name }}!"), value!("Hello Ada!"));
    filled(value!("{{ context.user.name }} {{ context.items }}"), value!("Ada [3,1,2]"));
    filled(value!("{{ context.user.none }}{{ context.yes }}"), value!("true"));
    filled(value!({"a": ["{{ output.label }}", 1, {"b": "x{{ 1 }}"}]}), value!({"a": ["cat", 1, {"b": "x1"}]}));
    filled(value!("{\"a\": {{ context.items|length }}}"), value!("{\"a\": 3}"));
    filled(value!("ñ{{ 'ñ' }}"), value!("ññ"));
}

#[test]
fn values_are_shared_not_copied() {
    let (output, context) = (Value::Null, context());
    let view = View::of(&output, &context);
    let taken = Expression::parse("context.items").expect("an expression").value(&view);
    let (Ok(Value::List(taken)), Some(Value::List(there))) = (taken, context.get("items")) else { panic!("lists") };
    assert!(std::sync::Arc::ptr_eq(&taken, there));
}

#[test]
fn what_cannot_be_read() {
    unread("context.", 8, "cannot be read");
    unread("1 +", 3, "cannot be read");
    unread("(1", 2, "cannot be read");
    unread("contxt.a", 1, "did you mean context?");
    unread("1 == os", 6, "the name os is not known");
    unread("__import__('os')", 1, "__import__ is not known");
    unread("range(1000000000)", 1, "range is not known");
    unread("output | to_json", 10, "there is no filter to_json; did you mean tojson?");
    unread("output|first|zzz", 14, "there are join, upper");
    unread("output|indent(9)", 8, "there is no filter indent");
    unread("'x' * 1000000000", 5, "* is not known");
    unread("context.a ** 9", 11, "* is not known");
    unread(&"1+".repeat(100), 130, "joins more than 64 times");
    unread(&"x".repeat(70_000), 1, "65536 are the most");
    assert!(Expression::parse(&format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000))).is_err());
    assert!(Expression::parse(&"not ".repeat(16_000)).is_err());
    unread(&format!("context{}", "[0]".repeat(20_000)), 2007, "more than 2000 words and signs");
    assert!(Expression::parse(&format!("context{}", "[0]".repeat(600))).is_ok());
    assert!(Expression::parse(&format!("1{}", " and 1".repeat(900))).is_ok());
    assert!(Expression::parse(&format!("1{}", "|abs".repeat(900))).is_ok());
}

#[track_caller]
fn refused(template: &str, column: usize, expected: &str) {
    let error = Shape::parse(&value!({ "a": [template] })).err().expect(template);
    assert!(error.message.contains(expected), "{template}: {}", error.message);
    assert_eq!(error.column, column, "{template}: {}", error.message);
}

#[test]
fn what_no_template_holds() {
    refused("{% for i in range(1000000000) %}x{% endfor %}", 13, "the name range is not known");
    refused("x {% include '/etc/passwd' %}", 3, "{% include %} is not known");
    refused("x {{ context.a", 3, "never closed");
    refused("a {{ contxt.a }} b", 6, "did you mean context?");
    refused("line\nñ {{ 1 + }}", 8, "cannot be read");
    let deep = (0..100).fold(value!("{{ 1 }}"), |value, _| Value::list([value]));
    assert!(Shape::parse(&deep).is_err());
}

#[test]
fn large_things() {
    let long: Value = "x".repeat(10 << 20).into();
    let context: Map = [("long", long.clone())].into_iter().collect();
    let view = View::of(&long, &context);
    let one = |source: &str| Shape::parse(&value!(source)).expect(source).value(&view);
    assert_eq!(one("{{ context.long|length }}"), Ok(value!(10 << 20)));
    assert_eq!(one("{{ context.long }}"), Ok(long.clone()));
    assert_eq!(Shape::parse(&long).expect("a plain text").value(&view), Ok(long.clone()));
    for large in [
        "{{ output }}{{ output }}",
        "{{ [output, output]|join }}",
        "{{ output|replace('x', 'xx') }}",
        "{{ output|list }}",
    ] {
        let error = one(large).expect_err(large);
        assert!(error.message.contains("more than"), "{large}: {}", error.message);
    }
}
