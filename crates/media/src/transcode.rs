//! A film encoded anew: its video in parts, at once where the machine has the cores, and its sound beside that as a
//! whole.
//!
//! Parts are not cut out of the file first: each encoder reads the whole film, begins to decode at a key frame and
//! passes on the frames between two moments, told in the film's own ticks. So a frame lies in one part whatever the film
//! is like: open groups, variable rates, edits. Sound is not cut, for each seam between two runs of its encoder would be
//! heard.

mod join;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use serde::Serialize;

use crate::{
    call::{Call, Meter},
    check::{Checked, Made, Read},
    encoder::Encoder,
    error::MediaError,
    film::{Film, Kind, Stream},
    guard::Reach,
    losses,
    order::{Audio, Order, Video},
    place::{Place, Shape},
    plan::{self, Cutting, Part, Shares},
    source::{Source, file_url, safe_input},
    timeline::span,
    workshop::{Program, Workshop},
    wrapping::Wrapping,
};

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where it lies.
    pub output: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The source's size.
    pub source_bytes: u64,
    /// How long it plays.
    pub seconds: f64,
    /// Frames of its video, which are as many as the source's.
    pub frames: u64,
    /// Whether the source was decoded to know its frames and their times, for its packets are others.
    pub counted: bool,
    /// What encoded the video.
    pub encoder: Option<&'static str>,
    /// Whether that is hardware.
    pub hardware: bool,
    /// Parts of the video.
    pub segments: usize,
    /// Of which so many were encoded at once.
    pub jobs: usize,
    /// Threads of each encoder.
    pub threads: usize,
    /// How long it took.
    pub took_seconds: f64,
    /// The part of that in which ffmpeg encoded.
    pub encode_seconds: f64,
    /// What people should know.
    pub notes: Vec<String>,
}

/// One film on its way.
struct Work<'a> {
    workshop: &'a Workshop<'a>,
    order: &'a Order,
    wrapping: Wrapping,
    read: &'a Read,
    place: &'a Path,
    encoder: Option<Encoder>,
    parts: Vec<Part>,
    shares: Shares,
}

impl Workshop<'_> {
    /// Makes what `order` says of a film.
    ///
    /// # Errors
    /// If the order, the film, ffmpeg or the machine do not allow it, or the result is not what the source is.
    pub fn transcode(&self, order: &Order, cpus: usize) -> Result<Report, MediaError> {
        let began = Instant::now();
        let wrapping = Wrapping::of(&order.output)?;
        order.check()?;
        let source = Source::open(&order.input, &self.limits)?;
        let place = Place::prepare(&order.output, Shape::File, order.replace, &[&source.path])?;
        let (mut notes, source_bytes) = (Vec::new(), source.bytes);
        let read = self.ingest(source, place.work(), &mut notes)?;
        notes.extend(order.notes(&read.film)?);
        notes.extend(self.unguarded());
        let encoder = self.encoder(order, &read.film, &mut notes)?;
        let (parts, shares) = plan(order, &read, encoder.as_ref(), cpus, &mut notes);
        let work = Work { workshop: self, order, wrapping, read: &read, place: place.work(), encoder, parts, shares };
        let encoding = Instant::now();
        notes.extend(work.encode()?);
        let encode_seconds = encoding.elapsed().as_secs_f64();
        let made = place.work().join(format!("whole.{}", ending(&order.output)));
        work.join(&made)?;
        let checked = work.check(&made)?;
        if let Some(lost) = checked.lost.filter(|lost| *lost > 0) {
            notes.push(format!(
                "{lost} of the source's packets of video make no frame: it begins between key frames, or is damaged"
            ));
        }
        let bytes = fs::metadata(&made).map_err(MediaError::io(&made))?.len();
        let output = place.target().to_owned();
        place.commit(&made)?;
        Ok(Report {
            output,
            bytes,
            source_bytes,
            seconds: checked.seconds,
            frames: checked.frames,
            counted: checked.lost.is_some(),
            encoder: encoder.map(|encoder| encoder.name),
            hardware: encoder.is_some_and(|encoder| encoder.is_hardware()),
            segments: shares.segments,
            jobs: shares.jobs,
            threads: shares.threads,
            took_seconds: began.elapsed().as_secs_f64(),
            encode_seconds,
            notes,
        })
    }

    fn encoder(&self, order: &Order, film: &Film, notes: &mut Vec<String>) -> Result<Option<Encoder>, MediaError> {
        let (Video::Encode(quality), Some(video)) = (&order.video, film.video()) else { return Ok(None) };
        let even = |length: u32| length.max(1).next_multiple_of(2);
        let (mut width, mut height) = (even(video.width), even(video.height));
        if video.rotation % 180 != 0 {
            (width, height) = (height, width);
        }
        let chosen = self.choose(quality, width, height)?;
        notes.extend(chosen.note);
        if video.width % 2 + video.height % 2 > 0 {
            let (from, to) = ((video.width, video.height), (even(video.width), even(video.height)));
            notes.push(format!("{} × {} pixels are {} × {} now: lengths must be even", from.0, from.1, to.0, to.1));
        }
        Ok(Some(chosen.encoder))
    }
}

fn ending(output: &Path) -> String {
    output.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

fn plan(
    order: &Order,
    read: &Read,
    encoder: Option<&Encoder>,
    cpus: usize,
    notes: &mut Vec<String>,
) -> (Vec<Part>, Shares) {
    let (Some(encoder), Some((_, track))) = (encoder, read.video()) else {
        return (Vec::new(), Shares { segments: 0, jobs: 0, threads: cpus.max(1) });
    };
    // A device encodes one film about as quickly as several at once; what it has of cores decodes.
    let scales_to = if encoder.is_hardware() { usize::MAX } else { encoder.scales_to() };
    let mut shares = plan::share(cpus, scales_to, order.segments, order.jobs);
    let wanted = if track.untimed { 1 } else { shares.segments };
    let cutting = Cutting::Decoding { exact: read.film.source.container.has_index() };
    let frames = if track.untimed { Vec::new() } else { track.frames() };
    let parts = plan::cut(&frames, wanted, cutting).unwrap_or_default();
    if parts.len().max(1) < shares.segments && order.segments.is_some() {
        let why = if track.untimed { "its frames do not say when they are shown" } else { "it has no more key frames" };
        notes.push(format!("{} of {} segments: {why}", parts.len().max(1), shares.segments));
    }
    let fitting = plan::share(cpus, scales_to, Some(parts.len().max(1)), Some(shares.jobs));
    shares = Shares { segments: parts.len().max(1), ..fitting };
    (parts, shares)
}

impl Work<'_> {
    fn audio_is_encoded(&self) -> bool {
        matches!(self.order.audio, Audio::Aac | Audio::Opus) && !self.read.audio().is_empty()
    }

    /// When the first of what is taken begins, in seconds of the source's clock, which is the result's beginning.
    fn base(&self) -> f64 {
        let video = self.read.film.video().map(|stream| stream.index).filter(|_| self.order.video != Video::Drop);
        let taken = |stream: &Stream| match stream.kind {
            Kind::Video => Some(stream.index) == video,
            _ => self.order.audio != Audio::Drop,
        };
        span(&self.read.film, &self.read.timeline, taken).map_or(0.0, |(from, _)| from)
    }

    /// Runs all encoders, as many concurrently as planned, with the encoder of the sound beside them. Returns their
    /// complaints.
    fn encode(&self) -> Result<Vec<String>, MediaError> {
        let segments = if self.encoder.is_some() { self.shares.segments } else { 0 };
        let (next, abort) = (AtomicUsize::new(0), AtomicBool::new(false));
        let meters = Mutex::new(vec![Meter::default(); segments + 1]);
        let first_error = Mutex::new(None);
        let complaints = Mutex::new(BTreeSet::new());
        let listen = |what: &'static str, said: String| {
            let complaint =
                said.lines().find_map(losses::complaint).map(|line| format!("ffmpeg said of the {what}: {line}"));
            complaints.lock().expect("no thread panics while it holds this").extend(complaint);
        };
        let fail = |error: MediaError| {
            // Those that are ended because one failed say "stopped", which is not why: the first error stands.
            let mut first = first_error.lock().expect("no thread panics while it holds this");
            first.get_or_insert(error);
            abort.store(true, Ordering::Relaxed);
        };
        let report = |place: usize, meter: Meter| {
            let mut meters = meters.lock().expect("no thread panics while it holds this");
            meters[place] = meter;
            self.tell(&meters);
        };
        thread::scope(|scope| {
            for _ in 0..self.shares.jobs.min(segments) {
                scope.spawn(|| {
                    loop {
                        let place = next.fetch_add(1, Ordering::Relaxed);
                        if place >= segments || abort.load(Ordering::Relaxed) {
                            return;
                        }
                        let mut meter = Meter::default();
                        let done = self.encode_part(place, &abort, &mut |line| {
                            let heard = meter.hear(line);
                            report(place, meter);
                            heard
                        });
                        done.map_or_else(&fail, |said| listen("video", said));
                    }
                });
            }
            if self.audio_is_encoded() {
                let mut meter = Meter::default();
                let done = self.encode_audio(&abort, &mut |line| {
                    let heard = meter.hear(line);
                    report(segments, meter);
                    heard
                });
                done.map_or_else(fail, |said| listen("sound", said));
            }
        });
        let complaints = complaints.into_inner().expect("no thread panics while it holds this").into_iter().collect();
        first_error.into_inner().expect("no thread panics while it holds this").map_or(Ok(complaints), Err)
    }

    fn tell(&self, meters: &[Meter]) {
        let of = self.read.film.seconds.unwrap_or(0.0).max(0.001);
        let (sound, videos) = meters.split_last().expect("there is one for the sound");
        let frames: u64 = videos.iter().map(|meter| meter.frames).sum();
        let total: u64 = self.parts.iter().map(|part| part.frames).sum();
        let seconds = match total {
            0 => sound.micros as f64 / 1e6 - self.base(),
            total => of * frames as f64 / total as f64,
        };
        self.workshop.tell("encoding", seconds.clamp(0.0, of), of, frames);
    }

    fn encode_part(
        &self,
        place: usize,
        abort: &AtomicBool,
        hear: &mut (dyn FnMut(&str) -> crate::call::Heard + Send),
    ) -> Result<String, MediaError> {
        let (Video::Encode(quality), Some(encoder)) = (&self.order.video, self.encoder) else {
            return Ok(String::new());
        };
        let Some((stream, _)) = self.read.video() else { return Ok(String::new()) };
        let part = self.parts.get(place);
        let threads = self.shares.threads.to_string();
        let mut arguments = meter_words();
        arguments.extend(encoder.device());
        if let Some(seek) = part.and_then(|part| part.seek) {
            let at = stream.time_base.seconds(seek) - self.read.film.start;
            if at > 0.0 {
                // Rounded up: a seek goes to the last key frame that is not later.
                let at = format!("{:.6}", (at * 1e6).ceil() / 1e6);
                arguments.extend(["-noaccurate_seek", "-ss", &at].map(OsString::from));
            }
        }
        arguments.extend(["-threads", &threads].map(OsString::from));
        arguments.extend(self.read.film.source.input(&self.workshop.limits));
        let time_base = stream.time_base.to_string();
        arguments.extend(
            [
                "-map",
                &format!("0:{}", stream.index),
                "-vf",
                &filters(part, self.before_first_frame(), stream, &encoder),
            ]
            .map(OsString::from),
        );
        arguments.extend(["-fps_mode", "passthrough", "-enc_time_base", &time_base].map(OsString::from));
        arguments.extend(encoder.words(quality, self.shares.threads, self.parts.len() > 1));
        arguments.extend(["-map_metadata", "-1", "-map_chapters", "-1", "-f", "mp4"].map(OsString::from));
        arguments.extend(FINE_CLOCK.map(OsString::from));
        arguments.push(file_url(&self.place.join(segment(place))));
        let what = match self.shares.segments {
            1 => format!("encoding the video with {}", encoder.name),
            _ => format!("encoding segment {place} with {}", encoder.name),
        };
        self.call(what, arguments, encoder.is_hardware(), Some(abort)).run(self.workshop, hear)
    }

    fn encode_audio(
        &self,
        abort: &AtomicBool,
        hear: &mut (dyn FnMut(&str) -> crate::call::Heard + Send),
    ) -> Result<String, MediaError> {
        let mut arguments = meter_words();
        arguments.extend(self.read.film.source.input(&self.workshop.limits));
        // On the result's clock. Pauses become silence, and what overlaps is cut: some players play packets one after the
        // other, whatever their times are.
        let filters = format!("asetpts=PTS-({:.9})/TB,aresample=async=1:min_hard_comp=0.04", self.base());
        for (stream, _) in self.read.audio() {
            arguments.extend(["-map".into(), format!("0:{}", stream.index).into()]);
        }
        arguments.extend(["-af", &filters].map(OsString::from));
        let codec = if self.order.audio == Audio::Opus { "libopus" } else { "aac" };
        arguments
            .extend(["-c:a", codec, "-map_metadata", "-1", "-map_chapters", "-1", "-f", "mp4"].map(OsString::from));
        arguments.push(file_url(&self.place.join(SOUND)));
        self.call(format!("encoding the sound with {codec}"), arguments, false, Some(abort)).run(self.workshop, hear)
    }

    fn call<'a>(
        &self,
        what: String,
        arguments: Vec<OsString>,
        devices: bool,
        abort: Option<&'a AtomicBool>,
    ) -> Call<'a> {
        let reads = vec![self.read.film.source.path.clone()];
        let reach = Reach { reads, writes: vec![self.place.to_owned()], devices };
        Call { what, program: Program::Ffmpeg, arguments, reach, folder: None, abort }
    }

    fn check(&self, made: &Path) -> Result<Checked, MediaError> {
        let source = Source::open(made, &self.workshop.limits)?;
        let result = self.workshop.read(Source { file: "the result".to_owned(), ..source }, "checking")?;
        let video = match (&self.order.video, self.read.film.video()) {
            (Video::Drop, _) | (_, None) => Made::Dropped,
            (Video::Copy, _) => Made::Copied,
            (Video::Encode(_), _) => Made::Encoded,
        };
        let audio = match self.order.audio {
            Audio::Drop => Made::Dropped,
            Audio::Copy => Made::Copied,
            Audio::Aac | Audio::Opus => Made::Encoded,
        };
        self.workshop.compare(self.read, &result, video, audio, self.shares.threads.max(1))
    }
}

/// The file of the sound, as long as it waits for the video.
const SOUND: &str = "sound.mp4";

fn segment(place: usize) -> String {
    format!("segment_{place}.mp4")
}

/// An MP4 says when its tracks begin in ticks of the whole film, which are milliseconds otherwise.
pub(crate) const FINE_CLOCK: [&str; 2] = ["-movie_timescale", "90000"];

/// Words that make ffmpeg say how far it is, keep the source's clock and nothing else.
pub(crate) fn meter_words() -> Vec<OsString> {
    ["-hide_banner", "-nostdin", "-v", "error", "-nostats", "-progress", "pipe:1", "-stats_period", "0.25", "-copyts"]
        .map(OsString::from)
        .into()
}

pub(crate) fn list_input(demuxers: &str, list: &Path) -> Vec<OsString> {
    let mut words = safe_input(demuxers);
    words.extend(["-f", "concat", "-safe", "1", "-i"].map(OsString::from));
    words.push(file_url(list));
    words
}

/// The frames of the part, counted from its first, in sizes and pixels that the encoder takes.
fn filters(part: Option<&Part>, first: i64, stream: &Stream, encoder: &Encoder) -> String {
    let mut chain: Vec<String> = Vec::new();
    match part {
        Some(Part { from, to, seek, .. }) => {
            let end = to.map(|to| format!(":end_pts={to}")).unwrap_or_default();
            match seek {
                Some(_) => chain.push(format!("trim=start_pts={from}{end}")),
                None if to.is_some() => chain.push(format!("trim=end_pts={}", to.unwrap_or_default())),
                None => {}
            }
            chain.push(format!("setpts=PTS-({from})"));
        }
        None => chain.push(format!("setpts=PTS-({first})")),
    }
    if stream.width % 2 + stream.height % 2 > 0 {
        chain.push("pad=ceil(iw/2)*2:ceil(ih/2)*2".to_owned());
    }
    chain.push(encoder.pixels().to_owned());
    chain.join(",")
}
