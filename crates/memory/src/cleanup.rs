//! Who can give memory back, and what each of them did.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::history::now;

/// What hooks are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// For how long nobody may have asked for what they let go.
    pub idle: Duration,
    /// Why they run.
    pub why: Why,
}

/// Why hooks ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Why {
    /// Memory was short.
    Pressure,
    /// Somebody asked.
    Asked,
}

/// What one hook did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ran {
    /// Its name.
    pub hook: &'static str,
    /// In its own words.
    pub did: String,
    /// By how many bytes the process shrank meanwhile. What it gave to the allocator shows when that gives it back.
    pub freed_bytes: u64,
    /// Milliseconds that it took.
    pub took_ms: f64,
}

/// What all hooks did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Seconds since 1970.
    pub at: u64,
    /// Why they ran.
    pub why: Why,
    /// Resident bytes of the process before.
    pub resident_before_bytes: u64,
    /// And after.
    pub resident_after_bytes: u64,
    /// One after the other.
    pub hooks: Vec<Ran>,
}

impl Report {
    /// By how many bytes the process shrank.
    pub fn freed(&self) -> u64 {
        self.resident_before_bytes.saturating_sub(self.resident_after_bytes)
    }
}

/// A hook and what it has done so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookState {
    /// Its name.
    pub name: &'static str,
    /// How often it ran.
    pub runs: u64,
    /// By how many bytes the process shrank during all its runs.
    pub freed_bytes: u64,
}

type Work = dyn Fn(&Ask) -> String + Send + Sync;

struct Hook {
    name: &'static str,
    work: Box<Work>,
    runs: AtomicU64,
    freed: AtomicU64,
}

/// All hooks, in the order in which they run.
#[derive(Default)]
pub(crate) struct Hooks {
    list: Mutex<Vec<Arc<Hook>>>,
    rounds: AtomicU64,
    /// Held while they run: one round at a time.
    last: Mutex<Option<Report>>,
}

impl Hooks {
    pub(crate) fn add(&self, name: &'static str, work: Box<Work>) {
        lock(&self.list).push(Arc::new(Hook { name, work, runs: AtomicU64::new(0), freed: AtomicU64::new(0) }));
    }

    /// Runs all of them; whoever comes while they run waits, and gets what that round did.
    pub(crate) fn run(&self, ask: &Ask, resident: impl Fn() -> u64) -> Report {
        let asked_in = self.rounds.load(Relaxed);
        let mut last = lock(&self.last);
        if self.rounds.load(Relaxed) != asked_in
            && let Some(report) = &*last
        {
            return report.clone();
        }
        let hooks = lock(&self.list).clone();
        let before = resident();
        let ran = hooks.iter().map(|hook| hook.run(ask, &resident)).collect();
        let report = Report {
            at: now(),
            why: ask.why,
            resident_before_bytes: before,
            resident_after_bytes: resident(),
            hooks: ran,
        };
        *last = Some(report.clone());
        self.rounds.fetch_add(1, Relaxed);
        report
    }

    /// What the last round did; none as long as the first runs.
    pub(crate) fn last(&self) -> Option<Report> {
        self.last.try_lock().ok()?.clone()
    }

    pub(crate) fn states(&self) -> Vec<HookState> {
        let state = |hook: &Arc<Hook>| HookState {
            name: hook.name,
            runs: hook.runs.load(Relaxed),
            freed_bytes: hook.freed.load(Relaxed),
        };
        lock(&self.list).iter().map(state).collect()
    }
}

impl Hook {
    fn run(&self, ask: &Ask, resident: impl Fn() -> u64) -> Ran {
        let (before, since) = (resident(), Instant::now());
        // One that breaks must not keep the others from giving memory back.
        let did = catch_unwind(AssertUnwindSafe(|| (self.work)(ask)));
        let took = since.elapsed();
        let freed = before.saturating_sub(resident());
        self.runs.fetch_add(1, Relaxed);
        self.freed.fetch_add(freed, Relaxed);
        Ran {
            hook: self.name,
            did: did.unwrap_or_else(|_| "it broke off; see the log".to_owned()),
            freed_bytes: freed,
            took_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Barrier, thread};

    const ASK: Ask = Ask { idle: Duration::ZERO, why: Why::Asked };

    #[test]
    fn hooks_run_in_order_and_one_that_breaks_hinders_nobody() {
        let (hooks, held) = (Hooks::default(), Arc::new(AtomicU64::new(100)));
        for (name, give) in [("first", 30), ("second", 5)] {
            let held = Arc::clone(&held);
            hooks.add(name, Box::new(move |_| format!("{}", held.fetch_sub(give, Relaxed))));
        }
        hooks.add("broken", Box::new(|_| panic!("on purpose")));
        let report = hooks.run(&ASK, || held.load(Relaxed));
        let ran: Vec<_> = report.hooks.iter().map(|ran| (ran.hook, &ran.did[..], ran.freed_bytes)).collect();
        assert_eq!(ran, [("first", "100", 30), ("second", "70", 5), ("broken", "it broke off; see the log", 0)]);
        assert_eq!((report.freed(), hooks.last()), (35, Some(report)));
        let states = hooks.states();
        assert_eq!((states[0].runs, states[0].freed_bytes, states[2].runs), (1, 30, 1));
    }

    #[test]
    fn who_comes_while_they_run_gets_what_that_round_did() {
        let (hooks, gate) = (Arc::new(Hooks::default()), Arc::new(Barrier::new(2)));
        let inside = Arc::clone(&gate);
        hooks.add(
            "slow",
            Box::new(move |_| {
                inside.wait();
                inside.wait();
                "once".to_owned()
            }),
        );
        let run = |hooks: &Arc<Hooks>| {
            let hooks = Arc::clone(hooks);
            thread::spawn(move || hooks.run(&ASK, || 0))
        };
        let first = run(&hooks);
        gate.wait();
        let second = run(&hooks);
        // The second has come when it waits for the lock: give it the time to, then let the first end.
        thread::sleep(Duration::from_millis(50));
        gate.wait();
        assert_eq!(first.join().unwrap(), second.join().unwrap());
        assert_eq!(hooks.states()[0].runs, 1);
    }
}
