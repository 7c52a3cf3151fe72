//! Rows of different lengths in one run: shorter rows are padded to the longest.

use crate::BatchClosedBy;

/// Limits of a run with rows of different lengths, such as texts. Lengths are counted in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VariableLength {
    /// Maximum number of tokens per run, padding included.
    pub max_batch_tokens: usize,
    /// Fixed cost of a run in tokens: more padding than that costs more than a separate run.
    pub run_tokens: usize,
}

/// Rows that are padded to the longest of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowBlock {
    /// Number of rows.
    pub rows: usize,
    /// Length of a row.
    pub length: usize,
}

impl RowBlock {
    /// Its tokens, padding included.
    pub fn token_count(self) -> usize {
        self.rows.saturating_mul(self.length)
    }

    /// Both blocks padded to the longer one.
    #[must_use]
    pub fn joined_with(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, length: self.length.max(other.length) }
    }
}

impl VariableLength {
    /// The reason why `more` should not join `block`, if there is one.
    pub fn closed_by(&self, block: RowBlock, more: RowBlock) -> Option<BatchClosedBy> {
        let both = block.joined_with(more).token_count();
        let apart = block.token_count().saturating_add(more.token_count());
        match () {
            () if both > self.max_batch_tokens => Some(BatchClosedBy::NoRoom),
            () if both > apart.saturating_add(self.run_tokens) => Some(BatchClosedBy::Padding),
            () => None,
        }
    }
}
