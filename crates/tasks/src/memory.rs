//! Memory that is set aside for one purpose, and how much of it is taken.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Permits are counted in blocks, because there are at most 2^32 of them.
const BLOCK: u64 = 1024;

/// A number of bytes that may be held at once, by all requests together.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    free: Arc<Semaphore>,
    blocks: u32,
}

/// Bytes taken out of a budget; dropping it gives them back.
#[derive(Debug)]
pub struct Held {
    _permit: OwnedSemaphorePermit,
}

/// More than the whole budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LargerThanBudget;

impl ByteBudget {
    /// A budget of `bytes`.
    pub fn new(bytes: u64) -> Self {
        let blocks = u32::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32);
        Self { free: Arc::new(Semaphore::new(blocks as usize)), blocks }
    }

    /// All its bytes.
    pub fn total(&self) -> u64 {
        u64::from(self.blocks) * BLOCK
    }

    /// Bytes that are taken now.
    pub fn taken(&self) -> u64 {
        (u64::from(self.blocks) - self.free.available_permits() as u64) * BLOCK
    }

    /// Takes `bytes`, waiting in line until they are free.
    pub async fn take(&self, bytes: u64) -> Result<Held, LargerThanBudget> {
        let blocks = self.blocks_of(bytes)?;
        let permit = Arc::clone(&self.free).acquire_many_owned(blocks).await;
        Ok(Held { _permit: permit.expect("the semaphore is never closed") })
    }

    /// Takes `bytes` if they are free; none if they are not.
    pub fn try_take(&self, bytes: u64) -> Result<Option<Held>, LargerThanBudget> {
        let blocks = self.blocks_of(bytes)?;
        Ok(Arc::clone(&self.free).try_acquire_many_owned(blocks).ok().map(|permit| Held { _permit: permit }))
    }

    fn blocks_of(&self, bytes: u64) -> Result<u32, LargerThanBudget> {
        u32::try_from(bytes.div_ceil(BLOCK)).ok().filter(|blocks| *blocks <= self.blocks).ok_or(LargerThanBudget)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_taken_is_missing_until_it_comes_back() {
        let budget = ByteBudget::new(10 * BLOCK);
        let held = budget.take(7 * BLOCK - 1).await.unwrap();
        assert_eq!(budget.taken(), 7 * BLOCK);
        assert!(budget.try_take(4 * BLOCK).unwrap().is_none());
        drop(held);
        assert!(budget.try_take(10 * BLOCK).unwrap().is_some());
        assert_eq!(budget.take(11 * BLOCK).await.unwrap_err(), LargerThanBudget);
    }
}
