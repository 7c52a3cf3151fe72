//! Films put one after the other: when each begins, and which packets of sound have no place where two meet. Pure.
//!
//! Each film keeps its own clock: its sound stays where it is beside its picture, whatever the film before it was like.
//! A film lasts as long as its picture; packets of sound that begin before its end reach over it, as where a film was
//! cut between them. Sound that begins after it is waited for.
//!
//! Encoders of sound bring packets before the first sample and pad the last one. Packets cannot overlap, and players
//! play them one after the other, so what would pile up is left out: packets that are hidden, and the last ones of a
//! film as soon as they would make the next film's sound late by more than half a packet.

use crate::{film::Ratio, split::PartNote, timeline::Packet};

/// Two moments nearer than this are the same, in seconds: Matroska's are whole milliseconds.
const SAME: f64 = 0.002;

/// One track of a film.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TrackView<'a> {
    pub(crate) time_base: Ratio,
    pub(crate) packets: &'a [Packet],
    /// When the first is presented, in ticks.
    pub(crate) first: Option<i64>,
    /// When the last packet has been presented, in ticks.
    pub(crate) end: i64,
    /// Whether every packet holds as many samples, whatever it says of its duration.
    pub(crate) even: bool,
}

impl TrackView<'_> {
    fn seconds(&self, ticks: i64) -> f64 {
        self.time_base.seconds(ticks)
    }

    fn shown(&self) -> impl DoubleEndedIterator<Item = (usize, i64, &Packet)> {
        let timed = self.packets.iter().enumerate().filter(|(_, packet)| packet.shown);
        timed.filter_map(|(place, packet)| Some((place, packet.pts?, packet)))
    }

    /// How long a packet lasts, in seconds: the first, for the last may be cut and others stand before a pause.
    fn usual(&self) -> f64 {
        let first =
            self.packets.iter().filter(|packet| packet.shown).map(|packet| packet.duration).find(|ticks| *ticks > 0);
        self.seconds(i64::from(first.unwrap_or(0)))
    }
}

/// A film's place among the others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    /// Its beginning by its own clock, in seconds.
    pub(crate) origin: f64,
    /// When it begins in the whole, in seconds.
    pub(crate) start: f64,
    /// How long it lasts.
    pub(crate) length: f64,
    /// Of each track, the packets that are left out, by their number.
    pub(crate) dropped: Vec<Vec<usize>>,
    /// Of each track, for how many seconds it is silent before this film's begins.
    pub(crate) pauses: Vec<f64>,
}

/// The places of `films`, whose tracks stand in one order; the first leads. Some say themselves when they begin and how
/// long they last (`notes`). Where `hides`, the whole may hide what the first film hides at its beginning.
pub(crate) fn arrange(
    films: &[Vec<TrackView>],
    notes: &[Option<PartNote>],
    leader_is_sound: bool,
    hides: bool,
) -> Vec<Placed> {
    let mut start = 0.0;
    let place = |(number, film): (usize, &Vec<TrackView>)| {
        let first = film.first().and_then(|view| Some(view.seconds(view.first?)));
        let (origin, length) = match first.zip(notes.get(number).copied().flatten()) {
            Some((first, note)) => (first - note.lead, note.seconds),
            None => extent(film),
        };
        let placed =
            Placed { origin, start, length, dropped: vec![Vec::new(); film.len()], pauses: vec![0.0; film.len()] };
        start += length;
        placed
    };
    let mut placed: Vec<Placed> = films.iter().enumerate().map(place).collect();
    let tracks = films.first().map_or(0, Vec::len);
    for track in usize::from(!leader_is_sound)..tracks {
        drop_hidden(films, &mut placed, track, hides);
        drop_overlaps(films, &mut placed, track);
    }
    placed
}

/// When a film begins by its own clock, and how long it lasts.
fn extent(film: &[TrackView]) -> (f64, f64) {
    let firsts = film.iter().filter_map(|view| Some(view.seconds(view.first?)));
    let origin = firsts.reduce(f64::min).unwrap_or(0.0);
    let Some((leader, others)) = film.split_first() else { return (origin, 0.0) };
    let end = leader.seconds(leader.end);
    let outlasts = |view: &&TrackView| {
        let last = view.shown().next_back().map(|(_, pts, _)| view.seconds(pts));
        last.is_some_and(|last| last > end - SAME)
    };
    let end = others.iter().filter(outlasts).map(|view| view.seconds(view.end)).fold(end, f64::max);
    (origin, (end - origin).max(0.0))
}

fn drop_hidden(films: &[Vec<TrackView>], placed: &mut [Placed], track: usize, hides: bool) {
    for (number, (film, placed)) in films.iter().zip(placed).enumerate() {
        let packets = film[track].packets;
        let first_shown = packets.iter().position(|packet| packet.shown).unwrap_or(packets.len());
        let hidden = packets.iter().enumerate().filter(|(_, packet)| !packet.shown).map(|(place, _)| place);
        placed.dropped[track] = hidden.filter(|place| !(hides && number == 0 && *place < first_shown)).collect();
    }
}

fn drop_overlaps(films: &[Vec<TrackView>], placed: &mut [Placed], track: usize) {
    // When all sound so far has been played without a pause, and the film whose packets were the last.
    let mut played: Option<(f64, usize)> = None;
    for number in 0..films.len() {
        let view = &films[number][track];
        let Some((first, last)) = view.shown().next().zip(view.shown().next_back()) else { continue };
        let begins = placed[number].start + view.seconds(first.1) - placed[number].origin;
        let mut clock = begins;
        if let Some((end, before)) = played {
            clock = trim(&films[before][track], &mut placed[before].dropped[track], end, begins);
            let half = view.usual() / 2.0;
            if begins - clock > half.max(SAME) {
                placed[number].pauses[track] = begins - clock;
                clock = begins;
            }
        }
        let duration = if view.even && !last.2.cut { view.usual() } else { view.seconds(i64::from(last.2.duration)) };
        played = Some((clock + view.seconds(last.1.saturating_sub(first.1)) + duration, number));
    }
}

/// Leaves the last packets of `view` out while it would end later than the next `begins` by more than half a packet.
/// Comes back with when it ends then.
fn trim(view: &TrackView, dropped: &mut Vec<usize>, mut end: f64, begins: f64) -> f64 {
    let mut kept = view.shown().rev().peekable();
    while let Some((place, pts, packet)) = kept.next() {
        let duration = match kept.peek() {
            // Of whole milliseconds only differences are exact in the long run.
            Some((_, before, _)) if view.even && !packet.cut => view.seconds(pts.saturating_sub(*before)),
            _ => view.seconds(i64::from(packet.duration)),
        };
        // A hair more than half, for sums of fractions.
        if end - begins <= (duration / 2.0).max(SAME) + 1e-6 {
            break;
        }
        dropped.push(place);
        end -= duration;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Ratio = Ratio { num: 1, den: 1000 };

    /// Packets of 20 ms from `from` to before `to`; those before 0 are hidden.
    fn packets(from: i64, to: i64) -> Vec<Packet> {
        let packet = |pts| Packet { pts: Some(pts), duration: 20, key: true, shown: pts >= 0, cut: false };
        (from..to).step_by(20).map(packet).collect()
    }

    fn view(packets: &[Packet], end: i64) -> TrackView<'_> {
        TrackView {
            time_base: MS,
            packets,
            first: packets.iter().filter(|packet| packet.shown).find_map(|packet| packet.pts),
            end,
            even: true,
        }
    }

    #[test]
    fn a_film_lasts_as_long_as_its_picture_unless_sound_begins_later() {
        let (video, short, reaching, long) = (packets(0, 1000), packets(0, 500), packets(10, 1000), packets(0, 1200));
        let length = |sound: &[Packet], end| extent(&[view(&video, 1000), view(sound, end)]).1;
        assert!((length(&short, 500) - 1.0).abs() < 1e-9);
        assert!((length(&reaching, 1010) - 1.0).abs() < 1e-9, "a packet that begins before the end reaches over it");
        assert!((length(&long, 1200) - 1.2).abs() < 1e-9);
        let late = packets(40, 1000);
        let (origin, length) = extent(&[view(&late, 1000), view(&short, 500)]);
        assert!((origin, length) == (0.0, 1.0), "sound may begin first");
    }

    #[test]
    fn sound_of_many_films_stays_beside_their_pictures() {
        // Each brings a hidden packet and 1010 ms, padded to 1020, for 1000 ms of video.
        let (video, sound) = (packets(0, 1000), packets(-20, 1020));
        let film = || vec![view(&video, 1000), view(&sound, 1000)];
        let films: Vec<_> = (0..50).map(|_| film()).collect();
        let placed = arrange(&films, &[], false, true);
        let mut clock = -0.02;
        for (number, film) in placed.iter().enumerate() {
            let begins = film.start;
            let hidden = usize::from(number == 0);
            assert!((clock - begins + 0.02 * hidden as f64).abs() <= 0.011, "film {number}: {clock} {begins}");
            assert!(film.dropped[0].is_empty(), "no frame is left out");
            clock += 0.02 * (sound.len() - film.dropped[1].len()) as f64;
        }
        assert_eq!((placed[0].dropped[1].contains(&0), placed[1].dropped[1].contains(&0)), (false, true));
        assert!(arrange(&films, &[], false, false)[0].dropped[1].contains(&0));
    }

    #[test]
    fn parts_that_were_cut_between_packets_lose_none() {
        let video = packets(0, 1000);
        // The packet that begins at 990 belongs to the first part, the next begins at 1010.
        let (first, second) = (packets(10, 1000), packets(10, 1000));
        let films = vec![vec![view(&video, 1000), view(&first, 1010)], vec![view(&video, 1000), view(&second, 1010)]];
        let placed = arrange(&films, &[], false, true);
        assert!(placed.iter().all(|film| film.dropped[1].is_empty()), "{placed:?}");
        assert!(placed.iter().all(|film| film.pauses == [0.0, 0.0]), "{placed:?}");
        assert_eq!(placed[1].start, 1.0);
    }

    #[test]
    fn where_sound_is_shorter_there_is_a_pause() {
        let (video, sound) = (packets(0, 1000), packets(0, 400));
        let film = || vec![view(&video, 1000), view(&sound, 400)];
        let placed = arrange(&[film(), film()], &[], false, true);
        assert!((placed[1].pauses[1] - 0.6).abs() < 1e-9, "{placed:?}");
        assert!(placed[1].dropped[1].is_empty());
    }

    #[test]
    fn sound_alone_leads() {
        let sound = packets(-20, 1000);
        let films = vec![vec![view(&sound, 990)], vec![view(&sound, 990)]];
        let placed = arrange(&films, &[], true, true);
        assert!((placed[1].start - 0.99).abs() < 1e-9);
        assert_eq!((placed[0].dropped[0].len(), placed[1].dropped[0].as_slice()), (0, &[0][..]));
    }
}
