//! Backlog: counts of the entries that are admitted and not running.

use caudal_types::Priority;

use crate::EntryRequest;

/// Entries, bytes and work of all admitted entries that do not run yet.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
    work: [usize; Priority::ALL.len()],
    of: [usize; Priority::ALL.len()],
}

impl Backlog {
    pub(crate) fn add_entry(&mut self, request: &EntryRequest) {
        self.entries += 1;
        self.bytes += request.bytes;
        self.work[request.priority as usize] += request.work_units();
        self.of[request.priority as usize] += 1;
    }

    pub(crate) fn remove_entry(&mut self, request: &EntryRequest) {
        self.entries -= 1;
        self.bytes -= request.bytes;
        self.work[request.priority as usize] -= request.work_units();
        self.of[request.priority as usize] -= 1;
    }

    /// Entries of `priority`.
    pub(crate) fn entries_of(&self, priority: Priority) -> usize {
        self.of[priority as usize]
    }

    /// Work that runs before a new entry of `priority`.
    pub(crate) fn work_before(&self, priority: Priority) -> usize {
        self.work[..=priority as usize].iter().sum()
    }
}
