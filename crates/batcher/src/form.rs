//! Batch formation: decides which entries run together. Pure: it depends only on the waiting entries and the time.

use std::time::{Duration, Instant};

use caudal_types::{Deadline, Shape};

use crate::{Policy, RowBlock};

/// The properties of a waiting entry that the decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct WaitingEntry<'a> {
    /// Number of rows.
    pub rows: usize,
    /// The shape of each input, rows included; entries run together if their rows have the same shape.
    pub shapes: &'a [Shape],
    /// Time after which the answer is worthless.
    pub deadline: Deadline,
    /// Start of the wait.
    pub since: Instant,
    /// Time from which the entry is refused.
    pub expires: Option<Instant>,
    /// Whether its rows may be padded to the length of longer ones.
    pub ragged: bool,
}

/// The reason why a batch was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BatchClosedBy {
    /// No other entries wait.
    Drained,
    /// The maximum batch size is reached.
    Full,
    /// A preferred batch size is reached, and no other entries wait.
    Preferred,
    /// The next entry has more rows than are left.
    NoRoom,
    /// The rows of the next entry have another shape.
    OtherShape,
    /// Padding to the next entry's length would cost more than a separate run.
    Padding,
    /// No batch yet: more entries may join until this moment.
    Delayed(Instant),
}

impl BatchClosedBy {
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

/// A batch, and the entries that were rejected while it was formed.
#[derive(Debug, PartialEq, Eq)]
pub struct FormedBatch<K> {
    /// The entries to run, in order; empty if none wait or the batch is delayed.
    pub take: Vec<K>,
    /// Entries whose deadline is before the end of a run: they do not run.
    pub late: Vec<K>,
    /// Entries that have waited too long: they do not run either.
    pub expired: Vec<K>,
    /// Rows in `take`.
    pub rows: usize,
    /// The reason why the batch was closed.
    pub stop: BatchClosedBy,
}

/// Takes entries in the given order until a limit of `policy` closes the batch. A run is expected to take `run`:
/// entries with an earlier deadline do not run.
///
/// The order is kept: an entry that does not fit closes the batch instead of being overtaken, so no entry starves. A
/// single entry is taken even if it exceeds `max_batch_size` or the limit of tokens. A batch that could still grow
/// leaves at the largest preferred size that it has reached, and the rest waits for the next batch; below all preferred
/// sizes it is delayed by `max_queue_delay`.
pub fn form_batch<'a, K: Copy>(
    waiting: impl IntoIterator<Item = (K, WaitingEntry<'a>)>,
    policy: &Policy,
    now: Instant,
    run: Duration,
) -> FormedBatch<K> {
    let mut formed =
        FormedBatch { take: Vec::new(), late: Vec::new(), expired: Vec::new(), rows: 0, stop: BatchClosedBy::Drained };
    let mut first: Option<WaitingEntry<'_>> = None;
    let mut block = RowBlock::default();
    let ragged = |entry: &WaitingEntry<'_>| policy.ragged.filter(|_| entry.ragged);
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
                formed.stop = BatchClosedBy::OtherShape;
                break;
            }
            if formed.rows + entry.rows > policy.max_batch_size {
                formed.stop = BatchClosedBy::NoRoom;
                break;
            }
            if let Some(stop) = ragged(&entry).and_then(|ragged| ragged.closed_by(block, entry.row_block())) {
                formed.stop = stop;
                break;
            }
        }
        first.get_or_insert(entry);
        oldest = oldest.min(entry.since);
        formed.rows += entry.rows;
        formed.take.push(key);
        block = block.joined_with(entry.row_block());
        let most_tokens = ragged(&entry).map_or(usize::MAX, |ragged| ragged.max_batch_tokens);
        if formed.rows >= policy.max_batch_size || block.token_count() >= most_tokens {
            formed.stop = BatchClosedBy::Full;
            break;
        }
        if policy.preferred_within(formed.rows) == Some(formed.rows) {
            preferred = Some((formed.take.len(), formed.rows));
        }
    }
    match preferred.filter(|_| formed.stop == BatchClosedBy::Drained) {
        Some((entries, rows)) => {
            formed.take.truncate(entries);
            FormedBatch { rows, stop: BatchClosedBy::Preferred, ..formed }
        }
        None => hold_back(formed, oldest + policy.max_queue_delay, now),
    }
}

/// Delays a batch that could still grow.
fn hold_back<K>(mut formed: FormedBatch<K>, until: Instant, now: Instant) -> FormedBatch<K> {
    if formed.stop == BatchClosedBy::Drained && !formed.take.is_empty() && until > now {
        formed.take.clear();
        formed.rows = 0;
        formed.stop = BatchClosedBy::Delayed(until);
    }
    formed
}

impl WaitingEntry<'_> {
    /// Its rows and their length.
    fn row_block(&self) -> RowBlock {
        let length = self.shapes.first().and_then(|shape| shape.get(1));
        RowBlock { rows: self.rows, length: length.copied().unwrap_or(1) }
    }
}

/// Whether rows of both fit into one tensor.
fn rows_alike(a: &WaitingEntry<'_>, b: &WaitingEntry<'_>) -> bool {
    let fixed = if a.ragged { 2 } else { 1 };
    let alike = |(a, b): (&Shape, &Shape)| a.get(fixed..) == b.get(fixed..);
    a.ragged == b.ragged && a.shapes.len() == b.shapes.len() && a.shapes.iter().zip(b.shapes).all(alike)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{QueueTimeoutAction, QueueTimeouts, VariableLength};
    use proptest::prelude::*;

    const POLICY: Policy = Policy {
        max_batch_size: 8,
        preferred_batch_sizes: Vec::new(),
        ragged: None,
        max_queue_delay: Duration::ZERO,
        max_queue_size: 100,
        max_queue_bytes: 1 << 20,
        by_priority: [QueueTimeouts { max_queue_size: None, timeout: None, then: QueueTimeoutAction::Reject }; 3],
        run_in_place: 0,
    };

    const RUN: Duration = Duration::from_millis(3);

    fn test_entry(rows: usize, since: Instant) -> WaitingEntry<'static> {
        WaitingEntry { rows, shapes: &[], deadline: Deadline::NEVER, since, expires: None, ragged: false }
    }

    fn form_rows(rows: &[usize], policy: &Policy) -> (usize, BatchClosedBy) {
        let now = Instant::now();
        let entries = rows.iter().enumerate().map(|(key, rows)| (key, test_entry(*rows, now)));
        let formed = form_batch(entries, policy, now, RUN);
        (formed.take.len(), formed.stop)
    }

    fn assert_batch(rows: &[usize], taken: usize, stop: BatchClosedBy) {
        assert_eq!(form_rows(rows, &POLICY), (taken, stop), "{rows:?}");
    }

    #[test]
    fn batch_takes_waiting_entries_and_reports_close_reason() {
        assert_batch(&[], 0, BatchClosedBy::Drained);
        assert_batch(&[1], 1, BatchClosedBy::Drained);
        assert_batch(&[1, 1, 1], 3, BatchClosedBy::Drained);
        assert_batch(&[1; 12], 8, BatchClosedBy::Full);
        assert_batch(&[5, 2, 3], 2, BatchClosedBy::NoRoom);
        assert_batch(&[8, 1], 1, BatchClosedBy::Full);
        assert_batch(&[20, 1], 1, BatchClosedBy::Full);
        assert_batch(&[1, 20], 1, BatchClosedBy::NoRoom);
    }

    #[test]
    fn batch_ends_at_rows_of_other_shape() {
        let now = Instant::now();
        let (narrow, wide) = (vec![vec![1, 3]], vec![vec![2, 5]]);
        let entry = |shapes| WaitingEntry { shapes, ..test_entry(1, now) };
        let formed = form_batch([(0, entry(&narrow)), (1, entry(&wide)), (2, entry(&narrow))], &POLICY, now, RUN);
        assert_eq!((formed.take, formed.stop), (vec![0], BatchClosedBy::OtherShape));
    }

    #[test]
    fn batch_ends_at_rows_that_cannot_be_padded() {
        let now = Instant::now();
        let shapes = vec![vec![1, 4]];
        let entry = |ragged| WaitingEntry { shapes: &shapes, ragged, ..test_entry(1, now) };
        let formed = form_batch([(0, entry(true)), (1, entry(false))], &POLICY, now, RUN);
        assert_eq!((formed.take, formed.stop), (vec![0], BatchClosedBy::OtherShape));
    }

    /// Forms a batch of texts, each with its rows and their length; returns the number of entries and the close reason.
    fn form_ragged(texts: &[(usize, usize)], ragged: VariableLength) -> (usize, BatchClosedBy) {
        let now = Instant::now();
        let shapes: Vec<_> = texts.iter().map(|(rows, length)| vec![vec![*rows, *length]; 2]).collect();
        let entries =
            texts.iter().zip(&shapes).enumerate().map(|(key, ((rows, _), shapes))| {
                (key, WaitingEntry { shapes, ragged: true, ..test_entry(*rows, now) })
            });
        let formed = form_batch(entries, &Policy { ragged: Some(ragged), ..POLICY }, now, RUN);
        (formed.take.len(), formed.stop)
    }

    #[test]
    fn rows_of_different_lengths_join_while_padding_is_cheap() {
        let ragged = VariableLength { max_batch_tokens: 100, run_tokens: 20 };
        let check = |texts: &[(usize, usize)], taken, stop| {
            assert_eq!(form_ragged(texts, ragged), (taken, stop), "{texts:?}");
        };
        check(&[(1, 10), (1, 12), (1, 8)], 3, BatchClosedBy::Drained);
        check(&[(1, 30), (1, 10), (1, 9)], 2, BatchClosedBy::Padding);
        check(&[(1, 5), (1, 45)], 1, BatchClosedBy::Padding);
        check(&[(1, 30), (1, 30), (1, 30), (1, 30)], 3, BatchClosedBy::NoRoom);
        check(&[(2, 50), (1, 1)], 1, BatchClosedBy::Full);
        check(&[(1, 500), (1, 500)], 1, BatchClosedBy::Full);
        check(&[(8, 2), (1, 2)], 1, BatchClosedBy::Full);
    }

    #[test]
    fn late_entries_are_left_out_of_batch() {
        let now = Instant::now();
        let entry = |deadline| WaitingEntry { deadline, ..test_entry(4, now) };
        let (passed, too_soon) = (Deadline::at(now), Deadline::at(now + RUN));
        let in_time = Deadline::at(now + RUN * 2);
        let entries = [(0, entry(passed)), (1, entry(Deadline::NEVER)), (2, entry(too_soon)), (3, entry(in_time))];
        let formed = form_batch(entries, &POLICY, now, RUN);
        let (take, late, expired) = (vec![1, 3], vec![0, 2], Vec::new());
        assert_eq!(formed, FormedBatch { take, late, expired, rows: 8, stop: BatchClosedBy::Full });
    }

    #[test]
    fn delay_holds_back_only_growable_batches() {
        let now = Instant::now();
        let policy = Policy { max_queue_delay: Duration::from_millis(5), ..POLICY };
        let form = |rows: usize, waited: u64| {
            let since = now - Duration::from_millis(waited);
            form_batch([(0, test_entry(rows, since))], &policy, now, RUN)
        };
        assert_eq!(form(1, 2).stop, BatchClosedBy::Delayed(now + Duration::from_millis(3)));
        assert!(form(1, 2).take.is_empty());
        assert_eq!((form(1, 5).take, form(1, 5).stop), (vec![0], BatchClosedBy::Drained));
        assert_eq!((form(8, 0).take, form(8, 0).stop), (vec![0], BatchClosedBy::Full));
        assert_eq!(form_batch::<u8>([], &policy, now, RUN).stop, BatchClosedBy::Drained);
    }

    #[test]
    fn expired_entries_do_not_run() {
        let now = Instant::now();
        let entry = |expires| WaitingEntry { expires: Some(expires), ..test_entry(1, now) };
        let formed = form_batch([(0, entry(now)), (1, entry(now + RUN))], &POLICY, now, RUN);
        assert_eq!((formed.take, formed.expired), (vec![1], vec![0]));
    }

    #[test]
    fn batch_leaves_at_preferred_sizes() {
        let delay = Duration::from_millis(5);
        let policy = Policy { preferred_batch_sizes: vec![2, 4], max_queue_delay: delay, ..POLICY };
        let check = |rows: &[usize], taken, stop| assert_eq!(form_rows(rows, &policy), (taken, stop), "{rows:?}");
        check(&[1, 1], 2, BatchClosedBy::Preferred);
        check(&[1, 1, 1], 2, BatchClosedBy::Preferred);
        check(&[1; 5], 4, BatchClosedBy::Preferred);
        check(&[1; 8], 8, BatchClosedBy::Full);
        check(&[3, 3, 3], 2, BatchClosedBy::NoRoom);
        let held = form_rows(&[3], &policy);
        assert!(
            matches!(held, (0, BatchClosedBy::Delayed(_))),
            "3 rows are no preferred size and may become 4: {held:?}"
        );
        let at_once = Policy { max_queue_delay: Duration::ZERO, ..policy.clone() };
        assert_eq!(form_rows(&[3], &at_once), (1, BatchClosedBy::Drained));
    }

    proptest! {
        #[test]
        fn batches_respect_limit_and_order(
            rows in proptest::collection::vec(1usize..12, 0..40), max in 1usize..16, late in any::<u64>(),
        ) {
            let now = Instant::now();
            let policy = Policy { max_batch_size: max, ..POLICY };
            let is_late = |key: usize| late >> (key % 64) & 1 == 1;
            let deadline = |key| if is_late(key) { Deadline::at(now) } else { Deadline::NEVER };
            let entries = rows.iter().enumerate().map(|(key, rows)| {
                (key, WaitingEntry { deadline: deadline(key), ..test_entry(*rows, now) })
            });
            let formed = form_batch(entries, &policy, now, RUN);
            let alive: Vec<_> = (0..rows.len()).filter(|key| !is_late(*key)).collect();
            prop_assert_eq!(&formed.take[..], &alive[..formed.take.len()], "a prefix of those alive, in order");
            prop_assert_eq!(formed.rows, formed.take.iter().map(|key| rows[*key]).sum::<usize>());
            prop_assert!(formed.rows <= max || formed.take.len() == 1);
            prop_assert!(formed.late.iter().all(|key| is_late(*key)));
            match formed.stop {
                BatchClosedBy::Drained => prop_assert!(formed.take.len() == alive.len() && formed.rows < max),
                BatchClosedBy::Full => prop_assert!(formed.rows >= max),
                BatchClosedBy::NoRoom => prop_assert!(formed.rows + rows[alive[formed.take.len()]] > max),
                other => prop_assert!(false, "{other:?}"),
            }
        }

        #[test]
        fn text_batches_respect_token_limit_and_never_cost_more_than_separate_runs(
            texts in proptest::collection::vec((1usize..4, 1usize..200), 0..40),
            max_batch_tokens in 1usize..1000, run_tokens in 0usize..50,
        ) {
            let ragged = VariableLength { max_batch_tokens, run_tokens };
            let (taken, stop) = form_ragged(&texts, ragged);
            let block = |texts: &[(usize, usize)]| {
                texts.iter().fold(RowBlock::default(), |all, (rows, length)| all.joined_with(RowBlock { rows: *rows, length: *length }))
            };
            let batch = block(&texts[..taken]);
            prop_assert!(batch.token_count() <= max_batch_tokens || taken == 1);
            let apart: usize = texts[..taken].iter().map(|(rows, length)| rows * length + run_tokens).sum();
            prop_assert!(taken == 0 || batch.token_count() + run_tokens <= apart, "padding is not worth more than a run");
            let next = block(&texts[..texts.len().min(taken + 1)]);
            match stop {
                BatchClosedBy::Drained => prop_assert_eq!(taken, texts.len()),
                BatchClosedBy::Full => prop_assert!(batch.rows >= POLICY.max_batch_size || batch.token_count() >= max_batch_tokens),
                BatchClosedBy::NoRoom => prop_assert!(next.rows > POLICY.max_batch_size || next.token_count() > max_batch_tokens),
                BatchClosedBy::Padding => prop_assert!(next.token_count() > batch.token_count() + run_tokens),
                other => prop_assert!(false, "{other:?}"),
            }
        }
    }
}
