//! Archives beside h5py: it reads ours, and we import what it wrote, whatever state that is in.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod imports;

use std::{convert::Infallible, fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use caudal_record::archive::{
    ArchiveError, Codec, ImportLimits, Imported, Link, Options, Reader, Writer, import, sample,
};
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
assert file.attrs["format_version"] == 2
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

fn imported(path: &Path) -> Result<Vec<Imported>, ArchiveError> {
    imported_within(path, ImportLimits::default())
}

fn imported_within(path: &Path, limits: ImportLimits) -> Result<Vec<Imported>, ArchiveError> {
    import(Path::new(CAUDAL), path, limits)?.collect()
}

/// What is imported of a file: events, and which consultations are damaged.
fn events_of(path: &Path) -> (Vec<Value>, Vec<String>) {
    let (mut events, mut damaged) = (Vec::new(), Vec::new());
    for found in imported(path).unwrap() {
        match found {
            Imported::Event { json, .. } => events.push(serde_json::from_str(&json).unwrap()),
            Imported::Damaged { consultation, .. } => damaged.push(consultation.to_string()),
            Imported::Consultation { .. } | Imported::Skipped(_) => {}
        }
    }
    events.sort_by_key(|event: &Value| (event["consultation_id"].to_string(), event["sequence"].as_u64()));
    (events, damaged)
}

#[test]
fn archives_without_their_index_are_imported_with_any_codec() {
    let folder = tempfile::tempdir().unwrap();
    for codec in ["none", "gzip-1", "gzip-9", "lzf", "lz4", "zstd-1", "zstd-3", "zstd-19"] {
        let path = folder.path().join(format!("{codec}.h5"));
        seal(&path, codec.parse().unwrap());
        let (with_index, damaged) = events_of(&path);
        assert_eq!((with_index.len(), damaged.len()), (1_503, 0), "{codec}");
        let mut bytes = fs::read(&path).unwrap();
        bytes[..512].fill(0);
        let without = folder.path().join("without.h5");
        fs::write(&without, &bytes).unwrap();
        assert!(events_of(&without) == (with_index, damaged), "{codec}: the data say something else than the index");
    }
    // Format 1 had its index behind the end of HDF5, which programs that open a file to write cut off.
    let bytes = include_bytes!("../../../record/tests/data/format-1.h5");
    let end = u64::from_le_bytes(bytes[28..36].try_into().unwrap());
    let path = folder.path().join("format-1.h5");
    fs::write(&path, bytes).unwrap();
    let whole = events_of(&path);
    fs::write(&path, &bytes[..usize::try_from(end).unwrap()]).unwrap();
    assert_eq!((events_of(&path), whole.0.len()), (whole.clone(), 6));
}

#[test]
fn damaged_consultation_of_an_archive_keeps_no_other_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let events = seal(&path, Codec::None);
    let mut bytes = fs::read(&path).unwrap();
    let id = events[1]["event_id"].as_str().unwrap();
    let at = bytes.windows(id.len()).position(|window| window == id.as_bytes()).unwrap();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    for root in [bytes[..512].to_vec(), vec![0; 512]] {
        let damaged = folder.path().join("damaged.h5");
        fs::write(&damaged, [&root[..], &bytes[512..]].concat()).unwrap();
        let (events, damaged) = events_of(&damaged);
        assert_eq!((events.len(), damaged.len()), (1_500, 1));
    }
}

#[test]
fn programs_that_open_an_archive_to_write_leave_it_readable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let events = seal(&path, Codec::default());
    let sealed = fs::read(&path).unwrap();
    // As root may, whom modes do not stop.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let open = r#"
import sys, h5py
for mode in ("a", "r+"):
    with h5py.File(sys.argv[1], mode) as file:
        list(file["consultations"])
"#;
    let Some(mut command) = python(open, &[&path]) else { return };
    output(&mut command);
    assert!(fs::read(&path).unwrap() == sealed, "nothing was changed");
    let write = r#"
import sys, h5py
with h5py.File(sys.argv[1], "a") as file:
    file.attrs["seen"] = "yes"
    file["consultations"].attrs["seen"] = "yes"
    file.create_dataset("frame", data=list(range(10000)))
"#;
    output(&mut python(write, &[&path]).unwrap());
    let reader = Reader::open(&path).unwrap();
    let error = reader.verify(1, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("its events are whole, but the rest of the file"), "{error}");
    assert_eq!(events_of(&path).0.len(), events.len());
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
