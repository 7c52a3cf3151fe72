//! Nanoseconds for a fifth of what asking the kernel costs: the processor's own counter, where Linux trusts it too.

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, Instant},
};

/// A moment, as the clock counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticks(u64);

/// Whence moments come, and what a tick is.
struct Clock {
    /// The moment zero where the counter cannot be used.
    start: Instant,
    counts: bool,
    /// Nanoseconds of a tick, in 2^-32.
    scale: u64,
}

static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::new);

/// How long the counter is held against the kernel's clock, once: the kernel's own error is a hundred-thousandth of it.
const COMPARE: Duration = Duration::from_millis(2);

impl Clock {
    fn new() -> Self {
        let start = Instant::now();
        let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        let counts = cfg!(target_arch = "x86_64") && source.is_ok_and(|source| source.trim() == "tsc");
        if !counts {
            return Self { start, counts, scale: 1 << 32 };
        }
        let (began, first) = (Instant::now(), counter());
        while began.elapsed() < COMPARE {
            std::hint::spin_loop();
        }
        let (took, ticks) = (began.elapsed(), counter() - first);
        Self { start, counts, scale: ((took.as_nanos() << 32) / u128::from(ticks.max(1))) as u64 }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "reading the counter touches nothing")]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets everybody use it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> u64 {
    0
}

impl Ticks {
    pub(crate) fn now() -> Self {
        let clock = &*CLOCK;
        match clock.counts {
            true => Self(counter()),
            false => Self(clock.start.elapsed().as_nanos() as u64),
        }
    }

    /// Nanoseconds from `earlier` to this moment; none if it was not earlier, as it may be on another core.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        let ticks = self.0.saturating_sub(earlier.0);
        ((u128::from(ticks) * u128::from(CLOCK.scale)) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn it_agrees_with_the_kernel() {
        Ticks::now();
        // Anything may come between two readings, so ours lie between the kernel's.
        let (outer, first, inner) = (Instant::now(), Ticks::now(), Instant::now());
        thread::sleep(Duration::from_millis(50));
        let (inner, last, outer) = (inner.elapsed(), Ticks::now(), || outer.elapsed());
        let (ours, outer) = (last.since(first) as f64, outer());
        assert!(ours >= inner.as_nanos() as f64 * 0.999, "{ours} {inner:?}");
        assert!(ours <= outer.as_nanos() as f64 * 1.001, "{ours} {outer:?}");
    }

    #[test]
    fn it_does_not_run_backwards() {
        let first = Ticks::now();
        let then = Ticks::now();
        assert_eq!(first.since(Ticks(u64::MAX)), 0);
        assert!(then >= first);
    }
}
