//! Exports are read again, by other readers than ours where there are any, and by whoever changes them.

use caudal_store::{Head, Record};
use serde_json::{Value, json};

use super::*;
use crate::canonical::tests::python;
use crate::proof::SigningKey;
use crate::verify::Verifier;
use crate::verify::tests::{records, stream};

fn some() -> Vec<Record> {
    records(&[
        ("MESSAGE_RECEIVED", json!({ "message": "Hola, \"doctora\"\n```\n# no heading\n<b>x</b>" })),
        ("DEMOGRAPHICS_UPDATED", json!({ "age": 54, "gender": "female" })),
        ("clinic:NOTE", json!({ "formula": "=1+1", "a": "ñ" })),
    ])
}

fn head(records: &[Record]) -> SignedHead {
    let mut verifier = Verifier::new(stream(), 0, b"");
    records.iter().for_each(|record| verifier.check(record).unwrap());
    SignedHead::new(&stream(), &verifier.head(), verifier.root()).sign(&SigningKey::from_bytes(&[7; 32]))
}

fn write(format: Format, records: &[Record]) -> (Written, String) {
    let head = Head { sequence: 0, time: 0, chain: [0; 32] };
    let stream = Stream { id: stream(), meta: "{\"owner\": 1}".into(), created: 0, head, sealed: 0 };
    let mut exporter = Exporter::new(format, stream, Vec::new()).unwrap();
    records.iter().for_each(|record| exporter.event(record).unwrap());
    let (written, out) = exporter.finish(&self::head(records)).unwrap();
    (written, String::from_utf8(out).unwrap())
}

#[test]
fn json_holds_everything() {
    let records = some();
    let (written, text) = write(Format::Json, &records);
    assert_eq!((written.bytes, written.events), (text.len() as u64, 3));
    assert_eq!(written.sha256.0, crate::canonical::sha256(text.as_bytes()));
    let export: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&export["consultation_id"], &export["event_count"]), (&json!("c-1"), &json!(3)));
    assert_eq!(export["metadata"], json!({ "owner": 1 }));
    assert_eq!(export["events"][2]["payload"], json!({ "formula": "=1+1", "a": "ñ" }));
    assert_eq!(export["events"][0]["metadata"]["user_id"], "dra. López");
    assert_eq!(export["events"][1]["audit_hash"], Hash::from(records[1].digest).to_string());
    assert_eq!(export["head"]["chain_hash"], Hash::from(records[2].chain).to_string());
    let (_, empty) = write(Format::Json, &[]);
    assert_eq!(serde_json::from_str::<Value>(&empty).unwrap()["events"], json!([]));
}

#[test]
fn csv_is_read_by_others() {
    let (_, text) = write(Format::Csv, &some());
    assert!(
        text.starts_with("sequence,timestamp,event_id,event_type,user_id,audit_hash,chain_hash,metadata,payload\r\n")
    );
    let script = "import csv,io,json,sys\nprint(json.dumps(list(csv.DictReader(io.StringIO(sys.stdin.buffer.read().decode(), newline=''), strict=True))))";
    let Some(rows) = python(script, &text) else { return };
    let rows: Value = serde_json::from_str(&rows).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 3);
    assert_eq!(rows[0]["payload"], r#"{"message": "Hola, \"doctora\"\n```\n# no heading\n<b>x</b>"}"#);
    assert_eq!((&rows[2]["event_type"], &rows[2]["user_id"]), (&json!("clinic:NOTE"), &json!("dra. López")));
    assert_eq!(rows[2]["timestamp"], "1970-01-01T00:00:03.000000Z");
}

#[test]
fn no_cell_is_a_formula() {
    let cell = |text: &str| {
        let mut record = some().remove(1);
        record.kind = text.into();
        let (_, csv) = write_unchecked(&record);
        csv.split("\r\n").nth(1).unwrap().split(',').nth(3).unwrap().to_owned()
    };
    for formula in ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "  =1", "＝1"] {
        assert_eq!(cell(formula), format!("\"'{formula}\""));
    }
    assert_eq!(cell("MESSAGE_RECEIVED"), "MESSAGE_RECEIVED");
    assert_eq!(cell("a\"b"), "\"a\"\"b\"");
}

/// As CSV, a record that no verifier would let pass.
fn write_unchecked(record: &Record) -> (Written, String) {
    let head = Head { sequence: 0, time: 0, chain: [0; 32] };
    let stream = Stream { id: stream(), meta: "".into(), created: 0, head, sealed: 0 };
    let mut exporter = Exporter::new(Format::Csv, stream, Vec::new()).unwrap();
    exporter.event(record).unwrap();
    let (written, out) = exporter.finish(&self::head(&[])).unwrap();
    (written, String::from_utf8(out).unwrap())
}

#[test]
fn markdown_keeps_what_came_from_outside_in_fences() {
    let (_, text) = write(Format::Markdown, &some());
    assert!(text.starts_with("# Consultation `c-1`\n\nBegun 1970-01-01T00:00:00.000000Z."));
    assert!(text.contains("### 1 · 1970-01-01T00:00:01.000000Z · `MESSAGE_RECEIVED`\n\nBy `dra. López`.\n\n````text\nHola, \"doctora\"\n```\n# no heading\n<b>x</b>\n````\n"));
    assert!(text.contains("```json\n{\"age\": 54, \"gender\": \"female\"}\n```"));
    assert!(text.contains("Complete to 12 %.") && text.contains("\"gender\": \"female\"\n  }"));
    assert_eq!(text.matches("\n# ").count(), 1, "the message's own, in its fence");
}

#[test]
fn a_manifest_tells_what_was_changed() {
    let records = some();
    let texts: Vec<_> = Format::ALL.iter().map(|format| write(*format, &records)).collect();
    let names: Vec<_> = Format::ALL.iter().map(|format| format!("c-1.{}", format.name())).collect();
    let files: Vec<_> = names.iter().zip(&texts).map(|(name, (written, _))| (&**name, *written)).collect();
    let good = Manifest::new(&files, head(&records), 1_000_000, "dra. López");
    let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
    let travelled: Manifest = serde_json::from_str(&serde_json::to_string_pretty(&good).unwrap()).unwrap();
    assert_eq!(travelled.verify(Some(&key)), Ok(()));
    for (name, (_, text)) in names.iter().zip(&texts) {
        travelled.verify_file(name, text.as_bytes()).unwrap();
        let changed = text.replace("54", "45");
        assert!(matches!(travelled.verify_file(name, changed.as_bytes()), Err(FileFault::Changed { .. })), "{name}");
        assert!(matches!(travelled.verify_file(name, &text.as_bytes()[1..]), Err(FileFault::Size { .. })));
    }
    assert!(matches!(travelled.verify_file("other", &b""[..]), Err(FileFault::Unknown(_))));

    let changed = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        manifest.verify(Some(&key))
    };
    assert_eq!(changed(&|manifest| manifest.files[0].bytes += 1), Err(ManifestFault::Changed));
    assert_eq!(changed(&|manifest| manifest.made_by = "other".into()), Err(ManifestFault::Changed));
    assert_eq!(changed(&|manifest| manifest.manifest_hash = None), Err(ManifestFault::Changed));
    assert_eq!(changed(&|manifest| manifest.version = 2), Err(ManifestFault::Version(2)));
    let rehashed = |change: &dyn Fn(&mut Manifest)| {
        changed(&|manifest| {
            change(manifest);
            manifest.manifest_hash = manifest.hash();
        })
    };
    assert_eq!(rehashed(&|manifest| manifest.event_count = 2), Err(ManifestFault::Count { events: 2, head: 3 }));
    assert_eq!(rehashed(&|manifest| manifest.head.time = 9), Err(ManifestFault::Head(crate::proof::HeadFault::Forged)));
}
