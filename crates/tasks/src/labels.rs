//! Class names that exporters leave in the model file.

/// Reads Ultralytics' `names`: a Python dictionary such as `{0: 'person', 1: "child's toy"}`, or a list. None
/// if it is neither, or has gaps.
pub(crate) fn parse_names(text: &str) -> Option<Vec<String>> {
    let inner = text.trim();
    let (inner, keyed) = match (inner.strip_prefix('{'), inner.strip_prefix('[')) {
        (Some(rest), _) => (rest.strip_suffix('}')?, true),
        (_, Some(rest)) => (rest.strip_suffix(']')?, false),
        _ => return None,
    };
    let mut names: Vec<String> = Vec::new();
    let mut rest = inner.trim_start();
    while !rest.is_empty() {
        if keyed {
            let (key, after) = rest.split_once(':')?;
            let key = key.trim().trim_matches(['\'', '"']);
            if key.parse() != Ok(names.len()) {
                return None;
            }
            rest = after.trim_start();
        }
        let (name, after) = quoted(rest)?;
        names.push(name);
        rest = after.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if rest.is_empty() => rest,
            None => return None,
        };
    }
    Some(names)
}

/// A string in either kind of quotes, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"'))?;
    let mut name = String::new();
    let mut letters = text.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => name.push(letters.next()?.1),
            letter if letter == quote => return Some((name, &text[at + 1..])),
            letter => name.push(letter),
        }
    }
    None
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
    }

    #[test]
    fn anything_else_is_no_list_of_names() {
        for text in ["", "person", "{1: 'a'}", "{0: 'a' 1: 'b'}", "{0: 'a", "[a]", "{0 'a'}"] {
            check(text, None);
        }
    }
}
