//! The backend that the rest of the house sees.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use caudal_engine::{
    Backend, Instance, Interrupt, LoadError, LoadOptions, Model, ModelSpec, OperatorProfile, Outputs, Provider,
    RunError, names, without_values,
};
use caudal_types::TensorView;
use ort::{environment::Environment, session::builder::SessionBuilder};

use crate::{
    library::{LibraryError, LibrarySource},
    operators::Profile,
    provider,
    raw::{self, ArenaGauge, RunOptions, Runner, SharedSession},
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
    /// Loads the shared library at `path`. A process can do this once.
    pub fn load(path: &Path, source_name: LibrarySource) -> Result<Self, LibraryError> {
        Self::load_within(path, source_name, None)
    }

    /// The same; the runs of all models on the processor take at most `run_memory` bytes together, if that is given.
    pub fn load_within(path: &Path, source_name: LibrarySource, run_memory: Option<u64>) -> Result<Self, LibraryError> {
        let unusable = |reason: String| LibraryError::Unusable { path: path.to_owned(), source_name, reason };
        let builder = ort::init_from(path).map_err(|error| unusable(words(&error)))?;
        let environment = builder.with_name("caudal").build().map_err(|error| unusable(error.to_string()))?;
        raw::share_arena(&environment, run_memory).map_err(unusable)?;
        let arena = session::probe(&environment).and_then(ArenaGauge::new).map_err(unusable)?;
        Ok(Self { environment, library: path.to_owned(), providers: provider::available(), arena })
    }
}

/// The loader's words without the path, which the sentence around them already names.
fn words(error: &ort::LoadDynamicError) -> String {
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
    fn describe(&self) -> String {
        let version = raw::version(&self.library).unwrap_or_else(|| "of unknown version".to_owned());
        format!("ONNX Runtime {version} ({})", names(&self.providers))
    }

    fn providers(&self) -> Vec<Provider> {
        self.providers.clone()
    }

    fn arena_bytes(&self) -> Option<u64> {
        self.arena.bytes()
    }

    fn shrink_arena(&self) -> Result<(), String> {
        self.arena.shrink()
    }

    fn load(&self, file: &Path, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        if !self.providers.contains(&options.provider) {
            return Err(LoadError::NoProvider { wanted: options.provider, has: self.providers() });
        }
        let session = session::open(&self.environment, file, options)?;
        let spec = session::spec(&session, file)?;
        let left_to_cpu = match options.provider {
            Provider::Cpu => 0,
            _ => raw::left_to_cpu(&session).map_err(LoadError::Backend)?,
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

    fn operators(
        &self,
        file: &Path,
        options: &LoadOptions,
        runs: usize,
        run: &mut dyn FnMut(&mut dyn Instance) -> Result<(), RunError>,
    ) -> Result<OperatorProfile, LoadError> {
        let profile = Profile::new();
        let with_profile = |builder: SessionBuilder| Ok(builder.with_profiling(&profile.prefix)?);
        let mut session = session::open_with(&self.environment, file, options, with_profile)?;
        let runner = SharedSession::new(&session).and_then(Runner::new).map_err(LoadError::Backend)?;
        let mut instance = OnnxInstance::new(runner);
        let ran = (0..=runs).try_for_each(|_| run(&mut instance));
        // The file is there whether or not they succeeded.
        let written = session.end_profiling().map_err(|error| LoadError::Backend(error.message().to_owned()))?;
        let read = profile.read(Path::new(&written), &self.library);
        ran.map_err(|error| LoadError::Backend(error.to_string()))?;
        read.map_err(LoadError::Backend)
    }

    fn simplify(&self, file: &Path, into: &Path) -> Result<(), LoadError> {
        session::simplify(&self.environment, file, into)
    }
}

struct OnnxModel {
    environment: Environment,
    file: PathBuf,
    spec: ModelSpec,
    options: LoadOptions,
    left_to_cpu: usize,
    /// The session made at load, and its threads: every such instance's if they can share it, else the first one's.
    open: Mutex<Option<(usize, SharedSession)>>,
}

impl OnnxModel {
    fn session(&self, threads: usize) -> Result<SharedSession, LoadError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = provider::shares_session(self.options.provider, threads);
        let found = if shared { open.clone() } else { open.take_if(|(own, _)| *own == threads) };
        match found.filter(|(own, _)| *own == threads) {
            Some((_, session)) => Ok(session),
            None => {
                let options = LoadOptions { threads, ..self.options };
                let session = session::open(&self.environment, &self.file, &options)?;
                SharedSession::new(&session).map_err(LoadError::Backend)
            }
        }
    }
}

impl Model for OnnxModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn left_to_cpu(&self) -> usize {
        self.left_to_cpu
    }

    fn instance(&self, threads: usize) -> Result<Box<dyn Instance>, LoadError> {
        let runner = Runner::new(self.session(threads)?).map_err(LoadError::Backend)?;
        Ok(Box::new(OnnxInstance::new(runner)))
    }
}

struct OnnxInstance {
    runner: Runner,
    stopper: Arc<Stopper>,
}

impl OnnxInstance {
    fn new(runner: Runner) -> Self {
        let stopper = Arc::new(Stopper { options: runner.options(), stopped: AtomicBool::new(false) });
        Self { runner, stopper }
    }
}

impl Instance for OnnxInstance {
    fn run(&mut self, inputs: &[TensorView<'_>], outputs: &mut Outputs<'_>) -> Result<(), RunError> {
        self.runner.run(inputs, outputs).map_err(|reason| match self.stopper.stopped.load(Ordering::Acquire) {
            true => RunError::Interrupted,
            false => RunError::Failed(explained(reason)),
        })
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
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

struct Stopper {
    options: Arc<RunOptions>,
    stopped: AtomicBool,
}

impl Interrupt for Stopper {
    fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.options.set_stopped(true);
    }

    fn reset(&self) {
        if self.stopped.swap(false, Ordering::AcqRel) {
            self.options.set_stopped(false);
        }
    }
}
