//! Work that would keep a socket's thread from its other sockets is done aside, on a decode thread.

use caudal_types::Priority;

use crate::{app::App, problem::Problem};

/// Does `work` here if it is `small`, some hundred microseconds at most; else on a decode thread, in its turn.
pub(crate) async fn aside<T: Send + 'static>(
    app: &App,
    small: bool,
    priority: Priority,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    match small {
        true => Ok(work()),
        false => Ok(app.pictures.decoders().run(priority, |_| work()).await?.0),
    }
}
