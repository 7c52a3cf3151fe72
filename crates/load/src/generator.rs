//! The generator: a thread with a runtime of its own, so that what it works can be told from what the server does.

use std::{
    future::Future,
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::oneshot;

use crate::{Control, LoadError};

/// Requests at once in an open loop, unless said otherwise.
pub(crate) const IN_FLIGHT: usize = 10_000;
/// Requests of one load, unless said otherwise.
pub(crate) const MOST_REQUESTS: u64 = 10_000_000;
/// How long a request may take, unless said otherwise: longer than the server's own deadline.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// What bounds a load beside its time.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests at once in an open loop (10,000); what would be beyond is not sent, and counted.
    pub in_flight: usize,
    /// Requests altogether (10 million), warm-up included.
    pub requests: u64,
    /// How long one request may take, connecting included (60 s).
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: IN_FLIGHT, requests: MOST_REQUESTS, timeout: TIMEOUT }
    }
}

impl Limits {
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        if self.in_flight == 0 || self.in_flight > IN_FLIGHT {
            return Err(LoadError::bounds("requests at once", self.in_flight, format!("between 1 and {IN_FLIGHT}")));
        }
        if self.requests == 0 {
            return Err(LoadError::bounds("requests", 0, "1 or more"));
        }
        if self.timeout.is_zero() || self.timeout > crate::schedule::LONGEST {
            let given = format!("{} s", self.timeout.as_secs_f64());
            return Err(LoadError::bounds("the timeout", given, "more than nothing and at most a day"));
        }
        Ok(())
    }
}

/// What the thread of the generator did.
#[derive(Debug)]
pub(crate) struct Worked<T> {
    pub(crate) outcome: T,
    /// Processor time over the time that passed: 1 is a whole core.
    pub(crate) cpu: f64,
}

/// Stops the load when nobody waits for it any more.
struct StopOnDrop<'a>(&'a Control);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs `work` on a thread and a runtime of its own, to its end.
pub(crate) async fn on_own_thread<T, F>(
    control: &Control,
    work: impl FnOnce() -> F + Send + 'static,
) -> Result<Worked<T>, LoadError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, LoadError>>,
{
    let _guard = StopOnDrop(control);
    let (done, outcome) = oneshot::channel();
    let run = move || {
        // Who waited may have left.
        let _ = done.send(run(work));
    };
    let failed = |error: std::io::Error| LoadError::Generator(format!("its thread cannot be started: {error}"));
    thread::Builder::new().name("load".to_owned()).spawn(run).map_err(failed)?;
    outcome.await.unwrap_or_else(|_| Err(LoadError::Generator("its thread has ended".to_owned())))
}

fn run<T, F>(work: impl FnOnce() -> F) -> Result<Worked<T>, LoadError>
where
    F: Future<Output = Result<T, LoadError>>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| LoadError::Generator(format!("no runtime: {error}")))?;
    let (began, before) = (Instant::now(), thread_time());
    let outcome = runtime.block_on(work())?;
    let spent = thread_time().saturating_sub(before);
    Ok(Worked { outcome, cpu: spent.as_secs_f64() / began.elapsed().as_secs_f64().max(1e-9) })
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_own_processor_time_is_counted_and_sleep_is_not() {
        let control = Control::default();
        let idle = on_own_thread(&control, || async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(())
        });
        assert!(idle.await.unwrap().cpu < 0.5);
        let fails = on_own_thread(&control, || async { Err::<(), _>(LoadError::Generator("so".to_owned())) });
        assert_eq!(fails.await.unwrap_err().to_string(), "the load generator failed: so");
    }

    #[test]
    fn limits_have_limits() {
        Limits::default().check().unwrap();
        for wrong in [
            Limits { in_flight: 0, ..Limits::default() },
            Limits { in_flight: IN_FLIGHT + 1, ..Limits::default() },
            Limits { requests: 0, ..Limits::default() },
            Limits { timeout: Duration::ZERO, ..Limits::default() },
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }
}
