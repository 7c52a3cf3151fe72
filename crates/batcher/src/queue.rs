//! Queue of one model: admission, waiting entries, and their execution.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use caudal_engine::{Instance, LoadError, ModelSpec};
use caudal_types::{Deadline, Priority, Stage, Trace};

use crate::{
    BatchClosedBy, Failure, Job, Policy, QueueDepth, QueueStats, Refusal, Reply,
    instance::{self, BatchMeta, BatchRunner},
    job,
    recent_runs::{RecentRuns, RecordedRun},
    reply_order::{OrderedReply, ReplyOrder},
    state::{Batch, Entry, FormResult, QueueState},
};

/// The size, priority and deadline of an entry, given at admission.
#[derive(Debug, Clone, Copy)]
pub struct EntryRequest {
    /// Number of rows.
    pub rows: usize,
    /// Number of tokens if the rows may be padded to the length of others; else 0.
    pub tokens: usize,
    /// Bytes that the entry holds while it waits.
    pub bytes: usize,
    /// Its priority.
    pub priority: Priority,
    /// The moment after which its answer is worthless.
    pub deadline: Deadline,
}

impl EntryRequest {
    /// The measure of its run: tokens, or else rows.
    pub(crate) fn work_units(&self) -> usize {
        self.tokens.max(self.rows)
    }
}

/// A longer run must not block the calling thread again. Models that run in place take less than a hundredth of it; the
/// margin allows for pauses of a busy machine.
const MAX_RUN_TIME_IN_PLACE: Duration = Duration::from_millis(50);

/// Order of entries: high priority first, then by age of admission.
pub(crate) type EntryKey = (Priority, u64);

/// The instances of a queue.
pub struct Instances {
    /// Instances that run concurrently.
    pub concurrent: Vec<Box<dyn Instance>>,
    /// The wide instance, if there is one: it runs an entry without concurrent ones.
    pub wide: Option<Box<dyn Instance>>,
}

/// Fixed properties of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueConfig {
    /// Whether rows of several entries may share a run; the first dimension of each input and output counts them.
    pub joined: bool,
    /// Whether answers leave in the order of admission; then priorities are ignored.
    pub ordered: bool,
    /// Number of the latest runs whose inputs are recorded.
    pub recorded_runs: usize,
}

/// The queue of one model with its instances.
pub struct Queue {
    inner: Arc<QueueShared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("name", &self.inner.name).field("depth", &self.depth()).finish()
    }
}

pub(crate) struct QueueShared {
    pub(crate) name: String,
    pub(crate) spec: ModelSpec,
    pub(crate) joined: bool,
    pub(crate) stats: QueueStats,
    state: Mutex<QueueState>,
    work: Condvar,
    order: Option<Arc<ReplyOrder>>,
    pub(crate) recent: Option<RecentRuns>,
}

impl fmt::Debug for QueueShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({})", self.name)
    }
}

impl Queue {
    /// Starts a thread for each concurrent instance of the model with `spec`.
    pub fn start(
        name: &str,
        spec: &ModelSpec,
        config: QueueConfig,
        instances: Instances,
        policy: Policy,
    ) -> Result<Self, LoadError> {
        let runner = |instance| BatchRunner::new(instance, spec);
        let side_by_side: Vec<BatchRunner> = instances.concurrent.into_iter().map(runner).collect();
        let at_once = side_by_side.len();
        let inner = Arc::new(QueueShared {
            name: name.to_owned(),
            spec: spec.clone(),
            joined: config.joined,
            stats: QueueStats::default(),
            state: Mutex::new(QueueState::new(side_by_side, instances.wide.map(runner), policy)),
            work: Condvar::new(),
            order: config.ordered.then(Arc::default),
            recent: (config.recorded_runs > 0).then(|| RecentRuns::new(config.recorded_runs)),
        });
        let queue = Self { inner, threads: Mutex::default() };
        queue.resize_instances(at_once, Vec::new())?;
        Ok(queue)
    }

    /// Number of instances missing for `count` to run concurrently.
    pub fn missing_instances(&self, count: usize) -> usize {
        count.saturating_sub(self.inner.lock_state().concurrent_instances())
    }

    /// Lets `count` instances run concurrently from the next batch on, including those in `more`. Present runs are not
    /// interrupted.
    pub fn resize_instances(&self, count: usize, more: Vec<Box<dyn Instance>>) -> Result<(), LoadError> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let runners = more.into_iter().map(|instance| BatchRunner::new(instance, &self.inner.spec)).collect();
        let (gone, missing) = self.inner.lock_state().resize_slots(count, runners);
        self.inner.work.notify_all();
        drop(gone);
        threads.retain(|thread| !thread.is_finished());
        for index in missing {
            let inner = Arc::clone(&self.inner);
            let thread = std::thread::Builder::new()
                .name(format!("infer-{index}-{}", self.inner.name))
                .spawn(move || instance::serve_queue(&inner))
                .map_err(|error| LoadError::Backend(format!("a thread could not be started: {error}")))?;
            threads.push(thread);
        }
        Ok(())
    }

    /// Requests a permit, before any work is done for the request.
    pub fn admit(&self, request: EntryRequest) -> Result<Permit, Refusal> {
        let (key, turn) = self.inner.admit(&request, QueueState::refusal_reason)?;
        Ok(self.new_permit(request, key, turn))
    }

    /// Requests a permit for a further part of an admitted request: it is not refused because the queue is full.
    /// Callers with many parts queue few of them at a time, so that other requests come between them.
    pub fn admit_part(&self, request: EntryRequest) -> Result<Permit, Refusal> {
        let (key, turn) = self.inner.admit(&request, |state, _| state.closed.then_some(Refusal::Closed))?;
        Ok(self.new_permit(request, key, turn))
    }

    fn new_permit(&self, request: EntryRequest, key: EntryKey, turn: Option<OrderedReply>) -> Permit {
        Permit { queue: Arc::clone(&self.inner), request, key, turn, since: Instant::now(), taken: true }
    }

    /// Checks whether a request would be admitted now, without taking a permit.
    pub fn check_admission(&self, request: &EntryRequest) -> Result<(), Refusal> {
        let refusal = self.inner.lock_state().refusal_reason(request);
        refusal.map_or(Ok(()), |refusal| Err(self.inner.count_refusal(refusal)))
    }

    /// The counters of the queue.
    pub fn stats(&self) -> &QueueStats {
        &self.inner.stats
    }

    /// The recorded inputs of the latest runs, the latest first.
    pub fn recent_runs(&self) -> Vec<Arc<RecordedRun>> {
        self.inner.recent.as_ref().map(RecentRuns::latest_first).unwrap_or_default()
    }

    /// The present policy.
    pub fn policy(&self) -> Policy {
        self.inner.lock_state().policy.clone()
    }

    /// Changes the policy from the next batch and the next request on. Admitted entries stay.
    pub fn set_policy(&self, policy: Policy) {
        self.inner.lock_state().policy = policy;
        // A delayed batch may be complete under the new policy.
        self.inner.work.notify_all();
    }

    /// The present number of entries and busy instances.
    pub fn depth(&self) -> QueueDepth {
        self.inner.lock_state().depth()
    }

    /// Refuses new entries; admitted ones are still served, then the threads end.
    pub fn close(&self) {
        self.inner.lock_state().closed = true;
        self.inner.work.notify_all();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
        for thread in self.threads.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
    }
}

impl QueueShared {
    fn lock_state(&self) -> MutexGuard<'_, QueueState> {
        // No code under this lock panics, and the counts would be correct if it did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(
        &self,
        request: &EntryRequest,
        refuse: impl Fn(&QueueState, &EntryRequest) -> Option<Refusal>,
    ) -> Result<(EntryKey, Option<OrderedReply>), Refusal> {
        let mut state = self.lock_state();
        if let Some(refusal) = refuse(&state, request) {
            drop(state);
            return Err(self.count_refusal(refusal));
        }
        let number = state.admit_entry(request);
        Ok(match &self.order {
            None => ((request.priority, number), None),
            Some(order) => ((Priority::default(), number), Some(order.register_reply(number))),
        })
    }

    fn count_refusal(&self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::DeadlineUnreachable { .. } => QueueStats::increment(&self.stats.refused_deadline),
            Refusal::Full { .. } | Refusal::FullOfBytes { .. } => QueueStats::increment(&self.stats.refused_full),
            Refusal::Closed => {}
        }
        refusal
    }

    fn enqueue_entry(&self, key: EntryKey, entry: Entry, admitted: Instant) {
        let mut state = self.lock_state();
        state.record_ready(entry.since.saturating_duration_since(admitted), entry.since);
        let in_place = entry.request.rows <= state.policy.run_in_place && state.waiting.is_empty();
        state.waiting.insert(key, entry);
        let free = state.free_slot().filter(|_| in_place);
        let formed = free.map(|index| state.take_batch(index));
        let wake = state.idle > 0;
        drop(state);
        let Some(FormResult { batch, late, expired }) = formed else {
            if wake {
                self.work.notify_one();
            }
            return;
        };
        self.fail_entries(late, expired);
        match batch {
            Ok(batch) => self.run_in_place(batch),
            // The batch is delayed; the instance thread waits for the end of the delay.
            Err(_) => self.work.notify_one(),
        }
    }

    /// Runs `batch` on the calling thread. If that takes far longer than expected, all later runs are on instance
    /// threads.
    fn run_in_place(&self, batch: Batch) {
        let began = Instant::now();
        self.run_batch(batch);
        if began.elapsed() > MAX_RUN_TIME_IN_PLACE {
            self.lock_state().policy.run_in_place = 0;
        }
    }

    /// Runs `batch` on its instance and returns the instance to its slot.
    pub(crate) fn run_batch(&self, mut batch: Batch) {
        self.stats.count_close_reason(batch.stop);
        let ran = batch.runner.run_entries(self, batch.entries, BatchMeta { formed: batch.formed, stop: batch.stop });
        let taken = ran.then(|| batch.formed.elapsed());
        let mut state = self.lock_state();
        let gone = state.finish_run(batch.index, batch.runner, batch.work, taken);
        // Entries that arrived while the calling thread ran the batch are left to an instance thread.
        let wake = state.policy.run_in_place > 0 && state.idle > 0 && !state.waiting.is_empty();
        let ends = state.closed;
        drop(state);
        drop(gone);
        if ends {
            self.work.notify_all();
        } else if wake {
            self.work.notify_one();
        }
    }

    /// Fails entries that must not run any more.
    fn fail_entries(&self, late: Vec<Entry>, expired: Vec<Entry>) {
        for entry in late {
            QueueStats::increment(&self.stats.late);
            entry.job.send_failure(Failure::Late);
        }
        for entry in expired {
            QueueStats::increment(&self.stats.expired);
            entry.job.send_failure(Failure::Expired);
        }
    }

    fn release_permit(&self, request: &EntryRequest) {
        let late = request.deadline.passed(Instant::now());
        QueueStats::increment(if late { &self.stats.late } else { &self.stats.withdrawn });
        let mut state = self.lock_state();
        state.backlog.remove_entry(request);
        let ends = state.closed && state.backlog.entries == 0;
        drop(state);
        if ends {
            self.work.notify_all();
        }
    }

    /// The caller of entry `key` has gone, or its deadline has passed.
    pub(crate) fn abandon_entry(&self, key: EntryKey, deadline: Deadline) {
        let mut state = self.lock_state();
        let entry = state.waiting.remove(&key);
        if let Some(entry) = &entry {
            state.backlog.remove_entry(&entry.request);
        } else {
            // Under the lock, so that this run is interrupted and not the next one.
            state.interrupt_if_abandoned(&key);
        }
        let ends = state.closed && state.backlog.entries == 0;
        drop(state);
        let late = deadline.passed(Instant::now());
        QueueStats::increment(if late { &self.stats.late } else { &self.stats.abandoned });
        if ends {
            self.work.notify_all();
        }
        // The entry may hold megabytes; it is dropped outside of the lock.
        drop(entry);
    }

    /// Waits until there is a batch and a free instance; none if the queue is closed and empty, or has too many
    /// threads.
    pub(crate) fn next_batch(&self) -> Option<Batch> {
        let mut state = self.lock_state();
        loop {
            if state.leave_if_spare() {
                return None;
            }
            let Some(index) = state.free_slot() else {
                // All instances run in place. The first to finish wakes this thread if an entry waits.
                state = self.wait_for_work(state, BatchClosedBy::Drained, Instant::now());
                continue;
            };
            let now = Instant::now();
            let FormResult { batch, late, expired } = state.take_batch(index);
            if !late.is_empty() || !expired.is_empty() {
                drop(state);
                self.fail_entries(late, expired);
                if let Ok(batch) = batch {
                    return Some(batch);
                }
                state = self.lock_state();
                continue;
            }
            match batch {
                Ok(batch) => return Some(batch),
                Err(_) if state.closed && state.backlog.entries == 0 => return None,
                Err(stop) => state = self.wait_for_work(state, stop, now),
            }
        }
    }

    fn wait_for_work<'a>(
        &'a self,
        mut state: MutexGuard<'a, QueueState>,
        stop: BatchClosedBy,
        now: Instant,
    ) -> MutexGuard<'a, QueueState> {
        state.idle += 1;
        let mut state = match stop {
            BatchClosedBy::Delayed(until) => {
                let wait = until.saturating_duration_since(now);
                self.work.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
            }
            _ => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.idle -= 1;
        state
    }
}

/// The right to one place in the queue, taken before the rows are ready. Dropping it frees the place.
#[derive(Debug)]
pub struct Permit {
    queue: Arc<QueueShared>,
    request: EntryRequest,
    key: EntryKey,
    turn: Option<OrderedReply>,
    since: Instant,
    taken: bool,
}

impl Permit {
    /// Exchanges the permit for a reply: the rows of `job` are ready. From here to the answer the queue updates its
    /// `trace`.
    pub fn submit<J: Job>(mut self, job: J, trace: Trace) -> Reply<J::Answer> {
        self.taken = false;
        let since = Instant::now();
        trace.enter_at(Stage::Queue, since);
        let turn = self.turn.take();
        let (job, reply) = job::typed_job(job, Arc::clone(&self.queue), self.key, self.request.deadline, turn);
        let entry = Entry { request: self.request, since, trace, job };
        self.queue.enqueue_entry(self.key, entry, self.since);
        reply
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.taken {
            self.queue.release_permit(&self.request);
        }
    }
}
