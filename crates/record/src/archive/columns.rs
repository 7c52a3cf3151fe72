//! Columns of the same rows: datasets that stand beside each other in a group, as `interactions` and `embeddings` have them.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use super::{
    corpus::size_of,
    hdf5::{Class, Dataset, Failed, Group, Link, text_value},
};

/// A group of columns.
pub(super) struct Table {
    columns: Vec<Column>,
    pub(super) length: u64,
}

struct Column {
    name: String,
    set: Dataset,
    class: Class,
    length: u64,
    /// Numbers of a row, where there are several.
    width: Option<usize>,
    /// What stands in rows that nothing was written to, where it is a text that the dataset's maker has given.
    fill: Option<Vec<u8>>,
}

impl Table {
    /// The columns of a group, and the names of those that are left out: that cannot be read, or are shorter than others.
    pub(super) fn open(group: &Group, path: &str) -> Result<(Self, Vec<String>), Failed> {
        let attribute = |(name, _)| format!("{path}/@{name} (an attribute of all rows)");
        let (mut columns, mut left_out) =
            (Vec::new(), group.attributes()?.into_iter().map(attribute).collect::<Vec<_>>());
        for link in group.links()? {
            let name = &link.name;
            if !link.here {
                left_out.push(format!("{path}/{name} (a link to another place, not followed)"));
                continue;
            }
            match Column::open(group, &link) {
                Ok(Some(column)) => {
                    let attributes = column.set.attribute_names()?.into_iter();
                    left_out.extend(attributes.map(|of| format!("{path}/{name}/@{of} (an attribute of a dataset)")));
                    columns.push(column);
                }
                Ok(None) => left_out.push(format!("{path}/{name}{}", size_of(group, &link))),
                Err(Failed(words)) => left_out.push(format!("{path}/{name}{} ({words})", size_of(group, &link))),
            }
        }
        let length = columns.iter().map(|column| column.length).max().unwrap_or(0);
        for Column { name, length: has, .. } in columns.iter().filter(|column| column.length < length) {
            left_out.push(format!("{path}/{name} (it has {has} rows and others {length}: the last ones lack it)"));
        }
        Ok((Self { columns, length }, left_out))
    }

    /// A row as an object; `None` where nothing was written to it, as far as that can be seen.
    pub(super) fn row(&self, row: u64) -> Result<Option<Map<String, Value>>, Failed> {
        let (mut payload, mut blank) = (Map::new(), true);
        for column in self.columns.iter().filter(|column| row < column.length) {
            let (value, is_blank) = column.value(row)?;
            blank &= is_blank;
            payload.insert(column.name.clone(), value);
        }
        Ok((!blank).then_some(payload))
    }

    /// The text of a column in a row, if there is one.
    pub(super) fn text(&self, name: &str, row: u64) -> Result<Option<String>, Failed> {
        let column = self.columns.iter().find(|column| column.name == name && row < column.length);
        let Some(column) = column else { return Ok(None) };
        let (value, blank) = column.value(row)?;
        Ok(value.as_str().filter(|_| !blank).map(str::to_owned))
    }
}

impl Column {
    /// `None` where it is no column of texts, numbers or rows of floating-point numbers.
    fn open(group: &Group, link: &Link) -> Result<Option<Self>, Failed> {
        let Ok(set) = group.linked_dataset(link) else { return Ok(None) };
        let (class, shape) = (set.class()?, set.shape()?);
        let numbers = matches!(class, Class::Bytes | Class::Integer | Class::Unsigned | Class::Float | Class::Double);
        let width = match shape[..] {
            [_] if numbers || class == Class::Text => None,
            [_, width] if matches!(class, Class::Float | Class::Double) => usize::try_from(width).ok(),
            _ => return Ok(None),
        };
        set.check_filters()?;
        let fill = if class == Class::Text { set.fill_text()? } else { None };
        Ok(Some(Self { name: link.name.clone(), set, class, length: shape[0], width, fill }))
    }

    /// What stands in a row, and whether that is what rows have that nothing was written to.
    fn value(&self, row: u64) -> Result<(Value, bool), Failed> {
        let set = &self.set;
        Ok(match (self.class, self.width) {
            (Class::Text, _) => {
                let text = set.strings(row, 1)?.pop().unwrap_or_default();
                (text_value(&text), text.is_empty() || self.fill.as_ref() == Some(&text))
            }
            (Class::Double, Some(width)) => {
                let numbers = set.doubles(row, width)?;
                let blank = numbers.iter().all(|number| *number == 0.0 || number.is_nan());
                (vector("float64_base64", width, numbers.into_iter().flat_map(f64::to_le_bytes)), blank)
            }
            (_, Some(width)) => {
                let numbers = set.floats(row, width)?;
                let blank = numbers.iter().all(|number| *number == 0.0 || number.is_nan());
                (vector("float32_base64", width, numbers.into_iter().flat_map(f32::to_le_bytes)), blank)
            }
            (Class::Float | Class::Double, None) => {
                let number = set.double(row)?;
                (float(number), number == 0.0 || number.is_nan())
            }
            (Class::Unsigned, None) => {
                let number = set.unsigned(row)?;
                (number.into(), number == 0)
            }
            _ => {
                let number = set.integer(row)?;
                (number.into(), number == 0)
            }
        })
    }
}

fn vector(name: &str, width: usize, bytes: impl Iterator<Item = u8>) -> Value {
    json!({"dimensions": width, name: BASE64_STANDARD.encode(bytes.collect::<Vec<u8>>())})
}

/// A number as JSON; what JSON has no number for as a text: `NaN`, `inf`, `-inf`.
fn float(number: f64) -> Value {
    serde_json::Number::from_f64(number).map_or_else(|| number.to_string().into(), Value::Number)
}
