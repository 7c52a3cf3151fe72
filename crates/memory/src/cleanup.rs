//! Cleanup hooks, and reports of their runs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::history::unix_seconds;

/// A request to free memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupRequest {
    /// Only memory that was not used for this long is freed.
    pub idle: Duration,
    /// Reason of the cleanup.
    pub why: CleanupReason,
}

/// Reason of a cleanup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CleanupReason {
    /// Memory was short.
    Pressure,
    /// An operator requested it.
    #[serde(rename = "asked")]
    Requested,
}

/// The run of one hook.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookRun {
    /// Name of the hook.
    pub hook: &'static str,
    /// Its own description of what it did.
    pub did: String,
    /// Decrease of the process's resident memory. Memory freed to the allocator shows when the allocator returns it.
    pub freed_bytes: u64,
    /// Duration in milliseconds.
    pub took_ms: f64,
}

/// A run of all hooks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CleanupReport {
    /// Seconds since 1970.
    pub at: u64,
    /// Reason of the cleanup.
    pub why: CleanupReason,
    /// Resident bytes of the process before.
    pub resident_before_bytes: u64,
    /// Resident bytes of the process after.
    pub resident_after_bytes: u64,
    /// The runs, in order.
    pub hooks: Vec<HookRun>,
}

impl CleanupReport {
    /// Decrease of the process's resident memory.
    pub fn freed_bytes(&self) -> u64 {
        self.resident_before_bytes.saturating_sub(self.resident_after_bytes)
    }
}

/// A hook and its totals.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HookStats {
    /// Name.
    pub name: &'static str,
    /// Number of runs.
    pub runs: u64,
    /// Total decrease of the process's resident memory during its runs.
    pub freed_bytes: u64,
}

type Work = dyn Fn(&CleanupRequest) -> String + Send + Sync;

struct Hook {
    name: &'static str,
    work: Box<Work>,
    runs: AtomicU64,
    freed: AtomicU64,
}

/// All hooks, in the order of their runs.
#[derive(Default)]
pub(crate) struct Hooks {
    list: Mutex<Vec<Arc<Hook>>>,
    rounds: AtomicU64,
    /// Locked while hooks run, so that there is one run at a time.
    last: Mutex<Option<CleanupReport>>,
}

impl Hooks {
    pub(crate) fn register(&self, name: &'static str, work: Box<Work>) {
        lock_unpoisoned(&self.list).push(Arc::new(Hook {
            name,
            work,
            runs: AtomicU64::new(0),
            freed: AtomicU64::new(0),
        }));
    }

    /// Runs all hooks; a concurrent caller waits and gets the report of that run.
    pub(crate) fn run_hooks(&self, request: &CleanupRequest, resident: impl Fn() -> u64) -> CleanupReport {
        let round_at_call = self.rounds.load(Relaxed);
        let mut last = lock_unpoisoned(&self.last);
        if self.rounds.load(Relaxed) != round_at_call
            && let Some(report) = &*last
        {
            return report.clone();
        }
        let hooks = lock_unpoisoned(&self.list).clone();
        let before = resident();
        let ran = hooks.iter().map(|hook| hook.run_hook(request, &resident)).collect();
        let report = CleanupReport {
            at: unix_seconds(),
            why: request.why,
            resident_before_bytes: before,
            resident_after_bytes: resident(),
            hooks: ran,
        };
        *last = Some(report.clone());
        self.rounds.fetch_add(1, Relaxed);
        report
    }

    /// Report of the last run; `None` while hooks run.
    pub(crate) fn last_report(&self) -> Option<CleanupReport> {
        self.last.try_lock().ok()?.clone()
    }

    pub(crate) fn hook_stats(&self) -> Vec<HookStats> {
        let state = |hook: &Arc<Hook>| HookStats {
            name: hook.name,
            runs: hook.runs.load(Relaxed),
            freed_bytes: hook.freed.load(Relaxed),
        };
        lock_unpoisoned(&self.list).iter().map(state).collect()
    }
}

impl Hook {
    fn run_hook(&self, request: &CleanupRequest, resident: impl Fn() -> u64) -> HookRun {
        let (before, since) = (resident(), Instant::now());
        // A panic of one hook must not keep the others from freeing memory.
        let did = catch_unwind(AssertUnwindSafe(|| (self.work)(request)));
        let took = since.elapsed();
        let freed = before.saturating_sub(resident());
        self.runs.fetch_add(1, Relaxed);
        self.freed.fetch_add(freed, Relaxed);
        HookRun {
            hook: self.name,
            did: did.unwrap_or_else(|_| "the hook panicked; see the log".to_owned()),
            freed_bytes: freed,
            took_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
        }
    }
}

fn lock_unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Barrier, thread};

    const REQUEST: CleanupRequest = CleanupRequest { idle: Duration::ZERO, why: CleanupReason::Requested };

    #[test]
    fn hooks_run_in_order_despite_a_panic() {
        let (hooks, held) = (Hooks::default(), Arc::new(AtomicU64::new(100)));
        for (name, give) in [("first", 30), ("second", 5)] {
            let held = Arc::clone(&held);
            hooks.register(name, Box::new(move |_| format!("{}", held.fetch_sub(give, Relaxed))));
        }
        hooks.register("broken", Box::new(|_| panic!("on purpose")));
        let report = hooks.run_hooks(&REQUEST, || held.load(Relaxed));
        let ran: Vec<_> = report.hooks.iter().map(|ran| (ran.hook, &ran.did[..], ran.freed_bytes)).collect();
        assert_eq!(ran, [("first", "100", 30), ("second", "70", 5), ("broken", "the hook panicked; see the log", 0)]);
        assert_eq!((report.freed_bytes(), hooks.last_report()), (35, Some(report)));
        let states = hooks.hook_stats();
        assert_eq!((states[0].runs, states[0].freed_bytes, states[2].runs), (1, 30, 1));
    }

    #[test]
    fn concurrent_cleanups_share_one_run() {
        let (hooks, gate) = (Arc::new(Hooks::default()), Arc::new(Barrier::new(2)));
        let inside = Arc::clone(&gate);
        hooks.register(
            "slow",
            Box::new(move |_| {
                inside.wait();
                inside.wait();
                "once".to_owned()
            }),
        );
        let run = |hooks: &Arc<Hooks>| {
            let hooks = Arc::clone(hooks);
            thread::spawn(move || hooks.run_hooks(&REQUEST, || 0))
        };
        let first = run(&hooks);
        gate.wait();
        let second = run(&hooks);
        // The second call has to reach the lock before the first run ends: give it time.
        thread::sleep(Duration::from_millis(50));
        gate.wait();
        assert_eq!(first.join().unwrap(), second.join().unwrap());
        assert_eq!(hooks.hook_stats()[0].runs, 1);
    }
}
