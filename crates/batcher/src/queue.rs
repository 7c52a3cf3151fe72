//! The queue of one model: who is admitted, who waits, who runs.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use caudal_engine::{Instance, Interrupt, LoadError, ModelSpec};
use caudal_types::{Deadline, Priority, Stage, Trace};

use crate::{
    Depth, Failure, Job, Outlook, Policy, Refusal, ServiceTimes, Stats, Stop, Ticket, Waiting, form_batch,
    held::Held,
    instance::{self, Runner},
    job::{self, AnyJob},
};

/// What a caller says when it asks for a seat.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Rows it will bring.
    pub rows: usize,
    /// Tokens in them, where they may be padded to the length of others; 0 where they run as they are.
    pub tokens: usize,
    /// Bytes these will hold while they wait.
    pub bytes: usize,
    /// Who goes first.
    pub priority: Priority,
    /// When its answer stops being worth anything.
    pub deadline: Deadline,
}

impl Request {
    /// What its run is measured by: tokens, or else rows.
    pub(crate) fn work(&self) -> usize {
        self.tokens.max(self.rows)
    }
}

/// The place of an entry: high priority first, then by age of admission.
pub(crate) type Key = (Priority, u64);

/// What runs the batches of a queue.
pub struct Instances {
    /// These run at the same time.
    pub side_by_side: Vec<Box<dyn Instance>>,
    /// This one has the machine to itself, if there is such a one: it runs what comes while nothing else is there.
    pub wide: Option<Box<dyn Instance>>,
}

/// The queue of one model with the instances that empty it.
pub struct Queue {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("name", &self.inner.name).field("depth", &self.depth()).finish()
    }
}

pub(crate) struct Inner {
    pub(crate) name: String,
    pub(crate) spec: ModelSpec,
    pub(crate) policy: Policy,
    pub(crate) stats: Stats,
    state: Mutex<State>,
    work: Condvar,
    /// Each in the hands of whoever has put a batch into its place in [`State::running`].
    runners: Vec<Mutex<Runner>>,
    interrupts: Vec<Arc<dyn Interrupt>>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({})", self.name)
    }
}

struct State {
    next: u64,
    held: Held,
    waiting: BTreeMap<Key, Entry>,
    /// Most runs at once.
    instances: usize,
    /// What each instance runs; the wide one stands behind those side by side.
    running: Vec<Option<Running>>,
    idle: usize,
    times: ServiceTimes,
    closed: bool,
}

/// An entry whose rows are ready.
pub(crate) struct Entry {
    pub(crate) request: Request,
    since: Instant,
    pub(crate) trace: Trace,
    pub(crate) job: Box<dyn AnyJob>,
}

/// A batch in the hands of an instance.
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry>,
    pub(crate) work: usize,
    pub(crate) stop: Stop,
    pub(crate) formed: Instant,
}

/// What the queue remembers of a run in progress.
struct Running {
    keys: Vec<Key>,
    /// Entries somebody still waits for.
    wanted: usize,
    work: usize,
    since: Instant,
    interrupt: Arc<dyn Interrupt>,
}

impl Queue {
    /// Starts a thread for each of the instances side by side, all of one model that `spec` describes.
    pub fn start(name: &str, spec: &ModelSpec, instances: Instances, policy: Policy) -> Result<Self, LoadError> {
        let at_once = instances.side_by_side.len();
        let all = instances.side_by_side.into_iter().chain(instances.wide);
        let runners: Vec<Runner> = all.map(|instance| Runner::new(instance, spec)).collect();
        let state = State {
            next: 0,
            held: Held::default(),
            waiting: BTreeMap::new(),
            instances: at_once,
            running: runners.iter().map(|_| None).collect(),
            idle: 0,
            times: ServiceTimes::new(Instant::now()),
            closed: false,
        };
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            spec: spec.clone(),
            policy,
            stats: Stats::default(),
            state: Mutex::new(state),
            work: Condvar::new(),
            interrupts: runners.iter().map(Runner::interrupt).collect(),
            runners: runners.into_iter().map(Mutex::new).collect(),
        });
        let queue = Self { inner, threads: Mutex::default() };
        for index in 0..at_once {
            let inner = Arc::clone(&queue.inner);
            let thread = std::thread::Builder::new()
                .name(format!("infer-{index}-{name}"))
                .spawn(move || instance::serve(&inner))
                .map_err(|error| LoadError::Backend(format!("a thread could not be started: {error}")))?;
            queue.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(queue)
    }

    /// Takes a seat, before any work is done for the request.
    pub fn admit(&self, request: Request) -> Result<Seat, Refusal> {
        let key = self.inner.admit(&request, State::refuse)?;
        Ok(self.seat(request, key))
    }

    /// Takes a seat for a further part of a request: what was let in is not turned away half way because the queue is
    /// full. Whoever has many parts keeps few of them here at a time, so that others come between them.
    pub fn admit_part(&self, request: Request) -> Result<Seat, Refusal> {
        let key = self.inner.admit(&request, |state, _, _| state.closed.then_some(Refusal::Closed))?;
        Ok(self.seat(request, key))
    }

    fn seat(&self, request: Request, key: Key) -> Seat {
        Seat { queue: Arc::clone(&self.inner), request, key, since: Instant::now(), taken: true }
    }

    /// Whether a request could be admitted now: the answer a seat would get, without taking one.
    pub fn check(&self, request: &Request) -> Result<(), Refusal> {
        let refusal = self.inner.lock().refuse(&self.inner, request);
        refusal.map_or(Ok(()), |refusal| Err(self.inner.refused(refusal)))
    }

    /// What the queue has done so far.
    pub fn stats(&self) -> &Stats {
        &self.inner.stats
    }

    /// The limits it keeps.
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    /// What it holds now.
    pub fn depth(&self) -> Depth {
        let state = self.inner.lock();
        Depth { entries: state.held.entries, busy_instances: state.runs(), instances: state.instances }
    }

    /// Admits nobody any more; who was admitted is still served, then the threads end.
    pub fn close(&self) {
        self.inner.lock().closed = true;
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

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under this lock, and counts stay right if it did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(
        &self,
        request: &Request,
        refuse: impl Fn(&State, &Self, &Request) -> Option<Refusal>,
    ) -> Result<Key, Refusal> {
        let mut state = self.lock();
        if let Some(refusal) = refuse(&state, self, request) {
            drop(state);
            return Err(self.refused(refusal));
        }
        state.held.add(request);
        state.next += 1;
        Ok((request.priority, state.next))
    }

    fn refused(&self, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::DeadlineUnreachable { .. } => Stats::count(&self.stats.refused_deadline),
            Refusal::Full { .. } | Refusal::FullOfBytes { .. } => Stats::count(&self.stats.refused_full),
            Refusal::Closed => {}
        }
        refusal
    }

    fn enqueue(&self, key: Key, entry: Entry, admitted: Instant) {
        let mut state = self.lock();
        state.times.record_ready(entry.since.saturating_duration_since(admitted), entry.since);
        let in_place = entry.request.rows <= self.policy.run_in_place && state.waiting.is_empty();
        state.waiting.insert(key, entry);
        let free = state.free().filter(|_| in_place);
        let formed = free.map(|index| (index, self.form(&mut state, index)));
        let wake = state.idle > 0;
        drop(state);
        let Some((index, (batch, late))) = formed else {
            if wake {
                self.work.notify_one();
            }
            return;
        };
        late.into_iter().for_each(|entry| self.fail_late(entry));
        match batch {
            Ok(batch) => self.run(index, batch),
            // It waits for more rows; the instance's own thread keeps watch over it.
            Err(_) => self.work.notify_one(),
        }
    }

    /// Runs `batch` on instance `index`, which is free again afterwards.
    pub(crate) fn run(&self, index: usize, batch: Batch) {
        let (work, formed) = (batch.work, batch.formed);
        self.stats.count_stop(batch.stop);
        let mut runner = self.runners[index].lock().unwrap_or_else(PoisonError::into_inner);
        let ran = runner.run(self, batch.entries, formed);
        drop(runner);
        self.finished(index, work, ran.then(|| formed.elapsed()));
    }

    fn fail_late(&self, entry: Entry) {
        Stats::count(&self.stats.late);
        entry.job.fail(Failure::Late);
    }

    fn release(&self, request: &Request) {
        let late = request.deadline.passed(Instant::now());
        Stats::count(if late { &self.stats.late } else { &self.stats.withdrawn });
        let mut state = self.lock();
        state.held.remove(request);
        let ends = state.closed && state.held.entries == 0;
        drop(state);
        if ends {
            self.work.notify_all();
        }
    }

    /// The caller of entry `key` has left, or its time is over.
    pub(crate) fn abandon(&self, key: Key, deadline: Deadline) {
        let mut state = self.lock();
        let entry = state.waiting.remove(&key);
        if let Some(entry) = &entry {
            state.held.remove(&entry.request);
        } else if let Some(run) = state.running.iter_mut().flatten().find(|run| run.keys.contains(&key)) {
            run.wanted -= 1;
            if run.wanted == 0 {
                // Under the lock, so that it is this run that stops and not the next.
                run.interrupt.stop();
            }
        }
        let ends = state.closed && state.held.entries == 0;
        drop(state);
        let late = deadline.passed(Instant::now());
        Stats::count(if late { &self.stats.late } else { &self.stats.abandoned });
        if ends {
            self.work.notify_all();
        }
        // The entry may hold megabytes; it is dropped here, outside of the lock.
        drop(entry);
    }

    /// Waits until there is a batch and an instance free to run it, and gives both; none when the queue is closed
    /// and empty.
    pub(crate) fn next_batch(&self) -> Option<(usize, Batch)> {
        let mut state = self.lock();
        loop {
            let Some(index) = state.free() else {
                // All run in place. Whoever is done first wakes this thread if something waits.
                state = self.pause(state, Stop::Drained, Instant::now());
                continue;
            };
            let now = Instant::now();
            let (batch, late) = self.form(&mut state, index);
            if !late.is_empty() {
                drop(state);
                late.into_iter().for_each(|entry| self.fail_late(entry));
                if let Ok(batch) = batch {
                    return Some((index, batch));
                }
                state = self.lock();
                continue;
            }
            match batch {
                Ok(batch) => return Some((index, batch)),
                Err(_) if state.closed && state.held.entries == 0 => return None,
                Err(stop) => state = self.pause(state, stop, now),
            }
        }
    }

    /// Forms a batch for instance `index`, which is free, and puts it there; without one says why. Also gives the
    /// entries that are too late.
    fn form(&self, state: &mut State, index: usize) -> (Result<Batch, Stop>, Vec<Entry>) {
        let now = Instant::now();
        let waiting = state.waiting.iter().map(|(key, entry)| (*key, entry.as_waiting()));
        let run = if state.is_wide(index) { Duration::ZERO } else { state.times.expected_run(now) };
        let formed = form_batch(waiting, &self.policy, now, run);
        let late = formed.late.iter().filter_map(|key| state.take(key)).collect();
        if formed.take.is_empty() {
            return (Err(formed.stop), late);
        }
        let entries: Vec<_> = formed.take.iter().filter_map(|key| state.take(key)).collect();
        let work = entries.iter().map(|entry| entry.request.work()).sum();
        state.running[index] = Some(Running {
            wanted: formed.take.len(),
            keys: formed.take,
            work,
            since: now,
            interrupt: Arc::clone(&self.interrupts[index]),
        });
        (Ok(Batch { entries, work, stop: formed.stop, formed: now }), late)
    }

    fn pause<'a>(&'a self, mut state: MutexGuard<'a, State>, stop: Stop, now: Instant) -> MutexGuard<'a, State> {
        state.idle += 1;
        let mut state = match stop {
            Stop::Delayed(until) => {
                let wait = until.saturating_duration_since(now);
                self.work.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0
            }
            _ => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
        };
        state.idle -= 1;
        state
    }

    /// Instance `index` is free again after a run of so much `work` that took `taken`.
    fn finished(&self, index: usize, work: usize, taken: Option<Duration>) {
        let mut state = self.lock();
        if let Some(run) = state.running[index].take() {
            run.interrupt.reset();
        }
        // What a run takes that has the machine to itself says nothing of the others.
        if let Some(taken) = taken.filter(|_| !state.is_wide(index)) {
            state.times.record_run(work, taken, Instant::now());
        }
        // Who came while the caller itself ran the batch is for an instance's own thread.
        let wake = self.policy.run_in_place > 0 && state.idle > 0 && !state.waiting.is_empty();
        let ends = state.closed;
        drop(state);
        if ends {
            self.work.notify_all();
        } else if wake {
            self.work.notify_one();
        }
    }
}

impl State {
    /// How many instances run.
    fn runs(&self) -> usize {
        self.running.iter().flatten().count()
    }

    fn is_wide(&self, index: usize) -> bool {
        index >= self.instances
    }

    /// An instance that may run now: the wide one, if there is one, for an entry that is alone.
    fn free(&self) -> Option<usize> {
        match self.runs() {
            0 if self.held.entries == 1 => Some(self.running.len() - 1),
            runs if runs < self.instances => self.running.iter().position(Option::is_none),
            _ => None,
        }
    }

    fn take(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.waiting.remove(key)?;
        self.held.remove(&entry.request);
        Some(entry)
    }

    /// Why `request` cannot be admitted, if so.
    fn refuse(&self, queue: &Inner, request: &Request) -> Option<Refusal> {
        let policy = &queue.policy;
        let now = Instant::now();
        let outlook = self.outlook(request.priority, now);
        let retry_after = || self.times.wait(&outlook).unwrap_or(Duration::from_secs(1));
        if self.closed {
            return Some(Refusal::Closed);
        }
        if self.held.entries >= policy.max_queue_size {
            return Some(Refusal::Full { limit: policy.max_queue_size, retry_after: retry_after() });
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
        let runs = || self.running.iter().flatten();
        Outlook {
            work_ahead: self.held.work_before(priority),
            work_running: runs().map(|run| run.work).sum(),
            running_for: runs().map(|run| now.saturating_duration_since(run.since)).sum(),
            instances: self.instances,
            idle: self.runs() < self.instances,
        }
    }
}

impl Entry {
    fn as_waiting(&self) -> Waiting<'_> {
        Waiting {
            rows: self.request.rows,
            shapes: self.job.shapes(),
            deadline: self.request.deadline,
            since: self.since,
            ragged: self.request.tokens > 0,
        }
    }
}

/// A place in the queue, taken before the rows are ready. Dropping it gives the place back.
#[derive(Debug)]
pub struct Seat {
    queue: Arc<Inner>,
    request: Request,
    key: Key,
    since: Instant,
    taken: bool,
}

impl Seat {
    /// Trades the seat for a ticket: `job`'s rows are ready. From here to the answer the queue keeps its `trace`.
    pub fn submit<J: Job>(mut self, job: J, trace: Trace) -> Ticket<J::Answer> {
        self.taken = false;
        let since = Instant::now();
        trace.enter_at(Stage::Queue, since);
        let (job, ticket) = job::ticket(job, Arc::clone(&self.queue), self.key, self.request.deadline);
        let entry = Entry { request: self.request, since, trace, job };
        self.queue.enqueue(self.key, entry, self.since);
        ticket
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.taken {
            self.queue.release(&self.request);
        }
    }
}
