//! A file as a whole.

use std::sync::Arc;

use super::{
    agents::seconds,
    fields::Fields,
    keys::{FILE, LIMITS, TEMPLATES},
    reader::Reader,
    tree::{Node, What},
};
use crate::{
    budget::Limits,
    step::{Definition, Rule, Step, Steps},
    words::Undefined,
};

/// What a file is called that does not say it.
const NAMELESS: &str = "pipeline";

impl Reader<'_> {
    /// Reads a file.
    pub(super) fn file(&mut self, node: &Node) -> Option<Definition> {
        let fields = self.fields(node, &[FILE], "a pipeline")?;
        self.gather(node);
        self.templates(&fields);
        if let Some(agents) = fields.node("agents") {
            self.agents(agents);
        }
        if let Some(imports) = fields.node("imports") {
            self.imports(imports);
        }
        let invariants = self.invariants(&fields);
        let steps = match fields.node("steps") {
            Some(steps) => guarded(self.steps(steps), &invariants),
            None if node.get("steps").is_some_and(|steps| !steps.is_null()) => return None,
            None => {
                self.missing(node.mark, "a pipeline", "steps");
                return None;
            }
        };
        let name = fields.text("name").cloned().unwrap_or_else(|| self.named_after_file());
        Some(Definition {
            takes: self.schema(fields.node("input_schema")),
            gives: self.schema(fields.node("output_schema")),
            limits: self.limits(&fields),
            timeout: fields.number("timeout_s").map(seconds),
            durable: fields.flag("durable").unwrap_or(true),
            description: fields.text("description").cloned().unwrap_or_default(),
            ..Definition::new(name, steps)
        })
    }

    fn templates(&mut self, fields: &Fields<'_>) {
        let Some(templates) = fields.node("templates") else { return };
        let Some(templates) = self.fields(templates, &[TEMPLATES], "templates") else { return };
        let said = templates.word("undefined").unwrap_or_default();
        let found = Undefined::NAMES.iter().find(|(name, _)| *name == said);
        self.own.undefined = found.map(|(_, undefined)| *undefined).unwrap_or_default();
    }

    /// The file's own name, without what comes after the point.
    fn named_after_file(&self) -> Arc<str> {
        let path = self.way.last().map_or("", |name| &**name);
        let name = path.rsplit('/').next().and_then(|name| name.split('.').next()).unwrap_or_default();
        if name.is_empty() { NAMELESS.into() } else { name.into() }
    }

    /// What may be spent.
    pub(super) fn limits(&mut self, fields: &Fields<'_>) -> Limits {
        let said = fields.node("usage_limits").and_then(|node| self.fields(node, &[LIMITS], "usage_limits"));
        let Some(said) = said else { return Limits::default() };
        Limits {
            // Millionths of a dollar; what is more than there is in the world is as good as no limit.
            cost: said.number("total_cost_usd_limit").map(|dollars| (dollars * 1e6).round() as u64),
            tokens: said.count("total_tokens_limit"),
            steps: said.count("total_steps_limit"),
        }
    }

    /// What must hold when a step is done: rules by name, or expressions, of which all names are there.
    pub(super) fn invariants(&mut self, fields: &Fields<'_>) -> Vec<Rule> {
        fields.names("static_invariants").into_iter().filter_map(|node| self.invariant(node)).collect()
    }

    /// Steps: a list of them, an object with `steps`, or one alone.
    pub(super) fn steps(&mut self, node: &Node) -> Steps {
        match (&node.what, node.get("steps")) {
            (What::List(nodes), _) => Steps::new(nodes.iter().filter_map(|node| self.step(node)).collect::<Vec<_>>()),
            (What::Map(entries), Some(steps)) if entries.len() == 1 => self.steps(steps),
            _ => Steps::new(self.step(node)),
        }
    }

    /// Steps by name.
    pub(super) fn branches(&mut self, node: &Node) -> Vec<(Arc<str>, Steps)> {
        let What::Map(entries) = &node.what else { return Vec::new() };
        entries.iter().map(|(name, node)| (name.name(), self.steps(node))).collect()
    }
}

/// The same steps, after each of which this must hold.
fn guarded(steps: Steps, invariants: &[Rule]) -> Steps {
    if invariants.is_empty() {
        return steps;
    }
    let guard = |step: Step| step.with(|policy| policy.invariants.extend(invariants.iter().cloned()));
    Steps::new(steps.iter().cloned().map(guard))
}
