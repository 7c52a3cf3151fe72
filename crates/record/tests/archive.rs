//! Archives: what goes in comes out, and what is damaged is told.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    convert::Infallible,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use caudal_record::archive::{ArchiveError, Codec, Link, Options, Reader, Sealed, Series, Writer, sample};
use caudal_store::{Head, Record, Stream, StreamId, link, origin};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

fn full() -> bool {
    std::env::var_os("CAUDAL_TEST_FULL").is_some()
}

fn options(codec: Codec) -> Options {
    Options { codec, threads: 2, chunk: 64 * 1024, ..Options::default() }
}

type Streams = Vec<(Stream, Vec<Record>)>;

fn seal(path: &Path, options: Options, streams: &Streams) -> Result<Sealed, ArchiveError> {
    let mut writer = Writer::create(path, options)?;
    for (stream, records) in streams {
        let mut records = records.iter().cloned().map(Ok::<_, Infallible>);
        writer.add(stream, Link::origin(stream), &mut records)?;
    }
    writer.finish()
}

fn check(path: &Path, streams: &Streams) {
    let reader = Reader::open(path).unwrap();
    reader.verify(2, &|_| {}).unwrap();
    assert_eq!(reader.streams().count(), streams.len());
    for (stream, records) in streams {
        let part = reader.stream(&stream.id).unwrap().unwrap();
        assert_eq!(part.stream, *stream);
        assert_eq!((part.first, part.last), (1, records.len() as u64));
        assert_eq!(reader.read(&stream.id, 0, usize::MAX).unwrap(), *records);
        for at in [0, records.len() / 3, records.len().saturating_sub(1)] {
            let one = reader.read(&stream.id, at as u64, 1).unwrap();
            assert_eq!(one, records[at.min(records.len())..].iter().take(1).cloned().collect::<Vec<_>>());
        }
        assert_eq!(reader.read(&stream.id, records.len() as u64, 10).unwrap(), []);
    }
    assert_eq!(reader.read(&StreamId::new("consultation", "nobody"), 0, 10).unwrap(), []);
}

/// A stream of records with these bodies.
fn stream(name: &str, bodies: &[Bytes]) -> (Stream, Vec<Record>) {
    let id = StreamId::new("consultation", name);
    let mut head = Head { sequence: 0, time: 1_763_712_000_000_000, chain: origin(&id, 1_763_712_000_000_000, b"{}") };
    let mut records = Vec::new();
    for body in bodies {
        let (sequence, time, meta) =
            (head.sequence + 1, head.time + 1_001, Bytes::from_static(b"{\"user_id\": \"u\"}"));
        let digest = Sha256::digest(body).into();
        let (id, kind, body) = (Uuid::from_u128(sequence.into()), "MESSAGE_RECEIVED".into(), body.clone());
        let mut record = Record { sequence, time, id, kind, meta, body, digest, chain: [0; 32] };
        record.chain = link(&head.chain, &record.leaf());
        head = Head { sequence, time, chain: record.chain };
        records.push(record);
    }
    (Stream { id, meta: Bytes::from_static(b"{}"), created: 1_763_712_000_000_000, head, sealed: 0 }, records)
}

fn sizes() -> Streams {
    [(0, 0), (1, 1), (2, 50), (3, 700)].map(|(number, count)| sample::consultation(number, count, 900)).into()
}

#[test]
fn every_codec_gives_back_what_went_in() {
    let folder = tempfile::tempdir().unwrap();
    for codec in ["none", "gzip-1", "gzip-9", "lzf", "lz4", "zstd-1", "zstd-3", "zstd-19"] {
        let path = folder.path().join(format!("{codec}.h5"));
        let streams = sizes();
        let sealed = seal(&path, options(codec.parse().unwrap()), &streams).unwrap();
        assert_eq!((sealed.streams, sealed.records), (4, 751), "{codec}");
        assert_eq!(sealed.bytes_out, fs::metadata(&path).unwrap().len());
        check(&path, &streams);
    }
    let left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .flatten()
        .filter(|file| file.file_name().as_encoded_bytes()[0] == b'.')
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn large_bodies_and_odd_names() {
    let folder = tempfile::tempdir().unwrap();
    let large = Bytes::from(format!("{{\"text\": \"{}\"}}", sample::repeated(10_000).concat()));
    let mut noise = fastrand::Rng::with_seed(3);
    let noise: Bytes = std::iter::repeat_with(|| noise.u8(..)).take(10 << 20).collect();
    let small = Bytes::from_static(b"{}");
    let mut streams: Streams = vec![stream("large", &[small.clone(), large, small.clone(), noise, small.clone()])];
    for name in ["/", "..", ".", "a/b/c", "a%2Fb", "ñ 💊 \u{202e}", "\n", "events", "offsets", "\0"] {
        streams.push(stream(name, &[small.clone(), Bytes::new()]));
    }
    streams.push((Stream { id: StreamId::new("event", "x"), ..stream("x", &[]).0 }, Vec::new()));
    let space = streams.len() - 1;
    streams[space].0.head.chain = streams[space].0.origin();
    let path = folder.path().join("odd.h5");
    seal(&path, options(Codec::Zstd(3)), &streams).unwrap();
    check(&path, &streams);
}

#[test]
fn a_stream_goes_on_in_the_next_file() {
    let folder = tempfile::tempdir().unwrap();
    let (stream, records) = sample::consultation(9, 3_000, 1_000);
    let mut series = Series::new(folder.path(), "events", Options { limit: 300_000, ..options(Codec::Zstd(3)) });
    let all = records.iter().cloned().map(Ok::<_, Infallible>);
    let last = series.add(&stream, Link::origin(&stream), all).unwrap();
    assert_eq!(last, Link { sequence: 3_000, chain: records[2_999].chain });
    let sealed = series.finish().unwrap();
    assert!(sealed.len() >= 2, "{sealed:?}");
    let mut back = Vec::new();
    for sealed in &sealed {
        let reader = Reader::open(&sealed.path).unwrap();
        let part = reader.stream(&stream.id).unwrap().unwrap();
        assert_eq!(part.first, back.len() as u64 + 1);
        // Each file is asked for all: it gives what it has.
        back.extend(reader.read(&stream.id, 0, usize::MAX).unwrap());
        assert_eq!(part.link, back.last().unwrap().chain);
        reader.verify(2, &|_| {}).unwrap();
        assert!(sealed.bytes_out < 700_000, "{sealed:?}");
    }
    assert_eq!(back, records);
}

#[test]
fn what_the_store_has_damaged_is_not_sealed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    let (stream, records) = sample::consultation(1, 10, 500);
    let damage = |change: &dyn Fn(&mut Vec<Record>)| {
        let mut records = records.clone();
        change(&mut records);
        let error = seal(&path, options(Codec::Lzf), &vec![(stream.clone(), records)]).unwrap_err();
        assert!(matches!(error, ArchiveError::Unfit { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left");
        error.to_string()
    };
    assert!(damage(&|records| records[4].body = Bytes::from_static(b"{}")).contains("record 5"));
    assert!(damage(&|records| records[4].time += 1).contains("link"));
    assert!(damage(&|records| drop(records.remove(4))).contains("record 5 was to come next"));
    assert!(damage(&|records| records.swap(3, 4)).contains("record 4 was to come next"));
    let twice = vec![(stream.clone(), records.clone()), (stream.clone(), records.clone())];
    assert!(matches!(seal(&path, options(Codec::Lzf), &twice), Err(ArchiveError::Unfit { .. })));
    fs::write(&path, "somebody's").unwrap();
    assert!(matches!(Writer::create(&path, options(Codec::None)), Err(ArchiveError::Io { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    fs::remove_file(&path).unwrap();
    let failing = &mut std::iter::once(Err::<Record, _>("the store is gone"));
    let mut writer = Writer::create(&path, options(Codec::None)).unwrap();
    let error = writer.add(&stream, Link::origin(&stream), failing).unwrap_err();
    assert!(error.to_string().contains("the store is gone"), "{error}");
}

fn sealed(folder: &Path, codec: Codec) -> (PathBuf, Streams) {
    let (path, streams) = (folder.join(format!("{codec}.h5")), sizes());
    seal(&path, options(codec), &streams).unwrap();
    (path, streams)
}

#[test]
fn every_flipped_bit_is_told_and_no_read_is_wrong() {
    let flips = if full() { 10_000 } else { 200 };
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    for codec in [Codec::Gzip(4), Codec::Zstd(3), Codec::None, Codec::Lz4, Codec::Lzf] {
        let (path, streams) = sealed(folder.path(), codec);
        let whole = fs::read(&path).unwrap();
        let damaged = folder.path().join("damaged.h5");
        for flip in 0..flips / 5 {
            let mut bytes = whole.clone();
            // A third each into the beginning and the end, where the fewest bytes mean the most.
            let near = bytes.len().min(4_096);
            let at = match flip % 3 {
                0 => random.usize(..near),
                1 => bytes.len() - 1 - random.usize(..near),
                _ => random.usize(..bytes.len()),
            };
            bytes[at] ^= 1 << random.u8(..8);
            fs::write(&damaged, &bytes).unwrap();
            let reader = match Reader::open(&damaged) {
                Ok(reader) => reader,
                Err(error) => {
                    let told = matches!(error, ArchiveError::Damaged { .. } | ArchiveError::NotHdf5 { .. });
                    assert!(told, "{codec} byte {at}: {error}");
                    continue;
                }
            };
            let told = reader.verify(1, &|_| {}).expect_err("a flipped bit is found");
            assert!(matches!(told, ArchiveError::Damaged { .. }), "{codec} byte {at}: {told}");
            for (stream, records) in &streams {
                match reader.read(&stream.id, 0, usize::MAX) {
                    Ok(read) => assert_eq!(read, *records, "{codec} byte {at}"),
                    Err(error) => assert!(matches!(error, ArchiveError::Damaged { .. }), "{codec} byte {at}: {error}"),
                }
            }
        }
    }
}

#[test]
fn what_is_cut_short_or_something_else_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = sealed(folder.path(), Codec::Gzip(4));
    let whole = fs::read(&path).unwrap();
    let error = |bytes: &[u8]| {
        fs::write(folder.path().join("b.h5"), bytes).unwrap();
        let error = Reader::open(&folder.path().join("b.h5")).expect_err("it is not whole");
        assert!(caudal_types::Explain::kind(&error).code() == "archive_damaged", "{error}");
        error
    };
    let mut random = fastrand::Rng::with_seed(5);
    for length in (0..50).map(|_| random.usize(..whole.len())).chain([0, 1, 7, 8, 511, 512, whole.len() - 1]) {
        let error = error(&whole[..length]);
        let fits = match length {
            0..8 => matches!(error, ArchiveError::NotHdf5 { .. }),
            _ => matches!(error, ArchiveError::Truncated { .. }),
        };
        assert!(fits, "{length}: {error}");
    }
    assert!(matches!(error(b"a text, and no archive"), ArchiveError::NotHdf5 { .. }));
    let without_root = [&[0; 512], &whole[512..]].concat();
    assert!(matches!(error(&without_root), ArchiveError::NotOurs { .. }));
    assert!(matches!(error(&without_root[..without_root.len() - 1]), ArchiveError::Truncated { .. }));
    // What is added behind an archive does no harm, and is told.
    fs::write(folder.path().join("b.h5"), [&whole[..], &[0]].concat()).unwrap();
    let reader = Reader::open(&folder.path().join("b.h5")).unwrap();
    assert!(matches!(reader.verify(1, &|_| {}), Err(ArchiveError::Damaged { .. })));
    assert!(matches!(Reader::open(Path::new("/nonexistent.h5")), Err(ArchiveError::Io { .. })));
}

/// An archive of format 1, as it was written before format 2: two consultations of three events, by zstd-3.
const FORMAT_1: &[u8] = include_bytes!("data/format-1.h5");

#[test]
fn archives_of_format_1_are_read_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.h5");
    fs::write(&path, FORMAT_1).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.verify(2, &|_| {}).unwrap().records, 6);
    for name in ["c1", "c2"] {
        let id = StreamId::new("consultation", name);
        let records = reader.read(&id, 0, 10).unwrap();
        let part = reader.stream(&id).unwrap().unwrap();
        assert_eq!((records.len(), records[2].chain), (3, part.link));
        assert_eq!(records[1].body, "{\"message\": \"dolor 2 ñ\"}");
    }
    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Reader::open(&path).and_then(|reader| reader.verify(1, &|_| {})).expect_err("it is not whole")
    };
    let mut random = fastrand::Rng::with_seed(19);
    for _ in 0..200 {
        let mut bytes = FORMAT_1.to_vec();
        let at = random.usize(..bytes.len());
        bytes[at] ^= 1 << random.u8(..8);
        assert!(matches!(error(&bytes), ArchiveError::Damaged { .. }), "byte {at}");
    }
    assert!(matches!(error(&[FORMAT_1, &[0]].concat()), ArchiveError::NotOurs { .. }));
    let tail = &FORMAT_1[FORMAT_1.len() - 256..];
    assert!(matches!(error(&[FORMAT_1, tail].concat()), ArchiveError::Damaged { .. }));
}

#[test]
fn sealed_archives_are_not_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = sealed(folder.path(), Codec::None);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o333, 0);
}

/// Runs in a process of its own, see below.
#[test]
#[ignore = "the process that killed_at_any_moment_the_archive_is_absent_or_whole starts and kills"]
fn seals_in_a_loop() {
    let Some(folder) = std::env::var_os("CAUDAL_TEST_SEAL_IN") else { return };
    let streams = sizes();
    let path = Path::new(&folder).join("a.h5");
    loop {
        let _ = fs::remove_file(&path);
        seal(&path, options(Codec::Zstd(1)), &streams).unwrap();
    }
}

#[test]
fn killed_at_any_moment_the_archive_is_absent_or_whole() {
    let kills = if full() { 1_000 } else { 20 };
    let streams = sizes();
    let mut random = fastrand::Rng::new();
    let (mut absent, mut parts) = (0, 0);
    for _ in 0..kills {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "seals_in_a_loop", "--ignored"])
            .env("CAUDAL_TEST_SEAL_IN", folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // From when it has begun to write, so that most kills fall on sealing.
        let part = folder.path().join(".a.h5.part");
        let began = Instant::now();
        while !part.exists() && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_micros(random.u64(..150_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let path = folder.path().join("a.h5");
        parts += u32::from(part.exists());
        match path.exists() {
            true => {
                check(&path, &streams);
                fs::remove_file(&path).unwrap();
            }
            false => absent += 1,
        }
        // Whoever comes next is not in the way of what was left.
        seal(&path, options(Codec::Zstd(1)), &streams).unwrap();
        assert!(!part.exists());
    }
    println!("{kills} kills: {absent} before the first archive, {parts} left a part");
}

fn any_body() -> impl Strategy<Value = Bytes> {
    let json = "[a-z ñ\\\\n]{0,300}".prop_map(|text| serde_json::json!({ "message": text }).to_string().into_bytes());
    let odd = proptest::collection::vec(any::<u8>(), 0..40);
    prop_oneof![4 => json, 1 => odd].prop_map(Bytes::from)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if full() { 500 } else { 24 }, ..ProptestConfig::default() })]

    #[test]
    fn any_records_come_back(
        bodies in proptest::collection::vec(proptest::collection::vec(any_body(), 0..40), 0..6),
        chunk in 1_u32..5_000,
        codec in prop_oneof![Just(Codec::None), Just(Codec::Gzip(1)), Just(Codec::Lzf), Just(Codec::Lz4), Just(Codec::Zstd(3))],
        name in "\\PC{1,20}",
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let streams: Streams =
            bodies.iter().enumerate().map(|(number, bodies)| stream(&format!("{name}{number}"), bodies)).collect();
        seal(&path, Options { chunk, ..options(codec) }, &streams).unwrap();
        check(&path, &streams);
    }
}
