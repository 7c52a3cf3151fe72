//! Text models: tokenization of texts, and pooling of a model's output to an embedding. Pure and synchronous.
//!
//! A [`Tokenizer`] converts a text to as many [`Tokens`] as the model takes. An [`EmbeddingHead`] pools the output for
//! each token into one vector, truncates and normalizes it.

mod pooling;
mod tokenizer;

pub use pooling::{EmbeddingHead, Pooling};
pub use tokenizer::{IncrementalEncoder, TextError, TokenCount, Tokenizer, TokenizerError, Tokens};
