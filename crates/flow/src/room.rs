//! How many runs may go on concurrently, and how much their inputs may hold together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::RunError;

/// How many runs may go on concurrently, and how much their inputs may hold together.
#[derive(Debug, Clone)]
pub struct Room {
    runs: usize,
    bytes: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    runs: usize,
    bytes: usize,
}

impl Default for Room {
    /// Without an end: for a process that runs what its own caller asks.
    fn default() -> Self {
        Self::new(usize::MAX, usize::MAX)
    }
}

impl Room {
    /// For so many runs, whose inputs hold so many bytes together.
    pub fn new(runs: usize, bytes: usize) -> Self {
        Self { runs, bytes, taken: Arc::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for a run whose input has so many bytes. One that alone has more than all may have goes alone.
    pub(crate) fn claim(&self, bytes: usize) -> Result<Claim, RunError> {
        let mut taken = self.taken();
        if taken.runs >= self.runs {
            let message = format!("{} runs go on here, and {} are the most", taken.runs, self.runs);
            return Err(RunError::Busy(message.into()));
        }
        let all = taken.bytes.saturating_add(bytes);
        if all > self.bytes && taken.bytes > 0 {
            let message = format!(
                "the runs that go on here hold {} MiB of input, and with this one it would be more than {} MiB",
                taken.bytes >> 20,
                self.bytes >> 20,
            );
            return Err(RunError::Busy(message.into()));
        }
        (taken.runs, taken.bytes) = (taken.runs + 1, all);
        drop(taken);
        Ok(Claim { room: self.clone(), bytes })
    }
}

/// Room that a run takes until it is over.
#[derive(Debug)]
pub(crate) struct Claim {
    room: Room,
    bytes: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.runs -= 1;
        taken.bytes = taken.bytes.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_refuses_runs_and_bytes_beyond_its_limits_and_is_given_back() {
        let room = Room::new(2, 100);
        let first = room.claim(60).unwrap();
        assert!(matches!(room.claim(50), Err(RunError::Busy(_))), "more bytes than there are");
        let second = room.claim(40).unwrap();
        assert!(matches!(room.claim(0), Err(RunError::Busy(_))), "more runs than there may be");
        drop((first, second));
        let large = room.claim(1_000).expect("one that is larger than all goes alone");
        assert!(matches!(room.claim(1), Err(RunError::Busy(_))));
        drop(large);
        assert!(room.claim(1).is_ok());
    }
}
