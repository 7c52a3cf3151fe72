//! The container of a result, by the ending of its name.

use std::path::Path;

use crate::error::MediaError;

/// A container that results are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    Mp4,
    Mov,
    Matroska,
    WebM,
}

impl Wrapping {
    pub(crate) fn of(output: &Path) -> Result<Self, MediaError> {
        let ending = output.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        match ending.as_str() {
            "mp4" | "m4v" | "m4a" => Ok(Self::Mp4),
            "mov" => Ok(Self::Mov),
            "mkv" | "mka" => Ok(Self::Matroska),
            "webm" => Ok(Self::WebM),
            _ => Err(MediaError::Order(format!(
                "{} ends in none of .mp4, .m4v, .mov, .mkv, .webm, .m4a and .mka, so how to write it is not said",
                output.display()
            ))),
        }
    }

    /// ffmpeg's writer, and how it is asked.
    pub(crate) fn words(self) -> &'static [&'static str] {
        match self {
            // What players need first stands first, so that they can begin before they have all.
            Self::Mp4 => &["-movflags", "+faststart", "-f", "mp4"],
            Self::Mov => &["-movflags", "+faststart", "-f", "mov"],
            Self::Matroska => &["-f", "matroska"],
            Self::WebM => &["-f", "webm"],
        }
    }

    pub(crate) fn is_mov(self) -> bool {
        matches!(self, Self::Mp4 | Self::Mov)
    }
}
