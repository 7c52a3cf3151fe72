//! How urgent a consultation is: what was classified last, raised by every critical pattern.

use serde::Serialize;

use crate::kinds::LEVELS;
use crate::raw::Raw;
use crate::state::State;

/// How urgent it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Urgency {
    /// `critical`, `high`, `medium` or `low`.
    pub urgency_level: String,
    /// What `URGENCY_CLASSIFIED` said last.
    pub classified_level: Option<String>,
    /// Whether critical patterns raised it.
    pub raised: bool,
    /// How grave, from 1 to 10: the highest that was said.
    pub gravity_score: Option<i64>,
    /// How soon somebody must act: what the gravest pattern says, else what was classified.
    pub time_to_action: Option<Raw>,
    /// What the classification recognised.
    pub identified_patterns: Option<Raw>,
    /// What makes it worse.
    pub risk_factors: Option<Raw>,
    /// What must be done at once.
    pub immediate_actions: Option<Raw>,
    /// Critical patterns, as events told of them.
    pub critical_patterns: Vec<Raw>,
}

impl Urgency {
    /// How urgent `state` is; `None` while nobody said anything about it.
    pub(super) fn of(state: &State) -> Option<Self> {
        let classified = state.urgency.as_ref();
        let raised = state.critical_pattern_count > 0;
        if classified.is_none() && !raised {
            return None;
        }
        let field = |name| classified.and_then(|said| said.member(name)).and_then(Raw::new);
        let level = ["urgency_level", "urgency", "level"].iter().find_map(|name| field(name));
        let level = level.and_then(|level| level.as_text().map(std::borrow::Cow::into_owned));
        let gravest = state.critical_patterns.values().max_by_key(|pattern| gravity(pattern));
        let soonest = gravest.and_then(|pattern| pattern.member("time_to_action")).and_then(Raw::new);
        Some(Self {
            urgency_level: if raised { LEVELS[0].to_owned() } else { level.clone().unwrap_or_default() },
            raised: raised && level.as_deref() != Some(LEVELS[0]),
            classified_level: level,
            gravity_score: classified.into_iter().chain(gravest).filter_map(gravity).max(),
            time_to_action: soonest.or_else(|| field("time_to_action")),
            identified_patterns: field("identified_patterns"),
            risk_factors: field("risk_factors"),
            immediate_actions: field("immediate_actions"),
            critical_patterns: state.critical_patterns.values().cloned().collect(),
        })
    }
}

fn gravity(said: &Raw) -> Option<i64> {
    said.member("gravity_score")?.trim_end_matches(".0").parse().ok()
}
