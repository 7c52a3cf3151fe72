//! A film taken in: whole, with all its packets, on one clock that does not run back.
//!
//! Transport and program streams may be put together byte by byte, or come from a device that was started again: then
//! their time stamps run back. Such a file is copied first, its recordings one after the other; what is made of it is made
//! from that copy.

use std::{ffi::OsString, ops::Range, path::Path};

use crate::{
    call::{Call, Meter},
    check::{ROUNDING, Read, compare_packets},
    error::MediaError,
    film::{Film, Stream},
    guard::Reach,
    losses,
    packets::Edits,
    sequence::{Placed, TrackView, arrange},
    sniff::Container,
    source::{Source, file_url},
    timeline::{Packet, Track},
    transcode::meter_words,
    workshop::{Program, Workshop},
};

/// Files whose time stamps run back more often are damaged, and an argument of ffmpeg has room for about as many.
const MOST_RESTARTS: usize = 500;

/// Codecs whose packets hold as many samples each.
const EVEN: [&str; 6] = ["aac", "mp3", "mp2", "ac3", "eac3", "opus"];

/// The track of `stream` as it counts among others.
pub(crate) fn track_view<'a>(stream: &Stream, track: &Track, packets: &'a [Packet]) -> TrackView<'a> {
    TrackView {
        time_base: stream.time_base,
        packets,
        first: track.first,
        end: track.end.unwrap_or(0),
        even: EVEN.contains(&stream.codec.as_str()),
    }
}

impl Workshop<'_> {
    /// Reads `source` with all its packets; `notes` say what of it is not taken. Where its time stamps run back, a copy on
    /// one clock is made in `work` and read instead.
    pub(crate) fn ingest(&self, source: Source, work: &Path, notes: &mut Vec<String>) -> Result<Read, MediaError> {
        let film = self.look(source)?;
        self.check_limits(&film)?;
        notes.extend(losses::left_out(&film));
        match &film.torn {
            // These are cut off anywhere by their nature.
            Some(torn) if film.source.container == Container::MpegTs => {
                notes.push(format!("the end is missing: {torn}"));
            }
            Some(torn) => return Err(MediaError::Torn { file: film.source.file.clone(), missing: torn.clone() }),
            None => {}
        }
        let read = Read { timeline: self.timeline(&film, "reading")?, film };
        if let Some(missing) = missing_samples(&read) {
            return Err(MediaError::Torn { file: read.film.source.file, missing });
        }
        check_for_packets(&read, notes)?;
        let Some((stream, track)) = read.tracks().into_iter().find(|(_, track)| !track.restarts.is_empty()) else {
            return Ok(read);
        };
        let (_, packet) = track.restarts[0];
        let can_be_copied = matches!(read.film.source.container, Container::MpegTs | Container::MpegPs);
        if !can_be_copied || track.restarts.len() > MOST_RESTARTS {
            let at = track.packets[..packet].iter().rev().find_map(|packet| packet.pts).unwrap_or(0);
            let (file, seconds) = (read.film.source.file.clone(), stream.time_base.seconds(at));
            return Err(MediaError::RunsBack { file, stream: stream.index, packet, seconds });
        }
        self.make_monotonic(&read, work, notes)
    }

    fn make_monotonic(&self, read: &Read, work: &Path, notes: &mut Vec<String>) -> Result<Read, MediaError> {
        let recordings = Recordings::of(read);
        let placed = arrange(&recordings.views(), &[], read.film.video().is_none(), false);
        let zero = placed[0].origin - placed[0].start;
        let shift = |placed: &Placed| placed.start - placed.origin + zero;
        let mut arguments = meter_words();
        arguments.extend(read.film.source.input(&self.limits));
        let mut bitstream = Vec::new();
        for (track, (stream, _, ranges)) in recordings.tracks.iter().enumerate() {
            arguments.extend(["-map".into(), format!("0:{}", stream.index).into()]);
            let dropped = ranges.iter().zip(&placed);
            let dropped = dropped.flat_map(|(range, placed)| placed.dropped[track].iter().map(|n| range.start + n));
            let moves = ranges.iter().zip(&placed).filter(|(range, _)| !range.is_empty());
            let moves = moves.map(|(range, placed)| (range.start, shift(placed))).collect();
            let edits = Edits { moves, ..Edits::without(dropped) };
            let filters = edits.filters().into_iter();
            bitstream.extend(filters.flat_map(|filters| [format!("-bsf:{track}").into(), OsString::from(filters)]));
        }
        arguments.extend(["-c", "copy", "-copyinkf"].map(OsString::from));
        arguments.extend(bitstream);
        arguments.extend(["-mpegts_copyts", "1", "-muxdelay", "0", "-f", "mpegts"].map(OsString::from));
        let made = work.join("source.ts");
        arguments.push(file_url(&made));
        let reach = Reach { reads: vec![read.film.source.path.clone()], writes: vec![work.to_owned()], devices: false };
        let what = format!("putting {} on one clock", read.film.source.file);
        let call = Call { what, program: Program::Ffmpeg, arguments, reach, folder: None, abort: None };
        self.copy(call, "mending", &read.film)?;
        let mut source = Source::open(&made, &self.limits)?;
        source.file.clone_from(&read.film.source.file);
        let mended = self.read(source, "checking")?;
        recordings.compare(&placed, shift, &mended)?;
        let starts: Vec<String> = placed[1..].iter().map(|placed| format!("{:.3} s", placed.start)).collect();
        notes.push(format!(
            "time stamps run back: {} recordings were put one after the other, at {}",
            placed.len(),
            starts.join(", ")
        ));
        Ok(mended)
    }

    /// Runs a `call` that copies, and tells how far it is.
    pub(crate) fn copy(&self, call: Call, doing: &'static str, film: &Film) -> Result<(), MediaError> {
        let (mut meter, of) = (Meter::default(), film.seconds.unwrap_or(0.0));
        call.run(self, &mut |line| {
            let heard = meter.hear(line);
            self.tell(doing, (meter.micros as f64 / 1e6).clamp(0.0, of), of, meter.frames);
            heard
        })?;
        Ok(())
    }
}

/// A video without packets is a broken one; sound without them is left out.
fn check_for_packets(read: &Read, notes: &mut Vec<String>) -> Result<(), MediaError> {
    if read.film.video().is_some() && read.video().is_none() {
        let said = "its video has no packets".to_owned();
        return Err(MediaError::Broken { file: read.film.source.file.clone(), said });
    }
    let taken = read.audio();
    let empty = read.film.audio().filter(|stream| taken.iter().all(|(taken, _)| taken.index != stream.index));
    notes.extend(empty.map(|stream| format!("the sound of stream {} has no packets and was left out", stream.index)));
    Ok(())
}

/// What is missing of a FLAC, whose head tells its samples but not its bytes.
fn missing_samples(read: &Read) -> Option<String> {
    let tracks = read.tracks();
    let (stream, track) = tracks.first().filter(|_| read.film.source.container == Container::Flac)?;
    let last = track.packets.last()?;
    let there = stream.time_base.seconds(last.pts?.saturating_add(i64::from(last.duration)));
    let promised = stream.time_base.seconds(stream.told_end?);
    (promised - there > ROUNDING).then(|| format!("it has {there:.3} of {promised:.3} s"))
}

/// The recordings in a file: of each track, which packets belong to which.
struct Recordings<'a> {
    tracks: Vec<(&'a Stream, &'a Track, Vec<Range<usize>>)>,
    count: usize,
}

impl<'a> Recordings<'a> {
    fn of(read: &'a Read) -> Self {
        let count = 1 + read.tracks().iter().flat_map(|(_, track)| &track.restarts).map(|(n, _)| *n).max().unwrap_or(0);
        let ranges = |track: &Track| {
            let begins = |recording: usize| {
                let later = track.restarts.iter().find(|(number, _)| *number >= recording);
                if recording == 0 { 0 } else { later.map_or(track.packets.len(), |(_, packet)| *packet) }
            };
            (0..count).map(|recording| begins(recording)..begins(recording + 1)).collect()
        };
        Self {
            tracks: read.tracks().into_iter().map(|(stream, track)| (stream, track, ranges(track))).collect(),
            count,
        }
    }

    fn views(&self) -> Vec<Vec<TrackView<'a>>> {
        let view_of = |recording: usize, (stream, track, ranges): &(&'a Stream, &'a Track, Vec<Range<usize>>)| {
            let packets = &track.packets[ranges[recording].clone()];
            let first = packets.iter().filter(|packet| packet.shown).filter_map(|packet| packet.pts).min();
            let ends = packets.iter().filter_map(|packet| Some(packet.pts?.saturating_add(i64::from(packet.duration))));
            let played = packets.iter().map(|packet| i64::from(packet.duration)).sum::<i64>();
            // Not every packet need say when it is presented.
            let end = if track.untimed { first.map(|first| first.saturating_add(played)) } else { None };
            TrackView { first, end: end.max(ends.max()).unwrap_or(0), ..track_view(stream, track, packets) }
        };
        (0..self.count).map(|recording| self.tracks.iter().map(|track| view_of(recording, track)).collect()).collect()
    }

    /// All packets that should be are in the copy, each at its time.
    fn compare(&self, placed: &[Placed], shift: impl Fn(&Placed) -> f64, mended: &Read) -> Result<(), MediaError> {
        for (track, ((stream, before, ranges), (out_stream, out))) in
            self.tracks.iter().zip(mended.tracks()).enumerate()
        {
            let expected = ranges.iter().zip(placed).flat_map(|(range, placed)| {
                let kept = before.packets[range.clone()].iter().enumerate();
                let kept = kept.filter(|(n, _)| !placed.dropped[track].contains(n));
                kept.map(|(_, packet)| Some(stream.time_base.seconds(packet.pts?) + shift(placed)))
            });
            compare_packets(&format!("stream {track}"), expected.collect(), &out.times(out_stream), 0.0)?;
        }
        Ok(())
    }
}
