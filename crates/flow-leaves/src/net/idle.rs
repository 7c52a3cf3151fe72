//! Connections that wait for the next question, for a short time.
//!
//! Who looks for one says which addresses may be asked now: a host's are looked up and looked at for each question, as if
//! there were none. One is found only where it leads to such an address, and was made for the same host, port and scheme.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::runtime::{Handle, Id};
use url::Url;

use super::wire::Wire;

/// How long one waits: less than the five seconds after which common servers hang up, so that it is seldom they who do.
const IDLE: Duration = Duration::from_secs(4);
/// How many wait for one address of a host.
const MOST_FOR_ONE: usize = 16;
/// How many wait in all.
const MOST: usize = 128;
/// How long one that is taken may need to tell that it is ready: it is at once, unless something of the last question is
/// left.
const READY_WITHIN: Duration = Duration::from_millis(20);

/// What a connection was made for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct To {
    secure: bool,
    host: Box<str>,
    address: SocketAddr,
    /// It is driven by the runtime that made it, and ends with that.
    runtime: Id,
}

impl To {
    pub(super) fn new(url: &Url, address: SocketAddr) -> Self {
        let host = url.host_str().unwrap_or_default().into();
        Self { secure: url.scheme() == "https", host, address, runtime: Handle::current().id() }
    }
}

struct Waiting {
    wire: Wire,
    since: Instant,
}

#[derive(Default)]
struct Shelf {
    waiting: HashMap<To, Vec<Waiting>>,
    /// Whether somebody sees to it that none waits too long.
    watched: bool,
}

/// The connections that wait. To clone it is to hold the same.
#[derive(Clone, Default)]
pub(super) struct Idle(Arc<Mutex<Shelf>>);

impl Idle {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that waits for a question to there, the last that came: of those that came before, some may see their end.
    pub(super) async fn take(&self, to: &To) -> Option<Wire> {
        loop {
            let mut wire = self.next(to)?;
            if wire.ready(READY_WITHIN).await {
                return Some(wire);
            }
        }
    }

    fn next(&self, to: &To) -> Option<Wire> {
        let mut shelf = self.shelf();
        let waiting = shelf.waiting.get_mut(to)?;
        let last = waiting.pop();
        if waiting.is_empty() {
            shelf.waiting.remove(to);
        }
        last.filter(|last| last.since.elapsed() < IDLE).map(|last| last.wire)
    }

    /// Has one wait that nothing more is to be read from. It is closed where too many do.
    pub(super) fn put(&self, to: To, wire: Wire) {
        let mut shelf = self.shelf();
        let all: usize = shelf.waiting.values().map(Vec::len).sum();
        let of_it = shelf.waiting.get(&to).map_or(0, Vec::len);
        if wire.is_closed() || of_it >= MOST_FOR_ONE || all >= MOST {
            return;
        }
        shelf.waiting.entry(to).or_default().push(Waiting { wire, since: Instant::now() });
        if !std::mem::replace(&mut shelf.watched, true) {
            let shelf = Arc::downgrade(&self.0);
            tokio::spawn(watch(shelf));
        }
    }
}

/// Closes those that have waited long enough, as long as any waits.
async fn watch(shelf: Weak<Mutex<Shelf>>) {
    let _watching = Watching(Weak::clone(&shelf));
    loop {
        tokio::time::sleep(IDLE / 4).await;
        let Some(shelf) = shelf.upgrade() else { return };
        let mut shelf = shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.waiting.retain(|_, waiting| {
            waiting.retain(|one| one.since.elapsed() < IDLE && !one.wire.is_closed());
            !waiting.is_empty()
        });
        if shelf.waiting.is_empty() {
            shelf.watched = false;
            return;
        }
    }
}

/// Whoever puts the next one there sees to it that it is watched, also where this one's runtime has ended.
struct Watching(Weak<Mutex<Shelf>>);

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(shelf) = self.0.upgrade() {
            shelf.lock().unwrap_or_else(PoisonError::into_inner).watched = false;
        }
    }
}
