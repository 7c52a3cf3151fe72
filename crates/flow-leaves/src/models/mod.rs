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

use crate::files::Folder;

/// The models that serve, and the way of pictures to them.
#[derive(Clone)]
pub struct Models {
    /// The models.
    pub catalog: Arc<Catalog>,
    /// What all pictures pass.
    pub pictures: Pictures,
}

/// Adds all leaves that ask a model.
pub(crate) fn register(registry: &mut Registry, models: Option<&Models>, folder: &Folder) {
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
async fn model(models: Option<&Models>, name: &str, call: &Call) -> Result<Arc<ServedModel>, StepError> {
    present(models)?.catalog.demand(name, None, call.run()).await.map_err(|error| unavailable(&error))
}

/// The models, if there are any where this runs.
fn present(models: Option<&Models>) -> Result<&Models, StepError> {
    models.ok_or_else(|| {
        let error = StepError::failed("no models are served where this runs");
        error.hint("run it with a model repository: --model-repository DIR").for_good()
    })
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
