//! Tags of YAML: an explicit one decides what a value is (YAML 1.2, 10.3).

use std::sync::Arc;

use saphyr_parser::Tag;

use super::{
    finding::{Finding, code},
    tree::{Mark, Style, plain},
};
use crate::value::{Number, Value};

/// Where YAML's own tags begin, which files write as `!!`.
const CORE: &str = "tag:yaml.org,2002:";
const KNOWN: &str = "known are !!str, !!int, !!float, !!bool, !!null, !!seq and !!map";

/// The text and style of a scalar by its tag: one that is no text becomes a plain word that means the same.
pub(super) fn scalar(text: &str, style: Style, tag: &Tag, mark: Mark) -> Result<(Arc<str>, Style), Finding> {
    let name = name(tag);
    let said = plain(&Arc::from(text.trim()));
    let number = match &said {
        Value::Number(number) => Some(number),
        _ => None,
    };
    let value = match &*name {
        "!" | "str" => return Ok((text.into(), if style == Style::Plain { Style::Quoted } else { style })),
        "int" => number.filter(|number| number.as_i128().is_some() || number.digits().is_some()).map(|_| said.clone()),
        "float" => number.and_then(Number::as_f64).map(Value::from),
        "bool" => matches!(said, Value::Bool(_)).then_some(said),
        "null" => (said == Value::Null).then_some(said),
        _ => return Err(unknown(&name, mark)),
    };
    match value {
        Some(value) => Ok((value.to_json().into(), Style::Plain)),
        None => {
            let message = format!("{} is no value of !!{name}", caudal_types::shorten(text));
            Err(Finding::error(mark, code::SORT, message, "mend the value, or take the tag out"))
        }
    }
}

/// Refuses a tag of a list or an object that says that it is something else.
pub(super) fn collection(tag: Option<&Tag>, own: &str, mark: Mark) -> Result<(), Finding> {
    match tag.map(name) {
        Some(name) if name != own && name != "!" => Err(unknown(&name, mark)),
        _ => Ok(()),
    }
}

/// A tag without the beginning that YAML's own share; with it, others are as they are written.
fn name(tag: &Tag) -> String {
    let whole = format!("{}{}", tag.handle, tag.suffix);
    whole.strip_prefix(CORE).map_or(whole.clone(), str::to_owned)
}

fn unknown(name: &str, mark: Mark) -> Finding {
    let shown = if name.starts_with('!') { name.to_owned() } else { format!("!!{name}") };
    let message = format!("the tag {} is not known", caudal_types::shorten(&shown));
    Finding::error(mark, code::SORT, message, KNOWN)
}
