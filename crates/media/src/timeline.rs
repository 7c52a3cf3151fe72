//! Every packet of a film, without decoding any: what can be counted, cut and compared.

use std::{collections::BTreeMap, ffi::OsString};

use crate::{
    call::{Call, Heard},
    error::MediaError,
    film::{Film, Kind, Stream},
    guard::Reach,
    sniff::Container,
    workshop::{Program, Workshop},
};

/// A new recording within a file begins where time stamps run back. Another stream that runs back within this many
/// seconds of its beginning belongs to the same recording.
const SAME_RECORDING: f64 = 30.0;

/// One packet of video or sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    /// When its content is presented, in ticks, where it says so.
    pub(crate) pts: Option<i64>,
    /// For how long, in ticks; 0 where it does not say.
    pub(crate) duration: u32,
    /// Whether decoding can begin here.
    pub(crate) key: bool,
    /// Whether it is presented at all: an edit list may hide what decoders need.
    pub(crate) shown: bool,
    /// Whether decoders leave its last samples out, which its duration regards.
    pub(crate) cut: bool,
}

/// One frame of a video that says when it is shown; in the order in which decoders get them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// When it is shown, in ticks.
    pub(crate) pts: i64,
    /// Whether decoding can begin here.
    pub(crate) key: bool,
    /// Whether it is shown at all.
    pub(crate) shown: bool,
}

/// One stream's packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Track {
    /// Of the first video and of sound, all packets; of other streams none.
    pub(crate) packets: Vec<Packet>,
    /// Packets whose content is presented.
    pub(crate) shown: u64,
    /// When the first is presented, in ticks.
    pub(crate) first: Option<i64>,
    /// When the last has been presented, in ticks.
    pub(crate) end: Option<i64>,
    /// Whether a packet does not say when it is shown.
    pub(crate) untimed: bool,
    /// Where the recordings after the first begin: which recording, and its first packet.
    pub(crate) restarts: Vec<(usize, usize)>,
    /// The packet that is presented last: when, and for how long, in ticks; 0 where it does not say.
    latest: Option<(i64, i64)>,
    /// When the one before it is presented.
    before: Option<i64>,
    /// The duration of the last packet that says one.
    usual: i64,
    /// How long all packets last that are shown.
    played: i64,
    /// The last packet's time of decoding.
    decoded: Option<i64>,
    /// The recording that the last packet belongs to.
    recording: usize,
}

impl Track {
    fn take(&mut self, packet: Packet, keep: bool) {
        self.shown += u64::from(packet.shown);
        self.untimed |= packet.pts.is_none();
        self.played = self.played.saturating_add(if packet.shown { i64::from(packet.duration) } else { 0 });
        if keep {
            self.packets.push(packet);
        }
        if let Some(pts) = packet.pts.filter(|_| packet.shown) {
            let duration = i64::from(packet.duration);
            self.first = Some(self.first.map_or(pts, |first| first.min(pts)));
            self.follow(pts, duration);
            let end = pts.saturating_add(duration);
            self.end = Some(self.end.map_or(end, |before| before.max(end)));
        }
    }

    /// Remembers the packets that are presented last.
    fn follow(&mut self, pts: i64, duration: i64) {
        if duration > 0 {
            self.usual = duration;
        }
        match self.latest {
            Some((latest, _)) if pts < latest => self.before = self.before.max(Some(pts)),
            Some((latest, _)) if pts == latest => {}
            latest => {
                self.before = latest.map(|(pts, _)| pts);
                self.latest = Some((pts, duration));
            }
        }
    }

    /// Ends the track when all packets are read. A last packet that does not say how long it is presented, as ffprobe tells
    /// of MP4s with reordered frames, is presented as long as others.
    fn close(&mut self, from_zero: bool) {
        if from_zero {
            self.first = self.first.map(|first| first.max(0));
        }
        if self.untimed {
            self.end = self.end.max(self.first.map(|first| first.saturating_add(self.played)));
        }
        let Some((pts, 0)) = self.latest else { return };
        let gap = if self.usual > 0 { self.usual } else { self.before.map_or(0, |before| pts - before) };
        self.end = self.end.max(Some(pts.saturating_add(gap)));
    }

    /// Its frames, as far as they say when they are shown.
    pub(crate) fn frames(&self) -> Vec<Frame> {
        let frame = |packet: &Packet| Some(Frame { pts: packet.pts?, key: packet.key, shown: packet.shown });
        self.packets.iter().filter_map(frame).collect()
    }

    /// Packets that an edit list hides.
    pub(crate) fn hidden(&self) -> u64 {
        self.packets.iter().filter(|packet| !packet.shown).count() as u64
    }
}

/// All streams' packets, by the stream's number.
pub(crate) type Timeline = BTreeMap<usize, Track>;

/// What ffprobe writes of a packet.
struct Line {
    stream: usize,
    dts: Option<i64>,
    packet: Packet,
    /// Samples at its end that are not presented.
    discarded: u32,
}

impl Line {
    /// The packet, whose duration ends with what is presented.
    fn packet(&self, stream: Option<&Stream>) -> Packet {
        let rate = stream.and_then(|stream| Some((stream.time_base, stream.sample_rate.filter(|rate| *rate > 0)?)));
        let Some((time_base, rate)) = rate.filter(|_| self.discarded > 0) else { return self.packet };
        let ticks = time_base.ticks(f64::from(self.discarded) / f64::from(rate));
        let duration = self.packet.duration.saturating_sub(u32::try_from(ticks).unwrap_or(u32::MAX)).max(1);
        Packet { duration, cut: true, ..self.packet }
    }
}

/// A line of `stream_index,pts,dts,duration,flags`, and `skip_samples,discard_padding` where there is such side data.
fn line(text: &str) -> Option<Line> {
    let mut fields = text.split(',');
    let stream = fields.next()?.parse().ok()?;
    let pts = fields.next()?.parse().ok();
    let dts = fields.next()?.parse().ok();
    let duration = fields.next()?.parse().unwrap_or(0);
    let flags = fields.next()?;
    let discarded = fields.nth(1).and_then(|samples| samples.parse().ok()).unwrap_or(0);
    let packet = Packet { pts, duration, key: flags.starts_with('K'), shown: !flags.contains('D'), cut: false };
    Some(Line { stream, dts, packet, discarded })
}

/// The recordings of a file, told apart by time stamps that run back, as where files were put together byte by byte.
#[derive(Default)]
struct Recordings {
    newest: usize,
    /// When the newest begins by its own clock, in seconds.
    began: f64,
}

impl Recordings {
    fn follow(&mut self, track: &mut Track, line: &Line, stream: &Stream) {
        let Some(dts) = line.dts else { return };
        if track.decoded.is_some_and(|before| dts < before) {
            let at = stream.time_base.seconds(dts);
            if track.recording == self.newest || (at - self.began).abs() > SAME_RECORDING {
                self.newest += 1;
                self.began = at;
            }
            track.recording = self.newest;
            track.restarts.push((self.newest, track.packets.len()));
        }
        track.decoded = Some(dts);
    }
}

impl Workshop<'_> {
    /// Reads all packets of `film`.
    pub(crate) fn timeline(&self, film: &Film, doing: &'static str) -> Result<Timeline, MediaError> {
        const ENTRIES: &str =
            "packet=stream_index,pts,dts,duration,flags:packet_side_data=skip_samples,discard_padding";
        let mut arguments: Vec<OsString> =
            ["-v", "error", "-show_entries", ENTRIES, "-of", "csv=p=0"].map(OsString::from).into();
        arguments.extend(film.source.input(&self.limits));
        let call = Call {
            what: format!("reading {}", film.source.file),
            program: Program::Ffprobe,
            arguments,
            reach: Reach { reads: vec![film.source.path.clone()], ..Reach::default() },
            folder: None,
            abort: None,
        };
        let (mut timeline, mut recordings) = (Timeline::new(), Recordings::default());
        let video = film.video().map(|stream| stream.index);
        let (mut packets, most) = (0, self.limits.packets);
        call.run(self, &mut |text| {
            let Some(line) = line(text) else { return Heard::Nothing };
            packets += 1;
            let track = timeline.entry(line.stream).or_default();
            let stream = film.streams.iter().find(|stream| stream.index == line.stream);
            let kept = stream.filter(|stream| stream.kind == Kind::Audio || Some(stream.index) == video);
            if let Some(stream) = kept {
                recordings.follow(track, &line, stream);
            }
            track.take(line.packet(stream), kept.is_some());
            if let Some(stream) = stream.filter(|_| packets % 2048 == 0) {
                self.tell_read(film, stream, doing, &line);
            }
            if packets > most { Heard::TooMuch } else { Heard::Progress }
        })?;
        // These begin at 0; a packet before that is presented in part, from there on.
        let from_zero = matches!(film.source.container, Container::Mov | Container::Matroska);
        timeline.values_mut().for_each(|track| track.close(from_zero));
        self.check_duration(film, &timeline)?;
        Ok(timeline)
    }

    fn tell_read(&self, film: &Film, stream: &Stream, doing: &'static str, line: &Line) {
        if let (Some(pts), Some(of)) = (line.packet.pts, film.seconds) {
            self.tell(doing, (stream.time_base.seconds(pts) - film.start).clamp(0.0, of), of, 0);
        }
    }

    /// A head may say what it likes: packets tell how long a film is.
    fn check_duration(&self, film: &Film, timeline: &Timeline) -> Result<(), MediaError> {
        let (seconds, most) =
            (span(film, timeline, |_| true).map_or(0.0, |(from, to)| to - from), self.limits.duration);
        if seconds > most.as_secs_f64() {
            let (found, most) = (format!("{seconds:.0} s"), format!("{} s", most.as_secs()));
            return Err(MediaError::TooMuch { file: film.source.file.clone(), found, most });
        }
        Ok(())
    }
}

/// From when to when the streams that are `wanted` play, in seconds.
pub(crate) fn span(film: &Film, timeline: &Timeline, wanted: impl Fn(&Stream) -> bool) -> Option<(f64, f64)> {
    let plays = |stream: &&Stream| matches!(stream.kind, Kind::Video | Kind::Audio) && wanted(stream);
    let spans = film.streams.iter().filter(plays).filter_map(|stream| {
        let track = timeline.get(&stream.index)?;
        Some((stream.time_base.seconds(track.first?), stream.time_base.seconds(track.end?)))
    });
    spans.reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::film::Ratio;

    #[test]
    fn packets_are_read_whatever_follows_them() {
        let read = |text: &str| {
            line(text).map(|l| (l.stream, l.packet.pts, l.dts, l.packet.duration, l.packet.key, l.packet.shown))
        };
        assert_eq!(read("0,1024,512,512,K_"), Some((0, Some(1024), Some(512), 512, true, true)));
        assert_eq!(read("1,-1024,-1024,1024,KD,"), Some((1, Some(-1024), Some(-1024), 1024, true, false)));
        assert_eq!(read("0,N/A,N/A,N/A,___"), Some((0, None, None, 0, false, true)));
        assert_eq!(read("0,151200,0,3600,K__,side,data"), Some((0, Some(151_200), Some(0), 3600, true, true)));
        assert_eq!(read(""), None);
        let opus = Stream { sample_rate: Some(48_000), time_base: Ratio { num: 1, den: 1000 }, ..Stream::default() };
        let packet = line("1,1994,1994,20,K_,0,648").unwrap().packet(Some(&opus));
        assert_eq!((packet.duration, packet.cut), (6, true), "13.5 of 20 ms are not presented");
    }

    fn track(lines: &[&str]) -> Track {
        let mut track = Track::default();
        for text in lines {
            track.take(line(text).unwrap().packet, true);
        }
        track.close(false);
        track
    }

    #[test]
    fn a_last_packet_without_duration_lasts_as_long_as_those_before() {
        let timed = track(&["0,0,0,1024,K_", "0,1024,0,1024,__", "0,2048,0,N/A,__", "0,3072,0,0,__"]);
        assert_eq!((timed.first, timed.end), (Some(0), Some(4096)));
        let silent = track(&["0,0,0,N/A,K_", "0,2048,0,N/A,__", "0,1024,0,N/A,__", "0,3072,0,N/A,__"]);
        assert_eq!(silent.end, Some(4096), "the gap before it tells");
        let sound = track(&["1,0,0,1024,K_", "1,1024,0,500,K_"]);
        assert_eq!(sound.end, Some(1524), "what the last one says counts");
    }

    #[test]
    fn a_track_counts_what_is_shown_and_when() {
        let track = track(&["0,-512,0,512,KD", "0,1024,0,512,__", "0,0,0,512,__", "0,512,0,512,__"]);
        assert_eq!((track.packets.len(), track.shown, track.hidden()), (4, 3, 1));
        assert_eq!((track.first, track.end), (Some(0), Some(1536)));
    }

    #[test]
    fn recordings_are_told_apart_by_time_stamps_that_run_back() {
        let parse = |json: &str| serde_json::from_str::<Vec<(usize, i64)>>(json).unwrap();
        let stream = |index| Stream { index, ..Stream::default() };
        let mut recordings = Recordings::default();
        let mut tracks = [Track::default(), Track::default()];
        for (index, dts) in parse("[[0,0],[1,0],[0,40],[1,50],[0,80],[0,0],[1,10],[0,40],[1,60],[1,5],[0,40],[0,1]]") {
            let packet = Packet { pts: Some(dts), duration: 0, key: true, shown: true, cut: false };
            let line = Line { stream: index, dts: Some(dts), packet, discarded: 0 };
            recordings.follow(&mut tracks[index], &line, &stream(index));
            tracks[index].take(line.packet, true);
        }
        assert_eq!(tracks[0].restarts, [(1, 3), (2, 6)]);
        assert_eq!(tracks[1].restarts, [(1, 2), (2, 4)]);
    }
}
