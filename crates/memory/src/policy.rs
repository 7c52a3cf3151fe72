//! Policy of memory monitoring.

use std::time::Duration;

use crate::level::LevelThresholds;

/// Settings of memory monitoring. Percentages are of the machine's memory, or of the limit of the control group nearest
/// to its limit, whichever is fuller.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// True if memory is monitored.
    pub monitoring: bool,
    /// Interval between samples in the history and the log.
    pub interval: Duration,
    /// Percentage at which an alert is sent.
    pub alert: f64,
    /// The same for GPU memory; a cleanup runs at this percentage as well.
    pub gpu_alert: f64,
    /// True if cleanup hooks run automatically.
    pub auto_cleanup: bool,
    /// Percentage at which they run.
    pub cleanup: f64,
    /// Percentage at which new work is refused; `None` for never.
    pub shed: Option<f64>,
    /// Automatic cleanups free only memory that was not used for this long.
    pub rest_idle: Duration,
    /// URL to which alerts are posted.
    pub webhook: Option<String>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            monitoring: true,
            interval: Duration::from_secs(60),
            alert: 85.0,
            gpu_alert: 85.0,
            auto_cleanup: true,
            cleanup: 80.0,
            shed: Some(95.0),
            rest_idle: Duration::from_secs(60),
            webhook: None,
        }
    }
}

impl Policy {
    pub(crate) fn memory_thresholds(&self) -> LevelThresholds {
        LevelThresholds { elevated: self.cleanup, high: self.alert, critical: self.shed.unwrap_or(f64::INFINITY) }
    }

    /// Thresholds for GPUs. There is no critical level: exhausted GPU memory is an error and not a signal, and memory
    /// that a backend caches there counts as used. So no work is refused because of it.
    pub(crate) fn gpu_thresholds(&self) -> LevelThresholds {
        LevelThresholds { elevated: self.gpu_alert, high: self.gpu_alert, critical: f64::INFINITY }
    }
}
