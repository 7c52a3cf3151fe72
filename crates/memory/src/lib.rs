//! Memory monitoring: usage and limits of machine, control groups and GPUs, the memory level, and recommendations.
//!
//! A [`MemoryMonitor`] reads the [`Sources`], derives a [`Level`] with hysteresis ([`LevelTracker`]), reports changes
//! (log, counters, a webhook) and runs registered [cleanup hooks](MemoryMonitor::register_hook). Its users decide which
//! work to refuse at a level: this crate knows neither requests nor models.

mod cgroup;
mod cleanup;
mod gpu;
mod history;
mod level;
mod monitor;
mod policy;
mod reading;
mod recommendations;
mod throttling;
mod webhook;

pub use cleanup::{CleanupReason, CleanupReport, CleanupRequest, HookRun, HookStats};
pub use history::MemorySample;
pub use level::{Level, LevelThresholds, LevelTracker};
pub use monitor::{MemoryMonitor, MonitorState};
pub use policy::Policy;
pub use reading::{CgroupUsage, Gpu, MemoryUsage, Reading, Scope, Sources};
pub use recommendations::MemoryConsumer;
pub use throttling::Throttling;
