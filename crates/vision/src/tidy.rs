//! Corrects what a JPEG's header says wrongly and no decoder needs, as every viewer does by passing over it: libjpeg warns
//! of each such thing, and turbojpeg takes every warning for damage. What could cost a pixel is left as it is.

use std::{borrow::Cow, ops::Range};

use crate::segments::{EOI, SOS};

const APP0: u8 = 0xe0;
const APP2: u8 = 0xe2;
const APP14: u8 = 0xee;
const JFIF: &[u8] = b"JFIF\0";
const ADOBE: &[u8] = b"Adobe";
const ICC: &[u8] = b"ICC_PROFILE\0";
/// Bytes of a JFIF and of an Adobe segment that libjpeg wants before it believes the name.
const JFIF_BYTES: usize = 14;
const ADOBE_BYTES: usize = 12;
/// What ends the header of a scan that is not progressive: all 64 coefficients, with all their bits.
const WHOLE_SCAN: [u8; 3] = [0, 63, 0];

/// The JPEG in `bytes` with the faults of its header corrected; `bytes` themselves where there are none.
pub(crate) fn tidy(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut walk = Walk { bytes, ..Walk::default() };
    walk.segments();
    if walk.edits.is_empty() {
        return Cow::Borrowed(bytes);
    }
    walk.edits.sort_by_key(|edit| edit.place.start);
    let mut tidied = Vec::with_capacity(bytes.len());
    let mut copied = 0;
    for edit in &walk.edits {
        tidied.extend_from_slice(&bytes[copied..edit.place.start]);
        tidied.extend_from_slice(&edit.with);
        copied = edit.place.end;
    }
    tidied.extend_from_slice(&bytes[copied..]);
    Cow::Owned(tidied)
}

/// What stands at `place` is replaced.
struct Edit {
    place: Range<usize>,
    with: Vec<u8>,
}

/// One part of a colour profile: its number, how many there are, where its segment stands, bytes of the profile in it.
struct ProfilePart {
    number: u8,
    count: u8,
    segment: Range<usize>,
    bytes: usize,
}

#[derive(Default)]
struct Walk<'a> {
    bytes: &'a [u8],
    edits: Vec<Edit>,
    profile: Vec<ProfilePart>,
    /// Where the last Adobe segment says how its colours are stored.
    transform: Option<usize>,
    is_jfif: bool,
    /// The marker of the frame, and how many components it has.
    frame: Option<(u8, u8)>,
}

impl Walk<'_> {
    /// Walks over the segments as libjpeg does, up to the last scan whose header may be wrong.
    fn segments(&mut self) {
        let (mut at, mut in_scan) = (2, false);
        while let Some(marker_at) = next_marker(self.bytes, at) {
            // Filling is not stray.
            if !in_scan && self.bytes[at..marker_at].iter().any(|byte| *byte != 0xff) {
                self.edits.push(Edit { place: at..marker_at, with: Vec::new() });
            }
            let marker = self.bytes[marker_at + 1];
            let content = marker_at + 4;
            match marker {
                0x01 | 0xd0..=0xd8 => {
                    at = marker_at + 2;
                    continue;
                }
                EOI => break,
                _ => {}
            }
            let Some(length) = self.bytes.get(marker_at + 2..content) else { break };
            // A length counts itself; one too small for that is passed over, as libjpeg does.
            let length = usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            at = marker_at + 2 + length;
            if at > self.bytes.len() {
                break;
            }
            if marker == SOS {
                if !self.scan(content..at) {
                    break;
                }
                in_scan = true;
            } else if !in_scan {
                self.segment(marker, marker_at, content..at);
            }
        }
        self.correct_transform();
        self.drop_broken_profile();
    }

    fn segment(&mut self, marker: u8, marker_at: usize, place: Range<usize>) {
        let content = &self.bytes[place.clone()];
        match marker {
            APP0 if content.starts_with(JFIF) && content.len() >= JFIF_BYTES => {
                self.is_jfif = true;
                if content[JFIF.len()] != 1 {
                    let major = place.start + JFIF.len();
                    self.edits.push(Edit { place: major..major + 1, with: vec![1] });
                }
            }
            APP2 if content.starts_with(ICC) && content.len() >= ICC.len() + 2 => {
                self.profile.push(ProfilePart {
                    number: content[ICC.len()],
                    count: content[ICC.len() + 1],
                    segment: marker_at..place.end,
                    bytes: content.len() - ICC.len() - 2,
                });
            }
            APP14 if content.starts_with(ADOBE) && content.len() >= ADOBE_BYTES => {
                self.transform = Some(place.start + ADOBE_BYTES - 1);
            }
            // Frames; the others of these numbers are tables.
            0xc0..=0xcf if !matches!(marker, 0xc4 | 0xc8 | 0xcc) => {
                self.frame = content.get(5).map(|components| (marker, *components));
            }
            _ => {}
        }
    }

    /// Corrects the header of a scan; whether another that may be wrong can follow.
    fn scan(&mut self, place: Range<usize>) -> bool {
        let Some((frame, components)) = self.frame else { return false };
        // Baseline, extended, and extended with arithmetic coding.
        if !matches!(frame, 0xc0 | 0xc1 | 0xc9) {
            return false;
        }
        let Some(&shown) = self.bytes[place.clone()].first() else { return false };
        let end = place.start + 1 + 2 * usize::from(shown);
        if end + WHOLE_SCAN.len() == place.end && self.bytes[end..place.end] != WHOLE_SCAN {
            self.edits.push(Edit { place: end..place.end, with: WHOLE_SCAN.to_vec() });
        }
        shown < components
    }

    /// A transform that is not known means what it usually is: YCbCr, or YCCK.
    fn correct_transform(&mut self) {
        let (Some(at), Some((_, components))) = (self.transform, self.frame) else { return };
        let usual = match (components, self.bytes[at]) {
            (3, 2..) if !self.is_jfif => 1,
            (4, 1 | 3..) => 2,
            _ => return,
        };
        self.edits.push(Edit { place: at..at + 1, with: vec![usual] });
    }

    /// A colour profile of which parts are missing, doubled or numbered wrongly says nothing. None is used here.
    fn drop_broken_profile(&mut self) {
        let Some(count) = self.profile.first().map(|part| part.count) else { return };
        let mut numbers: Vec<u8> = self.profile.iter().map(|part| part.number).collect();
        numbers.sort_unstable();
        let whole = self.profile.iter().all(|part| part.count == count)
            && numbers.into_iter().eq(1..=count)
            && self.profile.iter().any(|part| part.bytes > 0);
        if !whole {
            let parts = self.profile.drain(..).map(|part| Edit { place: part.segment, with: Vec::new() });
            self.edits.extend(parts);
        }
    }
}

/// Where the next marker stands from `from` on. An FF before a 0 belongs to a scan's data, one before another is filling.
fn next_marker(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xff)).map(|place| from + place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        [&[0xff, marker, 0, content.len() as u8 + 2], content].concat()
    }

    /// A JPEG whose header holds `before`, a frame of `components`, and a scan that ends with `end`.
    fn jpeg(frame: u8, components: u8, before: &[u8], end: [u8; 3]) -> Vec<u8> {
        let each = |extra: &'static [u8]| (1..=components).flat_map(move |id| [&[id], extra].concat());
        let frame_content = [8, 0, 8, 0, 8, components].into_iter().chain(each(&[0x11, 0])).collect::<Vec<_>>();
        let scan_content = [components].into_iter().chain(each(&[0])).chain(end).collect::<Vec<_>>();
        [&[0xff, 0xd8], before, &segment(frame, &frame_content), &segment(SOS, &scan_content), b"data\xff\0\xff\xd9"]
            .concat()
    }

    fn adobe(transform: u8) -> Vec<u8> {
        segment(APP14, &[ADOBE, &[0, 100, 0, 0, 0, 0, transform]].concat())
    }

    fn profile(number: u8, count: u8) -> Vec<u8> {
        segment(APP2, &[ICC, &[number, count], b"colours"].concat())
    }

    fn jfif(major: u8) -> Vec<u8> {
        segment(APP0, &[JFIF, &[major, 1, 0, 0, 1, 0, 1, 0, 0]].concat())
    }

    #[track_caller]
    fn check(odd: &[u8], right: &[u8]) {
        assert_eq!(*tidy(odd), *right);
        assert!(matches!(tidy(right), Cow::Borrowed(_)), "what is right is not copied");
    }

    #[test]
    fn header_with_harmless_fault_becomes_the_one_meant() {
        let plain = |before: &[u8]| jpeg(0xc0, 3, before, WHOLE_SCAN);
        for end in [[0, 0, 0], [0, 63, 1], [0, 62, 0], [1, 63, 0], [0, 63, 0x10]] {
            check(&jpeg(0xc0, 3, b"", end), &plain(b""));
            check(&jpeg(0xc1, 3, b"", end), &jpeg(0xc1, 3, b"", WHOLE_SCAN));
        }
        check(&plain(b"stray"), &plain(b""));
        check(&plain(b"\0\0"), &plain(b""));
        check(&plain(b"\xff\0"), &plain(b""));
        check(&plain(&jfif(2)), &plain(&jfif(1)));
        check(&plain(&adobe(7)), &plain(&adobe(1)));
        check(&jpeg(0xc0, 4, &adobe(1), WHOLE_SCAN), &jpeg(0xc0, 4, &adobe(2), WHOLE_SCAN));
        check(&plain(&[jfif(2), b"\0".to_vec(), adobe(9)].concat()), &plain(&[jfif(1), adobe(9)].concat()));
    }

    #[test]
    fn broken_colour_profile_is_dropped_and_a_whole_one_stays() {
        let plain = |parts: &[(u8, u8)]| {
            let before: Vec<u8> = parts.iter().flat_map(|(number, count)| profile(*number, *count)).collect();
            jpeg(0xc0, 3, &before, WHOLE_SCAN)
        };
        for broken in [&[(1, 2)][..], &[(2, 2)], &[(1, 1), (1, 1)], &[(1, 2), (2, 3)], &[(0, 1)], &[(3, 2), (1, 2)]] {
            check(&plain(broken), &plain(&[]));
        }
        check(&plain(&[(2, 2), (1, 2)]), &plain(&[(2, 2), (1, 2)]));
    }

    #[test]
    fn filling_other_segments_and_progressive_scans_stay() {
        let filled =
            [&b"\xff\xff\xff"[..], &segment(0xfe, b"\xff\xd9 \xff\xda"), &segment(0xe1, b"Exif\0\0\xff\xd8\xff\xd9")];
        for same in [
            jpeg(0xc0, 3, &filled.concat(), WHOLE_SCAN),
            jpeg(0xc2, 3, b"", [0, 0, 0x10]),
            jpeg(0xc0, 3, &adobe(0), WHOLE_SCAN),
            jpeg(0xc0, 1, &adobe(9), WHOLE_SCAN),
        ] {
            assert_eq!(*tidy(&same), *same);
        }
    }

    #[test]
    fn every_scan_of_a_picture_that_comes_by_components_is_corrected() {
        let scan =
            |id: u8, end: [u8; 3]| [segment(SOS, &[&[1, id, 0][..], &end].concat()), b"data \xff\0".to_vec()].concat();
        let frame = segment(0xc0, &[8, 0, 8, 0, 8, 2, 1, 0x11, 0, 2, 0x11, 0]);
        let whole = |end| [&b"\xff\xd8"[..], &frame, &scan(1, end), &scan(2, end), b"\xff\xd9"].concat();
        check(&whole([0, 0, 0]), &whole(WHOLE_SCAN));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::sample::select(vec![
            0xff, 0xd8, 0xda, 0xc0, 0xe0, 0xe2, 0xee, 0, 1, 2, 3, 4, 14,
        ]), 0..80)) {
            let once = tidy(&bytes).into_owned();
            let _ = tidy(&once);
        }
    }
}
