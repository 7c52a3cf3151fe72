//! `caudal try-model`: the process in which a server loads a model first. Hidden: only servers start it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use caudal_engine::{
    Provider,
    repository::{FolderError, Repository},
};
use caudal_engine_ort::{LibrarySource, OnnxRuntime};
use caudal_tasks::{Defaults, ModelError, load_version, trial};
use caudal_types::{CpuPlan, Explain, available_cpus};
use clap::ArgMatches;

use super::{CommandError, other};

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode, CommandError> {
    let number = |name: &str| matches.get_one::<u64>(name).copied();
    let count = |name: &str| number(name).and_then(|count| usize::try_from(count).ok());
    let parent = number("parent").and_then(|id| u32::try_from(id).ok()).unwrap_or_default();
    trial::confine(parent).map_err(|error| other(error.to_string()))?;
    let defaults = Defaults {
        cpus: CpuPlan::for_cpus(available_cpus()),
        providers: vec![Provider::Cpu],
        instances: count("instances"),
        threads: count("threads"),
        max_batch_size: count("max-batch-size"),
        // Nothing waits for a model that is only tried.
        max_queue_delay: Duration::ZERO,
        max_queue_size: 1,
        max_queue_bytes: 1,
        run_limit: Duration::from_millis(number("run-limit-ms").unwrap_or(1)),
    };
    let tried = load(matches, &defaults);
    if let Err(Failed { reason, hint, for_callers }) = &tried {
        let text = trial::failure(reason, hint, for_callers.as_deref());
        // Its parent reads it, or has gone.
        let _ = io::stdout().lock().write_all(text.as_bytes());
    }
    Ok(ExitCode::from(u8::from(tried.is_err())))
}

/// Why the model does not load, and what to do.
struct Failed {
    reason: String,
    hint: String,
    for_callers: Option<String>,
}

impl From<ModelError> for Failed {
    fn from(error: ModelError) -> Self {
        Self {
            reason: error.to_string(),
            hint: error.hint().into_owned(),
            for_callers: error.for_callers().map(str::to_owned),
        }
    }
}

fn load(matches: &ArgMatches, defaults: &Defaults) -> Result<(), Failed> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let failed = |reason: String| Failed { reason, hint: "try again".to_owned(), for_callers: None };
    let backend = OnnxRuntime::load_library(&path("library"), LibrarySource::Setting)
        .map_err(|error| failed(error.to_string()))?;
    let name = matches.get_one::<String>("model").map_or("", String::as_str);
    let models = Repository::open(&path("repository")).and_then(|repository| repository.list_models());
    let models = models.map_err(|error| failed(error.to_string()))?;
    let folder = models.into_iter().find(|folder| folder.name == name);
    let folder = folder.ok_or_else(|| failed(format!("the model {name} has gone")))?;
    let mut settings = folder.read_settings().map_err(|error| ModelError::from(FolderError::from(error)))?;
    let version = folder.serving_version(&settings).map_err(ModelError::from)?;
    // Constants are computed on the processor for every provider, and a graphics card may have no memory for two.
    (settings.providers, settings.precision) = (None, None);
    load_version(&folder, &version, settings, &backend, defaults)?;
    Ok(())
}
