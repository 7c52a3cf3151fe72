//! Films put one after the other.

use caudal_media::MediaError;

use crate::{beeps, picture, studio};

#[test]
fn sound_does_not_move_away_from_the_picture_film_by_film() {
    let Some(studio) = studio() else { return };
    // In Matroska the picture begins as much later as the pre-skip of Opus is long, which is part of each film.
    for (name, more, whole, lasts) in
        [("a.mp4", "-c:a aac", "out.mp4", 2.0), ("a.mkv", "-c:a libopus", "out.mkv", 2.007)]
    {
        studio.film(name, 2, more);
        studio.concat(&[name; 5], whole).unwrap();
        let (frames, beeps) = (studio.frames(whole), studio.beeps(whole));
        assert_eq!((frames.len(), beeps.len()), (100, 10), "{name}");
        for film in 0..5 {
            let frame = frames[20 * film].0 - frames[0].0;
            assert!((frame - lasts * film as f64).abs() < 0.003, "{name}: film {film} begins at {frame}");
            let beep = beeps[2 * film] - beeps[0];
            assert!((beep - frame).abs() < 0.03, "{name}: film {film} begins at {frame} and is heard at {beep}");
        }
    }
}

#[test]
fn sound_that_outlasts_its_picture_is_waited_for_and_pauses_are_said() {
    let Some(studio) = studio() else { return };
    let make = |name: &str, video: u32, sound: u32| {
        studio.ffmpeg(&format!("{} {} {} -c:a aac {name}", picture(video), beeps(sound), crate::H264));
    };
    make("long.mp4", 2, 3);
    make("short.mp4", 3, 2);
    let joined = studio.concat(&["long.mp4", "short.mp4", "long.mp4"], "out.mp4").unwrap();
    let frames = studio.frames("out.mp4");
    assert!((frames[20].0 - frames[0].0 - 3.0).abs() < 0.03, "the second begins when the first's sound has ended");
    assert!(
        joined.notes.iter().any(|note| note.contains("silent for 1.0") || note.contains("silent for 0.9")),
        "{:?}",
        joined.notes
    );
    assert_eq!(studio.beeps("out.mp4").len(), 8);
}

#[test]
fn what_an_edit_list_hides_stays_hidden_or_the_order_is_refused() {
    let Some(studio) = studio() else { return };
    studio.film("base.mp4", 4, "-c:a aac");
    studio.ffmpeg("-ss 1.4 -i base.mp4 -c copy cut.mp4");
    let shown = studio.frames("cut.mp4").len();
    assert!(shown < 30, "{shown} frames are shown");
    let before = studio.entries();
    for (inputs, output) in [
        (&["cut.mp4", "cut.mp4"][..], "two.mp4"),
        (&["base.mp4", "cut.mp4"], "two.mp4"),
        (&["cut.mp4", "base.mp4"], "two.mkv"),
    ] {
        let refused = studio.concat(inputs, output);
        assert!(matches!(refused, Err(MediaError::Hidden { .. })), "{refused:?}");
    }
    assert_eq!(studio.entries(), before);
    studio.concat(&["cut.mp4", "base.mp4"], "two.mp4").unwrap();
    assert_eq!(studio.frames("two.mp4").len(), shown + 40);
    let (_, whole) = studio.again("cut.mp4", 2);
    assert_eq!(studio.frames(&whole).len(), shown);
    assert_eq!(studio.transcode("cut.mp4", "out.mp4", 2).unwrap().frames, shown as u64);
    studio.copy("cut.mp4", "same.mp4").unwrap();
    assert_eq!(studio.frames("same.mp4").len(), shown);
    let refused = studio.copy("cut.mp4", "same.mkv");
    assert!(matches!(refused, Err(MediaError::Mismatch { .. })), "{refused:?}");
    assert!(!studio.path("same.mkv").exists());
}
