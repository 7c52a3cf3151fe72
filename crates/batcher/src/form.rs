//! The decision which entries run together. Pure: it sees what waits and the time, and says what to do.

use std::time::{Duration, Instant};

use caudal_types::{Deadline, Shape};

use crate::Policy;

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
/// An entry alone is taken even if it brings more rows than `max_batch_size`. What could still grow leaves at the
/// largest preferred size that it has reached, the rest waits for the next; short of all of them it is held back for
/// `max_queue_delay`, and then leaves as it is.
pub fn form_batch<'a, K: Copy>(
    waiting: impl IntoIterator<Item = (K, Waiting<'a>)>,
    policy: &Policy,
    now: Instant,
    run: Duration,
) -> Formed<K> {
    let mut formed = Formed { take: Vec::new(), late: Vec::new(), expired: Vec::new(), rows: 0, stop: Stop::Drained };
    let mut first: Option<Waiting<'_>> = None;
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
            if !rows_alike(first.shapes, entry.shapes) {
                formed.stop = Stop::OtherShape;
                break;
            }
            if formed.rows + entry.rows > policy.max_batch_size {
                formed.stop = Stop::NoRoom;
                break;
            }
        }
        first.get_or_insert(entry);
        oldest = oldest.min(entry.since);
        formed.rows += entry.rows;
        formed.take.push(key);
        if formed.rows >= policy.max_batch_size {
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

fn rows_alike(a: &[Shape], b: &[Shape]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.get(1..) == b.get(1..))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Patience, TimeoutAction};
    use proptest::prelude::*;

    const POLICY: Policy = Policy {
        max_batch_size: 8,
        preferred_batch_sizes: Vec::new(),
        max_queue_delay: Duration::ZERO,
        max_queue_size: 100,
        max_queue_bytes: 1 << 20,
        by_priority: [Patience { max_queue_size: None, timeout: None, then: TimeoutAction::Reject }; 3],
        run_in_place: 0,
    };

    const RUN: Duration = Duration::from_millis(3);

    fn waiting(rows: usize, since: Instant) -> Waiting<'static> {
        Waiting { rows, shapes: &[], deadline: Deadline::NEVER, since, expires: None }
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
    }
}
