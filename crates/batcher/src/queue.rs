//! The queue of one model: who is admitted, who waits, who runs.

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use caudal_engine::{Instance, LoadError, ModelSpec};
use caudal_types::{Deadline, Priority, Stage, Trace};

use crate::{
    Depth, Failure, Job, Policy, Refusal, Stats, Stop, Ticket,
    instance::{self, Cut, Runner},
    job,
    order::{Order, Turn},
    recent::{KeptRun, Recent},
    state::{Batch, Entry, Formed, State},
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

/// A run that takes longer than this does not belong on a thread that brings requests. What may run there takes less than
/// a hundredth of it; between them lie the pauses of a busy machine.
const LONG_IN_PLACE: Duration = Duration::from_millis(50);

/// The place of an entry: high priority first, then by age of admission.
pub(crate) type Key = (Priority, u64);

/// What runs the batches of a queue.
pub struct Instances {
    /// These run at the same time.
    pub side_by_side: Vec<Box<dyn Instance>>,
    /// This one has the machine to itself, if there is such a one: it runs what comes while nothing else is there.
    pub wide: Option<Box<dyn Instance>>,
}

/// What a queue keeps to for as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Habits {
    /// Whether rows of several entries may share a run; the first dimension of each input and output counts them.
    pub joined: bool,
    /// Whether answers leave in the order of admission. Priorities have no say then.
    pub ordered: bool,
    /// Inputs of how many of the latest runs are kept.
    pub keep_runs: usize,
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
    pub(crate) joined: bool,
    pub(crate) stats: Stats,
    state: Mutex<State>,
    work: Condvar,
    order: Option<Arc<Order>>,
    pub(crate) recent: Option<Recent>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Queue({})", self.name)
    }
}

impl Queue {
    /// Starts a thread for each of the instances side by side, all of one model that `spec` describes.
    pub fn start(
        name: &str,
        spec: &ModelSpec,
        habits: Habits,
        instances: Instances,
        policy: Policy,
    ) -> Result<Self, LoadError> {
        let runner = |instance| Runner::new(instance, spec);
        let side_by_side: Vec<Runner> = instances.side_by_side.into_iter().map(runner).collect();
        let at_once = side_by_side.len();
        let inner = Arc::new(Inner {
            name: name.to_owned(),
            spec: spec.clone(),
            joined: habits.joined,
            stats: Stats::default(),
            state: Mutex::new(State::new(side_by_side, instances.wide.map(runner), policy)),
            work: Condvar::new(),
            order: habits.ordered.then(Arc::default),
            recent: (habits.keep_runs > 0).then(|| Recent::new(habits.keep_runs)),
        });
        let queue = Self { inner, threads: Mutex::default() };
        queue.resize(at_once, Vec::new())?;
        Ok(queue)
    }

    /// How many instances are missing for `count` to run side by side.
    pub fn missing(&self, count: usize) -> usize {
        count.saturating_sub(self.inner.lock().side_by_side())
    }

    /// Lets `count` instances run side by side from the next batch on, those in `more` among them. What runs is not
    /// disturbed.
    pub fn resize(&self, count: usize, more: Vec<Box<dyn Instance>>) -> Result<(), LoadError> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        let runners = more.into_iter().map(|instance| Runner::new(instance, &self.inner.spec)).collect();
        let (gone, missing) = self.inner.lock().resize(count, runners);
        self.inner.work.notify_all();
        drop(gone);
        threads.retain(|thread| !thread.is_finished());
        for index in missing {
            let inner = Arc::clone(&self.inner);
            let thread = std::thread::Builder::new()
                .name(format!("infer-{index}-{}", self.inner.name))
                .spawn(move || instance::serve(&inner))
                .map_err(|error| LoadError::Backend(format!("a thread could not be started: {error}")))?;
            threads.push(thread);
        }
        Ok(())
    }

    /// Takes a seat, before any work is done for the request.
    pub fn admit(&self, request: Request) -> Result<Seat, Refusal> {
        let (key, turn) = self.inner.admit(&request, State::refuse)?;
        Ok(self.seat(request, key, turn))
    }

    /// Takes a seat for a further part of a request: what was let in is not turned away half way because the queue is
    /// full. Whoever has many parts keeps few of them here at a time, so that others come between them.
    pub fn admit_part(&self, request: Request) -> Result<Seat, Refusal> {
        let (key, turn) = self.inner.admit(&request, |state, _| state.closed.then_some(Refusal::Closed))?;
        Ok(self.seat(request, key, turn))
    }

    fn seat(&self, request: Request, key: Key, turn: Option<Turn>) -> Seat {
        Seat { queue: Arc::clone(&self.inner), request, key, turn, since: Instant::now(), taken: true }
    }

    /// Whether a request could be admitted now: the answer a seat would get, without taking one.
    pub fn check(&self, request: &Request) -> Result<(), Refusal> {
        let refusal = self.inner.lock().refuse(request);
        refusal.map_or(Ok(()), |refusal| Err(self.inner.refused(refusal)))
    }

    /// What the queue has done so far.
    pub fn stats(&self) -> &Stats {
        &self.inner.stats
    }

    /// The inputs of the latest runs, the latest first, as far as they are kept.
    pub fn recent(&self) -> Vec<Arc<KeptRun>> {
        self.inner.recent.as_ref().map(Recent::all).unwrap_or_default()
    }

    /// The limits it keeps now.
    pub fn policy(&self) -> Policy {
        self.inner.lock().policy.clone()
    }

    /// Keeps other limits from the next batch and the next request on. Who was admitted stays.
    pub fn set_policy(&self, policy: Policy) {
        self.inner.lock().policy = policy;
        // Who waited for more rows may have enough now.
        self.inner.work.notify_all();
    }

    /// What it holds now.
    pub fn depth(&self) -> Depth {
        self.inner.lock().depth()
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
        refuse: impl Fn(&State, &Request) -> Option<Refusal>,
    ) -> Result<(Key, Option<Turn>), Refusal> {
        let mut state = self.lock();
        if let Some(refusal) = refuse(&state, request) {
            drop(state);
            return Err(self.refused(refusal));
        }
        let number = state.admit(request);
        Ok(match &self.order {
            None => ((request.priority, number), None),
            Some(order) => ((Priority::default(), number), Some(order.turn(number))),
        })
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
        state.record_ready(entry.since.saturating_duration_since(admitted), entry.since);
        let in_place = entry.request.rows <= state.policy.run_in_place && state.waiting.is_empty();
        state.waiting.insert(key, entry);
        let free = state.free().filter(|_| in_place);
        let formed = free.map(|index| state.form(index));
        let wake = state.idle > 0;
        drop(state);
        let Some(Formed { batch, late, expired }) = formed else {
            if wake {
                self.work.notify_one();
            }
            return;
        };
        self.fail(late, expired);
        match batch {
            Ok(batch) => self.run_in_place(batch),
            // It waits for more rows; the instance's own thread keeps watch over it.
            Err(_) => self.work.notify_one(),
        }
    }

    /// Runs `batch` on the thread that brought it. If that takes far longer than what may run there, it was the last one:
    /// from then on the instances' own threads run them all.
    fn run_in_place(&self, batch: Batch) {
        let began = Instant::now();
        self.run(batch);
        if began.elapsed() > LONG_IN_PLACE {
            self.lock().policy.run_in_place = 0;
        }
    }

    /// Runs `batch` on the instance that comes with it and is free again afterwards.
    pub(crate) fn run(&self, mut batch: Batch) {
        self.stats.count_stop(batch.stop);
        let ran = batch.runner.run(self, batch.entries, Cut { formed: batch.formed, stop: batch.stop });
        let taken = ran.then(|| batch.formed.elapsed());
        let mut state = self.lock();
        let gone = state.finished(batch.index, batch.runner, batch.work, taken);
        // Who came while the caller itself ran the batch is for an instance's own thread.
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

    /// Fails entries that are not to run any more.
    fn fail(&self, late: Vec<Entry>, expired: Vec<Entry>) {
        for entry in late {
            Stats::count(&self.stats.late);
            entry.job.fail(Failure::Late);
        }
        for entry in expired {
            Stats::count(&self.stats.expired);
            entry.job.fail(Failure::Expired);
        }
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
        } else {
            // Under the lock, so that it is this run that stops and not the next.
            state.unwanted(&key);
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

    /// Waits until there is a batch and an instance free to run it; none when the queue is closed and empty, or has
    /// a thread too many.
    pub(crate) fn next_batch(&self) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if state.spare_thread() {
                return None;
            }
            let Some(index) = state.free() else {
                // All run in place. Whoever is done first wakes this thread if something waits.
                state = self.pause(state, Stop::Drained, Instant::now());
                continue;
            };
            let now = Instant::now();
            let Formed { batch, late, expired } = state.form(index);
            if !late.is_empty() || !expired.is_empty() {
                drop(state);
                self.fail(late, expired);
                if let Ok(batch) = batch {
                    return Some(batch);
                }
                state = self.lock();
                continue;
            }
            match batch {
                Ok(batch) => return Some(batch),
                Err(_) if state.closed && state.held.entries == 0 => return None,
                Err(stop) => state = self.pause(state, stop, now),
            }
        }
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
}

/// A place in the queue, taken before the rows are ready. Dropping it gives the place back.
#[derive(Debug)]
pub struct Seat {
    queue: Arc<Inner>,
    request: Request,
    key: Key,
    turn: Option<Turn>,
    since: Instant,
    taken: bool,
}

impl Seat {
    /// Trades the seat for a ticket: `job`'s rows are ready. From here to the answer the queue keeps its `trace`.
    pub fn submit<J: Job>(mut self, job: J, trace: Trace) -> Ticket<J::Answer> {
        self.taken = false;
        let since = Instant::now();
        trace.enter_at(Stage::Queue, since);
        let turn = self.turn.take();
        let (job, ticket) = job::ticket(job, Arc::clone(&self.queue), self.key, self.request.deadline, turn);
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
