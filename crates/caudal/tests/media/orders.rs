//! Orders that cannot be followed, and machines that cannot follow them.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use serde_json::Value;

use crate::{CAUDAL, H264, decodes, ffprobe, said, studio, times};

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
