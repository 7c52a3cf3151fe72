//! Parts of a program that are timed by name.

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
    cells::Passage,
    clock::Ticks,
    store::{self, local},
};

/// Whether sections are timed.
static ON: AtomicBool = AtomicBool::new(true);
/// What tells how much the calling thread has allocated.
static ALLOCATED: OnceLock<fn() -> u64> = OnceLock::new();

/// Switches all sections on or off. Off, passing one costs a load.
pub fn set_enabled(on: bool) {
    ON.store(on, Relaxed);
}

/// Whether sections are timed.
#[inline]
pub fn enabled() -> bool {
    ON.load(Relaxed)
}

/// Lets sections count bytes: `allocated` gives those that the calling thread has allocated since it began. The first to
/// say so is believed.
pub fn count_allocations(allocated: fn() -> u64) {
    let _ = ALLOCATED.set(allocated);
}

fn allocated() -> u64 {
    ALLOCATED.get().map_or(0, |allocated| allocated())
}

/// What is done in a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Work.
    Work,
    /// Nothing: somebody or something is waited for.
    Wait,
}

/// A part of a program that is timed. It lives as long as the program; [`crate::section!`] and `#[profile]` make one.
#[derive(Debug)]
pub struct Section {
    name: &'static str,
    group: &'static str,
    kind: Kind,
    /// One more than its number; 0 before it has one, [`REFUSED`] if it gets none.
    number: AtomicUsize,
}

const REFUSED: usize = usize::MAX;

impl Section {
    /// A section `name` that works, of a `group` of sections: the module that it is in.
    pub const fn new(name: &'static str, group: &'static str) -> Self {
        Self { name, group, kind: Kind::Work, number: AtomicUsize::new(0) }
    }

    /// A section in which something is waited for.
    pub const fn waiting(name: &'static str, group: &'static str) -> Self {
        Self { kind: Kind::Wait, ..Self::new(name, group) }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What it is a part of.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// What is done in it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    fn number(&'static self) -> Option<usize> {
        match self.number.load(Relaxed) {
            0 => {
                let number = store::register(self);
                self.number.store(number.map_or(REFUSED, |number| number + 1), Relaxed);
                number
            }
            REFUSED => None,
            number => Some(number - 1),
        }
    }

    /// Enters the section; it ends when the guard goes.
    #[must_use = "the section ends when this goes"]
    #[inline]
    pub fn enter(&'static self) -> Guard {
        let open = enabled().then(Open::now);
        Guard { section: self, open, stays: PhantomData }
    }

    /// Times `future` from its first poll to its end: polls are work, the time between them is waiting.
    pub fn instrument<F: Future>(&'static self, future: F) -> Timed<F> {
        Timed { section: self, since: None, worked: 0, within: 0, allocated: 0, future }
    }

    /// Counts a time that somebody else has taken, in nanoseconds.
    pub fn record(&'static self, elapsed: u64) {
        if enabled() {
            self.count(Passage { elapsed, within: 0, waited: 0, allocated: 0 });
        }
    }

    fn count(&'static self, mut passage: Passage) {
        if self.kind == Kind::Wait {
            passage.waited = passage.elapsed.saturating_sub(passage.within);
        }
        if let Some(number) = self.number() {
            local(|local| local.count(number, passage));
        }
    }
}

/// A section that has begun.
#[derive(Debug)]
struct Open {
    since: Ticks,
    /// What was spent within the section around it before.
    around: u64,
    allocated: u64,
}

impl Open {
    fn now() -> Self {
        let around = local(|local| local.within.replace(0)).unwrap_or(0);
        Self { allocated: allocated(), around, since: Ticks::now() }
    }

    /// Ends it; gives its time, what of that was spent within, and bytes.
    fn end(&self) -> (u64, u64, u64) {
        let elapsed = Ticks::now().since(self.since);
        let within = local(|local| local.within.replace(self.around + elapsed)).unwrap_or(0);
        (elapsed, within.min(elapsed), allocated().saturating_sub(self.allocated))
    }
}

/// A section is open while this lives.
#[derive(Debug)]
pub struct Guard {
    section: &'static Section,
    open: Option<Open>,
    /// What is spent within is known by thread.
    stays: PhantomData<*const ()>,
}

impl Guard {
    fn end(&self, open: &Open) {
        let (elapsed, within, allocated) = open.end();
        self.section.count(Passage { elapsed, within, waited: 0, allocated });
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            self.end(open);
        }
    }
}

/// A future in a section.
#[derive(Debug)]
pub struct Timed<F> {
    section: &'static Section,
    since: Option<Ticks>,
    worked: u64,
    within: u64,
    allocated: u64,
    future: F,
}

impl<F: Future + Unpin> Future for Timed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if !enabled() {
            return Pin::new(&mut self.future).poll(context);
        }
        let open = Open::now();
        self.since.get_or_insert(open.since);
        let polled = Pin::new(&mut self.future).poll(context);
        let (worked, within, allocated) = open.end();
        self.worked += worked;
        self.within += within;
        self.allocated += allocated;
        polled
    }
}

impl<F> Drop for Timed<F> {
    /// One that is given up has taken its time as well.
    fn drop(&mut self) {
        if let Some(since) = self.since {
            let elapsed = Ticks::now().since(since);
            let waited = elapsed.saturating_sub(self.worked);
            let (within, allocated) = (self.within, self.allocated);
            self.section.count(Passage { elapsed, within, waited, allocated });
        }
    }
}

/// Times the rest of the block under a name.
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
        static SECTION: $crate::Section = $crate::Section::waiting($name, ::core::module_path!());
        SECTION.enter()
    }};
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Summary, summaries};
    use std::{pin::pin, task::Waker, thread, time::Duration};

    fn of(name: &str) -> Summary {
        summaries().into_iter().find(|summary| summary.section.name() == name).unwrap()
    }

    fn sleep(ms: u64) {
        thread::sleep(Duration::from_millis(ms));
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn what_is_within_is_not_its_own() {
        let outer = || {
            let _outer = section!("outer");
            sleep(5);
            for _ in 0..2 {
                let _inner = section!("inner");
                sleep(10);
                let _innermost = section!("innermost", waiting);
                sleep(5);
            }
        };
        outer();
        let (outer, inner, innermost) = (of("outer"), of("inner"), of("innermost"));
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
    fn threads_are_counted_while_they_live_and_when_they_are_gone() {
        static SECTION: Section = Section::new("threads", "test");
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let lives = thread::spawn(move || {
            drop(SECTION.enter());
            told.recv().unwrap();
        });
        for _ in 0..3 {
            thread::spawn(|| drop(SECTION.enter())).join().unwrap();
        }
        while of("threads").count < 4 {
            thread::yield_now();
        }
        tell.send(()).unwrap();
        lives.join().unwrap();
        assert_eq!(of("threads").count, 4);
    }

    #[test]
    fn only_the_last_times_are_kept() {
        static SECTION: Section = Section::new("recent", "test");
        (0..2500).for_each(|time| SECTION.record(time));
        let summary = of("recent");
        assert_eq!((summary.count, summary.min, summary.max), (2500, 0, 2499));
        assert_eq!(summary.recent, (1500..2500).collect::<Vec<_>>());
    }

    #[test]
    fn a_future_waits_between_its_polls() {
        static SECTION: Section = Section::new("future", "test");
        let mut polls = 0;
        let future = std::future::poll_fn(|_| {
            let _within = section!("within the future");
            sleep(2);
            polls += 1;
            if polls == 3 { Poll::Ready(()) } else { Poll::Pending }
        });
        {
            let mut timed = pin!(SECTION.instrument(Box::pin(future)));
            let mut context = Context::from_waker(Waker::noop());
            while timed.as_mut().poll(&mut context).is_pending() {
                sleep(5);
            }
        }
        let summary = of("future");
        assert_eq!(summary.count, 1);
        assert!(summary.waited >= 10 * MS && summary.total >= 16 * MS, "{summary:?}");
        assert!(summary.own < 2 * MS, "what was done was done within: {summary:?}");
    }
}
