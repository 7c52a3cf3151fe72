//! `infer`: tensors in, tensors out, with any model.

use std::sync::Arc;

use caudal_engine::TensorSpec;
use caudal_flow::{Action, Answer, Call, Map, Registry, Started, StepError, Value};
use caudal_tasks::{InputTensor, OutputTensor, ServedModel};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Serving, Urgency, model, present,
    tensor::{self, Elements},
    way, within,
};
use crate::{
    aside::aside,
    plain::{add, leaf},
};

const ABOUT: &str = "Runs a model on tensors. The input is an object with the model's inputs by name, each a nested \
                    list, or, for a model with one input, that list alone. The output is an object with the model's \
                    outputs by name. {shape, data} may replace a list, with flat data or bytes. Concurrent runs share \
                    the model's batches.";

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Name or alias of the model.
    model: String,
    /// Outputs to return; default: all.
    #[serde(default)]
    outputs: Vec<String>,
    /// Form of the outputs: nested lists, or {datatype, shape, data}.
    #[serde(default)]
    gives: Gives,
    /// Priority in the queue.
    #[serde(default)]
    priority: Urgency,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Gives {
    /// As lists within lists.
    #[default]
    Lists,
    /// As {datatype, shape, data} with flat data.
    Tensors,
}

struct Infer {
    said: Value,
    settings: Settings,
    models: Option<Serving>,
}

pub(super) fn register(registry: &mut Registry, models: Option<&Serving>) {
    let models = models.cloned();
    let make = move |said: &Value, settings| Ok(Infer { said: said.clone(), settings, models: models.clone() });
    add(registry, "infer", leaf::<Settings, _>(ABOUT, make));
}

impl Action for Infer {
    fn identity(&self) -> Value {
        Value::list([Value::text("infer"), self.said.clone()])
    }

    fn start(&self, call: Call) -> Started<'_> {
        Started::Later(Box::pin(async move { self.infer(&call).await }))
    }
}

impl Infer {
    async fn infer(&self, call: &Call) -> Answer {
        let models = present(self.models.as_ref()).await?;
        let served = model(&models, &self.settings.model, call).await?;
        let input = call.input.plain().map_err(|error| StepError::input(error.to_string()).for_good())?;
        let (bytes, own) = (input.size(), Arc::clone(&served));
        let inputs = aside(bytes, move || inputs(&own, &input)).await?;
        let way = way(call, self.settings.priority);
        let outputs = within(call, served.infer(inputs, &self.settings.outputs, &way)).await?;
        let (bytes, gives) = (outputs.iter().map(|output| output.bytes.len()).sum(), self.settings.gives);
        aside(bytes, move || {
            let one = |output: &OutputTensor| Ok((&*served.spec.outputs[output.index].name, written(output, gives)?));
            outputs.iter().map(one).collect::<Result<Map, StepError>>().map(Value::Map)
        })
        .await
    }
}

/// The tensors that the input is.
fn inputs(served: &ServedModel, input: &Value) -> Result<Vec<InputTensor>, StepError> {
    let specs = &served.spec.inputs;
    let named = |map: &Map| specs.iter().any(|spec| map.get(&spec.name).is_some()) || map.get("shape").is_none();
    match (input, &specs[..]) {
        (Value::Map(map), _) if named(map) => map
            .iter()
            .map(|(name, value)| tensor_of(served, specs.iter().find(|spec| *spec.name == **name), name, value))
            .collect(),
        (value, [only]) => Ok(vec![tensor_of(served, Some(only), &only.name, value)?]),
        _ => {
            let names: Vec<String> = specs.iter().map(ToString::to_string).collect();
            let error = StepError::input(format!("it takes an object of its inputs by name, not {}", input.sort()));
            Err(error.hint(format!("the inputs are {}", names.join(", "))).for_good())
        }
    }
}

fn tensor_of(
    served: &ServedModel,
    spec: Option<&TensorSpec>,
    name: &str,
    value: &Value,
) -> Result<InputTensor, StepError> {
    // Of a name that the model has not, the model says so.
    let dtype = spec.map_or(caudal_types::DType::F32, |spec| spec.dtype);
    let elements = Elements::of(value).map_err(|wrong| tensor::wrong(name, &wrong))?;
    // Before memory is taken for it.
    let expected = served.expect(name, dtype, &elements.shape).map_err(|error| super::failed(&error.into()))?;
    let bytes = elements.read(dtype, expected).map_err(|wrong| tensor::wrong(name, &wrong))?;
    Ok(InputTensor { name: name.to_owned(), dtype, shape: elements.shape, bytes })
}

fn written(output: &OutputTensor, gives: Gives) -> Answer {
    let flat = tensor::write(output.dtype, &output.bytes).ok_or_else(|| {
        let error = StepError::input(format!("an output is {}, which is no number of JSON's", output.dtype));
        error.hint("name other outputs, or export the model with float32 outputs").for_good()
    })?;
    if gives == Gives::Lists {
        return Ok(tensor::nested(flat, &output.shape));
    }
    let shape = Value::list(output.shape.iter().map(|size| Value::from(*size)));
    let all = [("datatype", Value::text(output.dtype.name())), ("shape", shape), ("data", Value::list(flat))];
    Ok(Value::Map(all.into_iter().collect()))
}
