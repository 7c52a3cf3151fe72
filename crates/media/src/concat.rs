//! Films that are alike, put one after the other without encoding.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    call::{Call, Meter},
    check::Read,
    error::MediaError,
    film::{Film, Stream},
    guard::Reach,
    order::MOST_PARTS,
    place::{Place, Shape},
    source::{Source, file_url},
    timeline::span,
    transcode::{list_input, meter_words},
    workshop::{Program, Workshop},
    wrapping::Wrapping,
};

/// What should be joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConcatOrder {
    /// The films, in order.
    pub inputs: Vec<PathBuf>,
    /// What is made.
    pub output: PathBuf,
    /// Whether an output that is there is replaced.
    pub replace: bool,
}

/// What was joined.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Joined {
    /// Where it lies.
    pub output: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// How long it plays.
    pub seconds: f64,
    /// Frames of its video, which are as many as those of all films.
    pub frames: u64,
    /// How many films it was made of.
    pub inputs: usize,
}

impl Workshop<'_> {
    /// Joins films as `order` says.
    ///
    /// # Errors
    /// If the films differ in what a decoder must know, or the result is not all of them.
    pub fn concat(&self, order: &ConcatOrder) -> Result<Joined, MediaError> {
        let wrapping = Wrapping::of(&order.output)?;
        if !(1..=MOST_PARTS).contains(&order.inputs.len()) {
            return Err(MediaError::Order(format!("between 1 and {MOST_PARTS} films can be joined")));
        }
        let sources: Vec<Source> =
            order.inputs.iter().map(|input| Source::open(input, &self.limits)).collect::<Result<_, _>>()?;
        let paths: Vec<&Path> = sources.iter().map(|source| source.path.as_path()).collect();
        let place = Place::prepare(&order.output, Shape::File, order.replace, &paths)?;
        let films: Vec<Film> = order.inputs.iter().map(|input| self.probe(input)).collect::<Result<_, _>>()?;
        alike(&films)?;
        let read = |film: Film| Ok(Read { timeline: self.timeline(&film, "reading")?, film });
        let reads: Vec<Read> = films.into_iter().map(read).collect::<Result<_, MediaError>>()?;
        let made = place.work().join("whole");
        self.join_films(&reads, wrapping, place.work(), &made)?;
        let (frames, seconds) = self.check_joined(&reads, &made)?;
        let bytes = fs::metadata(&made).map_err(MediaError::io(&made))?.len();
        let output = place.target().to_owned();
        place.commit(&made)?;
        Ok(Joined { output, bytes, seconds, frames, inputs: reads.len() })
    }

    fn join_films(&self, reads: &[Read], wrapping: Wrapping, work: &Path, made: &Path) -> Result<(), MediaError> {
        let list = write_list(reads, work)?;
        let mut demuxers: Vec<&str> = reads.iter().map(|read| read.film.source.container.demuxer()).collect();
        demuxers.sort_unstable();
        demuxers.dedup();
        let mut arguments = meter_words();
        arguments.extend(list_input(&format!("concat,{}", demuxers.join(",")), &list));
        let first = &reads[0].film;
        for stream in taken(first) {
            arguments.extend(["-map".into(), format!("0:{}", stream.index).into()]);
        }
        arguments.extend(["-c", "copy", "-map_metadata", "-1", "-map_chapters", "-1"].map(OsString::from));
        if wrapping.is_mov() && first.video().is_some_and(|stream| stream.codec == "hevc") {
            arguments.extend(["-tag:v".into(), "hvc1".into()]);
        }
        arguments.extend(wrapping.words().iter().map(OsString::from));
        arguments.push(file_url(made));
        let mut seen: Vec<PathBuf> = reads.iter().map(|read| read.film.source.path.clone()).collect();
        seen.push(list);
        let reach = Reach { reads: seen, writes: vec![work.to_owned()], devices: false };
        let what = "joining".to_owned();
        let call = Call { what, program: Program::Ffmpeg, arguments, reach, folder: None, abort: None };
        let (mut meter, of) = (Meter::default(), reads.iter().filter_map(|read| read.film.seconds).sum());
        call.run(self, &mut |line| {
            let heard = meter.hear(line);
            self.tell("joining", (meter.micros as f64 / 1e6).clamp(0.0, of), of, meter.frames);
            heard
        })?;
        Ok(())
    }

    /// All packets of all films, and no others.
    fn check_joined(&self, reads: &[Read], made: &Path) -> Result<(u64, f64), MediaError> {
        let source = Source { file: "the result".to_owned(), ..Source::open(made, &self.limits)? };
        let result = self.read(source, "checking")?;
        let counts = |read: &Read| {
            let video = read.video().map(|(_, track)| track.packets);
            video.into_iter().chain(read.audio().iter().map(|(_, track)| track.packets)).collect::<Vec<_>>()
        };
        let mut expected = vec![0; counts(&reads[0]).len()];
        for read in reads {
            expected.iter_mut().zip(counts(read)).for_each(|(sum, count)| *sum += count);
        }
        let found = counts(&result);
        if expected != found {
            return Err(MediaError::Mismatch {
                what: "the number of packets of each stream".to_owned(),
                expected: format!("{expected:?}"),
                found: format!("{found:?}"),
            });
        }
        let length = |read: &Read| span(&read.film, &read.timeline, |_| true).map_or(0.0, |(from, to)| to - from);
        let (wanted, seconds) = (reads.iter().map(length).sum::<f64>(), length(&result));
        // Each film may bring what its decoder needs before its first frame: sound of a tenth of a second, two frames.
        if (wanted - seconds).abs() > 0.1 * reads.len() as f64 {
            return Err(MediaError::Mismatch {
                what: "the length".to_owned(),
                expected: format!("{wanted:.3} s"),
                found: format!("{seconds:.3} s"),
            });
        }
        Ok((result.video().map_or(0, |(_, track)| track.packets), seconds))
    }
}

fn taken(film: &Film) -> impl Iterator<Item = &Stream> {
    film.video().into_iter().chain(film.audio())
}

/// The films by names of our own: what they are called means something to lists.
fn write_list(reads: &[Read], work: &Path) -> Result<PathBuf, MediaError> {
    let mut text = "ffconcat version 1.0\n".to_owned();
    for (place, read) in reads.iter().enumerate() {
        let name = format!("film_{place}");
        let link = work.join(&name);
        symlink(&read.film.source.path, &link).map_err(MediaError::io(&link))?;
        let end = span(&read.film, &read.timeline, |_| true).map_or(0.0, |(_, to)| to);
        text += &format!("file {name}\nduration {:.6}\n", (end - read.film.start).max(0.0));
    }
    let list = work.join("list.ffconcat");
    fs::write(&list, text).map_err(MediaError::io(&list))?;
    Ok(list)
}

/// All films have the same streams, as far as a decoder must know them beforehand.
fn alike(films: &[Film]) -> Result<(), MediaError> {
    let first = &films[0];
    if taken(first).next().is_none() {
        return Err(MediaError::Lacks { file: first.source.file.clone(), lacks: "video or sound" });
    }
    for film in &films[1..] {
        if let Some(what) = difference(first, film) {
            let (first, file) = (first.source.file.clone(), film.source.file.clone());
            return Err(MediaError::Differ { first, file, what });
        }
    }
    Ok(())
}

fn difference(first: &Film, film: &Film) -> Option<String> {
    let kinds = |film: &Film| film.streams.iter().map(|stream| stream.kind).collect::<Vec<_>>();
    let (videos, sounds) = (|film: &Film| film.video().iter().count(), |film: &Film| film.audio().count());
    if (videos(first), sounds(first)) != (videos(film), sounds(film)) {
        let words = |film: &Film| format!("{} videos and {} tracks of sound", videos(film), sounds(film));
        return Some(format!("it has {} instead of {}", words(film), words(first)));
    }
    if kinds(first) != kinds(film) {
        return Some("its streams stand in another order".to_owned());
    }
    taken(first).zip(taken(film)).find_map(|(one, other)| {
        let told = facts(one).into_iter().zip(facts(other));
        let (name, wanted, found) = told
            .filter(|(one, other)| one.1 != other.1)
            .map(|(one, other)| (one.0, one.1, other.1))
            .next()
            .or_else(|| {
                (one.extradata != other.extradata).then(|| ("settings of its encoder", String::new(), String::new()))
            })?;
        Some(match wanted.is_empty() {
            true => format!("the {name} differ (stream {})", other.index),
            false => format!("its {name} is {found} instead of {wanted} (stream {})", other.index),
        })
    })
}

fn facts(stream: &Stream) -> Vec<(&'static str, String)> {
    let word = |word: &Option<String>| word.clone().unwrap_or_else(|| "unknown".to_owned());
    let number = |number: Option<u32>| number.map_or("unknown".to_owned(), |number| number.to_string());
    vec![
        ("codec", stream.codec.clone()),
        ("profile", word(&stream.profile)),
        ("size", format!("{} × {}", stream.width, stream.height)),
        ("layout of pixels", word(&stream.pix_fmt)),
        ("rotation", stream.rotation.to_string()),
        ("sample rate", number(stream.sample_rate)),
        ("number of channels", number(stream.channels)),
        ("time base", stream.time_base.to_string()),
    ]
}
