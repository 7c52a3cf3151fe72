//! Models of this house: whoever asks them stands in the same queue as everybody, so that runs share batches.

mod detect;
mod embed;
mod infer;
mod tensor;

use std::{sync::Arc, time::Instant};

use caudal_flow::{Call, Fault, Registry, StepError};
use caudal_tasks::{Catalog, Pictures, ServedModel, TaskError, Unavailable};
use caudal_types::{ErrorKind, Explain, Priority, Trace};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::files::Folder;

/// The models that serve, and the way of pictures to them.
#[derive(Clone)]
pub struct Models {
    /// The models.
    pub catalog: Arc<Catalog>,
    /// What all pictures pass.
    pub pictures: Pictures,
}

type Open = Arc<dyn Fn() -> Result<Models, String> + Send + Sync>;

/// Models that serve, or that will once somebody asks one.
#[derive(Clone)]
pub struct Serving {
    models: Arc<OnceCell<Models>>,
    open: Open,
}

impl From<Models> for Serving {
    fn from(models: Models) -> Self {
        let open = move || Ok(models.clone());
        Self::later(open)
    }
}

impl Serving {
    /// Models that are loaded when the first is asked. `Err` tells why they cannot be.
    pub fn later(open: impl Fn() -> Result<Models, String> + Send + Sync + 'static) -> Self {
        Self { models: Arc::default(), open: Arc::new(open) }
    }

    async fn models(&self) -> Result<Models, StepError> {
        let open = async {
            let open = Arc::clone(&self.open);
            // Loading takes its time on a core.
            let opened = tokio::task::spawn_blocking(move || open()).await;
            opened.unwrap_or_else(|error| Err(error.to_string()))
        };
        let failed = |error: String| {
            let error = StepError::failed(format!("the models cannot be loaded: {error}"));
            error.hint("caudal models doctor tells what is wrong").for_good()
        };
        self.models.get_or_try_init(|| open).await.cloned().map_err(failed)
    }
}

/// Adds all leaves that ask a model.
pub(crate) fn register(registry: &mut Registry, models: Option<&Serving>, folder: &Folder) {
    detect::register(registry, models, folder);
    infer::register(registry, models);
    embed::register(registry, models);
}

/// How urgent a question is.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Urgency {
    /// Before all others.
    High,
    /// As everybody.
    #[default]
    Normal,
    /// When nothing else waits.
    Low,
}

/// The model called `name`, brought back if it rests.
async fn model(models: &Models, name: &str, call: &Call) -> Result<Arc<ServedModel>, StepError> {
    models.catalog.demand(name, None, call.run(), None).await.map_err(|error| unavailable(&error))
}

/// The models, if there are any where this runs.
async fn present(serving: Option<&Serving>) -> Result<Models, StepError> {
    let Some(serving) = serving else {
        let error = StepError::failed("no models are served where this runs");
        return Err(error.hint("run it with a model repository: --model-repository DIR").for_good());
    };
    serving.models().await
}

/// What travels with a question the whole way.
fn way(call: &Call, urgency: Urgency) -> caudal_tasks::Call {
    let priority = match urgency {
        Urgency::High => Priority::High,
        Urgency::Normal => Priority::Normal,
        Urgency::Low => Priority::Low,
    };
    caudal_tasks::Call { priority, deadline: call.deadline, trace: Trace::new(Instant::now()) }
}

/// Awaits an answer, as long as it is worth something.
async fn within<T>(call: &Call, work: impl Future<Output = Result<T, TaskError>>) -> Result<T, StepError> {
    caudal_tasks::within(call.deadline, || TaskError::Late, work).await.map_err(|error| failed(&error))
}

fn unavailable(error: &Unavailable) -> StepError {
    told(error)
}

fn failed(error: &TaskError) -> StepError {
    let told = told(error);
    match error {
        TaskError::Refused(refusal) => match refusal.retry_after() {
            Some(wait) => told.after(wait),
            None => told,
        },
        _ => told,
    }
}

/// A failure of this house as a step's.
pub(crate) fn told(error: &dyn Explain) -> StepError {
    let fault = match error.kind() {
        ErrorKind::QueueFull
        | ErrorKind::QueueTimeout
        | ErrorKind::DeadlineUnreachable
        | ErrorKind::MemoryFull
        | ErrorKind::MemoryPressure
        | ErrorKind::TooManyRequests => Fault::TooManyRequests,
        ErrorKind::DeadlineExceeded => Fault::TimedOut,
        ErrorKind::ModelNotReady | ErrorKind::ShuttingDown | ErrorKind::StoreUnavailable => Fault::Unreachable,
        ErrorKind::InferenceFailed | ErrorKind::Internal | ErrorKind::ClientGone | ErrorKind::DiskFull => Fault::Failed,
        ErrorKind::VersionConflict | ErrorKind::KeyReused | ErrorKind::RecordDamaged | ErrorKind::RecordOff => {
            return StepError::failed(error.to_string()).hint(error.hint()).for_good();
        }
        _ => Fault::Input,
    };
    StepError::new(fault, error.to_string()).hint(error.hint())
}
