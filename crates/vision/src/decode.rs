//! From bytes to pixels, with memory that is used again and again.

use crate::{Format, Geometry, Header, ImageError, InputFormat, Orientation, jpeg, other, png};

/// A buffer larger than this (some 2.8 megapixels) is given back after use: what each decode thread keeps is counted by
/// nobody.
const KEEP: usize = 8 << 20;

/// Decodes pictures, one after another. Each decode thread has its own.
#[derive(Default)]
pub struct Decoder {
    rgb: Vec<u8>,
}

/// By how much a JPEG is reduced while it is decoded: a half, a quarter or an eighth of each side, for each of which
/// libjpeg-turbo turns fewer coefficients into pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reduction(usize);

/// A reduced picture is larger by this than what the model sees of it. Closer to it boxes drift by many pixels.
const MARGIN: f64 = 1.5;

impl Reduction {
    /// None.
    pub const FULL: Self = Self(1);

    /// The largest at which the picture of `header` still exceeds what `format` takes of it.
    pub fn for_model(header: &Header, format: &InputFormat) -> Self {
        if header.format != Format::Jpeg {
            return Self::FULL;
        }
        let (width, height) = header.size();
        let content = Geometry::new((width, height), (format.width, format.height), format.fit).content;
        let enough = |side: u32, by: usize, content: usize| f64::from(side) / by as f64 >= MARGIN * content as f64;
        let fits = |by: &usize| enough(width, *by, content.0) && enough(height, *by, content.1);
        [8, 4, 2].into_iter().find(fits).map_or(Self::FULL, Self)
    }

    /// The divisor of each side.
    pub fn divisor(self) -> usize {
        self.0
    }
}

/// Pixels as stored: rows of red, green, blue. They may have to be turned to stand upright.
#[derive(Debug, Clone, Copy)]
pub struct Pixels<'a> {
    /// Stored width and height of the picture that these show, perhaps reduced.
    pub full: (usize, usize),
    /// Width of these.
    pub width: usize,
    /// Height of these.
    pub height: usize,
    /// `width * height * 3` bytes.
    pub rgb: &'a [u8],
    /// What makes it upright.
    pub orientation: Orientation,
}

impl Decoder {
    /// Decodes the picture in `bytes`, of which `header` was read; a JPEG reduced as `reduction` says.
    #[caudal_observe::profile]
    pub fn decode(&mut self, bytes: &[u8], header: &Header, reduction: Reduction) -> Result<Pixels<'_>, ImageError> {
        let rgb = &mut self.rgb;
        let full = (header.width as usize, header.height as usize);
        let (mut width, mut height) = full;
        match header.format {
            Format::Jpeg => (width, height) = jpeg::decode(bytes, rgb, reduction)?,
            Format::Png => png::decode(bytes, rgb)?,
            format => other::decode(bytes, format, rgb)?,
        }
        if rgb.len() != width * height * 3 {
            let reason = "its pixels do not fill it".to_owned();
            return Err(ImageError::Damaged { format: header.format.name(), reason });
        }
        Ok(Pixels { full, width, height, rgb, orientation: header.orientation })
    }

    /// Gives memory back that only an unusually large picture needs.
    pub fn shrink(&mut self) {
        if self.rgb.capacity() > KEEP {
            self.rgb = Vec::new();
        }
    }
}
