//! Sources of expressions, before they are compiled: which parts of a text are expressions, and what none may hold.

use super::{JOINS, PARTS, SOURCE_BYTES, WORDS, WordsError};

/// A part of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    /// An expression, and where it begins.
    Expression(&'a str, usize),
    Block(Block<'a>),
}

/// What stands in `{% %}`, or in `{{ }}` behind a `#` or `/`, or an `else`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block<'a> {
    /// What it does.
    pub(super) word: &'a str,
    /// All that stands behind the word.
    pub(super) rest: &'a str,
    /// Where it begins.
    pub(super) at: usize,
    /// Where `rest` ends.
    end: usize,
}

impl Block<'_> {
    /// As it is told of.
    pub(super) fn shown(&self) -> String {
        let word = caudal_types::shorten(self.word);
        if self.word.starts_with(['#', '/']) { format!("{{{{{word}}}}}") } else { format!("{{% {word} %}}") }
    }

    /// Where the end of `rest` begins that is `part`.
    pub(super) fn after(&self, part: &str) -> usize {
        self.end - part.len()
    }
}

/// Parts a text into what is said, what is worked out, and what parts and repeats it.
pub(super) fn parts(source: &str) -> Result<Vec<Part<'_>>, WordsError> {
    short(source)?;
    let (mut parts, mut at, mut trim) = (Vec::new(), 0, false);
    while let Some(open) = opening(source, at) {
        let block = source[open + 1..].starts_with('%');
        let Some(end) = end(source, open + 2, if block { b'%' } else { b'}' }) else {
            let (sign, hint) = if block { ("{%", "close it by %}") } else { ("{{", "close it by }}") };
            return Err(WordsError::new(source, open, format!("{sign} is never closed"), hint));
        };
        // Signs for spaces take those away that stand beside.
        let inner = &source[open + 2..end];
        let marked = inner.strip_prefix('-').unwrap_or(inner);
        let from = end - marked.len();
        let inner = marked.strip_suffix('-').unwrap_or(marked);
        said(&mut parts, &source[at..open], trim, from > open + 2);
        trim = inner.len() < marked.len();
        parts.push(match block || inner.starts_with(['#', '/']) || inner.trim() == "else" {
            true => Part::Block(worded(inner, open, from)),
            false => Part::Expression(inner, from),
        });
        at = end + 2;
    }
    said(&mut parts, &source[at..], trim, false);
    Ok(parts)
}

fn said<'a>(parts: &mut Vec<Part<'a>>, text: &'a str, trim_start: bool, trim_end: bool) {
    let text = if trim_start { text.trim_start() } else { text };
    let text = if trim_end { text.trim_end() } else { text };
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
}

/// Where the next `{{` or `{%` stands.
fn opening(source: &str, at: usize) -> Option<usize> {
    let opens = |place: &usize| source[place + 1..].starts_with(['{', '%']);
    source[at..].match_indices('{').map(|(place, _)| at + place).find(opens)
}

/// The word of a block, and the rest.
fn worded(inner: &str, at: usize, from: usize) -> Block<'_> {
    let (end, inner) = (from + inner.len(), inner.trim_start());
    let (word, rest) = inner.split_at(inner.find(char::is_whitespace).unwrap_or(inner.len()));
    Block { word, rest, at, end }
}

pub(super) fn short(source: &str) -> Result<(), WordsError> {
    if source.len() > SOURCE_BYTES {
        let message = format!("it has {} bytes, and {SOURCE_BYTES} are the most", source.len());
        return Err(WordsError::new(source, 0, message, "put long texts into the context or into a file"));
    }
    Ok(())
}

/// Where the `}}` or `%}` stands that closes what begins at `start`.
fn end(source: &str, start: usize, first: u8) -> Option<usize> {
    let mut open = 0usize;
    for (offset, sign) in Signs::new(&source[start..]) {
        match sign {
            _ if sign == first && open == 0 && source[start + offset + 1..].starts_with('}') => {
                return Some(start + offset);
            }
            b'{' | b'[' | b'(' => open += 1,
            b'}' | b']' | b')' => open = open.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// What stands in an expression outside its quoted texts, byte by byte.
pub(super) struct Signs<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Signs<'a> {
    pub(super) fn new(source: &'a str) -> Self {
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
    let (mut joins, mut cuts, mut words, mut before) = (0, 0, 0, b' ');
    let mut open = Vec::new();
    for (offset, sign) in Signs::new(source) {
        words += usize::from(!(sign.is_ascii_whitespace() || word(sign) && word(before)));
        before = sign;
        match sign {
            b'*' => {
                let hint = "write a|times(b)";
                return Err(WordsError::new(source, offset, "* is not known: it repeats texts too", hint));
            }
            b'~' | b'+' => joins += 1,
            b'[' | b'(' | b'{' => open.push(sign),
            b']' | b')' | b'}' => drop(open.pop()),
            b':' if open.last() == Some(&b'[') => cuts += 1,
            b's' => blank(&mut ready, source, offset),
            _ => {}
        }
        if words > WORDS {
            let message = format!("it has more than {WORDS} words and signs");
            return Err(WordsError::new(source, offset, message, "part it into several steps"));
        }
        if cuts > PARTS * 2 {
            let message = format!("it takes parts of texts or lists more than {PARTS} times");
            return Err(WordsError::new(source, offset, message, "part it into several steps"));
        }
        if joins > JOINS {
            let message = format!("it joins more than {JOINS} times");
            return Err(WordsError::new(source, offset, message, "use a list and |join"));
        }
    }
    String::from_utf8(ready).map_err(|_| WordsError::new(source, 0, "it is no text", "write it in UTF-8"))
}

/// Whether an expression is one name and nothing else, such as `context.list`.
pub(super) fn is_name(source: &str) -> bool {
    let source = source.trim();
    !source.is_empty() && source.bytes().all(|byte| word(byte) || byte == b'.')
}

/// Whether a byte may be of a name.
pub(super) fn word(byte: u8) -> bool {
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
