//! State machines.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    blueprint::{
        fields::Fields,
        finding::code,
        keys::TRANSITION,
        reader::Reader,
        tree::{Mark, Node, What},
    },
    step::{Kind, Machine, On, Steps, Transition},
};

/// What Flujo puts around a state's output.
const EVENT: [&str; 3] = ["last_output", "last_step", "output.event"];
/// States that are passed at most, if nothing is said.
const STATES: u64 = 100;

impl Reader<'_> {
    pub(super) fn machine(&mut self, fields: &Fields<'_>) -> Option<Kind> {
        let mut states = fields.node("states").map(|node| self.branches(node)).unwrap_or_default();
        let ends: Vec<Arc<str>> = match fields.node("end_states").map(|node| (&node.what, node)) {
            Some((What::List(nodes), _)) => nodes.iter().map(Node::name).collect(),
            Some((_, node)) => vec![node.name()],
            None => Vec::new(),
        };
        let names: BTreeSet<Arc<str>> = states.iter().map(|(name, _)| name).chain(&ends).cloned().collect();
        let rules: Vec<Option<Transition>> =
            fields.names("transitions").into_iter().map(|node| self.transition(node, &names)).collect();
        for (missing, key) in [(states.is_empty(), "states"), (fields.node("start_state").is_none(), "start_state")] {
            if missing {
                self.missing(fields.mark, "a state machine", key);
            }
        }
        let start = Arc::clone(fields.text("start_state")?);
        self.known_state(fields.at("start_state"), &start, &names);
        if states.is_empty() {
            return None;
        }
        // An end may be a name alone: nothing is done in it.
        let alone: Vec<Arc<str>> =
            ends.iter().filter(|end| states.iter().all(|(name, _)| name != *end)).cloned().collect();
        states.extend(alone.into_iter().map(|name| (name, Steps::new([]))));
        let transitions: Vec<Transition> = rules.into_iter().flatten().collect();
        if !ends.is_empty() && !reaches(&start, &ends, &transitions) {
            let message = format!("no transitions lead from {start} to an end; next_state in the context may");
            self.warn(fields.mark, code::STATES, message, "add the transition that is missing");
        }
        let most = fields.count("max_states").unwrap_or(STATES);
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        Some(Kind::Machine(Arc::new(Machine { start, ends, states, transitions, most })))
    }

    fn known_state(&mut self, mark: Mark, name: &Arc<str>, names: &BTreeSet<Arc<str>>) {
        if names.contains(name) {
            return;
        }
        let hint = match caudal_types::nearest(name, names.iter().map(|name| &**name)) {
            Some(near) => format!("did you mean {near}?"),
            None => "add it to states".to_owned(),
        };
        self.error(mark, code::STATES, format!("there is no state {}", caudal_types::shorten(name)), hint);
    }

    fn transition(&mut self, node: &Node, names: &BTreeSet<Arc<str>>) -> Option<Transition> {
        let fields = self.fields(node, &[TRANSITION], "a transition")?;
        // What cannot be read is told, and the transition left out.
        let when = fields.node("when").map_or(Some(None), |node| self.question(node).map(Some));
        if let Some(node) = fields.node("when").filter(|node| EVENT.iter().any(|part| node.name().contains(part))) {
            let message = "output is what the state gave: there is no event around it";
            self.warn(node.mark, code::OTHERWISE, message, "write output, and on: for what has become of the state");
        }
        let Some(to) = fields.text("to").cloned() else {
            self.missing(node.mark, "a transition", "to");
            return None;
        };
        self.known_state(fields.at("to"), &to, names);
        let from = fields.text("from").filter(|from| ***from != *"*").cloned();
        if let Some(from) = &from {
            self.known_state(fields.at("from"), from, names);
        }
        let on = match fields.word("on") {
            Some("failure") => On::Failure,
            Some("pause") => On::Pause,
            _ => On::Success,
        };
        Some(Transition { from, on, when: when?, to })
    }
}

/// Whether transitions lead from `start` to an end.
fn reaches(start: &Arc<str>, ends: &[Arc<str>], transitions: &[Transition]) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![Arc::clone(start)]);
    while let Some(state) = open.pop() {
        if ends.contains(&state) {
            return true;
        }
        let fits = |transition: &&Transition| transition.from.as_ref().is_none_or(|from| *from == state);
        let next: Vec<Arc<str>> =
            transitions.iter().filter(fits).map(|transition| Arc::clone(&transition.to)).collect();
        if seen.insert(state) {
            open.extend(next);
        }
    }
    false
}
