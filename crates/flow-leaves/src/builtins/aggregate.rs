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
        other => {
            let numbers = || found.iter().filter_map(|value| value.as_f64());
            long(other, &found).unwrap_or_else(|| of_numbers(other, numbers().collect()))
        }
    })
}

/// The least, the most or the sum of whole numbers where it is more than a float holds exactly: then it stays whole.
fn long(operation: Operation, found: &[&Value]) -> Option<Value> {
    let whole = |value: &&Value| match value {
        Value::Number(number) => Some(number.as_i128()),
        _ => None,
    };
    let mut numbers = found.iter().filter_map(whole);
    let made = match operation {
        Operation::Min => numbers.try_fold(i128::MAX, |least, number| Some(least.min(number?))),
        Operation::Max => numbers.try_fold(i128::MIN, |most, number| Some(most.max(number?))),
        Operation::Sum => numbers.try_fold(0, |sum: i128, number| sum.checked_add(number?)),
        _ => None,
    };
    made.filter(|_| found.iter().any(|value| value.as_f64().is_some()))
        .filter(|number| number.unsigned_abs() > 1 << f64::MANTISSA_DIGITS)
        .map(|number| Value::Number(number.into()))
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

/// Of no numbers the sum and the average are 0, as Flujo has it; there is no least among them.
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
