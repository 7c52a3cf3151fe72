//! Contract of a backend: opening model files, running batches on instances, interrupting runs.

use std::{borrow::Cow, path::Path, sync::Arc};

use caudal_types::{ErrorKind, Explain, TensorView};

use crate::{LoadOptions, ModelSpec, OperatorProfile, Provider, join_names};

/// A library that opens model files.
pub trait Backend: Send + Sync {
    /// The backend's name and version.
    fn describe_version(&self) -> String;

    /// The providers that it can run models on.
    fn providers(&self) -> Vec<Provider>;

    /// Opens `file` with `options`, or fails: another provider is never used instead.
    fn load_model(&self, file: &Path, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError>;

    /// Writes the model in `file` to `into` after the optimizations that hold on every machine: constants folded,
    /// normalisations fused into the weights before them.
    fn simplify_model(&self, file: &Path, _into: &Path) -> Result<(), LoadError> {
        let reason = "this backend cannot simplify models".to_owned();
        Err(LoadError::Unsupported { file: file.display().to_string(), reason })
    }

    /// Opens `file` with `options`, calls `run` with an instance once uncounted and then `runs` times, and returns the
    /// time of each operator.
    fn profile_operators(
        &self,
        file: &Path,
        _options: &LoadOptions,
        _runs: usize,
        _run: &mut dyn FnMut(&mut dyn Instance) -> Result<(), RunError>,
    ) -> Result<OperatorProfile, LoadError> {
        let reason = "this backend does not profile operators".to_owned();
        Err(LoadError::Unsupported { file: file.display().to_string(), reason })
    }

    /// Bytes that it holds for runs of all its models; none if unknown.
    fn arena_bytes(&self) -> Option<u64> {
        None
    }

    /// Returns memory that no run uses now to the system.
    fn shrink_arena(&self) -> Result<(), String> {
        Ok(())
    }
}

/// An open model.
pub trait Model: Send + Sync {
    /// Its inputs and outputs.
    fn spec(&self) -> &ModelSpec;

    /// Number of operators that the provider has no kernels for, and that ONNX Runtime runs on the CPU instead.
    fn cpu_fallback_count(&self) -> usize {
        0
    }

    /// Creates an instance with `threads` threads per run; instances of one model run concurrently.
    fn create_instance(&self, threads: usize) -> Result<Box<dyn Instance>, LoadError>;
}

/// Receives the outputs of a run, in the order of the model's spec; they are valid during the call only.
pub type OutputSink<'a> = dyn FnMut(&[TensorView<'_>]) + 'a;

/// One slot in which a model runs one batch at a time.
pub trait Instance: Send {
    /// Runs `inputs`, given in the order of the model's spec, and passes the outputs to `outputs` once.
    fn run(&mut self, inputs: &[TensorView<'_>], outputs: &mut OutputSink<'_>) -> Result<(), RunError>;

    /// A handle with which another thread can interrupt the run in progress.
    fn interrupt_handle(&self) -> Arc<dyn Interrupt>;
}

/// Interrupts a run from another thread.
pub trait Interrupt: Send + Sync {
    /// Ends the run in progress as soon as the backend can, with [`RunError::Interrupted`]. Applies to later runs too
    /// until [`Interrupt::allow_runs`].
    fn stop_run(&self);

    /// Permits runs again.
    fn allow_runs(&self);
}

/// The reason why a model could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is damaged or not a model that this backend reads.
    #[error("{file} is not a model that can be loaded: {reason}")]
    Unreadable {
        /// The model file.
        file: String,
        /// The backend's message.
        reason: String,
    },
    /// The model needs a feature that this build does not have.
    #[error("{file} needs an unsupported feature: {reason}")]
    Unsupported {
        /// The model file.
        file: String,
        /// The feature.
        reason: String,
    },
    /// The backend does not have the requested provider.
    #[error("the provider {wanted} is not in the loaded ONNX Runtime library, which has {}", join_names(.has))]
    NoProvider {
        /// The provider.
        wanted: Provider,
        /// The available providers.
        has: Vec<Provider>,
    },
    /// The provider is available but does not run the model.
    #[error("the provider {wanted} does not run {file}: {reason}")]
    Provider {
        /// The provider.
        wanted: Provider,
        /// The model file.
        file: String,
        /// The provider's message.
        reason: String,
    },
    /// The backend itself is unusable.
    #[error("the inference backend is not usable: {0}")]
    Backend(String),
}

impl Explain for LoadError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ModelNotReady
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::NoProvider { wanted, .. } => {
                return format!("{}; or name another one after it in providers, as a fallback", wanted.install_hint()).into();
            }
            Self::Provider { .. } => "name another one after it in providers, as a fallback, or fix what it reports",
            Self::Unreadable { .. } => "export the model again, then check the folder with `caudal models doctor`",
            Self::Unsupported { .. } => "export the model with other settings",
            Self::Backend(_) => "run `cargo xtask setup`, or `pip install onnxruntime` and set onnxruntime_library to its libonnxruntime.so",
        }
        .into()
    }
}

/// The reason why a run gave no outputs.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// It was interrupted.
    #[error("the run was stopped")]
    Interrupted,
    /// The backend failed on these inputs.
    #[error("the model failed on this input: {0}")]
    Failed(String),
}

impl RunError {
    /// Its words for a log: what an operator says of its input may hold values that a caller sent, and is left out.
    pub fn for_log(&self) -> Cow<'static, str> {
        match self {
            Self::Interrupted => "the run was stopped".into(),
            Self::Failed(words) => match without_values(words) {
                "" => "the model failed on its input".into(),
                words => format!("the model failed on its input: {words}").into(),
            },
        }
    }
}

/// The beginning of a failure's words, which names the operator; nothing of words that are of another form.
pub fn without_values(words: &str) -> &str {
    /// ONNX Runtime's words: which node failed, this, and what its operator says.
    const SAYS: &str = " Status Message:";
    words.split_once(SAYS).map_or("", |(operator, _)| operator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_in_a_log_names_the_operator_and_holds_no_values() {
        let failed = |words: &str| RunError::Failed(words.to_owned()).for_log().into_owned();
        let node = "Non-zero status code returned while running Gather node. Name:'ids'";
        let said = failed(&format!("{node} Status Message: idx=1970 must be within the inclusive range [-10,9]"));
        assert_eq!(said, format!("the model failed on its input: {node}"));
        assert_eq!(failed("invalid: 'Juana'"), "the model failed on its input");
    }
}
