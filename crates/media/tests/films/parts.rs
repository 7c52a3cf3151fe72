//! Films cut into parts, which are joined again: nothing is lost, and nothing has moved.

use caudal_media::MediaError;

use crate::{beeps, picture, same_frames, same_times, studio};

/// Pauses before key frames, as of a screen or a camera that wakes.
const PAUSES: &str =
    "-vf setpts=PTS+floor(N/10)*3/TB -fps_mode vfr -enc_time_base 1/90000 -force_key_frames expr:not(mod(n,10))";

#[test]
fn pauses_of_a_variable_frame_rate_stay() {
    let Some(studio) = studio() else { return };
    for (name, more) in [("pauses.mp4", ""), ("pauses.mov", "-c:a pcm_s16le")] {
        let sound = if more.is_empty() { String::new() } else { beeps(14) };
        studio.ffmpeg(&format!("{} {sound} {} {PAUSES} {more} {name}", picture(4), crate::H264));
        let source = studio.frames(name);
        assert!(source.last().unwrap().0 > 12.0, "{name}");
        let pieces = studio.split(name, "parts", 4).unwrap();
        let starts: Vec<f64> = pieces.segments.iter().map(|piece| piece.start.round()).collect();
        assert_eq!(starts, [0.0, 4.0, 8.0, 12.0], "{name}: {pieces:?}");
        assert!((pieces.segments[0].seconds - 4.0).abs() < 0.002, "{name}: the pause belongs to the part before it");
        let (_, whole) = studio.rejoin(&pieces);
        same_frames(&source, &studio.frames(&whole));
    }
}

#[test]
fn sound_of_all_kinds_has_no_holes_where_parts_meet() {
    let Some(studio) = studio() else { return };
    let films = [
        ("ntsc.mp4", "-r 30000/1001 -c:a aac"),
        ("pcm.mov", "-c:a pcm_s16le"),
        ("flac.mkv", "-c:a flac"),
        ("opus.mkv", "-c:v libvpx -deadline realtime -cpu-used 8 -c:a libopus"),
    ];
    for (name, more) in films {
        studio.film(name, 3, more);
        let source = studio.frames(name);
        let (parts, whole) = studio.again(name, 2);
        assert_eq!(parts, 2, "{name}");
        same_frames(&source, &studio.frames(&whole));
        let (before, after) = (studio.beeps(name), studio.beeps(&whole));
        assert_eq!(before.len(), after.len(), "{name}");
        let moved = |place: usize| ((after[place] - after[0]) - (before[place] - before[0])).abs();
        assert!((0..before.len()).all(|place| moved(place) < 0.002), "{name}: {before:?} {after:?}");
    }
}

#[test]
fn every_part_has_every_track() {
    let Some(studio) = studio() else { return };
    let sounds = format!("{} -f lavfi -i sine=duration=2", beeps(4));
    studio.ffmpeg(&format!("{} {sounds} {} -map 0 -map 1 -map 2 -c:a aac short.mp4", picture(6), crate::H264));
    let pieces = studio.split("short.mp4", "parts", 6).unwrap();
    assert_eq!(pieces.segments.len(), 2, "the shortest sound ends after 2 s: {pieces:?}");
    assert!(pieces.notes.iter().any(|note| note.contains("no more sound")), "{pieces:?}");
    let source = studio.frames("short.mp4");
    let (_, whole) = studio.again("short.mp4", 6);
    assert_eq!(source.len(), studio.frames(&whole).len());
}

#[test]
fn sound_alone_is_cut_and_joined() {
    let Some(studio) = studio() else { return };
    for (name, codec) in [("a.m4a", "aac"), ("a.flac", "flac")] {
        studio.ffmpeg(&format!("{} -c:a {codec} {name}", beeps(6)));
        let (parts, whole) = studio.again(name, 3);
        assert_eq!(parts, 3, "{name}");
        let (before, after) = (studio.beeps(name), studio.beeps(&whole));
        assert_eq!(before.len(), after.len(), "{name}");
        assert!(
            before.iter().zip(&after).all(|(one, other)| (one - other).abs() < 0.03),
            "{name}: {before:?} {after:?}"
        );
    }
}

/// A program stream does not say when each of its frames is shown, and a container that must say so gets it wrong.
#[test]
fn frames_without_time_stamps_are_compared_by_decoding() {
    let Some(studio) = studio() else { return };
    studio.ffmpeg(&format!("{} -c:v mpeg2video -g 10 -bf 2 -r 25 frames.mpg", picture(2)));
    let source = studio.frames("frames.mpg");
    let before = studio.entries();
    let refused = studio.split("frames.mpg", "parts", 2).map(|_| ());
    assert!(matches!(refused, Err(MediaError::Mismatch { .. })), "{refused:?}");
    assert!(!format!("{refused:?}").contains(".caudal-media"), "names of work are told: {refused:?}");
    assert_eq!(studio.entries(), before);
    studio.transcode("frames.mpg", "out.mp4", 2).unwrap();
    same_times(&source, &studio.frames("out.mp4"));
}
