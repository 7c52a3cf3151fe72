//! Sources of expressions, before they are compiled: which parts of a text are expressions, and what none may hold.

use super::{JOINS, SOURCE_BYTES, WORDS, WordsError};

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    /// An expression, and where it begins.
    Expression(&'a str, usize),
}

const BLOCKS: &str = "texts know {{ }} alone: for loops take a step of kind map, for choices `a if b else c`";

/// Parts a text into what is said and what is worked out.
pub(super) fn parts(source: &str) -> Result<Vec<Part<'_>>, WordsError> {
    short(source)?;
    if let Some(offset) = source.find("{%") {
        return Err(WordsError::new(source, offset, "blocks such as {% for %} are not known", BLOCKS));
    }
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(open) = source[at..].find("{{").map(|open| open + at) {
        let Some(end) = end(source, open + 2) else {
            return Err(WordsError::new(source, open, "{{ is never closed", "close it by }}"));
        };
        if open > at {
            parts.push(Part::Text(&source[at..open]));
        }
        let inner = &source[open + 2..end];
        if inner.starts_with(['#', '/']) {
            return Err(WordsError::new(source, open, "blocks such as {{#each}} are not known", BLOCKS));
        }
        // Marks for spaces change nothing of a value.
        let marked = inner.strip_prefix('-').unwrap_or(inner);
        let offset = end - marked.len();
        parts.push(Part::Expression(marked.strip_suffix('-').unwrap_or(marked), offset));
        at = end + 2;
    }
    if at < source.len() {
        parts.push(Part::Text(&source[at..]));
    }
    Ok(parts)
}

pub(super) fn short(source: &str) -> Result<(), WordsError> {
    if source.len() > SOURCE_BYTES {
        let message = format!("it has {} bytes, and {SOURCE_BYTES} are the most", source.len());
        return Err(WordsError::new(source, 0, message, "put long texts into the context or into a file"));
    }
    Ok(())
}

/// Where the `}}` stands that closes an expression from `start` on.
fn end(source: &str, start: usize) -> Option<usize> {
    let mut open = 0usize;
    for (offset, sign) in Signs::new(&source[start..]) {
        match sign {
            b'{' | b'[' | b'(' => open += 1,
            b'}' if open == 0 && source[start + offset + 1..].starts_with('}') => return Some(start + offset),
            b'}' | b']' | b')' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// What stands in an expression outside its quoted texts, byte by byte.
struct Signs<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Signs<'a> {
    fn new(source: &'a str) -> Self {
        Self { bytes: source.as_bytes(), at: 0 }
    }
}

impl Iterator for Signs<'_> {
    type Item = (usize, u8);

    fn next(&mut self) -> Option<(usize, u8)> {
        let at = self.at;
        let sign = *self.bytes.get(at)?;
        self.at += 1;
        if matches!(sign, b'\'' | b'"') {
            while let Some(&other) = self.bytes.get(self.at) {
                self.at += if other == b'\\' { 2 } else { 1 };
                if other == sign {
                    break;
                }
            }
        }
        Some((at, sign))
    }
}

/// An expression as the compiler takes it: `steps.x` in place of `steps.x.output`,
/// which are the same. All that stays is where it was.
pub(super) fn ready(source: &str) -> Result<String, WordsError> {
    short(source)?;
    let mut ready = source.to_owned().into_bytes();
    let (mut joins, mut words, mut before) = (0, 0, b' ');
    for (offset, sign) in Signs::new(source) {
        words += usize::from(!(sign.is_ascii_whitespace() || word(sign) && word(before)));
        before = sign;
        match sign {
            b'*' => {
                let hint = "write a|times(b)";
                return Err(WordsError::new(source, offset, "* is not known: it repeats texts too", hint));
            }
            b'~' | b'+' => joins += 1,
            b's' => blank(&mut ready, source, offset),
            _ => {}
        }
        if words > WORDS {
            let message = format!("it has more than {WORDS} words and signs");
            return Err(WordsError::new(source, offset, message, "part it into several steps"));
        }
        if joins > JOINS {
            let message = format!("it joins more than {JOINS} times");
            return Err(WordsError::new(source, offset, message, "use a list and |join"));
        }
    }
    String::from_utf8(ready).map_err(|_| WordsError::new(source, 0, "it is no text", "write it in UTF-8"))
}

fn word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// Blanks `.output` where `steps.<name>.output` begins at `offset`.
fn blank(ready: &mut [u8], source: &str, offset: usize) {
    let bytes = source.as_bytes();
    let inside = offset > 0 && (word(bytes[offset - 1]) || bytes[offset - 1] == b'.');
    let rest = &source[offset..];
    if inside || !rest.starts_with("steps") {
        return;
    }
    let Some(name) = name_after(&rest[5..]) else { return };
    let from = offset + 5 + name;
    let after = &source[from..];
    if after.starts_with(".output") && !after.as_bytes().get(7).is_some_and(|byte| word(*byte)) {
        ready[from..from + 7].fill(b' ');
    }
}

/// How long `.name` or `['name']` is, if one stands there.
fn name_after(rest: &str) -> Option<usize> {
    let bytes = rest.as_bytes();
    match (bytes.first()?, bytes.get(1)?) {
        (b'.', _) => {
            let length = bytes[1..].iter().take_while(|byte| word(**byte)).count();
            (length > 0).then_some(length + 1)
        }
        (b'[', quote @ (b'\'' | b'"')) => {
            let close = bytes[2..].iter().position(|byte| byte == quote)? + 2;
            (bytes.get(close + 1) == Some(&b']')).then_some(close + 2)
        }
        _ => None,
    }
}

/// The filters that an expression names, and where.
pub(super) fn filters(source: &str) -> impl Iterator<Item = (usize, &str)> {
    Signs::new(source).filter(|(_, sign)| *sign == b'|').filter_map(|(offset, _)| {
        let rest = source[offset + 1..].trim_start();
        let from = source.len() - rest.len();
        let length = rest.bytes().take_while(|byte| word(*byte)).count();
        (length > 0).then(|| (from, &rest[..length]))
    })
}
