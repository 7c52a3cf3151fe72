//! Films as they come from cameras, recorders and other programs, made by ffmpeg; what is made of them is compared with
//! them by ffmpeg alone.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod clocks;
mod joins;
mod losses;
mod parts;
mod torn;

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    sync::atomic::AtomicBool,
};

use caudal_media::{
    Audio, Choice, ConcatOrder, Joined, Limits, MediaError, Order, Pieces, Quality, Report, SplitOrder, Video,
    VideoCodec, Workshop,
};
use tempfile::TempDir;

/// Ten small frames a second, with a key frame every second.
const H264: &str = "-c:v libx264 -preset ultrafast -threads 1 -g 10 -bf 2 -sc_threshold 0 -pix_fmt yuv420p";

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

struct Studio {
    folder: TempDir,
}

/// A folder for films; `None`, and a word about it, where there is no ffmpeg.
fn studio() -> Option<Studio> {
    let stop = AtomicBool::new(false);
    if let Err(error) = Workshop::open(None, Limits::default(), &stop, &|_| ()) {
        eprintln!("skipped: {error}");
        return None;
    }
    Some(Studio { folder: tempfile::tempdir().unwrap() })
}

impl Studio {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn ffmpeg(&self, text: &str) {
        let mut command = Command::new("ffmpeg");
        command.current_dir(self.folder.path()).args(["-v", "error", "-nostdin", "-y"]).args(words(text));
        finish(&mut command);
    }

    /// Moving pictures, and a beep in the first tenth of each second.
    fn film(&self, name: &str, seconds: u32, more: &str) {
        self.ffmpeg(&format!("{} {} {H264} {more} {name}", picture(seconds), beeps(seconds)));
    }

    fn work<T>(&self, work: impl FnOnce(&Workshop) -> Result<T, MediaError>) -> Result<T, MediaError> {
        let stop = AtomicBool::new(false);
        work(&Workshop::open(None, Limits::default(), &stop, &|_| ()).unwrap())
    }

    fn order(&self, input: &str, output: &str) -> Order {
        let (encoder, preset) = (Choice::Software, Some("ultrafast".to_owned()));
        Order {
            input: self.path(input),
            output: self.path(output),
            replace: true,
            video: Video::Encode(Quality { codec: VideoCodec::H264, encoder, crf: None, preset }),
            audio: Audio::Aac,
            segments: None,
            jobs: Some(1),
        }
    }

    fn transcode(&self, input: &str, output: &str, segments: usize) -> Result<Report, MediaError> {
        let order = Order { segments: Some(segments), ..self.order(input, output) };
        self.work(|workshop| workshop.transcode(&order, 2))
    }

    /// What is taken as it is.
    fn copy(&self, input: &str, output: &str) -> Result<Report, MediaError> {
        let order = Order { video: Video::Copy, audio: Audio::Copy, ..self.order(input, output) };
        self.work(|workshop| workshop.transcode(&order, 2))
    }

    fn split(&self, input: &str, folder: &str, segments: usize) -> Result<Pieces, MediaError> {
        let order = SplitOrder { input: self.path(input), folder: self.path(folder), replace: true, segments };
        self.work(|workshop| workshop.split(&order))
    }

    fn concat(&self, inputs: &[&str], output: &str) -> Result<Joined, MediaError> {
        let inputs = inputs.iter().map(|input| self.path(input)).collect();
        let order = ConcatOrder { inputs, output: self.path(output), replace: true };
        self.work(|workshop| workshop.concat(&order))
    }

    /// Splits a film and joins its parts again; how many there were, and the whole.
    fn again(&self, input: &str, segments: usize) -> (usize, String) {
        let pieces = self.split(input, "parts", segments).unwrap();
        self.rejoin(&pieces)
    }

    fn rejoin(&self, pieces: &Pieces) -> (usize, String) {
        let files: Vec<String> = pieces.segments.iter().map(|piece| format!("parts/{}", piece.file)).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let whole = format!("joined.{}", files[0].rsplit('.').next().unwrap());
        self.concat(&files, &whole).unwrap();
        (files.len(), whole)
    }

    /// When each frame is shown, in seconds, and a checksum of its pixels.
    fn frames(&self, file: &str) -> Vec<(f64, String)> {
        let text = self.decode(file, "-map 0:V:0 -fps_mode passthrough -enc_time_base 1/1000000 -f framemd5 -");
        let base = text.lines().find_map(|line| line.strip_prefix("#tb 0: ")).unwrap();
        let (num, den) = base.split_once('/').unwrap();
        let tick = num.parse::<f64>().unwrap() / den.parse::<f64>().unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let frame = |line: &str| {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            (fields[2].parse::<f64>().unwrap() * tick, fields[5].to_owned())
        };
        lines.map(frame).collect()
    }

    fn decode(&self, file: &str, what: &str) -> String {
        String::from_utf8(self.raw(file, what)).unwrap()
    }

    /// What ffmpeg writes of a file whose beginning may be damaged.
    fn raw(&self, file: &str, what: &str) -> Vec<u8> {
        let mut command = Command::new("ffmpeg");
        command.current_dir(self.folder.path()).args(["-v", "quiet", "-nostdin", "-copyts", "-i", file]);
        command.args(words(what)).output().unwrap().stdout
    }

    /// When beeps begin, where samples are played one after the other.
    fn beeps(&self, file: &str) -> Vec<f64> {
        let samples = self.raw(file, "-map 0:a:0 -ac 1 -ar 8000 -f s16le -");
        let samples = samples.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
        let (mut begins, mut loud): (Vec<f64>, Option<usize>) = (Vec::new(), None);
        for (place, _) in samples.enumerate().filter(|(_, sample)| sample.unsigned_abs() > 6000) {
            if loud.is_none_or(|loud| place - loud > 2000) {
                begins.push(place as f64 / 8000.0);
            }
            loud = Some(place);
        }
        begins
    }

    /// How long after the first bright frame sound is first heard, by their time stamps.
    fn lag(&self, file: &str) -> f64 {
        let light = self.raw(file, "-map 0:V:0 -vf scale=1:1,format=gray -fps_mode passthrough -f rawvideo -");
        let flash = self.frames(file).into_iter().zip(light).find(|(_, light)| *light > 128).unwrap().0.0;
        let told = self.decode(file, "-map 0:a:0 -af astats=metadata=1:reset=1,ametadata=print:key=lavfi.astats.Overall.Peak_level:file=- -f null -");
        let (mut at, mut heard) = (0.0, None);
        for word in told.split_whitespace() {
            if let Some(time) = word.strip_prefix("pts_time:") {
                at = time.parse().unwrap();
            } else if let Some(peak) = word.strip_prefix("lavfi.astats.Overall.Peak_level=") {
                heard = heard.or_else(|| (peak.parse::<f64>().unwrap() > -20.0).then_some(at));
            }
        }
        heard.unwrap() - flash
    }

    /// What is refused leaves nothing behind.
    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn picture(seconds: u32) -> String {
    format!("-f lavfi -i testsrc2=size=64x48:rate=10:duration={seconds}")
}

fn beeps(seconds: u32) -> String {
    format!("-f lavfi -i aevalsrc=sin(2*PI*1000*t)*lt(mod(t\\,1)\\,0.1):d={seconds}:s=48000")
}

fn finish(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Both show the same frames at the same times, counted from the first.
fn same_frames(source: &[(f64, String)], result: &[(f64, String)]) {
    assert_eq!(source.len(), result.len(), "frames");
    for (place, (one, other)) in source.iter().zip(result).enumerate() {
        assert_eq!(one.1, other.1, "frame {place}");
    }
    same_times(source, result);
}

fn same_times(source: &[(f64, String)], result: &[(f64, String)]) {
    assert_eq!(source.len(), result.len(), "frames");
    for (place, (one, other)) in source.iter().zip(result).enumerate() {
        let (one, other) = (one.0 - source[0].0, other.0 - result[0].0);
        assert!((one - other).abs() < 0.003, "frame {place} is shown at {other} instead of {one}");
    }
}
