//! History of memory readings.

use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use crate::{level::Level, reading::Reading};

/// Number of stored samples: four hours at one per minute.
const MAX_SAMPLES: usize = 240;

/// Memory use at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemorySample {
    /// Seconds since 1970.
    pub at: u64,
    /// Memory level.
    pub level: Level,
    /// Use of the machine's memory.
    pub system_percent: Option<f64>,
    /// Use of the control group nearest to its limit.
    pub cgroup_percent: Option<f64>,
    /// Use of the fullest GPU.
    pub gpu_percent: Option<f64>,
    /// Resident bytes of this process.
    pub process_bytes: u64,
}

impl MemorySample {
    pub(crate) fn from_reading(reading: &Reading, level: Level) -> Self {
        let percent = |percent: f64| (percent * 100.0).round() / 100.0;
        Self {
            at: unix_seconds(),
            level,
            system_percent: reading.system.map(|system| percent(system.percent())),
            cgroup_percent: reading.cgroup.as_ref().map(|group| percent(group.usage.percent())),
            gpu_percent: reading.fullest_gpu().map(|gpu| percent(gpu.usage.percent())),
            process_bytes: reading.process,
        }
    }
}

/// Seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

/// The latest samples, oldest first.
#[derive(Debug, Default)]
pub(crate) struct History(VecDeque<MemorySample>);

impl History {
    pub(crate) fn push_sample(&mut self, sample: MemorySample) {
        if self.0.len() == MAX_SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    pub(crate) fn to_samples(&self) -> Vec<MemorySample> {
        self.0.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_drops_the_oldest_sample() {
        let mut history = History::default();
        for bytes in 0..MAX_SAMPLES as u64 + 10 {
            history.push_sample(MemorySample::from_reading(
                &Reading { process: bytes, ..Default::default() },
                Level::Normal,
            ));
        }
        let all = history.to_samples();
        assert_eq!((all.len(), all[0].process_bytes), (MAX_SAMPLES, 10));
    }
}
