//! Comparisons that decide: `<`, `<=`, `>`, `>=`, and what of several is the least or the most.
//!
//! The language has an order for values of any kinds, so that lists can be sorted. To decide by it would be a silent
//! fault (`"5" > 100` holds there), so each such comparison is compiled as a call of a filter, which refuses
//! values of unlike kinds as Python does.

use std::{cmp::Ordering, fmt::Write as _};

use minijinja::{
    Environment, Error, ErrorKind, State, UndefinedBehavior, filters,
    tests::is_in,
    value::{Kwargs, Rest, Value as Word, ValueKind},
};

use super::{
    hand::Handed,
    source::{Signs, word},
};
use crate::value::Value;

/// The filter's name.
const FILTER: &str = "compared";
/// How a failure begins that names two kinds.
pub(super) const UNLIKE: &str = "is not supported between";

/// Teaches the language to compare.
pub(super) fn teach(language: &mut Environment<'static>, undefined: UndefinedBehavior) {
    // What is not there is nothing where questions are asked, and no comparison with nothing holds.
    let lenient = undefined == UndefinedBehavior::Chainable;
    language
        .add_filter(FILTER, move |state: &State, first: Word, rest: Rest<Word>| chain(state, lenient, &first, &rest));
    for (sign, names) in [
        ("<", ["lt", "lessthan", "<"].as_slice()),
        ("<=", &["le", "<="]),
        (">", &["gt", "greaterthan", ">"]),
        (">=", &["ge", ">="]),
    ] {
        for name in names {
            language.add_test(*name, move |a: Word, b: Word| ordered(lenient, &a, sign, &b));
        }
    }
}

/// The least of several, which are of one kind.
pub(super) fn min(state: &State, words: Word, kwargs: Kwargs) -> Result<Word, Error> {
    filters::min(state, of_one_kind("min", &words, &kwargs)?, kwargs)
}

/// The most of several, which are of one kind.
pub(super) fn max(state: &State, words: Word, kwargs: Kwargs) -> Result<Word, Error> {
    filters::max(state, of_one_kind("max", &words, &kwargs)?, kwargs)
}

fn of_one_kind(filter: &str, words: &Word, kwargs: &Kwargs) -> Result<Word, Error> {
    let attribute: Option<String> = kwargs.get("attribute")?;
    let items: Vec<Word> = words.try_iter()?.collect();
    let path = attribute.as_deref().unwrap_or_default();
    let looked_at = |item: &Word| {
        let names = path.split('.').filter(|name| !name.is_empty());
        names.fold(item.clone(), |word, name| word.get_attr(name).unwrap_or_default())
    };
    let mut known = items.iter().map(looked_at).filter(|word| !word.is_undefined());
    if let Some(first) = known.next() {
        known.try_for_each(|other| order(filter, &first, &other).map(drop))?;
    }
    Ok(Word::from(items))
}

/// `first`, then a sign and what stands behind it, and so on: all must hold, as in Python.
fn chain(state: &State, lenient: bool, first: &Word, rest: &[Word]) -> Result<bool, Error> {
    let mut left = first;
    for pair in rest.chunks_exact(2) {
        let (sign, right) = (pair[0].as_str().unwrap_or_default(), &pair[1]);
        let holds = match sign {
            "==" => left == right,
            "!=" => left != right,
            "in" => is_in(state, left, right)?,
            "not in" => !is_in(state, left, right)?,
            sign => ordered(lenient, left, sign, right)?,
        };
        if !holds {
            return Ok(false);
        }
        left = right;
    }
    Ok(true)
}

fn ordered(lenient: bool, a: &Word, sign: &str, b: &Word) -> Result<bool, Error> {
    if a.is_undefined() || b.is_undefined() {
        return if lenient { Ok(false) } else { Err(ErrorKind::UndefinedError.into()) };
    }
    let order = order(sign, a, b)?;
    Ok(match sign {
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    })
}

/// The order of two values of one kind: numbers (true is 1), texts, bytes, lists of such.
fn order(sign: &str, a: &Word, b: &Word) -> Result<Ordering, Error> {
    use ValueKind::{Bool, Iterable, Number, Seq, String};
    let handed = |word: &Word| word.downcast_object_ref::<Handed>().map(|Handed(value)| value.clone());
    match (a.kind(), b.kind()) {
        (Number | Bool, Number | Bool) => Ok(number(a).cmp(&number(b))),
        (String, String) => Ok(a.as_str().cmp(&b.as_str())),
        (Seq | Iterable, Seq | Iterable) => {
            let (mut left, mut right) = (a.try_iter()?, b.try_iter()?);
            loop {
                match (left.next(), right.next()) {
                    (Some(a), Some(b)) if a == b => {}
                    (Some(a), Some(b)) => return order(sign, &a, &b),
                    (a, b) => return Ok(a.is_some().cmp(&b.is_some())),
                }
            }
        }
        _ => match (handed(a), handed(b)) {
            (Some(Value::Bytes(a)), Some(Value::Bytes(b))) => Ok(a.cmp(&b)),
            _ => {
                let why = format!("`{sign}` {UNLIKE} {} and {}", kind(a), kind(b));
                Err(Error::new(ErrorKind::InvalidOperation, why))
            }
        },
    }
}

fn number(word: &Word) -> Word {
    if word.kind() == ValueKind::Bool { Word::from(i64::from(word.is_true())) } else { word.clone() }
}

/// A value's kind, in JSON's words.
fn kind(word: &Word) -> String {
    match word.downcast_object_ref::<Handed>() {
        Some(Handed(Value::Number(_))) => return "a number of more than 128 bits".to_owned(),
        Some(Handed(value)) => return value.sort().to_owned(),
        None => {}
    }
    let name = match word.kind() {
        ValueKind::None => "null",
        ValueKind::Bool => "boolean",
        ValueKind::Number => "number",
        ValueKind::String => "string",
        ValueKind::Seq | ValueKind::Iterable => "array",
        ValueKind::Map => "object",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// An expression, which can be read, with its comparisons as calls of the filter; `None` if none of them decides by order.
pub(super) fn with_calls(source: &str) -> Option<String> {
    let marks = marks(source);
    let orders = |mark: &Mark<'_>| matches!(mark.what, What::Compare(sign) if sign.starts_with(['<', '>']));
    marks.iter().any(orders).then(|| Rewriting { source, marks: marks.into_iter(), at: 0 }.level())
}

/// A part of an expression that bounds what is compared.
struct Mark<'a> {
    from: usize,
    to: usize,
    what: What<'a>,
}

enum What<'a> {
    Open,
    Close,
    /// A sign or word that binds looser than a comparison.
    Split,
    Compare(&'a str),
}

/// The brackets, comparisons and looser signs of an expression, in order.
fn marks(source: &str) -> Vec<Mark<'_>> {
    let tokens = tokens(source);
    let (mut marks, mut at, mut is_test, mut named) = (Vec::new(), 0, false, false);
    while let Some(&(from, mut to)) = tokens.get(at) {
        at += 1;
        let token = &source[from..to];
        let next = || tokens.get(at).map(|(from, to)| (&source[*from..*to], *to));
        let what = match token {
            "(" | "[" | "{" => Some(What::Open),
            ")" | "]" | "}" => Some(What::Close),
            "," | ":" | "=" => Some(What::Split),
            "<" | "<=" | ">" | ">=" | "==" | "!=" => Some(What::Compare(token)),
            // The name of a test is yet to come.
            "not" if is_test => continue,
            _ if is_test || named => None,
            "in" => Some(What::Compare(token)),
            "not" => Some(match next() {
                Some(("in", end)) => {
                    (to, at) = (end, at + 1);
                    What::Compare("not in")
                }
                _ => What::Split,
            }),
            "and" | "or" | "if" | "else" => Some(What::Split),
            _ => None,
        };
        is_test = token == "is" && !named && !is_test;
        named = matches!(token, "." | "|");
        marks.extend(what.map(|what| Mark { from, to, what }));
    }
    marks
}

/// Where the words and signs of an expression begin and end; of a quoted text, its first quote.
fn tokens(source: &str) -> Vec<(usize, usize)> {
    let bytes = source.as_bytes();
    let joined = |from: usize, to: usize, byte: u8| match &bytes[from..to] {
        [b'<' | b'>' | b'=' | b'!'] => byte == b'=',
        before => word(byte) && before.iter().all(|byte| word(*byte)),
    };
    let mut tokens: Vec<(usize, usize)> = Vec::new();
    for (at, byte) in Signs::new(source).filter(|(_, byte)| !byte.is_ascii_whitespace()) {
        match tokens.last_mut() {
            Some((from, to)) if *to == at && joined(*from, *to, byte) => *to += 1,
            _ => tokens.push((at, at + 1)),
        }
    }
    tokens
}

struct Rewriting<'a> {
    source: &'a str,
    marks: std::vec::IntoIter<Mark<'a>>,
    at: usize,
}

impl<'a> Rewriting<'a> {
    /// What stands up to the bracket that closes, or to the end.
    fn level(&mut self) -> String {
        let (mut written, mut comparison) = (String::new(), Comparison::default());
        loop {
            let mark = self.marks.next();
            let end = mark.as_ref().map_or(self.source.len(), |mark| mark.from);
            comparison.last.push_str(&self.source[self.at..end]);
            let Some(mark) = mark else { break };
            self.at = mark.to;
            let sign = &self.source[mark.from..mark.to];
            match mark.what {
                What::Open => {
                    let within = self.level();
                    comparison.last.push_str(sign);
                    comparison.last.push_str(&within);
                }
                What::Close => {
                    comparison.write(&mut written);
                    written.push_str(sign);
                    return written;
                }
                What::Split => {
                    std::mem::take(&mut comparison).write(&mut written);
                    written.push_str(sign);
                }
                What::Compare(name) => comparison.next(name, sign),
            }
        }
        comparison.write(&mut written);
        written
    }
}

/// What stands between two looser signs: one value, or several that are compared.
#[derive(Default)]
struct Comparison<'a> {
    /// Each with the sign behind it, by its name and as it stands there.
    before: Vec<(String, &'a str, &'a str)>,
    last: String,
}

impl<'a> Comparison<'a> {
    fn next(&mut self, name: &'a str, sign: &'a str) {
        self.before.push((std::mem::take(&mut self.last), name, sign));
    }

    fn write(self, to: &mut String) {
        if !self.before.iter().any(|(_, name, _)| name.starts_with(['<', '>'])) {
            for (value, _, sign) in &self.before {
                to.push_str(value);
                to.push_str(sign);
            }
            to.push_str(&self.last);
            return;
        }
        let names = self.before.iter().map(|(_, name, _)| *name);
        let values = self.before.iter().skip(1).map(|(value, ..)| value).chain([&self.last]);
        let call: Vec<String> =
            names.zip(values).map(|(name, value)| format!("'{name}', ({})", value.trim())).collect();
        let first = self.before.first().map_or("", |(value, ..)| value.trim());
        let _ = write!(to, " ({first})|{FILTER}({}) ", call.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_become_calls() {
        let check = |source: &str, expected: &str| {
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(with_calls(source).map(|written| words(&written)).as_deref(), Some(expected), "{source}");
        };
        check("a < b", "(a)|compared('<', (b))");
        check("a+1<=-b.c", "(a+1)|compared('<=', (-b.c))");
        check("not a.if > 3 and b == 'x < y'", "not (a.if)|compared('>', (3)) and b == 'x < y'");
        check("1 < x <= 3 != y", "(1)|compared('<', (x), '<=', (3), '!=', (y))");
        check("(a > 1) in [b>2, c]", "( (a)|compared('>', (1)) ) in [ (b)|compared('>', (2)) , c]");
        check("a if b > 1 else c", "a if (b)|compared('>', (1)) else c");
        check("x is not none and x > 1", "x is not none and (x)|compared('>', (1))");
        check("x is in [1] and x > 1", "x is in [1] and (x)|compared('>', (1))");
        check("{'a': b < c}", "{'a': (b)|compared('<', (c)) }");
        check("x|default(value=1 < 2) >= 2", "(x|default(value= (1)|compared('<', (2)) ))|compared('>=', (2))");
        check("a not  in b > c", "(a)|compared('not in', (b), '>', (c))");
        check("ñ < año", "(ñ)|compared('<', (año))");
        for same in ["a == b", "'a < b'", "a in b", "a ~ \"<\""] {
            assert_eq!(with_calls(same), None, "{same}");
        }
    }
}
