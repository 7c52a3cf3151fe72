//! `caudal media` with the machine's own ffmpeg, on films that ffmpeg makes.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod failures;
mod orders;
mod results;
mod traps;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
};

use caudal_testkit::find_program;
use serde_json::Value;
use tempfile::TempDir;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");

/// A folder for films; `None`, and a word about it, where there is no ffmpeg.
fn studio() -> Option<Studio> {
    if find_program(&["ffmpeg"]).is_none() || find_program(&["ffprobe"]).is_none() {
        eprintln!("skipped: there is no ffmpeg here (Debian: ffmpeg)");
        return None;
    }
    Some(Studio { folder: tempfile::tempdir().unwrap() })
}

struct Studio {
    folder: TempDir,
}

const SOUND: &str = "sine=frequency=440:sample_rate=44100";
const H264: [&str; 4] = ["-c:v", "libx264", "-preset", "ultrafast"];

impl Studio {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Makes a film of `seconds` by ffmpeg, with `words` between its inputs and its name.
    fn film(&self, name: &str, seconds: f64, words: &[&str]) -> String {
        let length = seconds.to_string();
        let picture = format!("testsrc2=size=320x180:rate=25:duration={length}");
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-f", "lavfi", "-i", &picture, "-f", "lavfi", "-t", &length, "-i", SOUND]);
        finish(command.args(words).arg(self.path(name)));
        self.text(name)
    }

    fn plain(&self, seconds: f64) -> String {
        self.film("plain.mp4", seconds, &[&H264[..], &["-g", "25", "-bf", "2", "-c:a", "aac"]].concat())
    }

    fn ffmpeg(&self, words: &[&str]) {
        finish(Command::new("ffmpeg").current_dir(self.folder.path()).args(["-v", "error", "-y"]).args(words));
    }

    fn media(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(CAUDAL);
        command.arg("media").args(words).current_dir(self.folder.path());
        command
    }

    /// Runs it, and expects it to succeed without a word on standard error.
    fn does(&self, words: &[&str]) -> Value {
        let output = self.media(&[&words[..1], &["--json"], &words[1..]].concat());
        assert!(output.status.success(), "{words:?}: {}", said(&output));
        assert!(output.stderr.is_empty(), "{words:?}: {}", said(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Runs it, and expects it to end with `code`, to say `told`, and to leave nothing behind.
    fn refuses(&self, words: &[&str], code: i32, told: &str) {
        let before = self.entries();
        let output = self.media(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", said(&output));
        assert!(said(&output).contains(told), "{words:?}: {}", said(&output));
        assert_eq!(self.entries(), before, "{words:?}: something is left");
    }

    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A folder for `PATH` in which ffmpeg is `script`, which finds the real one as `$FFMPEG`.
    fn impostor(&self, script: &str) -> PathBuf {
        let folder = self.path("bin");
        fs::create_dir(&folder).unwrap();
        let real = find_program(&["ffmpeg"]).unwrap();
        let file = folder.join("ffmpeg");
        fs::write(&file, format!("#!/bin/sh\nFFMPEG={}\n{script}\n", real.display())).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(find_program(&["ffprobe"]).unwrap(), folder.join("ffprobe")).unwrap();
        folder
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn finish(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn ffprobe(file: &str, words: &[&str]) -> String {
    finish(Command::new("ffprobe").args(["-v", "error", "-of", "csv=p=0"]).args(words).arg(file))
}

/// When each frame is shown, in seconds, by decoding.
fn times(file: &str) -> Vec<f64> {
    let text = ffprobe(file, &["-select_streams", "V:0", "-show_entries", "frame=best_effort_timestamp_time"]);
    let mut times: Vec<f64> = text.lines().filter_map(|line| line.trim_end_matches(',').parse().ok()).collect();
    times.sort_by(f64::total_cmp);
    times
}

/// Everything decodes without a word of complaint.
fn decodes(file: &str) {
    let output = Command::new("ffmpeg").args(["-v", "error", "-i", file, "-f", "null", "-"]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{file}: {}", said(&output));
}

/// The least likeness of two frames with the same number, in dB.
fn likeness(one: &str, other: &str, filter: &str) -> f64 {
    // Both at the same steps, so that frames meet by their number.
    let steps = "settb=1/25,setpts=N";
    let graph = format!("[0:V:0]{filter},{steps}[a];[1:V:0]{steps}[b];[a][b]psnr=stats_file=-");
    let mut command = Command::new("ffmpeg");
    command.args([
        "-v",
        "error",
        "-i",
        one,
        "-i",
        other,
        "-lavfi",
        &graph,
        "-fps_mode",
        "passthrough",
        "-f",
        "null",
        "-",
    ]);
    let text = finish(&mut command);
    let of_line = |line: &str| line.split("psnr_avg:").nth(1)?.split(' ').next()?.parse::<f64>().ok();
    let all: Vec<f64> = text.lines().filter_map(of_line).collect();
    assert!(!all.is_empty(), "{text}");
    all.into_iter().fold(f64::INFINITY, f64::min)
}

/// `result` shows what `source` shows, frame by frame and at the same times.
fn is_same_film(source: &str, result: &str, filter: &str) {
    decodes(result);
    let (before, after) = (times(source), times(result));
    assert_eq!(before.len(), after.len(), "{result}: frames");
    for (place, (one, other)) in before.iter().zip(&after).enumerate() {
        let (one, other) = (one - before[0], other - after[0]);
        assert!((one - other).abs() < 0.002, "{result}: frame {place} at {other} instead of {one}");
    }
    let least = likeness(source, result, filter);
    // A frame's neighbour is unlike it by far: below 28 dB.
    assert!(least > 33.0, "{result}: a frame is like its source's by {least} dB only");
}
