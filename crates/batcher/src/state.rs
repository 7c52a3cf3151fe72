//! Queue state under its lock: waiting entries, runs in progress, free instances.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use caudal_engine::Interrupt;
use caudal_types::{Priority, Trace};

use crate::{
    BatchClosedBy, EntryRequest, LoadEstimate, Policy, QueueDepth, QueueTimeoutAction, Refusal, ServiceTimes,
    WaitingEntry, backlog::Backlog, form_batch, instance::BatchRunner, job::AnyJob, queue::EntryKey,
};

pub(crate) struct QueueState {
    pub(crate) policy: Policy,
    next: u64,
    pub(crate) backlog: Backlog,
    pub(crate) waiting: BTreeMap<EntryKey, Entry>,
    /// The wide instance first, if there is one, then the concurrent ones.
    slots: Vec<InstanceSlot>,
    wide: bool,
    /// Maximum number of concurrent runs.
    instances: usize,
    /// Threads that serve the queue.
    threads: usize,
    /// Threads that wait for work.
    pub(crate) idle: usize,
    times: ServiceTimes,
    pub(crate) closed: bool,
}

/// The slot of one instance.
struct InstanceSlot {
    /// Taken out while `running` is set.
    runner: Option<BatchRunner>,
    interrupt: Arc<dyn Interrupt>,
    running: Option<RunInProgress>,
}

/// A run in progress.
struct RunInProgress {
    keys: Vec<EntryKey>,
    /// Entries whose reply is still awaited.
    awaited: usize,
    work: usize,
    since: Instant,
}

/// An entry whose rows are ready.
pub(crate) struct Entry {
    pub(crate) request: EntryRequest,
    pub(crate) since: Instant,
    pub(crate) trace: Trace,
    pub(crate) job: Box<dyn AnyJob>,
}

/// A batch with the instance that runs it.
pub(crate) struct Batch {
    pub(crate) runner: BatchRunner,
    /// The index of the instance's slot.
    pub(crate) index: usize,
    pub(crate) entries: Vec<Entry>,
    pub(crate) work: usize,
    pub(crate) stop: BatchClosedBy,
    pub(crate) formed: Instant,
}

/// A batch or the reason why there is none yet, and the entries that must not run.
pub(crate) struct FormResult {
    pub(crate) batch: Result<Batch, BatchClosedBy>,
    pub(crate) late: Vec<Entry>,
    pub(crate) expired: Vec<Entry>,
}

impl QueueState {
    pub(crate) fn new(side_by_side: Vec<BatchRunner>, wide: Option<BatchRunner>, policy: Policy) -> Self {
        Self {
            policy,
            next: 0,
            backlog: Backlog::default(),
            waiting: BTreeMap::new(),
            wide: wide.is_some(),
            instances: side_by_side.len(),
            slots: wide.into_iter().chain(side_by_side).map(InstanceSlot::new).collect(),
            threads: 0,
            idle: 0,
            times: ServiceTimes::new(Instant::now()),
            closed: false,
        }
    }

    pub(crate) fn depth(&self) -> QueueDepth {
        QueueDepth {
            entries: self.backlog.entries,
            busy_instances: self.running_instances(),
            instances: self.instances,
        }
    }

    /// Counts `request` as admitted; returns its number.
    pub(crate) fn admit_entry(&mut self, request: &EntryRequest) -> u64 {
        self.backlog.add_entry(request);
        self.next += 1;
        self.next
    }

    /// Number of concurrent instances.
    pub(crate) fn concurrent_instances(&self) -> usize {
        self.slots.len() - usize::from(self.wide)
    }

    /// Lets `count` instances run concurrently, including `more`. Returns the instances that were removed and the
    /// numbers of the threads to start.
    pub(crate) fn resize_slots(&mut self, count: usize, more: Vec<BatchRunner>) -> (Vec<BatchRunner>, Range<usize>) {
        self.slots.extend(more.into_iter().map(InstanceSlot::new));
        self.instances = count.min(self.concurrent_instances());
        let missing = self.threads..self.instances;
        self.threads = self.threads.max(self.instances);
        (self.remove_spare_slots(), missing)
    }

    /// Removes and returns free instances beyond the limit.
    fn remove_spare_slots(&mut self) -> Vec<BatchRunner> {
        let mut gone = Vec::new();
        while self.concurrent_instances() > self.instances
            && self.slots.last().is_some_and(|last| last.running.is_none())
        {
            gone.extend(self.slots.pop().and_then(|slot| slot.runner));
        }
        gone
    }

    /// Whether the calling thread is one too many and must end.
    pub(crate) fn leave_if_spare(&mut self) -> bool {
        let spare = self.threads > self.instances;
        self.threads -= usize::from(spare);
        spare
    }

    /// Number of running instances.
    fn running_instances(&self) -> usize {
        self.slots.iter().filter(|slot| slot.running.is_some()).count()
    }

    fn is_wide(&self, index: usize) -> bool {
        self.wide && index == 0
    }

    /// A slot that may run now: the wide instance, if there is one, for a single entry.
    pub(crate) fn free_slot(&self) -> Option<usize> {
        let first = usize::from(self.wide);
        match self.running_instances() {
            0 if self.backlog.entries == 1 => Some(0),
            runs if runs < self.instances => {
                (first..first + self.instances).find(|index| self.slots[*index].running.is_none())
            }
            _ => None,
        }
    }

    /// Forms a batch for the free instance at `index` and moves it there.
    pub(crate) fn take_batch(&mut self, index: usize) -> FormResult {
        let now = Instant::now();
        let run = if self.is_wide(index) { Duration::ZERO } else { self.times.expected_run(now) };
        let policy = &self.policy;
        let entries = || self.waiting.iter();
        let stepped_back = |(_, entry): &(&EntryKey, &Entry)| {
            let timeouts = policy.timeouts_of(entry.request.priority);
            let waited = timeouts.timeout.is_some_and(|timeout| entry.since + timeout <= now);
            waited && timeouts.then == QueueTimeoutAction::Delay
        };
        let in_order = entries().filter(|entry| !stepped_back(entry)).chain(entries().filter(stepped_back));
        let waiting = in_order.map(|(key, entry)| (*key, entry.as_waiting(policy)));
        let formed = form_batch(waiting, policy, now, run);
        let mut take = |keys: &[EntryKey]| keys.iter().filter_map(|key| self.take_entry(key)).collect();
        let (late, expired) = (take(&formed.late), take(&formed.expired));
        if formed.take.is_empty() {
            return FormResult { batch: Err(formed.stop), late, expired };
        }
        let entries: Vec<Entry> = take(&formed.take);
        let work = entries.iter().map(|entry| entry.request.work_units()).sum();
        let slot = &mut self.slots[index];
        let Some(runner) = slot.runner.take() else {
            unreachable!("an instance that runs nothing is in its place");
        };
        let wanted = formed.take.len();
        slot.running = Some(RunInProgress { keys: formed.take, awaited: wanted, work, since: now });
        let batch = Batch { runner, index, entries, work, stop: formed.stop, formed: now };
        FormResult { batch: Ok(batch), late, expired }
    }

    /// Frees the instance at `index` after a run of so much `work` that took `taken`. Returns the instances that were
    /// removed.
    pub(crate) fn finish_run(
        &mut self,
        index: usize,
        runner: BatchRunner,
        work: usize,
        taken: Option<Duration>,
    ) -> Vec<BatchRunner> {
        let slot = &mut self.slots[index];
        slot.interrupt.allow_runs();
        (slot.runner, slot.running) = (Some(runner), None);
        // Run times of the wide instance say nothing about the others.
        if let Some(taken) = taken.filter(|_| !self.is_wide(index)) {
            self.times.record_run(work, taken, Instant::now());
        }
        self.remove_spare_slots()
    }

    /// The caller of the running entry `key` has gone. Interrupts the run if no other entry awaits it.
    pub(crate) fn interrupt_if_abandoned(&mut self, key: &EntryKey) {
        let running = |slot: &&mut InstanceSlot| slot.running.as_ref().is_some_and(|run| run.keys.contains(key));
        let Some(slot) = self.slots.iter_mut().find(running) else { return };
        if let Some(run) = &mut slot.running {
            run.awaited -= 1;
            if run.awaited == 0 {
                slot.interrupt.stop_run();
            }
        }
    }

    /// Records that an entry's rows were ready `taken` after its admission.
    pub(crate) fn record_ready(&mut self, taken: Duration, now: Instant) {
        self.times.record_ready(taken, now);
    }

    fn take_entry(&mut self, key: &EntryKey) -> Option<Entry> {
        let entry = self.waiting.remove(key)?;
        self.backlog.remove_entry(&entry.request);
        Some(entry)
    }

    /// The reason why `request` cannot be admitted, if there is one.
    pub(crate) fn refusal_reason(&self, request: &EntryRequest) -> Option<Refusal> {
        let policy = &self.policy;
        let now = Instant::now();
        let estimate = self.load_estimate(request.priority, now);
        let retry_after = || self.times.queue_wait(&estimate).unwrap_or(Duration::from_secs(1));
        if self.closed {
            return Some(Refusal::Closed);
        }
        if self.backlog.entries >= policy.max_queue_size {
            return Some(Refusal::Full { limit: policy.max_queue_size, retry_after: retry_after() });
        }
        if let Some(limit) = policy.timeouts_of(request.priority).max_queue_size
            && self.backlog.entries_of(request.priority) >= limit
        {
            return Some(Refusal::Full { limit, retry_after: retry_after() });
        }
        // An entry above the limit is admitted if no other waits, because it could never be admitted otherwise.
        if self.backlog.entries > 0 && self.backlog.bytes + request.bytes > policy.max_queue_bytes {
            return Some(Refusal::FullOfBytes { limit: policy.max_queue_bytes, retry_after: retry_after() });
        }
        let deadline = request.deadline.moment()?;
        let predicted = self.times.time_to_answer(&estimate, now)?;
        let left = deadline.saturating_duration_since(now);
        (predicted > left).then(|| Refusal::DeadlineUnreachable { predicted, retry_after: predicted - left })
    }

    fn load_estimate(&self, priority: Priority, now: Instant) -> LoadEstimate {
        let runs = || self.slots.iter().filter_map(|slot| slot.running.as_ref());
        LoadEstimate {
            work_ahead: self.backlog.work_before(priority),
            work_running: runs().map(|run| run.work).sum(),
            running_for: runs().map(|run| now.saturating_duration_since(run.since)).sum(),
            instances: self.instances,
            idle: self.running_instances() < self.instances,
        }
    }
}

impl InstanceSlot {
    fn new(runner: BatchRunner) -> Self {
        Self { interrupt: runner.interrupt_handle(), runner: Some(runner), running: None }
    }
}

impl Entry {
    fn as_waiting(&self, policy: &Policy) -> WaitingEntry<'_> {
        let timeouts = policy.timeouts_of(self.request.priority);
        let rejected = timeouts.timeout.filter(|_| timeouts.then == QueueTimeoutAction::Reject);
        WaitingEntry {
            rows: self.request.rows,
            shapes: self.job.shapes(),
            deadline: self.request.deadline,
            since: self.since,
            expires: rejected.map(|timeout| self.since + timeout),
            ragged: self.request.tokens > 0,
        }
    }
}
