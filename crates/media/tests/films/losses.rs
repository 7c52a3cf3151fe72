//! What a result lacks is said.

use std::fs;

use crate::{picture, studio};

fn says(notes: &[String], words: &str) {
    assert!(notes.iter().any(|note| note.contains(words)), "{words}: {notes:?}");
}

#[test]
fn streams_that_are_left_out_are_named() {
    let Some(studio) = studio() else { return };
    studio.film("base.mp4", 2, "-c:a aac");
    fs::write(studio.path("words.srt"), "1\n00:00:00,500 --> 00:00:01,500\nhola\n").unwrap();
    studio.ffmpeg("-i base.mp4 -i words.srt -map 0 -map 1 -c copy -c:s mov_text words.mp4");
    let expected = "1 subtitle track was left out (mov_text)";
    says(&studio.split("words.mp4", "parts", 2).unwrap().notes, expected);
    says(&studio.transcode("words.mp4", "out.mp4", 1).unwrap().notes, expected);
    says(&studio.concat(&["words.mp4", "words.mp4"], "two.mp4").unwrap().notes, expected);
    assert!(studio.transcode("base.mp4", "out.mp4", 1).unwrap().notes.is_empty());
}

#[test]
fn what_encoding_takes_away_is_named() {
    let Some(studio) = studio() else { return };
    let films = [
        ("alpha.mov", "-c:v qtrle -pix_fmt argb", "transparency"),
        ("alpha.webm", "-c:v libvpx -pix_fmt yuva420p -auto-alt-ref 0", "transparency"),
        ("fields.mpg", "-c:v mpeg2video -vf setfield=tff -flags +ilme+ildct", "interlaced"),
        ("deep.mkv", "-c:v ffv1 -pix_fmt yuv422p10le", "10 bits"),
    ];
    for (name, codec, expected) in films {
        studio.ffmpeg(&format!("{} {codec} {name}", picture(1)));
        says(&studio.transcode(name, "out.mp4", 1).unwrap().notes, expected);
    }
}
