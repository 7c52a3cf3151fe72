//! `aggregate`: one number out of many.

use caudal_flow::{Answer, Call, Registry, StepError, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{plain::plain, settings::arguments};

const ABOUT: &str = "Reduces a field of the objects in a list (`data`) to one number: sum, avg, min, max, median or \
                    count. Values that are not numbers are ignored, except by count, which counts them too. Without \
                    `field`, the list's own items are used.";

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The operation.
    #[serde(default)]
    operation: Option<Operation>,
    /// The field to read.
    #[serde(default)]
    field: Option<String>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Operation {
    Sum,
    Avg,
    Average,
    Mean,
    Min,
    Max,
    Median,
    Count,
}

pub(super) fn register(registry: &mut Registry) {
    plain::<Settings>(registry, "aggregate", ABOUT, work);
}

fn work(said: &Value, settings: &Settings, call: &Call) -> Answer {
    let (settings, data) = arguments(said, settings, &call.input, "data", &["operation", "field"])?;
    let Some(operation) = settings.operation else {
        let hint = "say operation: sum, avg, min, max, median or count";
        return Err(StepError::input("nobody says what is made of the numbers").hint(hint).for_good());
    };
    let found = values(&data, settings.field.as_deref());
    Ok(match operation {
        Operation::Count => found.len().into(),
        other => of_numbers(other, found.into_iter().filter_map(Value::as_f64).collect()),
    })
}

/// The values that are looked at.
fn values<'a>(data: &'a Value, field: Option<&str>) -> Vec<&'a Value> {
    let items = match data {
        Value::List(items) => &items[..],
        Value::Null => &[],
        other => std::slice::from_ref(other),
    };
    let Some(field) = field else { return items.iter().collect() };
    items.iter().filter_map(|item| item.get(field)).filter(|value| !matches!(value, Value::Null)).collect()
}

/// Of no numbers the sum and the average are 0, as system D has it; there is no least among them.
fn of_numbers(operation: Operation, mut numbers: Vec<f64>) -> Value {
    let count = numbers.len();
    numbers.sort_by(f64::total_cmp);
    let middle = || Some((numbers.get(count.checked_sub(1)? / 2)? + numbers.get(count / 2)?) / 2.0);
    let found = match operation {
        // A sum of nothing begins at -0.
        Operation::Sum => Some(numbers.iter().sum::<f64>() + 0.0),
        Operation::Avg | Operation::Average | Operation::Mean => {
            Some((numbers.iter().sum::<f64>() + 0.0) / count.max(1) as f64)
        }
        Operation::Min => numbers.first().copied(),
        Operation::Max => numbers.last().copied(),
        Operation::Median | Operation::Count => middle(),
    };
    found.map_or(Value::Null, Value::from)
}
