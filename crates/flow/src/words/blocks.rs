//! Blocks of templates: parts of a text that are there only if something is so, or again for each of several.
//!
//! `{% if %}`, `{% for %}` and `{% set %}` are Jinja's, `{{#if}}` and `{{#each}}` Flujo's. They are read here and not
//! by the language of expressions, which cannot tell how much its loops will make: see `fill`.

use std::{sync::Arc, vec};

use super::{
    DEPTH, Expression, Undefined, WordsError,
    expression::NAMES,
    source::{self, Block, Part},
};

/// A piece of a text.
pub(super) enum Piece {
    Said(Box<str>),
    Worked(Expression),
    /// The first of these whose question is answered by yes, or the last.
    If(Vec<(Expression, Vec<Piece>)>, Vec<Piece>),
    For(Box<Round>),
    Set(Arc<str>, Expression),
}

/// The same for each.
pub(super) struct Round {
    /// What each is called; of two names, each is a list of two.
    pub(super) names: Vec<Arc<str>>,
    pub(super) items: Expression,
    pub(super) body: Vec<Piece>,
    /// If there is none.
    pub(super) otherwise: Vec<Piece>,
}

/// Names that blocks may give to something else: a map has them, too.
const LENT: [&str; 2] = ["this", "item"];
const KNOWN: &str = "known are if, elif, else, endif, for, endfor and set: for all else take a step";

/// Reads the pieces of a text.
pub(super) fn pieces(source: &str, undefined: Undefined) -> Result<Vec<Piece>, WordsError> {
    let parts = source::parts(source)?.into_iter();
    let mut reading = Reading { source, undefined, parts, names: Vec::new(), depth: 0 };
    match reading.until_block()? {
        (pieces, None) => Ok(pieces),
        (_, Some(stray)) => Err(reading.wrong(&stray, format!("{} closes nothing", stray.shown()), KNOWN)),
    }
}

struct Reading<'a> {
    source: &'a str,
    undefined: Undefined,
    parts: vec::IntoIter<Part<'a>>,
    /// What has been given a name so far.
    names: Vec<Arc<str>>,
    depth: usize,
}

impl<'a> Reading<'a> {
    fn wrong(&self, block: &Block<'_>, message: impl Into<String>, hint: &'static str) -> WordsError {
        WordsError::new(self.source, block.at, message, hint)
    }

    /// Pieces up to the end, or to a block that closes or parts one.
    fn until_block(&mut self) -> Result<(Vec<Piece>, Option<Block<'a>>), WordsError> {
        let mut pieces = Vec::new();
        while let Some(part) = self.parts.next() {
            pieces.push(match part {
                Part::Text(text) => Piece::Said(text.into()),
                Part::Expression(inner, at) => Piece::Worked(self.expression(inner, at, self.undefined)?),
                Part::Block(block) => match block.word {
                    "if" | "#if" => self.choice(block)?,
                    "for" | "#each" => self.round(block)?,
                    "set" => self.set(&block)?,
                    "elif" | "else" | "endif" | "/if" | "endfor" | "/each" => return Ok((pieces, Some(block))),
                    _ => return Err(self.wrong(&block, format!("{} is not known", block.shown()), KNOWN)),
                },
            });
        }
        Ok((pieces, None))
    }

    /// What stands within `open`, and what closes or parts it.
    fn within(&mut self, open: &Block<'_>) -> Result<(Vec<Piece>, Block<'a>), WordsError> {
        if self.depth >= DEPTH {
            return Err(self.wrong(open, format!("more than {DEPTH} blocks lie within each other"), "make it flatter"));
        }
        self.depth += 1;
        let read = self.until_block();
        self.depth -= 1;
        match read? {
            (pieces, Some(end)) => Ok((pieces, end)),
            (_, None) => Err(self.wrong(open, format!("{} is never closed", open.shown()), "close it")),
        }
    }

    /// What stands behind `{% else %}`, if `end` is that; and in any case `open` must be closed.
    fn otherwise(&mut self, open: &Block<'_>, end: Block<'a>) -> Result<Vec<Piece>, WordsError> {
        let (pieces, end) = if end.word == "else" { self.within(open)? } else { (Vec::new(), end) };
        let closing = match open.word {
            "if" => "endif",
            "#if" => "/if",
            "for" => "endfor",
            _ => "/each",
        };
        if end.word == closing {
            return Ok(pieces);
        }
        Err(self.wrong(&end, format!("{} does not close {}", end.shown(), open.shown()), "close what was opened last"))
    }

    fn choice(&mut self, open: Block<'a>) -> Result<Piece, WordsError> {
        let mut arms = vec![(self.question(&open)?, Vec::new())];
        loop {
            let (pieces, end) = self.within(&open)?;
            if let Some((_, body)) = arms.last_mut() {
                *body = pieces;
            }
            if end.word != "elif" || open.word != "if" {
                return Ok(Piece::If(arms, self.otherwise(&open, end)?));
            }
            arms.push((self.question(&end)?, Vec::new()));
        }
    }

    fn round(&mut self, open: Block<'a>) -> Result<Piece, WordsError> {
        let (names, inner) = match (open.word, open.rest.split_once(" in ")) {
            ("#each", _) => (vec![Arc::from("this")], open.rest),
            (_, Some((names, inner))) => (self.given(&open, names)?, inner),
            _ => {
                return Err(self.wrong(
                    &open,
                    "it says not what for goes through",
                    "write {% for x in context.list %}",
                ));
            }
        };
        let items = self.expression(inner, open.after(inner), self.undefined)?;
        // What is named within ends with it.
        let before = self.names.len();
        self.names.extend(names.iter().cloned().chain([Arc::from("loop")]));
        let (body, end) = self.within(&open)?;
        self.names.truncate(before);
        Ok(Piece::For(Box::new(Round { names, items, body, otherwise: self.otherwise(&open, end)? })))
    }

    fn set(&mut self, block: &Block<'_>) -> Result<Piece, WordsError> {
        let Some((name, inner)) = block.rest.split_once('=').filter(|(_, inner)| !inner.starts_with('=')) else {
            return Err(self.wrong(block, "set has no value", "write {% set x = context.name %}"));
        };
        let name = match &self.given(block, name)?[..] {
            [name] => Arc::clone(name),
            _ => return Err(self.wrong(block, "set names one thing", "write a {% set %} for each")),
        };
        let value = self.expression(inner, block.after(inner), self.undefined)?;
        self.names.push(Arc::clone(&name));
        Ok(Piece::Set(name, value))
    }

    /// The names that a block gives.
    fn given(&self, block: &Block<'_>, names: &str) -> Result<Vec<Arc<str>>, WordsError> {
        let names: Vec<&str> = names.split(',').map(str::trim).collect();
        let letters = |name: &str| name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
        let good = |name: &str| letters(name) && name.chars().next().is_some_and(|first| !first.is_numeric());
        for name in &names {
            if !good(name) || names.len() > 2 {
                return Err(self.wrong(block, "a name is letters, and one or two are given", "write {% for x in … %}"));
            }
            if NAMES.contains(name) && !LENT.contains(name) {
                return Err(self.wrong(block, format!("{name} is something else already"), "take another name"));
            }
        }
        Ok(names.into_iter().map(Arc::from).collect())
    }

    /// Whether: what is not there is no.
    fn question(&self, block: &Block<'_>) -> Result<Expression, WordsError> {
        self.expression(block.rest, block.after(block.rest), Undefined::Ignore)
    }

    fn expression(&self, inner: &str, at: usize, undefined: Undefined) -> Result<Expression, WordsError> {
        Expression::parse_within(inner, undefined, &self.names)
            .map_err(|error| WordsError::new(self.source, at + error.offset, error.message, error.hint))
    }
}
