//! The encoded parts and the sound put together, each at its time.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use super::{SOUND, Work, list_input, meter_words, segment};
use crate::{
    error::MediaError,
    film::Stream,
    order::{Audio, Video},
    source::{Source, file_url, safe_input},
};

/// How much before the first time stamp a frame may be shown, in seconds.
const MARGIN: f64 = 10.0;

/// What is put together.
#[derive(Default)]
struct Inputs {
    words: Vec<OsString>,
    count: usize,
    maps: Vec<String>,
    /// The source's number, where it is one of them.
    source: Option<usize>,
}

impl Inputs {
    /// One more, `offset` seconds later than it says of itself; its number.
    fn add(&mut self, words: Vec<OsString>, offset: f64) -> usize {
        self.words.extend(["-itsoffset".into(), format!("{offset:.6}").into()]);
        self.words.extend(words);
        self.count += 1;
        self.count - 1
    }
}

impl Work<'_> {
    /// Puts the parts and the sound together, each at its time.
    pub(super) fn join(&self, made: &Path) -> Result<(), MediaError> {
        let mut inputs = Inputs::default();
        self.add_video(&mut inputs)?;
        self.add_sound(&mut inputs);
        let mut arguments = meter_words();
        arguments.extend(inputs.words);
        for map in inputs.maps {
            arguments.extend(["-map".into(), map.into()]);
        }
        arguments.extend(["-c", "copy", "-copyinkf", "-map_metadata", "-1", "-map_chapters", "-1"].map(OsString::from));
        let is_hevc = matches!(&self.order.video, Video::Encode(quality) if quality.codec.name() == "hevc");
        if is_hevc && self.wrapping.is_mov() {
            arguments.extend(["-tag:v".into(), "hvc1".into()]);
        }
        arguments.extend(self.wrapping.words().iter().map(OsString::from));
        arguments.push(file_url(made));
        let call = self.call("joining".to_owned(), arguments, false, None);
        self.workshop.copy(call, "joining", &self.read.film)
    }

    fn add_video(&self, inputs: &mut Inputs) -> Result<(), MediaError> {
        let Some((stream, _)) = self.read.video().filter(|_| self.order.video != Video::Drop) else { return Ok(()) };
        let base = self.base();
        if self.encoder.is_some() {
            let (list, start) = self.list(stream)?;
            let number = inputs.add(list_input("concat,mov", &list), start - base);
            inputs.maps.push(format!("{number}:v"));
        } else {
            let number = inputs.add(self.read.film.source.input(&self.workshop.limits), -base);
            inputs.source = Some(number);
            inputs.maps.push(format!("{number}:{}", stream.index));
        }
        Ok(())
    }

    fn add_sound(&self, inputs: &mut Inputs) {
        if self.audio_is_encoded() {
            let mut words = safe_input("mov");
            words.extend(["-f".into(), "mov".into(), "-i".into(), file_url(&self.place.join(SOUND))]);
            let number = inputs.add(words, 0.0);
            inputs.maps.push(format!("{number}:a"));
        } else if self.order.audio == Audio::Copy && !self.read.audio().is_empty() {
            let source = || self.read.film.source.input(&self.workshop.limits);
            let number = inputs.source.unwrap_or_else(|| inputs.add(source(), -self.base()));
            inputs.maps.extend(self.read.audio().iter().map(|(stream, _)| format!("{number}:{}", stream.index)));
        }
    }

    /// The list of parts, each with how long it lasts until the next begins, and when the first does, in seconds of the
    /// source's clock. What a part begins with is asked of itself: the first frames of a recording that begins between
    /// key frames cannot be decoded.
    fn list(&self, stream: &Stream) -> Result<(PathBuf, f64), MediaError> {
        let mut text = "ffconcat version 1.0\n".to_owned();
        let (mut start, mut before) = (None, None);
        for place in 0..self.shares.segments {
            let name = segment(place);
            let source = Source::open(&self.place.join(&name), &self.workshop.limits)?;
            let part = self.workshop.read(source, "joining")?;
            let Some((out, track)) = part.video() else { continue };
            let from = self.parts.get(place).map_or(self.before_first_frame(), |part| part.from);
            let from = stream.time_base.seconds(from);
            let begins = from + out.time_base.seconds(track.first.unwrap_or(0));
            if let Some(before) = before.replace(begins) {
                text += &format!("duration {:.6}\n", begins - before);
            }
            text += &format!("file {name}\n");
            start.get_or_insert(begins);
        }
        let Some(start) = start else {
            let said = "none of its video can be decoded".to_owned();
            return Err(MediaError::Broken { file: self.read.film.source.file.clone(), said });
        };
        let list = self.place.join("list.ffconcat");
        fs::write(&list, text).map_err(MediaError::io(&list))?;
        Ok((list, start))
    }

    /// A moment before the first frame, in ticks: where packets do not say when their frames are shown, its own is not
    /// known.
    pub(super) fn before_first_frame(&self) -> i64 {
        let Some((stream, track)) = self.read.video() else { return 0 };
        track.first.unwrap_or(0).saturating_sub(stream.time_base.ticks(MARGIN))
    }
}
