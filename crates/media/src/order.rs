//! What should be made of a film, and whether it can be.

use std::path::PathBuf;

use crate::{
    encoder::Quality,
    error::MediaError,
    film::{Film, Kind},
};

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

    /// What of the film is left out, in words.
    pub(crate) fn notes(&self, film: &Film) -> Result<Vec<String>, MediaError> {
        let videos = film.streams.iter().filter(|stream| stream.kind == Kind::Video).count();
        let sounds = film.audio().count();
        let takes_video = self.video != Video::Drop && videos > 0;
        if !takes_video && (self.audio == Audio::Drop || sounds == 0) {
            let lacks = if self.video == Video::Drop { "sound" } else { "video" };
            return Err(MediaError::Lacks { file: film.source.file.clone(), lacks });
        }
        let rest = film.streams.iter().filter(|stream| matches!(stream.kind, Kind::Cover | Kind::Other)).count();
        let mut notes = Vec::new();
        if videos > 1 {
            notes.push(format!("the first of {videos} videos was taken"));
        }
        if rest > 0 {
            notes.push(format!("{rest} streams that are neither video nor sound were left out"));
        }
        Ok(notes)
    }
}
