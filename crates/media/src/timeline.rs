//! Every packet of a film, without decoding any: what can be counted, cut and compared.

use std::{collections::BTreeMap, ffi::OsString};

use crate::{
    call::{Call, Heard},
    error::MediaError,
    film::{Film, Kind, Stream},
    guard::Reach,
    workshop::{Program, Workshop},
};

/// One frame of a video, as its packet says; in the order in which decoders get them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    /// When it is shown, in ticks.
    pub(crate) pts: i64,
    /// Whether decoding can begin here.
    pub(crate) key: bool,
    /// Whether it is shown at all: an edit may leave out what decoders need.
    pub(crate) shown: bool,
}

/// One stream's packets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Track {
    /// All packets.
    pub(crate) packets: u64,
    /// Those whose content is presented.
    pub(crate) shown: u64,
    /// When the first is presented, in ticks.
    pub(crate) first: Option<i64>,
    /// When the last has been presented, in ticks.
    pub(crate) end: Option<i64>,
    /// Whether a packet does not say when it is shown.
    pub(crate) untimed: bool,
    /// Of videos, each frame.
    pub(crate) frames: Vec<Frame>,
    /// The packet that is presented last: when, and for how long, in ticks; 0 where it does not say.
    latest: Option<(i64, i64)>,
    /// When the one before it is presented.
    before: Option<i64>,
    /// The duration of the last packet that says one.
    usual: i64,
}

impl Track {
    fn take(&mut self, packet: &Packet, keep: bool) {
        self.packets += 1;
        let shown = !packet.discarded;
        self.shown += u64::from(shown);
        let Some(pts) = packet.pts else {
            self.untimed = true;
            return;
        };
        if shown {
            self.first = Some(self.first.map_or(pts, |first| first.min(pts)));
            self.follow(pts, packet.duration);
            let end = pts.saturating_add(packet.duration);
            self.end = Some(self.end.map_or(end, |before| before.max(end)));
        }
        if keep {
            self.frames.push(Frame { pts, key: packet.key, shown });
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
    fn close(&mut self) {
        let Some((pts, 0)) = self.latest else { return };
        let gap = if self.usual > 0 { self.usual } else { self.before.map_or(0, |before| pts - before) };
        self.end = self.end.max(Some(pts.saturating_add(gap)));
    }

    /// When frames are shown, in order.
    pub(crate) fn times(&self) -> Vec<i64> {
        let mut times: Vec<i64> = self.frames.iter().filter(|frame| frame.shown).map(|frame| frame.pts).collect();
        times.sort_unstable();
        times
    }
}

/// All streams' packets, by the stream's number.
pub(crate) type Timeline = BTreeMap<usize, Track>;

struct Packet {
    stream: usize,
    pts: Option<i64>,
    duration: i64,
    key: bool,
    discarded: bool,
}

/// A line of `stream_index,pts,duration,flags`. Newer ffprobes append what belongs to side data.
fn packet(line: &str) -> Option<Packet> {
    let mut fields = line.split(',');
    let stream = fields.next()?.parse().ok()?;
    let pts = fields.next()?.parse().ok();
    let duration = fields.next()?.parse().unwrap_or(0);
    let flags = fields.next()?;
    Some(Packet { stream, pts, duration, key: flags.starts_with('K'), discarded: flags.contains('D') })
}

impl Workshop<'_> {
    /// Reads all packets of `film`.
    pub(crate) fn timeline(&self, film: &Film, doing: &'static str) -> Result<Timeline, MediaError> {
        let mut arguments: Vec<OsString> =
            ["-v", "error", "-show_entries", "packet=stream_index,pts,duration,flags", "-of", "csv=p=0"]
                .map(OsString::from)
                .into();
        arguments.extend(film.source.input(&self.limits));
        let call = Call {
            what: format!("reading {}", film.source.file),
            program: Program::Ffprobe,
            arguments,
            reach: Reach { reads: vec![film.source.path.clone()], ..Reach::default() },
            folder: None,
            abort: None,
        };
        let mut timeline = Timeline::new();
        let video = film.video().map(|stream| stream.index);
        let (mut packets, most) = (0, self.limits.packets);
        call.run(self, &mut |line| {
            let Some(packet) = packet(line) else { return Heard::Nothing };
            packets += 1;
            let keep = Some(packet.stream) == video;
            timeline.entry(packet.stream).or_default().take(&packet, keep);
            if packets % 2048 == 0 {
                self.tell_read(film, doing, &packet);
            }
            if packets > most { Heard::TooMuch } else { Heard::Progress }
        })?;
        timeline.values_mut().for_each(Track::close);
        self.check_duration(film, &timeline)?;
        Ok(timeline)
    }

    fn tell_read(&self, film: &Film, doing: &'static str, packet: &Packet) {
        let stream = film.streams.iter().find(|stream| stream.index == packet.stream);
        if let (Some(stream), Some(pts), Some(of)) = (stream, packet.pts, film.seconds) {
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

    #[test]
    fn packets_are_read_whatever_follows_them() {
        let read = |line: &str| packet(line).map(|p| (p.stream, p.pts, p.duration, p.key, p.discarded));
        assert_eq!(read("0,1024,512,K_"), Some((0, Some(1024), 512, true, false)));
        assert_eq!(read("1,-1024,1024,KD,"), Some((1, Some(-1024), 1024, true, true)));
        assert_eq!(read("0,N/A,N/A,___"), Some((0, None, 0, false, false)));
        assert_eq!(read("0,151200,3600,K__,side,data"), Some((0, Some(151_200), 3600, true, false)));
        assert_eq!(read(""), None);
    }

    #[test]
    fn a_last_packet_without_duration_lasts_as_long_as_those_before() {
        let mut track = Track::default();
        for line in ["0,0,1024,K_", "0,1024,1024,__", "0,2048,N/A,__", "0,3072,0,__"] {
            track.take(&packet(line).unwrap(), true);
        }
        track.close();
        assert_eq!((track.first, track.end), (Some(0), Some(4096)));
        let mut silent = Track::default();
        for line in ["0,0,N/A,K_", "0,2048,N/A,__", "0,1024,N/A,__", "0,3072,N/A,__"] {
            silent.take(&packet(line).unwrap(), true);
        }
        silent.close();
        assert_eq!(silent.end, Some(4096), "the gap before it tells");
        let mut sound = Track::default();
        for line in ["1,0,1024,K_", "1,1024,500,K_"] {
            sound.take(&packet(line).unwrap(), false);
        }
        sound.close();
        assert_eq!(sound.end, Some(1524), "what the last one says counts");
    }

    #[test]
    fn a_track_counts_what_is_shown_and_when() {
        let mut track = Track::default();
        for line in ["0,-512,512,KD", "0,1024,512,__", "0,0,512,__", "0,512,512,__"] {
            track.take(&packet(line).unwrap(), true);
        }
        assert_eq!((track.packets, track.shown, track.first, track.end), (4, 3, Some(0), Some(1536)));
        assert_eq!(track.times(), [0, 512, 1024]);
    }
}
