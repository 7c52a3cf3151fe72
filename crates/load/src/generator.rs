//! The generator thread: it has a runtime of its own, so that its CPU time is measured apart from the server's.

use std::{
    future::Future,
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use crate::{Control, LoadError};

/// Concurrent requests in an open loop: default and maximum.
pub(crate) const MAX_IN_FLIGHT: usize = 10_000;
/// Default number of requests per load.
pub(crate) const DEFAULT_MAX_REQUESTS: u64 = 10_000_000;
/// Default timeout of a request: longer than the server's own deadline.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Limits of a load besides its duration.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Concurrent requests in an open loop (10,000); further ones are not sent, but counted.
    pub in_flight: usize,
    /// Total requests (10 million), including the warm-up.
    pub requests: u64,
    /// Timeout of one request, including connecting (60 s).
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: MAX_IN_FLIGHT, requests: DEFAULT_MAX_REQUESTS, timeout: REQUEST_TIMEOUT }
    }
}

impl Limits {
    pub(crate) fn check_bounds(&self) -> Result<(), LoadError> {
        if self.in_flight == 0 || self.in_flight > MAX_IN_FLIGHT {
            return Err(LoadError::out_of_bounds(
                "concurrent requests",
                self.in_flight,
                format!("between 1 and {MAX_IN_FLIGHT}"),
            ));
        }
        if self.requests == 0 {
            return Err(LoadError::out_of_bounds("requests", 0, "1 or more"));
        }
        if self.timeout.is_zero() || self.timeout > crate::schedule::MAX_DURATION {
            let given = format!("{} s", self.timeout.as_secs_f64());
            return Err(LoadError::out_of_bounds("the timeout", given, "more than zero and at most a day"));
        }
        Ok(())
    }
}

/// Result of a run of the generator thread.
#[derive(Debug)]
pub(crate) struct FinishedRun<T> {
    pub(crate) outcome: T,
    /// CPU time divided by elapsed time: 1 is a whole core.
    pub(crate) cpu: f64,
}

/// Stops the load when its future is dropped.
struct StopOnDrop<'a>(&'a Control);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs `work` to completion on a thread and a runtime of its own.
pub(crate) async fn run_on_own_thread<T, F>(
    control: &Control,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<FinishedRun<T>, LoadError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, LoadError>>,
{
    let _guard = StopOnDrop(control);
    let (done, outcome) = oneshot::channel();
    let run = move || {
        // The caller may have dropped its future.
        let _ = done.send(run_to_completion(work));
    };
    let failed = |error: std::io::Error| LoadError::Generator(format!("cannot start its thread: {error}"));
    thread::Builder::new().name("load".to_owned()).spawn(run).map_err(failed)?;
    outcome.await.unwrap_or_else(|_| Err(LoadError::Generator("its thread ended unexpectedly".to_owned())))
}

fn run_to_completion<T, F>(work: impl FnOnce() -> F) -> Result<FinishedRun<T>, LoadError>
where
    F: Future<Output = Result<T, LoadError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| LoadError::Generator(format!("cannot create a runtime: {error}")))?;
    let (began, before) = (Instant::now(), thread_cpu_time());
    let outcome = runtime.block_on(work())?;
    let spent = thread_cpu_time().saturating_sub(before);
    Ok(FinishedRun { outcome, cpu: spent.as_secs_f64() / began.elapsed().as_secs_f64().max(1e-9) })
}

/// CPU time of this thread.
fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn generator_cpu_share_excludes_sleep() {
        let control = Control::default();
        let idle = run_on_own_thread(&control, || async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(())
        });
        assert!(idle.await.unwrap().cpu < 0.5);
        let fails = run_on_own_thread(&control, || async { Err::<(), _>(LoadError::Generator("so".to_owned())) });
        assert_eq!(fails.await.unwrap_err().to_string(), "the load generator failed: so");
    }

    #[test]
    fn limits_reject_values_out_of_bounds() {
        Limits::default().check_bounds().unwrap();
        for wrong in [
            Limits { in_flight: 0, ..Limits::default() },
            Limits { in_flight: MAX_IN_FLIGHT + 1, ..Limits::default() },
            Limits { requests: 0, ..Limits::default() },
            Limits { timeout: Duration::ZERO, ..Limits::default() },
        ] {
            assert!(wrong.check_bounds().is_err(), "{wrong:?}");
        }
    }
}
