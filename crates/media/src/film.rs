//! What a film consists of, as ffprobe tells it from the file's head.

use std::{collections::HashMap, ffi::OsString, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    call::{Call, Heard},
    error::MediaError,
    guard::Reach,
    source::Source,
    split::PartNote,
    whole,
    workshop::{Program, Workshop},
};

/// The most JSON that is read of one film.
const MOST_JSON: usize = 16 << 20;

/// A film and its streams.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Film {
    /// Where it lies.
    #[serde(flatten)]
    pub source: Source,
    /// When its first stream begins, in seconds.
    pub start: f64,
    /// How long it plays, in seconds, as its head says; not all heads do.
    pub seconds: Option<f64>,
    /// What is missing of the file by what its container promises, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn: Option<String>,
    /// Its streams.
    pub streams: Vec<Stream>,
    /// What it says of itself, if it is a part of a film that was split.
    #[serde(skip)]
    pub(crate) part: Option<PartNote>,
}

/// What a stream holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Pictures that move.
    Video,
    /// Sound.
    Audio,
    /// A picture that stands for the whole, such as a record's cover.
    Cover,
    /// Text, or pictures of text, for the video.
    Subtitle,
    /// Data, attachments.
    #[default]
    Other,
}

/// One stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stream {
    /// Its number within the file.
    pub index: usize,
    /// What it holds.
    pub kind: Kind,
    /// The codec, by ffmpeg's name.
    pub codec: String,
    /// The profile of the codec, if it has any.
    pub profile: Option<String>,
    /// Seconds of one tick, as a fraction.
    pub time_base: Ratio,
    /// Columns, as coded.
    pub width: u32,
    /// Rows, as coded.
    pub height: u32,
    /// How pixels are laid out.
    pub pix_fmt: Option<String>,
    /// Whether pixels may be transparent.
    pub alpha: bool,
    /// Whether frames consist of two fields, each with every other row.
    pub interlaced: bool,
    /// Degrees by which a player turns it.
    pub rotation: i32,
    /// Frames a second, on average, as the head says.
    pub fps: Option<f64>,
    /// Samples a second.
    pub sample_rate: Option<u32>,
    /// Channels of sound.
    pub channels: Option<u32>,
    /// A checksum of what the decoder must know beforehand.
    #[serde(skip)]
    pub extradata: Option<String>,
    /// When it ends, in ticks, as ffprobe takes it to.
    #[serde(skip)]
    pub(crate) told_end: Option<i64>,
}

/// A fraction above nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    /// Above the line.
    pub num: u32,
    /// Below the line.
    pub den: u32,
}

impl Default for Ratio {
    fn default() -> Self {
        Self { num: 1, den: 1_000_000 }
    }
}

impl Serialize for Ratio {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Ratio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.num, self.den)
    }
}

impl Ratio {
    /// `ticks` of it, in seconds.
    pub fn seconds(self, ticks: i64) -> f64 {
        ticks as f64 * f64::from(self.num) / f64::from(self.den)
    }

    /// How many of it `seconds` are.
    pub(crate) fn ticks(self, seconds: f64) -> i64 {
        (seconds * f64::from(self.den) / f64::from(self.num)).round() as i64
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (num, den) = text.split_once('/')?;
        let (num, den) = (num.parse().ok()?, den.parse().ok()?);
        (num > 0 && den > 0).then_some(Self { num, den })
    }
}

impl Film {
    /// The first stream of pictures that move.
    pub fn video(&self) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.kind == Kind::Video)
    }

    /// All streams of sound.
    pub fn audio(&self) -> impl Iterator<Item = &Stream> {
        self.streams.iter().filter(|stream| stream.kind == Kind::Audio)
    }
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    streams: Vec<ToldStream>,
    format: ToldFormat,
}

#[derive(Deserialize)]
struct ToldFormat {
    start_time: Option<String>,
    duration: Option<String>,
    #[serde(default)]
    tags: HashMap<String, String>,
}

#[derive(Deserialize)]
struct ToldStream {
    index: usize,
    codec_name: Option<String>,
    codec_type: Option<String>,
    profile: Option<String>,
    #[serde(default)]
    time_base: String,
    #[serde(default)]
    width: u32,
    #[serde(default)]
    height: u32,
    pix_fmt: Option<String>,
    avg_frame_rate: Option<String>,
    sample_rate: Option<String>,
    channels: Option<u32>,
    extradata_hash: Option<String>,
    start_pts: Option<i64>,
    duration_ts: Option<i64>,
    field_order: Option<String>,
    #[serde(default)]
    tags: HashMap<String, String>,
    #[serde(default)]
    disposition: Disposition,
    #[serde(default)]
    side_data_list: Vec<SideData>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Disposition {
    attached_pic: u8,
    timed_thumbnails: u8,
}

#[derive(Deserialize)]
struct SideData {
    rotation: Option<f64>,
}

/// Names of layouts of pixels that may be transparent begin so.
const ALPHA: [&str; 10] = ["yuva", "gbrap", "rgba", "bgra", "argb", "abgr", "ya8", "ya16", "ayuv", "vuya"];

impl ToldStream {
    fn tag(&self, name: &str) -> Option<&str> {
        let tag = self.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        tag.map(|(_, value)| value.as_str())
    }

    fn stream(self) -> Stream {
        let cover = self.disposition.attached_pic + self.disposition.timed_thumbnails > 0;
        let fps = self.avg_frame_rate.as_deref().and_then(Ratio::parse);
        let time_base = Ratio::parse(&self.time_base).unwrap_or_default();
        let alpha = self.pix_fmt.as_ref().is_some_and(|name| ALPHA.iter().any(|alpha| name.starts_with(alpha)));
        Stream {
            told_end: self.start_pts.zip(self.duration_ts).map(|(start, duration)| start.saturating_add(duration)),
            alpha: alpha || self.tag("alpha_mode") == Some("1"),
            interlaced: matches!(self.field_order.as_deref(), Some("tt" | "bb" | "tb" | "bt")),
            index: self.index,
            kind: match self.codec_type.as_deref() {
                Some("video") if cover => Kind::Cover,
                Some("video") => Kind::Video,
                Some("audio") => Kind::Audio,
                Some("subtitle") => Kind::Subtitle,
                _ => Kind::Other,
            },
            codec: self.codec_name.unwrap_or_else(|| "unknown".to_owned()),
            profile: self.profile,
            time_base,
            width: self.width,
            height: self.height,
            pix_fmt: self.pix_fmt,
            rotation: self.side_data_list.iter().find_map(|side| side.rotation).unwrap_or(0.0) as i32,
            fps: fps.map(|fps| f64::from(fps.num) / f64::from(fps.den)),
            sample_rate: self.sample_rate.and_then(|rate| rate.parse().ok()),
            channels: self.channels,
            extradata: self.extradata_hash,
        }
    }
}

/// What ffprobe's JSON says of `source`.
fn parse(source: Source, json: &str) -> Result<Film, MediaError> {
    let broken = |said: String| MediaError::Broken { file: source.file.clone(), said };
    let told: Told = serde_json::from_str(json).map_err(|error| broken(format!("ffprobe's answer: {error}")))?;
    let number = |text: Option<String>| text.and_then(|text| text.parse::<f64>().ok()).filter(|n| n.is_finite());
    let comment = told.format.tags.iter().find(|(key, _)| key.eq_ignore_ascii_case("comment"));
    Ok(Film {
        part: comment.and_then(|(_, text)| text.parse().ok()),
        start: number(told.format.start_time).unwrap_or(0.0),
        seconds: number(told.format.duration),
        torn: None,
        streams: told.streams.into_iter().map(ToldStream::stream).collect(),
        source,
    })
}

impl Workshop<'_> {
    /// Looks at the film that `file` is.
    ///
    /// # Errors
    /// If it is not opened, not read, or more than the limits allow.
    pub fn probe(&self, file: &Path) -> Result<Film, MediaError> {
        let film = self.look(Source::open(file, &self.limits)?)?;
        self.check_limits(&film)?;
        Ok(film)
    }

    pub(crate) fn look(&self, source: Source) -> Result<Film, MediaError> {
        const ENTRIES: &str = "format=start_time,duration:stream=index,codec_name,codec_type,profile,time_base,width,height,\
                               pix_fmt,avg_frame_rate,sample_rate,channels,extradata_hash,start_pts,duration_ts,field_order:\
                               stream_disposition=attached_pic,timed_thumbnails:stream_side_data=rotation:\
                               stream_tags=alpha_mode,ALPHA_MODE:format_tags=comment,COMMENT";
        let mut arguments: Vec<OsString> =
            ["-v", "error", "-show_data_hash", "CRC32", "-show_entries", ENTRIES].map(OsString::from).into();
        arguments.extend(["-of".into(), "json".into()]);
        arguments.extend(source.input(&self.limits));
        let call = Call {
            what: format!("reading {}", source.file),
            program: Program::Ffprobe,
            arguments,
            reach: Reach { reads: vec![source.path.clone()], ..Reach::default() },
            folder: None,
            abort: None,
        };
        let mut json = String::new();
        let said = call.run(self, &mut |line| {
            json.push_str(line);
            if json.len() > MOST_JSON { Heard::TooMuch } else { Heard::Progress }
        });
        match said {
            Err(MediaError::Failed { said, .. }) => Err(MediaError::Broken { file: source.file, said: clean(&said) }),
            Err(other) => Err(other),
            Ok(_) => {
                let torn = whole::missing(&source).map_err(MediaError::io(&source.path))?;
                Ok(Film { torn, ..parse(source, &json)? })
            }
        }
    }

    pub(crate) fn check_limits(&self, film: &Film) -> Result<(), MediaError> {
        let limits = &self.limits;
        let too_much =
            |found: String, most: String| MediaError::TooMuch { file: film.source.file.clone(), found, most };
        if film.streams.len() > limits.streams {
            return Err(too_much(format!("{} streams", film.streams.len()), limits.streams.to_string()));
        }
        let pixels = |stream: &Stream| u64::from(stream.width) * u64::from(stream.height);
        if let Some(stream) = film.streams.iter().find(|stream| pixels(stream) > limits.pixels) {
            let found = format!("frames of {} × {} pixels", stream.width, stream.height);
            return Err(too_much(found, format!("{} megapixels", limits.pixels / 1_000_000)));
        }
        match film.seconds {
            Some(seconds) if seconds > limits.duration.as_secs_f64() => {
                Err(too_much(format!("{seconds:.0} s"), format!("{} s", limits.duration.as_secs())))
            }
            _ => Ok(()),
        }
    }
}

/// ffprobe names the reader by its address; nobody needs that.
fn clean(said: &str) -> String {
    said.split("; ").map(|line| line.split_once("] ").map_or(line, |(_, rest)| rest)).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sniff::Container;

    fn source() -> Source {
        Source { path: "/a.mp4".into(), file: "a.mp4".into(), container: Container::Mov, bytes: 9 }
    }

    #[test]
    fn what_ffprobe_says_is_read() {
        let film = parse(
            source(),
            r#"{"programs": [], "streams": [
                {"index": 0, "codec_name": "h264", "codec_type": "video", "width": 641, "height": 480,
                 "pix_fmt": "yuv420p", "avg_frame_rate": "30000/1001", "time_base": "1/30000",
                 "disposition": {"attached_pic": 0}, "side_data_list": [{"rotation": -90}]},
                {"index": 1, "codec_name": "aac", "codec_type": "audio", "sample_rate": "44100", "channels": 2,
                 "time_base": "1/44100", "avg_frame_rate": "0/0"},
                {"index": 2, "codec_name": "png", "codec_type": "video", "disposition": {"attached_pic": 1}},
                {"index": 3, "codec_type": "data"}],
                "format": {"start_time": "-0.5", "duration": "12.000000"}}"#,
        );
        let film = film.unwrap();
        assert_eq!((film.start, film.seconds), (-0.5, Some(12.0)));
        let video = film.video().unwrap();
        assert_eq!((video.width, video.rotation, video.time_base), (641, -90, Ratio { num: 1, den: 30_000 }));
        assert!((video.fps.unwrap() - 29.97).abs() < 0.01);
        assert_eq!(film.audio().map(|audio| (audio.index, audio.fps)).collect::<Vec<_>>(), [(1, None)]);
        assert_eq!((film.streams[2].kind, film.streams[3].kind), (Kind::Cover, Kind::Other));
    }

    #[test]
    fn what_lacks_everything_is_read_too() {
        let film = parse(source(), r#"{"format": {"duration": "N/A"}}"#).unwrap();
        assert_eq!((film.start, film.seconds, film.streams.len()), (0.0, None, 0));
        assert!(parse(source(), "").unwrap_err().to_string().contains("a.mp4"));
    }
}
