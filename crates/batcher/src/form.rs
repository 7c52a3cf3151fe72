//! The decision which entries run together. Pure: it sees what waits and the time, and says what to do.

use std::time::{Duration, Instant};

use caudal_types::{Deadline, Shape};

use crate::{Block, Policy};

/// What the decision needs to know of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Waiting<'a> {
    /// Rows it brings.
    pub rows: usize,
    /// The shape of each of its inputs, rows included; entries run together when their rows are alike.
    pub shapes: &'a [Shape],
    /// When its answer stops being worth anything.
    pub deadline: Deadline,
    /// Since when it waits.
    pub since: Instant,
    /// When it has waited long enough to be refused.
    pub expires: Option<Instant>,
    /// Whether its rows may be padded to the length of longer ones.
    pub ragged: bool,
}

/// Why a batch is as large as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stop {
    /// Nothing else waits.
    Drained,
    /// It holds as many rows as may run together.
    Full,
    /// It holds as many rows as the model likes best, of what waits.
    Preferred,
    /// The next entry brings more rows than are left.
    NoRoom,
    /// The next entry's rows have another shape.
    OtherShape,
    /// The next entry is so much longer or shorter that padding would cost more than a run of its own.
    Padding,
    /// Nothing runs yet: more may come until this moment.
    Delayed(Instant),
}

impl Stop {
    /// The reason's name in metrics and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Full => "full",
            Self::Preferred => "preferred",
            Self::NoRoom => "no_room",
            Self::OtherShape => "other_shape",
            Self::Padding => "padding",
            Self::Delayed(_) => "delayed",
        }
    }
}

/// A batch, and what was found on the way to it.
#[derive(Debug, PartialEq, Eq)]
pub struct Formed<K> {
    /// The entries that run, in order; empty when nothing waits or when more may come.
    pub take: Vec<K>,
    /// Entries whose deadline comes before a run would be done: they do not run.
    pub late: Vec<K>,
    /// Entries that have waited too long: they do not run either.
    pub expired: Vec<K>,
    /// Rows in `take`.
    pub rows: usize,
    /// Why the batch ends where it ends.
    pub stop: Stop,
}

/// Takes entries in the order given until one of the limits of `policy` says stop. A run takes `run`, as far as is
/// known: who needs its answer sooner is not worth one.
///
/// The order is kept: an entry that does not fit ends the batch instead of being overtaken, so nobody starves.
/// An entry alone is taken even if it brings more rows than `max_batch_size`, or more tokens than a run may have. What
/// could still grow leaves at the largest preferred size that it has reached, the rest waits for the next; short of all of
/// them it is held back for `max_queue_delay`, and then leaves as it is.
pub fn form_batch<'a, K: Copy>(
    waiting: impl IntoIterator<Item = (K, Waiting<'a>)>,
    policy: &Policy,
    now: Instant,
    run: Duration,
) -> Formed<K> {
    let mut formed = Formed { take: Vec::new(), late: Vec::new(), expired: Vec::new(), rows: 0, stop: Stop::Drained };
    let mut first: Option<Waiting<'_>> = None;
    let mut block = Block::default();
    let ragged = |entry: &Waiting<'_>| policy.ragged.filter(|_| entry.ragged);
    let mut oldest = now;
    // Entries and rows up to the largest preferred size.
    let mut preferred = None;
    for (key, entry) in waiting {
        if entry.deadline.passed(now + run) {
            formed.late.push(key);
            continue;
        }
        if entry.expires.is_some_and(|at| at <= now) {
            formed.expired.push(key);
            continue;
        }
        if let Some(first) = first {
            if !rows_alike(&first, &entry) {
                formed.stop = Stop::OtherShape;
                break;
            }
            if formed.rows + entry.rows > policy.max_batch_size {
                formed.stop = Stop::NoRoom;
                break;
            }
            if let Some(stop) = ragged(&entry).and_then(|ragged| ragged.stop(block, entry.block())) {
                formed.stop = stop;
                break;
            }
        }
        first.get_or_insert(entry);
        oldest = oldest.min(entry.since);
        formed.rows += entry.rows;
        formed.take.push(key);
        block = block.beside(entry.block());
        let most_tokens = ragged(&entry).map_or(usize::MAX, |ragged| ragged.max_batch_tokens);
        if formed.rows >= policy.max_batch_size || block.tokens() >= most_tokens {
            formed.stop = Stop::Full;
            break;
        }
        if policy.preferred_within(formed.rows) == Some(formed.rows) {
            preferred = Some((formed.take.len(), formed.rows));
        }
    }
    match preferred.filter(|_| formed.stop == Stop::Drained) {
        Some((entries, rows)) => {
            formed.take.truncate(entries);
            Formed { rows, stop: Stop::Preferred, ..formed }
        }
        None => hold_back(formed, oldest + policy.max_queue_delay, now),
    }
}

/// Gives more entries the time to come: only a batch that could still grow is held back.
fn hold_back<K>(mut formed: Formed<K>, until: Instant, now: Instant) -> Formed<K> {
    if formed.stop == Stop::Drained && !formed.take.is_empty() && until > now {
        formed.take.clear();
        formed.rows = 0;
        formed.stop = Stop::Delayed(until);
    }
    formed
}

impl Waiting<'_> {
    /// Its rows, with their length where they have one.
    fn block(&self) -> Block {
        let length = self.shapes.first().and_then(|shape| shape.get(1));
        Block { rows: self.rows, length: length.copied().unwrap_or(1) }
    }
}

/// Whether rows of both can lie in one tensor.
fn rows_alike(a: &Waiting<'_>, b: &Waiting<'_>) -> bool {
    let fixed = if a.ragged { 2 } else { 1 };
    let alike = |(a, b): (&Shape, &Shape)| a.get(fixed..) == b.get(fixed..);
    a.ragged == b.ragged && a.shapes.len() == b.shapes.len() && a.shapes.iter().zip(b.shapes).all(alike)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Patience, Ragged, TimeoutAction};
    use proptest::prelude::*;

    const POLICY: Policy = Policy {
        max_batch_size: 8,
        preferred_batch_sizes: Vec::new(),
        ragged: None,
        max_queue_delay: Duration::ZERO,
        max_queue_size: 100,
        max_queue_bytes: 1 << 20,
        by_priority: [Patience { max_queue_size: None, timeout: None, then: TimeoutAction::Reject }; 3],
        run_in_place: 0,
    };

    const RUN: Duration = Duration::from_millis(3);

    fn waiting(rows: usize, since: Instant) -> Waiting<'static> {
        Waiting { rows, shapes: &[], deadline: Deadline::NEVER, since, expires: None, ragged: false }
    }

    fn form(rows: &[usize], policy: &Policy) -> (usize, Stop) {
        let now = Instant::now();
        let entries = rows.iter().enumerate().map(|(key, rows)| (key, waiting(*rows, now)));
        let formed = form_batch(entries, policy, now, RUN);
        (formed.take.len(), formed.stop)
    }

    fn check(rows: &[usize], taken: usize, stop: Stop) {
        assert_eq!(form(rows, &POLICY), (taken, stop), "{rows:?}");
    }

    #[test]
    fn a_batch_takes_what_waits_and_says_why_it_stopped() {
        check(&[], 0, Stop::Drained);
        check(&[1], 1, Stop::Drained);
        check(&[1, 1, 1], 3, Stop::Drained);
        check(&[1; 12], 8, Stop::Full);
        check(&[5, 2, 3], 2, Stop::NoRoom);
        check(&[8, 1], 1, Stop::Full);
        check(&[20, 1], 1, Stop::Full);
        check(&[1, 20], 1, Stop::NoRoom);
    }

    #[test]
    fn rows_of_another_shape_wait_for_the_next_batch() {
        let now = Instant::now();
        let (narrow, wide) = (vec![vec![1, 3]], vec![vec![2, 5]]);
        let entry = |shapes| Waiting { shapes, ..waiting(1, now) };
        let formed = form_batch([(0, entry(&narrow)), (1, entry(&wide)), (2, entry(&narrow))], &POLICY, now, RUN);
        assert_eq!((formed.take, formed.stop), (vec![0], Stop::OtherShape));
    }

    #[test]
    fn what_is_not_to_be_padded_waits_for_the_next_batch() {
        let now = Instant::now();
        let shapes = vec![vec![1, 4]];
        let entry = |ragged| Waiting { shapes: &shapes, ragged, ..waiting(1, now) };
        let formed = form_batch([(0, entry(true)), (1, entry(false))], &POLICY, now, RUN);
        assert_eq!((formed.take, formed.stop), (vec![0], Stop::OtherShape));
    }

    /// Forms a batch of texts, each with its rows and their length: the entries taken and why no more.
    fn form_ragged(texts: &[(usize, usize)], ragged: Ragged) -> (usize, Stop) {
        let now = Instant::now();
        let shapes: Vec<_> = texts.iter().map(|(rows, length)| vec![vec![*rows, *length]; 2]).collect();
        let entries = texts
            .iter()
            .zip(&shapes)
            .enumerate()
            .map(|(key, ((rows, _), shapes))| (key, Waiting { shapes, ragged: true, ..waiting(*rows, now) }));
        let formed = form_batch(entries, &Policy { ragged: Some(ragged), ..POLICY }, now, RUN);
        (formed.take.len(), formed.stop)
    }

    #[test]
    fn rows_of_different_lengths_share_a_run_while_padding_is_cheap() {
        let ragged = Ragged { max_batch_tokens: 100, run_tokens: 20 };
        let check = |texts: &[(usize, usize)], taken, stop| {
            assert_eq!(form_ragged(texts, ragged), (taken, stop), "{texts:?}");
        };
        check(&[(1, 10), (1, 12), (1, 8)], 3, Stop::Drained);
        check(&[(1, 30), (1, 10), (1, 9)], 2, Stop::Padding);
        check(&[(1, 5), (1, 45)], 1, Stop::Padding);
        check(&[(1, 30), (1, 30), (1, 30), (1, 30)], 3, Stop::NoRoom);
        check(&[(2, 50), (1, 1)], 1, Stop::Full);
        check(&[(1, 500), (1, 500)], 1, Stop::Full);
        check(&[(8, 2), (1, 2)], 1, Stop::Full);
    }

    #[test]
    fn the_late_do_not_run_and_leave_no_hole() {
        let now = Instant::now();
        let entry = |deadline| Waiting { deadline, ..waiting(4, now) };
        let (passed, too_soon) = (Deadline::at(now), Deadline::at(now + RUN));
        let in_time = Deadline::at(now + RUN * 2);
        let entries = [(0, entry(passed)), (1, entry(Deadline::NEVER)), (2, entry(too_soon)), (3, entry(in_time))];
        let formed = form_batch(entries, &POLICY, now, RUN);
        let (take, late, expired) = (vec![1, 3], vec![0, 2], Vec::new());
        assert_eq!(formed, Formed { take, late, expired, rows: 8, stop: Stop::Full });
    }

    #[test]
    fn a_delay_holds_back_only_what_can_grow_and_only_so_long() {
        let now = Instant::now();
        let policy = Policy { max_queue_delay: Duration::from_millis(5), ..POLICY };
        let form = |rows: usize, waited: u64| {
            let since = now - Duration::from_millis(waited);
            form_batch([(0, waiting(rows, since))], &policy, now, RUN)
        };
        assert_eq!(form(1, 2).stop, Stop::Delayed(now + Duration::from_millis(3)));
        assert!(form(1, 2).take.is_empty());
        assert_eq!((form(1, 5).take, form(1, 5).stop), (vec![0], Stop::Drained));
        assert_eq!((form(8, 0).take, form(8, 0).stop), (vec![0], Stop::Full));
        assert_eq!(form_batch::<u8>([], &policy, now, RUN).stop, Stop::Drained);
    }

    #[test]
    fn who_has_waited_too_long_does_not_run() {
        let now = Instant::now();
        let entry = |expires| Waiting { expires: Some(expires), ..waiting(1, now) };
        let formed = form_batch([(0, entry(now)), (1, entry(now + RUN))], &POLICY, now, RUN);
        assert_eq!((formed.take, formed.expired), (vec![1], vec![0]));
    }

    #[test]
    fn a_batch_leaves_at_the_sizes_that_are_preferred() {
        let delay = Duration::from_millis(5);
        let policy = Policy { preferred_batch_sizes: vec![2, 4], max_queue_delay: delay, ..POLICY };
        let check = |rows: &[usize], taken, stop| assert_eq!(form(rows, &policy), (taken, stop), "{rows:?}");
        check(&[1, 1], 2, Stop::Preferred);
        check(&[1, 1, 1], 2, Stop::Preferred);
        check(&[1; 5], 4, Stop::Preferred);
        check(&[1; 8], 8, Stop::Full);
        check(&[3, 3, 3], 2, Stop::NoRoom);
        let held = form(&[3], &policy);
        assert!(matches!(held, (0, Stop::Delayed(_))), "3 rows are no preferred size and may become 4: {held:?}");
        let at_once = Policy { max_queue_delay: Duration::ZERO, ..policy.clone() };
        assert_eq!(form(&[3], &at_once), (1, Stop::Drained));
    }

    proptest! {
        #[test]
        fn no_batch_exceeds_the_limit_and_the_order_is_kept(
            rows in proptest::collection::vec(1usize..12, 0..40), max in 1usize..16, late in any::<u64>(),
        ) {
            let now = Instant::now();
            let policy = Policy { max_batch_size: max, ..POLICY };
            let is_late = |key: usize| late >> (key % 64) & 1 == 1;
            let deadline = |key| if is_late(key) { Deadline::at(now) } else { Deadline::NEVER };
            let entries = rows.iter().enumerate().map(|(key, rows)| {
                (key, Waiting { deadline: deadline(key), ..waiting(*rows, now) })
            });
            let formed = form_batch(entries, &policy, now, RUN);
            let alive: Vec<_> = (0..rows.len()).filter(|key| !is_late(*key)).collect();
            prop_assert_eq!(&formed.take[..], &alive[..formed.take.len()], "a prefix of those alive, in order");
            prop_assert_eq!(formed.rows, formed.take.iter().map(|key| rows[*key]).sum::<usize>());
            prop_assert!(formed.rows <= max || formed.take.len() == 1);
            prop_assert!(formed.late.iter().all(|key| is_late(*key)));
            match formed.stop {
                Stop::Drained => prop_assert!(formed.take.len() == alive.len() && formed.rows < max),
                Stop::Full => prop_assert!(formed.rows >= max),
                Stop::NoRoom => prop_assert!(formed.rows + rows[alive[formed.take.len()]] > max),
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn a_run_of_texts_keeps_to_its_tokens_and_is_never_dearer_than_runs_apart(
            texts in proptest::collection::vec((1usize..4, 1usize..200), 0..40),
            max_batch_tokens in 1usize..1000, run_tokens in 0usize..50,
        ) {
            let ragged = Ragged { max_batch_tokens, run_tokens };
            let (taken, stop) = form_ragged(&texts, ragged);
            let block = |texts: &[(usize, usize)]| {
                texts.iter().fold(Block::default(), |all, (rows, length)| all.beside(Block { rows: *rows, length: *length }))
            };
            let batch = block(&texts[..taken]);
            prop_assert!(batch.tokens() <= max_batch_tokens || taken == 1);
            let apart: usize = texts[..taken].iter().map(|(rows, length)| rows * length + run_tokens).sum();
            prop_assert!(taken == 0 || batch.tokens() + run_tokens <= apart, "padding is not worth more than a run");
            let next = block(&texts[..texts.len().min(taken + 1)]);
            match stop {
                Stop::Drained => prop_assert_eq!(taken, texts.len()),
                Stop::Full => prop_assert!(batch.rows >= POLICY.max_batch_size || batch.tokens() >= max_batch_tokens),
                Stop::NoRoom => prop_assert!(next.rows > POLICY.max_batch_size || next.tokens() > max_batch_tokens),
                Stop::Padding => prop_assert!(next.tokens() > batch.tokens() + run_tokens),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
