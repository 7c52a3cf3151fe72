//! What reads a file: what it has found, and what it knows where it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    agents::Agent,
    check::Schema,
    finding::{Finding, Severity, code},
    imports::Imported,
    sources::Sources,
    tree::{Mark, Node, Style, What},
};
use crate::{
    registry::Registry,
    step::{Check, Rule},
    value::Value,
    words::{Expression, Shape, Undefined, WordsError},
};

/// Findings beyond which no more are noted.
const FINDINGS: usize = 200;

/// The most steps of a pipeline, those of imports counted each time.
const STEPS: usize = 10_000;
/// How deep steps lie within each other at most.
const NESTED: usize = 32;

/// What reads a file.
pub(super) struct Reader<'a> {
    pub(super) sources: &'a dyn Sources,
    pub(super) registry: &'a Registry,
    pub(super) findings: Vec<Finding>,
    /// Files that are read, each for the sake of the one before.
    pub(super) way: Vec<Arc<str>>,
    /// Files that were read in all.
    pub(super) files: usize,
    pub(super) own: Own,
}

/// What is of one file alone.
#[derive(Default)]
pub(super) struct Own {
    pub(super) agents: BTreeMap<Arc<str>, Option<Arc<Agent>>>,
    pub(super) imports: BTreeMap<Arc<str>, Option<Imported>>,
    pub(super) undefined: Undefined,
    /// Names of all of its steps and branches.
    pub(super) names: BTreeSet<Arc<str>>,
    /// Whether a conversation is around.
    pub(super) talks: bool,
    /// How many maps are around.
    pub(super) maps: usize,
    /// Steps so far, those of imports counted each time.
    pub(super) steps: usize,
    /// How many steps are around.
    pub(super) depth: usize,
    /// The most there were around any.
    pub(super) deepest: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a dyn Sources, registry: &'a Registry) -> Self {
        Self { sources, registry, findings: Vec::new(), way: Vec::new(), files: 0, own: Own::default() }
    }

    pub(super) fn note(&mut self, mut finding: Finding) {
        if self.way.len() > 1 {
            finding.file = self.way.last().cloned().unwrap_or_default();
        }
        if self.findings.len() < FINDINGS {
            self.findings.push(finding);
        }
    }

    pub(super) fn error(
        &mut self,
        mark: Mark,
        code: &'static str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.note(Finding::error(mark, code, message, hint));
    }

    pub(super) fn warn(&mut self, mark: Mark, code: &'static str, message: impl Into<String>, hint: impl Into<String>) {
        self.note(Finding { severity: Severity::Warning, ..Finding::error(mark, code, message, hint) });
    }

    pub(super) fn missing(&mut self, mark: Mark, what: &str, key: &str) {
        self.error(mark, code::MISSING, format!("{what} has no {key}"), format!("add {key}"));
    }

    /// What is known of Flujo's and not done here.
    pub(super) fn not_done(&mut self, mark: Mark, key: &str, hint: &str) {
        self.warn(mark, code::OTHERWISE, format!("{key} changes nothing here"), hint);
    }

    /// Counts `steps` more, of which the deepest has `depth` around it; refused if these are too many.
    pub(super) fn count(&mut self, mark: Mark, steps: usize, depth: usize) -> Option<()> {
        self.own.steps = self.own.steps.saturating_add(steps);
        self.own.deepest = self.own.deepest.max(self.own.depth + depth);
        if self.own.steps <= STEPS && self.own.deepest <= NESTED {
            return Some(());
        }
        let message =
            format!("more than {STEPS} steps, or more than {NESTED} within each other, imports counted each time");
        self.error(mark, code::LARGE, message, "part it into pipelines of their own");
        None
    }

    /// A JSON schema.
    pub(super) fn schema(&mut self, node: Option<&Node>) -> Option<Arc<dyn Check>> {
        let node = node?;
        self.look_for_booleans(node);
        match Schema::new(&node.value()) {
            Ok(schema) => Some(Arc::new(schema)),
            Err(wrong) => {
                let message = format!("this is no JSON schema: {}", caudal_types::shorten(&wrong));
                self.error(node.mark, code::SCHEMA, message, "mend the schema");
                None
            }
        }
    }

    /// Warns of words that a schema names as values and that YAML 1.1 takes for booleans: no text is ever one of these.
    fn look_for_booleans(&mut self, schema: &Node) {
        let What::Map(entries) = &schema.what else {
            if let What::List(nodes) = &schema.what {
                nodes.iter().for_each(|node| self.look_for_booleans(node));
            }
            return;
        };
        for (name, node) in entries {
            let values = match (name.text().map(|name| &**name), &node.what) {
                (Some("enum"), What::List(values)) => &values[..],
                (Some("const"), _) => std::slice::from_ref(node),
                _ => {
                    self.look_for_booleans(node);
                    continue;
                }
            };
            for value in values {
                let (What::Scalar(text, Style::Plain), Value::Bool(yes)) = (&value.what, value.value()) else {
                    continue;
                };
                if !text.eq_ignore_ascii_case(&yes.to_string()) {
                    let message = format!("{text} without quotes is the boolean {yes}");
                    self.warn(value.mark, code::OTHERWISE, message, format!("write '{text}' for the text, or {yes}"));
                }
            }
        }
    }

    /// A template.
    pub(super) fn template(&mut self, node: &Node) -> Option<Arc<Shape>> {
        let value = node.value();
        self.look_into(node);
        match Shape::parse_as(&value, self.own.undefined) {
            Ok(shape) => Some(Arc::new(shape)),
            Err(error) => {
                // Which text of several it is, is found by reading them one by one.
                let (node, error) = self.guilty(node).unwrap_or((node, error));
                self.unreadable(node, &error);
                None
            }
        }
    }

    fn guilty<'n>(&self, node: &'n Node) -> Option<(&'n Node, WordsError)> {
        match &node.what {
            What::Scalar(..) => Shape::parse_as(&node.value(), self.own.undefined).err().map(|error| (node, error)),
            What::List(nodes) => nodes.iter().find_map(|node| self.guilty(node)),
            What::Map(entries) => entries.iter().find_map(|(_, node)| self.guilty(node)),
        }
    }

    /// A question: whether, or which. It may stand in `{{ }}`.
    pub(super) fn question(&mut self, node: &Node) -> Option<Rule> {
        let text = node.name();
        self.look_at(node, &text);
        match Expression::question(bare(&text)) {
            Ok(expression) => Some(Arc::new(expression)),
            Err(error) => {
                self.unreadable(node, &error);
                None
            }
        }
    }

    /// A rule by name, or an expression.
    pub(super) fn rule(&mut self, node: &Node) -> Option<Rule> {
        let name = node.name();
        match self.registry.rule(name.trim()) {
            Some(rule) => Some(Arc::clone(rule)),
            None => self.question(node),
        }
    }

    /// A rule by name, or an expression of which all names must be there.
    pub(super) fn invariant(&mut self, node: &Node) -> Option<Rule> {
        let text = node.name();
        if let Some(rule) = self.registry.rule(text.trim()) {
            return Some(Arc::clone(rule));
        }
        self.look_at(node, &text);
        match Expression::parse(bare(&text)) {
            Ok(expression) => Some(Arc::new(expression)),
            Err(error) => {
                self.unreadable(node, &error);
                None
            }
        }
    }

    /// A rule by name, and nothing else.
    pub(super) fn named_rule(&mut self, node: &Node, instead: &str) -> Option<Rule> {
        let name = node.name();
        let found = self.registry.rule(name.trim()).cloned();
        if found.is_none() {
            let message = format!("there is no rule {}", caudal_types::shorten(&name));
            self.error(node.mark, code::AGENT, message, format!("register one of that name, or use {instead}"));
        }
        found
    }

    fn unreadable(&mut self, node: &Node, error: &WordsError) {
        let Mark { line, column } = node.mark;
        let mark = match (&node.what, error.line) {
            (What::Scalar(_, Style::Plain), 1) => Mark { line, column: column + error.column - 1 },
            (What::Scalar(_, Style::Quoted), 1) => Mark { line, column: column + error.column },
            (What::Scalar(_, Style::Block), within) => Mark { line: line + within - 1, column: 1 },
            _ => node.mark,
        };
        self.error(mark, code::TEMPLATE, error.message.clone(), error.hint);
    }

    /// Looks for what is readable and odd in the expressions of a template.
    fn look_into(&mut self, node: &Node) {
        match &node.what {
            What::Scalar(text, _) if text.contains("{{") || text.contains("{%") => {
                // Outside of the braces are words for people.
                let opened = text.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap_or_default());
                let blocks = text.split("{%").skip(1).map(|rest| rest.split("%}").next().unwrap_or_default());
                let within = opened.chain(blocks).collect::<Vec<_>>().join(" ");
                // A block may go through something, whose items are `this`.
                let maps = self.own.maps;
                self.own.maps += usize::from(text.contains("#each") || text.contains("for this "));
                self.look_at(node, &within);
                self.own.maps = maps;
            }
            What::Scalar(..) => {}
            What::List(nodes) => nodes.iter().for_each(|node| self.look_into(node)),
            What::Map(entries) => entries.iter().for_each(|(_, node)| self.look_into(node)),
        }
    }

    fn look_at(&mut self, node: &Node, source: &str) {
        let mut words = source.split(|letter: char| !(letter.is_alphanumeric() || "_.".contains(letter)));
        if words.clone().any(|word| word == "previous_step.output") {
            let hint = "write previous_step, or steps.<name>.output";
            self.warn(node.mark, code::OUTPUT, "previous_step is the output itself: it has no .output", hint);
        }
        if self.own.maps == 0 && words.clone().any(|word| word == "this" || word.starts_with("this.")) {
            let message = "this is the item of a map, and no map is around";
            self.warn(node.mark, code::THIS, message, "write previous_step");
        }
        let unknown = words.find_map(|word| {
            let name = word.strip_prefix("steps.")?.split('.').next()?;
            (!name.is_empty() && name != "get" && !self.own.names.contains(name)).then(|| name.to_owned())
        });
        if let Some(name) = unknown {
            let near = caudal_types::nearest(&name, self.own.names.iter().map(|name| &**name));
            let hint =
                near.map_or_else(|| "name the step that is meant".to_owned(), |near| format!("did you mean {near}?"));
            self.warn(node.mark, code::STEP, format!("there is no step {}", caudal_types::shorten(&name)), hint);
        }
    }

    /// Notes the names of all steps and branches within.
    pub(super) fn gather(&mut self, node: &Node) {
        match &node.what {
            What::Scalar(..) => {}
            What::List(nodes) => nodes.iter().for_each(|node| self.gather(node)),
            What::Map(entries) => {
                for (name, node) in entries {
                    match (&*name.name(), &node.what) {
                        ("name" | "step", What::Scalar(text, _)) => {
                            self.own.names.insert(Arc::clone(text));
                        }
                        ("branches" | "states", What::Map(branches)) => {
                            self.own.names.extend(branches.iter().map(|(name, _)| name.name()));
                        }
                        _ => {}
                    }
                    self.gather(node);
                }
            }
        }
    }

    /// Of a key, its value as it stands there; nothing, if it is not said.
    pub(super) fn plain(node: Option<&Node>) -> Value {
        node.map_or(Value::Null, Node::value)
    }
}

/// An expression without the `{{ }}` that may stand around it.
fn bare(text: &str) -> &str {
    let inner = text.trim().strip_prefix("{{").and_then(|text| text.strip_suffix("}}"));
    inner.filter(|inner| !inner.contains("{{")).unwrap_or(text)
}
