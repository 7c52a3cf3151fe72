//! Lists in one parameter, as CSV writes a record (RFC 4180): divided by commas; what holds a comma stands in double quotes,
//! in which `""` is a quote.

/// The items of `list` without blanks around them and without empty ones; nothing where a quote is not closed.
pub(crate) fn split(list: &str) -> Option<Vec<String>> {
    let (mut items, mut rest) = (Vec::new(), list.trim());
    loop {
        let (item, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (item, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (item.trim_end().to_owned(), after)
            }
        };
        if !item.is_empty() {
            items.push(item);
        }
        match after.trim_start().strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None => return after.trim().is_empty().then_some(items),
        }
    }
}

/// The item that begins behind a quote, and what follows the quote that closes it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let (mut item, mut rest) = (String::new(), quoted);
    loop {
        let (before, after) = rest.split_once('"')?;
        item.push_str(before);
        match after.strip_prefix('"') {
            Some(more) => {
                item.push('"');
                rest = more;
            }
            None => return Some((item, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn items_are_divided_by_commas_outside_of_quotes() {
        for (list, expected) in [
            ("", &[][..]),
            (" , ,", &[]),
            ("1, bus ,2", &["1", "bus", "2"]),
            (r#""salt, pepper",bus"#, &["salt, pepper", "bus"]),
            (r#" "a ""b"", c" , 27" screen"#, &[r#"a "b", c"#, r#"27" screen"#]),
        ] {
            assert_eq!(split(list).unwrap(), expected, "{list}");
        }
        for list in [r#""bus"#, r#""a" b"#, r#"bus,"salt, pepper"#] {
            assert_eq!(split(list), None, "{list}");
        }
    }
}
