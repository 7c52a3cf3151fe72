//! `caudal media`: films looked at, cut, encoded and joined.

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::{Duration, Instant},
};

use caudal_media::{
    Audio, Choice, ConcatOrder, Film, Joined, Kind, Limits, MediaError, Order, Pieces, Progress, Quality, Report,
    SplitOrder, Stream, Video, VideoCodec, Workshop,
};
use caudal_types::{ErrorKind, Explain, available_cpus};
use clap::ArgMatches;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::{CommandError, other, usage};

/// What a shell answers for a process that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let done = match matches.subcommand() {
        Some(("probe", matches)) => probe(matches),
        Some(("split", matches)) => split(matches),
        Some(("transcode", matches)) => transcode(matches),
        Some(("concat", matches)) => concat(matches),
        Some(("guard", matches)) => {
            let words: Vec<OsString> = matches.get_many("words").unwrap_or_default().cloned().collect();
            return Err(other(caudal_media::guard(&words)));
        }
        _ => return Err(usage("see `caudal media --help`")),
    };
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(MediaError::Stopped) => {
            eprintln!("caudal: {}; {}", MediaError::Stopped, MediaError::Stopped.hint());
            Ok(ExitCode::from(INTERRUPTED))
        }
        Err(error) => Err(explained(&error)),
    }
}

fn explained(error: &MediaError) -> CommandError {
    let words = format!("{error}; {}", error.hint());
    match error.kind() {
        ErrorKind::InvalidParameter | ErrorKind::InvalidRequest => usage(words),
        _ => other(words),
    }
}

/// Opens the workshop, does `work` in it, and takes the bar away.
fn within<T>(matches: &ArgMatches, work: impl FnOnce(&Workshop) -> Result<T, MediaError>) -> Result<T, MediaError> {
    let stop = stop();
    let bar = Bar::new();
    let told = |progress: Progress| bar.show(progress);
    // This program again, as it is on disk even if a newer one has taken its place there.
    let guard = ["/proc/self/exe", "media", "guard"].map(OsString::from).into();
    let done = Workshop::open(Some(guard), limits(matches), &stop, &told).and_then(|workshop| work(&workshop));
    bar.bar.finish_and_clear();
    done
}

/// Becomes true when somebody wants us to end; at the second time we do so at once, and the kernel ends our children.
fn stop() -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let again = signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED.into(), stop.clone());
        let first = signal_hook::flag::register(signal, stop.clone());
        again.and(first).expect("these signals can be heard");
    }
    stop
}

fn limits(matches: &ArgMatches) -> Limits {
    let usual = Limits::default();
    let number = |name: &str| matches.get_one::<u64>(name).copied();
    let time = |name: &str| matches.get_one::<Duration>(name).copied();
    Limits {
        duration: time("max-duration").unwrap_or(usual.duration),
        bytes: number("max-gigabytes").map_or(usual.bytes, |gigabytes| gigabytes.saturating_mul(1_000_000_000)),
        pixels: number("max-megapixels").map_or(usual.pixels, |megapixels| megapixels.saturating_mul(1_000_000)),
        stall: time("stall-timeout").unwrap_or(usual.stall),
        ..usual
    }
}

/// A rate is shown when it rests on so much time.
const RATE_AFTER: f64 = 1.0;
/// How often a line is written where standard error is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A bar on standard error; where that is no terminal, a line from time to time.
struct Bar {
    bar: ProgressBar,
    phase: Mutex<Phase>,
}

/// What is being done.
struct Phase {
    doing: &'static str,
    began: Instant,
    /// When the last line was written.
    written: Instant,
}

impl Bar {
    fn new() -> Self {
        let bar = match io::stderr().is_terminal() {
            true => {
                let style = ProgressStyle::with_template("{prefix} {bar:30} {percent} % {elapsed}, {eta} left: {msg}");
                ProgressBar::new(1).with_style(style.expect("the template is a constant"))
            }
            false => ProgressBar::hidden(),
        };
        let now = Instant::now();
        Self { bar, phase: Mutex::new(Phase { doing: "", began: now, written: now }) }
    }

    fn show(&self, progress: Progress) {
        let mut phase = self.phase.lock().expect("nobody panics here");
        if phase.doing != progress.doing {
            (phase.doing, phase.began) = (progress.doing, Instant::now());
            self.bar.reset();
            self.bar.set_prefix(progress.doing);
        }
        let message = rates(&progress, phase.began.elapsed().as_secs_f64());
        if self.bar.is_hidden() {
            if phase.written.elapsed() >= LINE_EVERY {
                phase.written = Instant::now();
                let percent = (progress.seconds / progress.of.max(0.001) * 100.0).clamp(0.0, 100.0);
                eprintln!("{} {percent:.0} %: {message}", progress.doing);
            }
            return;
        }
        self.bar.set_length((progress.of * 1e3) as u64);
        self.bar.set_position((progress.seconds * 1e3) as u64);
        self.bar.set_message(message);
    }
}

/// What has been done in `elapsed` seconds, with rates where they mean something.
fn rates(progress: &Progress, elapsed: f64) -> String {
    let speed = progress.seconds / elapsed;
    match (progress.frames, elapsed >= RATE_AFTER) {
        (0, false) => String::new(),
        (0, true) => format!("{speed:.1} × real time"),
        (frames, false) => format!("{frames} frames"),
        (frames, true) => format!("{frames} frames, {:.0} a second, {speed:.1} × real time", frames as f64 / elapsed),
    }
}

fn path(matches: &ArgMatches, name: &str) -> PathBuf {
    matches.get_one::<PathBuf>(name).cloned().expect("it is required")
}

fn tell(matches: &ArgMatches, json: &impl Serialize, table: impl FnOnce() -> String) {
    let text = match matches.get_flag("json") {
        true => format!("{:#}\n", serde_json::to_value(json).expect("it is plain data")),
        false => table(),
    };
    print!("{text}");
}

fn probe(matches: &ArgMatches) -> Result<(), MediaError> {
    let film = within(matches, |workshop| workshop.probe(&path(matches, "input")))?;
    tell(matches, &film, || film_table(&film));
    Ok(())
}

fn film_table(film: &Film) -> String {
    let seconds = film.seconds.map_or("unknown length".to_owned(), |seconds| format!("{seconds:.3} s"));
    let source = &film.source;
    let mut text =
        format!("{}  {}, {seconds}, {}\n", source.file, source.container.demuxer(), HumanBytes(source.bytes));
    if let Some(torn) = &film.torn {
        text += &format!("  note     it is not whole: {torn}\n");
    }
    for stream in &film.streams {
        text += &format!("{:>3}  {:<8} {:<12} {}\n", stream.index, kind(stream.kind), stream.codec, details(stream));
    }
    text
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Video => "video",
        Kind::Audio => "audio",
        Kind::Cover => "cover",
        Kind::Subtitle => "subtitle",
        Kind::Other => "other",
    }
}

fn details(stream: &Stream) -> String {
    let mut words = Vec::new();
    if stream.width > 0 {
        words.push(format!("{} × {}", stream.width, stream.height));
    }
    words.extend(stream.fps.map(|fps| format!("{fps:.3} frames a second")));
    words.extend(stream.pix_fmt.clone());
    words.extend(stream.alpha.then(|| "transparent".to_owned()));
    words.extend(stream.interlaced.then(|| "interlaced".to_owned()));
    words.extend((stream.rotation != 0).then(|| format!("turned by {}°", stream.rotation)));
    words.extend(stream.sample_rate.map(|rate| format!("{rate} Hz")));
    words.extend(stream.channels.map(|channels| format!("{channels} channels")));
    words.join(", ")
}

fn split(matches: &ArgMatches) -> Result<(), MediaError> {
    let order = SplitOrder {
        input: path(matches, "input"),
        folder: path(matches, "output"),
        replace: matches.get_flag("force"),
        segments: *matches.get_one("segments").expect("it has a default"),
    };
    let pieces = within(matches, |workshop| workshop.split(&order))?;
    tell(matches, &pieces, || pieces_table(&pieces, &order));
    Ok(())
}

fn pieces_table(pieces: &Pieces, order: &SplitOrder) -> String {
    let folder = order.folder.display();
    let mut text = format!("{folder}  {:.3} s, {} frames\n", pieces.seconds, pieces.frames);
    for piece in &pieces.segments {
        let (start, seconds, size) = (piece.start, piece.seconds, HumanBytes(piece.bytes));
        text +=
            &format!("  {:<16} from {start:9.3} s  {seconds:9.3} s  {:7} frames  {size}\n", piece.file, piece.frames);
    }
    text + &notes(&pieces.notes)
}

fn notes(notes: &[String]) -> String {
    notes.iter().map(|note| format!("  note     {note}\n")).collect()
}

fn transcode(matches: &ArgMatches) -> Result<(), MediaError> {
    let number = |name: &str| matches.get_one::<usize>(name).copied();
    let order = Order {
        input: path(matches, "input"),
        output: path(matches, "output"),
        replace: matches.get_flag("force"),
        video: video(matches),
        audio: match matches.get_one::<String>("audio-codec").map(String::as_str) {
            Some("opus") => Audio::Opus,
            Some("copy") => Audio::Copy,
            Some("none") => Audio::Drop,
            _ => Audio::Aac,
        },
        segments: number("segments"),
        jobs: number("jobs"),
    };
    let report = within(matches, |workshop| workshop.transcode(&order, available_cpus()))?;
    tell(matches, &report, || report_table(&report));
    Ok(())
}

fn video(matches: &ArgMatches) -> Video {
    let word = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let codec = match word("video-codec") {
        Some("copy") => return Video::Copy,
        Some("none") => return Video::Drop,
        Some("hevc") => VideoCodec::Hevc,
        Some("av1") => VideoCodec::Av1,
        Some("vp9") => VideoCodec::Vp9,
        _ => VideoCodec::H264,
    };
    Video::Encode(Quality {
        codec,
        encoder: match word("encoder") {
            None | Some("auto") => Choice::Any,
            Some("software") => Choice::Software,
            Some(name) => Choice::Named(name.to_owned()),
        },
        crf: matches.get_one("crf").copied(),
        preset: word("preset").map(str::to_owned),
    })
}

fn report_table(report: &Report) -> String {
    let (seconds, took) = (report.seconds, report.took_seconds.max(0.001));
    let mut text = format!("{}  {seconds:.3} s", report.output.display());
    if report.frames > 0 {
        text += &format!(", {} frames", report.frames);
    }
    text += &format!(", {} (source {})\n", HumanBytes(report.bytes), HumanBytes(report.source_bytes));
    if let Some(encoder) = report.encoder {
        let hardware = if report.hardware { " (hardware)" } else { "" };
        text += &format!("  encoder  {encoder}{hardware}, {} segments, ", report.segments);
        text += &format!("{} at once with {} threads each\n", report.jobs, report.threads);
    }
    text += &format!("  took     {took:.1} s, {:.1} × real time", seconds / took);
    if report.frames > 0 {
        text += &format!(", {:.0} frames a second", report.frames as f64 / took);
    }
    let what = match (report.frames, report.counted) {
        (0, _) => "sound and length",
        (_, true) => "frames, their times, sound and length, as they were decoded,",
        (_, false) => "frames, their times, sound and length",
    };
    text += &format!("\n  checked  {what} are the source's\n");
    text + &notes(&report.notes)
}

fn concat(matches: &ArgMatches) -> Result<(), MediaError> {
    let order = ConcatOrder {
        inputs: matches.get_many::<PathBuf>("inputs").unwrap_or_default().cloned().collect(),
        output: path(matches, "output"),
        replace: matches.get_flag("force"),
    };
    let joined = within(matches, |workshop| workshop.concat(&order))?;
    tell(matches, &joined, || joined_table(&joined));
    Ok(())
}

fn joined_table(joined: &Joined) -> String {
    let Joined { output, bytes, seconds, frames, inputs, .. } = joined;
    let (output, bytes) = (output.display(), HumanBytes(*bytes));
    format!("{output}  {seconds:.3} s, {frames} frames, {bytes} of {inputs} films\n") + &notes(&joined.notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_shown_after_a_second() {
        let progress = |frames| Progress { doing: "encoding", seconds: 3.0, of: 6.0, frames };
        assert_eq!(rates(&progress(90), 0.001), "90 frames");
        assert_eq!(rates(&progress(0), 0.001), "");
        assert_eq!(rates(&progress(90), 2.0), "90 frames, 45 a second, 1.5 × real time");
        assert_eq!(rates(&progress(0), 2.0), "1.5 × real time");
    }
}
