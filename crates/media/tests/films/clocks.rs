//! Time stamps that begin anywhere, wrap, or run back.

use std::fs;

use caudal_media::MediaError;

use crate::{same_times, studio};

const FLASH: &str = "-f lavfi -i color=black:size=64x48:rate=10:duration=6,drawbox=color=white:t=fill:enable='gte(t,2.5)*lt(t,2.8)' \
                     -f lavfi -i aevalsrc=sin(2*PI*1000*t)*gte(t\\,2.5)*lt(t\\,2.8):d=6:s=48000";

#[test]
fn a_recording_that_begins_between_key_frames_keeps_sound_and_picture_together() {
    let Some(studio) = studio() else { return };
    studio.ffmpeg(&format!("{FLASH} {} -c:a aac whole.ts", crate::H264));
    studio.ffmpeg("-i whole.ts -c copy -bsf:v noise=drop=eq(n\\,0) begins.ts");
    let (right, frames) = (studio.lag("begins.ts"), studio.frames("begins.ts"));
    assert!(frames.len() < 59, "{} frames are decoded", frames.len());
    for segments in [1, 3] {
        let report = studio.transcode("begins.ts", "out.mp4", segments).unwrap();
        assert_eq!((report.frames, report.segments), (frames.len() as u64, segments));
        assert!(report.notes.iter().any(|note| note.contains("make no frame")), "{:?}", report.notes);
        let lag = studio.lag("out.mp4");
        assert!((lag - right).abs() < 0.05, "{segments} segments: sound is {lag} s after the picture, not {right} s");
        same_times(&frames, &studio.frames("out.mp4"));
    }
    studio.copy("begins.ts", "out.mkv").unwrap();
    same_times(&frames, &studio.frames("out.mkv"));
    assert!((studio.lag("out.mkv") - right).abs() < 0.003, "copied sound stays where it was");
}

#[test]
fn a_clock_that_wraps_goes_on() {
    let Some(studio) = studio() else { return };
    studio.film("wraps.ts", 4, "-c:a aac -output_ts_offset 95440");
    let frames = studio.frames("wraps.ts");
    studio.transcode("wraps.ts", "out.mp4", 3).unwrap();
    same_times(&frames, &studio.frames("out.mp4"));
    assert_eq!(studio.beeps("out.mp4").len(), 4);
    let (parts, whole) = studio.again("wraps.ts", 3);
    assert_eq!(parts, 3);
    same_times(&frames, &studio.frames(&whole));
}

#[test]
fn recordings_put_together_byte_by_byte_are_one_film() {
    let Some(studio) = studio() else { return };
    studio.film("one.ts", 3, "-c:a aac");
    let one = fs::read(studio.path("one.ts")).unwrap();
    fs::write(studio.path("thrice.ts"), one.repeat(3)).unwrap();
    let report = studio.transcode("thrice.ts", "out.mp4", 2).unwrap();
    assert_eq!(report.frames, 90);
    assert!(report.notes.iter().any(|note| note.contains("3 recordings")), "{:?}", report.notes);
    let beeps = studio.beeps("out.mp4");
    assert_eq!(beeps.len(), 9, "{beeps:?}");
    // Where each recording begins, its sound begins with it, by samples and by time stamps.
    let frames = studio.frames("out.mp4");
    for recording in 0..3 {
        let (frame, beep) = (frames[30 * recording].0 - frames[0].0, beeps[3 * recording] - beeps[0]);
        assert!((frame - beep).abs() < 0.05, "recording {recording}: picture at {frame}, sound at {beep}");
    }
    assert!((1..90).all(|place| frames[place].0 > frames[place - 1].0), "frames follow each other");
    // The same without encoding.
    let (_, whole) = studio.again("thrice.ts", 3);
    same_times(&frames, &studio.frames(&whole));
}

#[test]
fn time_stamps_that_run_back_elsewhere_are_refused_for_what_they_are() {
    let Some(studio) = studio() else { return };
    studio.film("film.flv", 2, "-c:a aac");
    // A recorder that was started again writes to the same file: its tags begin at 0 once more.
    let film = fs::read(studio.path("film.flv")).unwrap();
    fs::write(studio.path("back.flv"), [&film[..], &film[13..]].concat()).unwrap();
    let before = studio.entries();
    match studio.transcode("back.flv", "out.mp4", 1) {
        Err(error @ MediaError::RunsBack { .. }) => assert!(error.to_string().contains("run back"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(studio.entries(), before);
}
