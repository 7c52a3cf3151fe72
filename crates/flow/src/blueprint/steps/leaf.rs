//! Leaves and imported pipelines.

use std::sync::Arc;

use super::{Made, RETRIES, Said, for_leaf};
use crate::{
    action::{Action, Answer, Call},
    blueprint::{
        finding::code,
        reader::Reader,
        tree::{Mark, Node, What},
    },
    functions,
    step::{Import, Kind, Knows},
    value::Map,
};

/// Under what name an import finds what it is given, if nothing is said: Flujo's.
const ARTIFACT: &str = "initial_input";
/// Keys of config that are an import's alone.
const OF_IMPORTS: [&str; 7] = [
    "inherit_context",
    "input_to",
    "input_scratchpad_key",
    "outputs",
    "inherit_conversation",
    "propagate_hitl",
    "on_failure",
];

impl Reader<'_> {
    /// A step that is a leaf or an import.
    pub(super) fn act(&mut self, said: &Said<'_>) -> Option<Made> {
        let fields = &said.fields;
        let uses = fields.text("uses").map(|uses| uses.trim());
        if let Some(alias) = uses.and_then(|uses| uses.strip_prefix("imports.")) {
            return self.imported(said, alias).map(Made::from);
        }
        if let Some(config) = &said.config {
            for key in config.said(&OF_IMPORTS) {
                self.not_done(config.at(key), key, "it is of imports alone");
            }
        }
        let found = match (uses, fields.node("agent")) {
            (Some(_), Some(agent)) => {
                self.error(agent.mark, code::SORT, "a step has uses or agent, not both", "take one of both out");
                return None;
            }
            (Some(uses), None) => self.named(fields.at("uses"), uses, for_leaf(said))?,
            (None, Some(agent)) => self.leaf(agent, for_leaf(said))?,
            (None, None) => {
                let message = format!("the step {} does nothing: it gives what it is given", said.name);
                self.warn(fields.mark, code::NO_AGENT, message, "add uses");
                return Some(Made { kind: Kind::Act(passthrough()), retries: 0, timeout: None });
            }
        };
        let agent = found.agent.as_ref();
        Some(Made {
            kind: Kind::Act(found.action),
            retries: agent.and_then(|agent| agent.retries).unwrap_or(RETRIES),
            timeout: agent.and_then(|agent| agent.timeout),
        })
    }

    fn imported(&mut self, said: &Said<'_>, alias: &str) -> Option<Kind> {
        let mark = said.fields.at("uses");
        if let Some((key, _)) = for_leaf(said).iter().next() {
            self.error(mark, code::SORT, format!("an import takes no {key}"), "say it in the file that is imported");
        }
        let found = match self.own.imports.get(alias) {
            Some(found) => found.clone()?,
            None => {
                let near = caudal_types::nearest(alias, self.own.imports.keys().map(|name| &**name));
                let hint = near.map_or("add it to imports".to_owned(), |near| format!("did you mean imports.{near}?"));
                let message = format!("there is no import {}", caudal_types::shorten(alias));
                self.error(mark, code::IMPORT, message, hint);
                return None;
            }
        };
        self.count(mark, found.count, found.deepest)?;
        let config = said.config.as_ref();
        let outputs = config.and_then(|config| config.node("outputs")).and_then(|node| self.outputs(node));
        let failure = config.and_then(|config| config.word("on_failure")).unwrap_or("abort");
        if let Some(config) = config.filter(|config| config.flag("propagate_hitl") == Some(false)) {
            self.not_done(config.at("propagate_hitl"), "propagate_hitl: false", "whoever is asked within is asked");
        }
        let to = config.and_then(|config| config.word("input_to")).unwrap_or("initial_prompt");
        let key = config.and_then(|config| config.text("input_scratchpad_key")).cloned();
        let knows = Knows {
            conversation: config.and_then(|config| config.flag("inherit_conversation")).unwrap_or(true),
            prompt: found.asks_prompt && to != "import_artifacts",
            artifacts: (to != "initial_prompt").then(|| key.unwrap_or_else(|| ARTIFACT.into())),
        };
        Some(Kind::Import(Arc::new(Import {
            pipeline: found.pipeline,
            steps: found.steps,
            knows,
            inherits: config.and_then(|config| config.flag("inherit_context")).unwrap_or_default(),
            outputs,
            ignore_failures: failure != "abort",
        })))
    }

    /// Which of the import's context goes where: an object, or a list of `{child, parent}`.
    fn outputs(&mut self, node: &Node) -> Option<Vec<(Arc<str>, Arc<str>)>> {
        let pair = |node: &Node| -> Option<(Arc<str>, Arc<str>)> {
            if let What::List(pair) = &node.what {
                let [child, parent] = &pair[..] else { return None };
                return Some((Arc::clone(child.text()?), Arc::clone(parent.text()?)));
            }
            let child = node.get("child").or_else(|| node.get("from"))?.text()?;
            let parent = node.get("parent").or_else(|| node.get("to"))?.text()?;
            Some((Arc::clone(child), Arc::clone(parent)))
        };
        let pairs: Option<Vec<_>> = match &node.what {
            What::Map(entries) => {
                entries.iter().map(|(from, to)| Some((from.name(), Arc::clone(to.text()?)))).collect()
            }
            What::List(nodes) => nodes.iter().map(pair).collect(),
            What::Scalar(..) => None,
        };
        if pairs.is_none() {
            let message = "outputs is an object of names, or a list of {child, parent}";
            self.error(node.mark, code::SORT, message, "write child: parent");
        }
        pairs
    }

    /// A leaf as a step of its own, where a key names one.
    pub(super) fn inner(&mut self, name: &'static str, node: Option<&Node>, mark: Mark) -> Option<crate::step::Step> {
        let Some(node) = node else {
            self.missing(mark, "the step", name);
            return None;
        };
        let found = self.leaf(node, Map::default())?;
        let step = crate::step::Step::new(name, Kind::Act(found.action));
        let agent = found.agent;
        Some(step.with(|policy| {
            policy.retry.more = agent.as_ref().and_then(|agent| agent.retries).unwrap_or(RETRIES);
            policy.timeout = agent.as_ref().and_then(|agent| agent.timeout);
        }))
    }
}

/// Gives what it is given.
pub(super) fn passthrough() -> Arc<dyn Action> {
    function("passthrough", |call| Ok(call.input.clone()))
}

/// A leaf of our own.
pub(super) fn function(name: &str, function: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Arc<dyn Action> {
    functions::function(name, function)
}
