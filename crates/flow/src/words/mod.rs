//! Expressions and templates: what a file may work out of a run.
//!
//! An [`Expression`] is a question such as `context.score > 0.5 and 'x' in steps.first.output`. A [`Shape`] is any JSON
//! whose texts may hold expressions in `{{ }}`, and blocks in `{% %}`; a text that is one expression and nothing else is
//! its value. The language is Jinja's for expressions, by `minijinja`. There are no files and no environment: what an
//! expression sees is the run, and its work is bounded: by its length, and by what it works through (`meter`). Blocks are our own, and count what
//! they work out.

mod blocks;
mod compare;
mod environment;
mod expression;
mod fill;
mod hand;
mod meter;
mod miss;
mod shape;
mod source;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::value::Value;

pub use expression::Expression;
pub use shape::Shape;

/// The longest expression or template, in bytes.
pub(crate) const SOURCE_BYTES: usize = 64 << 10;
/// The most text that a template or an expression makes, in bytes.
pub(crate) const OUTPUT_BYTES: usize = 16 << 20;
/// The most values that an expression makes.
pub(crate) const OUTPUT_VALUES: usize = 1 << 20;
/// Words and signs that one expression may have: what stands within what is looked through by recursion.
pub(crate) const WORDS: usize = 2_000;
/// Instructions that one expression may take.
pub(crate) const FUEL: u64 = 50_000;
/// How deep lists and objects of a template, or of what an expression makes, may lie within each other.
pub(crate) const DEPTH: usize = 64;
/// How many times one expression may join texts or lists (`~`, `+`): each makes a copy.
pub(crate) const JOINS: usize = 64;
/// How many parts of texts or lists one expression may take (`[1:2]`): each makes a copy.
pub(crate) const PARTS: usize = 16;

/// How many pieces of its texts a template may work out.
pub(crate) const PIECES: usize = 100_000;
/// How long a template may take to be worked out: what large values need, no count tells.
pub(crate) const TEMPLATE_TIME: Duration = Duration::from_secs(1);
/// The largest value that a template may give a name, in bytes. It may be used again and again.
pub(crate) const NAMED_BYTES: usize = 1 << 20;

/// What becomes of names that are not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Undefined {
    /// A failure that names what is missing.
    #[default]
    Strict,
    /// Nothing, and a line in the log.
    Warn,
    /// Nothing.
    Ignore,
}

impl Undefined {
    /// All, by their names in a file.
    pub const NAMES: [(&'static str, Self); 3] =
        [("strict", Self::Strict), ("warn", Self::Warn), ("ignore", Self::Ignore)];

    /// What makes a formula of that sort and source the same as another.
    fn identity(self, sort: &str, source: Value) -> Value {
        let name = Self::NAMES.iter().find(|(_, undefined)| *undefined == self).map_or("", |(name, _)| name);
        Value::list([source, sort.into(), name.into()])
    }
}

/// Why an expression or template cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WordsError {
    /// Where in its source, in bytes from 0.
    pub offset: usize,
    /// In which line of its source, from 1.
    pub line: usize,
    /// In which column of that line, in letters from 1.
    pub column: usize,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub hint: &'static str,
}

impl WordsError {
    fn new(source: &str, offset: usize, message: impl Into<String>, hint: &'static str) -> Self {
        let before = source.get(..offset).unwrap_or(source);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
        Self { offset, line, column, message: message.into(), hint }
    }
}
