//! Pieces of a text, worked out. Blocks make much of little, so what they may take has limits: so many pieces, so many
//! bytes, so much time.

use std::{sync::Arc, time::Instant};

use minijinja::value::Value as Word;

use super::{
    DEPTH, Expression, NAMED_BYTES, OUTPUT_BYTES, PIECES, TEMPLATE_TIME,
    blocks::{Piece, Round},
    environment, hand,
};
use crate::{
    error::StepError,
    value::{Map, Value},
    view::View,
};

/// What all texts of a template may take together.
pub(super) struct Budget {
    pieces: usize,
    bytes: usize,
    since: Instant,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { pieces: PIECES, bytes: OUTPUT_BYTES, since: Instant::now() }
    }

    /// Refuses to go on without end.
    pub(super) fn go_on(&mut self) -> Result<(), StepError> {
        if self.since.elapsed() > TEMPLATE_TIME {
            return Err(too_much(format!("the template takes longer than {TEMPLATE_TIME:?}")));
        }
        let left = self.pieces.checked_sub(1);
        self.pieces = left.ok_or_else(|| too_much(format!("the template works out more than {PIECES} pieces")))?;
        Ok(())
    }
}

/// The text that pieces make.
pub(super) fn text(pieces: &[Piece], view: &View<'_>, budget: &mut Budget) -> Result<String, StepError> {
    let mut filling = Filling { view, text: String::new(), names: Map::default(), budget };
    filling.all(pieces)?;
    Ok(filling.text)
}

struct Filling<'a> {
    view: &'a View<'a>,
    text: String,
    /// What blocks have given names.
    names: Map,
    budget: &'a mut Budget,
}

fn too_much(message: String) -> StepError {
    StepError::failed(message).hint("let it make less, or part it into steps").for_good()
}

impl Filling<'_> {
    fn all(&mut self, pieces: &[Piece]) -> Result<(), StepError> {
        pieces.iter().try_for_each(|piece| self.one(piece))
    }

    fn one(&mut self, piece: &Piece) -> Result<(), StepError> {
        self.budget.go_on()?;
        match piece {
            Piece::Said(said) => self.say(said),
            Piece::Worked(expression) => match expression.word(self.view, &self.names)? {
                Some(word) => self.show(expression, &word),
                None => Ok(()),
            },
            Piece::If(arms, otherwise) => {
                for (question, body) in arms {
                    self.budget.go_on()?;
                    if question.word(self.view, &self.names)?.is_some_and(|word| word.is_true()) {
                        return self.all(body);
                    }
                }
                self.all(otherwise)
            }
            Piece::For(round) => self.each(round),
            Piece::Set(name, expression) => {
                let value = self.value(expression)?;
                let mut room = NAMED_BYTES;
                if !fits(&value, &mut room, DEPTH) {
                    let most = format!("more than {NAMED_BYTES} bytes, or is more than {DEPTH} deep");
                    return Err(too_much(format!("what is set to {name} has {most}")));
                }
                self.names = self.names.with(name, value);
                Ok(())
            }
        }
    }

    fn say(&mut self, words: &str) -> Result<(), StepError> {
        let left = self.budget.bytes.checked_sub(words.len());
        let too_long = || too_much(format!("the template makes texts of more than {OUTPUT_BYTES} bytes"));
        self.budget.bytes = left.ok_or_else(too_long)?;
        self.text.push_str(words);
        Ok(())
    }

    fn show(&mut self, expression: &Expression, word: &Word) -> Result<(), StepError> {
        match word.as_str() {
            Some(words) => self.say(words),
            None => {
                let words = environment::text(word).map_err(|error| expression.wrong(&error))?;
                self.say(&words)
            }
        }
    }

    fn value(&self, expression: &Expression) -> Result<Value, StepError> {
        let word = expression.word(self.view, &self.names)?;
        word.map_or(Ok(Value::Null), |word| hand::take(&word).map_err(|error| expression.wrong(&error)))
    }

    fn each(&mut self, round: &Round) -> Result<(), StepError> {
        let items: Arc<[Value]> = match self.value(&round.items)? {
            Value::List(items) => items,
            Value::Map(map) => map.iter().map(|(name, _)| Value::Text(Arc::clone(name))).collect(),
            Value::Null => Arc::default(),
            other => {
                let message = format!("`{}` is {}, and for goes through a list", round.items.short(), other.sort());
                return Err(StepError::input(message).hint("name a list, or an object for its names").for_good());
            }
        };
        if items.is_empty() {
            return self.all(&round.otherwise);
        }
        let before = self.names.clone();
        for (number, item) in items.iter().enumerate() {
            self.budget.go_on()?;
            self.names = named(&before, round, item)?.with("loop", turn(number, items.len()));
            self.all(&round.body)?;
        }
        self.names = before;
        Ok(())
    }
}

/// The names that there are with those of an item.
fn named(before: &Map, round: &Round, item: &Value) -> Result<Map, StepError> {
    if let [name] = &round.names[..] {
        return Ok(before.with(name, item.clone()));
    }
    let parts = item.as_list().filter(|parts| parts.len() == round.names.len()).ok_or_else(|| {
        let message = format!("an item of `{}` is no list of {}", round.items.short(), round.names.len());
        StepError::input(message).hint("give the items one name; of an object, go through `x|items`").for_good()
    })?;
    Ok(round.names.iter().zip(parts).fold(before.clone(), |names, (name, part)| names.with(name, part.clone())))
}

/// What is known of a turn.
fn turn(number: usize, all: usize) -> Value {
    let known = [("index", number + 1), ("index0", number), ("length", all)].map(|(name, n)| (name, Value::from(n)));
    let sides = [("first", (number == 0).into()), ("last", (number + 1 == all).into())];
    Value::Map(known.into_iter().chain(sides).collect())
}

/// Whether a value has no more than so many bytes, however often it holds the same, and is no deeper.
fn fits(value: &Value, left: &mut usize, depth: usize) -> bool {
    let own = match value {
        Value::Text(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        _ => 0,
    };
    let Some(less) = left.checked_sub(own + 1) else { return false };
    *left = less;
    match value {
        Value::List(values) => depth > 0 && values.iter().all(|value| fits(value, left, depth - 1)),
        Value::Map(map) => depth > 0 && map.iter().all(|(_, value)| fits(value, left, depth - 1)),
        _ => true,
    }
}
