//! What a question costs: set aside before it is asked, settled however it ends.

use caudal_flow::{Aside, Call, StepError, Usage};

use super::Price;

/// What is set aside for a question. However its answer ends, also if nobody waits for it any more, what was spent is
/// settled: as the provider says; else, of what was sent, as much as it may have been.
pub(super) struct Spending {
    aside: Option<Aside>,
    price: Price,
    most: Usage,
    stage: Stage,
}

enum Stage {
    /// Nothing has been sent.
    Before,
    /// It was sent, and so many bytes of an answer have been read.
    Sent { bytes: u64 },
    /// The provider has said it: tokens read and written.
    Told(u64, u64),
}

impl Spending {
    /// The most that a question of so many tokens, read and written, may cost.
    pub(super) fn most((tokens_in, tokens_out): (u64, u64), price: Price) -> Usage {
        price.of(tokens_in, tokens_out)
    }

    /// Sets aside what a question of `most` tokens, read and written, may cost.
    pub(super) fn reserve(call: &Call, (tokens_in, tokens_out): (u64, u64), price: Price) -> Result<Self, StepError> {
        let most = Self::most((tokens_in, tokens_out), price);
        let aside = call.reserve(most).map_err(|error| {
            let parts =
                format!("{}: {tokens_in} tokens at most for the question, {tokens_out} for the answer", error.message);
            StepError { message: parts.into(), ..error }
        })?;
        Ok(Self { aside: Some(aside), price, most, stage: Stage::Before })
    }

    /// The question goes out.
    pub(super) fn begin(&mut self) {
        self.stage = Stage::Sent { bytes: 0 };
    }

    /// It was turned away, or never came there.
    pub(super) fn nothing(&mut self) {
        self.stage = Stage::Before;
    }

    /// So many bytes of an answer have come.
    pub(super) fn heard(&mut self, more: usize) {
        if let Stage::Sent { bytes } = &mut self.stage {
            *bytes += more as u64;
        }
    }

    /// The provider says what was spent.
    pub(super) fn told(&mut self, tokens_in: u64, tokens_out: u64) {
        self.stage = Stage::Told(tokens_in, tokens_out);
    }
}

impl Drop for Spending {
    fn drop(&mut self) {
        let Some(aside) = self.aside.take() else { return };
        match self.stage {
            Stage::Before => drop(aside),
            Stage::Sent { bytes } => {
                aside.settle(self.price.of(self.most.tokens_in, bytes.min(self.most.tokens_out)));
            }
            Stage::Told(tokens_in, tokens_out) => aside.settle(self.price.of(tokens_in, tokens_out)),
        }
    }
}
