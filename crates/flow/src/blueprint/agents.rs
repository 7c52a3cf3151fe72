//! The agents of a file, and leaves by name.

use std::{sync::Arc, time::Duration};

use super::{
    check::Schema,
    finding::code,
    keys::AGENT,
    reader::Reader,
    sources,
    tree::{Mark, Node, What},
};
use crate::{
    action::Action,
    registry::Leaf,
    step::Check as _,
    value::{Map, Value},
};

/// The leaf that agents are.
const LLM: &str = "llm";
/// What Flujo calls its own leaves.
const BUILTINS: &str = "flujo.builtins.";

/// A model with its prompt.
pub(super) struct Agent {
    /// What the leaf is told.
    settings: Map,
    pub(super) retries: Option<u32>,
    pub(super) timeout: Option<Duration>,
}

/// A leaf that was found.
pub(super) struct Found {
    pub(super) action: Arc<dyn Action>,
    pub(super) agent: Option<Arc<Agent>>,
}

impl Reader<'_> {
    /// Reads the agents of a file.
    pub(super) fn agents(&mut self, node: &Node) {
        let What::Map(entries) = &node.what else { return };
        for (name, node) in entries {
            let agent = self.agent(node).map(Arc::new);
            self.own.agents.insert(name.name(), agent);
        }
    }

    fn agent(&mut self, node: &Node) -> Option<Agent> {
        let fields = self.fields(node, &[AGENT], "an agent")?;
        let before = self.findings.len();
        for key in ["model", "system_prompt"] {
            if fields.node(key).is_none() && node.get(key).is_none() {
                self.missing(node.mark, "an agent", key);
            }
        }
        let _ = self.schema(fields.node("output_schema"));
        let mut settings = Map::default();
        for key in ["model", "output_schema", "model_settings"] {
            if let Some(node) = fields.node(key) {
                settings = settings.with(key, node.value());
            }
        }
        if let Some(prompt) = fields.node("system_prompt").and_then(|node| self.prompt(node)) {
            settings = settings.with("system_prompt", prompt);
        }
        let retries = fields.count("max_retries").map(|count| count.min(u64::from(u32::MAX)) as u32);
        let timeout = fields.number("timeout").map(seconds);
        (self.findings.len() == before).then_some(Agent { settings, retries, timeout })
    }

    /// A prompt: a text, or a file's.
    fn prompt(&mut self, node: &Node) -> Option<Value> {
        if let Some(text) = node.text() {
            return Some(Value::Text(Arc::clone(text)));
        }
        let Some(path) = node.get("from_file").and_then(Node::text) else {
            self.error(node.mark, code::SORT, "a prompt is a text, or an object with from_file", "write a text");
            return None;
        };
        let from = self.way.last().cloned().unwrap_or_default();
        let read = sources::beside(&from, path).and_then(|name| self.sources.read(&name));
        match read {
            Ok(text) => Some(filled(caudal_types::without_mark(&text), node.get("variables")).into()),
            Err(wrong) => {
                self.error(node.mark, code::IMPORT, wrong, "name a file beside this one");
                None
            }
        }
    }

    /// The leaf that `node` names: a text, or an object with `id` and `params`.
    pub(super) fn leaf(&mut self, node: &Node, more: Map) -> Option<Found> {
        if let Some(name) = node.text() {
            return self.named(node.mark, &Arc::clone(name), more);
        }
        let Some(id) = node.get("id").or_else(|| node.get("path")).and_then(Node::text) else {
            self.missing(node.mark, "a leaf", "id");
            return None;
        };
        let What::Map(entries) = &node.what else { return None };
        for (key, _) in entries.iter().filter(|(key, _)| !["id", "path", "params"].contains(&&*key.name())) {
            let message = format!("a leaf has no key {}", caudal_types::shorten(&key.name()));
            self.error(key.mark, code::KEY, message, "known are id and params");
        }
        let params = node.get("params").map(Node::value).unwrap_or_default();
        let params = params.as_map().cloned().unwrap_or_default();
        self.named(node.mark, &Arc::clone(id), params.merged(&more))
    }

    /// The leaf of that name, told `settings`.
    pub(super) fn named(&mut self, mark: Mark, name: &str, settings: Map) -> Option<Found> {
        let name = name.trim();
        let Some(agent) = name.strip_prefix("agents.") else {
            return self.leaf_made(mark, name, settings).map(|action| Found { action, agent: None });
        };
        match self.own.agents.get(agent) {
            Some(Some(found)) => {
                let found = Arc::clone(found);
                let settings = found.settings.merged(&settings);
                self.leaf_made(mark, LLM, settings).map(|action| Found { action, agent: Some(found) })
            }
            // What is wrong with it is told where it stands.
            Some(None) => None,
            None => {
                let hint = match caudal_types::nearest(agent, self.own.agents.keys().map(|name| &**name)) {
                    Some(near) => format!("did you mean agents.{near}?"),
                    None => "add it to agents".to_owned(),
                };
                let message = format!("there is no agent {}", caudal_types::shorten(agent));
                self.error(mark, code::AGENT, message, hint);
                None
            }
        }
    }

    fn leaf_made(&mut self, mark: Mark, name: &str, settings: Map) -> Option<Arc<dyn Action>> {
        let registry = self.registry;
        let short = name.strip_prefix(BUILTINS).unwrap_or(name);
        let told = self.own.talks && short == LLM;
        // Whoever speaks in a conversation is told it, unless it is said otherwise.
        let settings = if told { Map::from_iter([("use_history", true.into())]).merged(&settings) } else { settings };
        let Some(leaf) = registry.get(name).or_else(|| registry.get(short)) else {
            let names = registry.iter().map(|(name, _)| name);
            let hint = match caudal_types::nearest(short, names) {
                Some(near) => format!("did you mean {near}?"),
                None => "caudal flow lists those that there are; functions are registered by name".to_owned(),
            };
            let message = format!("there is no leaf {}", caudal_types::shorten(name));
            self.error(mark, code::AGENT, message, hint);
            return None;
        };
        match fits(leaf, &settings).and_then(|()| (leaf.make)(&Value::Map(settings), self.own.undefined)) {
            Ok(action) => Some(action),
            Err(wrong) => {
                let message = format!("the settings of {short} do not fit: {wrong}");
                self.error(mark, code::AGENT, message, leaf.about);
                None
            }
        }
    }
}

fn fits(leaf: &Leaf, settings: &Map) -> Result<(), String> {
    if leaf.settings != Value::Null {
        return Schema::new(&leaf.settings)?.check(&Value::Map(settings.clone()));
    }
    match settings.iter().next() {
        Some((name, _)) => Err(format!("it takes none, and is told {name}")),
        None => Ok(()),
    }
}

pub(super) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// Puts variables in the place of their names.
fn filled(text: &str, variables: Option<&Node>) -> String {
    let Some(Value::Map(variables)) = variables.map(Node::value) else { return text.to_owned() };
    variables.iter().fold(text.to_owned(), |text, (name, value)| {
        let value = value.as_text().map_or_else(|| value.to_json(), str::to_owned);
        text.replace(&format!("{{{{ {name} }}}}"), &value).replace(&format!("{{{{{name}}}}}"), &value)
    })
}
