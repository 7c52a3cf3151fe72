//! How the camera was held: EXIF's orientation tag.

use image::metadata::Orientation as Exif;

/// What must be done to stored pixels so that the picture stands upright (EXIF 2.32, tag 0x0112): its axes are
/// exchanged first, then mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Orientation {
    /// Stored rows are the upright picture's columns.
    pub transpose: bool,
    /// The upright picture's x axis runs against the stored one.
    pub flip_x: bool,
    /// The upright picture's y axis runs against the stored one.
    pub flip_y: bool,
}

impl Orientation {
    /// Pixels are stored as they are to be seen.
    pub const UPRIGHT: Self = Self { transpose: false, flip_x: false, flip_y: false };

    /// The orientation that an EXIF block gives, if it gives one.
    pub(crate) fn from_exif(block: &[u8]) -> Self {
        let (transpose, flip_x, flip_y) = match Exif::from_exif_chunk(block).unwrap_or(Exif::NoTransforms) {
            Exif::NoTransforms => (false, false, false),
            Exif::FlipHorizontal => (false, true, false),
            Exif::Rotate180 => (false, true, true),
            Exif::FlipVertical => (false, false, true),
            Exif::Rotate90FlipH => (true, false, false),
            Exif::Rotate90 => (true, true, false),
            Exif::Rotate270FlipH => (true, true, true),
            Exif::Rotate270 => (true, false, true),
        };
        Self { transpose, flip_x, flip_y }
    }

    /// The orientation that a JPEG's EXIF segment gives, if it has one.
    pub(crate) fn of_jpeg(bytes: &[u8]) -> Self {
        jpeg_exif(bytes).map_or(Self::UPRIGHT, Self::from_exif)
    }

    /// Width and height of the upright picture, from those stored.
    pub fn upright(self, (width, height): (u32, u32)) -> (u32, u32) {
        if self.transpose { (height, width) } else { (width, height) }
    }
}

/// The EXIF block among a JPEG's segments, which all come before the first scan.
fn jpeg_exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(2..)?;
    while let [0xff, marker, high, low, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        match marker {
            0xff => rest = &rest[1..],
            0xda | 0xd9 => return None,
            0xe1 if rest.get(4..10) == Some(b"Exif\0\0") => return rest.get(10..2 + length),
            _ => rest = rest.get(2 + length..)?,
        }
    }
    None
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An EXIF block that holds nothing but an orientation.
    pub(crate) fn exif_block(orientation: u8) -> Vec<u8> {
        [&b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"[..], &[orientation, 0, 0, 0, 0, 0, 0]].concat()
    }

    /// `jpeg` with such a block as its first segment.
    pub(crate) fn with_exif(jpeg: &[u8], orientation: u8) -> Vec<u8> {
        let block = [b"Exif\0\0", &exif_block(orientation)[..]].concat();
        let length = (block.len() as u16 + 2).to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, &block, &jpeg[2..]].concat()
    }

    #[test]
    fn the_tag_is_found_among_other_segments() {
        let jpeg = with_exif(b"\xff\xd8\xff\xda", 6);
        assert_eq!(Orientation::of_jpeg(&jpeg), Orientation { transpose: true, flip_x: true, flip_y: false });
        let comment_first = [&b"\xff\xd8\xff\xfe\0\x04hi"[..], &jpeg[2..]].concat();
        assert_eq!(Orientation::of_jpeg(&comment_first), Orientation::of_jpeg(&jpeg));
    }

    #[test]
    fn without_a_tag_or_with_a_broken_one_pictures_are_upright() {
        for jpeg in [&b""[..], b"\xff\xd8", b"\xff\xd8\xff\xe1\xff\xffExif\0\0", &with_exif(b"\xff\xd8", 77)] {
            assert_eq!(Orientation::of_jpeg(jpeg), Orientation::UPRIGHT);
        }
    }
}
