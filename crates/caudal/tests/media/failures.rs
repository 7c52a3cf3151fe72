//! Work that is ended half way, or whose result is no good: nothing is left of it.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Studio, finish, said, studio};

/// How long may pass until what must happen has happened.
const PATIENCE: Duration = Duration::from_secs(60);

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
fn a_copy_whose_sound_has_moved_is_not_kept() {
    let Some(studio) = studio() else { return };
    let source = studio.plain(2.0);
    // 54 ms later than it should be, in what was joined and in the last part.
    let fault = r#"case "$*" in *list.ffconcat*|*segment_*) ;; *) exec "$FFMPEG" "$@";; esac
for last; do :; done
n=$#; i=1
for word; do [ $i -lt $n ] && set -- "$@" "$word"; i=$((i+1)); done
shift $n
exec "$FFMPEG" "$@" -bsf:1 setts=pts=PTS+2400:dts=DTS+2400 "$last""#;
    let path = studio.impostor(fault);
    let before = studio.entries();
    for order in [["concat", &source, "-o", "out.mp4"], ["split", &source, "-o", "parts"]] {
        let output = studio.command(&order).env("PATH", format!("{}:/usr/bin:/bin", path.display())).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{order:?}: {}", said(&output));
        assert!(said(&output).contains("the result differs from its source"), "{order:?}: {}", said(&output));
        assert_eq!(studio.entries(), before, "{order:?}");
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
