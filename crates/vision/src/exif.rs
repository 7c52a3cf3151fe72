//! How the camera was held: EXIF's orientation tag.

use image::metadata::Orientation as Exif;

/// What heads an EXIF block among a JPEG's segments.
pub(crate) const NAME: &[u8] = b"Exif\0\0";

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

    /// The orientation that an EXIF block gives, if it gives one. In a JPEG, and by mistake elsewhere, the block is
    /// headed by its name.
    pub(crate) fn from_exif(block: &[u8]) -> Self {
        let block = block.strip_prefix(NAME).unwrap_or(block);
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

    /// Width and height of the upright picture, from those stored.
    pub fn upright(self, (width, height): (u32, u32)) -> (u32, u32) {
        if self.transpose { (height, width) } else { (width, height) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An EXIF block that holds nothing but an orientation.
    pub(crate) fn exif_block(orientation: u8) -> Vec<u8> {
        [&b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"[..], &[orientation, 0, 0, 0, 0, 0, 0]].concat()
    }

    #[test]
    fn the_tag_is_found_with_and_without_the_name_before_it() {
        let turned = Orientation { transpose: true, flip_x: true, flip_y: false };
        assert_eq!(Orientation::from_exif(&exif_block(6)), turned);
        assert_eq!(Orientation::from_exif(&[NAME, &exif_block(6)].concat()), turned);
    }

    #[test]
    fn without_a_tag_or_with_a_broken_one_pictures_are_upright() {
        for block in [&b""[..], NAME, b"MM\0*", &exif_block(77)] {
            assert_eq!(Orientation::from_exif(block), Orientation::UPRIGHT);
        }
    }
}
