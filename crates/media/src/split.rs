//! A film cut into parts at key frames, without encoding: each part plays by itself, and together they are the film.

use std::{
    ffi::OsString,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    call::Call,
    check::{ROUNDING, Read, compare_frames, compare_packets, earliest, sound_shift},
    error::MediaError,
    film::Kind,
    guard::Reach,
    order::MOST_PARTS,
    packets::Edits,
    place::{LIST, Place, Shape},
    plan::{self, Cutting},
    source::Source,
    timeline::span,
    transcode::{FINE_CLOCK, meter_words},
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
/// So many parts are written by one ffmpeg, which reads the film once for all of them.
const AT_ONCE: usize = 64;

/// One part as it is planned.
struct Cut {
    /// When it begins and ends, in seconds of the source's clock.
    from: f64,
    to: f64,
    /// Of each track, its packets.
    packets: Vec<Range<usize>>,
}

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
        let mut notes = Vec::new();
        let read = self.ingest(source, place.work(), &mut notes)?;
        let cuts = cuts(&read, order.segments, &mut notes)?;
        let made = place.work().join("parts");
        fs::create_dir(&made).map_err(MediaError::io(&made))?;
        let ending = ending(&read);
        let hidden = read.video().map_or(0, |(_, track)| track.hidden());
        if ending != "mp4" && hidden > 0 {
            return Err(MediaError::Hidden { file: read.film.source.file.clone(), frames: hidden });
        }
        for first in (0..cuts.len()).step_by(AT_ONCE) {
            self.cut_up(&read, &cuts, first, &made, ending)?;
        }
        let mut pieces = self.gather(&read, &cuts, &made, ending)?;
        pieces.notes = notes;
        let list = made.join(LIST);
        let json = serde_json::to_string_pretty(&pieces).expect("it is plain data") + "\n";
        fs::write(&list, json).map_err(MediaError::io(&list))?;
        place.commit(&made)?;
        Ok(pieces)
    }

    /// Writes the parts from `first` on.
    fn cut_up(&self, read: &Read, cuts: &[Cut], first: usize, made: &Path, ending: &str) -> Result<(), MediaError> {
        let mut arguments = meter_words();
        arguments.extend(read.film.source.input(&self.limits));
        for (number, cut) in cuts.iter().enumerate().skip(first).take(AT_ONCE) {
            let mut bitstream = Vec::new();
            for (track, (stream, _)) in read.tracks().into_iter().enumerate() {
                arguments.extend(["-map".into(), format!("0:{}", stream.index).into()]);
                let filters = Edits::keep(&cut.packets[track]).filters().into_iter();
                bitstream.extend(filters.flat_map(|filters| [format!("-bsf:{track}").into(), OsString::from(filters)]));
            }
            // Also what comes before the first key frame: nothing is lost by cutting.
            let copy = ["-c", "copy", "-copyinkf", "-map_metadata", "-1", "-map_chapters", "-1"];
            arguments.extend(copy.map(OsString::from));
            arguments.extend(bitstream);
            let note = PartNote::new(read, cut);
            arguments.extend(["-metadata".into(), format!("comment={note}").into()]);
            arguments.extend(["-output_ts_offset".into(), format!("{:.6}", -cut.from).into()]);
            if ending == "mp4" {
                // Decoders begin before the first frame is shown; an edit says so, instead of all being later.
                arguments.extend(["-avoid_negative_ts", "disabled"].map(OsString::from));
                arguments.extend(FINE_CLOCK.map(OsString::from));
            }
            arguments.extend(["-f", if ending == "mp4" { "mp4" } else { "matroska" }].map(OsString::from));
            // Relative, for what is before it might hold a `%`.
            arguments.push(format!("file:{}", name(number, ending)).into());
        }
        let reach = Reach { reads: vec![read.film.source.path.clone()], writes: vec![made.to_owned()], devices: false };
        let what = "cutting".to_owned();
        let call = Call { what, program: Program::Ffmpeg, arguments, reach, folder: Some(made), abort: None };
        self.copy(call, "cutting", &read.film)
    }

    /// Looks at all that was made, and whether together it is what it was made from.
    fn gather(&self, read: &Read, cuts: &[Cut], made: &Path, ending: &str) -> Result<Pieces, MediaError> {
        let mut segments: Vec<Piece> = Vec::new();
        for (number, cut) in cuts.iter().enumerate() {
            let file = name(number, ending);
            let source = Source::open(&made.join(&file), &self.limits)?;
            let piece = self.read(Source { file: file.clone(), ..source }, "checking")?;
            compare_part(read, cut, &piece)?;
            if read.video().is_some_and(|(_, track)| track.untimed) {
                let times = self.frame_times(read)?.into_iter().map(|time| time - cut.from);
                compare_frames(&times.collect::<Vec<_>>(), &self.frame_times(&piece)?)?;
            }
            segments.push(Piece {
                file,
                start: cut.from - cuts[0].from,
                seconds: cut.to - cut.from,
                frames: piece.video().map_or(0, |(_, track)| track.packets.len() as u64),
                bytes: piece.film.source.bytes,
            });
        }
        let frames = read.video().map_or(0, |(_, track)| track.packets.len() as u64);
        let all = segments.iter().map(|piece| piece.frames).sum();
        same("the number of frames of all parts", frames, all)?;
        let seconds = cuts.last().map_or(0.0, |last| last.to - cuts[0].from);
        let source = read.film.source.file.clone();
        Ok(Pieces { source, seconds, frames, segments, notes: Vec::new() })
    }
}

fn name(number: usize, ending: &str) -> String {
    format!("segment_{number}.{ending}")
}

/// What a part says of itself in its comment: for how long its last frame is shown, no container tells exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PartNote {
    /// Packets of its first track, by which it is known that it was not changed.
    packets: usize,
    /// How long it lasts.
    pub(crate) seconds: f64,
    /// How long after its beginning the first packet is presented; writers of containers may move all of them.
    pub(crate) lead: f64,
}

impl PartNote {
    /// What the part that `cut` is should say.
    fn new(read: &Read, cut: &Cut) -> Self {
        let range = cut.packets[0].clone();
        let first = read.tracks().first().and_then(|(stream, track)| {
            let shown = track.packets[range.clone()].iter().filter(|packet| packet.shown);
            Some(stream.time_base.seconds(shown.filter_map(|packet| packet.pts).min()?))
        });
        Self {
            packets: range.len(),
            seconds: cut.to - cut.from,
            lead: first.map_or(0.0, |first| first - cut.from).max(0.0),
        }
    }

    /// What the film that `read` is says, if that can be true.
    pub(crate) fn of(read: &Read) -> Option<Self> {
        let packets = read.tracks().first().map(|(_, track)| track.packets.len());
        let valid = |note: &Self| {
            let times = note.seconds > 0.0 && note.seconds.is_finite() && note.lead.is_finite();
            times && Some(note.packets) == packets
        };
        read.film.part.filter(valid)
    }
}

/// How a part's comment begins.
const NOTE: &str = "cut by caudal media split";

impl std::fmt::Display for PartNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{NOTE}, {} packets, {:.9} s, begins {:.9} s before", self.packets, self.seconds, self.lead)
    }
}

impl std::str::FromStr for PartNote {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut fields = text.strip_prefix(NOTE).ok_or(())?.split(", ").skip(1);
        let mut field = |unit: &str| fields.next().and_then(|field| field.strip_suffix(unit));
        let packets = field(" packets").and_then(|number| number.parse().ok()).ok_or(())?;
        let seconds = field(" s").and_then(|number| number.parse().ok()).ok_or(())?;
        let lead = field(" s before").and_then(|field| field.strip_prefix("begins ")?.parse().ok()).ok_or(())?;
        Ok(Self { packets, seconds, lead })
    }
}

/// A part has its packets, each at its time, and says how long it lasts.
fn compare_part(read: &Read, cut: &Cut, piece: &Read) -> Result<(), MediaError> {
    let (before, after) = (read.tracks(), piece.tracks());
    let file = &piece.film.source.file;
    same(&format!("the number of tracks of {file}"), before.len() as u64, after.len() as u64)?;
    let mut moved = None;
    for (place, ((stream, track), (out_stream, out))) in before.iter().zip(&after).enumerate() {
        let packets = &track.packets[cut.packets[place].clone()];
        let expected = packets.iter().map(|packet| Some(stream.time_base.seconds(packet.pts?) - cut.from));
        let expected: Vec<Option<f64>> = expected.collect();
        let found = out.times(out_stream);
        // One container writes times before 0, another moves all tracks.
        let moved = *moved.get_or_insert(earliest(&found) - earliest(&expected));
        let moved = sound_shift(&piece.film, out_stream, &expected, &found, moved);
        compare_packets(&format!("stream {place} of {file}"), expected, &found, moved)?;
        if place == 0 && stream.kind == Kind::Video {
            let shown = packets.iter().filter(|packet| packet.shown).count();
            same(&format!("the number of frames shown by {file}"), shown as u64, out.shown)?;
        }
    }
    let (lasts, told) = (cut.to - cut.from, PartNote::of(piece).map_or(0.0, |note| note.seconds));
    if (lasts - told).abs() > ROUNDING {
        let what = format!("how long {file} says that it lasts");
        return Err(differs(&what, format!("{lasts:.4} s"), format!("{told:.4} s")));
    }
    Ok(())
}

fn differs(what: &str, expected: String, found: String) -> MediaError {
    MediaError::Mismatch { what: what.to_owned(), expected, found }
}

fn same(what: &str, expected: u64, found: u64) -> Result<(), MediaError> {
    (expected == found).then_some(()).ok_or_else(|| differs(what, expected.to_string(), found.to_string()))
}

/// Where the film is cut. Sound without video can be cut anywhere.
fn cuts(read: &Read, wanted: usize, notes: &mut Vec<String>) -> Result<Vec<Cut>, MediaError> {
    let lacks = || MediaError::Lacks { file: read.film.source.file.clone(), lacks: "video or sound" };
    let (from, to) = span(&read.film, &read.timeline, |_| true).ok_or_else(lacks)?;
    let mut begins = vec![(from, 0)];
    let mut why = "there are no more packets";
    match read.video() {
        Some((_, track)) if track.untimed => why = "frames do not say when they are shown",
        Some((stream, track)) => {
            why = "there are no more key frames";
            let parts = plan::cut(&track.frames(), wanted, Cutting::Copying).unwrap_or_default();
            let seconds = |ticks| stream.time_base.seconds(ticks);
            begins.extend(parts.iter().skip(1).map(|part| (seconds(part.from), part.packet as usize)));
        }
        None => {
            let (stream, track) = read.tracks().into_iter().next().ok_or_else(lacks)?;
            let times = track.times(stream);
            for part in 1..wanted {
                let ideal = from + (to - from) * part as f64 / wanted as f64;
                let packet = times.iter().position(|time| time.is_some_and(|time| time >= ideal));
                let later = packet.filter(|packet| *packet > begins[begins.len() - 1].1);
                begins.extend(later.and_then(|packet| Some((times[packet]?, packet))));
            }
        }
    }
    let planned = begins.len();
    let cuts = with_all_tracks(read, &begins, to);
    if cuts.len() < planned {
        why = "there is no more sound";
    }
    if cuts.len() < wanted {
        notes.push(format!("{} of {wanted} segments: {why} at which the film could be cut", cuts.len()));
    }
    Ok(cuts)
}

/// Parts that begin when and with which packet of the first track `begins` says, but none that lacks a track: what
/// would be one is part of the one before it.
fn with_all_tracks(read: &Read, begins: &[(f64, usize)], to: f64) -> Vec<Cut> {
    let tracks = read.tracks();
    let ends: Vec<usize> = tracks.iter().map(|(_, track)| track.packets.len()).collect();
    let first_after = |track: usize, from: f64, before: usize| {
        let (stream, track) = tracks[track];
        let is_after = |ticks: i64| stream.time_base.seconds(ticks) > from - ROUNDING / 4.0;
        let later = track.packets[before..].iter().position(|packet| packet.pts.is_some_and(is_after));
        later.map_or(track.packets.len(), |later| before + later)
    };
    let mut starts = vec![(begins[0].0, vec![0; tracks.len()])];
    for (from, packet) in &begins[1..] {
        let before = &starts[starts.len() - 1].1;
        let others = (1..tracks.len()).map(|track| first_after(track, *from, before[track]));
        let next: Vec<usize> = std::iter::once(*packet).chain(others).collect();
        if next.iter().zip(before).zip(&ends).all(|((next, before), end)| before < next && next < end) {
            starts.push((*from, next));
        }
    }
    let next = |place: usize| starts.get(place + 1).map_or((to, &ends), |(from, packets)| (*from, packets));
    let cut = |(place, (from, packets)): (usize, &(f64, Vec<usize>))| {
        let (to, ends) = next(place);
        let packets = packets.iter().zip(ends).map(|(from, to)| *from..*to).collect();
        Cut { from: *from, to, packets }
    };
    starts.iter().enumerate().map(cut).collect()
}

fn ending(read: &Read) -> &'static str {
    if read.tracks().iter().all(|(stream, _)| IN_MP4.contains(&stream.codec.as_str())) { "mp4" } else { "mkv" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_known_by_its_comment() {
        let note = PartNote { packets: 25, seconds: 1.001, lead: 0.25 };
        assert_eq!(note.to_string().parse(), Ok(note));
        for text in
            ["", "holiday", NOTE, &format!("{NOTE}, 25 packets"), &format!("{NOTE}, x packets, 1 s, begins 0 s before")]
        {
            assert!(text.parse::<PartNote>().is_err(), "{text}");
        }
    }
}
