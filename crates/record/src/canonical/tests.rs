//! What Python writes is what we write: by vectors that Python made, by documents made up here and shown to a Python,
//! and by a slow reference.

use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const VECTORS: &str = include_str!("../../../../fixtures/canonical/vectors.jsonl");

fn text(input: &str) -> Result<String, JsonError> {
    canonical(input.as_bytes()).map(|out| String::from_utf8(out).unwrap())
}

fn check(input: &str, expected: &str) {
    assert_eq!(text(input).as_deref(), Ok(expected), "{input}");
}

fn refused(input: &[u8], at: usize, fault: Fault) {
    assert_eq!(canonical(input), Err(fault.at(at)), "{}", String::from_utf8_lossy(input));
}

#[test]
fn what_python_writes() {
    let mut count = 0;
    for line in VECTORS.lines() {
        let vector: Value = serde_json::from_str(line).unwrap();
        let input = vector["in"].as_str().unwrap();
        match vector["out"].as_str() {
            Some(out) => check(input, out),
            None => assert!(canonical(input.as_bytes()).is_err(), "{input} should be refused"),
        }
        count += 1;
    }
    assert!(count > 3000, "{count}");
}

#[test]
fn forms_by_hand() {
    check(" { \"b\" : 1 , \"a\" : [ ] } ", r#"{"a": [], "b": 1}"#);
    check(r#"{"b":{"d":1,"c":2},"a":{}}"#, r#"{"a": {}, "b": {"c": 2, "d": 1}}"#);
    check(r#""\/\u00e9\u0000\u001F\u007f\b""#, "\"/é\\u0000\\u001f\u{7f}\\b\"");
    check(r#"["😀", "\ud83d\ude00"]"#, r#"["😀", "😀"]"#);
    // By what keys say, not by how they are written: a line feed comes before a space, a quote before #.
    check(r##"{" ":1,"\n":2,"#":3,"\"":4}"##, r##"{"\n": 2, " ": 1, "\"": 4, "#": 3}"##);
    // By code points, not by UTF-16's units.
    check("{\"\u{1f600}\":1,\"\u{ffff}\":2}", "{\"\u{ffff}\": 2, \"\u{1f600}\": 1}");
    check(
        "[-0,-0.0,0e5,1E22,1e-5,0.0001,1e16,123456789012345680.0,36.50]",
        "[0, -0.0, 0.0, 1e+22, 1e-05, 0.0001, 1e+16, 1.2345678901234568e+17, 36.5]",
    );
}

#[test]
fn what_is_refused_is_refused_where_it_stands() {
    let cut = |wanted| Fault::CutOff(wanted);
    let wrong = |found, wanted| Fault::Unexpected { found, wanted };
    refused(b"", 0, Fault::Empty);
    refused(b" \n", 2, Fault::Empty);
    refused(b"\"a\xff\"", 2, Fault::NotUtf8);
    refused(b"{\"a\": 1", 7, cut("a comma or the end of the object"));
    refused(b"{\"a\"", 4, cut("a colon"));
    refused(b"{\"a\": ", 6, cut("a value"));
    refused(b"{\"a\": 1,}", 8, wrong('}', "a key in quotes"));
    refused(b"[1,]", 3, wrong(']', "a value"));
    refused(b"[1 2]", 3, wrong('2', "a comma or the end of the array"));
    refused("ñ".as_bytes(), 0, wrong('ñ', "a value"));
    refused("\u{feff}1".as_bytes(), 0, wrong('\u{feff}', "a value"));
    refused(b"1 x", 2, Fault::Trailing('x'));
    refused(b"nul", 0, wrong('n', "a value"));
    refused(b"[NaN]", 1, Fault::NotANumber);
    refused(b"[-Infinity]", 1, Fault::NotANumber);
    refused(b"01", 1, wrong('1', "no digit after a leading zero"));
    refused(b"-", 1, cut("a digit"));
    refused(b"1.", 2, cut("a digit"));
    refused(b"1e+", 3, cut("a digit"));
    refused(b"+1", 0, wrong('+', "a value"));
    refused(b".5", 0, wrong('.', "a value"));
    refused(b"[1e400]", 1, Fault::NumberTooLarge);
    refused(&[b'7'; 4301], 0, Fault::NumberTooLong);
    refused(b"\"a\nb\"", 2, Fault::ControlCharacter(10));
    refused(b"\"a", 2, cut("the end of a string"));
    refused(b"\"\\", 2, cut("an escape"));
    refused(br#""\x""#, 1, Fault::BadEscape);
    refused(br#""\u12g4""#, 1, Fault::BadEscape);
    refused(br#""\u12"#, 1, Fault::BadEscape);
    refused(br#""\ud83d""#, 1, Fault::LoneSurrogate);
    refused(br#""\ude00""#, 1, Fault::LoneSurrogate);
    refused(br#""\ud83d\u0041""#, 1, Fault::LoneSurrogate);
    refused(br#"{"a":1,"a":2}"#, 7, Fault::DuplicateKey("a".into()));
    refused(br#"{"b":0,"a":1,"c":3,"\u0061":2}"#, 19, Fault::DuplicateKey("a".into()));
    assert_eq!(canonical(&[b'7'; 4300]).unwrap().len(), 4300);
}

#[test]
fn depth_has_a_limit_and_no_depth_breaks_the_stack() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    check(&nested(64), &nested(64));
    refused(nested(65).as_bytes(), 64, Fault::TooDeep(64));
    refused(nested(1_000_000).as_bytes(), 64, Fault::TooDeep(64));
    refused(&b"{\"a\":".repeat(10_000), 64 * 5, Fault::TooDeep(64));
    let mut out = Vec::new();
    assert!(Canonicaliser::new(u8::MAX).value(nested(255).as_bytes(), &mut out).is_ok());
    assert!(Canonicaliser::new(0).value(b"1", &mut out).is_ok());
}

#[test]
fn what_fails_leaves_nothing_behind_and_what_follows_is_right() {
    let mut work = Canonicaliser::default();
    let mut out = b"before".to_vec();
    assert!(work.value(br#"{"b":{"z":1,"a":[1,2"#, &mut out).is_err());
    assert!(work.envelope(br#"{"payload":{"a":1},"event_type":"#, &mut out).is_err());
    assert_eq!(out, b"before");
    let digest = work.value(br#"{"b":1,"a":2}"#, &mut out).unwrap();
    assert_eq!(out, br#"before{"a": 2, "b": 1}"#);
    assert_eq!(digest, sha256(br#"{"a": 2, "b": 1}"#));
}

#[test]
fn the_hash_is_sha256_of_the_form() {
    // python3 -c 'import hashlib,json; print(hashlib.sha256(json.dumps({"message": "¿Cómo está?"}, sort_keys=True,
    // ensure_ascii=False).encode()).hexdigest())'
    let digest = Canonicaliser::default().value("{\"message\":\"¿Cómo está?\"}".as_bytes(), &mut Vec::new()).unwrap();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "fbcd4b5b7d343728734fe68f130cbe8e5431b444449d956b719a55a75867c2ff");
}

#[test]
fn an_envelope_lends_its_texts() {
    let body = br#"{"user_id":"dr\u002e lopez","payload":{"message":"Hola","b":1.50,"a":null},"event_type":"MESSAGE_RECEIVED","metadata":{"source":"x"},"session_id":null}"#;
    let mut out = b"..".to_vec();
    let envelope = Canonicaliser::default().envelope(body, &mut out).unwrap();
    assert!(matches!(envelope.event_type, Cow::Borrowed("MESSAGE_RECEIVED")));
    assert_eq!(envelope.user_id.as_deref(), Some("dr. lopez"));
    assert_eq!((envelope.session_id, envelope.event_id), (None, None));
    assert_eq!(&out[envelope.payload.clone()], br#"{"a": null, "b": 1.5, "message": "Hola"}"#);
    assert_eq!(&out[envelope.metadata.unwrap()], br#"{"source": "x"}"#);
}

#[test]
fn byte_order_mark_in_front_is_no_part_of_an_envelope() {
    let read = |body: &str| {
        let mut out = Vec::new();
        let envelope = Canonicaliser::default().envelope(body.as_bytes(), &mut out)?;
        Ok::<_, JsonError>(String::from_utf8(out[envelope.payload].to_vec()).unwrap())
    };
    let body = "{\"event_type\": \"A\", \"payload\": {\"b\": \"\u{feff}\"}}";
    for mark in ["\u{feff}", "\u{feff} \n"] {
        assert_eq!(read(&format!("{mark}{body}")).as_deref(), Ok("{\"b\": \"\u{feff}\"}"));
    }
    assert!(read(&format!("\u{feff}\u{feff}{body}")).is_err());
    assert!(read("\u{feff}").is_err());
}

#[test]
fn expected_version_may_be_written_as_any_whole_number() {
    let read = |number: &str| {
        let body = format!(r#"{{"expected_version": {number}, "event_type": "A", "payload": {{}}}}"#);
        Canonicaliser::default().envelope(body.as_bytes(), &mut Vec::new()).map(|envelope| envelope.expected_version)
    };
    for (number, version) in [("2", 2), ("2.0", 2), ("0.0", 0), ("-0", 0), ("2e2", 200), ("1.5e1", 15), ("1E+2", 100)] {
        assert_eq!(read(number), Ok(Some(version)), "{number}");
        assert_eq!(whole_number(number), Some(version), "{number}");
    }
    let wrong = Fault::WrongType { field: "expected_version", wanted: "a whole number from 0 on" };
    for number in ["2.5", "-1", "1e30", "99999999999999999999", "\"2\"", "[2]", "true"] {
        assert_eq!(read(number), Err(wrong.clone().at(21)), "{number}");
        assert_eq!(whole_number(number), None, "{number}");
    }
    assert_eq!(read("null"), Ok(None));
    assert_eq!(read("2."), Err(Fault::Unexpected { found: ',', wanted: "a digit" }.at(23)));
}

#[test]
fn what_is_no_envelope_is_told_what_lacks() {
    let check = |body: &str, at: usize, fault: Fault| {
        assert_eq!(Canonicaliser::default().envelope(body.as_bytes(), &mut Vec::new()), Err(fault.at(at)), "{body}");
    };
    let wrong = |field, wanted| Fault::WrongType { field, wanted };
    check("", 0, Fault::Empty);
    check("[]", 0, wrong("the body", "a JSON object"));
    check("{}", 0, Fault::MissingField("payload"));
    check(r#"{"payload":{}}"#, 0, Fault::MissingField("event_type"));
    check(r#"{"payload":[]}"#, 11, wrong("payload", "an object"));
    check(r#"{"payload":null}"#, 11, wrong("payload", "an object"));
    check(r#"{"event_type":null}"#, 14, wrong("event_type", "a string"));
    check(r#"{"user_id":7}"#, 11, wrong("user_id", "a string"));
    check(r#"{"metadata":7}"#, 12, wrong("metadata", "an object or null"));
    check(r#"{"user_id":"a","user_id":"b"}"#, 15, Fault::DuplicateKey("user_id".into()));
    check(r#"{"event_typ":"a"}"#, 1, Fault::UnknownField { name: "event_typ".into(), nearest: Some("event_type") });
    check(r#"{"event_type":"A","payload":{}} 1"#, 32, Fault::Trailing('1'));
}

#[test]
fn errors_say_what_and_where() {
    let error = Canonicaliser::default().envelope(br#"{"playload":{}}"#, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "there is no field \"playload\"; payload may have been meant, at byte 1");
    assert_eq!(canonical(b"{\"a\" 1}").unwrap_err().to_string(), "'1' stands where a colon should, at byte 5");
}

/// What the form is, told slowly: serde_json's tree, with keys in order, and the numbers that it reads as we do.
fn slow(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                slow(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| key.chars().map(u32::from).collect::<Vec<_>>());
            out.push('{');
            for (index, (key, item)) in members.into_iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                out.push_str(&serde_json::to_string(key).unwrap());
                out.push_str(": ");
                slow(item, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn documents() -> impl Strategy<Value = Value> {
    let key = prop_oneof!["[a-c]{0,2}", "[\\x00-\\x7f]{0,3}", "\\PC{0,3}"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        // Where serde_json and Python write floats alike.
        (-1_000_000i32..1_000_000).prop_map(|n| json!(f64::from(n) / 64.0)),
        ".{0,40}".prop_map(Value::from),
        "[ -~]{0,100}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// The same value as another writer may send it: other white space, other escapes, keys the other way round.
fn written_otherwise(value: &Value, out: &mut String) {
    let string = |text: &str, out: &mut String| {
        out.push('"');
        for unit in text.encode_utf16() {
            out.push_str(&format!("\\u{unit:04X}"));
        }
        out.push('"');
    };
    match value {
        Value::String(text) => string(text, out),
        Value::Array(items) => {
            out.push_str("[\n");
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { ",\t" } else { "" });
                written_otherwise(item, out);
            }
            out.push_str(" ]");
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (key, item)) in members.iter().rev().enumerate() {
                out.push_str(if index > 0 { "\r\n," } else { "" });
                string(key, out);
                out.push(':');
                written_otherwise(item, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

proptest! {
    #[test]
    fn one_value_has_one_form(value in documents()) {
        let mut expected = String::new();
        slow(&value, &mut expected);
        let compact = text(&value.to_string()).unwrap();
        prop_assert_eq!(&compact, &expected);
        prop_assert_eq!(&text(&compact).unwrap(), &expected);
        let mut otherwise = String::new();
        written_otherwise(&value, &mut otherwise);
        prop_assert_eq!(&text(&otherwise).unwrap(), &expected);
    }

    #[test]
    fn any_float_reads_back_the_same(bits: u64) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        // "1e0" is a float, "1" would be an integer.
        let form = text(&format!("{value:e}")).unwrap();
        prop_assert_eq!(form.parse::<f64>().unwrap().to_bits(), value.to_bits());
        prop_assert_eq!(&text(&form).unwrap(), &form);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), json in "[\\[\\]{}\",:\\\\u0-9eE.+ -]{0,40}") {
        let _ = canonical(&bytes);
        if let Ok(form) = canonical(json.as_bytes()) {
            prop_assert_eq!(canonical(&form).unwrap(), form);
            // Nothing passes here that a stricter or looser reader takes for something else.
            prop_assert!(serde_json::from_str::<Value>(&json).is_ok());
        }
    }
}

/// Runs `script` with `input` on a Python's standard input, where there is one.
pub(crate) fn python(script: &str, input: &str) -> Option<String> {
    let program = caudal_testkit::find_program(&["python3"]).or_else(|| {
        eprintln!("skipped: no python3");
        None
    })?;
    let mut child =
        Command::new(program).args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn what_a_python_here_writes() {
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::{Config, TestRunner};

    let mut runner = TestRunner::new(Config::default());
    let mut lines = String::new();
    for index in 0..500 {
        let value = documents().new_tree(&mut runner).unwrap().current();
        let float = f64::from_bits(rand_bits(index));
        let float = if float.is_finite() { float } else { 0.5 };
        let mut line = String::new();
        written_otherwise(&json!([value]), &mut line);
        lines.push_str(&line.replace(['\n', '\r'], " ").replacen('[', &format!("[{float:e},"), 1));
        lines.push('\n');
    }
    let script = "import json,sys\nfor line in sys.stdin.buffer:\n    sys.stdout.buffer.write((json.dumps(json.loads(line),sort_keys=True,ensure_ascii=False)+'\\n').encode())";
    let Some(theirs) = python(script, &lines) else { return };
    assert_eq!(theirs.lines().count(), 500);
    for (line, expected) in lines.lines().zip(theirs.split('\n')) {
        check(line, expected);
    }
}

/// Bits without order, the same each time (SplitMix64).
fn rand_bits(index: u64) -> u64 {
    let mut z = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
