//! The members of a JSON object, one after the other, as they stand: no tree. For texts that are known to be JSON, such
//! as canonical payloads; of others it gives what it can read, and never panics.

use std::borrow::Cow;

use memchr::memchr2;

/// Members of an object: key and value as written. Keys keep their escapes.
#[derive(Debug, Clone)]
pub(crate) struct Members<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Members<'a> {
    /// Those of `object`; none if it is none.
    pub(crate) fn of(object: &'a str) -> Self {
        let at = skip_space(object, 0);
        let at = if object.as_bytes().get(at) == Some(&b'{') { at + 1 } else { object.len() };
        Self { text: object, at }
    }

    /// Those of `object`; none if it is no object in UTF-8.
    pub(crate) fn of_bytes(object: &'a [u8]) -> Self {
        Self::of(simdutf8::basic::from_utf8(object).unwrap_or_default())
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let key = skip_space(self.text, self.at);
        let key_end = (self.text.as_bytes().get(key)? == &b'"').then(|| end(self.text, key)).flatten()?;
        let colon = skip_space(self.text, key_end);
        (self.text.as_bytes().get(colon)? == &b':').then_some(())?;
        let value = skip_space(self.text, colon + 1);
        let value_end = end(self.text, value)?;
        let comma = skip_space(self.text, value_end);
        // Without a comma nothing follows.
        let more = self.text.as_bytes().get(comma) == Some(&b',');
        self.at = if more { comma + 1 } else { self.text.len() };
        Some((self.text.get(key + 1..key_end - 1)?, self.text.get(value..value_end)?))
    }
}

/// What a string that stands so says; `None` for other values.
pub(crate) fn text(value: &str) -> Option<Cow<'_, str>> {
    let inside = value.strip_prefix('"')?.strip_suffix('"')?;
    if inside.contains('\\') { serde_json::from_str(value).ok().map(Cow::Owned) } else { Some(inside.into()) }
}

fn skip_space(text: &str, at: usize) -> usize {
    at + text.as_bytes().get(at..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Where the value ends that starts at `at`.
fn end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    match bytes.get(at)? {
        b'"' => string_end(bytes, at),
        b'{' | b'[' => {
            let (mut at, mut depth) = (at, 0u32);
            loop {
                match bytes.get(at)? {
                    b'"' => {
                        at = string_end(bytes, at)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        b',' | b'}' | b']' | b':' => None,
        _ => {
            let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b':') || byte.is_ascii_whitespace();
            Some(bytes[at..].iter().position(ends).map_or(bytes.len(), |length| at + length))
        }
    }
}

fn string_end(bytes: &[u8], quote: usize) -> Option<usize> {
    let mut at = quote + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn members(object: &str) -> Vec<(&str, &str)> {
        Members::of(object).collect()
    }

    #[test]
    fn members_come_as_they_stand() {
        assert_eq!(
            members(r#" {"a": 1, "b\n" :"x,\"}y","c":{"d":["]"]} , "e":[], "f": null}"#),
            [("a", "1"), ("b\\n", r#""x,\"}y""#), ("c", r#"{"d":["]"]}"#), ("e", "[]"), ("f", "null")]
        );
        assert!(members("{}").is_empty() && members("[1]").is_empty() && members("").is_empty());
        assert_eq!(members(r#"{"a":1"#), [("a", "1")]);
    }

    #[test]
    fn texts_are_read() {
        assert_eq!(text(r#""a\nñ""#).as_deref(), Some("a\nñ"));
        assert!(matches!(text("\"a\""), Some(Cow::Borrowed("a"))));
        assert_eq!((text("1"), text("\"")), (None, None));
    }

    proptest! {
        #[test]
        fn nothing_panics(object in r#"[{}\[\]",:\\a1 ]{0,30}"#) {
            let _ = members(&object);
        }
    }
}
