//! Text for models, pure and synchronous: what lies between a text and a model's input, and between a model's output
//! and the vector that stands for that text.
//!
//! On the way in a [`Tokenizer`] turns a text into [`Tokens`], as many as the model takes. On the way out a
//! [`Head`] pools what the model gives for each token into one vector, cuts it and brings it to length 1.

mod head;
mod tokenizer;

pub use head::{Head, Pooling};
pub use tokenizer::{Encode, TextError, Tokenizer, TokenizerError, Tokens, TooLong};
