//! Blocks of templates: what they give, what they refuse, and that none goes on without end.

use std::time::{Duration, Instant};

use super::*;

#[track_caller]
fn makes(template: &str, expected: &str) {
    filled(value!(template), value!(expected));
}

#[track_caller]
fn goes_wrong(template: &str, expected: &str) {
    let error = fill(value!(template), Undefined::Strict).expect_err(template);
    assert!(error.message.contains(expected), "{template}: {} does not say {expected}", error.message);
    assert!(!error.again && !error.hint.is_empty());
}

#[test]
fn choices() {
    makes("{% if context.yes %}a{% endif %}", "a");
    makes("{% if not context.yes %}a{% endif %}", "");
    makes("{% if context.score > 1 %}a{% elif context.score > 0.5 %}b{% else %}c{% endif %}", "b");
    makes("{% if false %}a{% elif false %}b{% else %}c{% endif %}", "c");
    makes("{% if true %}{% if false %}a{% else %}b{% endif %}{% else %}c{% endif %}", "b");
    makes("{% if context.nobody.deep %}a{% else %}nobody{% endif %}", "nobody");
    makes("<{% if '%}' == '%}' %}a{% endif %}>", "<a>");
    makes("{{#if context.yes}}a{{/if}}{{#if context.nobody}}b{{else}}c{{/if}}", "ac");
}

#[test]
fn rounds() {
    makes("{% for n in context.items %}{{ n }},{% endfor %}", "3,1,2,");
    makes("{% for n in context.items %}{{ n }}{% if not loop.last %}, {% endif %}{% endfor %}", "3, 1, 2");
    makes("{% for n in context.items|sort %}{{ loop.index }}{{ loop.index0 }}{{ n }} {% endfor %}", "101 212 323 ");
    makes("{% for k in context.user %}{{ k }} {% endfor %}", "name none tags ");
    makes("{% for k, v in context.user|items %}{{ k }}={{ v }};{% endfor %}", "name=Ada;none=;tags=[\"x\",\"y\"];");
    makes("{% for a in context.items %}{% for b in [1, 2] %}{{ a + b }}{% endfor %} {% endfor %}", "45 23 34 ");
    makes("{% for n in [] %}a{% else %}none{% endfor %}", "none");
    makes("{% for n in context.user.none %}a{% endfor %}", "");
    makes("{% for item in context.items %}{{ item }}{% endfor %}{{ item.label }}", "312cat");
    makes("{{#each context.items}}{{ this }}-{{/each}}", "3-1-2-");
    makes("{{#each context.user.tags}}{{#if loop.first}}first {{/if}}{{ this|upper }} {{/each}}", "first X Y ");
    goes_wrong("{% for a in context.text %}{% endfor %}", "`context.text` is string, and for goes through a list");
    goes_wrong("{% for a, b in context.items %}{% endfor %}", "no list of 2");
    goes_wrong("{% for a in context.itms %}{% endfor %}", "did you mean items?");
    goes_wrong("{% for a in context.items %}{{ a.b }}{% endfor %}", "a is number, which has no b");
}

#[test]
fn names() {
    makes("{% set n = context.items|length %}{{ n }}{% set n = n + 1 %}{{ n }}", "34");
    makes("{% for i in context.items %}{% set n = i %}{{ n }}{% endfor %}", "312");
    makes("{% set n = 0 %}{% for i in context.items %}{% set n = n + i %}{% endfor %}{{ n }}", "0");
    makes("{% if context.yes %}{% set n = 1 %}{% endif %}{{ n }}", "1");
    makes("{% set text = 'a = b' %}{{ text }}", "a = b");
    goes_wrong("{% if context.nobody %}{% set n = 1 %}{% endif %}{{ n + 1 }}", "`n + 1`");
}

#[test]
fn spaces() {
    makes("a  {%- if true -%}  b  {%- endif -%}  c", "abc");
    makes("a {{- context.user.name -}} b", "aAdab");
    makes("a {% if true %} b {% endif %} c", "a  b  c");
    makes("100% {% if true %}{ %}{% endif %}", "100% { %}");
}

#[test]
fn what_is_no_block() {
    refused("x{% if context.yes %}a", 2, "{% if %} is never closed");
    refused("{% for a in context.items %}", 1, "{% for %} is never closed");
    refused("{% if true", 1, "{% is never closed");
    refused("a{% endif %}", 2, "{% endif %} closes nothing");
    refused("{% if true %}{% endfor %}", 14, "{% endfor %} does not close {% if %}");
    refused("{% for a in [1] %}{% elif true %}{% endfor %}", 19, "does not close");
    refused("{{#if true}}{% endif %}", 13, "does not close {{#if}}");
    refused("{% if true %}{% else %}{% else %}{% endif %}", 24, "does not close");
    refused("{% for a %}{% endfor %}", 1, "what for goes through");
    refused("{% for a, b, c in [1] %}{% endfor %}", 1, "one or two");
    refused("{% for context in [1] %}{% endfor %}", 1, "context is something else");
    refused("{% set 1 = 2 %}", 1, "a name is letters");
    refused("{% set output = 2 %}", 1, "output is something else");
    refused("{% set x %}a{% endset %}", 1, "set has no value");
    refused("{% set x == 1 %}", 1, "set has no value");
    refused("{% for a in [1] %}{% endfor %}{{ a }}", 34, "the name a is not known");
    refused("{% if contxt.a %}{% endif %}", 7, "did you mean context?");
    refused("{% if 1 + %}{% endif %}", 9, "cannot be read");
    refused("{% include 'x' %}", 1, "{% include %} is not known");
    refused("{% import 'x' as y %}", 1, "is not known");
    refused("{% extends 'x' %}", 1, "is not known");
    refused("{% macro x() %}{% endmacro %}", 1, "is not known");
    refused("{% call x() %}{% endcall %}", 1, "is not known");
    refused("{% raw %}{% endraw %}", 1, "is not known");
    refused("{%%}", 1, "is not known");
    refused("{{#with context}}{{/with}}", 1, "{{#with}} is not known");
    let deep = format!("{}{}", "{% if true %}".repeat(1_000), "{% endif %}".repeat(1_000));
    assert!(Shape::parse(&value!(deep)).err().is_some_and(|error| error.message.contains("more than 64 blocks")));
}

/// `template` over a long list and a long text fails with these words, soon.
#[track_caller]
fn stopped(template: &str, expected: &str) {
    let long = Value::list((0..1_000).map(Value::from));
    let context: Map = [("long", long), ("big", "x".repeat(8 << 20).into())].into_iter().collect();
    let shape = Shape::parse(&value!(template)).unwrap_or_else(|error| panic!("{template}: {error}"));
    let start = Instant::now();
    let error = shape.value(&View::of(&Value::Null, &context)).expect_err(template);
    assert!(error.message.contains(expected), "{template}: {} does not say {expected}", error.message);
    assert!(start.elapsed() < Duration::from_secs(10), "{template} took {:?}", start.elapsed());
}

#[test]
fn none_goes_on_without_end() {
    let loops = |depth: usize, body: &str| {
        let opens: String = (0..depth).map(|n| format!("{{% for a{n} in context.long %}}")).collect();
        format!("{opens}{body}{}", "{% endfor %}".repeat(depth))
    };
    let pieces = "works out more than 100000 pieces";
    stopped(&loops(8, ""), pieces);
    stopped(&loops(2, "x"), pieces);
    stopped(&loops(8, "{% if true %}{% set y = a0 %}{% endif %}"), pieces);
    stopped(&loops(1, "{{ context.big }}"), "texts of more than 16777216 bytes");
    stopped(&loops(2, &"x".repeat(30_000)), "texts of more than");
    stopped(&loops(1, "{{ [context.big, context.big, context.big] }}"), "a text of more than");
    stopped(&loops(1, "{% if (context.big ~ context.big ~ context.big)|upper %}{% endif %}"), "longer than 1s");
    let doubled =
        |first: &str, next: &str| format!("{{% set x = {first} %}}{}", format!("{{% set x = {next} %}}").repeat(200));
    let named = "what is set to x has more than 1048576 bytes, or is more than 64 deep";
    stopped(&doubled("'x'", "x ~ x"), named);
    stopped(&doubled("[1]", "x + x"), "more than 1048576");
    stopped(&doubled("'x'", "[x, x]"), named);
    stopped(&doubled("1", "{'x': x}"), named);
    stopped(&doubled("'x'", "[x, x]|join"), named);
    stopped(&doubled("'xx'", "x|replace('x', 'xx')"), named);
    stopped("{% set x = context.big %}", named);
    stopped(
        &format!("{{{{ [{}]|tojson|length }}}}", ["context.big"; 300].join(", ")),
        "works through more than 128 MiB",
    );
    // What is allowed is allowed once, and not for each text.
    let many = value!({"a": loops(1, "{{ 1 }}"), "b": vec![loops(1, "{{ 1 }}"); 60]});
    let context: Map = [("long", Value::list((0..1_000).map(Value::from)))].into_iter().collect();
    let error = Shape::parse(&many).expect("a template").value(&View::of(&Value::Null, &context)).expect_err("much");
    assert!(error.message.contains(pieces), "{}", error.message);
}
