//! A clock of nanoseconds at a fifth of the cost of the kernel's: the processor's time-stamp counter, where Linux uses
//! it.

use std::{
    fs,
    sync::LazyLock,
    time::{Duration, Instant},
};

/// A moment, in ticks of the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticks(u64);

/// Source and scale of ticks.
struct Clock {
    /// Origin of ticks if the counter cannot be used.
    start: Instant,
    uses_counter: bool,
    /// Nanoseconds per tick, times 2^32.
    scale: u64,
}

static SHARED_CLOCK: LazyLock<Clock> = LazyLock::new(Clock::new);

/// Duration of the calibration against the kernel's clock, whose error is a hundred-thousandth of it.
const CALIBRATION_TIME: Duration = Duration::from_millis(2);

impl Clock {
    fn new() -> Self {
        let start = Instant::now();
        let source = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
        let uses_counter = cfg!(target_arch = "x86_64") && source.is_ok_and(|source| source.trim() == "tsc");
        if !uses_counter {
            return Self { start, uses_counter, scale: 1 << 32 };
        }
        let (began, first) = (Instant::now(), read_counter());
        while began.elapsed() < CALIBRATION_TIME {
            std::hint::spin_loop();
        }
        let (took, ticks) = (began.elapsed(), read_counter() - first);
        Self { start, uses_counter, scale: ((took.as_nanos() << 32) / u128::from(ticks.max(1))) as u64 }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "reading the counter touches nothing")]
fn read_counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux permits it in user space.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn read_counter() -> u64 {
    0
}

impl Ticks {
    pub(crate) fn now() -> Self {
        let clock = &*SHARED_CLOCK;
        match clock.uses_counter {
            true => Self(read_counter()),
            false => Self(clock.start.elapsed().as_nanos() as u64),
        }
    }

    /// Nanoseconds since `earlier`; 0 if it is later, which is possible across cores.
    pub(crate) fn nanos_since(self, earlier: Self) -> u64 {
        let ticks = self.0.saturating_sub(earlier.0);
        ((u128::from(ticks) * u128::from(SHARED_CLOCK.scale)) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn ticks_agree_with_the_kernel_clock() {
        Ticks::now();
        // The thread may be preempted between two readings, so ours are between the kernel's.
        let (outer, first, inner) = (Instant::now(), Ticks::now(), Instant::now());
        thread::sleep(Duration::from_millis(50));
        let (inner, last, outer) = (inner.elapsed(), Ticks::now(), || outer.elapsed());
        let (ours, outer) = (last.nanos_since(first) as f64, outer());
        assert!(ours >= inner.as_nanos() as f64 * 0.999, "{ours} {inner:?}");
        assert!(ours <= outer.as_nanos() as f64 * 1.001, "{ours} {outer:?}");
    }

    #[test]
    fn nanos_since_a_later_tick_is_zero() {
        let first = Ticks::now();
        let then = Ticks::now();
        assert_eq!(first.nanos_since(Ticks(u64::MAX)), 0);
        assert!(then >= first);
    }
}
