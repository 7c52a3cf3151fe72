//! Work that would keep a socket's thread from its other sockets is done aside: on a decode thread, in its turn; what
//! looks after the server, and may take seconds, on a thread of its own.

use caudal_tasks::Call;
use caudal_types::{Stage, with_request_id};
use tokio::task::{JoinError, spawn_blocking};

use super::RequestId;
use crate::{app::App, problem::Problem};

/// Does `work`, the next `stage` of `call`, here if it is `small`, some hundred microseconds at most; else on a decode
/// thread, in its turn.
pub(crate) async fn aside<T: Send + 'static>(
    app: &App,
    small: bool,
    call: &Call,
    stage: Stage,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    match small {
        true => {
            call.trace.enter(stage);
            Ok(work())
        }
        false => Ok(app.pictures.decoders().run(call, stage, |_| work()).await?),
    }
}

/// Does `work` for the request `id`, which lines that are logged meanwhile name, where it may take as long as it takes.
/// It fails if the work panics.
pub(crate) async fn apart<T: Send + 'static>(
    id: RequestId,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    spawn_blocking(move || with_request_id(id.as_str(), work)).await
}
