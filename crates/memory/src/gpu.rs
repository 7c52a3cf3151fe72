//! Memory of NVIDIA's GPUs, by the library of their driver, which is looked for at run time.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use nvml_wrapper::Nvml;

use crate::reading::{Gpu, Use};

/// The driver is asked no oftener: a question may take a millisecond, and nobody is killed for memory of a GPU.
const EVERY: Duration = Duration::from_secs(1);

/// The GPUs of this machine.
pub(crate) struct Gpus {
    /// None where there is no driver, or none that answers: that is how most machines are.
    nvml: Option<Nvml>,
    last: Mutex<Option<(Instant, Vec<Gpu>)>>,
}

impl Gpus {
    pub(crate) fn none() -> Self {
        Self { nvml: None, last: Mutex::default() }
    }

    pub(crate) fn find() -> Self {
        let nvml = Nvml::init().inspect_err(|error| tracing::debug!(%error, "no GPU is watched")).ok();
        Self { nvml, last: Mutex::default() }
    }

    pub(crate) fn read(&self) -> Vec<Gpu> {
        let Some(nvml) = &self.nvml else { return Vec::new() };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((at, gpus)) if at.elapsed() < EVERY => gpus.clone(),
            _ => {
                let gpus: Vec<Gpu> =
                    (0..nvml.device_count().unwrap_or(0)).filter_map(|index| read(nvml, index)).collect();
                *last = Some((Instant::now(), gpus.clone()));
                gpus
            }
        }
    }
}

/// A GPU that does not answer is left out: one that fell off its bus must not stop the watch.
fn read(nvml: &Nvml, index: u32) -> Option<Gpu> {
    let device = nvml.device_by_index(index).ok()?;
    let memory = device.memory_info().ok()?;
    let name = device.name().unwrap_or_else(|_| format!("GPU {index}"));
    Some(Gpu { name, usage: Use { used: memory.used, limit: memory.total } })
}
