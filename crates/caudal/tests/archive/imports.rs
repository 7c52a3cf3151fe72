//! Corpora of others, whatever state they are in.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use caudal_record::archive::{ArchiveError, ImportLimits, Imported, import};
use serde_json::{Value, json};

use crate::{CAUDAL, full, imported, imported_within, output, python};

/// A corpus as its users have it: strings of variable length, gzip, able to grow.
const CORPUS: &str = r#"
import json, sys, h5py
path, keep = sys.argv[1], sys.argv[2:]
file = h5py.File(path, "w", **({"libver": "latest"} if "latest" in keep else {}))
file.create_group("metadata").attrs["version"] = "0.1"
file.create_group("interactions").create_dataset("prompt", (0,), maxshape=(None,), dtype=h5py.string_dtype())
file.create_group("embeddings").create_dataset("vector", (0, 768), maxshape=(None, 768), dtype="f4")
for number in range(3):
    group = file.create_group(f"consultations/session_{number}")
    group.attrs["created_at"] = group.attrs["updated_at"] = "2025-10-29T10:00:00+00:00"
    group.attrs["event_count"] = 300 * number
    events = group.create_dataset("events", (0,), maxshape=(None,), dtype=h5py.string_dtype("utf-8"),
                                  compression="gzip", compression_opts=4)
    for event in range(300 * number):
        events.resize((event + 1,))
        events[event] = json.dumps({"event_id": str(event), "payload": {"message": "dolor de cabeza, ñ 💊"}},
                                   ensure_ascii=False)
    group.create_group("snapshots").create_dataset("2025-10-29T10:00:00", data=b"{}")
if "fixed" in keep:
    import numpy
    group = file.create_group("consultations/fixed")
    group.create_dataset("events", data=numpy.array([b'{"a": 1}', b'{"b": 22}'], dtype="S16"))
if "elsewhere" in keep:
    open(path + ".secret", "w").write("secret" * 100)
    file["consultations/soft"] = h5py.ExternalLink("/etc/passwd", "/")
    group = file.create_group("consultations/hostile")
    if "external" in keep:
        group.create_dataset("events", (10,), dtype="S10", external=[(path + ".secret", 0, 100)])
    else:
        layout = h5py.VirtualLayout((10,), dtype="S10")
        layout[:] = h5py.VirtualSource(path + ".secret", "x", (10,))
        group.create_virtual_dataset("events", layout)
if "numbers" in keep:
    file.create_group("consultations/numbers").create_dataset("events", data=[1, 2, 3])
if "large" in keep:
    file.create_group("consultations/large").create_dataset("events", data=["x" * (64 << 20)], dtype=h5py.string_dtype())
if "bzip2" in keep:
    import hdf5plugin, numpy
    group = file.create_group("consultations/z")
    group.create_dataset("events", data=numpy.array([b"x" * 1000] * 100), **hdf5plugin.BZip2())
if "compound" in keep:
    import numpy
    rows = numpy.array([(b"2025", b"{}")], dtype=[("time", "S4"), ("json", "S2")])
    file.create_group("consultations/z").create_dataset("events", data=rows)
if "table" in keep:
    file.create_group("consultations/z").create_dataset("events", data=[["{}"]], dtype=h5py.string_dtype())
file.flush()
print("ready", flush=True)
if "open" in keep:
    sys.stdin.read()
file.close()
"#;

fn corpus(words: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("corpus.h5");
    let words: Vec<&Path> = [path.as_path()].into_iter().chain(words.iter().map(Path::new)).collect();
    output(&mut python(CORPUS, &words)?);
    Some((folder, path))
}

#[test]
fn a_corpus_is_imported() {
    let Some((_folder, path)) = corpus(&["fixed"]) else { return };
    let found = imported(&path).unwrap();
    let skipped: Vec<&str> = found
        .iter()
        .filter_map(|found| if let Imported::Skipped(part) = found { Some(part.as_str()) } else { None })
        .collect();
    assert!(skipped.iter().all(|part| part.ends_with("snapshots (a group of 1)")), "{skipped:?}");
    assert_eq!(skipped.len(), 3, "{skipped:?}");
    let about = found.iter().find_map(|found| match found {
        Imported::Consultation { original, .. } if original.attributes.contains_key("created_at") => {
            Some(&original.attributes)
        }
        _ => None,
    });
    let about = about.unwrap();
    assert_eq!(
        (&about["created_at"], &about["corpus"]["version"]),
        (&json!("2025-10-29T10:00:00+00:00"), &json!("0.1"))
    );
    let mut events = [0; 3];
    for found in &found {
        let Imported::Event { consultation, json } = found else { continue };
        let Some(number) = consultation.strip_prefix("session_") else {
            assert!(json == r#"{"a": 1}"# || json == r#"{"b": 22}"#, "{json}");
            continue;
        };
        let (number, event): (usize, Value) = (number.parse().unwrap(), serde_json::from_str(json).unwrap());
        assert_eq!(event["event_id"], events[number].to_string());
        assert_eq!(event["payload"]["message"], "dolor de cabeza, ñ 💊");
        events[number] += 1;
    }
    assert_eq!(events, [0, 300, 600]);
}

#[test]
fn what_lies_elsewhere_or_is_something_else_is_refused() {
    for (words, says) in [
        (&["elsewhere"][..], "another file"),
        (&["elsewhere", "external"], "another file"),
        (&["numbers"], "numbers/events holds neither strings nor bytes"),
        (&["bzip2"], "z/events: the required filter bzip2 (307) is not supported"),
        (&["compound"], "z/events holds several values for each event (time, json)"),
        (&["table"], "z/events has 2 dimensions"),
    ] {
        let Some((_folder, path)) = corpus(words) else { return };
        // It is told before any event is given out.
        let error = import(Path::new(CAUDAL), &path, ImportLimits::default()).err().unwrap().to_string();
        assert!(error.contains(says) && !error.contains("secret\""), "{words:?}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    fs::write(&path, "a text").unwrap();
    assert!(matches!(imported(&path), Err(ArchiveError::NotHdf5 { .. })));
    // A pipe would be waited for without an end.
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [&*pipe, folder.path()] {
        assert!(matches!(imported(path), Err(ArchiveError::NotRegular { .. })), "{}", path.display());
    }
    assert!(matches!(imported(&folder.path().join("none.h5")), Err(ArchiveError::Io { .. })));
}

/// A corpus of what is easily lost or invented.
const ODD: &str = r#"
import hdf5plugin, h5py, numpy, os, sys
text = h5py.string_dtype("utf-8")
with h5py.File(sys.argv[1], "w") as file:
    def events(name, *arguments, **words):
        return file.create_group(b"consultations/" + name).create_dataset("events", *arguments, **words)
    events(b"lzf", data=["{}"] * 300, dtype=text, compression="lzf")
    events(b"lz4", data=numpy.array([b"{}"] * 300), **hdf5plugin.LZ4(nbytes=100))
    events(b"zstd", data=["{}"] * 300, dtype=text, shuffle=True, **hdf5plugin.Zstd())
    events(b"gaps", (8,), maxshape=(None,), chunks=(4,), dtype=text)[:3] = ["{}"] * 3
    events(b"filled", (8,), chunks=(4,), dtype="S9", fillvalue=b'{"a": 1}')[:3] = [b"{}"] * 3
    spaces = h5py.h5t.C_S1.copy()
    spaces.set_size(5)
    spaces.set_strpad(h5py.h5t.STR_SPACEPAD)
    group = file.create_group("consultations/spaces")
    padded = h5py.h5d.create(group.id, b"events", spaces, h5py.h5s.create_simple((2,)))
    padded.write(h5py.h5s.ALL, h5py.h5s.ALL, numpy.array([b"{}   ", b"     "], dtype="S5"), spaces)
    events(b"lines", data=numpy.frombuffer(b"{}\n\n \n{}\n\0\0", dtype="u1"))
    latin = events(b"caf\xe9", data=[b"{}", b'"caf\xe9"'], dtype=h5py.string_dtype("ascii")).parent
    latin.attrs.create("place", numpy.bytes_(b"M\xe9xico"))
    latin.attrs["count"] = numpy.uint64(2**64 - 1)
    linked = file.create_group("consultations/linked")
    linked["events"] = h5py.SoftLink("/consultations/lzf/events")
    linked["more"] = h5py.ExternalLink(sys.argv[1] + ".missing", "/")
    file.create_dataset("consultations/list", data=[1, 2])
    file["away"] = h5py.SoftLink("/consultations")
    inter = file.create_group("interactions")
    for name, kind, rows in (("session_id", text, ["lzf", "lzf"]), ("tokens", "u8", [2**64 - 1, 1]), ("score", "f8", [0.5, numpy.inf])):
        inter.create_dataset(name, (4,), maxshape=(None,), dtype=kind)[:2] = rows
    inter["elsewhere"] = h5py.SoftLink("/interactions/tokens")
    for said in (file["consultations"], file["consultations/lzf/events"], inter, inter["tokens"]):
        said.attrs["said"] = "x"
    file.create_group("embeddings").create_dataset("vector", data=numpy.array([[0.1, 0.2]], dtype="f8"))
"#;

#[test]
fn nothing_of_an_odd_corpus_is_lost_or_invented() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.h5");
    let Some(mut command) = python(ODD, &[&path]) else { return };
    output(&mut command);
    let (mut events, mut skipped, mut about) = (BTreeMap::<String, Vec<String>>::new(), Vec::new(), Value::Null);
    for found in imported(&path).unwrap() {
        match found {
            Imported::Event { consultation, json } => events.entry(consultation.to_string()).or_default().push(json),
            Imported::Skipped(part) => skipped.push(part),
            Imported::Consultation { name, original } if &*name == "caf%E9" => about = json!(original.attributes),
            Imported::Consultation { .. } | Imported::Damaged { .. } => {}
        }
    }
    let interactions = events.get_mut("lzf").unwrap().split_off(300);
    let counts = [("lzf", 300), ("lz4", 300), ("zstd", 300), ("gaps", 3), ("filled", 3), ("spaces", 1), ("lines", 2)];
    for (name, count) in counts {
        assert_eq!(events[name], vec!["{}"; count], "{name}");
    }
    let bytes: Value = serde_json::from_str(&events["caf%E9"][1]).unwrap();
    assert_eq!((&*events["caf%E9"][0], &bytes["payload"]["base64"]), ("{}", &json!("ImNhZuki")));
    assert_eq!((&about["place"]["base64"], &about["count"]), (&json!("Tel4aWNv"), &json!(u64::MAX)));
    let payload = |event: &String| serde_json::from_str::<Value>(event).unwrap()["payload"].clone();
    let expected = |tokens: u64, score: Value| json!({"session_id": "lzf", "tokens": tokens, "score": score});
    let payloads: Vec<Value> = interactions.iter().map(payload).collect();
    assert_eq!(payloads, [expected(u64::MAX, json!(0.5)), expected(1, json!("inf"))]);
    assert!(events["embeddings"][0].contains("float64_base64"), "{:?}", events["embeddings"]);
    assert_eq!(events.len(), counts.len() + 2, "{:?}", events.keys());
    skipped.sort();
    let expected = [
        "away (a link to another place, not followed)",
        "consultations/@said (an attribute of all consultations)",
        "consultations/filled/events (5 rows that hold the fill value, as those do that nothing was written to)",
        "consultations/gaps/events (5 empty rows)",
        "consultations/lines/events (2 empty lines)",
        "consultations/linked/events (a link to another place, not followed)",
        "consultations/linked/more (a link to another place, not followed)",
        "consultations/list (2 rows)",
        "consultations/lzf/events/@said (an attribute of a dataset)",
        "consultations/spaces/events (1 empty rows)",
        "interactions (2 empty rows)",
        "interactions/@said (an attribute of all rows)",
        "interactions/elsewhere (a link to another place, not followed)",
        "interactions/tokens/@said (an attribute of a dataset)",
    ];
    assert_eq!(skipped, expected);
}

#[test]
fn a_corpus_that_is_open_elsewhere_is_told() {
    for (libver, killed) in [("", false), ("latest", false), ("latest", true)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corpus.h5");
        let Some(mut command) = python(CORPUS, &[&path, Path::new("open"), Path::new(libver)]) else { return };
        let mut writer = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(writer.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n");
        if killed {
            writer.kill().unwrap();
            writer.wait().unwrap();
        }
        let error = imported(&path).unwrap_err();
        assert!(matches!(error, ArchiveError::OpenElsewhere { .. }), "{libver} {killed}: {error}");
        drop(writer.stdin.take());
        writer.wait().unwrap();
        if !killed {
            assert!(imported(&path).unwrap().len() > 900);
        }
    }
}

#[test]
fn a_damaged_corpus_harms_nobody() {
    let Some((folder, path)) = corpus(&[]) else { return };
    let whole = fs::read(&path).unwrap();
    let mut random = fastrand::Rng::with_seed(17);
    let damaged = folder.path().join("damaged.h5");
    let (mut told, turns) = (0, if full() { 3_000 } else { 60 });
    for turn in 0..turns {
        let mut bytes = whole.clone();
        // Flips mostly where the library keeps its own things; or an end that is missing.
        match turn % 4 {
            0 => bytes.truncate(random.usize(..whole.len())),
            _ => {
                for _ in 0..random.usize(1..20) {
                    let at = random.usize(..if turn % 2 == 0 { whole.len() } else { 8_192 });
                    bytes[at] = random.u8(..);
                }
            }
        }
        fs::write(&damaged, &bytes).unwrap();
        let limits = ImportLimits { patience: 1, ..ImportLimits::default() };
        match imported_within(&damaged, limits) {
            Ok(_) => {}
            Err(error) => {
                told += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    println!("{told} of {turns} damaged files were told");
    assert!(told > turns / 5, "{told}");
}

#[test]
fn an_import_has_limits() {
    let Some((_folder, path)) = corpus(&[]) else { return };
    for limits in [
        ImportLimits { total: 10_000, ..ImportLimits::default() },
        ImportLimits { event: 4, ..ImportLimits::default() },
    ] {
        let error = imported_within(&path, limits).unwrap_err().to_string();
        assert!(error.contains("than an import may bring"), "{error}");
    }
    // Too little memory for an event is an end, not a hang: what was mapped before the limit holds none of 64 MiB.
    let Some((_folder, path)) = corpus(&["large"]) else { return };
    let done = Command::new(CAUDAL).args(["read-events", "--memory-mb", "1", "--"]).arg(&path).output().unwrap();
    assert!(!done.status.success() || String::from_utf8_lossy(&done.stdout).contains("failed"));
}
