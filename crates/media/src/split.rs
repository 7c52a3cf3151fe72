//! A film cut into parts at key frames, without encoding: each part plays by itself, and together they are the film.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    call::{Call, Meter},
    check::Read,
    error::MediaError,
    guard::Reach,
    order::MOST_PARTS,
    place::{LIST, Place, Shape},
    plan::{self, Cutting, Part},
    source::Source,
    timeline::span,
    transcode::meter_words,
    workshop::{Program, Workshop},
};

/// What should be cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitOrder {
    /// The film.
    pub input: PathBuf,
    /// The folder that is made.
    pub folder: PathBuf,
    /// Whether a folder of parts that is there is replaced.
    pub replace: bool,
    /// Parts, if it has as many key frames.
    pub segments: usize,
}

/// What was cut; also what `segments.json` says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pieces {
    /// The film's name.
    pub source: String,
    /// How long it plays.
    pub seconds: f64,
    /// Frames of its video.
    pub frames: u64,
    /// Its parts, in order.
    pub segments: Vec<Piece>,
    /// What people should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Piece {
    /// Its name within the folder.
    pub file: String,
    /// When it begins, in seconds from the film's beginning.
    pub start: f64,
    /// How long it plays.
    pub seconds: f64,
    /// Frames of its video.
    pub frames: u64,
    /// Its size.
    pub bytes: u64,
}

/// Codecs that MP4 holds and players know there; films with others are cut into Matroska.
const IN_MP4: [&str; 14] = [
    "h264",
    "hevc",
    "av1",
    "vp9",
    "mpeg4",
    "mpeg2video",
    "mpeg1video",
    "mjpeg",
    "aac",
    "mp3",
    "mp2",
    "ac3",
    "eac3",
    "opus",
];
/// A number of a frame that no film reaches: "do not cut".
const NEVER: &str = "2147483646";

impl Workshop<'_> {
    /// Cuts a film as `order` says.
    ///
    /// # Errors
    /// If the order, the film, ffmpeg or the machine do not allow it, or the parts are not what the source is.
    pub fn split(&self, order: &SplitOrder) -> Result<Pieces, MediaError> {
        if !(1..=MOST_PARTS).contains(&order.segments) {
            return Err(MediaError::Order(format!("--segments is a number between 1 and {MOST_PARTS}")));
        }
        let source = Source::open(&order.input, &self.limits)?;
        let place = Place::prepare(&order.folder, Shape::Folder, order.replace, &[&source.path])?;
        let film = self.probe(&order.input)?;
        let read = Read { timeline: self.timeline(&film, "reading")?, film };
        let mut notes = Vec::new();
        let (parts, cuts) = cuts(&read, order.segments, &mut notes)?;
        let made = place.work().join("parts");
        fs::create_dir(&made).map_err(MediaError::io(&made))?;
        let ending = ending(&read);
        self.cut_up(&read, &cuts, &made, ending)?;
        let mut pieces = self.gather(&read, &parts, &made, ending)?;
        pieces.notes = notes;
        let list = made.join(LIST);
        let json = serde_json::to_string_pretty(&pieces).expect("it is plain data") + "\n";
        fs::write(&list, json).map_err(MediaError::io(&list))?;
        place.commit(&made)?;
        Ok(pieces)
    }

    fn cut_up(&self, read: &Read, cuts: &[OsString], made: &Path, ending: &str) -> Result<(), MediaError> {
        let mut arguments = meter_words();
        arguments.retain(|word| word != "-copyts");
        arguments.extend(read.film.source.input(&self.limits));
        for stream in read.film.video().into_iter().chain(read.film.audio()) {
            arguments.extend(["-map".into(), format!("0:{}", stream.index).into()]);
        }
        // Also what comes before the first key frame: nothing is lost by cutting.
        arguments.extend(["-c", "copy", "-copyinkf", "-map_metadata", "-1", "-map_chapters", "-1"].map(OsString::from));
        if ending == "mp4" {
            // Decoders begin before the first frame is shown; an edit says so, instead of all being later.
            arguments.extend(["-avoid_negative_ts", "disabled"].map(OsString::from));
        }
        let writer = if ending == "mp4" { "mp4" } else { "matroska" };
        arguments.extend(["-f", "segment", "-segment_format", writer, "-reset_timestamps", "1"].map(OsString::from));
        arguments.extend_from_slice(cuts);
        // Relative, for what is before it might hold a `%`.
        arguments.push(format!("file:segment_%d.{ending}").into());
        let reach = Reach { reads: vec![read.film.source.path.clone()], writes: vec![made.to_owned()], devices: false };
        let what = "cutting".to_owned();
        let call = Call { what, program: Program::Ffmpeg, arguments, reach, folder: Some(made), abort: None };
        let (mut meter, of) = (Meter::default(), read.film.seconds.unwrap_or(0.0));
        call.run(self, &mut |line| {
            let heard = meter.hear(line);
            self.tell("cutting", (meter.micros as f64 / 1e6).clamp(0.0, of), of, meter.frames);
            heard
        })?;
        Ok(())
    }

    /// Looks at all that was made, and whether together it is what it was made from.
    fn gather(&self, read: &Read, parts: &[Part], made: &Path, ending: &str) -> Result<Pieces, MediaError> {
        let (base, end) = span(&read.film, &read.timeline, |_| true).unwrap_or_default();
        let (mut segments, mut videos, mut sounds): (Vec<Piece>, u64, Vec<u64>) = (Vec::new(), 0, Vec::new());
        loop {
            let file = format!("segment_{}.{ending}", segments.len());
            let path = made.join(&file);
            if !path.is_file() {
                break;
            }
            let piece = self.read(Source::open(&path, &self.limits)?, "checking")?;
            let frames = piece.video().map_or(0, |(_, track)| track.packets);
            videos += frames;
            sounds.resize(read.film.audio().count(), 0);
            for (sum, (_, track)) in sounds.iter_mut().zip(piece.audio()) {
                *sum += track.packets;
            }
            let (from, to) = span(&piece.film, &piece.timeline, |_| true).unwrap_or_default();
            let start = match (parts.get(segments.len()), read.film.video(), segments.last()) {
                (_, _, None) => 0.0,
                (Some(part), Some(stream), _) => stream.time_base.seconds(part.from) - base,
                (_, _, Some(last)) => last.start + last.seconds,
            };
            segments.push(Piece { file, start, seconds: to - from, frames, bytes: piece.film.source.bytes });
        }
        let expected = read.video().map_or(0, |(_, track)| track.packets);
        same("the number of frames of all parts", expected, videos)?;
        if !parts.is_empty() {
            same("the number of parts", parts.len() as u64, segments.len() as u64)?;
        }
        for ((_, track), sum) in read.audio().iter().zip(sounds) {
            same("the number of packets of sound", track.packets, sum)?;
        }
        let source = read.film.source.file.clone();
        Ok(Pieces { source, seconds: end - base, frames: expected, segments, notes: Vec::new() })
    }
}

fn same(what: &str, expected: u64, found: u64) -> Result<(), MediaError> {
    let mismatch =
        || MediaError::Mismatch { what: what.to_owned(), expected: expected.to_string(), found: found.to_string() };
    (expected == found).then_some(()).ok_or_else(mismatch)
}

/// Where the film is cut, as parts and as ffmpeg is told. Sound without video can be cut anywhere.
fn cuts(read: &Read, wanted: usize, notes: &mut Vec<String>) -> Result<(Vec<Part>, Vec<OsString>), MediaError> {
    let words = |flag: &str, value: String| vec![flag.into(), value.into()];
    let list = |values: Vec<String>| if values.is_empty() { NEVER.to_owned() } else { values.join(",") };
    let lacks = || MediaError::Lacks { file: read.film.source.file.clone(), lacks: "video or sound" };
    if let Some((_, track)) = read.video() {
        let wanted_here = if track.untimed { 1 } else { wanted };
        let parts = plan::cut(&track.frames, wanted_here, Cutting::Copying).unwrap_or_default();
        if parts.len() < wanted {
            let why =
                if track.untimed { "frames do not say when they are shown" } else { "there are no more key frames" };
            notes.push(format!("{} of {wanted} segments: {why} at which the film could be cut", parts.len().max(1)));
        }
        let packets = parts.iter().skip(1).map(|part| part.packet.to_string()).collect();
        return Ok((parts, words("-segment_frames", list(packets))));
    }
    let (from, to) = span(&read.film, &read.timeline, |_| true).ok_or_else(lacks)?;
    let times = (1..wanted).map(|place| format!("{:.6}", (to - from) * place as f64 / wanted as f64)).collect();
    Ok((Vec::new(), words("-segment_times", list(times))))
}

fn ending(read: &Read) -> &'static str {
    let mut taken = read.film.video().into_iter().chain(read.film.audio());
    if taken.all(|stream| IN_MP4.contains(&stream.codec.as_str())) { "mp4" } else { "mkv" }
}
