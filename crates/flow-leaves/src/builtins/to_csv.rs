//! `to_csv`: a table as a text.

use std::{borrow::Cow, collections::BTreeSet};

use caudal_flow::{Answer, Call, Map, Registry, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{objects, text};
use crate::{plain::plain, settings::arguments};

const ABOUT: &str = "Writes objects (`rows`) as CSV. The columns are `headers`, or all names in order; what an object lacks \
                     stays empty. What is no object stands in a column `value`.";

/// The column of what is no object.
const VALUE: &str = "value";

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The columns, in order; all names in order, if left out.
    #[serde(default)]
    headers: Option<Vec<String>>,
    /// Whether cells that a spreadsheet takes for formulas stay as they are. If not, they get an apostrophe in front.
    #[serde(default)]
    formulas: bool,
}

/// What makes a spreadsheet compute, the wide forms of East Asian keyboards among them. A number is no formula.
const FORMULA: [char; 12] = ['=', '+', '-', '@', '\t', '\r', '\n', '|', '＝', '＋', '－', '＠'];

pub(super) fn register(registry: &mut Registry) {
    plain::<Settings>(registry, "to_csv", ABOUT, work);
}

fn work(said: &Value, settings: &Settings, call: &Call) -> Answer {
    let (settings, rows) = arguments(said, settings, &call.input, "rows", &["headers", "formulas"])?;
    let rows = table(&rows);
    let columns = settings.headers.filter(|headers| !headers.is_empty()).unwrap_or_else(|| names(&rows));
    let mut csv = String::new();
    if !columns.is_empty() {
        line(&mut csv, columns.iter().map(|name| safe(Cow::from(&**name), settings.formulas)));
    }
    for row in &rows {
        let cells = columns.iter().map(|name| match row.get(name) {
            // A number that is negative is no formula.
            value @ Some(Value::Number(_)) => cell(value),
            value => safe(cell(value), settings.formulas),
        });
        line(&mut csv, cells);
    }
    Ok(csv.into())
}

fn table(rows: &Value) -> Vec<Map> {
    if let Some(objects) = objects(rows) {
        return objects.into_iter().cloned().collect();
    }
    let row = |value: &Value| value.as_map().cloned().unwrap_or_else(|| Map::default().with(VALUE, value.clone()));
    rows.as_list().unwrap_or(std::slice::from_ref(rows)).iter().map(row).collect()
}

fn names(rows: &[Map]) -> Vec<String> {
    let names: BTreeSet<&str> = rows.iter().flat_map(|row| row.iter().map(|(name, _)| &**name)).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// A cell that no spreadsheet computes.
fn safe(cell: Cow<'_, str>, formulas: bool) -> Cow<'_, str> {
    // Spreadsheets skip spaces before they look.
    if formulas || !cell.trim_start_matches(' ').starts_with(FORMULA) {
        return cell;
    }
    format!("'{cell}").into()
}

fn cell(value: Option<&Value>) -> Cow<'_, str> {
    match value {
        None | Some(Value::Null) => "".into(),
        Some(Value::Text(text)) => Cow::from(&**text),
        Some(other) => text(other).into(),
    }
}

fn line<'a>(csv: &mut String, cells: impl ExactSizeIterator<Item = Cow<'a, str>>) {
    let alone = cells.len() == 1;
    for (place, cell) in cells.enumerate() {
        if place > 0 {
            csv.push(',');
        }
        // An empty cell that is a line's only one would be no line to whoever reads it.
        if cell.contains(['"', ',', '\r', '\n']) || (alone && cell.is_empty()) {
            csv.push('"');
            csv.push_str(&cell.replace('"', "\"\""));
            csv.push('"');
        } else {
            csv.push_str(&cell);
        }
    }
    csv.push_str("\r\n");
}
