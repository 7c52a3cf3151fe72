//! The backend that the rest of the house sees.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use caudal_engine::{Backend, Instance, Interrupt, LoadError, Model, ModelSpec, Outputs, RunError};
use caudal_types::TensorView;
use ort::environment::Environment;

use crate::{
    library::{LibraryError, LibrarySource},
    raw::{self, RunOptions, Runner, SharedSession},
    session,
};

/// ONNX Runtime, loaded and ready to open models.
pub struct OnnxRuntime {
    environment: Environment,
    library: PathBuf,
}

impl OnnxRuntime {
    /// Loads the shared library at `path`. A process can do this once.
    pub fn load(path: &Path, source_name: LibrarySource) -> Result<Self, LibraryError> {
        let unusable = |reason: String| LibraryError::Unusable { path: path.to_owned(), source_name, reason };
        let builder = ort::init_from(path).map_err(|error| unusable(words(&error)))?;
        let environment = builder.with_name("caudal").build().map_err(|error| unusable(error.to_string()))?;
        raw::share_arena(&environment).map_err(unusable)?;
        Ok(Self { environment, library: path.to_owned() })
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
        format!("ONNX Runtime {version} on the CPU")
    }

    fn load(&self, file: &Path, threads: usize) -> Result<Arc<dyn Model>, LoadError> {
        let session = session::open(&self.environment, file, threads)?;
        let spec = session::spec(&session, file)?;
        let first = SharedSession::new(&session).map_err(LoadError::Backend)?;
        Ok(Arc::new(OnnxModel {
            environment: self.environment.clone(),
            file: file.to_owned(),
            spec,
            open: Mutex::new(Some((threads, first))),
        }))
    }

    fn simplify(&self, file: &Path, into: &Path) -> Result<(), LoadError> {
        session::simplify(&self.environment, file, into)
    }
}

struct OnnxModel {
    environment: Environment,
    file: PathBuf,
    spec: ModelSpec,
    /// The session made at load, and its threads: every such instance's if that is one, else the first one's, for
    /// runs that have threads of their own cannot share them.
    open: Mutex<Option<(usize, SharedSession)>>,
}

impl OnnxModel {
    fn session(&self, threads: usize) -> Result<SharedSession, LoadError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let found = if threads == 1 { open.clone() } else { open.take_if(|(own, _)| *own == threads) };
        match found.filter(|(own, _)| *own == threads) {
            Some((_, session)) => Ok(session),
            None => {
                let session = session::open(&self.environment, &self.file, threads)?;
                SharedSession::new(&session).map_err(LoadError::Backend)
            }
        }
    }
}

impl Model for OnnxModel {
    fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    fn instance(&self, threads: usize) -> Result<Box<dyn Instance>, LoadError> {
        let runner = Runner::new(self.session(threads)?).map_err(LoadError::Backend)?;
        let stopper = Arc::new(Stopper { options: runner.options(), stopped: AtomicBool::new(false) });
        Ok(Box::new(OnnxInstance { runner, stopper }))
    }
}

struct OnnxInstance {
    runner: Runner,
    stopper: Arc<Stopper>,
}

impl Instance for OnnxInstance {
    fn run(&mut self, inputs: &[TensorView<'_>], outputs: &mut Outputs<'_>) -> Result<(), RunError> {
        self.runner.run(inputs, outputs).map_err(|reason| match self.stopper.stopped.load(Ordering::Acquire) {
            true => RunError::Interrupted,
            false => RunError::Failed(reason),
        })
    }

    fn interrupt(&self) -> Arc<dyn Interrupt> {
        Arc::clone(&self.stopper) as _
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
