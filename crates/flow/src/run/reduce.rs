//! What becomes of branches: of their outputs one.

use std::sync::Arc;

use super::{Scope, State, Stop, apart, kinds::own, one, search::score};
use crate::{
    live::Live,
    step::{Reduce, Step},
    value::{Map, Value},
};

/// Outputs of branches that did not fail, in their order.
type Outputs<'a> = [(&'a Arc<str>, &'a Value)];

/// Makes one output of those that the branches gave, which were given `task`; `all` is where the run is then.
pub(super) async fn reduce(
    live: &Arc<Live>,
    reduce: Option<&Reduce>,
    outputs: &Outputs<'_>,
    task: &Value,
    scope: &Scope,
    all: &State,
) -> Result<Value, Stop> {
    let values = || outputs.iter().map(|(_, value)| (*value).clone());
    Ok(match reduce {
        None => all.value.clone(),
        Some(Reduce::Keys) => Value::list(outputs.iter().map(|(name, _)| Value::Text(Arc::clone(name)))),
        Some(Reduce::Values) => Value::list(values()),
        Some(Reduce::Union) => {
            let maps = outputs.iter().filter_map(|(_, value)| value.as_map());
            Value::Map(maps.fold(Map::default(), |all, map| all.merged(map)))
        }
        Some(Reduce::Concat) => Value::list(values().flat_map(|value| match value {
            Value::List(list) => list.to_vec(),
            Value::Null => Vec::new(),
            other => vec![other],
        })),
        Some(Reduce::First) => values().next().unwrap_or_default(),
        Some(Reduce::Last) => values().next_back().unwrap_or_default(),
        Some(Reduce::Majority) => most(outputs, |value, other| value == other).0,
        Some(Reduce::Consensus) => agreed(outputs),
        Some(Reduce::Judge(judge)) => liked(live, judge, outputs, task, scope, all).await?,
        Some(Reduce::Rule(rule)) => rule.value(&one::view(live, scope.place, all)).map_err(own)?,
    })
}

/// The output that has the most like it, and how many these are, itself among them. Of equal numbers, the first branch's.
fn most(outputs: &Outputs<'_>, like: impl Fn(&Value, &Value) -> bool) -> (Value, usize) {
    let votes = |value: &Value| outputs.iter().filter(|(_, other)| like(value, other)).count();
    let best = outputs.iter().rev().map(|(_, value)| (value, votes(value))).max_by_key(|(_, votes)| *votes);
    best.map_or((Value::Null, 0), |(value, votes)| ((*value).clone(), votes))
}

/// The text that most gave, whatever space is around it; if no two gave one, what most gave.
fn agreed(outputs: &Outputs<'_>) -> Value {
    let words = |value: &Value| value.as_text().map(|text| text.trim().to_owned());
    match most(outputs, |value, other| words(value).is_some() && words(value) == words(other)) {
        (agreed, 2..) => agreed,
        _ => most(outputs, |value, other| value == other).0,
    }
}

/// The output that the judge gives the highest score; of equal ones, the first branch's.
async fn liked(
    live: &Arc<Live>,
    judge: &Step,
    outputs: &Outputs<'_>,
    task: &Value,
    scope: &Scope,
    all: &State,
) -> Result<Value, Stop> {
    let mut best: Option<(f64, &Value)> = None;
    for (branch, output) in outputs {
        let value = Value::Map([("solution", (*output).clone()), ("task", task.clone())].into_iter().collect());
        let given = State { value, ..all.clone() };
        let said = apart(live, format!("{branch}#judge"), judge, scope, given).await?;
        let score = score(&said)?;
        if best.is_none_or(|(highest, _)| score > highest) {
            best = Some((score, output));
        }
    }
    Ok(best.map(|(_, output)| output.clone()).unwrap_or_default())
}
