//! Which codec for this machine: each one timed on the same bytes, and what it would be with strings of variable length.

use std::{
    fs::{self, File},
    path::Path,
    time::Instant,
};

use serde::Serialize;

use super::{
    codec::Codec,
    error::ArchiveError,
    hdf5, line, sample,
    writer::{Link, Options, Writer},
};
use crate::archive::Reader;

/// What is timed.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Events of each corpus.
    pub events: u64,
    /// Bytes of a realistic event, about.
    pub bytes: usize,
    /// How often each is timed; the median counts.
    pub repeats: usize,
}

/// How events stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Bytes in chunks, as archives have them.
    Chunks,
    /// A string of variable length per event, written one by one.
    Strings,
}

/// One codec on one corpus.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `realistic` or `repeated`.
    pub corpus: &'static str,
    /// How events stand in the file.
    pub layout: Layout,
    /// The codec's name.
    pub codec: String,
    /// Milliseconds until the file was on disk.
    pub write_ms: f64,
    /// Milliseconds to read all of it, from the page cache.
    pub read_ms: f64,
    /// Bytes of the file.
    pub size: u64,
    /// Bytes of the events by bytes of the file.
    pub ratio: f64,
    /// Megabytes of events a second, written.
    pub write_mb_s: f64,
    /// Megabytes of events a second, read.
    pub read_mb_s: f64,
    /// What h5py needs beside itself.
    pub plugin: Option<&'static str>,
}

/// A whole archive, sealed: checked, packed, durable, read back.
#[derive(Debug, Clone, Serialize)]
pub struct Seal {
    /// The codec's name.
    pub codec: String,
    /// Consultations in it.
    pub consultations: u64,
    /// Events in each.
    pub events_each: u64,
    /// Megabytes of events a second.
    pub mb_s: f64,
    /// Bytes of the events by bytes of the file.
    pub ratio: f64,
    /// Milliseconds to read one event in the middle, with opening the file; the median of 25.
    pub one_event_ms: f64,
}

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Codecs.
    pub rows: Vec<Row>,
    /// Archives.
    pub seals: Vec<Seal>,
    /// What this machine should use: of the codecs that stock h5py opens, the one with the best ratio among those that
    /// write at least [`FAST_ENOUGH`] MB/s on one core.
    pub recommended: String,
    /// The same among all.
    pub recommended_with_plugin: String,
}

/// Megabytes a second that a codec has to write on one core to be recommended: a hundred consultations of a hundred events
/// of 1 KB, a day of a clinic, in a third of a second.
pub const FAST_ENOUGH: f64 = 30.0;

const CODECS: [Codec; 11] = [
    Codec::None,
    Codec::Gzip(1),
    Codec::Gzip(4),
    Codec::Gzip(6),
    Codec::Gzip(9),
    Codec::Lzf,
    Codec::Lz4,
    Codec::Zstd(1),
    Codec::Zstd(3),
    Codec::Zstd(9),
    Codec::Zstd(19),
];
const STRINGS: [Codec; 4] = [Codec::None, Codec::Gzip(1), Codec::Gzip(4), Codec::Gzip(9)];

/// Times all codecs, with files in `folder`; `progress` hears what is timed next.
///
/// # Errors
/// Where a file cannot be written or read.
pub fn codecs(plan: Plan, folder: &Path, progress: &mut dyn FnMut(&str)) -> Result<Report, ArchiveError> {
    let mut rows = Vec::new();
    for (corpus, lines) in [("realistic", realistic(plan)), ("repeated", sample::repeated(plan.events))] {
        let bytes = lines.iter().map(|line| line.len() as u64 + 1).sum();
        for codec in STRINGS {
            progress(&format!("{corpus}, strings, {codec}"));
            let timed = repeat(plan.repeats, || strings(&folder.join("strings.h5"), codec, &lines))?;
            rows.push(row(corpus, Layout::Strings, codec, bytes, timed));
        }
        let text = lines.join("\n").into_bytes();
        for codec in CODECS {
            progress(&format!("{corpus}, chunks, {codec}"));
            let timed = repeat(plan.repeats, || chunks(&folder.join("chunks.h5"), codec, &text))?;
            rows.push(row(corpus, Layout::Chunks, codec, bytes, timed));
        }
    }
    let mut seals = Vec::new();
    for codec in [Codec::default(), Codec::Zstd(3)] {
        for (consultations, each) in [(plan.events.div_ceil(50), 50), (1, plan.events)] {
            progress(&format!("{consultations} consultations of {each}, sealed, {codec}"));
            seals.push(seal(&folder.join("sealed.h5"), codec, consultations, each, plan.bytes)?);
        }
    }
    let (recommended, with_plugin) = (recommend(&rows, false), recommend(&rows, true));
    Ok(Report { rows, seals, recommended, recommended_with_plugin: with_plugin })
}

fn recommend(rows: &[Row], plugins: bool) -> String {
    let can =
        |row: &&Row| row.corpus == "realistic" && row.layout == Layout::Chunks && (plugins || row.plugin.is_none());
    let fast = rows.iter().filter(can).filter(|row| row.write_mb_s >= FAST_ENOUGH);
    let best = fast.max_by(|one, other| one.ratio.total_cmp(&other.ratio));
    // A machine on which none is that fast takes the fastest that packs at all.
    let quickest = || rows.iter().filter(can).filter(|row| row.codec != "none");
    let best = best.or_else(|| quickest().max_by(|one, other| one.write_mb_s.total_cmp(&other.write_mb_s)));
    best.map(|row| row.codec.clone()).unwrap_or_default()
}

fn realistic(plan: Plan) -> Vec<String> {
    let mut lines = Vec::new();
    let mut number = 0;
    while (lines.len() as u64) < plan.events {
        let each = (plan.events - lines.len() as u64).min(100);
        let mut events = sample::consultation_events(number, each, plan.bytes);
        for record in events.by_ref() {
            let mut text = Vec::new();
            line::write(&mut text, &sample_id(number), &record);
            text.pop();
            lines.push(String::from_utf8_lossy(&text).into_owned());
        }
        number += 1;
    }
    lines
}

fn sample_id(number: u64) -> caudal_store::StreamId {
    sample::consultation_events(number, 0, 0).stream().id
}

/// Seconds of writing, of reading, and bytes of the file.
type Timed = (f64, f64, u64);

fn repeat(times: usize, mut once: impl FnMut() -> Result<Timed, ArchiveError>) -> Result<Timed, ArchiveError> {
    let all = (0..times.max(1)).map(|_| once()).collect::<Result<Vec<_>, _>>()?;
    let size = all[0].2;
    Ok((median(all.iter().map(|timed| timed.0).collect()), median(all.iter().map(|timed| timed.1).collect()), size))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn row(corpus: &'static str, layout: Layout, codec: Codec, bytes: u64, (write, read, size): Timed) -> Row {
    let speed = |seconds: f64| bytes as f64 / 1e6 / seconds;
    Row {
        corpus,
        layout,
        codec: codec.to_string(),
        write_ms: write * 1e3,
        read_ms: read * 1e3,
        size,
        ratio: bytes as f64 / size as f64,
        write_mb_s: speed(write),
        read_mb_s: speed(read),
        plugin: codec.plugin(),
    }
}

fn sync(path: &Path) -> Result<(), ArchiveError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(ArchiveError::io(path, "make it durable"))
}

fn size(path: &Path) -> Result<u64, ArchiveError> {
    let size = fs::metadata(path).map_err(ArchiveError::io(path, "look at it"))?.len();
    fs::remove_file(path).map_err(ArchiveError::io(path, "remove it"))?;
    Ok(size)
}

fn strings(path: &Path, codec: Codec, lines: &[String]) -> Result<Timed, ArchiveError> {
    let began = Instant::now();
    let write = || {
        let file = hdf5::File::create(path, 0)?;
        codec.with_filters(0, |filters| {
            // Without the checksum: nobody who writes strings has it.
            file.root()?.write_strings("events", lines, &filters[..filters.len() - 1])
        })?;
        file.close()
    };
    write().map_err(ArchiveError::hdf5(path))?;
    sync(path)?;
    let wrote = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let read = || {
        let file = hdf5::File::open_own(path)?;
        let set = file.root()?.dataset("events")?;
        let texts = set.strings(0, lines.len())?;
        drop(set);
        file.close().map(|()| texts.len())
    };
    let count = read().map_err(ArchiveError::hdf5(path))?;
    assert_eq!(count, lines.len(), "all came back");
    Ok((wrote, began.elapsed().as_secs_f64(), size(path)?))
}

fn chunks(path: &Path, codec: Codec, text: &[u8]) -> Result<Timed, ArchiveError> {
    let chunk = Options::default().chunk;
    let pack_failed = || ArchiveError::io(path, "pack a chunk of it");
    let began = Instant::now();
    let file = hdf5::File::create(path, 0).map_err(ArchiveError::hdf5(path))?;
    let root = file.root().map_err(ArchiveError::hdf5(path))?;
    let set = codec.with_filters(chunk, |filters| root.create_bytes("events", chunk.into(), false, filters));
    let set = set.map_err(ArchiveError::hdf5(path))?;
    let mut kept = Vec::new();
    for (number, plain) in text.chunks(chunk as usize).enumerate() {
        let offset = number as u64 * u64::from(chunk);
        let mut whole = plain.to_vec();
        whole.resize(chunk as usize, 0);
        let packed = codec.pack(&whole).map_err(pack_failed())?;
        let written = set
            .extend(offset + plain.len() as u64)
            .and_then(|()| set.write_chunk(offset, packed.as_is.into(), &packed.bytes));
        written.map_err(ArchiveError::hdf5(path))?;
        kept.push(packed.as_is);
    }
    drop((set, root));
    file.close().map_err(ArchiveError::hdf5(path))?;
    sync(path)?;
    let wrote = began.elapsed().as_secs_f64();
    let began = Instant::now();
    let file = hdf5::File::open_own(path).map_err(ArchiveError::hdf5(path))?;
    let places = file.root().and_then(|root| root.dataset("events")?.chunks()).map_err(ArchiveError::hdf5(path))?;
    drop(file);
    let file = File::open(path).map_err(ArchiveError::io(path, "open it"))?;
    let mut back = 0;
    for place in &places {
        let mut stored = vec![0; place.stored as usize];
        let read = std::os::unix::fs::FileExt::read_exact_at(&file, &mut stored, place.address);
        read.map_err(ArchiveError::io(path, "read it"))?;
        let plain = codec.unpack(&stored, place.mask != 0, chunk as usize);
        back += plain.ok_or_else(|| ArchiveError::damaged(path, "a chunk is not what was written"))?.len();
    }
    assert!(back >= text.len() && kept.len() == places.len(), "all came back");
    Ok((wrote, began.elapsed().as_secs_f64(), size(path)?))
}

fn seal(path: &Path, codec: Codec, consultations: u64, each: u64, bytes: usize) -> Result<Seal, ArchiveError> {
    let options = Options { codec, limit: u64::MAX, ..Options::default() };
    // Made before the clock runs, as much as fits in memory with ease.
    let made: Vec<_> = match each {
        ..=1_000 => (0..consultations).map(|number| sample::consultation(number, each, bytes)).collect(),
        _ => vec![sample::consultation(0, each, bytes)],
    };
    let began = Instant::now();
    let mut writer = Writer::create(path, options)?;
    for (stream, records) in &made {
        let mut records = records.iter().cloned().map(Ok::<_, std::convert::Infallible>);
        writer.add(stream, Link::origin(stream), &mut records)?;
    }
    let sealed = writer.finish()?;
    let seconds = began.elapsed().as_secs_f64();
    let id = &made[made.len() / 2].0.id;
    let mut one = Vec::new();
    for turn in 0..25 {
        let began = Instant::now();
        let records = Reader::open(path)?.read(id, each * turn / 25, 1)?;
        one.push(began.elapsed().as_secs_f64() * 1e3);
        assert_eq!(records.len(), 1, "it is there");
    }
    size(path)?;
    Ok(Seal {
        codec: codec.to_string(),
        consultations: made.len() as u64,
        events_each: each,
        mb_s: sealed.bytes_in as f64 / 1e6 / seconds,
        ratio: sealed.bytes_in as f64 / sealed.bytes_out as f64,
        one_event_ms: median(one),
    })
}
