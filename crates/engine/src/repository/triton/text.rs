//! Protobuf's text format, parsed without a schema: fields with their values, in order.
//!
//! Follows the text format's language specification at protobuf.dev.

use std::{iter::Peekable, str::CharIndices};

/// Maximum nesting of messages.
const MAX_DEPTH: usize = 32;

/// A message: its fields, in order. A repeated field occurs several times.
#[derive(Debug, Default, PartialEq)]
pub(super) struct TextMessage(Vec<(String, FieldValue)>);

#[derive(Debug, PartialEq)]
enum FieldValue {
    Scalar(Scalar),
    Message(TextMessage),
}

/// A value that is not a message.
#[derive(Debug, PartialEq)]
pub(super) enum Scalar {
    /// A quoted string.
    Text(String),
    /// A number, an enum's name or a boolean.
    Word(String),
}

impl TextMessage {
    pub(super) fn field_names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn has_field(&self, name: &str) -> bool {
        self.field_names().any(|own| own == name)
    }

    fn fields_named(&self, name: &str) -> impl Iterator<Item = &FieldValue> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, field)| field)
    }

    /// The values of the field `name`.
    pub(super) fn scalar_values(&self, name: &str) -> Result<Vec<&Scalar>, String> {
        let mut scalars = Vec::new();
        for field in self.fields_named(name) {
            match field {
                FieldValue::Scalar(scalar) => scalars.push(scalar),
                FieldValue::Message(_) => return Err(format!("{name} is a value, not a message")),
            }
        }
        Ok(scalars)
    }

    /// The messages in the field `name`.
    pub(super) fn message_values(&self, name: &str) -> Result<Vec<&Self>, String> {
        let mut messages = Vec::new();
        for field in self.fields_named(name) {
            match field {
                FieldValue::Message(message) => messages.push(message),
                FieldValue::Scalar(_) => return Err(format!("{name} is a message in braces")),
            }
        }
        Ok(messages)
    }
}

/// Parses `text`.
pub(super) fn parse_text(text: &str) -> Result<TextMessage, String> {
    let mut parser = TextParser { text, chars: text.char_indices().peekable() };
    let read = parser.parse_message(None, 0);
    read.map_err(|reason| {
        let at = parser.chars.peek().map_or(text.len(), |(at, _)| *at);
        format!("line {}: {reason}", text[..at].trim_end().lines().count().max(1))
    })
}

struct TextParser<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
}

impl TextParser<'_> {
    /// Parses fields until `end`, or until the end of the text.
    fn parse_message(&mut self, end: Option<char>, depth: usize) -> Result<TextMessage, String> {
        if depth > MAX_DEPTH {
            return Err("messages nest too deeply".to_owned());
        }
        let mut message = TextMessage::default();
        loop {
            match self.next_symbol() {
                None if end.is_none() => return Ok(message),
                None => return Err("a message has no end".to_owned()),
                Some(symbol) if Some(symbol) == end => {
                    self.chars.next();
                    return Ok(message);
                }
                Some(',' | ';') => drop(self.chars.next()),
                Some(_) => self.parse_field(&mut message, depth)?,
            }
        }
    }

    fn parse_field(&mut self, message: &mut TextMessage, depth: usize) -> Result<(), String> {
        let name = self.parse_word()?;
        let colon = self.next_symbol() == Some(':');
        if colon {
            self.chars.next();
        }
        if self.next_symbol() != Some('[') {
            let field = self.parse_value(colon, depth)?;
            message.0.push((name, field));
            return Ok(());
        }
        self.chars.next();
        loop {
            match self.next_symbol() {
                None => return Err("a list has no end".to_owned()),
                Some(']') => {
                    self.chars.next();
                    return Ok(());
                }
                Some(',') => drop(self.chars.next()),
                Some(_) => {
                    let field = self.parse_value(colon, depth)?;
                    message.0.push((name.clone(), field));
                }
            }
        }
    }

    fn parse_value(&mut self, colon: bool, depth: usize) -> Result<FieldValue, String> {
        match self.next_symbol() {
            Some(open @ ('{' | '<')) => {
                self.chars.next();
                let end = if open == '{' { '}' } else { '>' };
                self.parse_message(Some(end), depth + 1).map(FieldValue::Message)
            }
            Some('"' | '\'') if colon => self.parse_strings().map(|text| FieldValue::Scalar(Scalar::Text(text))),
            Some(_) if colon => self.parse_word().map(|word| FieldValue::Scalar(Scalar::Word(word))),
            _ => Err("a field has no value".to_owned()),
        }
    }

    /// The next character that is neither whitespace nor part of a comment.
    fn next_symbol(&mut self) -> Option<char> {
        loop {
            match self.chars.peek()?.1 {
                '#' => while self.chars.next_if(|(_, symbol)| *symbol != '\n').is_some() {},
                symbol if symbol.is_whitespace() => drop(self.chars.next()),
                symbol => return Some(symbol),
            }
        }
    }

    fn parse_word(&mut self) -> Result<String, String> {
        let from = self.chars.peek().map_or(self.text.len(), |(at, _)| *at);
        let part = |symbol: char| symbol.is_ascii_alphanumeric() || "_.+-".contains(symbol);
        while self.chars.next_if(|(_, symbol)| part(*symbol)).is_some() {}
        let to = self.chars.peek().map_or(self.text.len(), |(at, _)| *at);
        match &self.text[from..to] {
            "" => Err(format!("{:?} stands where a name or a value is due", self.text[from..].chars().next())),
            word => Ok(word.to_owned()),
        }
    }

    /// Adjacent strings are concatenated.
    fn parse_strings(&mut self) -> Result<String, String> {
        let mut text = String::new();
        while let Some(quote @ ('"' | '\'')) = self.next_symbol() {
            self.chars.next();
            loop {
                match self.chars.next().map(|(_, symbol)| symbol) {
                    None | Some('\n') => return Err("a text has no end".to_owned()),
                    Some(symbol) if symbol == quote => break,
                    Some('\\') => text.push(match self.chars.next().map(|(_, symbol)| symbol) {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some(symbol @ ('\\' | '"' | '\'')) => symbol,
                        _ => return Err("a text has an escape that is not read here".to_owned()),
                    }),
                    Some(symbol) => text.push(symbol),
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parser_never_panics(text in "[a-c{}\\[\\]<>:,;#\"' \n\\\\0-9-]{0,60}") {
            let _ = parse_text(&text);
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(parse_text(&"a {".repeat(100_000)).unwrap_err().contains("too deeply"));
    }
}
