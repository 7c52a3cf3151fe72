//! What happened in a run, step by step: the one truth from which results, summaries, live events and traces are read.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::{budget::Usage, error::StepError, value::Value};

/// Events that a slow watcher may be behind before it misses some.
const BEHIND: usize = 1024;

/// Where in the log a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place(u32);

impl Place {
    /// The run itself.
    pub const RUN: Self = Self(u32::MAX);

    /// The entry of that number.
    pub(crate) fn at(index: usize) -> Self {
        Self(index as u32)
    }

    /// As a number: the place in [`Log::entries`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an entry is called among those beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    /// A step or branch.
    Name(Arc<str>),
    /// A turn of a loop or an item of a map, from 0.
    Number(u32),
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has begun.
    Running,
    /// It has its output.
    Completed,
    /// It failed.
    Failed,
    /// It waits for somebody.
    Paused,
    /// It was broken off.
    Cancelled,
}

impl Status {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Paused => "paused",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A step that has begun.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it stands within.
    pub parent: Place,
    /// What it is called.
    pub label: Label,
    /// What sort of step it is.
    pub kind: &'static str,
    /// How far it is.
    pub status: Status,
    /// The number of the change by which it came so far.
    pub changed: u64,
    /// Whether its output was remembered: by a cache.
    pub cached: bool,
    /// Whether its output was read from the run's journal.
    pub recalled: bool,
    /// How often it was tried.
    pub attempts: u32,
    /// When it began, from the run's start.
    pub began: Duration,
    /// When it ended, from the run's start.
    pub ended: Duration,
    /// What it gave.
    pub output: Value,
    /// What it spent.
    pub usage: Usage,
    /// Why it failed.
    pub error: Option<Box<StepError>>,
}

/// A step that began or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepChange {
    /// Its number: higher than those of all changes before, also of those before the run was resumed.
    pub number: u64,
    /// Which step.
    pub place: Place,
    /// Whether it ended.
    pub ended: bool,
}

/// What has just happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// To which step.
    pub place: Place,
    /// What.
    pub what: What,
}

/// What can happen to a step.
#[derive(Debug, Clone)]
pub enum What {
    /// It began.
    Started,
    /// It failed and is tried again after a while.
    Retried {
        /// Why.
        error: StepError,
        /// After how long.
        wait: Duration,
    },
    /// It gave a part of its answer.
    Said(Arc<str>),
    /// Its cost was refused or is known.
    Budget(Usage),
    /// It ended: see its status.
    Ended,
}

#[derive(Debug, Default)]
struct Book {
    entries: Vec<Entry>,
    /// All changes, in order. Their numbers follow each other from `first` on.
    changes: Vec<StepChange>,
    first: u64,
    feedback: Vec<(Place, Arc<str>)>,
    asked: Vec<(Place, Value)>,
    /// Remembered steps within which somebody looked at what stands outside of them.
    open: Vec<Place>,
    spent: Usage,
}

/// What a step said.
pub(crate) struct Spoken {
    pub(crate) name: Arc<str>,
    /// What somebody was asked, if that is what the step does.
    pub(crate) asked: Option<Value>,
    pub(crate) output: Value,
}

impl Book {
    fn change(&mut self, place: Place, ended: bool) {
        let number = self.first + self.changes.len() as u64;
        self.changes.push(StepChange { number, place, ended });
        if let Some(entry) = self.entries.get_mut(place.index()) {
            entry.changed = number;
        }
    }

    /// Cancels what has not ended of the entries that `within` says.
    fn cancel(&mut self, now: Duration, mut within: impl FnMut(usize, &Entry) -> bool) {
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            if within(index, entry) && entry.status == Status::Running {
                (entry.status, entry.ended) = (Status::Cancelled, now);
                self.change(Place::at(index), true);
            }
        }
    }

    fn said(&self, place: Place, entry: &Entry) -> Option<Spoken> {
        let Label::Name(name) = &entry.label else { return None };
        let asked = self.asked.iter().rev().find(|(at, _)| *at == place).map(|(_, question)| question.clone());
        let said = Spoken { name: Arc::clone(name), asked, output: entry.output.clone() };
        (entry.status == Status::Completed).then_some(said)
    }
}

/// The log of a run.
#[derive(Debug)]
pub struct Log {
    start: Instant,
    book: Mutex<Book>,
    /// Whether anybody watches: nothing is told to nobody.
    watched: AtomicBool,
    events: Mutex<Option<broadcast::Sender<Event>>>,
}

impl Log {
    /// An empty log, with room for some `steps`.
    pub(crate) fn new(start: Instant, steps: usize) -> Self {
        // A run that is resumed begins a new log: nanoseconds pass quicker than steps.
        let first = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let book = Book { entries: Vec::with_capacity(steps), first, ..Book::default() };
        Self { start, book: Mutex::new(book), watched: AtomicBool::new(false), events: Mutex::default() }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A moment of the run, in microseconds since 1970.
    pub(crate) fn since_1970(&self, moment: Duration) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (now.as_micros() as i64) - self.now().saturating_sub(moment).as_micros() as i64
    }

    /// When the run began.
    pub fn start(&self) -> Instant {
        self.start
    }

    /// How long ago the run began.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// A step begins.
    pub(crate) fn begin(&self, parent: Place, label: Label, kind: &'static str, began: Duration) -> Place {
        let mut book = self.book();
        let place = Place(book.entries.len() as u32);
        book.entries.push(Entry {
            parent,
            label,
            kind,
            status: Status::Running,
            changed: 0,
            cached: false,
            recalled: false,
            attempts: 1,
            began,
            ended: began,
            output: Value::Null,
            usage: Usage::NONE,
            error: None,
        });
        book.change(place, false);
        drop(book);
        self.tell(place, || What::Started);
        place
    }

    /// Changes the entry at `place`.
    pub(crate) fn note(&self, place: Place, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.book().entries.get_mut(place.index()) {
            change(entry);
        }
    }

    /// A step ends.
    pub(crate) fn end(&self, place: Place, ended: Duration, status: Status, output: Value, error: Option<&StepError>) {
        let mut book = self.book();
        if let Some(entry) = book.entries.get_mut(place.index()) {
            (entry.status, entry.ended, entry.output) = (status, ended, output);
            entry.error = error.map(|error| Box::new(error.clone()));
            book.change(place, true);
        }
        drop(book);
        self.tell(place, || What::Ended);
    }

    /// What was begun within `place` and has not ended is cancelled.
    pub(crate) fn abandon(&self, place: Place) {
        let mut gone = vec![place];
        self.book().cancel(self.start.elapsed(), |index, entry| {
            let within = gone.contains(&entry.parent);
            if within {
                gone.push(Place::at(index));
            }
            within
        });
    }

    /// The paths of what failed the run: of failures that nothing around them survived.
    pub(crate) fn fatal(&self) -> Vec<String> {
        let book = self.book();
        let failed = |place: Place| book.entries.get(place.index()).map(|entry| entry.status == Status::Failed);
        let around = |place: Place| {
            std::iter::successors(Some(place), |place| book.entries.get(place.index()).map(|entry| entry.parent))
        };
        (0..book.entries.len())
            .map(Place::at)
            .filter(|place| around(*place).all(|place| failed(place).unwrap_or(true)))
            .map(|place| path(&book.entries, place))
            .collect()
    }

    /// What has not ended is cancelled: the run has come to its end.
    pub(crate) fn close(&self) {
        self.book().cancel(self.start.elapsed(), |_, _| true);
    }

    /// The changes after that of a number; all, where it is of a log before this one.
    pub fn changes_after(&self, number: u64) -> Vec<StepChange> {
        let book = self.book();
        let seen = number.checked_sub(book.first).map_or(0, |before| before.saturating_add(1));
        book.changes.get(usize::try_from(seen).unwrap_or(usize::MAX)..).unwrap_or_default().to_vec()
    }

    /// Something was spent.
    pub(crate) fn spend(&self, place: Place, usage: Usage) {
        let mut book = self.book();
        book.spent += usage;
        if let Some(entry) = book.entries.get_mut(place.index()) {
            entry.usage += usage;
        }
        drop(book);
        self.tell(place, || What::Budget(usage));
    }

    /// What the whole run has spent.
    pub fn spent(&self) -> Usage {
        self.book().spent
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.book().entries.len()
    }

    /// Whether no step has begun.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What stands in it now.
    pub fn entries(&self) -> Vec<Entry> {
        self.book().entries.clone()
    }

    /// One entry.
    pub fn entry(&self, place: Place) -> Option<Entry> {
        self.book().entries.get(place.index()).cloned()
    }

    /// The name of a place, unique within the run: the labels on the way to it.
    pub fn path(&self, place: Place) -> String {
        path(&self.book().entries, place)
    }

    /// The output of the last step `name` that ended and that a step within `from` can know of: one that stands beside
    /// it or beside what it stands within.
    pub(crate) fn output(&self, from: Place, name: &str) -> Option<Value> {
        self.look(from, |label| matches!(label, Label::Name(own) if **own == *name)).map(|(_, output)| output)
    }

    /// Names and outputs of all steps that a step at `from` can know of, the latest first.
    pub(crate) fn outputs(&self, from: Place) -> Vec<(Arc<str>, Value)> {
        let mut found: Vec<(Arc<str>, Value)> = Vec::new();
        self.look(from, |label| {
            if let Label::Name(name) = label {
                found.push((Arc::clone(name), Value::Null));
            }
            false
        });
        found.dedup_by(|a, b| a.0 == b.0);
        found.into_iter().filter_map(|(name, _)| self.output(from, &name).map(|output| (name, output))).collect()
    }

    fn look(&self, from: Place, mut wanted: impl FnMut(&Label) -> bool) -> Option<(Label, Value)> {
        let book = &mut *self.book();
        let around: Vec<Place> =
            std::iter::successors(Some(from), |place| book.entries.get(place.index()).map(|entry| entry.parent))
                .collect();
        let found =
            book.entries.iter().rev().find(|entry| {
                entry.status == Status::Completed && around.contains(&entry.parent) && wanted(&entry.label)
            });
        // What is not found is looked for everywhere.
        let within = found.and_then(|found| around.iter().position(|place| *place == found.parent));
        let left = &around[..within.unwrap_or(around.len())];
        let is_cache = |place: &&Place| book.entries.get(place.index()).is_some_and(|entry| entry.kind == "cache");
        book.open.extend(left.iter().filter(is_cache));
        found.map(|entry| (entry.label.clone(), entry.output.clone()))
    }

    /// Whether a remembered step depends on more than what it is remembered by.
    pub(crate) fn is_open(&self, cache: Place) -> bool {
        self.book().open.contains(&cache)
    }

    /// Somebody is asked `question` at `place`.
    pub(crate) fn ask(&self, place: Place, question: Value) {
        self.book().asked.push((place, question));
    }

    /// What was said within `place`: what ended well and has nothing within itself, branch by branch.
    pub(crate) fn spoken(&self, place: Place) -> Vec<Spoken> {
        let book = self.book();
        // What is within stands behind.
        let mut within: HashMap<Place, Vec<Place>> = HashMap::from([(place, Vec::new())]);
        for index in place.index().saturating_add(1).min(book.entries.len())..book.entries.len() {
            if let Some(beside) = within.get_mut(&book.entries[index].parent) {
                beside.push(Place::at(index));
                within.insert(Place::at(index), Vec::new());
            }
        }
        let (mut spoken, mut open) = (Vec::new(), vec![place]);
        while let Some(at) = open.pop() {
            let inner = within.remove(&at).unwrap_or_default();
            let entry = book.entries.get(at.index()).filter(|_| at != place && inner.is_empty());
            spoken.extend(entry.and_then(|entry| book.said(at, entry)));
            open.extend(inner.into_iter().rev());
        }
        spoken
    }

    pub(crate) fn feedback(&self, place: Place) -> Option<Arc<str>> {
        self.book().feedback.iter().rev().find(|(of, _)| *of == place).map(|(_, text)| Arc::clone(text))
    }

    pub(crate) fn set_feedback(&self, place: Place, text: Arc<str>) {
        let mut book = self.book();
        book.feedback.retain(|(of, _)| *of != place);
        book.feedback.push((place, text));
    }

    pub(crate) fn say(&self, place: Place, part: &str) {
        self.tell(place, || What::Said(part.into()));
    }

    pub(crate) fn tell(&self, place: Place, what: impl FnOnce() -> What) {
        if !self.watched.load(Relaxed) {
            return;
        }
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(events) = &*events {
            // Nobody may be left, and then nobody misses it.
            let _ = events.send(Event { place, what: what() });
        }
    }

    /// Watches the run: what stands in the log so far, and what happens from now on.
    pub fn watch(&self) -> (Vec<Entry>, broadcast::Receiver<Event>) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = events.get_or_insert_with(|| broadcast::channel(BEHIND).0).subscribe();
        self.watched.store(true, Relaxed);
        drop(events);
        (self.entries(), receiver)
    }
}

/// The labels on the way to `place`, with a slash between.
pub fn path(entries: &[Entry], place: Place) -> String {
    let mut way: Vec<&Label> = Vec::new();
    let mut place = place;
    while let Some(entry) = entries.get(place.index()) {
        way.push(&entry.label);
        place = entry.parent;
    }
    let mut path = String::new();
    for label in way.into_iter().rev() {
        if !path.is_empty() {
            path.push('/');
        }
        match label {
            // A slash in a name is none between names.
            Label::Name(name) if name.contains(['/', '~']) => {
                path.push_str(&name.replace('~', "~0").replace('/', "~1"));
            }
            Label::Name(name) => path.push_str(name),
            Label::Number(number) => {
                let _ = write!(path, "{number}");
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_come_once_and_in_order() {
        let log = Log::new(Instant::now(), 4);
        let begin = |parent, name: &str| log.begin(parent, Label::Name(name.into()), "step", Duration::ZERO);
        let a = begin(Place::RUN, "a");
        let b = begin(a, "b");
        log.end(b, Duration::ZERO, Status::Completed, Value::Null, None);
        let seen = log.changes_after(0);
        assert_eq!(
            seen.iter().map(|change| (change.place, change.ended)).collect::<Vec<_>>(),
            [(a, false), (b, false), (b, true)]
        );
        assert_eq!(log.changes_after(seen[1].number), seen[2..]);
        let c = begin(a, "c");
        log.close();
        let rest: Vec<_> =
            log.changes_after(seen[2].number).iter().map(|change| (change.place, change.ended)).collect();
        assert_eq!(rest, [(c, false), (a, true), (c, true)], "what is cancelled has ended");
        let last = log.changes_after(0)[5].number;
        assert_eq!((log.entries()[0].changed, log.changes_after(last)), (last - 1, Vec::new()));
        let later = Log::new(Instant::now(), 1);
        later.begin(Place::RUN, Label::Name("a".into()), "step", Duration::ZERO);
        assert_eq!(later.changes_after(last).len(), 1, "a log of the same run that is begun later");
    }
}
