//! Films that are alike, put one after the other without encoding.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    call::Call,
    check::{Read, compare_frames, compare_packets, earliest, sound_shift},
    error::MediaError,
    film::{Film, Stream},
    guard::Reach,
    ingest::track_view,
    order::MOST_PARTS,
    packets::Edits,
    place::{Place, Shape},
    sequence::{Placed, TrackView, arrange},
    source::{Source, file_url},
    split::PartNote,
    timeline::{Packet, span},
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
    /// What people should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A pause shorter than this is not worth a word, in seconds.
const PAUSE: f64 = 0.1;

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
        let (mut reads, mut notes) = (Vec::new(), Vec::new());
        for (number, source) in sources.into_iter().enumerate() {
            let work = place.work().join(number.to_string());
            fs::create_dir(&work).map_err(MediaError::io(&work))?;
            reads.push(self.ingest(source, &work, &mut notes)?);
        }
        // Of several films the same is said once.
        let mut said = HashSet::new();
        notes.retain(|note: &String| said.insert(note.clone()));
        alike(&reads)?;
        let placed = put_in_order(&reads, wrapping)?;
        notes.extend(pauses(&reads, &placed));
        let made = place.work().join("whole");
        self.join_films(&reads, &placed, wrapping, place.work(), &made)?;
        let (frames, seconds) = self.check_joined(&reads, &placed, &made)?;
        let bytes = fs::metadata(&made).map_err(MediaError::io(&made))?.len();
        let output = place.target().to_owned();
        place.commit(&made)?;
        Ok(Joined { output, bytes, seconds, frames, inputs: reads.len(), notes })
    }

    fn join_films(
        &self,
        reads: &[Read],
        placed: &[Placed],
        wrapping: Wrapping,
        work: &Path,
        made: &Path,
    ) -> Result<(), MediaError> {
        let list = write_list(reads, placed, work)?;
        let mut demuxers: Vec<&str> = reads.iter().map(|read| read.film.source.container.demuxer()).collect();
        demuxers.sort_unstable();
        demuxers.dedup();
        let mut arguments = meter_words();
        arguments.extend(list_input(&format!("concat,{}", demuxers.join(",")), &list));
        let mut bitstream = Vec::new();
        for (track, (stream, _)) in reads[0].tracks().into_iter().enumerate() {
            arguments.extend(["-map".into(), format!("0:{}", stream.index).into()]);
            let mut before = 0;
            let dropped = reads.iter().zip(placed).flat_map(|(read, placed)| {
                let first = before;
                before += read.tracks()[track].1.packets.len();
                placed.dropped[track].iter().map(move |packet| first + packet)
            });
            let filters = Edits::without(dropped).filters().into_iter();
            bitstream.extend(filters.flat_map(|filters| [format!("-bsf:{track}").into(), OsString::from(filters)]));
        }
        arguments.extend(["-c", "copy", "-copyinkf", "-map_metadata", "-1", "-map_chapters", "-1"].map(OsString::from));
        arguments.extend(bitstream);
        if wrapping.is_mov() {
            // What comes before the first frame is hidden by an edit, instead of all being later.
            arguments.extend(["-avoid_negative_ts", "disabled"].map(OsString::from));
            if reads[0].video().is_some_and(|(stream, _)| stream.codec == "hevc") {
                arguments.extend(["-tag:v".into(), "hvc1".into()]);
            }
        }
        arguments.extend(wrapping.words().iter().map(OsString::from));
        arguments.push(file_url(made));
        let mut seen: Vec<PathBuf> = reads.iter().map(|read| read.film.source.path.clone()).collect();
        seen.push(list);
        let reach = Reach { reads: seen, writes: vec![work.to_owned()], devices: false };
        let what = "joining".to_owned();
        let call = Call { what, program: Program::Ffmpeg, arguments, reach, folder: None, abort: None };
        let seconds = placed.last().map(|last| last.start + last.length);
        self.copy(call, "joining", &Film { seconds, ..reads[0].film.clone() })
    }

    /// All packets of all films that should be there, each at its time, and no others.
    fn check_joined(&self, reads: &[Read], placed: &[Placed], made: &Path) -> Result<(u64, f64), MediaError> {
        let source = Source { file: "the result".to_owned(), ..Source::open(made, &self.limits)? };
        let result = self.read(source, "checking")?;
        let expected: Vec<Vec<Option<f64>>> =
            (0..reads[0].tracks().len()).map(|track| times(reads, placed, track)).collect();
        let found = result.tracks();
        let mismatch = |what: &str, expected: String, found: String| MediaError::Mismatch {
            what: what.to_owned(),
            expected,
            found,
        };
        if expected.len() != found.len() {
            return Err(mismatch("the number of tracks", expected.len().to_string(), found.len().to_string()));
        }
        let mut moved = None;
        for (place, (expected, (stream, track))) in expected.into_iter().zip(&found).enumerate() {
            let found = track.times(stream);
            // One container writes times before 0, another moves all tracks.
            let moved = *moved.get_or_insert(earliest(&found) - earliest(&expected));
            let moved = sound_shift(&result.film, stream, &expected, &found, moved);
            compare_packets(&format!("stream {place}"), expected, &found, moved)?;
        }
        if reads.iter().filter_map(Read::video).any(|(_, track)| track.untimed) {
            let mut times = Vec::new();
            for (read, placed) in reads.iter().zip(placed) {
                times.extend(self.frame_times(read)?.into_iter().map(|time| time - placed.origin + placed.start));
            }
            compare_frames(&times, &self.frame_times(&result)?)?;
        }
        let shown = reads.iter().filter_map(|read| Some(read.video()?.1.shown)).sum::<u64>();
        let found = result.video().map_or(0, |(_, track)| track.shown);
        if shown != found {
            return Err(mismatch("the number of frames that are shown", shown.to_string(), found.to_string()));
        }
        let seconds = span(&result.film, &result.timeline, |_| true).map_or(0.0, |(from, to)| to - from);
        Ok((result.video().map_or(0, |(_, track)| track.packets.len() as u64), seconds))
    }
}

/// When each packet of a track should be presented in the whole.
fn times(reads: &[Read], placed: &[Placed], track: usize) -> Vec<Option<f64>> {
    let of_film = reads.iter().zip(placed).flat_map(|(read, placed)| {
        let (stream, of) = read.tracks()[track];
        let dropped: HashSet<usize> = placed.dropped[track].iter().copied().collect();
        let kept = of.times(stream).into_iter().enumerate().filter(move |(packet, _)| !dropped.contains(packet));
        kept.map(|(_, time)| Some(time? - placed.origin + placed.start))
    });
    of_film.collect()
}

/// When each film begins. Frames that an edit list hides can stay hidden at the beginning of an MP4 alone.
fn put_in_order(reads: &[Read], wrapping: Wrapping) -> Result<Vec<Placed>, MediaError> {
    for (number, read) in reads.iter().enumerate() {
        let Some((_, track)) = read.video() else { continue };
        let before = |packet: &&Packet| !packet.shown && packet.pts < track.first;
        let at_the_beginning = track.packets.iter().filter(before).count() as u64;
        let may = if number == 0 && wrapping.is_mov() { at_the_beginning } else { 0 };
        if track.hidden() > may {
            return Err(MediaError::Hidden { file: read.film.source.file.clone(), frames: track.hidden() });
        }
    }
    let films: Vec<Vec<TrackView>> = reads
        .iter()
        .map(|read| read.tracks().iter().map(|(stream, track)| track_view(stream, track, &track.packets)).collect())
        .collect();
    let notes: Vec<Option<PartNote>> = reads.iter().map(PartNote::of).collect();
    Ok(arrange(&films, &notes, reads[0].video().is_none(), wrapping.is_mov()))
}

/// Where sound is silent because a film's is shorter than its picture.
fn pauses(reads: &[Read], placed: &[Placed]) -> Vec<String> {
    let of_film = reads.iter().zip(placed).flat_map(|(read, placed)| {
        let longest = placed.pauses.iter().copied().fold(0.0, f64::max);
        (longest >= PAUSE).then(|| {
            let (file, start) = (&read.film.source.file, placed.start);
            format!("sound is silent for {longest:.3} s before {start:.3} s, where {file} begins: the film before it has none there")
        })
    });
    of_film.collect()
}

fn taken(film: &Film) -> impl Iterator<Item = &Stream> {
    film.video().into_iter().chain(film.audio())
}

/// The films by names of our own: what they are called means something to lists. ffmpeg begins each with what it takes
/// for its first moment, which is made up for here.
fn write_list(reads: &[Read], placed: &[Placed], work: &Path) -> Result<PathBuf, MediaError> {
    let mut text = "ffconcat version 1.0\n".to_owned();
    let begins = |place: usize| {
        let placed = placed.get(place)?;
        Some(placed.start + reads[place].film.start - placed.origin)
    };
    for (place, read) in reads.iter().enumerate() {
        let name = format!("film_{place}");
        let link = work.join(&name);
        symlink(&read.film.source.path, &link).map_err(MediaError::io(&link))?;
        text += &format!("file {name}\n");
        if let Some((begins, next)) = begins(place).zip(begins(place + 1)) {
            // Counted from the beginning, so that what is rounded does not add up.
            let micros = |seconds: f64| (seconds * 1e6).round() / 1e6;
            text += &format!("duration {:.6}\n", micros(next) - micros(begins));
        }
    }
    let list = work.join("list.ffconcat");
    fs::write(&list, text).map_err(MediaError::io(&list))?;
    Ok(list)
}

/// All films have the same streams, as far as a decoder must know them beforehand.
fn alike(reads: &[Read]) -> Result<(), MediaError> {
    let first = &reads[0].film;
    if reads[0].tracks().is_empty() {
        return Err(MediaError::Lacks { file: first.source.file.clone(), lacks: "video or sound" });
    }
    for read in &reads[1..] {
        let film = &read.film;
        let tracks = |read: &Read| read.tracks().iter().map(|(stream, _)| stream.index).collect::<Vec<_>>();
        let empty = || (tracks(&reads[0]) != tracks(read)).then(|| "one of its streams has no packets".to_owned());
        if let Some(what) = difference(first, film).or_else(empty) {
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
