//! Where a film is cut, and what its parts get of the machine. Pure.

use crate::timeline::Frame;

/// One part of a film.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// When its first frame is shown, in ticks.
    pub(crate) from: i64,
    /// When the first frame of the next part is shown; the last part has no end.
    pub(crate) to: Option<i64>,
    /// The key frame at which decoding begins; the first part begins at the beginning.
    pub(crate) seek: Option<i64>,
    /// Frames that are shown in it.
    pub(crate) frames: u64,
    /// Packets of the video before it, in the order of decoding.
    pub(crate) packet: u64,
}

/// What a cut is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cutting {
    /// Parts are decoded from the whole film. Where `exact`, a seek lands on the key frame that is meant.
    Decoding { exact: bool },
    /// Parts must stand for themselves: no frame may need what is in the part before.
    Copying,
}

/// A key frame at which a film can be cut.
#[derive(Debug, Clone, Copy)]
struct Key {
    pts: i64,
    /// Where decoding must begin to have all that follows.
    seek: i64,
    /// Frames shown before it.
    before: u64,
    packet: u64,
}

/// `frames`, in the order of decoding, in at most `wanted` parts of about as many frames each, cut at key frames.
/// `None` where there is nothing to show.
pub(crate) fn cut(frames: &[Frame], wanted: usize, cutting: Cutting) -> Option<Vec<Part>> {
    let shown = shown(frames);
    let total = shown.len() as u64;
    let first = *shown.first()?;
    let mut parts = vec![Part { from: first, to: None, seek: None, frames: total, packet: 0 }];
    for key in choose(&keys(frames, &shown, cutting), total, wanted) {
        let last = parts.last_mut().expect("there is a first part");
        let end = total - key.before;
        last.frames -= end;
        last.to = Some(key.pts);
        parts.push(Part { from: key.pts, to: None, seek: Some(key.seek), frames: end, packet: key.packet });
    }
    Some(parts)
}

fn shown(frames: &[Frame]) -> Vec<i64> {
    let mut shown: Vec<i64> = frames.iter().filter(|frame| frame.shown).map(|frame| frame.pts).collect();
    shown.sort_unstable();
    shown
}

/// Key frames that may begin a part, in order of time.
fn keys(frames: &[Frame], shown: &[i64], cutting: Cutting) -> Vec<Key> {
    let (mut keys, mut last_key, mut highest): (Vec<Key>, _, _) = (Vec::new(), None, i64::MIN);
    let lowest = lowest_after(frames);
    for (place, frame) in frames.iter().enumerate() {
        let latest_before = highest;
        highest = highest.max(frame.pts);
        if !frame.key {
            continue;
        }
        // In an open group, frames that are shown before the key frame come after it, and need what came before it.
        let closed = lowest[place] > frame.pts;
        let seek = match cutting {
            Cutting::Copying => (closed && latest_before < frame.pts).then_some(frame.pts),
            Cutting::Decoding { exact: true } if closed => Some(frame.pts),
            Cutting::Decoding { .. } => last_key,
        };
        last_key = Some(frame.pts);
        let before = shown.partition_point(|pts| *pts < frame.pts) as u64;
        let later = keys.last().is_none_or(|key| key.pts < frame.pts);
        if let Some(seek) = seek.filter(|_| frame.shown && later && before > 0) {
            keys.push(Key { pts: frame.pts, seek, before, packet: place as u64 });
        }
    }
    keys
}

/// For each frame, when the earliest of those that are decoded after it is shown.
fn lowest_after(frames: &[Frame]) -> Vec<i64> {
    let mut lowest = vec![i64::MAX; frames.len()];
    for place in (1..frames.len()).rev() {
        lowest[place - 1] = lowest[place].min(frames[place].pts);
    }
    lowest
}

/// The keys nearest to where equal parts would begin, each once.
fn choose(keys: &[Key], total: u64, wanted: usize) -> Vec<Key> {
    let mut chosen: Vec<Key> = Vec::new();
    for part in 1..wanted as u64 {
        let ideal = (u128::from(total) * u128::from(part) / wanted as u128) as u64;
        let after = chosen.last().map_or(0, |key| key.before);
        let free = keys.iter().filter(|key| key.before > after);
        if let Some(key) = free.min_by_key(|key| key.before.abs_diff(ideal)) {
            chosen.push(*key);
        }
    }
    chosen
}

/// How many parts, how many at once, and threads of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    pub(crate) segments: usize,
    pub(crate) jobs: usize,
    pub(crate) threads: usize,
}

/// Shares `cpus` among encoders that use up to `scales_to` threads well each.
///
/// One encoder with many threads is quicker than several with few until its threads run out of work (docs/media.md), so
/// there are as many as the machine has such encoders' worth of cores.
pub(crate) fn share(cpus: usize, scales_to: usize, segments: Option<usize>, jobs: Option<usize>) -> Shares {
    let cpus = cpus.max(1);
    let fitting = (cpus / scales_to.max(1)).max(1);
    let jobs = match (segments, jobs) {
        (_, Some(jobs)) => jobs.max(1),
        (Some(segments), None) => segments.clamp(1, cpus),
        (None, None) => fitting,
    };
    let segments = segments.unwrap_or(jobs).max(1);
    let jobs = jobs.min(segments);
    Shares { segments, jobs, threads: (cpus / jobs).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames that are shown as they are decoded, ten ticks apart; `I` is a key frame.
    fn frames(letters: &str) -> Vec<Frame> {
        let frame = |(place, letter)| Frame { pts: 10 * place as i64, key: letter == 'I', shown: true };
        letters.chars().enumerate().map(frame).collect()
    }

    fn parts(letters: &str, wanted: usize, cutting: Cutting) -> Vec<(i64, Option<i64>, u64)> {
        told(&frames(letters), wanted, cutting)
    }

    fn told(frames: &[Frame], wanted: usize, cutting: Cutting) -> Vec<(i64, Option<i64>, u64)> {
        let parts = cut(frames, wanted, cutting).unwrap();
        parts.iter().map(|part| (part.from, part.seek, part.frames)).collect()
    }

    const EXACT: Cutting = Cutting::Decoding { exact: true };

    #[test]
    fn equal_parts_begin_at_key_frames() {
        assert_eq!(parts("IPPPIPPPIPPPIPPP", 2, EXACT), [(0, None, 8), (80, Some(80), 8)]);
        assert_eq!(parts("IPPPIPPPIPPP", 3, Cutting::Copying), [(0, None, 4), (40, Some(40), 4), (80, Some(80), 4)]);
        assert_eq!(parts("IPPPPPIPP", 1, EXACT), [(0, None, 9)]);
    }

    #[test]
    fn fewer_key_frames_make_fewer_parts() {
        assert_eq!(parts("IPPPPP", 4, EXACT), [(0, None, 6)]);
        assert_eq!(parts("IPPIPP", 4, EXACT), [(0, None, 3), (30, Some(30), 3)]);
        assert_eq!(parts("I", 4, EXACT), [(0, None, 1)]);
        assert_eq!(cut(&[], 4, EXACT), None);
    }

    #[test]
    fn open_groups_are_entered_a_group_earlier_and_never_cut_by_copying() {
        // The second key frame is shown at 50, and the two decoded after it before that: they need what came before it.
        let mut film = frames("IPPIPPPP");
        for (place, pts) in [(3, 50), (4, 30), (5, 40)] {
            film[place].pts = pts;
        }
        assert_eq!(told(&film, 2, EXACT), [(0, None, 5), (50, Some(0), 3)]);
        assert_eq!(told(&film, 2, Cutting::Copying), [(0, None, 8)]);
    }

    #[test]
    fn where_seeking_is_vague_decoding_begins_a_group_earlier() {
        let vague = Cutting::Decoding { exact: false };
        assert_eq!(parts("IPPPIPPPIPPP", 3, vague), [(0, None, 4), (40, Some(0), 4), (80, Some(40), 4)]);
    }

    #[test]
    fn what_an_edit_leaves_out_is_not_counted() {
        let mut film = frames("IPPPIPPP");
        for frame in &mut film[..2] {
            frame.shown = false;
        }
        let parts = cut(&film, 2, EXACT).unwrap();
        assert_eq!(parts.iter().map(|part| part.frames).collect::<Vec<_>>(), [2, 4]);
        assert_eq!((parts[0].from, parts[1].packet), (20, 4));
    }

    #[test]
    fn every_frame_lies_in_one_part_whatever_the_film() {
        let mut random = 1_u64;
        let mut next = |most: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % most
        };
        for _ in 0..500 {
            let length = next(60) + 1;
            let film: Vec<Frame> = (0..length)
                .map(|place| Frame {
                    pts: (place * 10) as i64 + next(40) as i64,
                    key: place == 0 || next(6) == 0,
                    shown: next(9) > 0,
                })
                .collect();
            let wanted = next(9) as usize + 1;
            for cutting in [EXACT, Cutting::Decoding { exact: false }, Cutting::Copying] {
                let Some(parts) = cut(&film, wanted, cutting) else { continue };
                let times = shown(&film);
                assert!(parts.len() <= wanted && parts.iter().all(|part| part.frames > 0), "{film:?} {parts:?}");
                for part in &parts {
                    let within = |pts: &&i64| **pts >= part.from && part.to.is_none_or(|to| **pts < to);
                    assert_eq!(times.iter().filter(within).count() as u64, part.frames, "{film:?} {parts:?}");
                }
                assert_eq!(parts.iter().map(|part| part.frames).sum::<u64>(), times.len() as u64);
            }
        }
    }

    #[test]
    fn small_machines_run_one_encoder_and_large_ones_several() {
        let shares = |cpus, segments, jobs| {
            let shares = share(cpus, 8, segments, jobs);
            (shares.segments, shares.jobs, shares.threads)
        };
        assert_eq!(shares(2, None, None), (1, 1, 2));
        assert_eq!(shares(64, None, None), (8, 8, 8));
        assert_eq!(shares(2, Some(4), None), (4, 2, 1));
        assert_eq!(shares(8, Some(2), None), (2, 2, 4));
        assert_eq!(shares(8, Some(4), Some(1)), (4, 1, 8));
        assert_eq!(shares(8, None, Some(4)), (4, 4, 2));
        assert_eq!(shares(0, Some(0), Some(0)), (1, 1, 1));
    }
}
