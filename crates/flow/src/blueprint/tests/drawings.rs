//! What people see of a file.

use super::{hostile::WHOLE, *};
use crate::{explain, mermaid, svg};

const SMALL: &str = "
name: triage
description: looks at a picture
durable: false
usage_limits: {total_tokens_limit: 10}
steps:
  - {name: see, uses: upper, config: {max_retries: 2}, fallback: {name: blind}}
  - {kind: conditional, name: which, condition_expression: output == 'A', branches: {yes: [{kind: hitl, name: ask, message: 'Well <&\">?'}], no: []}}
  - {kind: loop, name: polish, loop: {body: [{name: b, uses: add}], max_loops: 2}}
";

#[test]
fn outlines() {
    let expected = "\
triage: looks at a picture
may spend 10 tokens
its steps are not kept
1. see: upper; tried 3 times
   if it fails:
      1. blind: passthrough
2. which (conditional): by output == 'A'
   yes:
      1. ask (hitl): asks Well <&\">?
   no: nothing
3. polish (loop): at most 2 times
   1. b: add
";
    assert_eq!(explain(&good(SMALL)), expected);
}

#[test]
fn charts() {
    let expected = "\
flowchart TD
  n0([\"triage\"])
  n1[\"see\"]
  n0 --> n1
  n2[\"blind\"]
  n1 -->|\"fails\"| n2
  n2 --> n1
  n3{\"conditional: which\"}
  n1 --> n3
  n4[/\"hitl: ask\"/]
  n3 -->|\"yes\"| n4
  n5((\" \"))
  n4 --> n5
  n3 -->|\"no\"| n5
  n6[[\"loop: polish\"]]
  n5 --> n6
  n7[\"b\"]
  n6 --> n7
  n7 -.->|again| n6
  n8([\"end\"])
  n7 --> n8
";
    assert_eq!(mermaid(&good(SMALL)), expected);
    let strange = mermaid(&good("{name: 'a\"]-->x', steps: [{name: \"<script>`|\\n\"}]}"));
    assert!(!strange.contains("<script>") && !strange.contains("a\"]"), "{strange}");
}

/// Whether every element is closed in order, and texts hold no sign that begins one.
fn well_formed(xml: &str) -> bool {
    let mut open: Vec<&str> = Vec::new();
    for piece in xml.split('<').skip(1) {
        let Some((tag, text)) = piece.split_once('>') else { return false };
        if text.contains('>') && !open.contains(&"style") {
            return false;
        }
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return false;
            }
        } else if !tag.ends_with('/') {
            open.push(tag.split(' ').next().unwrap_or(tag));
        }
    }
    open.is_empty()
}

#[test]
fn pictures() {
    for text in [SMALL, WHOLE, "{name: '<&\">', steps: []}", "steps: [{name: \"]]>\\u0007\\u0000<x y='\"}]"] {
        let picture = svg(&good(text));
        assert!(well_formed(&picture), "{picture}");
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }
    let picture = svg(&good(SMALL));
    for said in ["triage", ">see<", ">which<", "Well &lt;&amp;&quot;&gt;?", "prefers-color-scheme"] {
        assert!(picture.contains(said), "{picture} does not say {said}");
    }
    if let Some(path) = std::env::var_os("CAUDAL_TEST_PICTURE") {
        std::fs::write(path, svg(&good(WHOLE))).expect("a file");
    }
}

#[test]
fn the_schema_takes_what_is_read() {
    let schema = crate::schema();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for text in [SMALL, WHOLE] {
        let node = crate::blueprint::tree::read(text).expect("a tree");
        let json = serde_json::Value::from(&node.value());
        let wrong: Vec<String> = validator.iter_errors(&json).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
    let refuses = |text: &str| {
        let json = serde_json::Value::from(&crate::blueprint::tree::read(text).expect("a tree").value());
        !validator.is_valid(&json)
    };
    for text in [
        "{name: x}",
        "{stepz: []}",
        "steps: [{uses: add}]",
        "steps: [{name: a, kind: zzz}]",
        "steps: [{name: a, branches: {}}]",
    ] {
        assert!(refuses(text), "{text}");
    }
}
