//! Loops.

use std::sync::Arc;

use crate::{
    blueprint::{
        check::Parsed,
        fields::Fields,
        finding::code,
        keys::{CHANGE, LOOPING, STATE},
        reader::Reader,
        tree::{Node, What},
    },
    step::{Change, How, Kind, Loop, Propagate, Rule, Steps},
    value::Value,
    words::Shape,
};

/// Turns of a loop that has an exit and does not say how many it may take: as many as Flujo's.
const TURNS: u64 = 5;
impl Reader<'_> {
    pub(super) fn looping(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let Some(node) = fields.node("loop") else {
            self.missing(fields.mark, "a loop", "loop");
            return None;
        };
        let fields = self.fields(node, &[LOOPING], "loop")?;
        let talk = self.talk(&fields);
        let talks = self.own.talks;
        self.own.talks |= talk.is_some();
        let body = fields.node("body").map(|node| self.steps(node));
        self.own.talks = talks;
        let until = self.until(&fields);
        let exits = fields.node("exit_condition").is_some() || fields.node("exit_expression").is_some();
        let most = fields.count("max_loops").unwrap_or(if exits { TURNS } else { 1 });
        if most == 0 {
            self.error(fields.at("max_loops"), code::LOOP, "a loop of no turns does nothing", "write 1 or more");
        }
        if !exits && fields.node("max_loops").is_none() {
            let message = "the loop says neither when it ends nor how often it goes: it goes once";
            self.warn(node.mark, code::LOOP, message, "add exit_expression or max_loops");
        }
        let Some(body) = body else {
            self.missing(node.mark, "a loop", "body");
            return None;
        };
        let state = fields.node("state").map(|node| self.changes(node)).unwrap_or_default();
        let next = self.next(&fields, &body);
        Some(Kind::Loop(Arc::new(Loop {
            until,
            must_end: exits,
            first: self.mapper(&fields, "initial_input_mapper", "init"),
            next,
            init: fields.node("init").map(|node| self.changes(node)).unwrap_or_default(),
            state,
            output: self.gives(&fields),
            talk: talk.map(Arc::new),
            ..Loop::new(body, u32::try_from(most).unwrap_or(u32::MAX))
        })))
    }

    fn until(&mut self, fields: &Fields<'_>) -> Option<Rule> {
        match (fields.node("exit_condition"), fields.node("exit_expression")) {
            (Some(condition), Some(_)) => {
                let message = "a loop has exit_condition or exit_expression, not both";
                self.error(condition.mark, code::SORT, message, "take one of both out");
                None
            }
            (Some(condition), None) => self.named_rule(condition, "exit_expression"),
            (None, Some(expression)) => self.question(expression),
            (None, None) => None,
        }
    }

    fn mapper(&mut self, fields: &Fields<'_>, key: &str, instead: &str) -> Option<Rule> {
        fields.node(key).and_then(|node| self.named_rule(node, instead))
    }

    /// What a loop or a map gives.
    pub(super) fn gives(&mut self, fields: &Fields<'_>) -> Option<Rule> {
        if let Some(rule) = self.mapper(fields, "loop_output_mapper", "output_template") {
            return Some(rule);
        }
        let node = fields.node("output_template").or_else(|| fields.node("output"))?;
        self.template(node).map(|shape| shape as Rule)
    }

    /// What the next turn is given.
    fn next(&mut self, fields: &Fields<'_>, body: &Steps) -> Propagate {
        if let Some(rule) = self.mapper(fields, "iteration_input_mapper", "propagation") {
            return Propagate::Rule(rule);
        }
        let Some(node) = fields.node("propagation").or_else(|| fields.node("propagate")) else {
            return Propagate::Output;
        };
        let said = match &node.what {
            What::Map(_) => node.get("next_input"),
            _ => Some(node),
        };
        let Some(said) = said else {
            self.not_done(node.mark, "propagation without next_input", "keep each turn's output by state");
            return Propagate::Output;
        };
        let updates = |step: &crate::Step| step.policy.as_ref().is_some_and(|policy| policy.updates_context);
        match &*said.name().trim().to_lowercase() {
            "context" => Propagate::Context,
            "auto" if body.any(&updates) => Propagate::Context,
            "auto" | "previous_output" | "output" => Propagate::Output,
            text if text.contains("{{") => {
                self.template(said).map_or(Propagate::Output, |shape| Propagate::Rule(shape))
            }
            _ => {
                let message = format!("the next turn cannot be given {}", caudal_types::shorten(&said.name()));
                self.error(said.mark, code::SORT, message, "write context, previous_output, auto or a template");
                Propagate::Output
            }
        }
    }

    /// Changes of the context: `{set, append, merge}`, each a list of `{target, value}`, or a list of `{set: target,
    /// value: ...}` and the like.
    pub(super) fn changes(&mut self, node: &Node) -> Vec<Change> {
        let mut changes = Vec::new();
        match &node.what {
            What::Map(_) => {
                let Some(fields) = self.fields(node, &[STATE], "changes of the context") else { return changes };
                for how in HOWS {
                    for node in fields.names(how.0) {
                        changes.extend(self.change(node, how.1));
                    }
                }
            }
            What::List(nodes) => {
                for node in nodes {
                    changes.extend(self.short_change(node));
                }
            }
            What::Scalar(..) => {
                let message = "changes of the context are an object or a list";
                self.error(node.mark, code::SORT, message, "write set: [{target: context.x, value: 1}]");
            }
        }
        changes
    }

    fn short_change(&mut self, node: &Node) -> Option<Change> {
        let Some((key, how)) = HOWS.into_iter().find(|(key, _)| node.get(key).is_some()) else {
            let message = "a change of the context is set, append or merge";
            self.error(node.mark, code::SORT, message, "write {set: context.x, value: 1}");
            return None;
        };
        let target = node.get(key)?;
        if matches!(target.what, What::Map(_)) {
            return self.change(target, how);
        }
        self.made(how, target, node.get("value"))
    }

    fn change(&mut self, node: &Node, how: How) -> Option<Change> {
        let fields = self.fields(node, &[CHANGE], "a change of the context")?;
        let Some(target) = fields.node("target") else {
            self.missing(node.mark, "a change of the context", "target");
            return None;
        };
        self.made(how, target, fields.node("value"))
    }

    fn made(&mut self, how: How, target: &Node, value: Option<&Node>) -> Option<Change> {
        let path = target.name();
        let names = path.strip_prefix("context.").unwrap_or(&path);
        if names.is_empty() || names == "context" || names.split('.').any(|name| name.trim().is_empty()) {
            let message = format!("{} is no place in the context", caudal_types::shorten(&path));
            self.error(target.mark, code::SORT, message, "write context. and names with points between");
            return None;
        }
        let shape = match value {
            Some(value) => self.template(value)?,
            None => Arc::new(Shape::parse(&Value::Null).ok()?),
        };
        let value: Rule = if how == How::Merge { Arc::new(Parsed(shape)) } else { shape };
        Some(Change { how, path: names.into(), value })
    }
}

const HOWS: [(&str, How); 3] = [("append", How::Append), ("set", How::Set), ("merge", How::Merge)];
