//! What can be wrong with a picture.

use std::borrow::Cow;

use caudal_types::{ErrorKind, Explain};

/// A picture that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// No bytes at all.
    #[error("the picture is empty")]
    Empty,
    /// Not the beginning of any format we read.
    #[error("the file is not a picture in a format that is read here")]
    UnknownFormat,
    /// A format we read, in a variant we do not.
    #[error("this kind of {format} is not supported: {reason}")]
    Unsupported {
        /// The format's name.
        format: &'static str,
        /// Which variant it is.
        reason: String,
    },
    /// More pixels than allowed.
    #[error("the picture has {width}x{height} pixels, {limit} are allowed")]
    TooManyPixels {
        /// Its width.
        width: u64,
        /// Its height.
        height: u64,
        /// Most pixels allowed.
        limit: u64,
    },
    /// Damaged or cut off.
    #[error("the {format} is damaged or cut off: {reason}")]
    Damaged {
        /// The format's name.
        format: &'static str,
        /// What its decoder says.
        reason: String,
    },
}

impl Explain for ImageError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Empty => ErrorKind::EmptyBody,
            Self::UnknownFormat | Self::Unsupported { .. } => ErrorKind::UnsupportedImage,
            Self::TooManyPixels { .. } => ErrorKind::ImageTooLarge,
            Self::Damaged { .. } => ErrorKind::InvalidImage,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Empty => "send the picture's bytes",
            Self::UnknownFormat => "send a JPEG, PNG, WebP, BMP or GIF",
            Self::Unsupported { .. } => "save the picture as an ordinary 8-bit JPEG or PNG",
            Self::TooManyPixels { .. } => "scale the picture down, or raise max_image_megapixels",
            Self::Damaged { .. } => "check that the file opens in a viewer and was uploaded whole",
        }
        .into()
    }
}
