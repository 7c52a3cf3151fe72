//! What waits, counted.

use caudal_types::Priority;

use crate::Request;

/// What all admitted entries hold that do not run yet.
#[derive(Debug, Default)]
pub(crate) struct Held {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
    work: [usize; Priority::ALL.len()],
    of: [usize; Priority::ALL.len()],
}

impl Held {
    pub(crate) fn add(&mut self, request: &Request) {
        self.entries += 1;
        self.bytes += request.bytes;
        self.work[request.priority as usize] += request.work();
        self.of[request.priority as usize] += 1;
    }

    pub(crate) fn remove(&mut self, request: &Request) {
        self.entries -= 1;
        self.bytes -= request.bytes;
        self.work[request.priority as usize] -= request.work();
        self.of[request.priority as usize] -= 1;
    }

    /// Entries of `priority`.
    pub(crate) fn of(&self, priority: Priority) -> usize {
        self.of[priority as usize]
    }

    /// Work that goes before a new entry of `priority`.
    pub(crate) fn work_before(&self, priority: Priority) -> usize {
        self.work[..=priority as usize].iter().sum()
    }
}
