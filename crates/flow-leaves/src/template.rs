//! `template`: JSON with expressions in it, worked out.

use caudal_flow::{Action, Call, Formula, Registry, Shape, Started, Undefined, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plain::{add, raw_leaf_as};
use crate::templated::{identity, words};

const ABOUT: &str = "Renders `template`: text, or any JSON with text in it, in which {{ }} holds an expression over \
                    the input (as input), context and steps, and {% if %}, {% for %} and {% set %} are statements. \
                    Text that is a single expression returns the value of that expression.";

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Text or other JSON with expressions in {{ }}.
    #[schemars(with = "serde_json::Value")]
    template: Value,
}

struct Template(Shape, Undefined);

pub(crate) fn register(registry: &mut Registry) {
    let make = |_: &Value, settings: Settings, undefined| {
        let shape = Shape::parse_as(&settings.template, undefined);
        shape.map(|shape| Template(shape, undefined)).map_err(|error| format!("template: {}", words(&error)))
    };
    add(registry, "template", raw_leaf_as::<Settings, _>(ABOUT, make));
}

impl Action for Template {
    fn identity(&self) -> Value {
        identity("template", &self.0, self.1)
    }

    fn start(&self, call: Call) -> Started<'_> {
        Started::Done(self.0.value(&call.view()))
    }
}
