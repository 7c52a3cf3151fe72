//! What memory was like.

use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{level::Level, reading::Reading};

/// Readings that are remembered: at one a minute, four hours.
const KEPT: usize = 240;

/// Memory at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Past {
    /// Seconds since 1970.
    pub at: u64,
    /// How short it was.
    pub level: Level,
    /// Of the machine.
    pub system_percent: Option<f64>,
    /// Of the control group that was nearest to its limit.
    pub cgroup_percent: Option<f64>,
    /// Of the fullest GPU.
    pub gpu_percent: Option<f64>,
    /// Resident bytes of this process.
    pub process_bytes: u64,
}

impl Past {
    pub(crate) fn of(reading: &Reading, level: Level) -> Self {
        let percent = |percent: f64| (percent * 100.0).round() / 100.0;
        Self {
            at: now(),
            level,
            system_percent: reading.system.map(|system| percent(system.percent())),
            cgroup_percent: reading.cgroup.as_ref().map(|group| percent(group.usage.percent())),
            gpu_percent: reading.fullest_gpu().map(|gpu| percent(gpu.usage.percent())),
            process_bytes: reading.process,
        }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

/// The last readings, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<Past>);

impl History {
    pub(crate) fn push(&mut self, past: Past) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(past);
    }

    pub(crate) fn all(&self) -> Vec<Past> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_forgets_the_oldest() {
        let mut history = History::default();
        for bytes in 0..KEPT as u64 + 10 {
            history.push(Past::of(&Reading { process: bytes, ..Default::default() }, Level::Normal));
        }
        let all = history.all();
        assert_eq!((all.len(), all[0].process_bytes), (KEPT, 10));
    }
}
