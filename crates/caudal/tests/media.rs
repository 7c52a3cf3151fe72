//! `caudal media` with the machine's own ffmpeg, on films that ffmpeg makes.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use caudal_testkit::find_program;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

const CAUDAL: &str = env!("CARGO_BIN_EXE_caudal");
/// How long may pass until what must happen has happened.
const PATIENCE: Duration = Duration::from_secs(60);

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

#[test]
fn what_is_encoded_is_the_source_frame_by_frame_in_any_number_of_parts() {
    let Some(studio) = studio() else { return };
    let x264 = |more: &[&str]| [&H264[..], more].concat().iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let vfr = ["-vf", "select='not(mod(n,7)*mod(n,5))+gt(n,60)'", "-fps_mode", "vfr"];
    // Each with parts that can be made at most, and what turns its frames into those of the result.
    let films: [(&str, Vec<String>, usize, &str); 8] = [
        ("closed.mp4", x264(&["-g", "20", "-bf", "2", "-c:a", "aac"]), 3, "null"),
        ("open.mkv", x264(&["-x264-params", "open-gop=1:keyint=20:bframes=3:b-adapt=0", "-c:a", "aac"]), 3, "null"),
        ("rate.mp4", x264(&[&vfr[..], &["-g", "10", "-c:a", "aac"]].concat()), 3, "null"),
        ("stream.ts", x264(&["-g", "20", "-bf", "2", "-c:a", "aac", "-output_ts_offset", "5000"]), 3, "null"),
        (
            "old.avi",
            vec!["-c:v".into(), "mpeg4".into(), "-q:v".into(), "2".into(), "-g".into(), "20".into()],
            3,
            "null",
        ),
        ("silent.mov", x264(&["-an", "-g", "20"]), 3, "null"),
        ("few.mp4", x264(&["-g", "60", "-sc_threshold", "0", "-c:a", "aac"]), 2, "null"),
        (
            "odd.mkv",
            ["-vf", "format=yuv444p,crop=319:179", "-c:v", "ffv1", "-g", "20"].map(str::to_owned).into(),
            3,
            "pad=320:180",
        ),
    ];
    for (name, words, most, filter) in films {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let source = studio.film(name, 4.8, &words);
        for segments in [1, 3] {
            let result = studio.text(&format!("{name}.{segments}.mp4"));
            let report = studio.does(&[
                "transcode",
                &source,
                "-o",
                &result,
                "--segments",
                &segments.to_string(),
                "--crf",
                "14",
                "--preset",
                "ultrafast",
                "--encoder",
                "software",
            ]);
            assert_eq!(report["segments"], segments.min(most), "{name}: {report}");
            assert_eq!(report["frames"], times(&source).len(), "{name}: {report}");
            is_same_film(&source, &result, filter);
        }
    }
}

#[test]
fn films_without_much_in_them_are_encoded_too() {
    let Some(studio) = studio() else { return };
    let one = studio.film("one.mp4", 0.04, &[&H264[..], &["-frames:v", "1", "-an"]].concat());
    let report = studio.does(&["transcode", &one, "-o", "one.out.mp4", "--segments", "4"]);
    assert_eq!((&report["frames"], &report["segments"]), (&1.into(), &1.into()), "{report}");
    assert!(report["notes"].to_string().contains("no more key frames"), "{report}");

    let sound = studio.film("sound.flac", 3.0, &["-vn"]);
    let report = studio.does(&["transcode", &sound, "-o", "sound.m4a"]);
    assert_eq!((&report["frames"], &report["encoder"]), (&0.into(), &Value::Null), "{report}");
    decodes(&studio.text("sound.m4a"));
    studio.refuses(&["transcode", &sound, "-o", "none.mp4", "--audio-codec", "none"], 2, "has no video");

    let turned = studio.film("upright.mp4", 1.0, &[&H264[..], &["-an"]].concat());
    let turn = |before: &[&str], after: &[&str]| {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error", "-y"]).args(before).args(["-i", &turned, "-c", "copy"]).args(after);
        command.arg(studio.path("turned.mp4")).output().unwrap().status.success()
    };
    // Before 6.0 the side of a film is said by its stream's metadata.
    assert!(turn(&["-display_rotation", "90"], &[]) || turn(&[], &["-metadata:s:v:0", "rotate=90"]));
    assert_ne!(studio.does(&["probe", "turned.mp4"])["streams"][0]["rotation"], 0);
    studio.does(&["transcode", "turned.mp4", "-o", "turned.out.mp4"]);
    let film = studio.does(&["probe", "turned.out.mp4"]);
    let stream = &film["streams"][0];
    assert_eq!(
        (&stream["width"], &stream["height"], &stream["rotation"]),
        (&180.into(), &320.into(), &0.into()),
        "{film}"
    );
}

/// When the picture first turns white, and when the tone first sounds, after `after` seconds.
fn flash_and_tone(file: &str, after: f64) -> (f64, f64) {
    let raw = |words: &[&str]| {
        let output = Command::new("ffmpeg").args(["-v", "error", "-i", file]).args(words).arg("-").output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        output.stdout
    };
    let bright = raw(&["-map", "0:V:0", "-vf", "scale=1:1,format=gray", "-fps_mode", "passthrough", "-f", "rawvideo"]);
    let flash = times(file).into_iter().zip(bright).find(|(time, light)| *time > after && *light > 128).unwrap().0;
    let from_zero = "aresample=48000:async=1:first_pts=0";
    let samples = raw(&["-map", "0:a:0", "-af", from_zero, "-ac", "1", "-f", "s16le"]);
    let samples = samples.chunks_exact(2).map(|pair| i16::from_le_bytes([pair[0], pair[1]]));
    let mut timed = samples.enumerate().map(|(place, sample)| (place as f64 / 48_000.0, sample));
    (flash, timed.find(|(time, sample)| *time > after && sample.abs() > 4000).unwrap().0)
}

#[test]
fn sound_stays_with_its_picture_across_all_seams() {
    let Some(studio) = studio() else { return };
    let moments = "between(t,1,1.2)+between(t,3.4,3.6)+between(t,6.2,6.4)";
    let picture = format!("color=black:size=320x180:rate=25:duration=8,drawbox=color=white:t=fill:enable='{moments}'");
    let tone = format!("aevalsrc='({moments})*sin(2*PI*1000*t)':s=44100:d=8");
    let source = studio.text("clap.mp4");
    let inputs = ["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone];
    studio.ffmpeg(&[&inputs[..], &H264, &["-g", "25", "-c:a", "aac", &source]].concat());
    // The same with sound that begins later than the picture, and with a clock that begins at an odd moment.
    studio.ffmpeg(&[
        "-i",
        &source,
        "-ss",
        "0.5",
        "-i",
        &source,
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-c:v",
        "copy",
        "-af",
        "asetpts=PTS+0.5/TB",
        "-c:a",
        "aac",
        "late.mkv",
    ]);
    studio.ffmpeg(&["-i", &source, "-c", "copy", "-output_ts_offset", "1234.567", "clock.ts"]);
    for name in ["clap.mp4", "late.mkv", "clock.ts"] {
        let out = studio.text(&format!("{name}.out.mp4"));
        studio.does(&["transcode", name, "-o", &out, "--segments", "4", "--preset", "ultrafast"]);
        for after in [0.9, 3.0, 6.0] {
            let (flash, tone) = flash_and_tone(&out, after);
            assert!((flash - tone).abs() < 0.045, "{name}: picture at {flash}, sound at {tone}");
        }
    }
    // Cut and joined again, nothing has moved either.
    studio.does(&["split", "clap.mp4", "-o", "parts"]);
    let parts: Vec<String> = (0..4).map(|place| format!("parts/segment_{place}.mp4")).collect();
    let words: Vec<&str> =
        ["concat"].into_iter().chain(parts.iter().map(String::as_str)).chain(["-o", "joined.mp4"]).collect();
    studio.does(&words);
    for after in [0.9, 3.0, 6.0] {
        let (flash, tone) = flash_and_tone(&studio.text("joined.mp4"), after);
        assert!((flash - tone).abs() < 0.045, "picture at {flash}, sound at {tone}");
    }
}

fn picture_sums(file: &str) -> Vec<String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-i", file, "-map", "0:V:0", "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    let text = finish(&mut command);
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit(',').next().unwrap().trim().to_owned())
        .collect()
}

#[test]
fn what_is_cut_plays_alone_and_joined_again_is_the_film_to_the_bit() {
    let Some(studio) = studio() else { return };
    studio.plain(6.0);
    studio.film(
        "open.mkv",
        6.0,
        &[&H264[..], &["-x264-params", "open-gop=1:keyint=20:bframes=3", "-c:a", "aac"]].concat(),
    );
    studio.film("stream.ts", 6.0, &[&H264[..], &["-g", "20", "-bf", "2", "-c:a", "aac"]].concat());
    studio.film("raw.mkv", 6.0, &[&H264[..], &["-g", "20", "-c:a", "pcm_s16le"]].concat());
    // Groups of pictures that lean on the one before cannot be parted without encoding.
    let films = [("plain.mp4", "mp4", 3), ("open.mkv", "mp4", 1), ("stream.ts", "mp4", 3), ("raw.mkv", "mkv", 3)];
    for (name, ending, most) in films {
        let folder = format!("{name}.parts");
        let told = studio.does(&["split", name, "-o", &folder, "--segments", "3"]);
        let list: Value =
            serde_json::from_slice(&fs::read(studio.path(&folder).join("segments.json")).unwrap()).unwrap();
        assert_eq!(told, list);
        let segments = list["segments"].as_array().unwrap();
        assert_eq!((segments.len(), &list["frames"]), (most, &150.into()), "{name}: {list}");
        let mut parts = Vec::new();
        let mut frames = 0;
        for (place, segment) in segments.iter().enumerate() {
            let file = format!("{folder}/segment_{place}.{ending}");
            assert_eq!(segment["file"], format!("segment_{place}.{ending}"));
            let count = times(&studio.text(&file)).len();
            assert_eq!(segment["frames"], count, "{file}");
            // Each begins when the frames before it have been shown.
            assert!((segment["start"].as_f64().unwrap() - f64::from(frames) / 25.0).abs() < 0.045, "{segment}");
            decodes(&studio.text(&file));
            frames += count as i32;
            parts.push(file);
        }
        let joined = studio.text(&format!("{name}.joined.{ending}"));
        let words: Vec<&str> =
            ["concat"].into_iter().chain(parts.iter().map(String::as_str)).chain(["-o", &joined]).collect();
        assert_eq!(studio.does(&words)["frames"], 150);
        assert_eq!(picture_sums(&studio.text(name)), picture_sums(&joined), "{name}");
        decodes(&joined);
    }
    let sound = studio.film("long.m4a", 6.0, &["-vn", "-c:a", "aac"]);
    let told = studio.does(&["split", &sound, "-o", "sounds", "--segments", "3"]);
    assert_eq!(told["segments"].as_array().unwrap().len(), 3, "{told}");
}

#[test]
fn streams_can_be_taken_as_they_are() {
    let Some(studio) = studio() else { return };
    let source = studio.plain(3.0);
    studio.does(&["transcode", &source, "-o", "same.mkv", "--video-codec", "copy", "--audio-codec", "copy"]);
    assert_eq!(picture_sums(&source), picture_sums(&studio.text("same.mkv")));
    studio.does(&["transcode", &source, "-o", "sound.m4a", "--video-codec", "none", "--audio-codec", "copy"]);
    studio.does(&["transcode", &source, "-o", "mute.mov", "--audio-codec", "none", "--segments", "2"]);
    assert_eq!(studio.does(&["probe", "mute.mov"])["streams"].as_array().unwrap().len(), 1);
    let report = studio.does(&[
        "transcode",
        &source,
        "-o",
        "small.webm",
        "--video-codec",
        "vp9",
        "--audio-codec",
        "opus",
        "--preset",
        "8",
        "--crf",
        "10",
        "--segments",
        "2",
    ]);
    assert_eq!(report["encoder"], "libvpx-vp9");
    is_same_film(&source, &studio.text("small.webm"), "null");
    let report = studio.does(&[
        "transcode",
        &source,
        "-o",
        "new.mp4",
        "--video-codec",
        "hevc",
        "--preset",
        "ultrafast",
        "--crf",
        "18",
        "--segments",
        "3",
        "--encoder",
        "libx265",
    ]);
    assert_eq!(report["segments"], 3, "{report}");
    is_same_film(&source, &studio.text("new.mp4"), "null");
}

#[test]
fn a_listed_encoder_without_a_device_is_passed_over_and_said() {
    let Some(studio) = studio() else { return };
    let source = studio.plain(1.0);
    let listed = finish(Command::new("ffmpeg").args(["-v", "error", "-encoders"]));
    if !listed.contains("h264_nvenc") || Path::new("/dev/nvidia0").exists() {
        return eprintln!("skipped: this ffmpeg lists no h264_nvenc, or there is a device for it");
    }
    let report = studio.does(&["transcode", &source, "-o", "out.mp4"]);
    assert!(report["notes"].to_string().contains("no device for h264_nvenc") || report["hardware"] == true, "{report}");
    studio.refuses(
        &["transcode", &source, "-o", "no.mp4", "--encoder", "h264_nvenc"],
        1,
        "no encoder for h264 works here",
    );
}

#[test]
fn orders_that_cannot_be_are_refused_and_leave_nothing() {
    let Some(studio) = studio() else { return };
    let source = studio.plain(1.0);
    let large = ["-s", "640x360", "-g", "25", "-bf", "2", "-c:a", "aac"];
    studio.film("large.mp4", 1.0, &[&H264[..], &large].concat());
    studio.film("mute.mp4", 1.0, &[&H264[..], &["-an"]].concat());
    fs::write(studio.path("there.mp4"), "mine").unwrap();
    fs::create_dir(studio.path("folder")).unwrap();
    fs::write(studio.path("folder/letter"), "mine").unwrap();
    std::os::unix::fs::symlink(&source, studio.path("link.mp4")).unwrap();
    let transcode =
        |words: &[&str], code, told| studio.refuses(&[&["transcode", &source][..], words].concat(), code, told);
    transcode(&["-o", "there.mp4"], 2, "is there already; say --force");
    transcode(&["-o", &source, "--force"], 2, "read and written at once");
    transcode(&["-o", "link.mp4", "--force"], 2, "read and written at once");
    transcode(&["-o", "folder", "--force"], 2, "ends in none of");
    transcode(&["-o", "a.gif"], 2, "ends in none of");
    transcode(&["-o", "nowhere/a.mp4"], 1, "nowhere");
    transcode(&["-o", "a.mp4", "--crf", "60"], 2, "0 to 51");
    transcode(&["-o", "a.mp4", "--segments", "0"], 2, "between 1 and 1000");
    transcode(&["-o", "a.mp4", "--preset", "x:y=1"], 2, "--preset");
    transcode(&["-o", "a.mp4", "--preset", "swiftest"], 1, "no encoder for h264 works here");
    transcode(&["-o", "a.mp4", "--encoder", "libx265"], 2, "libx264");
    transcode(&["-o", "a.mp4", "--video-codec", "none", "--audio-codec", "none"], 2, "neither");
    transcode(&["-o", "a.mp4", "--max-duration", "500ms"], 1, "at most");
    transcode(&["-o", "a.webm"], 1, "joining failed");
    studio.refuses(&["transcode", "absent.mp4", "-o", "a.mp4"], 1, "absent.mp4 cannot be read");
    studio.refuses(&["transcode", "mute.mp4", "-o", "a.m4a", "--video-codec", "none"], 2, "has no sound");
    studio.refuses(&["split", &source, "-o", "folder"], 2, "is there already");
    studio.refuses(&["split", &source, "-o", "folder", "--force"], 2, "something else");
    studio.refuses(&["concat", &source, "large.mp4", "-o", "a.mp4"], 2, "its size is 640 × 360 instead of 320 × 180");
    studio.refuses(&["concat", &source, "mute.mp4", "-o", "a.mp4"], 2, "0 tracks of sound instead of 1 videos and 1");
    assert_eq!(fs::read(studio.path("there.mp4")).unwrap(), b"mine");
    assert_eq!(fs::read(studio.path("folder/letter")).unwrap(), b"mine");
    studio.does(&["transcode", &source, "-o", "there.mp4", "--force"]);
    decodes(&studio.text("there.mp4"));
}

#[test]
fn a_machine_without_ffmpeg_is_told_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let run = |path: &Path| {
        let mut command = Command::new(CAUDAL);
        command.args(["media", "probe", "film.mp4"]).env("PATH", path).current_dir(folder.path());
        command.output().unwrap()
    };
    let output = run(&folder.path().join("nothing"));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("ffmpeg is not on this machine") && said(&output).contains("apt-get install"));
    for name in ["ffmpeg", "ffprobe"] {
        let file = folder.path().join(name);
        fs::write(&file, "#!/bin/sh\necho ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let output = run(folder.path());
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("4.4.2") && said(&output).contains("at least 5.1"), "{}", said(&output));
}

/// Somebody who must not be called.
struct Ear(TcpListener);

impl Ear {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn address(&self) -> String {
        self.0.local_addr().unwrap().to_string()
    }

    fn heard_nothing(&self) {
        assert!(self.0.accept().is_err(), "somebody called");
    }
}

#[test]
fn films_that_lead_elsewhere_are_not_followed() {
    let Some(studio) = studio() else { return };
    let ear = Ear::new();
    let (address, secret) = (ear.address(), studio.plain(1.0));
    let hls = |target: &str| format!("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10.0,\n{target}\n#EXT-X-ENDLIST\n");
    let traps = [
        ("hls-file.mp4", hls("/etc/passwd"), "playlist (HLS"),
        ("hls-film.mp4", hls(&secret), "playlist (HLS"),
        ("hls-net.mp4", hls(&format!("http://{address}/a.ts")), "playlist (HLS"),
        ("hls-bom.ts", format!("\u{feff}{}", hls(&format!("http://{address}/a.ts"))), "playlist (HLS"),
        ("script.mp4", format!("ffconcat version 1.0\nfile {secret}\n"), "script for ffmpeg's concat"),
        ("list.mp4", format!("file '{secret}'\n"), "list of files"),
        ("dash.mp4", format!("<?xml version=\"1.0\"?><MPD><BaseURL>http://{address}/</BaseURL></MPD>"), "DASH"),
        ("call.mp4", format!("v=0\nc=IN IP4 127.0.0.1\nm=video {} RTP/AVP 96\n", &address[10..]), "SDP"),
        ("frame%d.mp4", "\u{89}PNG".to_owned(), "no kind that is known"),
    ];
    for (name, content, told) in &traps {
        fs::write(studio.path(name), content).unwrap();
        for words in [&["probe", name][..], &["transcode", name, "-o", "o.mp4"], &["split", name, "-o", "o"]] {
            studio.refuses(words, 1, told);
        }
        studio.refuses(&["concat", &secret, name, "-o", "o.mp4"], 1, told);
    }
    // A playlist behind the head of a film is what its head says: a film, and a broken one.
    let disguised =
        [b"\0\0\0\x18ftypisom\0\0\0\0isommp42".to_vec(), hls(&format!("http://{address}/a")).into_bytes()].concat();
    fs::write(studio.path("disguised.mp4"), disguised).unwrap();
    studio.refuses(&["transcode", "disguised.mp4", "-o", "o.mp4"], 1, "is no film that ffmpeg reads");
    // Addresses are names of files here, and of files that are not there.
    for name in [
        &format!("http://{address}/a.mp4"),
        &format!("concat:{secret}|{secret}"),
        &format!("tcp://{address}"),
        "pipe:0",
    ] {
        studio.refuses(&["transcode", name, "-o", "o.mp4"], 1, "cannot be read");
    }
    studio.refuses(&["probe", "/dev/zero"], 1, "no regular file");
    ear.heard_nothing();
}

#[test]
fn names_are_names_whatever_they_look_like() {
    let Some(studio) = studio() else { return };
    let source = studio.plain(1.0);
    for name in ["-y.mp4", "http:film.mp4", "concat:a|b.mp4", "100%d of 'it'.mp4", "film\nfile x.mp4", "sub:dir.mp4"] {
        fs::copy(&source, studio.path(name)).unwrap();
        let input = format!("./{name}");
        let out = format!("./out of {name}");
        studio.does(&["transcode", "-o", &out, "--preset", "ultrafast", "--", &input]);
        studio.does(&["split", "-o", &format!("./parts of {name}"), "--segments", "2", "--", &input]);
        studio.does(&["concat", "-o", &format!("./twice {name}"), "--", &input, &input]);
    }
    assert_eq!(studio.does(&["transcode", "-o", "last.mp4", "--", "-y.mp4"])["frames"], 25);
}

/// The box at `path` within `boxes`, replaced by `new`; those around it grow or shrink with it.
fn replaced(boxes: &[u8], path: &[&[u8; 4]], new: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), boxes);
    while rest.len() >= 8 {
        let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
        let (this, after) = rest.split_at(size);
        rest = after;
        if this[4..8] != path[0][..] {
            out.extend_from_slice(this);
            continue;
        }
        let inner = if path.len() == 1 { new.to_vec() } else { replaced(&this[8..], &path[1..], new) };
        out.extend_from_slice(&(inner.len() as u32 + 8).to_be_bytes());
        out.extend_from_slice(path[0]);
        out.extend_from_slice(&inner);
    }
    out
}

/// An entry of QuickTime's list of files that data lies in, naming `path`.
fn alias(path: &str) -> Vec<u8> {
    let mut alias = vec![0; 4 + 10];
    alias.push(3);
    alias.extend([b'd'; 27]);
    alias.extend([0; 12]);
    let name = path.rsplit('/').next().unwrap();
    alias.push(name.len() as u8);
    alias.extend(name.bytes().chain(std::iter::repeat(0)).take(63));
    alias.extend([0; 16]);
    alias.extend([0, 1, 0, 1]);
    alias.extend([0; 16]);
    alias.extend([0, 2]);
    alias.extend((path.len() as u16).to_be_bytes());
    alias.extend(path.bytes().chain(std::iter::repeat_n(0, path.len() % 2)));
    alias.extend([0xff, 0xff, 0, 0]);
    let mut list = vec![0, 0, 0, 0, 0, 0, 0, 1];
    list.extend((alias.len() as u32 + 8).to_be_bytes());
    list.extend(b"alis");
    list.extend(alias);
    list
}

#[test]
fn tracks_whose_data_lies_in_other_files_are_not_read() {
    let Some(studio) = studio() else { return };
    let secret = studio.film("secret.mov", 1.0, &[&H264[..], &["-an"]].concat());
    let film = fs::read(&secret).unwrap();
    let path: [&[u8; 4]; 6] = [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"];
    let mut thief = replaced(&film, &path, &alias(&secret));
    // The data itself is not there any more, so whoever sees frames has read the other file.
    let data = thief.windows(4).position(|window| window == b"mdat").unwrap();
    let size = u32::from_be_bytes(thief[data - 4..data].try_into().unwrap()) as usize;
    thief[data + 4..data - 4 + size].fill(0);
    fs::write(studio.path("thief.mov"), thief).unwrap();
    let reads = |words: &[&str]| {
        let mut command = Command::new("ffmpeg");
        command.args(["-v", "error"]).args(words).args(["-i", &studio.text("thief.mov"), "-f", "framemd5", "-"]);
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).count()
    };
    assert_eq!(reads(&["-enable_drefs", "1", "-use_absolute_path", "1"]), 25, "the trap is none");
    studio.refuses(&["transcode", "thief.mov", "-o", "o.mp4"], 1, "");
    studio.refuses(&["transcode", "thief.mov", "-o", "o.mp4", "--video-codec", "copy"], 1, "");
}

/// The kernel keeps ffmpeg from what is not its own, even if its own options did not.
#[test]
fn a_child_sees_its_files_and_nothing_else() {
    if !caudal_media::kernel_guards() {
        return eprintln!("skipped: this kernel has no Landlock");
    }
    let folder = tempfile::tempdir().unwrap();
    let (mine, theirs) = (folder.path().join("mine"), folder.path().join("theirs"));
    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    for file in [&mine, &theirs] {
        fs::write(file, "content").unwrap();
    }
    let ear = Ear::new();
    let guarded = |parent: u32, script: &str| {
        let mut command = Command::new(CAUDAL);
        command
            .args(["media", "guard", "--parent", &parent.to_string(), "--read"])
            .arg(&mine)
            .arg("--write")
            .arg(&work);
        command.args(["--", "/bin/bash", "-c", script]).output().unwrap()
    };
    let own = std::process::id();
    let script = format!("cat {}; cd {}; echo film > out; cat out", mine.display(), work.display());
    assert_eq!(said(&guarded(own, &script)), "contentfilm\n");
    for script in [
        &format!("cat {}", theirs.display()),
        "cat /etc/passwd",
        &format!("echo x > {}", mine.display()),
        &format!("echo x > {}/new", folder.path().display()),
        "kill -0 1 && cat /proc/1/environ",
    ] {
        let output = guarded(own, script);
        assert!(!output.status.success(), "{script}: {}", said(&output));
    }
    let output = guarded(own, &format!("exec 3<>/dev/tcp/{}", ear.address().replace(':', "/")));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) >= (Some(6), Some(7)) {
        assert!(!output.status.success(), "{}", said(&output));
        ear.heard_nothing();
    }
    let output = guarded(1, "echo ran");
    assert!(!said(&output).contains("ran\n") && said(&output).contains("the parent has gone"), "{}", said(&output));
}

/// A transcode that takes much longer than a test may.
fn long_work(studio: &Studio) -> Child {
    let size = ["-vf", "scale=1280:720", "-c:v", "mpeg4", "-q:v", "5", "-g", "25", "-c:a", "aac"];
    let source = studio.film("long.mp4", 12.0, &size);
    let words =
        ["transcode", &source, "-o", "out.mp4", "--preset", "placebo", "--segments", "2", "--encoder", "software"];
    studio.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The ffmpegs that encode segments for process `parent`.
fn encoders(parent: u32) -> Vec<i32> {
    let is_encoder = |pid: &i32| {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let stat = String::from_utf8_lossy(&read("stat")).into_owned();
        let of_parent =
            stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some(&parent.to_string());
        let words = String::from_utf8_lossy(&read("cmdline")).into_owned();
        of_parent && stat.contains("(ffmpeg)") && words.contains("/segment_")
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_encoder).collect()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn both_encode(child: &Child) -> Vec<i32> {
    let two = || Some(encoders(child.id())).filter(|pids| pids.len() == 2);
    until("two encoders should run", two)
}

fn are_gone(pids: &[i32]) {
    let is_there = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    until("encoders should be gone", || (!pids.iter().any(is_there)).then_some(()));
}

#[test]
fn an_encoder_that_is_killed_ends_all_and_leaves_nothing() {
    let Some(studio) = studio() else { return };
    let child = long_work(&studio);
    let pids = both_encode(&child);
    kill(Pid::from_raw(pids[0]), Signal::SIGKILL).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("was killed by signal 9"), "{}", said(&output));
    are_gone(&pids);
    assert_eq!(studio.entries(), ["long.mp4"]);
}

#[test]
fn ctrl_c_ends_all_and_leaves_nothing() {
    let Some(studio) = studio() else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let _ = fs::remove_file(studio.path("long.mp4"));
        let child = long_work(&studio);
        let pids = both_encode(&child);
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", said(&output));
        assert!(said(&output).contains("stopped; nothing was written"), "{}", said(&output));
        are_gone(&pids);
        assert_eq!(studio.entries(), ["long.mp4"]);
    }
}

#[test]
fn encoders_die_with_whoever_started_them() {
    let Some(studio) = studio() else { return };
    let mut child = long_work(&studio);
    let pids = both_encode(&child);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    are_gone(&pids);
    assert!(!studio.path("out.mp4").exists());
    // What could not be tidied then is tidied by whoever comes next.
    assert!(studio.entries().iter().any(|name| name.starts_with(".caudal-media-")));
    studio.does(&["transcode", "long.mp4", "-o", "sound.m4a", "--video-codec", "none"]);
    assert_eq!(studio.entries(), ["long.mp4", "sound.m4a"]);
}

#[test]
fn an_encoder_that_hangs_is_ended() {
    let Some(studio) = studio() else { return };
    let source = studio.plain(1.0);
    let hangs = r#"case "$*" in *segment_*) exec sleep 600;; *) exec "$FFMPEG" "$@";; esac"#;
    let path = studio.impostor(hangs);
    let before = studio.entries();
    let words = ["transcode", &source, "-o", "out.mp4", "--stall-timeout", "1s"];
    let output = studio.command(&words).env("PATH", format!("{}:/usr/bin:/bin", path.display())).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("made no progress for 1 s"), "{}", said(&output));
    assert_eq!(studio.entries(), before);
}

#[test]
fn a_result_that_is_not_the_source_is_not_kept() {
    let Some(studio) = studio() else { return };
    let source = studio.plain(2.0);
    let faults = [
        ("frames:v 40", "the number of frames should be 50 and is 40"),
        ("vf setpts=PTS*1.01,format=yuv420p", "the time of frame"),
        ("shortest -t 2 -af atempo=2.0", "the length of sound 0"),
    ];
    for (words, told) in faults {
        // Placed before the output, where the last of two equal options wins.
        let fault = format!(
            r#"case "$*" in *segment_*|*sound.mp4) ;; *) exec "$FFMPEG" "$@";; esac
case "$* {words}" in *segment_*-af*|*sound.mp4*-vf*|*sound.mp4*frames*|*list.ffconcat*) exec "$FFMPEG" "$@";; esac
for last; do :; done
n=$#; i=1
for word; do [ $i -lt $n ] && set -- "$@" "$word"; i=$((i+1)); done
shift $n
exec "$FFMPEG" "$@" -{words} "$last""#
        );
        let path = studio.impostor(&fault);
        let before = studio.entries();
        let order = ["transcode", &source, "-o", "out.mp4", "--encoder", "software"];
        let output = studio.command(&order).env("PATH", format!("{}:/usr/bin:/bin", path.display())).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words}: {}", said(&output));
        assert!(said(&output).contains(told), "{words}: {}", said(&output));
        assert_eq!(studio.entries(), before, "{words}");
        fs::remove_dir_all(path).unwrap();
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let Some(studio) = studio() else { return };
    let source = studio.film("noise.mp4", 6.0, &["-vf", "noise=alls=80:allf=t", "-c:v", "mpeg4", "-q:v", "2", "-an"]);
    let disk = studio.path("disk");
    fs::create_dir(&disk).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=600k", "tmpfs"]).arg(&disk).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return eprintln!("skipped: no small disk can be mounted here (that takes root)");
    }
    let output = studio.media(&["transcode", &source, "-o", "disk/out.mp4", "--preset", "ultrafast", "--crf", "5"]);
    let left = fs::read_dir(&disk).unwrap().count();
    finish(Command::new("umount").arg(&disk));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("no space is left"), "{}", said(&output));
    assert_eq!(left, 0);
}

#[test]
fn damaged_films_end_in_an_error_or_in_what_can_be_decoded() {
    let Some(studio) = studio() else { return };
    let source = studio.plain(4.0);
    let film = fs::read(&source).unwrap();
    fs::write(studio.path("half.mp4"), &film[..film.len() / 2]).unwrap();
    studio.refuses(&["transcode", "half.mp4", "-o", "o.mp4"], 1, "is no film that ffmpeg reads");
    studio.ffmpeg(&["-i", &source, "-c", "copy", "whole.ts"]);
    let mut stream = fs::read(studio.path("whole.ts")).unwrap();
    // It begins in the middle of a group, and lacks a piece.
    stream.drain(..stream.len() / 188 / 5 * 188);
    let middle = stream.len() / 2;
    stream[middle..middle + 4000].fill(0);
    fs::write(studio.path("torn.ts"), stream).unwrap();
    let output = studio.media(&["transcode", "torn.ts", "-o", "torn.mp4", "--segments", "2", "--json"]);
    // What one decoder makes of a torn place another may not, by its threads: then there is an error and no film.
    match output.status.code() {
        Some(0) => {
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let packets = ffprobe(&studio.text("torn.ts"), &["-select_streams", "v", "-show_entries", "packet=flags"]);
            let packets = packets.lines().filter(|line| !line.is_empty()).count();
            assert!(report["counted"] == true && report["frames"].as_u64().unwrap() < packets as u64, "{report}");
            assert_eq!(report["frames"], times(&studio.text("torn.mp4")).len(), "{report}");
        }
        _ => assert!(!studio.path("torn.mp4").exists(), "{}", said(&output)),
    }
    assert!(!studio.entries().iter().any(|name| name.starts_with('.')), "{:?}", studio.entries());
}
