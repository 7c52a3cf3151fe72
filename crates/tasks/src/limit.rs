//! Runs that are made before a model serves have an end: a model may hold a loop that has none.

use std::{
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use caudal_engine::{Instance, OutputSink, RunError};
use caudal_types::TensorView;

/// Runs `inputs` as an instance does, and stops the run when it has taken `limit`, which fails as
/// [`RunError::Interrupted`].
pub(crate) fn run_within(
    limit: Duration,
    instance: &mut dyn Instance,
    inputs: &[TensorView<'_>],
    outputs: &mut OutputSink<'_>,
) -> Result<(), RunError> {
    work_within(limit, instance, |instance| instance.run(inputs, outputs))
}

/// Lets `work` run `instance`, and stops its run when the work has taken `limit`.
pub(crate) fn work_within(
    limit: Duration,
    instance: &mut dyn Instance,
    work: impl FnOnce(&mut dyn Instance) -> Result<(), RunError>,
) -> Result<(), RunError> {
    let interrupt = instance.interrupt_handle();
    thread::scope(|scope| {
        let (done, waits) = channel::<()>();
        let watch = scope.spawn(move || {
            let over = waits.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
            if over {
                interrupt.stop_run();
            }
            (over, interrupt)
        });
        let ran = work(instance);
        drop(done);
        if let Ok((true, interrupt)) = watch.join() {
            interrupt.allow_runs();
        }
        ran
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_engine::Model as _;
    use caudal_testkit::{Scripted, f32_bytes};
    use caudal_types::DType;

    fn run(takes: Duration, limit: Duration) -> (Result<(), RunError>, Result<(), RunError>) {
        let mut instance = Scripted::new(2).taking(takes, Duration::ZERO).create_instance(1).unwrap();
        let bytes = f32_bytes(&[1.0, 2.0]);
        let view = TensorView { dtype: DType::F32, shape: &[1, 2], bytes: &bytes };
        let mut once = |limit| run_within(limit, &mut *instance, &[view], &mut |_| {});
        (once(limit), once(Duration::from_secs(60)))
    }

    #[test]
    fn a_run_that_takes_too_long_is_stopped_and_the_next_one_is_not() {
        let (first, next) = run(Duration::from_millis(100), Duration::from_millis(5));
        assert!(matches!(first, Err(RunError::Interrupted)), "{first:?}");
        assert!(next.is_ok(), "{next:?}");
        assert!(run(Duration::ZERO, Duration::from_secs(60)).0.is_ok());
    }
}
