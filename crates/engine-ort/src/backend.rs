//! ONNX Runtime as an implementation of the backend contract.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use caudal_engine::{
    Backend, Instance, Interrupt, LoadError, LoadOptions, Model, ModelSpec, OperatorProfile, OutputSink, Provider,
    RunError, join_names, without_values,
};
use caudal_types::TensorView;
use ort::{environment::Environment, session::builder::SessionBuilder};

use crate::{
    library::{LibraryError, LibrarySource},
    operators::ProfileFile,
    provider,
    raw::{self, ArenaGauge, RunOptions, SessionRunner, SharedSession},
    session,
};

/// ONNX Runtime, loaded and ready to open models.
pub struct OnnxRuntime {
    environment: Environment,
    library: PathBuf,
    providers: Vec<Provider>,
    arena: ArenaGauge,
}

impl OnnxRuntime {
    /// Loads the shared library at `path`. A process can do this only once.
    pub fn load_library(path: &Path, source_name: LibrarySource) -> Result<Self, LibraryError> {
        Self::load_library_within(path, source_name, None)
    }

    /// The same; concurrent runs of all models on the CPU use at most `run_memory` bytes together, if given.
    pub fn load_library_within(
        path: &Path,
        source_name: LibrarySource,
        run_memory: Option<u64>,
    ) -> Result<Self, LibraryError> {
        let unusable = |reason: String| LibraryError::Unusable { path: path.to_owned(), source_name, reason };
        let builder = ort::init_from(path).map_err(|error| unusable(loader_message(&error)))?;
        let environment = builder.with_name("caudal").build().map_err(|error| unusable(error.to_string()))?;
        raw::share_arena(&environment, run_memory).map_err(unusable)?;
        let arena = session::probe_session(&environment).and_then(ArenaGauge::new).map_err(unusable)?;
        Ok(Self { environment, library: path.to_owned(), providers: provider::available_providers(), arena })
    }
}

/// The loader's message without the path, which the error already contains.
fn loader_message(error: &ort::LoadDynamicError) -> String {
    use ort::LoadDynamicError as Error;
    match error {
        Error::Dlopen { error, .. } => error.to_string(),
        Error::MissingApi { .. } => "it does not offer ONNX Runtime's functions".to_owned(),
        Error::InvalidVersionString => "it does not say which version it is".to_owned(),
        Error::BadVersion { version_str, .. } => {
            format!("it is version {version_str}, and 1.{} is the oldest that works", ort::MINOR_VERSION)
        }
    }
}

impl Backend for OnnxRuntime {
    fn describe_version(&self) -> String {
        let version = raw::library_version(&self.library).unwrap_or_else(|| "of unknown version".to_owned());
        format!("ONNX Runtime {version} ({})", join_names(&self.providers))
    }

    fn providers(&self) -> Vec<Provider> {
        self.providers.clone()
    }

    fn arena_bytes(&self) -> Option<u64> {
        self.arena.allocated_bytes()
    }

    fn shrink_arena(&self) -> Result<(), String> {
        self.arena.release_unused()
    }

    fn load_model(&self, file: &Path, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        if !self.providers.contains(&options.provider) {
            return Err(LoadError::NoProvider { wanted: options.provider, has: self.providers() });
        }
        let session = session::open_session(&self.environment, file, options)?;
        let spec = session::read_spec(&session, file)?;
        let left_to_cpu = match options.provider {
            Provider::Cpu => 0,
            _ => raw::count_cpu_fallbacks(&session).map_err(LoadError::Backend)?,
        };
        let first = SharedSession::new(&session).map_err(LoadError::Backend)?;
        Ok(Arc::new(OnnxModel {
            environment: self.environment.clone(),
            file: file.to_owned(),
            spec,
            options: *options,
            left_to_cpu,
            open: Mutex::new(Some((options.threads, first))),
        }))
    }

    fn profile_operators(
        &self,
        file: &Path,
        options: &LoadOptions,
        runs: usize,
        run: &mut dyn FnMut(&mut dyn Instance) -> Result<(), RunError>,
    ) -> Result<OperatorProfile, LoadError> {
        let profile = ProfileFile::new();
        let with_profile = |builder: SessionBuilder| Ok(builder.with_profiling(&profile.prefix)?);
        let mut session = session::open_session_with(&self.environment, file, options, with_profile)?;
        let runner = SharedSession::new(&session).and_then(SessionRunner::new).map_err(LoadError::Backend)?;
        let mut instance = OnnxInstance::new(runner);
        let ran = (0..=runs).try_for_each(|_| run(&mut instance));
        // The file exists whether or not the runs succeeded.
        let written = session.end_profiling().map_err(|error| LoadError::Backend(error.message().to_owned()))?;
        let read = profile.read_and_remove(Path::new(&written), &self.library);
        ran.map_err(|error| LoadError::Backend(error.to_string()))?;
        read.map_err(LoadError::Backend)
    }

    fn simplify_model(&self, file: &Path, into: &Path) -> Result<(), LoadError> {
        session::write_simplified(&self.environment, file, into)
    }
}

struct OnnxModel {
    environment: Environment,
    file: PathBuf,
    spec: ModelSpec,
    options: LoadOptions,
    left_to_cpu: usize,
    /// The session made at load, and its threads: for all such instances if they can share it, else for the first one.
    open: Mutex<Option<(usize, SharedSession)>>,
}

impl OnnxModel {
    fn session_with_threads(&self, threads: usize) -> Result<SharedSession, LoadError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = provider::can_share_session(self.options.provider, threads);
        let found = if shared { open.clone() } else { open.take_if(|(own, _)| *own == threads) };
        match found.filter(|(own, _)| *own == threads) {
            Some((_, session)) => Ok(session),
            None => {
                let options = LoadOptions { threads, ..self.options };
                let session = session::open_session(&self.environment, &self.file, &options)?;
                SharedSession::new(&session).map_err(LoadError::Backend)
            }
        }
    }
}

impl Model for OnnxModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn cpu_fallback_count(&self) -> usize {
        self.left_to_cpu
    }

    fn create_instance(&self, threads: usize) -> Result<Box<dyn Instance>, LoadError> {
        let runner = SessionRunner::new(self.session_with_threads(threads)?).map_err(LoadError::Backend)?;
        Ok(Box::new(OnnxInstance::new(runner)))
    }
}

struct OnnxInstance {
    runner: SessionRunner,
    stopper: Arc<RunStopper>,
}

impl OnnxInstance {
    fn new(runner: SessionRunner) -> Self {
        let stopper = Arc::new(RunStopper { options: runner.run_options(), stopped: AtomicBool::new(false) });
        Self { runner, stopper }
    }
}

impl Instance for OnnxInstance {
    fn run(&mut self, inputs: &[TensorView<'_>], outputs: &mut OutputSink<'_>) -> Result<(), RunError> {
        self.runner.run_batch(inputs, outputs).map_err(|reason| match self.stopper.stopped.load(Ordering::Acquire) {
            true => RunError::Interrupted,
            false => RunError::Failed(explained(reason)),
        })
    }

    fn interrupt_handle(&self) -> Arc<dyn Interrupt> {
        Arc::clone(&self.stopper) as _
    }
}

/// `reason`, in the words of the settings where the arena has reached its limit.
fn explained(reason: String) -> String {
    /// The arena's words, between two numbers.
    const ARENA_FULL: &str = "is smaller than requested bytes";
    match reason.contains(ARENA_FULL) {
        true => {
            format!("{} Status Message: it needs more memory than model_run_memory_mb allows", without_values(&reason))
        }
        false => reason,
    }
}

struct RunStopper {
    options: Arc<RunOptions>,
    stopped: AtomicBool,
}

impl Interrupt for RunStopper {
    fn stop_run(&self) {
        self.stopped.store(true, Ordering::Release);
        self.options.set_stopped(true);
    }

    fn allow_runs(&self) {
        if self.stopped.swap(false, Ordering::AcqRel) {
            self.options.set_stopped(false);
        }
    }
}
