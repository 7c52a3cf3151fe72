//! What kind of file something is, by its first bytes alone. ffmpeg is told which reader to take and may take no other,
//! so what a file is called, or what else ffmpeg might see in it, does not matter.

/// Containers that are opened. None of them makes ffmpeg open another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Container {
    /// MP4, QuickTime and their kin.
    Mov,
    /// Matroska and WebM.
    Matroska,
    /// MPEG transport streams.
    MpegTs,
    /// MPEG program streams.
    MpegPs,
    /// AVI.
    Avi,
    /// Flash video.
    Flv,
    /// Ogg.
    Ogg,
    /// WAV.
    Wav,
    /// MP3.
    Mp3,
    /// FLAC.
    Flac,
    /// AAC in ADTS.
    Aac,
}

impl Container {
    /// The name of ffmpeg's reader.
    pub fn demuxer(self) -> &'static str {
        match self {
            Self::Mov => "mov",
            Self::Matroska => "matroska",
            Self::MpegTs => "mpegts",
            Self::MpegPs => "mpeg",
            Self::Avi => "avi",
            Self::Flv => "flv",
            Self::Ogg => "ogg",
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
            Self::Flac => "flac",
            Self::Aac => "aac",
        }
    }

    /// Whether it has an index of key frames, so that a seek lands on the one that is meant.
    pub(crate) fn has_index(self) -> bool {
        matches!(self, Self::Mov | Self::Matroska)
    }
}

/// How many bytes [`sniff`] wants to see; fewer where the file is shorter.
pub(crate) const HEAD: usize = 4096;
/// Kinds of boxes with which an MP4 or QuickTime file begins.
const BOXES: [&[u8; 4]; 7] = [b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"];

/// What `head` is the beginning of; else what it seems to be, in words.
pub(crate) fn sniff(head: &[u8]) -> Result<Container, &'static str> {
    let at = |from: usize, bytes: &[u8]| head.get(from..from + bytes.len()) == Some(bytes);
    if head.get(4..8).is_some_and(|kind| BOXES.iter().any(|known| *known == kind)) {
        return Ok(Container::Mov);
    }
    if at(0, b"\x1a\x45\xdf\xa3") {
        return Ok(Container::Matroska);
    }
    if at(0, b"RIFF") || at(0, b"RF64") {
        return riff(head.get(8..).unwrap_or_default());
    }
    match () {
        () if at(0, b"FLV\x01") => Ok(Container::Flv),
        () if at(0, b"OggS") => Ok(Container::Ogg),
        () if at(0, b"fLaC") => Ok(Container::Flac),
        () if at(0, b"ID3") => Ok(Container::Mp3),
        () if at(0, b"\x00\x00\x01\xba") => Ok(Container::MpegPs),
        () if is_transport(head, 0, 188) || is_transport(head, 4, 192) => Ok(Container::MpegTs),
        () => elementary(head),
    }
}

fn riff(kind: &[u8]) -> Result<Container, &'static str> {
    match kind.get(..4) {
        Some(b"AVI ") => Ok(Container::Avi),
        Some(b"WAVE") => Ok(Container::Wav),
        _ => Err("a RIFF file that is neither AVI nor WAV"),
    }
}

/// A transport stream has its sync byte at the beginning of each packet.
fn is_transport(head: &[u8], first: usize, packet: usize) -> bool {
    (0..3).all(|place| head.get(first + place * packet) == Some(&0x47))
}

/// Sound without a container: frames begin with eleven or twelve ones.
fn elementary(head: &[u8]) -> Result<Container, &'static str> {
    match head {
        [0xff, second, ..] if second & 0xf6 == 0xf0 => Ok(Container::Aac),
        [0xff, second, third, ..] if second & 0xe6 == 0xe2 && third & 0xf0 != 0xf0 => Ok(Container::Mp3),
        _ => Err(suspect(head)),
    }
}

/// Texts that ffmpeg would follow to other files, named so that people know why they are refused.
fn suspect(head: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(head).to_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    const TEXTS: [(&str, &str); 7] = [
        ("#extm3u", "a playlist (HLS or M3U)"),
        ("ffconcat", "a script for ffmpeg's concat"),
        ("[playlist]", "a playlist (PLS)"),
        ("v=0", "a description of a session (SDP)"),
        ("<smil", "a playlist (SMIL)"),
        ("<asx", "a playlist (ASX)"),
        ("file ", "a list of files"),
    ];
    match TEXTS.iter().find(|(begin, _)| text.starts_with(begin)) {
        Some((_, words)) => words,
        None if text.contains("<mpd") => "a playlist (DASH)",
        None if head.is_empty() => "empty",
        None => "of no kind that is known here",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &[u8], expected: Result<Container, &'static str>) {
        assert_eq!(sniff(head), expected, "{head:?}");
    }

    #[test]
    fn films_are_known_by_their_first_bytes() {
        check(b"\0\0\0\x20ftypisom", Ok(Container::Mov));
        check(b"\x1a\x45\xdf\xa3....", Ok(Container::Matroska));
        check(b"RIFF....AVI LIST", Ok(Container::Avi));
        check(b"RIFF....WAVEfmt ", Ok(Container::Wav));
        check(b"FLV\x01\x05", Ok(Container::Flv));
        check(b"OggS\0\x02", Ok(Container::Ogg));
        check(b"\xff\xfb\x90\x44", Ok(Container::Mp3));
        check(b"\xff\xf1\x50\x80", Ok(Container::Aac));
        let mut transport = vec![0; 600];
        for place in [0, 188, 376] {
            transport[place] = 0x47;
        }
        check(&transport, Ok(Container::MpegTs));
    }

    #[test]
    fn what_leads_elsewhere_is_called_by_its_name() {
        check(b"#EXTM3U\n#EXT-X-VERSION:3", Err("a playlist (HLS or M3U)"));
        check(b"\xef\xbb\xbf#EXTM3U", Err("a playlist (HLS or M3U)"));
        check(b"ffconcat version 1.0\nfile /etc/passwd", Err("a script for ffmpeg's concat"));
        check(b"file '/etc/passwd'", Err("a list of files"));
        check(b"<?xml version=\"1.0\"?>\n<MPD xmlns=", Err("a playlist (DASH)"));
        check(b"v=0\no=- 0 0 IN IP4", Err("a description of a session (SDP)"));
        check(b"RIFF....WEBPVP8 ", Err("a RIFF file that is neither AVI nor WAV"));
        check(b"RIFF", Err("a RIFF file that is neither AVI nor WAV"));
        check(b"", Err("empty"));
        check(b"\x89PNG\r\n", Err("of no kind that is known here"));
    }

    #[test]
    fn nothing_makes_it_stumble() {
        for length in 0..64 {
            for byte in [0, 0x47, 0xff, b'R'] {
                let _ = sniff(&vec![byte; length]);
            }
        }
    }
}
