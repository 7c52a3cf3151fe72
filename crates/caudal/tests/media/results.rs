//! What is made is what its source is: frame by frame, with its sound, in any number of parts.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{H264, decodes, finish, is_same_film, said, studio, times};

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
fn a_transcode_reports_the_whole_length() {
    let Some(studio) = studio() else { return };
    for (name, words) in [("ten.mp4", &["-vf", "fps=10", "-an"][..]), ("ten.mkv", &["-vf", "fps=10", "-c:a", "aac"])] {
        let source = studio.film(name, 6.0, &[&H264[..], words].concat());
        for segments in ["1", "2"] {
            let result = format!("{segments}.{name}");
            let report = studio.does(&["transcode", &source, "-o", &result, "--segments", segments]);
            let seconds = report["seconds"].as_f64().unwrap();
            let head = studio.does(&["probe", &result])["seconds"].as_f64().unwrap();
            assert!((seconds - head).abs() < 0.05, "{name}: {seconds} s are reported of {head} s: {report}");
        }
    }
}
