//! The keys of one object of a file, looked at by the table.

use std::sync::Arc;

use super::{
    finding::code,
    keys::{Form, KINDS, Key},
    reader::Reader,
    tree::{Mark, Node, What},
};
use crate::value::Value;

/// The keys of an object that are known and whose values are of the right sort.
pub(super) struct Fields<'n> {
    pub(super) mark: Mark,
    entries: Vec<(&'static Key, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// What stands under `name`.
    pub(super) fn node(&self, name: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| *node)
    }

    /// Where `name` stands; where the object does, if it is not there.
    pub(super) fn at(&self, name: &str) -> Mark {
        self.node(name).map_or(self.mark, |node| node.mark)
    }

    pub(super) fn text(&self, name: &str) -> Option<&'n Arc<str>> {
        self.node(name).and_then(Node::text)
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        match self.node(name)?.value() {
            Value::Bool(yes) => Some(yes),
            _ => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<f64> {
        number(self.node(name)?)
    }

    pub(super) fn count(&self, name: &str) -> Option<u64> {
        count(self.node(name)?)
    }

    /// One of the texts that the key takes.
    pub(super) fn word(&self, name: &str) -> Option<&'static str> {
        let (key, node) = self.entries.iter().find(|(key, _)| key.name == name)?;
        match key.form {
            Form::OneOf(words) => words.iter().find(|word| word.eq_ignore_ascii_case(&node.name())).copied(),
            _ => None,
        }
    }

    pub(super) fn names(&self, name: &str) -> Vec<&'n Node> {
        match self.node(name).map(|node| &node.what) {
            Some(What::List(nodes)) => nodes.iter().collect(),
            _ => Vec::new(),
        }
    }

    /// Which of these are said.
    pub(super) fn said<'k>(&self, names: &'k [&'k str]) -> impl Iterator<Item = &'k str> {
        names.iter().copied().filter(|name| self.node(name).is_some())
    }
}

fn number(node: &Node) -> Option<f64> {
    let number = match node.value() {
        Value::Number(number) => number.as_f64(),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|number| number.is_finite() && *number >= 0.0)
}

fn count(node: &Node) -> Option<u64> {
    match node.value() {
        Value::Number(number) => number.as_u64(),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

impl Reader<'_> {
    /// The keys of an object, each found in one of the tables.
    pub(super) fn fields<'n>(&mut self, node: &'n Node, tables: &[&'static [Key]], what: &str) -> Option<Fields<'n>> {
        let What::Map(entries) = &node.what else {
            let message = format!("{what} is an object, and this is {}", node.sort());
            self.error(node.mark, code::SORT, message, "write it as names with values");
            return None;
        };
        let mut known = Vec::with_capacity(entries.len());
        for (name, value) in entries {
            let text = name.name();
            match tables.iter().flat_map(|table| table.iter()).find(|key| key.name == &*text) {
                None => self.unknown(name.mark, &text, tables, what),
                // What is empty says nothing.
                Some(_) if value.is_null() => {}
                Some(key) if self.fits(key, value) => known.push((key, value)),
                Some(_) => {}
            }
        }
        Some(Fields { mark: node.mark, entries: known })
    }

    fn unknown(&mut self, mark: Mark, name: &str, tables: &[&'static [Key]], what: &str) {
        let names: Vec<&str> = tables.iter().flat_map(|table| table.iter()).map(|key| key.name).collect();
        let has = |keys: &[Key]| keys.iter().any(|key| key.name == name);
        let hint = match caudal_types::nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => match KINDS.iter().find(|(_, keys)| has(keys)) {
                Some((kind, _)) => format!("it belongs to kind: {kind}"),
                None => format!("known are {}", names.join(", ")),
            },
        };
        let message = format!("{what} has no key {}", caudal_types::shorten(name));
        self.error(mark, code::KEY, message, hint);
    }

    fn fits(&mut self, key: &Key, node: &Node) -> bool {
        let scalar = matches!(node.what, What::Scalar(..));
        let (map, list) = (matches!(node.what, What::Map(_)), matches!(node.what, What::List(_)));
        let texts = |nodes: &[Node]| nodes.iter().all(|node| node.text().is_some());
        let (fits, wanted) = match key.form {
            Form::Any | Form::Template => (true, "anything"),
            Form::Text | Form::Expression => (scalar, "a text"),
            Form::Bool => (matches!(node.value(), Value::Bool(_)), "true or false"),
            Form::Count => (count(node).is_some(), "a whole number, 0 or more"),
            Form::Number => (number(node).is_some(), "a number, 0 or more"),
            Form::Names => (matches!(&node.what, What::List(nodes) if texts(nodes)), "a list of texts"),
            Form::TextsByName => {
                let fits =
                    matches!(&node.what, What::Map(entries) if entries.iter().all(|(_, node)| node.text().is_some()));
                (fits, "an object of texts")
            }
            Form::Schema => (map || matches!(node.value(), Value::Bool(_)), "a JSON schema, which is an object"),
            Form::Section(_) | Form::SectionsByName(_) | Form::Step | Form::Branches => (map, "an object"),
            Form::TextOr(_) => (scalar || map, "a text, or an object"),
            Form::Sections(_) => (list, "a list"),
            Form::Steps => (map || list, "a list of steps"),
            Form::Leaf => (scalar || map, "a leaf's name, or an object with id and params"),
            Form::OneOf(words) => return self.one_of(key, words, node),
        };
        if !fits {
            let code = if matches!(key.form, Form::Count | Form::Number) { code::NUMBER } else { code::SORT };
            let shown = node.value().to_json();
            let message = format!("{} is {wanted}, and this is {}", key.name, caudal_types::shorten(&shown));
            self.error(node.mark, code, message, key.about);
        }
        fits
    }

    fn one_of(&mut self, key: &Key, words: &[&str], node: &Node) -> bool {
        let name = node.name();
        let fits = words.iter().any(|word| word.eq_ignore_ascii_case(&name));
        if !fits {
            let hint = match caudal_types::nearest(&name, words.iter().copied()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known are {}", words.join(", ")),
            };
            let message = format!("{} cannot be {}", key.name, caudal_types::shorten(&name));
            let code = if key.name == "kind" { code::KIND } else { code::SORT };
            self.error(node.mark, code, message, hint);
        }
        fits
    }
}
