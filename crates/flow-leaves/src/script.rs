//! `script`: what expressions give.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use caudal_flow::{Action, Answer, Call, Expression, Formula, Map, Registry, Started, StepError, Undefined, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    plain::{add, raw_leaf_as},
    templated::words,
};

const ABOUT: &str = "Returns the value of `expression`, or an object with the values of `expressions` by name. An \
                    expression sees the input (as input), context and steps, and nothing else.";

/// How long all expressions of a step may take together.
const MAX_TIME: Duration = Duration::from_secs(1);

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// One expression, such as context.score > 0.5.
    #[serde(default)]
    expression: Option<String>,
    /// Expressions by the names of their values.
    #[serde(default)]
    expressions: BTreeMap<String, String>,
}

struct Script {
    said: Value,
    gives: Gives,
    undefined: Undefined,
}

enum Gives {
    One(Expression),
    Object(Vec<(String, Expression)>),
}

pub(crate) fn register(registry: &mut Registry) {
    add(registry, "script", raw_leaf_as::<Settings, _>(ABOUT, make));
}

fn make(said: &Value, settings: Settings, undefined: Undefined) -> Result<Script, String> {
    let read = |key: &str, text: &str| {
        Expression::parse_as(text, undefined).map_err(|error| format!("{key}: {}", words(&error)))
    };
    let gives = match (settings.expression, settings.expressions) {
        (Some(one), more) if more.is_empty() => Gives::One(read("expression", &one)?),
        (None, all) if !all.is_empty() => {
            let read =
                |(name, text): (String, String)| read(&format!("expressions.{name}"), &text).map(|read| (name, read));
            Gives::Object(all.into_iter().map(read).collect::<Result<_, _>>()?)
        }
        _ => return Err("say either expression or expressions".to_owned()),
    };
    Ok(Script { said: said.clone(), gives, undefined })
}

impl Action for Script {
    fn identity(&self) -> Value {
        let own = [Value::text("script"), self.said.clone()];
        let name = Undefined::NAMES.iter().find(|(_, undefined)| *undefined == self.undefined).map(|(name, _)| *name);
        match (self.undefined, name) {
            (Undefined::Strict, _) | (_, None) => Value::list(own),
            (_, Some(name)) => Value::list(own.into_iter().chain([name.into()])),
        }
    }

    fn start(&self, call: Call) -> Started<'_> {
        Started::Done(self.gives.value(&call))
    }
}

impl Gives {
    fn value(&self, call: &Call) -> Answer {
        let view = call.view();
        match self {
            Self::One(expression) => expression.value(&view),
            Self::Object(all) => {
                let since = Instant::now();
                let each = all.iter().map(|(name, expression)| {
                    if since.elapsed() > MAX_TIME {
                        let message = format!("the expressions take longer than {MAX_TIME:?}");
                        return Err(StepError::failed(message).hint("part them into several steps").for_good());
                    }
                    Ok((&**name, expression.value(&view)?))
                });
                each.collect::<Result<Map, _>>().map(Value::Map)
            }
        }
    }
}
