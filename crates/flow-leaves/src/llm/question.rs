//! The question, as `/chat/completions` takes it.

use bytes::Bytes;
use caudal_flow::{Call, Map, StepError, Value, value};

use super::{length::answer_tokens, providers::Endpoint, schema::Schema, settings::Settings};

/// Bytes around a message that a provider adds to it, and to all: more than any of those known.
const AROUND: u64 = 64;
/// The longest question, in bytes.
const LONGEST: usize = 16 << 20;
/// Who may speak in a list of messages.
const ROLES: [&str; 3] = ["system", "user", "assistant"];

/// Where the context has what was said before.
const HISTORY: &str = "conversation_history";

/// A question.
pub(super) struct Question {
    body: Bytes,
    tokens_in: u64,
    tokens_out: u64,
}

impl Question {
    pub(super) fn new(
        settings: &Settings,
        schema: Option<&Schema>,
        endpoint: &Endpoint,
        call: &Call,
    ) -> Result<Self, StepError> {
        let messages = messages(settings, schema, call)?;
        // No token has less than a byte.
        let mut tokens_in =
            messages.iter().map(|message| message.to_json().len() as u64 + AROUND).sum::<u64>() + AROUND;
        let format = schema.and_then(Schema::format);
        tokens_in += format.as_ref().map_or(0, |format| format.to_json().len() as u64);
        let tokens_out = answer_tokens(settings.tokens(), call.left(), tokens_in, endpoint.price);
        let mut body: Map = settings.said().collect();
        body = body.with("model", Value::text(&*endpoint.model)).with("messages", messages.into());
        let length = if endpoint.newer { "max_completion_tokens" } else { "max_tokens" };
        body = body.with(length, tokens_out.into());
        if settings.stream {
            body = body.with("stream", true.into()).with("stream_options", value!({"include_usage": true}));
        }
        if let Some(format) = format {
            body = body.with("response_format", format);
        }
        let body = Value::Map(body).to_json();
        if body.len() > LONGEST {
            let error = StepError::input(format!("the question has {} bytes, more than {LONGEST}", body.len()));
            return Err(error.hint("ask about less at once").for_good());
        }
        Ok(Self { body: body.into(), tokens_in, tokens_out })
    }

    /// Tokens that may be read and written at most.
    pub(super) fn most(&self) -> (u64, u64) {
        (self.tokens_in, self.tokens_out)
    }

    /// As it is sent.
    pub(super) fn body(&self) -> Bytes {
        self.body.clone()
    }
}

fn message(role: &str, content: &str) -> Value {
    value!({"role": role, "content": content})
}

fn messages(settings: &Settings, schema: Option<&Schema>, call: &Call) -> Result<Vec<Value>, StepError> {
    let told = settings.system_prompt.as_deref().map(|prompt| message("system", prompt));
    let asked = schema.and_then(Schema::words).map(|words| message("system", &words));
    let mut messages: Vec<Value> = told.into_iter().chain(asked).collect();
    let input = call.input.plain().map_err(|error| StepError::input(error.to_string()).for_good())?;
    let asked = spoken(&input).unwrap_or_else(|| vec![message("user", &said(&input))]);
    if let Some(before) = call.context.get(HISTORY).filter(|_| settings.use_history) {
        messages.extend(before_that(spoken(before).unwrap_or_default(), &asked));
    }
    messages.extend(asked);
    if let Some(wrong) = call.feedback().filter(|_| call.attempt > 1) {
        messages.push(message(
            "user",
            &format!("Your last answer was not accepted: {wrong}. Answer again, so that it is."),
        ));
    }
    Ok(messages)
}

/// A conversation up to what is asked now, which may have been said in it already: a step's words are the next one's
/// question.
fn before_that(mut turns: Vec<Value>, asked: &[Value]) -> Vec<Value> {
    let content = |turn: Option<&Value>| turn.and_then(|turn| turn.get("content")).cloned();
    if asked.len() == 1 && content(turns.last()) == content(asked.first()) {
        turns.pop();
    }
    turns
}

/// What somebody says.
fn said(input: &Value) -> String {
    input.as_text().map_or_else(|| input.to_json(), str::to_owned)
}

/// The messages of a conversation, if that is what the input is.
fn spoken(input: &Value) -> Option<Vec<Value>> {
    let list =
        input.as_list().or_else(|| input.get("messages").and_then(Value::as_list)).filter(|list| !list.is_empty())?;
    let one = |entry: &Value| {
        let role = entry.get("role").and_then(Value::as_text).filter(|role| ROLES.contains(role))?;
        Some(message(role, entry.get("content").and_then(Value::as_text)?))
    };
    list.iter().map(one).collect()
}
