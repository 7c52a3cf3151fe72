//! Words that make ffmpeg, while it copies, leave packets out or move them; by their numbers within their stream, so that
//! what happens is what was planned.

use std::ops::Range;

/// What happens to the packets of one stream, in the order of the words.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Edits {
    /// From which packet on they are moved by how many seconds.
    pub(crate) moves: Vec<(usize, f64)>,
    /// Packets that are left out: ranges in order.
    pub(crate) dropped: Vec<Range<usize>>,
}

impl Edits {
    /// What is not in `kept` is left out.
    pub(crate) fn keep(kept: &Range<usize>) -> Self {
        let dropped = [0..kept.start, kept.end..usize::MAX];
        Self { dropped: dropped.into_iter().filter(|range| !range.is_empty()).collect(), ..Self::default() }
    }

    /// The packets `numbers`, in any order, are left out.
    pub(crate) fn without(numbers: impl IntoIterator<Item = usize>) -> Self {
        let mut numbers: Vec<usize> = numbers.into_iter().collect();
        numbers.sort_unstable();
        let mut dropped: Vec<Range<usize>> = Vec::new();
        for number in numbers {
            match dropped.last_mut() {
                Some(last) if last.end == number => last.end += 1,
                _ => dropped.push(number..number + 1),
            }
        }
        Self { dropped, ..Self::default() }
    }

    /// A chain of bitstream filters; `None` where nothing is to be done.
    pub(crate) fn filters(&self) -> Option<String> {
        let mut chain = Vec::new();
        if let Some(shift) = shift(&self.moves) {
            // A time stamp that is not there stays so.
            let moved = |stamp| format!("if(eq({stamp}\\,NOPTS)\\,NOPTS\\,{stamp}+round(({shift})/TB))");
            chain.push(format!("setts=pts={}:dts={}", moved("PTS"), moved("DTS")));
        }
        // After the other, which counts all packets.
        chain.extend(within(&self.dropped).map(|expression| format!("noise=drop={expression}")));
        (!chain.is_empty()).then(|| chain.join(","))
    }
}

/// Whether `n` lies in one of `ranges`, as a tree, so that it is found soon.
fn within(ranges: &[Range<usize>]) -> Option<String> {
    match ranges {
        [] => None,
        [range] if range.end == usize::MAX => Some(format!("gte(n\\,{})", range.start)),
        [range] => Some(format!("between(n\\,{}\\,{})", range.start, range.end - 1)),
        _ => {
            let (early, late) = ranges.split_at(ranges.len() / 2);
            Some(format!("if(lt(n\\,{})\\,{}\\,{})", late[0].start, within(early)?, within(late)?))
        }
    }
}

/// By how many seconds packet `N` is moved.
fn shift(moves: &[(usize, f64)]) -> Option<String> {
    match moves {
        [] => None,
        [(0, seconds)] => Some(format!("{seconds:.9}")),
        [(from, seconds)] => Some(format!("gte(N\\,{from})*({seconds:.9})")),
        _ => {
            let (early, late) = moves.split_at(moves.len() / 2);
            Some(format!("if(lt(N\\,{})\\,{}\\,{})", late[0].0, shift(early)?, shift(late)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_named_by_number() {
        assert_eq!(Edits::keep(&(0..usize::MAX)).filters(), None);
        assert_eq!(
            Edits::keep(&(3..9)).filters().unwrap(),
            "noise=drop=if(lt(n\\,9)\\,between(n\\,0\\,2)\\,gte(n\\,9))"
        );
        assert_eq!(Edits::without([7, 3, 4]).dropped, [3..5, 7..8]);
        let edits = Edits { moves: vec![(0, 0.0), (9, 4.5)], ..Edits::default() };
        let shift = "round((if(lt(N\\,9)\\,0.000000000\\,gte(N\\,9)*(4.500000000)))/TB)";
        let moved = |stamp: &str| format!("if(eq({stamp}\\,NOPTS)\\,NOPTS\\,{stamp}+{shift})");
        assert_eq!(edits.filters().unwrap(), format!("setts=pts={}:dts={}", moved("PTS"), moved("DTS")));
    }
}
