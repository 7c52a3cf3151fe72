//! Memory of NVIDIA GPUs, read with the driver's library (NVML), which is loaded at run time.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nvml_wrapper::Nvml;

use crate::reading::{Gpu, MemoryUsage};

/// Minimum interval between readings: one may take a millisecond, and the kernel does not kill for GPU memory.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The GPUs of this machine.
pub(crate) struct Gpus {
    /// `None` without a working driver, as on most machines.
    nvml: Option<Nvml>,
    last: Mutex<Option<(Instant, Vec<Gpu>)>>,
}

impl Gpus {
    pub(crate) fn disabled() -> Self {
        Self { nvml: None, last: Mutex::default() }
    }

    pub(crate) fn discover() -> Self {
        let nvml = Nvml::init().inspect_err(|error| tracing::debug!(%error, "gpu memory is not monitored")).ok();
        Self { nvml, last: Mutex::default() }
    }

    pub(crate) fn read_all(&self) -> Vec<Gpu> {
        let Some(nvml) = &self.nvml else { return Vec::new() };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((at, gpus)) if at.elapsed() < READ_INTERVAL => gpus.clone(),
            _ => {
                let gpus: Vec<Gpu> =
                    (0..nvml.device_count().unwrap_or(0)).filter_map(|index| read_gpu(nvml, index)).collect();
                *last = Some((Instant::now(), gpus.clone()));
                gpus
            }
        }
    }
}

/// Reads one GPU; `None` if it does not respond, so that a failed GPU does not stop monitoring.
fn read_gpu(nvml: &Nvml, index: u32) -> Option<Gpu> {
    let device = nvml.device_by_index(index).ok()?;
    let memory = device.memory_info().ok()?;
    let name = device.name().unwrap_or_else(|_| format!("GPU {index}"));
    Some(Gpu { name, usage: MemoryUsage { used: memory.used, limit: memory.total } })
}
