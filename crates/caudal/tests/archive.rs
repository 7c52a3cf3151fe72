//! Archives beside h5py: it reads ours, and we import what it wrote, whatever state that is in.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    convert::Infallible,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use caudal_record::archive::{ArchiveError, Codec, ImportLimits, Imported, Link, Options, Writer, import, sample};
use serde_json::{Value, json};

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

fn full() -> bool {
    std::env::var_os("CAUDAL_TEST_FULL").is_some()
}

/// Python with h5py, which `cargo xtask setup` brings.
fn python(script: &str, arguments: &[&Path]) -> Option<Command> {
    let folder = caudal_types::cache_dir().join("h5py");
    if !folder.join("h5py/__init__.py").is_file() {
        eprintln!("skipped: h5py is missing; `cargo xtask setup` brings it");
        return None;
    }
    let mut command = Command::new("python3");
    command.arg("-c").arg(script).args(arguments).env("PYTHONPATH", folder);
    Some(command)
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn seal(path: &Path, codec: Codec) -> Vec<Value> {
    let mut writer = Writer::create(path, Options { codec, ..Options::default() }).unwrap();
    let mut events = Vec::new();
    for (number, count) in [(1, 3), (2, 0), (3, 1_500)] {
        let (stream, records) = sample::consultation(number, count, 900);
        events.extend(records.iter().map(|record| {
            json!({
                "event_id": record.id,
                "consultation_id": stream.id.name,
                "sequence": record.sequence,
                "event_type": record.kind,
                "payload": serde_json::from_slice::<Value>(&record.body).unwrap(),
                "metadata": serde_json::from_slice::<Value>(&record.meta).unwrap(),
            })
        }));
        writer.add(&stream, Link::origin(&stream), &mut records.into_iter().map(Ok::<_, Infallible>)).unwrap();
    }
    writer.finish().unwrap();
    events
}

/// Reads an archive as its own `reader_hint` says, and checks what A's readers check.
const READ: &str = r#"
import datetime, hashlib, json, sys
import h5py
if len(sys.argv) > 2:
    import hdf5plugin
path = sys.argv[1]
file = h5py.File(path)
assert file.attrs["format_version"] == 1
found = []
scope = {"path": path}
exec(file.attrs["reader_hint"], scope)
assert scope["events"] is not None
for name, group in file["consultations"].items():
    data = group["events"][:].tobytes()
    events = [json.loads(line) for line in data.splitlines()]
    assert len(events) == group.attrs["event_count"]
    assert isinstance(group.attrs["created_at"], str) and len(group.attrs["chain_head"]) == 64
    assert group.attrs["created_at"] <= group.attrs["updated_at"]
    if "offsets" in group:
        at = group["offsets"][:]
        for row in (0, len(events) // 2, len(events) - 1):
            assert json.loads(group["events"][at[row]:at[row + 1]].tobytes()) == events[row]
    else:
        assert len(data) < 600_000
    for event in events:
        text = json.dumps(event["payload"], sort_keys=True, ensure_ascii=False)
        assert event.pop("audit_hash") == hashlib.sha256(text.encode()).hexdigest()
        datetime.datetime.strptime(event.pop("timestamp"), "%Y-%m-%dT%H:%M:%S.%fZ")
        found.append(event)
print(json.dumps(found))
"#;

fn check_reading(codec: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let codec: Codec = codec.parse().unwrap();
    let mut events = seal(&path, codec);
    let plugin = [path.as_path(), Path::new("plugin")];
    let arguments = if codec.plugin().is_some() { &plugin[..] } else { &plugin[..1] };
    let Some(mut command) = python(READ, arguments) else { return };
    let mut found: Vec<Value> = serde_json::from_str(&output(&mut command)).unwrap();
    let key = |event: &Value| (event["consultation_id"].to_string(), event["sequence"].as_u64());
    events.sort_by_key(key);
    found.sort_by_key(key);
    assert!(found == events, "{codec}: h5py reads other events than were sealed");
}

#[test]
fn stock_h5py_reads_archives() {
    for codec in [&Codec::default().to_string(), "none", "gzip-1", "gzip-9", "lzf"] {
        check_reading(codec);
    }
}

#[test]
fn hdf5plugin_reads_the_others() {
    for codec in ["lz4", "zstd-1", "zstd-3", "zstd-19"] {
        check_reading(codec);
    }
}

#[test]
fn without_the_plugin_the_file_says_which_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    seal(&path, Codec::Zstd(3));
    let script = r#"
import sys, h5py
file = h5py.File(sys.argv[1])
print(file.attrs["filter_plugin"], file.attrs["filter_id"])
try:
    for group in file["consultations"].values():
        group["events"][:]
except OSError as error:
    print(error)
"#;
    let Some(mut command) = python(script, &[&path]) else { return };
    let said = output(&mut command);
    // What h5py says itself is about folders of plugins.
    assert!(said.starts_with("hdf5plugin 32015\n") && said.contains("read data"), "{said}");
}

#[test]
fn h5py_tells_of_damage_that_it_reads() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
import sys, h5py
try:
    for group in h5py.File(sys.argv[1])["consultations"].values():
        group["events"][:]
    print("fine")
except OSError as error:
    print("told")
"#;
    for codec in [Codec::None, Codec::Gzip(4), Codec::Lzf] {
        let path = folder.path().join(format!("{codec}.h5"));
        seal(&path, codec);
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
        fs::write(&path, bytes).unwrap();
        let Some(mut command) = python(script, &[&path]) else { return };
        assert_eq!(output(&mut command), "told\n", "{codec}");
    }
}

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
if "lzf" in keep:
    group = file.create_group("consultations/lzf")
    import numpy
    group.create_dataset("events", data=numpy.array([b"x" * 1000] * 100), compression="lzf")
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

fn imported(path: &Path) -> Result<Vec<Imported>, ArchiveError> {
    imported_within(path, ImportLimits::default())
}

fn imported_within(path: &Path, limits: ImportLimits) -> Result<Vec<Imported>, ArchiveError> {
    import(Path::new(CAUDAL), path, limits)?.collect()
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
        (&["numbers"], "does not hold strings"),
        (&["lzf"], "stock HDF5 does not have"),
    ] {
        let Some((_folder, path)) = corpus(words) else { return };
        let error = imported(&path).unwrap_err().to_string();
        assert!(error.contains(says) && !error.contains("secret\""), "{words:?}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    fs::write(&path, "a text").unwrap();
    assert!(matches!(imported(&path), Err(ArchiveError::NotHdf5 { .. })));
    assert!(matches!(imported(&folder.path().join("none.h5")), Err(ArchiveError::Io { .. })));
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
    // Too little memory to start the library is an end, not a hang.
    let done = Command::new(CAUDAL).args(["read-events", "--memory-mb", "1", "--"]).arg(&path).output().unwrap();
    assert!(!done.status.success() || String::from_utf8_lossy(&done.stdout).contains("failed"));
}

#[test]
fn codecs_are_timed_and_one_is_recommended() {
    let folder = tempfile::tempdir().unwrap();
    let (json, plot) = (folder.path().join("codecs.json"), folder.path().join("codecs.svg"));
    let mut command = Command::new(CAUDAL);
    command.args(["bench", "codec", "--events", "300", "--repeats", "1", "--json"]).arg(&json);
    let table = output(command.arg("--plot").arg(&plot).arg("--dir").arg(folder.path()));
    assert!(table.contains("For this machine: ") && table.contains("zstd-19"), "{table}");
    let report: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let ratio = |corpus: &str, layout: &str, codec: &str| {
        let row = rows.iter().find(|row| row["corpus"] == corpus && row["layout"] == layout && row["codec"] == codec);
        row.unwrap()["ratio"].as_f64().unwrap()
    };
    // Filters do not reach strings of variable length, whatever they are.
    for corpus in ["realistic", "repeated"] {
        for codec in ["none", "gzip-1", "gzip-4", "gzip-9"] {
            assert!(ratio(corpus, "strings", codec) < 1.1, "{corpus} {codec}");
        }
    }
    assert!(ratio("realistic", "chunks", "zstd-3") > 3.0 && ratio("repeated", "chunks", "gzip-4") > 30.0);
    let svg = fs::read_to_string(plot).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.matches("<circle").count() == 15, "{svg}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "its own files are gone");
}
