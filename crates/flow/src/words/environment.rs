//! What the language knows: its filters and methods, and the limits that hold for all expressions.

use std::{io, sync::LazyLock};

use minijinja::{
    Environment, Error, ErrorKind, State, UndefinedBehavior, filters,
    value::{Rest, Value as Word, ValueKind, ValueOrKwargs, from_args},
};

use super::{DEPTH, FUEL, OUTPUT_BYTES, Undefined, compare, hand::Handed, meter};
use crate::value::Value;

/// Filters and functions that the language would bring and that make much of little, or tell of the machine.
const LEFT_OUT: [&str; 9] = ["format", "indent", "pprint", "batch", "slice", "safe", "escape", "e", "chain"];
const FUNCTIONS_LEFT_OUT: [&str; 3] = ["debug", "namespace", "range"];

static STRICT: LazyLock<Environment<'static>> = LazyLock::new(|| made(UndefinedBehavior::SemiStrict));
static LENIENT: LazyLock<Environment<'static>> = LazyLock::new(|| made(UndefinedBehavior::Chainable));

/// The language for that way with names that are not there.
pub(super) fn language(undefined: Undefined) -> &'static Environment<'static> {
    match undefined {
        // Also strictly, `or` and `default` may be asked of what is not there.
        Undefined::Strict => &STRICT,
        Undefined::Warn | Undefined::Ignore => &LENIENT,
    }
}

fn made(undefined: UndefinedBehavior) -> Environment<'static> {
    let mut language = Environment::new();
    language.set_undefined_behavior(undefined);
    language.set_fuel(Some(FUEL));
    language.set_recursion_limit(DEPTH);
    LEFT_OUT.iter().for_each(|name| language.remove_filter(name));
    FUNCTIONS_LEFT_OUT.iter().for_each(|name| language.remove_global(name));
    language.add_filter("join", join);
    language.add_filter("replace", replace);
    language.add_filter("times", times);
    language.add_filter("tojson", tojson);
    for (name, filter) in counted_filters() {
        let counted = move |state: &mut State, args: Rest<ValueOrKwargs>| counted(&filter, state, &args.into_values());
        language.add_filter(name, counted);
    }
    compare::teach(&mut language, undefined);
    language.set_unknown_method_callback(method);
    language
}

/// The filters that make texts or lists, or go through them.
fn counted_filters() -> [(&'static str, Word); 27] {
    [
        ("join", Word::from_function(join)),
        ("replace", Word::from_function(replace)),
        ("tojson", Word::from_function(tojson)),
        ("upper", Word::from_function(filters::upper)),
        ("lower", Word::from_function(filters::lower)),
        ("title", Word::from_function(filters::title)),
        ("capitalize", Word::from_function(filters::capitalize)),
        ("trim", Word::from_function(filters::trim)),
        ("split", Word::from_function(filters::split)),
        ("lines", Word::from_function(filters::lines)),
        ("string", Word::from_function(filters::string)),
        ("list", Word::from_function(filters::list)),
        ("sort", Word::from_function(filters::sort)),
        ("dictsort", Word::from_function(filters::dictsort)),
        ("items", Word::from_function(filters::items)),
        ("reverse", Word::from_function(filters::reverse)),
        ("unique", Word::from_function(filters::unique)),
        ("groupby", Word::from_function(filters::groupby)),
        ("zip", Word::from_function(filters::zip)),
        ("sum", Word::from_function(filters::sum)),
        ("min", Word::from_function(compare::min)),
        ("max", Word::from_function(compare::max)),
        ("map", Word::from_function(filters::map)),
        ("select", Word::from_function(filters::select)),
        ("reject", Word::from_function(filters::reject)),
        ("selectattr", Word::from_function(filters::selectattr)),
        ("rejectattr", Word::from_function(filters::rejectattr)),
    ]
}

/// Calls a filter, and counts what it is given and what it makes.
fn counted(filter: &Word, state: &mut State, args: &[Word]) -> Result<Word, Error> {
    args.iter().try_for_each(meter::word)?;
    let made = filter.call(state, args)?;
    meter::word(&made)?;
    Ok(made)
}

/// Filters that Flujo has under other names, or that people look for here.
const FILTERS: [&str; 12] =
    ["join", "upper", "lower", "length", "tojson", "default", "replace", "times", "first", "last", "sort", "trim"];

/// Refuses a filter that there is none of. `Err` tells what there is.
pub(super) fn filter(name: &str) -> Result<(), String> {
    let asked = STRICT.empty_state().apply_filter(name, &[]);
    if !asked.is_err_and(|error| error.kind() == ErrorKind::UnknownFilter) {
        return Ok(());
    }
    let instead = match caudal_types::nearest(name, FILTERS) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there are {} and more", FILTERS.join(", ")),
    };
    Err(format!("there is no filter {}; {instead}", caudal_types::shorten(name)))
}

fn fault(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

fn too_large() -> Error {
    fault(format!("it makes a text of more than {OUTPUT_BYTES} bytes"))
}

/// The words as text: JSON for what is no text.
pub(super) fn text(word: &Word) -> Result<String, Error> {
    Ok(match word.kind() {
        ValueKind::Undefined | ValueKind::None => String::new(),
        ValueKind::String => word.as_str().unwrap_or_default().to_owned(),
        _ => match super::hand::take(word)? {
            Value::Text(text) => text.to_string(),
            other => json(&other)?,
        },
    })
}

fn join(words: Word, between: Option<String>) -> Result<String, Error> {
    let between = between.unwrap_or_default();
    if let Some(text) = words.as_str() {
        let letters: Vec<String> = text.chars().map(String::from).collect();
        return sized(&letters, &between);
    }
    let texts: Vec<String> = words.try_iter()?.map(|word| text(&word)).collect::<Result<_, _>>()?;
    sized(&texts, &between)
}

fn sized(texts: &[String], between: &str) -> Result<String, Error> {
    let size = texts.iter().map(String::len).sum::<usize>() + between.len() * texts.len().saturating_sub(1);
    if size > OUTPUT_BYTES { Err(too_large()) } else { Ok(texts.join(between)) }
}

fn replace(text: String, from: String, to: String) -> Result<String, Error> {
    let size = text.len().saturating_add(text.matches(&*from).count().saturating_mul(to.len()));
    if size > OUTPUT_BYTES { Err(too_large()) } else { Ok(text.replace(&from, &to)) }
}

fn times(a: Word, b: Word) -> Result<Word, Error> {
    if a.is_integer() && b.is_integer() {
        let whole = |word: &Word| i128::try_from(word.clone()).ok();
        let product = whole(&a).zip(whole(&b)).and_then(|(a, b)| a.checked_mul(b));
        return product.map(Word::from).ok_or_else(|| fault("the product has more than 128 bits"));
    }
    match (f64::try_from(a), f64::try_from(b)) {
        (Ok(a), Ok(b)) => Ok(Word::from(a * b)),
        _ => Err(fault("times takes two numbers")),
    }
}

fn tojson(word: Word) -> Result<String, Error> {
    json(&super::hand::take(&word)?)
}

/// JSON of no more bytes than a text may have: a value may hold the same often.
fn json(value: &Value) -> Result<String, Error> {
    let mut to = Room(Vec::new());
    serde_json::to_writer(&mut to, value).map_err(|_| too_large())?;
    String::from_utf8(to.0).map_err(|_| too_large())
}

/// Room for a text.
struct Room(Vec<u8>);

impl io::Write for Room {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The methods that there are.
fn method(_: &mut State, of: &Word, name: &str, args: &[Word]) -> Result<Word, Error> {
    if name == "get" {
        return get(of, args);
    }
    let Some(text) = of.as_str() else { return Err(unknown(name)) };
    meter::word(of)?;
    Ok(match name {
        "lower" | "upper" | "strip" => {
            let () = from_args(args)?;
            match name {
                "lower" => Word::from(text.to_lowercase()),
                "upper" => Word::from(text.to_uppercase()),
                _ => Word::from(text.trim()),
            }
        }
        "startswith" => Word::from(text.starts_with(from_args::<(&str,)>(args)?.0)),
        "endswith" => Word::from(text.ends_with(from_args::<(&str,)>(args)?.0)),
        _ => return Err(unknown(name)),
    })
}

fn get(of: &Word, args: &[Word]) -> Result<Word, Error> {
    let (name, otherwise): (&str, Option<Word>) = from_args(args)?;
    let found = match of.downcast_object_ref::<Handed>() {
        Some(Handed(value)) => value.get(name).and_then(super::hand::counted),
        None if of.kind() == ValueKind::Map => of.get_attr(name).ok().filter(|word| !word.is_undefined()),
        None => return Err(fault(format!("get is asked of an object, not of {}", of.kind()))),
    };
    Ok(found.or(otherwise).unwrap_or_else(|| Word::from(())))
}

fn unknown(name: &str) -> Error {
    let known = "get, lower, upper, strip, startswith and endswith";
    Error::new(ErrorKind::UnknownMethod, format!("there is no method {name}: known are {known}"))
}
