//! Whether a result is what its source is: frames, their times, sound, and how long it plays.

use std::ffi::OsString;

use crate::{
    call::{Call, Meter},
    error::MediaError,
    film::{Film, Stream},
    guard::Reach,
    source::Source,
    timeline::{Timeline, Track, span},
    workshop::{Program, Workshop},
};

/// How far times may be off, in seconds: Matroska's are whole milliseconds.
const ROUNDING: f64 = 0.002;
/// How much longer or shorter sound may be: encoders pad its last frame, and begin before it.
const SOUND: f64 = 0.1;

/// A film with all its packets.
pub(crate) struct Read {
    pub(crate) film: Film,
    pub(crate) timeline: Timeline,
}

impl Read {
    fn track(&self, stream: &Stream) -> Track {
        self.timeline.get(&stream.index).cloned().unwrap_or_default()
    }

    pub(crate) fn video(&self) -> Option<(&Stream, Track)> {
        self.film.video().map(|stream| (stream, self.track(stream)))
    }

    pub(crate) fn audio(&self) -> Vec<(&Stream, Track)> {
        self.film.audio().map(|stream| (stream, self.track(stream))).collect()
    }
}

/// What a result's stream should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// Encoded anew.
    Encoded,
    /// Taken over as it was.
    Copied,
    /// Left out.
    Dropped,
}

/// What was found to be as it should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Checked {
    /// Frames of the video.
    pub(crate) frames: u64,
    /// How long the result plays.
    pub(crate) seconds: f64,
    /// Whether the source was decoded to count its frames.
    pub(crate) counted: bool,
}

fn mismatch(what: &str, expected: impl ToString, found: impl ToString) -> MediaError {
    MediaError::Mismatch { what: what.to_owned(), expected: expected.to_string(), found: found.to_string() }
}

impl Workshop<'_> {
    /// The film in `source` with all its packets.
    pub(crate) fn read(&self, source: Source, doing: &'static str) -> Result<Read, MediaError> {
        let film = self.look(source)?;
        let timeline = self.timeline(&film, doing)?;
        Ok(Read { film, timeline })
    }

    /// Compares `result` with what it was made from.
    pub(crate) fn compare(
        &self,
        source: &Read,
        result: &Read,
        video: Made,
        audio: Made,
        threads: usize,
    ) -> Result<Checked, MediaError> {
        let mut counted = false;
        let mut frames = 0;
        if video != Made::Dropped
            && let Some((stream, track)) = source.video()
        {
            let (out_stream, out) = result.video().ok_or_else(|| mismatch("the number of videos", 1, 0))?;
            frames = out.packets;
            let expected = if video == Made::Copied { track.packets } else { track.shown };
            if frames != expected {
                // Packets that cannot be decoded are no frames: what a decoder makes of the source decides.
                let decoded =
                    if video == Made::Encoded { self.decoded(&source.film, stream, threads)? } else { expected };
                if frames != decoded {
                    return Err(mismatch("the number of frames", decoded, frames));
                }
                counted = true;
            } else if !track.untimed {
                compare_times((stream, &track), (out_stream, &out))?;
            }
        }
        if audio != Made::Dropped {
            compare_sound(source, result, audio)?;
        }
        let seconds = compare_lengths(source, result, video, audio)?;
        Ok(Checked { frames, seconds, counted })
    }

    /// How many frames a decoder makes of `stream`.
    fn decoded(&self, film: &Film, stream: &Stream, threads: usize) -> Result<u64, MediaError> {
        let mut arguments: Vec<OsString> =
            ["-hide_banner", "-v", "error", "-nostats", "-progress", "pipe:1", "-threads", &threads.to_string()]
                .map(OsString::from)
                .into();
        arguments.extend(film.source.input(&self.limits));
        arguments.extend(["-map", &format!("0:{}", stream.index), "-fps_mode", "passthrough"].map(OsString::from));
        arguments.extend(["-f", "null", "-"].map(OsString::from));
        let call = Call {
            what: format!("counting the frames of {}", film.source.file),
            program: Program::Ffmpeg,
            arguments,
            reach: Reach { reads: vec![film.source.path.clone()], ..Reach::default() },
            folder: None,
            abort: None,
        };
        let (mut meter, of) = (Meter::default(), film.seconds.unwrap_or(0.0));
        call.run(self, &mut |line| {
            let heard = meter.hear(line);
            self.tell("counting", (meter.micros as f64 / 1e6).clamp(0.0, of), of, meter.frames);
            heard
        })?;
        Ok(meter.frames)
    }
}

/// Each frame is shown when it was, counted from the first.
fn compare_times(source: (&Stream, &Track), result: (&Stream, &Track)) -> Result<(), MediaError> {
    let (times, out) = (source.1.times(), result.1.times());
    if times.len() != out.len() {
        return Ok(());
    }
    let since =
        |stream: &Stream, times: &[i64], place: usize| stream.time_base.seconds(times[place].saturating_sub(times[0]));
    for place in 0..times.len() {
        let (expected, found) = (since(source.0, &times, place), since(result.0, &out, place));
        if (expected - found).abs() > ROUNDING {
            let what = format!("the time of frame {place}");
            return Err(mismatch(&what, format!("{expected:.4} s"), format!("{found:.4} s")));
        }
    }
    Ok(())
}

/// Each track of sound is there, as long as it was and where it was beside the video.
fn compare_sound(source: &Read, result: &Read, made: Made) -> Result<(), MediaError> {
    let (before, after) = (source.audio(), result.audio());
    if before.len() != after.len() {
        return Err(mismatch("the number of tracks of sound", before.len(), after.len()));
    }
    for (place, ((stream, track), (out_stream, out))) in before.iter().zip(&after).enumerate() {
        if made == Made::Copied {
            if track.packets != out.packets {
                return Err(mismatch(&format!("the packets of sound {place}"), track.packets, out.packets));
            }
            continue;
        }
        let (from, to) = ends(stream, track);
        let (out_from, out_to) = ends(out_stream, out);
        if ((to - from) - (out_to - out_from)).abs() > SOUND {
            let what = format!("the length of sound {place}");
            return Err(mismatch(&what, format!("{:.3} s", to - from), format!("{:.3} s", out_to - out_from)));
        }
        if let (Some((video, shown)), Some((out_video, out_shown))) = (source.video(), result.video()) {
            let (beside, out_beside) = (from - ends(video, &shown).0, out_from - ends(out_video, &out_shown).0);
            if (beside - out_beside).abs() > SOUND / 2.0 {
                let what = format!("the time between the video's beginning and that of sound {place}");
                return Err(mismatch(&what, format!("{beside:.3} s"), format!("{out_beside:.3} s")));
            }
        }
    }
    Ok(())
}

fn ends(stream: &Stream, track: &Track) -> (f64, f64) {
    let seconds = |ticks: Option<i64>| stream.time_base.seconds(ticks.unwrap_or(0));
    (seconds(track.first), seconds(track.end))
}

/// The whole plays as long as what was taken of the source, within two frames.
fn compare_lengths(source: &Read, result: &Read, video: Made, audio: Made) -> Result<f64, MediaError> {
    use crate::film::Kind;
    let first_video = source.film.video().map(|stream| stream.index);
    let taken = |stream: &Stream| match stream.kind {
        Kind::Video => video != Made::Dropped && Some(stream.index) == first_video,
        _ => audio != Made::Dropped,
    };
    let length = |span: Option<(f64, f64)>| span.map_or(0.0, |(from, to)| to - from);
    let expected = length(span(&source.film, &source.timeline, taken));
    let found = length(span(&result.film, &result.timeline, |_| true));
    let frame = source.video().map_or(0.0, |(stream, track)| {
        let (from, to) = ends(stream, &track);
        (to - from) / track.shown.max(1) as f64
    });
    let sound = if audio == Made::Dropped || source.audio().is_empty() { 0.0 } else { SOUND };
    if (expected - found).abs() > 2.0 * frame + sound + ROUNDING {
        return Err(mismatch("the length", format!("{expected:.3} s"), format!("{found:.3} s")));
    }
    Ok(found)
}
