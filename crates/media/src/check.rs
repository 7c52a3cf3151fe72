//! Whether a result is what its source is: packets and frames, their times, sound beside the picture, and how long it
//! plays. All times are compared on one clock, whose beginning alone may differ.

use std::ffi::OsString;

use caudal_types::available_cpus;

use crate::{
    call::{Call, Heard},
    error::MediaError,
    film::{Film, Kind, Ratio, Stream},
    guard::Reach,
    sniff::Container,
    source::Source,
    timeline::{Timeline, Track, span},
    workshop::{Program, Workshop},
};

/// How far times may be off, in seconds: Matroska's are whole milliseconds.
pub(crate) const ROUNDING: f64 = 0.002;
/// How much longer or shorter encoded sound may be: encoders pad its last frame, and begin before it.
const SOUND: f64 = 0.1;

/// A film with all its packets.
pub(crate) struct Read {
    pub(crate) film: Film,
    pub(crate) timeline: Timeline,
}

impl Read {
    fn track(&self, stream: &Stream) -> Option<&Track> {
        self.timeline.get(&stream.index).filter(|track| !track.packets.is_empty())
    }

    /// The first video, if it has packets.
    pub(crate) fn video(&self) -> Option<(&Stream, &Track)> {
        self.film.video().and_then(|stream| Some((stream, self.track(stream)?)))
    }

    /// All tracks of sound that have packets.
    pub(crate) fn audio(&self) -> Vec<(&Stream, &Track)> {
        self.film.audio().filter_map(|stream| Some((stream, self.track(stream)?))).collect()
    }

    /// The first video, and all sound.
    pub(crate) fn tracks(&self) -> Vec<(&Stream, &Track)> {
        self.video().into_iter().chain(self.audio()).collect()
    }
}

impl Track {
    /// When each packet is presented, in seconds, in the order of decoding.
    pub(crate) fn times(&self, stream: &Stream) -> Vec<Option<f64>> {
        self.packets.iter().map(|packet| Some(stream.time_base.seconds(packet.pts?))).collect()
    }

    /// When what is shown is, in order; `None` where packets do not say so.
    fn shown_times(&self, stream: &Stream) -> Option<Vec<f64>> {
        let shown = self.packets.iter().filter(|packet| packet.shown);
        let mut ticks: Vec<i64> = shown.map(|packet| packet.pts).collect::<Option<_>>()?;
        ticks.sort_unstable();
        Some(ticks.into_iter().map(|ticks| stream.time_base.seconds(ticks)).collect())
    }

    /// From when to when it is presented, in seconds.
    fn ends(&self, stream: &Stream) -> (f64, f64) {
        let seconds = |ticks: Option<i64>| stream.time_base.seconds(ticks.unwrap_or(0));
        (seconds(self.first), seconds(self.end))
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
    /// How many of the source's packets make no frame, where it had to be decoded to know.
    pub(crate) lost: Option<u64>,
}

fn mismatch(what: &str, expected: impl ToString, found: impl ToString) -> MediaError {
    MediaError::Mismatch { what: what.to_owned(), expected: expected.to_string(), found: found.to_string() }
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.4} s")
}

/// As many packets, each presented when it was, but for `shift`. Those that do not say when are counted.
pub(crate) fn compare_packets(
    what: &str,
    mut expected: Vec<Option<f64>>,
    found: &[Option<f64>],
    shift: f64,
) -> Result<(), MediaError> {
    if expected.len() != found.len() {
        return Err(mismatch(&format!("the number of packets of {what}"), expected.len(), found.len()));
    }
    if expected.iter().chain(found).any(Option::is_none) {
        return Ok(());
    }
    // Readers of some containers hand frames out in another order.
    let order = |one: &Option<f64>, other: &Option<f64>| one.unwrap_or(0.0).total_cmp(&other.unwrap_or(0.0));
    let mut found = found.to_vec();
    expected.sort_by(order);
    found.sort_by(order);
    let times = |times: Vec<Option<f64>>| times.into_iter().flatten().collect::<Vec<_>>();
    compare_times(&format!("packet {{}} of {what}"), &times(expected), &times(found), shift)
}

/// How much earlier the pre-skip of Opus is, in seconds: ffmpeg 5 copies it into Matroska earlier by that.
const PRE_SKIP: f64 = 0.0065;

/// The shift of copied sound where the video's is `moved`: the same, but for Opus in Matroska.
pub(crate) fn sound_shift(
    result: &Film,
    stream: &Stream,
    expected: &[Option<f64>],
    found: &[Option<f64>],
    moved: f64,
) -> f64 {
    let own = earliest(found) - earliest(expected);
    let may = stream.codec == "opus" && result.source.container == Container::Matroska;
    if may && (own - moved).abs() <= PRE_SKIP + ROUNDING { own } else { moved }
}

/// When the first packet is presented.
pub(crate) fn earliest(times: &[Option<f64>]) -> f64 {
    times.iter().flatten().copied().reduce(f64::min).unwrap_or(0.0)
}

/// Each of `found` is when it should be, but for `shift`; `{}` in `what` is its number.
fn compare_times(what: &str, expected: &[f64], found: &[f64], shift: f64) -> Result<(), MediaError> {
    for (place, (expected, found)) in expected.iter().zip(found).enumerate() {
        if (expected + shift - found).abs() > ROUNDING {
            let what = format!("the time of {}", what.replace("{}", &place.to_string()));
            return Err(mismatch(&what, seconds(expected + shift), seconds(*found)));
        }
    }
    Ok(())
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
        let (mut lost, mut frames, mut shift) = (None, 0, None);
        if let Some((stream, track)) = source.video().filter(|_| video != Made::Dropped) {
            let (out_stream, out) = result.video().ok_or_else(|| mismatch("the number of videos", 1, 0))?;
            frames = out.packets.len() as u64;
            let found = out.shown_times(out_stream).unwrap_or_default();
            let expected = track.shown_times(stream).unwrap_or_default();
            let moved = found.first().zip(expected.first()).map(|(found, expected)| found - expected);
            shift = moved;
            if video == Made::Copied {
                let moved = moved.unwrap_or(0.0);
                compare_packets("the video", track.times(stream), &out.times(out_stream), moved)?;
                if track.shown != out.shown {
                    return Err(mismatch("the number of frames that are shown", track.shown, out.shown));
                }
                if track.untimed {
                    shift = Some(compare_frames(&self.frame_times(source)?, &self.frame_times(result)?)?);
                }
            } else if expected.len() != found.len()
                || compare_times("", &expected, &found, moved.unwrap_or(0.0)).is_err()
            {
                // Packets that cannot be decoded are no frames: what a decoder makes of the source decides.
                let decoded = self.decoded(&source.film, stream, threads)?;
                shift = Some(compare_frames(&decoded, &found)?);
                lost = Some(track.shown.saturating_sub(frames));
            }
        }
        if audio != Made::Dropped {
            compare_sound(source, result, audio, shift)?;
        }
        let seconds = compare_lengths(source, result, video, audio)?;
        Ok(Checked { frames, seconds, lost })
    }

    /// When each frame of the video is shown, in seconds; by decoding where its packets do not say so.
    pub(crate) fn frame_times(&self, read: &Read) -> Result<Vec<f64>, MediaError> {
        let Some((stream, track)) = read.video() else { return Ok(Vec::new()) };
        match track.shown_times(stream) {
            Some(times) => Ok(times),
            None => self.decoded(&read.film, stream, available_cpus()),
        }
    }

    /// When a decoder shows each frame that it makes of `stream`, in seconds.
    fn decoded(&self, film: &Film, stream: &Stream, threads: usize) -> Result<Vec<f64>, MediaError> {
        let mut arguments: Vec<OsString> =
            ["-hide_banner", "-nostdin", "-v", "error", "-nostats", "-copyts", "-threads", &threads.to_string()]
                .map(OsString::from)
                .into();
        arguments.extend(film.source.input(&self.limits));
        let time_base = stream.time_base.to_string();
        arguments.extend(["-map", &format!("0:{}", stream.index), "-fps_mode", "passthrough"].map(OsString::from));
        // Nothing is encoded: a frame is a line, with its time.
        arguments.extend(["-enc_time_base", &time_base, "-c:v", "wrapped_avframe"].map(OsString::from));
        arguments.extend(["-f", "framecrc", "pipe:1"].map(OsString::from));
        let call = Call {
            what: format!("counting the frames of {}", film.source.file),
            program: Program::Ffmpeg,
            arguments,
            reach: Reach { reads: vec![film.source.path.clone()], ..Reach::default() },
            folder: None,
            abort: None,
        };
        let (mut times, of) = (Vec::new(), film.seconds.unwrap_or(0.0));
        let mut base = stream.time_base;
        call.run(self, &mut |line| {
            if let Some(told) = line.strip_prefix("#tb 0: ").and_then(Ratio::parse) {
                base = told;
            }
            let pts = line.split(',').nth(2).and_then(|pts| pts.trim().parse().ok());
            let Some(at) = pts.map(|pts| base.seconds(pts)) else { return Heard::Nothing };
            times.push(at);
            if times.len() % 256 == 0 {
                self.tell("counting", (at - film.start).clamp(0.0, of), of, times.len() as u64);
            }
            Heard::Progress
        })?;
        Ok(times)
    }
}

/// As many frames, each shown when it was. Comes back with how much later the result shows them.
pub(crate) fn compare_frames(expected: &[f64], found: &[f64]) -> Result<f64, MediaError> {
    if expected.len() != found.len() {
        return Err(mismatch("the number of frames", expected.len(), found.len()));
    }
    let shift = found.first().zip(expected.first()).map_or(0.0, |(found, expected)| found - expected);
    compare_times("frame {}", expected, found, shift)?;
    Ok(shift)
}

/// Each track of sound is there, as long as it was and where it was beside the video, which is shown `shift` later.
fn compare_sound(source: &Read, result: &Read, made: Made, shift: Option<f64>) -> Result<(), MediaError> {
    let (before, after) = (source.audio(), result.audio());
    if before.len() != after.len() {
        return Err(mismatch("the number of tracks of sound", before.len(), after.len()));
    }
    let mut shift = shift;
    for (place, ((stream, track), (out_stream, out))) in before.iter().zip(&after).enumerate() {
        let (from, to) = track.ends(stream);
        let (out_from, out_to) = out.ends(out_stream);
        let what = format!("sound {place}");
        if made == Made::Copied {
            // Compared by all packets, for what one container hides the other may not.
            let (times, out_times) = (track.times(stream), out.times(out_stream));
            let moved = *shift.get_or_insert(earliest(&out_times) - earliest(&times));
            let moved = sound_shift(&result.film, out_stream, &times, &out_times, moved);
            compare_packets(&what, times, &out_times, moved)?;
            continue;
        }
        let moved = *shift.get_or_insert(out_from - from);
        if ((to - from) - (out_to - out_from)).abs() > SOUND {
            return Err(mismatch(&format!("the length of {what}"), seconds(to - from), seconds(out_to - out_from)));
        }
        if (from + moved - out_from).abs() > SOUND / 2.0 {
            let what = format!("the beginning of {what} beside the video");
            return Err(mismatch(&what, seconds(from + moved), seconds(out_from)));
        }
        compare_samples(&what, out_stream, out)?;
    }
    Ok(())
}

/// Encoded sound has no pauses: some players play its packets one after the other, whatever their times are.
fn compare_samples(what: &str, stream: &Stream, track: &Track) -> Result<(), MediaError> {
    let times = track.shown_times(stream).unwrap_or_default();
    let steps = || times.windows(2).map(|pair| pair[1] - pair[0]);
    let usual = steps().filter(|step| *step > 0.0).fold(f64::INFINITY, f64::min);
    match steps().position(|step| step - usual > SOUND / 2.0) {
        Some(place) => Err(mismatch(
            &format!("the time between packets {place} and {} of {what}", place + 1),
            seconds(usual),
            seconds(times[place + 1] - times[place]),
        )),
        None => Ok(()),
    }
}

/// The whole plays as long as what was taken of the source, within two frames.
fn compare_lengths(source: &Read, result: &Read, video: Made, audio: Made) -> Result<f64, MediaError> {
    let first_video = source.film.video().map(|stream| stream.index);
    let taken = |stream: &Stream| match stream.kind {
        Kind::Video => video != Made::Dropped && Some(stream.index) == first_video,
        _ => audio != Made::Dropped,
    };
    let length = |span: Option<(f64, f64)>| span.map_or(0.0, |(from, to)| to - from);
    let expected = length(span(&source.film, &source.timeline, taken));
    let found = length(span(&result.film, &result.timeline, |_| true));
    let frame = source.video().map_or(0.0, |(stream, track)| {
        let (from, to) = track.ends(stream);
        (to - from) / track.shown.max(1) as f64
    });
    let sound = if audio == Made::Dropped || source.audio().is_empty() { 0.0 } else { SOUND };
    if (expected - found).abs() > 2.0 * frame + sound + ROUNDING {
        return Err(mismatch("the length", format!("{expected:.3} s"), format!("{found:.3} s")));
    }
    Ok(found)
}
