//! The segments of a JPEG, walked without decoding anything: they hold what turbojpeg does not tell.

use std::iter;

/// Marker of an application's segment; cameras keep EXIF there.
pub(crate) const APP1: u8 = 0xe1;
/// Marker of a scan: its header is the segment's content, its data follows.
pub(crate) const SOS: u8 = 0xda;
/// Marker of the end.
pub(crate) const EOI: u8 = 0xd9;

/// Marker and content of each segment of the JPEG in `bytes`, in their order; the last is [`EOI`] if the file is whole.
///
/// What lies between segments is passed over: the data of scans with its restart markers, and stray bytes.
pub(crate) fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes.get(2..).unwrap_or_default();
    iter::from_fn(move || {
        loop {
            // An FF before a 0 belongs to a scan's data, an FF before another is filling.
            let at = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff))?;
            let marker = rest[at + 1];
            rest = &rest[at + 2..];
            match marker {
                // These stand alone.
                0x01 | 0xd0..=0xd8 => {}
                EOI => {
                    rest = &[];
                    return Some((EOI, rest));
                }
                _ => {
                    // A length counts itself; one too small for that is passed over, as libjpeg does.
                    let length = usize::from(u16::from_be_bytes(*rest.first_chunk()?)).max(2);
                    let content = rest.get(2..length)?;
                    rest = &rest[length..];
                    return Some((marker, content));
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn markers(bytes: &[u8]) -> Vec<u8> {
        segments(bytes).map(|(marker, _)| marker).collect()
    }

    #[test]
    fn segments_are_found_between_data_filling_and_stray_bytes() {
        let jpeg =
            b"\xff\xd8\xff\xfe\0\x04hi stray \xff\xff\xda\0\x03x data \xff\0\xff\xd0 more \xff\xd9 \xff\xda\0\x03x";
        assert_eq!(markers(jpeg), [0xfe, SOS, EOI]);
        assert_eq!(segments(jpeg).next(), Some((0xfe, &b"hi"[..])));
    }

    #[test]
    fn an_end_within_a_segment_is_none() {
        assert_eq!(markers(b"\xff\xd8\xff\xfe\0\x04\xff\xd9\xff\xda\0\x02"), [0xfe, SOS]);
        assert_eq!(markers(b"\xff\xd8\xff\xfe\0\x09\xff\xd9"), [], "it is cut");
        assert_eq!(markers(b"\xff\xd8\xff\xfe\0\0\xff\xd9"), [0xfe, EOI], "it is empty");
        assert_eq!(markers(b""), []);
    }
}
