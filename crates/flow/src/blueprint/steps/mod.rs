//! Steps: what all kinds have, and who reads what each has of its own.

mod again;
mod agentic;
mod branches;
mod each;
mod leaf;
mod machine;
mod others;
mod search;
mod talk;

use std::{sync::Arc, time::Duration};

use super::{
    agents::seconds,
    check::Holds,
    fields::Fields,
    finding::code,
    keys::{CONFIG, KINDS, PROCESSING, STEP},
    reader::Reader,
    tree::{Node, What},
};
use crate::{
    step::{Check, Kind, Policy, Retry, Rule, Step},
    value::{Map, Value},
    words::Expression,
};

/// Tries of a leaf after the first, if nothing is said: as many as Flujo's.
const RETRIES: u32 = 1;

/// What is known of Flujo's way to make a model's output fit, and not done.
const NOT_PROCESSED: [&str; 6] =
    ["aop", "coercion", "schema", "output_schema", "enforce_grammar", "reasoning_precheck"];

/// What a kind's reader gives.
struct Made {
    kind: Kind,
    /// Tries after the first, if the step says nothing.
    retries: u32,
    /// How long a try may take, if the step says nothing.
    timeout: Option<Duration>,
}

impl From<Kind> for Made {
    fn from(kind: Kind) -> Self {
        Self { kind, retries: 0, timeout: None }
    }
}

/// A step's keys, and where it stands.
struct Said<'n> {
    name: Arc<str>,
    fields: Fields<'n>,
    config: Option<Fields<'n>>,
}

impl Reader<'_> {
    /// Reads a step.
    pub(super) fn step(&mut self, node: &Node) -> Option<Step> {
        self.own.depth += 1;
        let step = self.count(node.mark, 1, 0).and_then(|()| self.read_step(node));
        self.own.depth -= 1;
        step
    }

    fn read_step(&mut self, node: &Node) -> Option<Step> {
        let kind = node.get("kind").map(Node::name);
        let kind = kind.as_deref().unwrap_or("step");
        let Some((kind, keys)) = KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(kind)) else {
            let names = KINDS.iter().map(|(name, _)| *name);
            let hint = match caudal_types::nearest(kind, names.clone()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("known are {}", names.collect::<Vec<_>>().join(", ")),
            };
            let mark = node.get("kind").map_or(node.mark, |kind| kind.mark);
            self.error(mark, code::KIND, format!("there is no kind {}", caudal_types::shorten(kind)), hint);
            return None;
        };
        let fields = self.fields(node, &[STEP, keys], "a step")?;
        let Some(name) = fields.text("name").or_else(|| fields.text("step")) else {
            self.missing(node.mark, "a step", "name");
            return None;
        };
        let config = fields.node("config").and_then(|node| self.fields(node, &[CONFIG], "config"));
        let said = Said { name: Arc::clone(name), fields, config };
        let made = self.kind(kind, &said);
        let policy = self.policy(&said, made.as_ref(), kind);
        let step = Step::new(said.name, made?.kind);
        Some(match policy {
            Some(policy) => Step { policy: Some(Arc::new(policy)), ..step },
            None => step,
        })
    }

    fn kind(&mut self, kind: &str, said: &Said<'_>) -> Option<Made> {
        Some(match kind {
            "parallel" => self.parallel(&said.fields)?.into(),
            "conditional" => self.conditional(&said.fields)?.into(),
            "loop" => self.looping(&said.fields)?.into(),
            "map" => self.mapping(said)?.into(),
            "dynamic_router" => self.router(&said.fields)?.into(),
            "hitl" => self.human(&said.fields)?.into(),
            "cache" => self.cache(&said.fields)?.into(),
            "agentic_loop" => self.agentic(&said.fields)?.into(),
            "tree_search" => self.search(&said.fields)?.into(),
            "StateMachine" => self.machine(&said.fields)?.into(),
            _ => return self.act(said),
        })
    }

    /// How the step is done; nothing, if nothing is said.
    fn policy(&mut self, said: &Said<'_>, made: Option<&Made>, kind: &str) -> Option<Policy> {
        let fields = &said.fields;
        let human = kind == "hitl";
        let limits = self.limits(fields);
        let mut policy = Policy {
            input: fields.node("input").and_then(|node| self.template(node)).map(|shape| shape as Rule),
            // What a human step takes is no input, but an answer.
            takes: if human { None } else { self.schema(fields.node("input_schema")) },
            gives: self.schema(fields.node("output_schema")),
            validators: self.validators(fields),
            fallback: fields.node("fallback").and_then(|node| self.step(node)).map(Arc::new),
            limits,
            updates_context: fields.flag("updates_context").unwrap_or_default(),
            known_names: fields.flag("validate_fields").unwrap_or_default(),
            // A search looks at its candidates.
            invariants: if kind == "tree_search" { Vec::new() } else { self.invariants(fields) },
            sink: fields.text("sink_to").cloned(),
            meta: Self::plain(fields.node("meta")).as_map().cloned().unwrap_or_default(),
            timeout: made.and_then(|made| made.timeout),
            ..Policy::default()
        };
        policy.retry.more = made.map_or(0, |made| made.retries);
        if let Some(config) = &said.config {
            configured(&mut policy, config);
        }
        if let Some(processing) =
            fields.node("processing").and_then(|node| self.fields(node, &[PROCESSING], "processing"))
        {
            for key in processing.said(&NOT_PROCESSED).filter(|key| processing.word(key) != Some("off")) {
                let hint = "say output_schema, and max_retries for answers that do not fit";
                self.not_done(processing.at(key), key, hint);
            }
        }
        let plain = policy.retry == Retry::default()
            && policy.timeout.is_none()
            && policy.limits.none()
            && !policy.updates_context
            && policy.invariants.is_empty()
            && !policy.background
            && policy.meta.is_empty();
        let empty = policy.input.is_none()
            && policy.takes.is_none()
            && policy.gives.is_none()
            && policy.validators.is_empty()
            && policy.fallback.is_none()
            && policy.sink.is_none();
        (!plain || !empty).then_some(policy)
    }

    /// Validators and plugins: checks by name, or expressions.
    fn validators(&mut self, fields: &Fields<'_>) -> Vec<Arc<dyn Check>> {
        let mut checks: Vec<Arc<dyn Check>> =
            fields.names("validators").into_iter().filter_map(|node| self.validator(node, &node.name())).collect();
        let Some(What::List(plugins)) = fields.node("plugins").map(|node| &node.what) else {
            if fields.node("plugins").is_some() {
                self.error(fields.at("plugins"), code::SORT, "plugins is a list", "write a list of names");
            }
            return checks;
        };
        let mut found: Vec<(i64, Arc<dyn Check>)> = Vec::new();
        for plugin in plugins {
            let name = ["name", "path", "plugin", "id"].into_iter().find_map(|key| plugin.get(key)?.text());
            let Some(name) = plugin.text().or(name) else {
                self.missing(plugin.mark, "a plugin", "name");
                continue;
            };
            let priority = plugin.get("priority").and_then(|node| node.value().as_i64()).unwrap_or_default();
            found.extend(self.validator(plugin, name).map(|check| (priority, check)));
        }
        found.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
        checks.extend(found.into_iter().map(|(_, check)| check));
        checks
    }

    fn validator(&mut self, node: &Node, name: &str) -> Option<Arc<dyn Check>> {
        if let Some(check) = self.registry.check(name.trim()) {
            return Some(Arc::clone(check));
        }
        match Expression::question(name) {
            Ok(expression) => Some(Arc::new(Holds(expression))),
            Err(_) => {
                let message = format!("{} is neither a check nor an expression", caudal_types::shorten(name));
                self.error(node.mark, code::AGENT, message, "register it, or write an expression of output");
                None
            }
        }
    }
}

fn configured(policy: &mut Policy, config: &Fields<'_>) {
    if let Some(more) = config.count("max_retries") {
        policy.retry.more = more.min(u64::from(u32::MAX)) as u32;
    }
    if let Some(timeout) = config.number("timeout_s").or_else(|| config.number("timeout")) {
        policy.timeout = Some(seconds(timeout));
    }
    if let Some(wait) = config.number("retry_wait_s") {
        policy.retry.wait = seconds(wait);
        policy.retry.longest = policy.retry.longest.max(policy.retry.wait);
    }
    if let Some(longest) = config.number("retry_longest_s") {
        policy.retry.longest = seconds(longest);
    }
    if let Some(jitter) = config.flag("retry_jitter") {
        policy.retry.jitter = jitter;
    }
    policy.background = config.word("execution_mode") == Some("background");
}

/// What of a step's keys goes to its leaf.
fn for_leaf(said: &Said<'_>) -> Map {
    let own = ["processing", "use_history"].into_iter().filter_map(|key| Some((key, said.fields.node(key)?)));
    let config = ["temperature", "top_k", "top_p"]
        .into_iter()
        .filter_map(|key| Some((key, said.config.as_ref().and_then(|config| config.node(key))?)));
    let with = said.fields.node("with").map(Node::value);
    let with = with.as_ref().and_then(Value::as_map).cloned().unwrap_or_default();
    with.merged(&own.chain(config).map(|(key, node)| (key, node.value())).collect())
}
