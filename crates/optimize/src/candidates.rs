//! What may be quicker than the model as it is.

use std::collections::HashMap;

use caudal_graph::{GraphError, Model, Range, Recipe, Scope, halve, observed, quantize};

use crate::calibrate::{Rule, Seen};

/// One way to write the model's graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is.
    AsItIs,
    /// As the backend sees it after what helps on every machine.
    Simplified,
    /// In floats of 16 bits.
    Half,
    /// In 8 bits.
    Int8(Scope, Rule, usize),
}

/// Layers spared at most: beyond that little is left in 8 bits where it matters.
const MOST_SPARED: usize = 3;

impl Form {
    /// Its name.
    pub(crate) fn name(self) -> String {
        match self {
            Self::AsItIs => "serving".to_owned(),
            Self::Simplified => "simplified".to_owned(),
            Self::Half => "fp16".to_owned(),
            Self::Int8(scope, rule, spared) => {
                let scope = if scope == Scope::Chains { "-chains" } else { "" };
                let rule = if rule == Rule::LeastSquares { "-squares" } else { "" };
                let spared = if spared > 0 { format!("-spare{spared}") } else { String::new() };
                format!("int8{scope}{rule}{spared}")
            }
        }
    }

    /// All forms. Of those in one row the next is tried only where the one before loses too much: it loses less, and is
    /// slower.
    pub(crate) fn rows() -> Vec<Vec<Self>> {
        let single = [Self::Simplified, Self::Half].map(|form| vec![form]);
        let scopes = [Scope::Convolutions, Scope::Chains];
        let each = scopes.into_iter().flat_map(|scope| [Rule::Extremes, Rule::LeastSquares].map(|rule| (scope, rule)));
        let int8 = each.map(|(scope, rule)| (0..=MOST_SPARED).map(|spared| Self::Int8(scope, rule, spared)).collect());
        single.into_iter().chain(int8).collect()
    }
}

/// The values of `model` that must have been seen before it is written in 8 bits, in any form.
pub(crate) fn needed(model: &Model) -> Result<Vec<String>, GraphError> {
    let mut names = Vec::new();
    for scope in [Scope::Convolutions, Scope::Chains] {
        names.extend(observed(model, Recipe { scope, spared: 0 })?);
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Ranges by each rule.
pub(crate) struct Ranges([HashMap<String, Range>; 2]);

impl Ranges {
    pub(crate) fn of(seen: &HashMap<String, Seen>) -> Self {
        Self(
            [Rule::Extremes, Rule::LeastSquares]
                .map(|rule| seen.iter().map(|(name, seen)| (name.clone(), seen.range(rule))).collect()),
        )
    }

    fn by(&self, rule: Rule) -> &HashMap<String, Range> {
        &self.0[usize::from(rule == Rule::LeastSquares)]
    }
}

/// The bytes of `simplified` written as `form`.
pub(crate) fn written(simplified: &Model, form: Form, ranges: Option<&Ranges>) -> Result<Vec<u8>, GraphError> {
    match (form, ranges) {
        (Form::Int8(scope, rule, spared), Some(ranges)) => {
            quantize(simplified, Recipe { scope, spared }, ranges.by(rule))?.to_bytes()
        }
        (Form::Int8(..), None) => Err(GraphError::Unsuitable("it has no layer to be computed in 8 bits".to_owned())),
        (Form::Half, _) => halve(simplified)?.to_bytes(),
        (Form::AsItIs | Form::Simplified, _) => simplified.to_bytes(),
    }
}
