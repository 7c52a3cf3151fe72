//! What should be made of a film, and whether it can be.

use std::path::PathBuf;

use crate::{encoder::Quality, error::MediaError, film::Film, losses};

/// More parts than this are a mistake.
pub(crate) const MOST_PARTS: usize = 1000;

/// What becomes of the video.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Video {
    /// It is encoded.
    Encode(Quality),
    /// It is taken as it is.
    Copy,
    /// It is left out.
    Drop,
}

/// What becomes of the sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audio {
    /// It is encoded as AAC.
    Aac,
    /// It is encoded as Opus.
    Opus,
    /// It is taken as it is.
    Copy,
    /// It is left out.
    Drop,
}

/// What should be made of a film.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The film.
    pub input: PathBuf,
    /// What is made; its ending says in which container.
    pub output: PathBuf,
    /// Whether an output that is there is replaced.
    pub replace: bool,
    /// What becomes of the video.
    pub video: Video,
    /// What becomes of the sound.
    pub audio: Audio,
    /// Parts of the video; what the machine is good for when absent.
    pub segments: Option<usize>,
    /// Encoders of parts at once; likewise.
    pub jobs: Option<usize>,
}

impl Order {
    pub(crate) fn check(&self) -> Result<(), MediaError> {
        if let Video::Encode(quality) = &self.video {
            quality.check()?;
        }
        for (flag, number) in [("segments", self.segments), ("jobs", self.jobs)] {
            if number.is_some_and(|number| !(1..=MOST_PARTS).contains(&number)) {
                return Err(MediaError::Order(format!("--{flag} is a number between 1 and {MOST_PARTS}")));
            }
        }
        if self.video == Video::Drop && self.audio == Audio::Drop {
            return Err(MediaError::Order("neither video nor sound is wanted".to_owned()));
        }
        Ok(())
    }

    /// What encoding takes away from the film, in words.
    pub(crate) fn notes(&self, film: &Film) -> Result<Vec<String>, MediaError> {
        let takes_video = self.video != Video::Drop && film.video().is_some();
        if !takes_video && (self.audio == Audio::Drop || film.audio().next().is_none()) {
            let lacks = if self.video == Video::Drop { "sound" } else { "video" };
            return Err(MediaError::Lacks { file: film.source.file.clone(), lacks });
        }
        Ok(match (&self.video, film.video()) {
            (Video::Encode(quality), Some(video)) => losses::in_encoding(video, quality.codec),
            _ => Vec::new(),
        })
    }
}
