//! Tree search.

use std::sync::Arc;

use crate::{
    blueprint::{check::All, fields::Fields, reader::Reader},
    step::{Kind, Rule, Search, Strategy},
};

// Flujo's numbers, but for the proposals, of which it has no limit.
const BRANCHING: u64 = 3;
const WIDTH: u64 = 3;
const LEVELS: u64 = 5;
const PROPOSALS: u64 = 100;
const GOAL: f64 = 1.0;

impl Reader<'_> {
    pub(super) fn search(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let proposer = self.inner("proposer", fields.node("proposer"), fields.mark);
        let evaluator = self.inner("evaluator", fields.node("evaluator"), fields.mark);
        for key in fields.said(&["discovery_agent", "path_max_tokens"]) {
            self.not_done(fields.at(key), key, "limit by usage_limits, prepare by a step before");
        }
        let mut valid: Vec<Rule> = Vec::new();
        for node in fields.node("candidate_validator").into_iter().chain(fields.names("static_invariants")) {
            valid.extend(self.rule(node));
        }
        let valid = match valid.len() {
            0 | 1 => valid.pop(),
            _ => Some(Arc::new(All(valid)) as Rule),
        };
        let cost = fields.node("cost_function").and_then(|node| self.rule(node));
        let count = |key: &str, usual: u64| usize::try_from(fields.count(key).unwrap_or(usual)).unwrap_or(usize::MAX);
        Some(Kind::Search(Arc::new(Search {
            proposer: Box::new(proposer?),
            evaluator: Box::new(evaluator?),
            strategy: if fields.word("strategy") == Some("beam") { Strategy::Beam } else { Strategy::AStar },
            branching: count("branching_factor", BRANCHING),
            width: count("beam_width", WIDTH),
            depth: count("max_depth", LEVELS),
            most: count("max_iterations", PROPOSALS),
            goal: Some(fields.number("goal_score_threshold").unwrap_or(GOAL)),
            must_reach: fields.flag("require_goal").unwrap_or_default(),
            cost,
            valid,
        })))
    }
}
