//! What a queue knows, under its lock: who waits, what runs, and what may run next.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use caudal_engine::Interrupt;
use caudal_types::{Priority, Trace};

use crate::{
    Depth, Outlook, Policy, Refusal, Request, ServiceTimes, Stop, TimeoutAction, Waiting, form_batch, held::Held,
    instance::Runner, job::AnyJob, queue::Key,
};

pub(crate) struct State {
    pub(crate) policy: Policy,
    next: u64,
    pub(crate) held: Held,
    pub(crate) waiting: BTreeMap<Key, Entry>,
    /// The wide instance first, if there is one, then those that run side by side.
    slots: Vec<Slot>,
    wide: bool,
    /// Most runs at once.
    instances: usize,
    /// Threads that serve the queue.
    threads: usize,
    /// Those that have nothing to do.
    pub(crate) idle: usize,
    times: ServiceTimes,
    pub(crate) closed: bool,
}

/// The place of one instance.
struct Slot {
    /// In the hands of whoever runs it while `running` says what.
    runner: Option<Runner>,
    interrupt: Arc<dyn Interrupt>,
    running: Option<Running>,
}

/// What the queue remembers of a run in progress.
struct Running {
    keys: Vec<Key>,
    /// Entries somebody still waits for.
    wanted: usize,
    work: usize,
    since: Instant,
}

/// An entry whose rows are ready.
pub(crate) struct Entry {
    pub(crate) request: Request,
    pub(crate) since: Instant,
    pub(crate) trace: Trace,
    pub(crate) job: Box<dyn AnyJob>,
}

/// A batch in the hands of an instance.
pub(crate) struct Batch {
    pub(crate) runner: Runner,
    /// The instance's place.
    pub(crate) index: usize,
    pub(crate) entries: Vec<Entry>,
    pub(crate) work: usize,
    pub(crate) stop: Stop,
    pub(crate) formed: Instant,
}

/// A batch, or why there is none yet, and the entries that were found not to be worth running.
pub(crate) struct Formed {
    pub(crate) batch: Result<Batch, Stop>,
    pub(crate) late: Vec<Entry>,
    pub(crate) expired: Vec<Entry>,
}

impl State {
    pub(crate) fn new(side_by_side: Vec<Runner>, wide: Option<Runner>, policy: Policy) -> Self {
        Self {
            policy,
            next: 0,
            held: Held::default(),
            waiting: BTreeMap::new(),
            wide: wide.is_some(),
            instances: side_by_side.len(),
            slots: wide.into_iter().chain(side_by_side).map(Slot::new).collect(),
            threads: 0,
            idle: 0,
            times: ServiceTimes::new(Instant::now()),
            closed: false,
        }
    }

    pub(crate) fn depth(&self) -> Depth {
        Depth { entries: self.held.entries, busy_instances: self.runs(), instances: self.instances }
    }

    /// Counts `request` in; gives its number.
    pub(crate) fn admit(&mut self, request: &Request) -> u64 {
        self.held.add(request);
        self.next += 1;
        self.next
    }

    /// Instances there are to run side by side.
    pub(crate) fn side_by_side(&self) -> usize {
        self.slots.len() - usize::from(self.wide)
    }

    /// Lets `count` instances run side by side, `more` among them. Gives those that are gone and the numbers of the
    /// threads that are missing.
    pub(crate) fn resize(&mut self, count: usize, more: Vec<Runner>) -> (Vec<Runner>, Range<usize>) {
        self.slots.extend(more.into_iter().map(Slot::new));
        self.instances = count.min(self.side_by_side());
        let missing = self.threads..self.instances;
        self.threads = self.threads.max(self.instances);
        (self.let_go(), missing)
    }

    /// The instances beyond those that may run, as far as they are free.
    fn let_go(&mut self) -> Vec<Runner> {
        let mut gone = Vec::new();
        while self.side_by_side() > self.instances && self.slots.last().is_some_and(|last| last.running.is_none()) {
            gone.extend(self.slots.pop().and_then(|slot| slot.runner));
        }
        gone
    }

    /// Whether the thread that asks is one too many. It ends if so.
    pub(crate) fn spare_thread(&mut self) -> bool {
        let spare = self.threads > self.instances;
        self.threads -= usize::from(spare);
        spare
    }

    /// How many instances run.
    fn runs(&self) -> usize {
        self.slots.iter().filter(|slot| slot.running.is_some()).count()
    }

    fn is_wide(&self, index: usize) -> bool {
        self.wide && index == 0
    }

    /// An instance that may run now: the wide one, if there is one, for an entry that is alone.
    pub(crate) fn free(&self) -> Option<usize> {
        let first = usize::from(self.wide);
        match self.runs() {
            0 if self.held.entries == 1 => Some(0),
            runs if runs < self.instances => {
                (first..first + self.instances).find(|index| self.slots[*index].running.is_none())
            }
            _ => None,
        }
    }

    /// Forms a batch for instance `index`, which is free, and puts it there.
    pub(crate) fn form(&mut self, index: usize) -> Formed {
        let now = Instant::now();
        let run = if self.is_wide(index) { Duration::ZERO } else { self.times.expected_run(now) };
        let policy = &self.policy;
        let entries = || self.waiting.iter();
        let stepped_back = |(_, entry): &(&Key, &Entry)| {
            let patience = policy.patience(entry.request.priority);
            let waited = patience.timeout.is_some_and(|timeout| entry.since + timeout <= now);
            waited && patience.then == TimeoutAction::Delay
        };
        let in_order = entries().filter(|entry| !stepped_back(entry)).chain(entries().filter(stepped_back));
        let waiting = in_order.map(|(key, entry)| (*key, entry.as_waiting(policy)));
        let formed = form_batch(waiting, policy, now, run);
        let mut take = |keys: &[Key]| keys.iter().filter_map(|key| self.take(key)).collect();
        let (late, expired) = (take(&formed.late), take(&formed.expired));
        if formed.take.is_empty() {
            return Formed { batch: Err(formed.stop), late, expired };
        }
        let entries: Vec<Entry> = take(&formed.take);
        let work = entries.iter().map(|entry| entry.request.work()).sum();
        let slot = &mut self.slots[index];
        let Some(runner) = slot.runner.take() else {
            unreachable!("an instance that runs nothing is in its place");
        };
        let wanted = formed.take.len();
        slot.running = Some(Running { keys: formed.take, wanted, work, since: now });
        let batch = Batch { runner, index, entries, work, stop: formed.stop, formed: now };
        Formed { batch: Ok(batch), late, expired }
    }

    /// Instance `index` is free again after a run of so much `work` that took `taken`. Gives the instances that are gone.
    pub(crate) fn finished(
        &mut self,
        index: usize,
        runner: Runner,
        work: usize,
        taken: Option<Duration>,
    ) -> Vec<Runner> {
        let slot = &mut self.slots[index];
        slot.interrupt.reset();
        (slot.runner, slot.running) = (Some(runner), None);
        // What a run takes that has the machine to itself says nothing of the others.
        if let Some(taken) = taken.filter(|_| !self.is_wide(index)) {
            self.times.record_run(work, taken, Instant::now());
        }
        self.let_go()
    }

    /// The caller of entry `key`, which runs, has left. What nobody waits for any more is stopped.
    pub(crate) fn unwanted(&mut self, key: &Key) {
        let running = |slot: &&mut Slot| slot.running.as_ref().is_some_and(|run| run.keys.contains(key));
        let Some(slot) = self.slots.iter_mut().find(running) else { return };
        if let Some(run) = &mut slot.running {
            run.wanted -= 1;
            if run.wanted == 0 {
                slot.interrupt.stop();
            }
        }
    }

    /// An entry's rows were ready `taken` after its admission.
    pub(crate) fn record_ready(&mut self, taken: Duration, now: Instant) {
        self.times.record_ready(taken, now);
    }

    fn take(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.waiting.remove(key)?;
        self.held.remove(&entry.request);
        Some(entry)
    }

    /// Why `request` cannot be admitted, if so.
    pub(crate) fn refuse(&self, request: &Request) -> Option<Refusal> {
        let policy = &self.policy;
        let now = Instant::now();
        let outlook = self.outlook(request.priority, now);
        let retry_after = || self.times.wait(&outlook).unwrap_or(Duration::from_secs(1));
        if self.closed {
            return Some(Refusal::Closed);
        }
        if self.held.entries >= policy.max_queue_size {
            return Some(Refusal::Full { limit: policy.max_queue_size, retry_after: retry_after() });
        }
        if let Some(limit) = policy.patience(request.priority).max_queue_size
            && self.held.of(request.priority) >= limit
        {
            return Some(Refusal::Full { limit, retry_after: retry_after() });
        }
        // An entry larger than the limit is let in when nothing else waits: it could never come in otherwise.
        if self.held.entries > 0 && self.held.bytes + request.bytes > policy.max_queue_bytes {
            return Some(Refusal::FullOfBytes { limit: policy.max_queue_bytes, retry_after: retry_after() });
        }
        let deadline = request.deadline.moment()?;
        let predicted = self.times.answer(&outlook, now)?;
        let left = deadline.saturating_duration_since(now);
        (predicted > left).then(|| Refusal::DeadlineUnreachable { predicted, retry_after: predicted - left })
    }

    fn outlook(&self, priority: Priority, now: Instant) -> Outlook {
        let runs = || self.slots.iter().filter_map(|slot| slot.running.as_ref());
        Outlook {
            work_ahead: self.held.work_before(priority),
            work_running: runs().map(|run| run.work).sum(),
            running_for: runs().map(|run| now.saturating_duration_since(run.since)).sum(),
            instances: self.instances,
            idle: self.runs() < self.instances,
        }
    }
}

impl Slot {
    fn new(runner: Runner) -> Self {
        Self { interrupt: runner.interrupt(), runner: Some(runner), running: None }
    }
}

impl Entry {
    fn as_waiting(&self, policy: &Policy) -> Waiting<'_> {
        let patience = policy.patience(self.request.priority);
        let rejected = patience.timeout.filter(|_| patience.then == TimeoutAction::Reject);
        Waiting {
            rows: self.request.rows,
            shapes: self.job.shapes(),
            deadline: self.request.deadline,
            since: self.since,
            expires: rejected.map(|timeout| self.since + timeout),
            ragged: self.request.tokens > 0,
        }
    }
}
