//! Looks at a picture's first bytes: what it is, how large, and what decoding it will take. Limits are checked
//! here, before memory is taken for a single pixel.

use crate::{ImageError, Orientation, jpeg, other, png, webp};

/// What a picture may be at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most pixels, width times height.
    pub max_pixels: u64,
}

/// A format that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the documentation")]
pub enum Format {
    Jpeg,
    Png,
    WebP,
    Bmp,
    Gif,
}

impl Format {
    /// The format that begins like `bytes`.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [0xff, 0xd8, 0xff, ..] => Some(Self::Jpeg),
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some(Self::Png),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some(Self::WebP),
            [b'B', b'M', ..] => Some(Self::Bmp),
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some(Self::Gif),
            _ => None,
        }
    }

    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Bmp => "BMP",
            Self::Gif => "GIF",
        }
    }
}

/// What a picture's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its format.
    pub format: Format,
    /// Width as stored, in pixels.
    pub width: u32,
    /// Height as stored, in pixels.
    pub height: u32,
    /// What makes it upright.
    pub orientation: Orientation,
    /// Bytes that decoding will hold at its peak.
    pub decode_bytes: u64,
}

impl Header {
    /// Width and height of the upright picture: what people call its size.
    pub fn size(&self) -> (u32, u32) {
        self.orientation.upright((self.width, self.height))
    }
}

/// Reads the header of the picture in `bytes` and checks it against `limits`.
pub fn probe(bytes: &[u8], limits: &Limits) -> Result<Header, ImageError> {
    if bytes.is_empty() {
        return Err(ImageError::Empty);
    }
    let format = Format::of(bytes).ok_or(ImageError::UnknownFormat)?;
    let header = match format {
        Format::Jpeg => jpeg::probe(bytes)?,
        Format::Png => png::probe(bytes)?,
        Format::WebP => webp::probe(bytes)?,
        Format::Bmp => other::probe_bmp(bytes)?,
        Format::Gif => other::probe_gif(bytes)?,
    };
    let (width, height) = (u64::from(header.width), u64::from(header.height));
    if width == 0 || height == 0 {
        return Err(ImageError::Damaged { format: format.name(), reason: "it has no pixels".to_owned() });
    }
    if width * height > limits.max_pixels {
        return Err(ImageError::TooManyPixels { width, height, limit: limits.max_pixels });
    }
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_begins_like_nothing_known_is_no_picture() {
        let limits = Limits { max_pixels: 100 };
        assert_eq!(probe(b"", &limits), Err(ImageError::Empty));
        for bytes in [&b"hello"[..], b"\xff\xd8", b"%PDF-1.4", b"\0\0\0\x20ftypheic"] {
            assert_eq!(probe(bytes, &limits), Err(ImageError::UnknownFormat));
        }
    }

    #[test]
    fn headers_cut_short_are_damaged_pictures() {
        let limits = Limits { max_pixels: 100 };
        for bytes in [&b"\xff\xd8\xff\xe0"[..], b"\x89PNG\r\n\x1a\n\0\0", b"BM123", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 "]
        {
            assert!(matches!(probe(bytes, &limits), Err(ImageError::Damaged { .. })), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            start in proptest::sample::select(vec![
                &b"\xff\xd8\xff"[..], b"\x89PNG\r\n\x1a\n", b"BM", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x02",
            ]),
            rest in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = probe(&[start, &rest].concat(), &Limits { max_pixels: 100 });
        }
    }
}
