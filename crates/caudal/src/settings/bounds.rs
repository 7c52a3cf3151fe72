//! Bounds of what models take, while they are loaded and while they run.

use std::time::Duration;

use super::{SettingsError, resolve::Reader};

/// Bounds of what models take.
#[derive(Debug, Clone)]
pub(crate) struct ModelBounds {
    /// Bytes that a trial load may take beside what follows from the model's files.
    pub(crate) load_memory: Option<u64>,
    /// How long a trial load may take; none if models are loaded without one.
    pub(crate) load_time: Option<Duration>,
    /// Bytes that the runs of all models take together.
    pub(crate) run_memory: Option<u64>,
}

impl Reader<'_> {
    pub(super) fn bounds(&self) -> Result<ModelBounds, SettingsError> {
        let mib = |key| self.optional_text(key).map(|_| self.number::<u64>(key, 1, 1 << 20)).transpose();
        let load_time = Duration::from_secs_f64(self.number("model_load_timeout_secs", 0.0, 86_400.0)?);
        Ok(ModelBounds {
            load_memory: mib("model_load_memory_mb")?.map(|mib| mib << 20),
            load_time: Some(load_time).filter(|time| !time.is_zero()),
            run_memory: mib("model_run_memory_mb")?.map(|mib| mib << 20),
        })
    }
}
