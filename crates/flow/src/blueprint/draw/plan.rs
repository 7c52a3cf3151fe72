//! A pipeline as what is shown of it: the one form that all drawings are made from.

use crate::{
    step::{Kind, On, Policy, Rule, Step, Steps, Transition},
    value::Value,
};

/// What is shown of a step.
pub(super) struct Part {
    pub(super) name: String,
    /// What sort of step it is.
    pub(super) kind: &'static str,
    /// More about it, in a few words each.
    pub(super) notes: Vec<String>,
    pub(super) within: Within,
    /// What is done if it fails.
    pub(super) otherwise: Option<Box<Part>>,
}

/// What is within a step.
pub(super) enum Within {
    Nothing,
    /// Steps once.
    Once(Vec<Part>),
    /// Steps again and again.
    Again(Vec<Part>),
    /// Steps side by side, by name.
    Lanes(Vec<(String, Vec<Part>)>),
    /// One of several.
    Choice(Vec<(String, Vec<Part>)>),
}

/// What is shown of steps.
pub(super) fn parts(steps: &Steps) -> Vec<Part> {
    steps.iter().map(part).collect()
}

fn part(step: &Step) -> Part {
    let (within, mut notes) = within(&step.kind);
    let mut otherwise = None;
    if let Some(policy) = &step.policy {
        notes.extend(said(policy));
        otherwise = policy.fallback.as_ref().map(|step| Box::new(part(step)));
    }
    Part { name: shown(&step.name), kind: step.kind.name(), notes, within, otherwise }
}

fn lanes<'a>(branches: impl IntoIterator<Item = (&'a str, &'a Steps)>) -> Vec<(String, Vec<Part>)> {
    branches.into_iter().map(|(name, steps)| (shown(name), parts(steps))).collect()
}

fn within(kind: &Kind) -> (Within, Vec<String>) {
    let of = |branches: &[(std::sync::Arc<str>, Steps)]| lanes(branches.iter().map(|(name, steps)| (&**name, steps)));
    match kind {
        Kind::Act(action) => (Within::Nothing, action.identity().as_text().map(shown).into_iter().collect()),
        Kind::Human(human) => (Within::Nothing, human.message.iter().map(|rule| rule_text("asks", rule)).collect()),
        Kind::Sequence(steps) => (Within::Once(parts(steps)), Vec::new()),
        Kind::Parallel(parallel) => {
            let reduce = parallel.reduce.as_ref().map(|reduce| format!("then {}", reduce.name()));
            (Within::Lanes(of(&parallel.branches)), reduce.into_iter().collect())
        }
        Kind::Conditional(choice) => {
            let mut branches = of(&choice.branches);
            branches.extend(choice.otherwise.as_ref().map(|steps| ("otherwise".to_owned(), parts(steps))));
            (Within::Choice(branches), vec![rule_text("by", &choice.when)])
        }
        Kind::Loop(again) => {
            let until = again.until.as_ref().map(|rule| rule_text("until", rule));
            let most = format!("at most {} times", again.most);
            (Within::Again(parts(&again.body)), [most].into_iter().chain(until).collect())
        }
        Kind::Map(each) => {
            let items = each.items.as_ref().map(|rule| rule_text("for each of", rule));
            let at_once = (each.at_once > 1).then(|| format!("{} at once", each.at_once));
            (Within::Again(parts(&each.body)), items.into_iter().chain(at_once).collect())
        }
        Kind::Router(router) => {
            (Within::Choice(of(&router.parallel.branches)), vec![format!("{} chooses", leaf(&router.chooser))])
        }
        Kind::Cache(cached) => {
            let ttl = cached.ttl.map(|ttl| format!("for {ttl:?}"));
            (Within::Once(vec![part(&cached.step)]), ttl.into_iter().collect())
        }
        Kind::Import(import) => (Within::Once(parts(&import.steps)), vec![format!("of {}", shown(&import.pipeline))]),
        Kind::Machine(machine) => {
            let mut notes = vec![format!("begins with {}", shown(&machine.start))];
            notes.extend(machine.transitions.iter().map(transition));
            (Within::Lanes(of(&machine.states)), notes)
        }
        Kind::Search(search) => {
            let notes = vec![
                format!("{} proposes, {} rates", leaf(&search.proposer), leaf(&search.evaluator)),
                format!("at most {} levels, {} proposals", search.depth, search.most),
            ];
            (Within::Nothing, notes)
        }
    }
}

fn leaf(step: &Step) -> String {
    match &step.kind {
        Kind::Act(action) => action.identity().as_text().map_or_else(|| shown(&step.name), shown),
        _ => shown(&step.name),
    }
}

fn transition(transition: &Transition) -> String {
    let from = transition.from.as_deref().unwrap_or("any");
    let on = match transition.on {
        On::Success => "",
        On::Failure => " fails",
        On::Pause => " is answered",
    };
    let when = transition.when.as_ref().map(|rule| format!(" {}", rule_text("if", rule))).unwrap_or_default();
    format!("{}{on} → {}{when}", shown(from), shown(&transition.to))
}

fn rule_text(word: &str, rule: &Rule) -> String {
    // Of expressions and templates, what they were read from.
    let identity = rule.identity();
    let source = identity.as_list().and_then(<[Value]>::first).cloned();
    let said = match source.unwrap_or(identity) {
        Value::Text(text) => shown(text.trim()),
        other => shown(&other.to_json()),
    };
    format!("{word} {said}")
}

fn said(policy: &Policy) -> Vec<String> {
    let mut said = Vec::new();
    said.extend(policy.input.as_ref().map(|rule| rule_text("given", rule)));
    if policy.retry.more > 1 {
        said.push(format!("tried {} times", policy.retry.more.saturating_add(1)));
    }
    said.extend(policy.timeout.map(|timeout| format!("within {timeout:?}")));
    said.extend(policy.sink.as_ref().map(|sink| format!("to context.{}", shown(sink.trim_start_matches("context.")))));
    if policy.background {
        said.push("in the background".to_owned());
    }
    said
}

/// A text as it may stand in a drawing: short, and on one line.
pub(super) fn shown(text: &str) -> String {
    let line: String = text.chars().take(200).map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    caudal_types::shorten(&line).into_owned()
}
