//! Tree search: what a step proposes, what another thinks of it, and the best of that again.
//!
//! Beam search keeps the best few of each level (Lowerre, 1976); A* takes the open candidate with the least sum of what
//! it cost so far and what is missing to the goal (Hart, Nilsson, Raphael, 1968), for which one minus the score stands.

use std::sync::Arc;

use super::{Scope, State, Stop, Went, apart};
use crate::{
    error::{Fault, StepError},
    live::Live,
    step::{Search, Step, Strategy},
    value::Value,
    view::View,
};

#[derive(Clone)]
struct Candidate {
    value: Value,
    score: f64,
    cost: f64,
    level: usize,
}

/// Searches; gives the best candidate, as `{"best": ..., "score": ..., "level": ..., "reached": ...}`.
pub(super) async fn search(live: &Arc<Live>, tree: &Search, scope: &Scope, state: State) -> Went {
    let mut hunt = Hunt { live, tree, scope, state, asked: 0 };
    let first = Candidate { value: hunt.state.value.clone(), score: 0.0, cost: 0.0, level: 0 };
    let best = match tree.strategy {
        Strategy::Beam => hunt.beam(first).await?,
        Strategy::AStar => hunt.a_star(first).await?,
    };
    let reached = tree.goal.is_none_or(|goal| best.score >= goal);
    if tree.must_reach && !reached {
        let message = format!("the best of {} proposals has the score {}", hunt.asked, best.score);
        let error = StepError::failed(message).hint("search deeper or wider, or lower goal_score_threshold");
        return Err(Stop::failed("", error));
    }
    let found =
        [("best", best.value), ("score", best.score.into()), ("level", best.level.into()), ("reached", reached.into())];
    Ok(State { value: Value::Map(found.into_iter().collect()), moment: live.log.now(), ..hunt.state })
}

struct Hunt<'a> {
    live: &'a Arc<Live>,
    tree: &'a Search,
    scope: &'a Scope,
    state: State,
    asked: usize,
}

impl Hunt<'_> {
    async fn beam(&mut self, first: Candidate) -> Result<Candidate, Stop> {
        let mut best: Option<Candidate> = None;
        let mut level = vec![first];
        for _ in 0..self.tree.depth {
            let mut next = Vec::new();
            for candidate in &level {
                next.extend(self.from(candidate).await?);
            }
            next.sort_by(|a, b| b.score.total_cmp(&a.score));
            next.truncate(self.tree.width.max(1));
            let Some(top) = next.first() else { break };
            if best.as_ref().is_none_or(|best| top.score > best.score) {
                best = Some(top.clone());
            }
            if self.enough(best.as_ref()) || self.asked >= self.tree.most {
                break;
            }
            level = next;
        }
        best.ok_or_else(Self::nothing)
    }

    async fn a_star(&mut self, first: Candidate) -> Result<Candidate, Stop> {
        let mut best: Option<Candidate> = None;
        let mut open = vec![first];
        while self.asked < self.tree.most {
            let rank = |candidate: &Candidate| candidate.cost + (1.0 - candidate.score);
            let Some(place) = (0..open.len()).min_by(|a, b| rank(&open[*a]).total_cmp(&rank(&open[*b]))) else { break };
            let candidate = open.swap_remove(place);
            if candidate.level > 0 && self.tree.goal.is_some_and(|goal| candidate.score >= goal) {
                return Ok(candidate);
            }
            if candidate.level >= self.tree.depth {
                continue;
            }
            for next in self.from(&candidate).await? {
                if best.as_ref().is_none_or(|best| next.score > best.score) {
                    best = Some(next.clone());
                }
                open.push(next);
            }
        }
        best.ok_or_else(Self::nothing)
    }

    fn enough(&self, best: Option<&Candidate>) -> bool {
        matches!((self.tree.goal, best), (Some(goal), Some(best)) if best.score >= goal)
    }

    fn nothing() -> Stop {
        Stop::failed("", StepError::new(Fault::Output, "nothing was proposed").hint("look at the proposer"))
    }

    /// What is proposed from a candidate, with scores.
    async fn from(&mut self, candidate: &Candidate) -> Result<Vec<Candidate>, Stop> {
        let turn = self.asked as u32;
        self.asked += 1;
        let proposed = self.ask(turn, "propose", &self.tree.proposer, candidate.value.clone()).await?;
        let proposed = match proposed {
            Value::List(list) => list.iter().take(self.tree.branching.max(1)).cloned().collect(),
            Value::Null => Vec::new(),
            one => vec![one],
        };
        let mut candidates = Vec::with_capacity(proposed.len());
        for (number, value) in proposed.into_iter().enumerate() {
            if !self.holds(&value)? {
                continue;
            }
            let label = format!("rate {number}");
            let score = self.ask(turn, &label, &self.tree.evaluator, value.clone()).await?;
            let cost = candidate.cost + self.cost(&value)?;
            candidates.push(Candidate { value, score: self::score(&score)?, cost, level: candidate.level + 1 });
        }
        Ok(candidates)
    }

    async fn ask(&self, turn: u32, label: &str, step: &Step, value: Value) -> Result<Value, Stop> {
        let given = State { value, ..self.state.clone() };
        apart(self.live, format!("{turn} {label}"), step, self.scope, given).await
    }

    fn cost(&self, value: &Value) -> Result<f64, Stop> {
        let Some(cost) = &self.tree.cost else { return Ok(1.0) };
        let cost = cost.value(&View::of(value, &self.state.context)).map_err(|error| Stop::failed("", error))?;
        Ok(cost.as_f64().unwrap_or(1.0))
    }

    fn holds(&self, value: &Value) -> Result<bool, Stop> {
        let Some(valid) = &self.tree.valid else { return Ok(true) };
        let holds = valid.value(&View::of(value, &self.state.context)).map_err(|error| Stop::failed("", error))?;
        Ok(holds.truthy())
    }
}

/// How good something is, as a step says it: a number, or an object with `score`.
pub(super) fn score(said: &Value) -> Result<f64, Stop> {
    said.as_f64().or_else(|| said.get("score").and_then(Value::as_f64)).ok_or_else(|| {
        let message = format!("the evaluator gave {}, not a number or an object with a score", said.sort());
        Stop::failed("", StepError::new(Fault::Output, message))
    })
}
