//! Class names that exporters leave in the model file.

use std::{collections::BTreeMap, iter::Peekable, str::Chars};

/// More classes than any model has: a class's number in a dictionary is not the length of what it comes from.
const MAX_CLASSES: usize = 1 << 17;

/// Reads Ultralytics' `names`, as Python or JSON write it: a dictionary such as `{0: 'person', 1: "child's toy"}`, whose keys
/// may stand in any order and leave some out, or a list. None if it is neither.
pub(crate) fn parse_names(text: &str) -> Option<Vec<String>> {
    let inner = caudal_types::without_mark(text.trim()).trim();
    let (inner, keyed) = match (inner.strip_prefix('{'), inner.strip_prefix('[')) {
        (Some(rest), _) => (rest.strip_suffix('}')?, true),
        (_, Some(rest)) => (rest.strip_suffix(']')?, false),
        _ => return None,
    };
    let mut names = BTreeMap::new();
    let mut rest = inner.chars().peekable();
    skip_blanks(&mut rest);
    while rest.peek().is_some() {
        let class = match keyed {
            true => key(&mut rest)?,
            false => names.len(),
        };
        skip_blanks(&mut rest);
        if names.insert(class, quoted(&mut rest)?).is_some() {
            return None;
        }
        skip_blanks(&mut rest);
        if rest.next_if_eq(&',').is_none() && rest.peek().is_some() {
            return None;
        }
        skip_blanks(&mut rest);
    }
    let classes = names.last_key_value().map_or(0, |(last, _)| last + 1);
    Some((0..classes).map(|class| names.remove(&class).unwrap_or_else(|| unnamed(class))).collect())
}

/// How a class is called that has no name.
pub(crate) fn unnamed(class: usize) -> String {
    format!("class_{class}")
}

type Letters<'a> = Peekable<Chars<'a>>;

fn skip_blanks(letters: &mut Letters<'_>) {
    while letters.next_if(|letter| letter.is_whitespace()).is_some() {}
}

/// A class's number, perhaps in quotes, and the colon behind it.
fn key(letters: &mut Letters<'_>) -> Option<usize> {
    let mut text = String::new();
    loop {
        match letters.next()? {
            ':' => break,
            letter => text.push(letter),
        }
    }
    let text = text.trim().trim_start_matches(['u', 'U']).trim_matches(['\'', '"']).trim();
    text.parse().ok().filter(|class| *class < MAX_CLASSES)
}

/// A string in either kind of quotes, which Python 2 writes behind a `u`.
fn quoted(letters: &mut Letters<'_>) -> Option<String> {
    letters.next_if(|first| matches!(first, 'u' | 'U'));
    let quote = letters.next().filter(|first| matches!(first, '\'' | '"'))?;
    let mut name = String::new();
    loop {
        match letters.next()? {
            '\\' => escaped(letters, &mut name)?,
            letter if letter == quote => return Some(name),
            letter => name.push(letter),
        }
    }
}

/// What a backslash begins, in JSON or in Python.
fn escaped(letters: &mut Letters<'_>, name: &mut String) -> Option<()> {
    let letter = match letters.next()? {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'x' => char::from_u32(hexadecimal(letters, 2)?)?,
        'U' => char::from_u32(hexadecimal(letters, 8)?)?,
        'u' => {
            let first = hexadecimal(letters, 4)?;
            // JSON writes a letter beyond 16 bits as two halves.
            match first {
                0xd800..=0xdbff => second_half(letters, first)?,
                _ => char::from_u32(first)?,
            }
        }
        letter @ ('\\' | '\'' | '"' | '/') => letter,
        // To Python it is a backslash like any other.
        letter => {
            name.push('\\');
            letter
        }
    };
    name.push(letter);
    Some(())
}

fn second_half(letters: &mut Letters<'_>, first: u32) -> Option<char> {
    (letters.next()? == '\\' && letters.next()? == 'u').then_some(())?;
    let second = hexadecimal(letters, 4).filter(|second| (0xdc00..=0xdfff).contains(second))?;
    char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
}

fn hexadecimal(letters: &mut Letters<'_>, digits: usize) -> Option<u32> {
    (0..digits).try_fold(0u32, |number, _| Some(number.checked_mul(16)? + letters.next()?.to_digit(16)?))
}

/// Says that there are more or fewer names than classes.
pub(crate) fn wrong_count(names: &[String], classes: usize) -> String {
    let number = |count: usize, one: &str, more: &str| format!("{count} {}", if count == 1 { one } else { more });
    let are = number(names.len(), "name is given", "names are given");
    let comment = names.iter().find(|name| name.starts_with('#'));
    let comment = comment.map_or_else(String::new, |name| format!("; {name:?} counts as a name"));
    format!("{are} for {}{comment}", number(classes, "class", "classes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&[&str]>) {
        let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(parse_names(text), expected, "{text}");
    }

    #[test]
    fn dictionaries_and_lists_of_names_are_read() {
        check("{0: 'person', 1: 'bicycle'}", Some(&["person", "bicycle"]));
        check(r#"{"0": "child's toy", "1": "b, c: d"}"#, Some(&["child's toy", "b, c: d"]));
        check("['a', \"b\",]", Some(&["a", "b"]));
        check(r"{0: 'it\'s'}", Some(&["it's"]));
        check("{}", Some(&[]));
        check("{1: 'b', 0: 'a', 2: 'c'}", Some(&["a", "b", "c"]));
        check("\u{feff}{0: u'person', u'1': u\"caf\\xe9\"}\n", Some(&["person", "café"]));
        check(" \u{feff} [u'a', U'b']", Some(&["a", "b"]));
    }

    #[test]
    fn classes_left_out_are_called_by_their_numbers() {
        check("{0:'a',2:'c'}", Some(&["a", "class_1", "c"]));
        check("{\n  \"4\": \"e\", \"2\": \"c\"}", Some(&["class_0", "class_1", "c", "class_3", "e"]));
        check("{0: 'a', 4000000000: 'b'}", None);
    }

    #[test]
    fn letters_are_those_that_json_and_python_mean() {
        check(
            r#"{"0": "caf\u00e9", "1": "\u4eba", "2": "\ud83d\ude97", "3": "a\/b"}"#,
            Some(&["café", "人", "🚗", "a/b"]),
        );
        check(
            r#"{0: 'caf\xe9', 1: "it's", 2: 'say "x"', 3: 'a\\b', 4: '\U0001f697'}"#,
            Some(&["café", "it's", "say \"x\"", r"a\b", "🚗"]),
        );
        check(r"['tab\there', 'a\db']", Some(&["tab\there", r"a\db"]));
        check("{0: 'café', 1: '人🚗'}", Some(&["café", "人🚗"]));
    }

    #[test]
    fn anything_else_is_no_list_of_names() {
        for text in [
            "",
            "person",
            "{-1: 'a'}",
            "a,b",
            "{0: 'a' 1: 'b'}",
            "{0: 'a",
            "[a]",
            "{0 'a'}",
            "{0: 'a', 0: 'b'}",
            r"['\x4']",
            r"['\ud83d']",
            r"['\ud83d\u0041']",
            r"['\uzzzz']",
            r"['a\']",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn names_and_classes_are_counted_in_words() {
        let words = |names: &[&str], classes| {
            wrong_count(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), classes)
        };
        assert_eq!(words(&["a"], 2), "1 name is given for 2 classes");
        assert_eq!(words(&["# all", "a"], 1), "2 names are given for 1 class; \"# all\" counts as a name");
    }
}
