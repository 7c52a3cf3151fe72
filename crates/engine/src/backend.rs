//! What every backend must do: open a model, run batches on instances of it, let go when told.

use std::{borrow::Cow, path::Path, sync::Arc};

use caudal_types::{ErrorKind, Explain, TensorView};

use crate::{LoadOptions, ModelSpec, OperatorProfile, Provider, names};

/// Something that opens model files.
pub trait Backend: Send + Sync {
    /// The backend's name and version, for people.
    fn describe(&self) -> String;

    /// The providers that it can run models on.
    fn providers(&self) -> Vec<Provider>;

    /// Opens `file` as `options` say, or not at all: never on another provider.
    fn load(&self, file: &Path, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError>;

    /// Writes the model in `file` to `into` as the backend sees it after what helps on every machine: constants
    /// computed, normalisations taken into the weights before them.
    fn simplify(&self, file: &Path, _into: &Path) -> Result<(), LoadError> {
        let reason = "this backend simplifies no models".to_owned();
        Err(LoadError::Unsupported { file: file.display().to_string(), reason })
    }

    /// Opens `file` as `options` say, lets `run` run an instance of it `runs` times, and once before that is not counted, and
    /// tells what the operators took.
    fn operators(
        &self,
        file: &Path,
        _options: &LoadOptions,
        _runs: usize,
        _run: &mut dyn FnMut(&mut dyn Instance) -> Result<(), RunError>,
    ) -> Result<OperatorProfile, LoadError> {
        let reason = "this backend tells nothing of operators".to_owned();
        Err(LoadError::Unsupported { file: file.display().to_string(), reason })
    }

    /// Bytes that it keeps for the runs of all its models; none if it does not tell.
    fn arena_bytes(&self) -> Option<u64> {
        None
    }

    /// Gives the system back what of that no run uses now, as far as it can; or says why not.
    fn shrink_arena(&self) -> Result<(), String> {
        Ok(())
    }
}

/// An open model.
pub trait Model: Send + Sync {
    /// What it takes and gives.
    fn spec(&self) -> &ModelSpec;

    /// Operators that the provider has no kernels for, and that ONNX Runtime's own run on the processor instead.
    fn left_to_cpu(&self) -> usize {
        0
    }

    /// A new instance with `threads` threads within one run; instances of one model run at the same time.
    fn instance(&self, threads: usize) -> Result<Box<dyn Instance>, LoadError>;
}

/// Takes the outputs of a run, in the order of the model's spec; they live only as long as the call.
pub type Outputs<'a> = dyn FnMut(&[TensorView<'_>]) + 'a;

/// One runner of a model: one batch at a time.
pub trait Instance: Send {
    /// Runs `inputs`, given in the order of the model's spec, and hands the outputs to `outputs`, once.
    fn run(&mut self, inputs: &[TensorView<'_>], outputs: &mut Outputs<'_>) -> Result<(), RunError>;

    /// A handle by which another thread can stop the run in progress.
    fn interrupt(&self) -> Arc<dyn Interrupt>;
}

/// Stops a run from another thread.
pub trait Interrupt: Send + Sync {
    /// The run in progress ends as soon as the backend can, with [`RunError::Interrupted`]. Holds until
    /// [`Interrupt::reset`].
    fn stop(&self);

    /// Lets the next run go ahead.
    fn reset(&self);
}

/// Why a model could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not a model this backend reads, or is damaged.
    #[error("{file} is not a model that can be loaded: {reason}")]
    Unreadable {
        /// The model file.
        file: String,
        /// What the backend says.
        reason: String,
    },
    /// The model wants something this build does not do.
    #[error("{file} needs what is not supported here: {reason}")]
    Unsupported {
        /// The model file.
        file: String,
        /// What it is.
        reason: String,
    },
    /// The backend has not the provider that is to run it.
    #[error("the provider {wanted} is not in the ONNX Runtime library that is loaded, which has {}", names(.has))]
    NoProvider {
        /// The provider.
        wanted: Provider,
        /// Those that there are.
        has: Vec<Provider>,
    },
    /// The provider is there and does not work.
    #[error("the provider {wanted} does not run {file}: {reason}")]
    Provider {
        /// The provider.
        wanted: Provider,
        /// The model file.
        file: String,
        /// What it says.
        reason: String,
    },
    /// The backend itself cannot work.
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
                return format!("{}; or name another one after it in providers, as a fallback", wanted.origin()).into();
            }
            Self::Provider { .. } => "name another one after it in providers, as a fallback, or mend what it asks for",
            Self::Unreadable { .. } => "export the model again, then check the folder with `caudal models doctor`",
            Self::Unsupported { .. } => "export the model with other settings",
            Self::Backend(_) => "run `cargo xtask setup`, or `pip install onnxruntime` and set onnxruntime_library to its libonnxruntime.so",
        }
        .into()
    }
}

/// Why a run gave no outputs.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// Somebody stopped it.
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
