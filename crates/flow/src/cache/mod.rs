//! Answers that are remembered: by what a step is, what it was given, and what it may look at.
//!
//! [`StepCache`] remembers them in this process. Behind it there may be a [`Shelf`], which lasts longer and which others
//! may share; [`SqliteShelf`] is one. What stands on a shelf is only a copy of what can be made again: a shelf that fails
//! is done without, and no run fails for it.

mod body;
mod sqlite;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use moka::{Expiry, future::Cache, policy::EvictionPolicy};

pub use self::sqlite::{Options as ShelfOptions, ShelfError, SqliteShelf};
use crate::{
    key::Key,
    value::{Map, Value},
};

/// An answer that is remembered.
#[derive(Debug, Clone)]
pub struct Answered {
    /// What the step gave.
    pub value: Value,
    /// What it changed in the context.
    pub changes: Map,
}

/// An answer that was found on a shelf.
#[derive(Debug, Clone)]
pub struct Shelved {
    /// The answer.
    pub answer: Answered,
    /// How long ago it was made.
    pub age: Duration,
    /// How long it still holds, by what was said when it was put there; for good, if nothing was.
    pub left: Option<Duration>,
}

/// Where answers are remembered beyond this process. What it gives back is what was put there, to the bit.
pub trait Shelf: Send + Sync + 'static {
    /// The answer under `key`, if there is one that still holds.
    fn get(&self, key: &Key) -> BoxFuture<'static, Option<Shelved>>;

    /// Remembers a plain answer for `ttl`, or as long as there is room. Nobody waits for it: what cannot be written soon is
    /// dropped.
    fn put(&self, key: &Key, answer: Answered, ttl: Option<Duration>);
}

#[derive(Debug, Clone)]
struct Kept {
    answer: Answered,
    ttl: Option<Duration>,
}

struct Ttl;

impl Expiry<Key, Kept> for Ttl {
    fn expire_after_create(&self, _: &Key, kept: &Kept, _: Instant) -> Option<Duration> {
        kept.ttl
    }

    /// What takes the place of an answer that no longer holds begins anew.
    fn expire_after_update(&self, _: &Key, kept: &Kept, _: Instant, _: Option<Duration>) -> Option<Duration> {
        kept.ttl
    }
}

/// What is remembered in this process: the least recently used goes first. Behind it may be a shelf that others share.
#[derive(Clone)]
pub struct StepCache {
    kept: Cache<Key, Kept>,
    ttl: Option<Duration>,
    shelf: Option<Arc<dyn Shelf>>,
}

/// How an answer was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It was remembered, or somebody else was at it already.
    Remembered,
    /// It was made.
    Made,
}

impl StepCache {
    /// Room for `bytes` of answers, each kept for at most `ttl`.
    pub fn new(bytes: u64, ttl: Option<Duration>, shelf: Option<Arc<dyn Shelf>>) -> Self {
        let weigh = |_: &Key, kept: &Kept| u32::try_from(kept.answer.size() + 200).unwrap_or(u32::MAX);
        let kept = Cache::builder()
            .max_capacity(bytes)
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(Ttl)
            .build();
        Self { kept, ttl, shelf }
    }

    /// What is remembered under `key` in this process.
    pub async fn peek(&self, key: &Key) -> Option<Answered> {
        self.kept.get(key).await.map(|kept| kept.answer)
    }

    /// The answer under `key`; made by `make` if there is none, by one of all who ask for it meanwhile. A failure is
    /// everybody's who waited, and not remembered.
    pub async fn get<E: Clone + Send + Sync + 'static>(
        &self,
        key: Key,
        ttl: Option<Duration>,
        make: impl Future<Output = Result<Answered, E>>,
    ) -> Result<(Answered, Found), Arc<E>> {
        let ttl = least(ttl, self.ttl);
        let mut found = Found::Remembered;
        let look = async {
            if let Some(kept) = self.on_shelf(&key, ttl).await {
                return Ok(kept);
            }
            found = Found::Made;
            let answer = self.shelve(&key, make.await?, ttl);
            Ok(Kept { answer, ttl })
        };
        let kept = self.kept.try_get_with(key, look).await?;
        Ok((kept.answer, found))
    }

    /// What stands on the shelf, for as long as it would hold had it been made here: its time began when it was made.
    async fn on_shelf(&self, key: &Key, ttl: Option<Duration>) -> Option<Kept> {
        let Shelved { answer, age, left } = self.shelf.as_ref()?.get(key).await?;
        let left = least(left, ttl.map(|ttl| ttl.saturating_sub(age)));
        (left != Some(Duration::ZERO)).then_some(Kept { answer, ttl: left })
    }

    /// Puts an answer on the shelf, if there is one. What is given on is then what will be found there: if a Rust value
    /// can be read back it is plain from the first time on, else it stays what it is and in this process alone. So what a
    /// step gives is never of one sort the first time and of another the second.
    fn shelve(&self, key: &Key, answer: Answered, ttl: Option<Duration>) -> Answered {
        let Some(shelf) = &self.shelf else { return answer };
        let Some(plain) = body::plain(&answer) else { return answer };
        shelf.put(key, plain.clone(), ttl);
        plain
    }

    /// Answers and their bytes that are remembered in this process, about.
    pub fn size(&self) -> (u64, u64) {
        (self.kept.entry_count(), self.kept.weighted_size())
    }
}

impl Answered {
    /// About how many bytes it holds.
    pub(crate) fn size(&self) -> usize {
        self.value.size() + self.changes.iter().map(|(_, value)| value.size() + 64).sum::<usize>()
    }
}

fn least(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}
