//! Answers that are remembered: by what a step is, what it was given, and what it may look at.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use moka::{Expiry, future::Cache, policy::EvictionPolicy};

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

/// Where answers are remembered beyond this process.
pub trait Shelf: Send + Sync + 'static {
    /// The answer under `key`, if there is one that is not too old.
    fn get(&self, key: &Key) -> BoxFuture<'static, Option<Answered>>;

    /// Remembers an answer for `ttl`, or as long as there is room.
    fn put(&self, key: &Key, answer: Answered, ttl: Option<Duration>) -> BoxFuture<'static, ()>;
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
}

/// What is remembered in this process: the least recently used goes first. Behind it may be a shelf that others share.
#[derive(Clone)]
pub struct StepCache {
    kept: Cache<Key, Kept>,
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
        let weigh = |_: &Key, kept: &Kept| {
            let size = kept.answer.value.size()
                + kept.answer.changes.iter().map(|(_, value)| value.size() + 64).sum::<usize>();
            u32::try_from(size + 200).unwrap_or(u32::MAX)
        };
        let builder = Cache::builder()
            .max_capacity(bytes)
            .weigher(weigh)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(Ttl);
        let builder = match ttl {
            Some(ttl) => builder.time_to_live(ttl),
            None => builder,
        };
        Self { kept: builder.build(), shelf }
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
        let mut found = Found::Remembered;
        let look = async {
            if let Some(shelf) = &self.shelf
                && let Some(answer) = shelf.get(&key).await
            {
                return Ok(Kept { answer, ttl });
            }
            found = Found::Made;
            let answer = make.await?;
            if let Some(shelf) = &self.shelf {
                shelf.put(&key, answer.clone(), ttl).await;
            }
            Ok(Kept { answer, ttl })
        };
        let kept = self.kept.try_get_with(key, look).await?;
        Ok((kept.answer, found))
    }

    /// Answers and their bytes that are remembered in this process, about.
    pub fn size(&self) -> (u64, u64) {
        (self.kept.entry_count(), self.kept.weighted_size())
    }
}
