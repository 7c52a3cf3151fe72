//! Rows of different lengths in one run: the shorter ones are padded to the longest.

use crate::Stop;

/// How much a model whose rows differ in length, texts say, may be given at once. A length is counted in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ragged {
    /// Most tokens in one run, padding included.
    pub max_batch_tokens: usize,
    /// What a run costs beside its tokens, counted in tokens: more padding than that is dearer than a run of its own.
    pub run_tokens: usize,
}

/// Rows side by side, all as long as the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Block {
    /// How many.
    pub rows: usize,
    /// How long.
    pub length: usize,
}

impl Block {
    /// Its tokens, padding included.
    pub fn tokens(self) -> usize {
        self.rows.saturating_mul(self.length)
    }

    /// Both side by side.
    #[must_use]
    pub fn beside(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, length: self.length.max(other.length) }
    }
}

impl Ragged {
    /// Why `more` should not share a run with `block`, if so.
    pub fn stop(&self, block: Block, more: Block) -> Option<Stop> {
        let both = block.beside(more).tokens();
        let apart = block.tokens().saturating_add(more.tokens());
        match () {
            () if both > self.max_batch_tokens => Some(Stop::NoRoom),
            () if both > apart.saturating_add(self.run_tokens) => Some(Stop::Padding),
            () => None,
        }
    }
}
