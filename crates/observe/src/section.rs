//! Timed sections of a program.

use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use crate::{
    clock::Ticks,
    store::{self, with_local},
    thread_counters::SectionTiming,
};

/// True if sections are timed.
static SECTIONS_ENABLED: AtomicBool = AtomicBool::new(true);
/// Returns the bytes allocated by the calling thread.
static ALLOCATION_COUNTER: OnceLock<fn() -> u64> = OnceLock::new();

/// Enables or disables all sections. A disabled section costs one atomic load.
pub fn set_enabled(on: bool) {
    SECTIONS_ENABLED.store(on, Relaxed);
}

/// Returns true if sections are timed.
#[inline]
pub fn is_enabled() -> bool {
    SECTIONS_ENABLED.load(Relaxed)
}

/// Makes sections count allocations: `allocated` returns the bytes that the calling thread has allocated since its
/// start. Only the first call has an effect.
pub fn count_allocations(allocated: fn() -> u64) {
    let _ = ALLOCATION_COUNTER.set(allocated);
}

fn thread_allocated_bytes() -> u64 {
    ALLOCATION_COUNTER.get().map_or(0, |allocated| allocated())
}

/// The kind of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It works.
    Work,
    /// It waits for another thread, a device or a client.
    Wait,
}

/// A timed part of the program, which lives as long as the program; [`crate::section!`] and `#[profile]` create one.
#[derive(Debug)]
pub struct Section {
    name: &'static str,
    group: &'static str,
    kind: Kind,
    /// Its number plus 1; 0 before it is registered, [`NUMBER_REFUSED`] if there are too many sections.
    number: AtomicUsize,
}

const NUMBER_REFUSED: usize = usize::MAX;

impl Section {
    /// A working section `name`, in a `group` of sections: its module.
    pub const fn new(name: &'static str, group: &'static str) -> Self {
        Self { name, group, kind: Kind::Work, number: AtomicUsize::new(0) }
    }

    /// A waiting section.
    pub const fn new_waiting(name: &'static str, group: &'static str) -> Self {
        Self { kind: Kind::Wait, ..Self::new(name, group) }
    }

    /// Name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Group, usually its module.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// Kind.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn section_number(&'static self) -> Option<usize> {
        match self.number.load(Relaxed) {
            0 => {
                let number = store::register_section(self);
                self.number.store(number.map_or(NUMBER_REFUSED, |number| number + 1), Relaxed);
                number
            }
            NUMBER_REFUSED => None,
            number => Some(number - 1),
        }
    }

    /// Enters the section; it ends when the guard is dropped.
    #[must_use = "the section ends when the guard is dropped"]
    #[inline]
    pub fn enter(&'static self) -> SectionGuard {
        let open = is_enabled().then(OpenSection::start);
        SectionGuard { section: self, open, not_send: PhantomData }
    }

    /// Times `future` from its first poll to its end: polls are work, the time between them is waiting.
    pub fn instrument<F: Future>(&'static self, future: F) -> Timed<F> {
        Timed { section: self, since: None, worked: 0, nested: 0, allocated: 0, future }
    }

    /// Records a time that was measured elsewhere, in nanoseconds.
    pub fn record(&'static self, elapsed: u64) {
        if is_enabled() {
            self.record_timing(SectionTiming { elapsed, nested: 0, waited: 0, allocated: 0 });
        }
    }

    fn record_timing(&'static self, mut timing: SectionTiming) {
        if self.kind == Kind::Wait {
            timing.waited = timing.elapsed.saturating_sub(timing.nested);
        }
        if let Some(number) = self.section_number() {
            with_local(|local| local.record_timing(number, timing));
        }
    }
}

/// A section that has been entered.
#[derive(Debug)]
struct OpenSection {
    since: Ticks,
    /// Time of nested sections in the enclosing section, before this one.
    outer_nested: u64,
    allocated: u64,
}

impl OpenSection {
    fn start() -> Self {
        let outer_nested = with_local(|local| local.nested.replace(0)).unwrap_or(0);
        Self { allocated: thread_allocated_bytes(), outer_nested, since: Ticks::now() }
    }

    /// Elapsed time, its part spent in nested sections, and allocated bytes.
    fn elapsed_since_start(&self) -> (u64, u64, u64) {
        let elapsed = Ticks::now().nanos_since(self.since);
        let nested = with_local(|local| local.nested.replace(self.outer_nested + elapsed)).unwrap_or(0);
        (elapsed, nested.min(elapsed), thread_allocated_bytes().saturating_sub(self.allocated))
    }
}

/// The section is open until this is dropped.
#[derive(Debug)]
pub struct SectionGuard {
    section: &'static Section,
    open: Option<OpenSection>,
    /// Not `Send`, because nested time is kept per thread.
    not_send: PhantomData<*const ()>,
}

impl SectionGuard {
    fn record_end(&self, open: &OpenSection) {
        let (elapsed, nested, allocated) = open.elapsed_since_start();
        self.section.record_timing(SectionTiming { elapsed, nested, waited: 0, allocated });
    }
}

impl Drop for SectionGuard {
    #[inline]
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            self.record_end(open);
        }
    }
}

/// A future in a section.
#[derive(Debug)]
pub struct Timed<F> {
    section: &'static Section,
    since: Option<Ticks>,
    worked: u64,
    nested: u64,
    allocated: u64,
    future: F,
}

impl<F: Future + Unpin> Future for Timed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if !is_enabled() {
            return Pin::new(&mut self.future).poll(context);
        }
        let open = OpenSection::start();
        self.since.get_or_insert(open.since);
        let polled = Pin::new(&mut self.future).poll(context);
        let (worked, nested, allocated) = open.elapsed_since_start();
        self.worked += worked;
        self.nested += nested;
        self.allocated += allocated;
        polled
    }
}

impl<F> Drop for Timed<F> {
    /// A cancelled future is recorded as well.
    fn drop(&mut self) {
        if let Some(since) = self.since {
            let elapsed = Ticks::now().nanos_since(since);
            let waited = elapsed.saturating_sub(self.worked);
            let (nested, allocated) = (self.nested, self.allocated);
            self.section.record_timing(SectionTiming { elapsed, nested, waited, allocated });
        }
    }
}

/// Times the rest of the block as the section `$name`.
///
/// ```
/// fn resize() {
///     let _section = caudal_observe::section!("resize");
///     // …
/// }
/// resize();
/// assert!(caudal_observe::summaries().iter().any(|summary| summary.section.name() == "resize" && summary.count == 1));
/// ```
#[macro_export]
macro_rules! section {
    ($name:expr) => {{
        static SECTION: $crate::Section = $crate::Section::new($name, ::core::module_path!());
        SECTION.enter()
    }};
    ($name:expr, waiting) => {{
        static SECTION: $crate::Section = $crate::Section::new_waiting($name, ::core::module_path!());
        SECTION.enter()
    }};
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Summary, summaries};
    use std::{pin::pin, task::Waker, thread, time::Duration};

    fn summary_of(name: &str) -> Summary {
        summaries().into_iter().find(|summary| summary.section.name() == name).unwrap()
    }

    fn sleep_ms(ms: u64) {
        thread::sleep(Duration::from_millis(ms));
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn own_time_excludes_nested_sections() {
        let outer = || {
            let _outer = section!("outer");
            sleep_ms(5);
            for _ in 0..2 {
                let _inner = section!("inner");
                sleep_ms(10);
                let _innermost = section!("innermost", waiting);
                sleep_ms(5);
            }
        };
        outer();
        let (outer, inner, innermost) = (summary_of("outer"), summary_of("inner"), summary_of("innermost"));
        assert_eq!((outer.count, inner.count, innermost.count), (1, 2, 2));
        assert!(outer.total >= inner.total && inner.total >= 30 * MS, "{outer:?}");
        assert_eq!(outer.own, outer.total - inner.total);
        assert_eq!(inner.own, inner.total - innermost.total);
        assert_eq!((innermost.own, innermost.waited), (0, innermost.total));
        assert_eq!((outer.min, outer.max, outer.last()), (outer.total, outer.total, outer.total));
        assert_eq!(inner.recent.len(), 2);
        assert!(inner.times.quantile(0.5).unwrap() >= 15 * MS);
    }

    #[test]
    fn sections_count_running_and_ended_threads() {
        static SECTION: Section = Section::new("threads", "test");
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let lives = thread::spawn(move || {
            drop(SECTION.enter());
            told.recv().unwrap();
        });
        for _ in 0..3 {
            thread::spawn(|| drop(SECTION.enter())).join().unwrap();
        }
        while summary_of("threads").count < 4 {
            thread::yield_now();
        }
        tell.send(()).unwrap();
        lives.join().unwrap();
        assert_eq!(summary_of("threads").count, 4);
    }

    #[test]
    fn recent_times_are_limited_to_the_last() {
        static SECTION: Section = Section::new("recent", "test");
        (0..2500).for_each(|time| SECTION.record(time));
        let summary = summary_of("recent");
        assert_eq!((summary.count, summary.min, summary.max), (2500, 0, 2499));
        assert_eq!(summary.recent, (1500..2500).collect::<Vec<_>>());
    }

    #[test]
    fn instrumented_future_waits_between_polls() {
        static SECTION: Section = Section::new("future", "test");
        let mut polls = 0;
        let future = std::future::poll_fn(|_| {
            let _within = section!("within the future");
            sleep_ms(2);
            polls += 1;
            if polls == 3 { Poll::Ready(()) } else { Poll::Pending }
        });
        {
            let mut timed = pin!(SECTION.instrument(Box::pin(future)));
            let mut context = Context::from_waker(Waker::noop());
            while timed.as_mut().poll(&mut context).is_pending() {
                sleep_ms(5);
            }
        }
        let summary = summary_of("future");
        assert_eq!(summary.count, 1);
        assert!(summary.waited >= 10 * MS && summary.total >= 16 * MS, "{summary:?}");
        assert!(summary.own < 2 * MS, "the work was in a nested section: {summary:?}");
    }
}
