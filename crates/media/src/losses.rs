//! What a result lacks that its source has, in words for people.

use crate::{
    encoder::VideoCodec,
    film::{Film, Kind, Stream},
};

/// The streams that are not taken: one note for all of a kind.
pub(crate) fn left_out(film: &Film) -> Vec<String> {
    let mut notes = Vec::new();
    let videos = film.streams.iter().filter(|stream| stream.kind == Kind::Video).count();
    if videos > 1 {
        notes.push(format!("the first of {videos} videos was taken"));
    }
    for (kind, one, many) in [
        (Kind::Subtitle, "subtitle track was", "subtitle tracks were"),
        (Kind::Cover, "cover was", "covers were"),
        (Kind::Other, "stream of data was", "streams of data were"),
    ] {
        let codecs: Vec<&str> =
            film.streams.iter().filter(|stream| stream.kind == kind).map(|stream| stream.codec.as_str()).collect();
        if !codecs.is_empty() {
            let words = if codecs.len() == 1 { one } else { many };
            notes.push(format!("{} {words} left out ({})", codecs.len(), codecs.join(", ")));
        }
    }
    notes
}

/// What encoding takes away from `video`.
pub(crate) fn in_encoding(video: &Stream, codec: VideoCodec) -> Vec<String> {
    let mut notes = Vec::new();
    let pixels = video.pix_fmt.as_deref().unwrap_or("unknown");
    if video.alpha {
        notes.push(format!("transparency (alpha, {pixels}) was left out"));
    }
    if video.interlaced {
        notes.push("the video is interlaced: frames keep both of their fields, and are not marked as such".to_owned());
    }
    let bits = bits(pixels);
    let most = if matches!(codec, VideoCodec::Hevc | VideoCodec::Av1) { 10 } else { 8 };
    if bits > most {
        notes.push(format!("{bits} bits a sample ({pixels}) became {most}"));
    }
    notes
}

/// Bits of a sample, by the name of the layout: `yuv420p10le` has 10.
fn bits(pixels: &str) -> u32 {
    let name = pixels.trim_end_matches("le").trim_end_matches("be");
    let planar = name.rsplit_once('p').map_or("", |(_, digits)| digits);
    let gray = name.strip_prefix("gray").unwrap_or_default();
    planar.parse().or_else(|_| gray.parse()).ok().filter(|bits| (9..=16).contains(bits)).unwrap_or(8)
}

/// A line by which ffmpeg says that the source is damaged. Libraries write what they like beside that.
pub(crate) fn complaint(line: &str) -> Option<String> {
    const SIGNS: [&str; 7] = ["rror", "nvalid", "orrupt", "concealing", "non-existing", "missing", "truncat"];
    let words = line.split_once("] ").map_or(line, |(_, words)| words).trim();
    let from_decoder = line.starts_with('[') || line.starts_with("Error while decoding");
    (from_decoder && !line.starts_with("Svt[") && SIGNS.iter().any(|sign| words.contains(sign)))
        .then(|| words.chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_named() {
        for (pixels, expected) in [
            ("yuv420p", 8),
            ("yuv420p10le", 10),
            ("yuva444p12be", 12),
            ("gray16le", 16),
            ("nv12", 8),
            ("rgb24", 8),
            ("gbrp14le", 14),
            ("unknown", 8),
        ] {
            assert_eq!(bits(pixels), expected, "{pixels}");
        }
        let video = Stream { pix_fmt: Some("yuva420p10le".into()), alpha: true, interlaced: true, ..Stream::default() };
        assert_eq!(in_encoding(&video, VideoCodec::H264).len(), 3);
        assert_eq!(in_encoding(&video, VideoCodec::Hevc).len(), 2);
        assert!(in_encoding(&Stream::default(), VideoCodec::H264).is_empty());
    }
}
