//! Candidates: forms of a model that may be faster.

use std::collections::HashMap;

use caudal_graph::{
    GraphError, Model, QuantizeConfig, QuantizeScope, ValueRange, convert_to_half, quantize_model, values_to_calibrate,
};

use crate::calibrate::{RangeRule, ValueHistogram};

/// One form of the model's graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// Unchanged.
    AsItIs,
    /// After the backend's optimizations that hold on every machine.
    Simplified,
    /// In half precision.
    Half,
    /// Quantized to 8 bits.
    Int8(QuantizeScope, RangeRule, usize),
}

/// Maximum number of layers that stay in floats: with more, too little remains in 8 bits.
const MAX_SKIPPED_LAYERS: usize = 3;

impl Candidate {
    /// Its name.
    pub(crate) fn name(self) -> String {
        match self {
            Self::AsItIs => "serving".to_owned(),
            Self::Simplified => "simplified".to_owned(),
            Self::Half => "fp16".to_owned(),
            Self::Int8(scope, rule, spared) => {
                let scope = if scope == QuantizeScope::Chains { "-chains" } else { "" };
                let rule = if rule == RangeRule::LeastSquares { "-squares" } else { "" };
                let spared = if spared > 0 { format!("-spare{spared}") } else { String::new() };
                format!("int8{scope}{rule}{spared}")
            }
        }
    }

    /// All candidates. Within one row the next is tried only if the previous one loses too much: it loses less, and is
    /// slower.
    pub(crate) fn candidate_rows() -> Vec<Vec<Self>> {
        let single = [Self::Simplified, Self::Half].map(|form| vec![form]);
        let scopes = [QuantizeScope::Convolutions, QuantizeScope::Chains];
        let each = scopes
            .into_iter()
            .flat_map(|scope| [RangeRule::Extremes, RangeRule::LeastSquares].map(|rule| (scope, rule)));
        let int8 =
            each.map(|(scope, rule)| (0..=MAX_SKIPPED_LAYERS).map(|spared| Self::Int8(scope, rule, spared)).collect());
        single.into_iter().chain(int8).collect()
    }
}

/// The values of `model` to calibrate for any quantized candidate.
pub(crate) fn calibration_values(model: &Model) -> Result<Vec<String>, GraphError> {
    let mut names = Vec::new();
    for scope in [QuantizeScope::Convolutions, QuantizeScope::Chains] {
        names.extend(values_to_calibrate(model, QuantizeConfig { scope, skipped_layers: 0 })?);
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Ranges chosen by each rule.
pub(crate) struct CalibratedRanges([HashMap<String, ValueRange>; 2]);

impl CalibratedRanges {
    pub(crate) fn from_histograms(seen: &HashMap<String, ValueHistogram>) -> Self {
        Self(
            [RangeRule::Extremes, RangeRule::LeastSquares]
                .map(|rule| seen.iter().map(|(name, seen)| (name.clone(), seen.choose_range(rule))).collect()),
        )
    }

    fn by_rule(&self, rule: RangeRule) -> &HashMap<String, ValueRange> {
        &self.0[usize::from(rule == RangeRule::LeastSquares)]
    }
}

/// The bytes of candidate `form`, made from `simplified`.
pub(crate) fn candidate_bytes(
    simplified: &Model,
    form: Candidate,
    ranges: Option<&CalibratedRanges>,
) -> Result<Vec<u8>, GraphError> {
    match (form, ranges) {
        (Candidate::Int8(scope, rule, spared), Some(ranges)) => {
            quantize_model(simplified, QuantizeConfig { scope, skipped_layers: spared }, ranges.by_rule(rule))?
                .to_bytes()
        }
        (Candidate::Int8(..), None) => {
            Err(GraphError::Unsuitable("it has no layer to be computed in 8 bits".to_owned()))
        }
        (Candidate::Half, _) => convert_to_half(simplified)?.to_bytes(),
        (Candidate::AsItIs | Candidate::Simplified, _) => simplified.to_bytes(),
    }
}
