//! Protobuf's text format, without knowing the messages: fields with their values, in order.
//!
//! After the text format's language specification at protobuf.dev.

use std::{iter::Peekable, str::CharIndices};

/// Messages nest no deeper in any configuration.
const MAX_DEPTH: usize = 32;

/// A message: its fields, in order. A repeated field stands there several times.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Message(Vec<(String, Field)>);

#[derive(Debug, PartialEq)]
enum Field {
    Scalar(Scalar),
    Message(Message),
}

/// A value that is no message.
#[derive(Debug, PartialEq)]
pub(super) enum Scalar {
    /// What stood in quotes.
    Text(String),
    /// A number, an enum's name or a truth value.
    Word(String),
}

impl Message {
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.names().any(|own| own == name)
    }

    fn fields(&self, name: &str) -> impl Iterator<Item = &Field> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, field)| field)
    }

    /// The values of the field `name`.
    pub(super) fn scalars(&self, name: &str) -> Result<Vec<&Scalar>, String> {
        let mut scalars = Vec::new();
        for field in self.fields(name) {
            match field {
                Field::Scalar(scalar) => scalars.push(scalar),
                Field::Message(_) => return Err(format!("{name} is a value, not a message")),
            }
        }
        Ok(scalars)
    }

    /// The messages in the field `name`.
    pub(super) fn messages(&self, name: &str) -> Result<Vec<&Self>, String> {
        let mut messages = Vec::new();
        for field in self.fields(name) {
            match field {
                Field::Message(message) => messages.push(message),
                Field::Scalar(_) => return Err(format!("{name} is a message in braces")),
            }
        }
        Ok(messages)
    }
}

/// Reads `text`.
pub(super) fn parse(text: &str) -> Result<Message, String> {
    let mut parser = Parser { text, chars: text.char_indices().peekable() };
    let read = parser.message(None, 0);
    read.map_err(|reason| {
        let at = parser.chars.peek().map_or(text.len(), |(at, _)| *at);
        format!("line {}: {reason}", text[..at].trim_end().lines().count().max(1))
    })
}

struct Parser<'a> {
    text: &'a str,
    chars: Peekable<CharIndices<'a>>,
}

impl Parser<'_> {
    /// Reads fields until `end`, or until there is nothing more.
    fn message(&mut self, end: Option<char>, depth: usize) -> Result<Message, String> {
        if depth > MAX_DEPTH {
            return Err("messages nest too deeply".to_owned());
        }
        let mut message = Message::default();
        loop {
            match self.next_symbol() {
                None if end.is_none() => return Ok(message),
                None => return Err("a message has no end".to_owned()),
                Some(symbol) if Some(symbol) == end => {
                    self.chars.next();
                    return Ok(message);
                }
                Some(',' | ';') => drop(self.chars.next()),
                Some(_) => self.field(&mut message, depth)?,
            }
        }
    }

    fn field(&mut self, message: &mut Message, depth: usize) -> Result<(), String> {
        let name = self.word()?;
        let colon = self.next_symbol() == Some(':');
        if colon {
            self.chars.next();
        }
        if self.next_symbol() != Some('[') {
            let field = self.value(colon, depth)?;
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
                    let field = self.value(colon, depth)?;
                    message.0.push((name.clone(), field));
                }
            }
        }
    }

    fn value(&mut self, colon: bool, depth: usize) -> Result<Field, String> {
        match self.next_symbol() {
            Some(open @ ('{' | '<')) => {
                self.chars.next();
                let end = if open == '{' { '}' } else { '>' };
                self.message(Some(end), depth + 1).map(Field::Message)
            }
            Some('"' | '\'') if colon => self.texts().map(|text| Field::Scalar(Scalar::Text(text))),
            Some(_) if colon => self.word().map(|word| Field::Scalar(Scalar::Word(word))),
            _ => Err("a field has no value".to_owned()),
        }
    }

    /// The next character that is neither space nor comment.
    fn next_symbol(&mut self) -> Option<char> {
        loop {
            match self.chars.peek()?.1 {
                '#' => while self.chars.next_if(|(_, symbol)| *symbol != '\n').is_some() {},
                symbol if symbol.is_whitespace() => drop(self.chars.next()),
                symbol => return Some(symbol),
            }
        }
    }

    fn word(&mut self) -> Result<String, String> {
        let from = self.chars.peek().map_or(self.text.len(), |(at, _)| *at);
        let part = |symbol: char| symbol.is_ascii_alphanumeric() || "_.+-".contains(symbol);
        while self.chars.next_if(|(_, symbol)| part(*symbol)).is_some() {}
        let to = self.chars.peek().map_or(self.text.len(), |(at, _)| *at);
        match &self.text[from..to] {
            "" => Err(format!("{:?} stands where a name or a value is due", self.text[from..].chars().next())),
            word => Ok(word.to_owned()),
        }
    }

    /// Texts that follow each other are one.
    fn texts(&mut self) -> Result<String, String> {
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
        fn no_text_makes_it_panic(text in "[a-c{}\\[\\]<>:,;#\"' \n\\\\0-9-]{0,60}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn endless_nesting_is_refused() {
        assert!(parse(&"a {".repeat(100_000)).unwrap_err().contains("too deeply"));
    }
}
