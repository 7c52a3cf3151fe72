//! What the watch keeps to.

use std::time::Duration;

use crate::level::Steps;

/// What the watch keeps to. Percentages are of the machine's memory, or of the limit of the control group that is
/// nearest to its own, whichever is fuller.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Whether anything is watched.
    pub monitoring: bool,
    /// How often a line is written and remembered.
    pub interval: Duration,
    /// Percent from which on somebody is told.
    pub alert: f64,
    /// The same of a GPU's memory; what is held for later is given back then too.
    pub gpu_alert: f64,
    /// Whether hooks run by themselves.
    pub auto_cleanup: bool,
    /// Percent from which on they do.
    pub cleanup: f64,
    /// Percent from which on new work is to be turned away; never if none.
    pub shed: Option<f64>,
    /// For how long nobody may have asked for what hooks let go.
    pub rest_idle: Duration,
    /// Who is told by a POST.
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
    pub(crate) fn steps(&self) -> Steps {
        Steps { elevated: self.cleanup, high: self.alert, critical: self.shed.unwrap_or(f64::INFINITY) }
    }

    /// Of a GPU: whoever runs out of its memory gets an error and no signal, and what a backend keeps there for runs
    /// counts as used. So nobody is turned away for it.
    pub(crate) fn gpu_steps(&self) -> Steps {
        Steps { elevated: self.gpu_alert, high: self.gpu_alert, critical: f64::INFINITY }
    }
}
