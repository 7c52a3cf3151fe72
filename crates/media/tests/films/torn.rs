//! Files whose end is missing, or whose middle is damaged.

use std::fs;

use caudal_media::MediaError;

use crate::{beeps, studio};

#[test]
fn a_file_whose_end_is_missing_is_not_whole() {
    let Some(studio) = studio() else { return };
    studio.film("base.mp4", 3, "-c:a aac -movflags +faststart");
    for (name, more) in
        [("a.mkv", "-c copy"), ("a.flv", "-c copy"), ("a.avi", "-c copy"), ("a.mov", "-c copy -movflags +faststart")]
    {
        studio.ffmpeg(&format!("-i base.mp4 {more} {name}"));
    }
    studio.ffmpeg(&format!("{} -c:a pcm_s16le a.wav", beeps(3)));
    studio.ffmpeg(&format!("{} -c:a flac a.flac", beeps(3)));
    studio.ffmpeg(&format!("{} -c:a libvorbis a.ogg", beeps(3)));
    studio.ffmpeg(&format!("{} -c:a libmp3lame a.mp3", beeps(3)));
    for name in ["base.mp4", "a.mkv", "a.flv", "a.avi", "a.mov", "a.wav", "a.flac", "a.ogg", "a.mp3"] {
        let whole = fs::read(studio.path(name)).unwrap();
        let torn = format!("torn.{name}");
        assert_eq!(studio.work(|workshop| workshop.probe(&studio.path(name))).unwrap().torn, None, "{name}");
        fs::write(studio.path(&torn), &whole[..whole.len() * 7 / 10]).unwrap();
        let probed = studio.work(|workshop| workshop.probe(&studio.path(&torn)));
        // Of a small Ogg so little is left that ffprobe makes nothing of it, and the end of a FLAC is known by its packets.
        let is_told = matches!(&probed, Err(MediaError::Broken { .. })) || probed.is_ok_and(|film| film.torn.is_some());
        assert!(is_told || name == "a.flac", "{name}");
    }
    let before = studio.entries();
    for torn in ["torn.base.mp4", "torn.a.flac"] {
        let refused = studio.transcode(torn, "out.mp4", 1).map(|_| ());
        assert!(matches!(refused, Err(MediaError::Torn { .. })), "{torn}: {refused:?}");
    }
    assert!(matches!(studio.split("torn.a.mkv", "torn", 2), Err(MediaError::Torn { .. })));
    assert!(matches!(studio.concat(&["torn.a.mkv", "torn.a.mkv"], "out.mkv"), Err(MediaError::Torn { .. })));
    assert_eq!(studio.entries(), before, "something is left");
}

#[test]
fn damage_that_a_decoder_conceals_is_said() {
    let Some(studio) = studio() else { return };
    studio.film("base.ts", 4, "-c:a aac");
    let mut stream = fs::read(studio.path("base.ts")).unwrap();
    let middle = stream.len() / 2 / 188 * 188;
    stream[middle..middle + 20 * 188].fill(0);
    fs::write(studio.path("damaged.ts"), &stream).unwrap();
    // Decoders may differ in what they make of it by how they are threaded: then nothing is written.
    if let Ok(report) = studio.transcode("damaged.ts", "out.mp4", 1) {
        assert!(!report.notes.is_empty(), "{report:?}");
    }
    fs::write(studio.path("end.ts"), &stream[..middle - 100]).unwrap();
    let report = studio.transcode("end.ts", "out.mp4", 1).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("end is missing")), "{report:?}");
}
