//! The conversation of a loop: what its turns add to it.

use super::State;
use crate::{
    error::StepError,
    live::Live,
    log::{Place, Spoken},
    step::{Keep, Talk, Voice},
    value::Value,
};

/// Where the context has it. Language models that are told of it read it there.
pub(super) const HISTORY: &str = "conversation_history";
const USER: &str = "user";
const ASSISTANT: &str = "assistant";

/// What a loop is given begins its conversation, if there is none yet.
pub(super) fn begin(talk: Option<&Talk>, state: &mut State) -> Result<(), StepError> {
    let Some(talk) = talk else { return Ok(()) };
    let mut turns = so_far(state)?;
    if turns.is_empty() {
        let given = state.value.plain().map_err(|error| StepError::input(error.to_string()))?;
        say(&mut turns, USER, text(&given));
    }
    keep(talk, state, turns);
    Ok(())
}

/// What was said in the turn at `place` is added.
pub(super) fn add(talk: Option<&Talk>, live: &Live, place: Place, state: &mut State) -> Result<(), StepError> {
    let Some(talk) = talk else { return Ok(()) };
    let mut turns = so_far(state)?;
    let spoken = live.log.spoken(place);
    let last = spoken.iter().rposition(|said| said.asked.is_none() && words(&said.output).is_some());
    for (number, said) in spoken.iter().enumerate() {
        if let Some(question) = &said.asked {
            say(&mut turns, ASSISTANT, text(question));
        }
        if talk.user.contains(&said.name) || talk.people && said.asked.is_some() {
            say(&mut turns, USER, text(&said.output));
        } else if said.asked.is_none() {
            let content = match &talk.assistant {
                Voice::Last if last == Some(number) => words(&said.output),
                Voice::All => words(&said.output),
                Voice::Named(names) if names.contains(&said.name) => words(&said.output).or_else(|| named(said)),
                _ => None,
            };
            say(&mut turns, ASSISTANT, content);
        }
    }
    keep(talk, state, turns);
    Ok(())
}

fn so_far(state: &State) -> Result<Vec<Value>, StepError> {
    match state.context.get(HISTORY) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::List(turns)) => Ok(turns.to_vec()),
        Some(other) => {
            let message = format!("context.{HISTORY} is {}, and a conversation is a list of turns", other.sort());
            Err(StepError::failed(message).hint("set it to a list, or call yours something else").for_good())
        }
    }
}

/// Adds a turn, unless it says nothing, or what was said last.
fn say(turns: &mut Vec<Value>, role: &str, content: Option<String>) {
    let Some(content) = content else { return };
    let turn = crate::value!({"role": role, "content": content});
    if turns.last() != Some(&turn) {
        turns.push(turn);
    }
}

fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::Text(text) => text.trim().to_owned(),
        other => other.to_json(),
    };
    (!text.is_empty()).then_some(text)
}

/// What a step that is named gives is said, whatever it is.
fn named(said: &Spoken) -> Option<String> {
    text(&said.output).filter(|_| question(&said.output).is_none())
}

/// The words of an output: a text, or the question of an `{action, question}`. Other values are not said but passed on,
/// and to be done is nothing to say.
fn words(output: &Value) -> Option<String> {
    let Value::Text(said) = output else { return question(output)? };
    let said = said.trim();
    if let Some(asked) = said.starts_with('{').then(|| Value::from_json(said.as_bytes()).ok()).flatten() {
        return question(&asked).unwrap_or_else(|| Some(said.to_owned()));
    }
    let done = said.eq_ignore_ascii_case("finish") || said.eq_ignore_ascii_case("done");
    (!said.is_empty() && !done).then(|| said.to_owned())
}

/// What an `{action, question}` asks: `None` if it is none, `Some(None)` if it asks nothing.
fn question(output: &Value) -> Option<Option<String>> {
    let action = output.get("action").and_then(Value::as_text);
    let question = output.get("question").and_then(Value::as_text);
    if action.is_none() && question.is_none() {
        return None;
    }
    let finish = action.is_some_and(|action| action.eq_ignore_ascii_case("finish"));
    Some(question.map(str::trim).filter(|question| !finish && !question.is_empty()).map(str::to_owned))
}

fn keep(talk: &Talk, state: &mut State, turns: Vec<Value>) {
    let turns = match talk.keep {
        Keep::Turns(most) => latest(turns, |_| 1, most),
        Keep::Tokens(most) => latest(turns, tokens, most),
    };
    state.context = state.context.with(HISTORY, turns.into());
}

/// What was said first, and of the rest the latest turns that weigh no more than `most` together: one at least.
fn latest(mut turns: Vec<Value>, weight: impl Fn(&Value) -> usize, most: usize) -> Vec<Value> {
    let mut left = most;
    let fits = |turn: &&Value| match left.checked_sub(weight(turn)) {
        Some(less) => {
            left = less;
            true
        }
        None => false,
    };
    let kept = turns.iter().rev().take_while(fits).count().max(1);
    if kept < turns.len() {
        turns.drain(1..turns.len() - kept);
    }
    turns
}

/// About as many tokens as a turn has: rather too many.
fn tokens(turn: &Value) -> usize {
    let letters = |key: &str| turn.get(key).and_then(Value::as_text).map_or(0, |text| text.chars().count());
    ((letters("role") + letters("content") + 2) * 2 / 5).max(1)
}
