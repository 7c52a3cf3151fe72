//! Any JSON whose texts may hold expressions and blocks.

use std::sync::Arc;

use super::{
    DEPTH, Expression, Undefined, WordsError,
    blocks::{self, Piece},
    fill::{self, Budget},
};
use crate::{
    error::StepError,
    step::Formula,
    value::{Map, Value},
    view::View,
};

/// A template: JSON in which texts may hold expressions in `{{ }}`.
pub struct Shape {
    form: Form,
    source: Value,
    undefined: Undefined,
}

enum Form {
    /// What holds no expression.
    Plain(Value),
    /// A text that is one expression: its value.
    One(Box<Expression>),
    /// A text with expressions and blocks in it.
    Text(Vec<Piece>),
    List(Vec<Form>),
    Map(Vec<(Arc<str>, Form)>),
}

impl Shape {
    /// Reads a template. What is not there is a failure, unless it says what to take instead.
    pub fn parse(value: &Value) -> Result<Self, WordsError> {
        Self::parse_as(value, Undefined::Strict)
    }

    /// Reads a template.
    pub fn parse_as(value: &Value, undefined: Undefined) -> Result<Self, WordsError> {
        Ok(Self { form: form(value, undefined, DEPTH)?, source: value.clone(), undefined })
    }

    /// Whether it holds no expression: it always gives the same.
    pub fn is_plain(&self) -> bool {
        matches!(self.form, Form::Plain(_))
    }

    /// What it was read from.
    pub fn source(&self) -> &Value {
        &self.source
    }
}

impl Formula for Shape {
    fn value(&self, view: &View<'_>) -> Result<Value, StepError> {
        filled(&self.form, view, &mut Budget::new())
    }

    fn identity(&self) -> Value {
        self.undefined.identity("template", self.source.clone())
    }
}

fn form(value: &Value, undefined: Undefined, depth: usize) -> Result<Form, WordsError> {
    let deeper = || {
        let message = format!("the template is more than {DEPTH} deep");
        depth.checked_sub(1).ok_or_else(|| WordsError::new("", 0, message, "make it flatter"))
    };
    Ok(match value {
        Value::Text(text) => of_text(text, undefined)?,
        Value::List(values) => {
            let depth = deeper()?;
            let forms: Vec<Form> =
                values.iter().map(|value| form(value, undefined, depth)).collect::<Result<_, _>>()?;
            if forms.iter().all(plain) { Form::Plain(value.clone()) } else { Form::List(forms) }
        }
        Value::Map(map) => {
            let depth = deeper()?;
            let entry = |(name, value): &(Arc<str>, Value)| Ok((Arc::clone(name), form(value, undefined, depth)?));
            let forms: Vec<(Arc<str>, Form)> = map.iter().map(entry).collect::<Result<_, _>>()?;
            if forms.iter().all(|(_, form)| plain(form)) { Form::Plain(value.clone()) } else { Form::Map(forms) }
        }
        other => Form::Plain(other.clone()),
    })
}

fn plain(form: &Form) -> bool {
    matches!(form, Form::Plain(_))
}

fn of_text(text: &Arc<str>, undefined: Undefined) -> Result<Form, WordsError> {
    // What holds no sign of an expression is a text of any length.
    if !text.contains("{{") && !text.contains("{%") {
        return Ok(Form::Plain(Value::Text(Arc::clone(text))));
    }
    let mut pieces = blocks::pieces(text, undefined)?;
    let blank = |piece: &Piece| matches!(piece, Piece::Said(said) if said.trim().is_empty());
    // What is one expression and nothing else is its value.
    match pieces.iter().filter(|piece| !blank(piece)).collect::<Vec<_>>()[..] {
        [Piece::Worked(_)] => pieces.retain(|piece| !blank(piece)),
        _ => return Ok(Form::Text(pieces)),
    }
    Ok(match pieces.pop() {
        Some(Piece::Worked(expression)) => Form::One(Box::new(expression)),
        _ => Form::Text(pieces),
    })
}

fn filled(form: &Form, view: &View<'_>, budget: &mut Budget) -> Result<Value, StepError> {
    match form {
        Form::Plain(value) => Ok(value.clone()),
        Form::One(expression) => {
            budget.go_on()?;
            expression.value(view)
        }
        Form::Text(pieces) => fill::text(pieces, view, budget).map(Value::from),
        Form::List(forms) => {
            Ok(Value::List(forms.iter().map(|form| filled(form, view, budget)).collect::<Result<_, _>>()?))
        }
        Form::Map(forms) => {
            let entry = |(name, form): &(Arc<str>, Form)| Ok((Arc::clone(name), filled(form, view, budget)?));
            Ok(Value::Map(forms.iter().map(entry).collect::<Result<Map, StepError>>()?))
        }
    }
}
