//! Conversations of loops.

use std::sync::Arc;

use crate::{
    blueprint::{
        fields::Fields,
        finding::code,
        keys::HISTORY,
        reader::Reader,
        tree::{Node, What},
    },
    step::{Keep, Talk, Voice},
};

/// Tokens of a conversation that are kept, if nothing is said: as many as Flujo's.
const TOKENS: u64 = 4_096;
/// Turns, likewise.
const TURNS: u64 = 20;
/// Who answers, if nothing is said: people.
const PEOPLE: &str = "hitl";
/// What is said of a conversation.
const OF_TALK: [&str; 5] =
    ["history_management", "history_template", "ai_turn_source", "user_turn_sources", "named_steps"];

impl Reader<'_> {
    /// The conversation of a loop, if it has one.
    pub(super) fn talk(&mut self, fields: &Fields<'_>) -> Option<Talk> {
        if fields.flag("conversation") != Some(true) {
            for key in fields.said(&OF_TALK) {
                self.not_done(fields.at(key), key, "add conversation: true");
            }
            return None;
        }
        if fields.node("history_template").is_some() {
            let hint = "models are told turns as messages; else write them into input";
            self.not_done(fields.at("history_template"), "history_template", hint);
        }
        let sources = match fields.node("user_turn_sources") {
            None => vec![Arc::from(PEOPLE)],
            Some(node) => self.sources(node),
        };
        let (people, user): (Vec<_>, Vec<_>) = sources.into_iter().partition(|name| **name == *PEOPLE);
        Some(Talk { assistant: self.voice(fields), people: !people.is_empty(), user, keep: self.keep(fields) })
    }

    fn voice(&mut self, fields: &Fields<'_>) -> Voice {
        let named = fields.word("ai_turn_source") == Some("named_steps");
        match (fields.node("named_steps"), named) {
            (Some(_), true) => Voice::Named(fields.names("named_steps").into_iter().map(Node::name).collect()),
            (Some(node), false) => {
                self.not_done(node.mark, "named_steps", "add ai_turn_source: named_steps");
                Voice::Last
            }
            (None, true) => {
                self.missing(fields.at("ai_turn_source"), "the conversation", "named_steps");
                Voice::Last
            }
            (None, false) if fields.word("ai_turn_source") == Some("all_agents") => Voice::All,
            (None, false) => Voice::Last,
        }
    }

    /// Who says what the user says: a name, or several.
    fn sources(&mut self, node: &Node) -> Vec<Arc<str>> {
        match &node.what {
            What::List(nodes) => nodes.iter().map(Node::name).collect(),
            What::Scalar(..) => vec![node.name()],
            What::Map(_) => {
                let message = "user_turn_sources is a list of names";
                self.error(node.mark, code::SORT, message, "write [hitl], or names of steps");
                Vec::new()
            }
        }
    }

    fn keep(&mut self, fields: &Fields<'_>) -> Keep {
        let said =
            fields.node("history_management").and_then(|node| self.fields(node, &[HISTORY], "history_management"));
        let count = |key: &str, usual: u64| {
            let said = said.as_ref().and_then(|said| said.count(key)).unwrap_or(usual);
            usize::try_from(said).unwrap_or(usize::MAX)
        };
        match said.as_ref().and_then(|said| said.word("strategy")) {
            Some("truncate_turns") => return Keep::Turns(count("max_turns", TURNS)),
            Some("summarize") => {
                let mark = said.as_ref().map_or(fields.mark, |said| said.at("strategy"));
                let hint =
                    "let a step of the loop summarize context.conversation_history, with sink_to: conversation_history";
                self.warn(mark, code::OTHERWISE, "summarize keeps the latest turns, as truncate_tokens does", hint);
            }
            _ => {}
        }
        Keep::Tokens(count("max_tokens", TOKENS))
    }
}
