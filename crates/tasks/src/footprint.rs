//! What a model holds of the machine's memory.

use std::fs;

use caudal_engine::Backend;

/// What a model was found to hold when it was loaded, in bytes, by three measures. None is right by itself: weights may be
/// packed anew, memory that another model gave back shows no growth, and the process may grow by what requests hold
/// meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Its files.
    pub weights: u64,
    /// By how much the memory grew that the backend keeps for runs, where it tells. All models share it.
    pub arena: Option<u64>,
    /// By how much the process grew.
    pub resident: u64,
}

impl Footprint {
    /// What it holds that no other model uses: its files at least, and by what the process grew beyond what is kept for
    /// all.
    pub fn bytes(&self) -> u64 {
        self.weights.max(self.resident.saturating_sub(self.arena.unwrap_or(0)))
    }
}

/// The state before a model is loaded.
pub(crate) struct Before {
    arena: Option<u64>,
    resident: u64,
}

impl Before {
    pub(crate) fn now(backend: &dyn Backend) -> Self {
        Self { arena: backend.arena_bytes(), resident: resident_bytes() }
    }

    /// What a model of `weights` bytes has added.
    pub(crate) fn grown(&self, backend: &dyn Backend, weights: u64) -> Footprint {
        let now = Self::now(backend);
        Footprint {
            weights,
            arena: now.arena.zip(self.arena).map(|(now, before)| now.saturating_sub(before)),
            resident: now.resident.saturating_sub(self.resident),
        }
    }
}

/// Resident memory of this process, in bytes.
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0) * 1024
}
