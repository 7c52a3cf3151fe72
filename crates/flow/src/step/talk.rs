//! What is said in a loop, kept as a conversation: who says what, and how much of it is kept.

use std::sync::Arc;

/// A loop's conversation. It stands in the context as `conversation_history`, a list of `{role, content}`, to which each
/// turn adds what was asked and answered in it; who is asked within the loop is told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Talk {
    /// Which outputs the assistant says.
    pub assistant: Voice,
    /// Whether answers of people are what the user says.
    pub people: bool,
    /// Steps whose outputs the user says, too.
    pub user: Vec<Arc<str>>,
    /// How much is kept.
    pub keep: Keep,
}

/// Which outputs the assistant says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Voice {
    /// The last words of each turn.
    Last,
    /// All words.
    All,
    /// What these steps give.
    Named(Vec<Arc<str>>),
}

/// How much of a conversation is kept: what was said first, and the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// So many turns.
    Turns(usize),
    /// As many turns as have so many tokens, five letters counted as two tokens.
    Tokens(usize),
}
