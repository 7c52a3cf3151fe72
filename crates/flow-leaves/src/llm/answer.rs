//! An answer in one piece.

use bytes::Bytes;
use caudal_flow::{Fault, StepError};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::Value;

use super::spending::Spending;

/// What a model said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Its words.
    pub(super) text: String,
    /// Whether it had to stop before its end.
    pub(super) cut: bool,
}

/// An answer, or a part of one, as it comes. It is paid for: what is odd beside its words is left out, and its words are
/// read in each form that providers give them.
#[derive(Debug, Deserialize)]
pub(super) struct Chunk {
    #[serde(default, deserialize_with = "if_usual")]
    pub(super) choices: Vec<Choice>,
    #[serde(default, deserialize_with = "if_usual")]
    usage: Tokens,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    #[serde(default, alias = "delta", deserialize_with = "if_usual")]
    pub(super) message: Message,
    #[serde(default, deserialize_with = "if_usual")]
    finish_reason: String,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Message {
    #[serde(default)]
    content: Value,
    #[serde(default, deserialize_with = "if_usual")]
    refusal: String,
}

#[derive(Debug, Default, Deserialize)]
struct Tokens {
    #[serde(default)]
    prompt_tokens: Value,
    #[serde(default)]
    completion_tokens: Value,
}

/// The value, or nothing where it is of another sort.
fn if_usual<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    Value::deserialize(deserializer).map(|value| serde_json::from_value(value).unwrap_or_default())
}

impl Tokens {
    /// What was read and written, if it is said: as a number, also with a point, or as one in a text.
    fn counts(&self) -> Option<(u64, u64)> {
        let count = |said: &Value| {
            let number = said.as_f64().or_else(|| said.as_str()?.trim().parse().ok());
            said.as_u64().or_else(|| number.filter(|number| *number >= 0.0).map(|number| number.round() as u64))
        };
        match (count(&self.prompt_tokens), count(&self.completion_tokens)) {
            (None, None) => None,
            (read, written) => Some((read.unwrap_or_default(), written.unwrap_or_default())),
        }
    }
}

impl Message {
    /// Its words: a text, or those of its parts.
    pub(super) fn words(&self) -> Option<String> {
        match &self.content {
            Value::String(text) => Some(text.clone()),
            Value::Array(parts) => Some(parts.iter().filter_map(|part| part.get("text")?.as_str()).collect()),
            _ => None,
        }
    }
}

impl Choice {
    /// Whether it had to stop before its end.
    pub(super) fn is_cut(&self) -> bool {
        self.finish_reason == "length"
    }

    /// Whether it says why it ends.
    pub(super) fn is_last(&self) -> bool {
        !self.finish_reason.is_empty()
    }
}

impl Chunk {
    /// Reads one; what is spent is noted whatever else it says.
    pub(super) fn read(json: &[u8], name: &str, spending: &mut Spending) -> Result<Self, StepError> {
        let chunk: Self = serde_json::from_slice(json).map_err(|error| {
            let message = format!("{name} answers what is no chat completion: {error}");
            StepError::new(Fault::Output, message).hint("look whether its base_url is one of OpenAI's kind")
        })?;
        if let Some((read, written)) = chunk.usage.counts() {
            spending.told(read, written);
        }
        match &chunk.error {
            None => Ok(chunk),
            Some(error) => {
                let said = error.get("message").and_then(Value::as_str);
                let said = said.map_or_else(|| error.to_string(), str::to_owned);
                let message = format!("{name} failed: {}", caudal_types::shorten(&said));
                Err(StepError::new(Fault::Unreachable, message).hint("try again later; the fault is theirs"))
            }
        }
    }

    /// The one choice that was asked for.
    pub(super) fn choice(self, name: &str) -> Result<Option<Choice>, StepError> {
        let Some(choice) = self.choices.into_iter().next() else { return Ok(None) };
        match (&*choice.message.refusal, &*choice.finish_reason) {
            ("", "content_filter") => Err(unwilling(name, "its filter let nothing through")),
            ("", _) => Ok(Some(choice)),
            (refusal, _) => Err(unwilling(name, refusal)),
        }
    }
}

fn unwilling(name: &str, words: &str) -> StepError {
    let message = format!("{name} does not answer that: {}", caudal_types::shorten(words));
    StepError::new(Fault::Output, message).hint("ask in other words").for_good()
}

/// Reads an answer that came in one piece.
pub(super) fn read(body: &Bytes, name: &str, spending: &mut Spending) -> Result<Said, StepError> {
    spending.heard(body.len());
    let choice = Chunk::read(body, name, spending)?.choice(name)?;
    let said = choice.and_then(|choice| Some(Said { text: choice.message.words()?, cut: choice.is_cut() }));
    said.ok_or_else(|| {
        let error = StepError::new(Fault::Output, format!("{name} answers without a word"));
        error.hint("try again; if it stays so, look at the model")
    })
}
