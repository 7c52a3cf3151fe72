//! Maps.

use std::sync::Arc;

use super::Said;
use crate::{
    blueprint::{
        finding::code,
        keys::{FINALIZE, MAPPING},
        reader::Reader,
        tree::Node,
    },
    step::{Each, Kind, Loop, Rule, Step, Steps},
    words::Expression,
};

impl Reader<'_> {
    pub(super) fn mapping(&mut self, said: &Said<'_>) -> Option<Kind> {
        let Some(node) = said.fields.node("map") else {
            self.missing(said.fields.mark, "a map", "map");
            return None;
        };
        let fields = self.fields(node, &[MAPPING], "map")?;
        let items = fields.node("iterable_input").map(|node| self.items(node));
        self.own.maps += 1;
        let body = fields.node("body").map(|node| self.steps(node));
        self.own.maps -= 1;
        for key in ["iterable_input", "body"] {
            if fields.node(key).is_none() && node.get(key).is_none() {
                self.missing(node.mark, "a map", key);
            }
        }
        let each = Each {
            items: Some(items??),
            body: body?,
            at_once: fields.count("concurrency").map_or(1, |count| usize::try_from(count).unwrap_or(usize::MAX).max(1)),
            ignore_failures: fields.word("on_item_failure") == Some("ignore"),
        };
        let kind = Kind::Map(Arc::new(each));
        let init = fields.node("init").map(|node| self.changes(node)).unwrap_or_default();
        let finalize = fields.node("finalize").and_then(|node| self.fields(node, &[FINALIZE], "finalize"));
        let output = finalize.and_then(|fields| self.gives(&fields));
        if init.is_empty() && output.is_none() {
            return Some(kind);
        }
        // A loop of one turn does before and after what a map does not.
        let body = Steps::new([Step::new(Arc::clone(&said.name), kind)]);
        Some(Kind::Loop(Arc::new(Loop { init, output, ..Loop::new(body, 1) })))
    }

    /// Which items: a name of the context, or a template.
    fn items(&mut self, node: &Node) -> Option<Rule> {
        let Some(text) = node.text().filter(|text| !text.contains("{{")) else {
            return self.template(node).map(|shape| shape as Rule);
        };
        let word = |letter: char| letter.is_alphanumeric() || "_.".contains(letter);
        let name = text.trim();
        let first = name.split('.').next().unwrap_or_default();
        let own = ["context", "previous_step", "output", "input", "steps", "this", "item"].contains(&first);
        let source = if name.chars().all(word) && !own { format!("context.{name}") } else { name.to_owned() };
        match Expression::parse_as(&source, self.own.undefined) {
            Ok(expression) => Some(Arc::new(expression)),
            Err(error) => {
                self.error(node.mark, code::TEMPLATE, error.message, error.hint);
                None
            }
        }
    }
}
