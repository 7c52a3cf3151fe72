//! Work that would keep a socket's thread from its other sockets is done aside, on a decode thread.

use caudal_tasks::Call;
use caudal_types::Stage;

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
