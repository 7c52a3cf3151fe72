//! From bytes to pixels, with memory that is used again and again.

use crate::{Format, Header, ImageError, Orientation, jpeg, other, png};

/// A buffer larger than this (some 2.8 megapixels) is given back after use: what each decode thread keeps is counted by
/// nobody.
const KEEP: usize = 8 << 20;

/// Decodes pictures, one after another. Each decode thread has its own.
pub struct Decoder {
    jpeg: turbojpeg::Decompressor,
    rgb: Vec<u8>,
}

/// Pixels as stored: rows of red, green, blue. They may have to be turned to stand upright.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    /// Stored width.
    pub width: usize,
    /// Stored height.
    pub height: usize,
    /// `width * height * 3` bytes.
    pub rgb: &'a [u8],
    /// What makes it upright.
    pub orientation: Orientation,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { jpeg: jpeg::decompressor(), rgb: Vec::new() }
    }
}

impl Decoder {
    /// Decodes the picture in `bytes`, of which `header` was read.
    pub fn decode(&mut self, bytes: &[u8], header: &Header) -> Result<Pixels<'_>, ImageError> {
        let rgb = &mut self.rgb;
        match header.format {
            Format::Jpeg => jpeg::decode(&mut self.jpeg, bytes, rgb)?,
            Format::Png => png::decode(bytes, rgb)?,
            format => other::decode(bytes, format, rgb)?,
        }
        let (width, height) = (header.width as usize, header.height as usize);
        if rgb.len() != width * height * 3 {
            let reason = "its pixels do not fill it".to_owned();
            return Err(ImageError::Damaged { format: header.format.name(), reason });
        }
        Ok(Pixels { width, height, rgb, orientation: header.orientation })
    }

    /// Gives memory back that only an unusually large picture needs.
    pub fn shrink(&mut self) {
        if self.rgb.capacity() > KEEP {
            self.rgb = Vec::new();
        }
    }
}
