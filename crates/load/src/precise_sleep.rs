//! Sleeping with the precision of the kernel. Tokio's timer counts whole milliseconds, longer than many responses take.

use std::{io, os::fd::OwnedFd, time::Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// A kernel timer, precise to some ten microseconds (`timerfd_create(2)`).
#[derive(Debug)]
pub(crate) struct PreciseTimer(AsyncFd<OwnedFd>);

impl PreciseTimer {
    pub(crate) fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        #[expect(
            deprecated,
            reason = "an OwnedFd keeps its descriptor, and `register` requires unsafe to promise that"
        )]
        let timer = AsyncFd::new(timer)?;
        Ok(Self(timer))
    }

    /// Sleeps until `moment`; returns immediately if it has passed.
    pub(crate) async fn sleep_until(&self, moment: Instant) -> io::Result<()> {
        loop {
            let left = moment.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let once = Itimerspec {
                it_interval: Timespec::default(),
                it_value: Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() },
            };
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            let mut ready = self.0.readable().await?;
            // Reading returns how often the timer expired, and rearms its readiness.
            match rustix::io::read(self.0.get_ref(), &mut [0; 8]) {
                Ok(_) | Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn sleep_until_never_returns_early() {
        let timer = PreciseTimer::new().unwrap();
        for micros in [0, 300, 2_000, 50] {
            let moment = Instant::now() + Duration::from_micros(micros);
            timer.sleep_until(moment).await.unwrap();
            assert!(Instant::now() >= moment);
        }
    }
}
