//! An answer in one piece.

use bytes::Bytes;
use caudal_flow::{Fault, StepError};
use serde::Deserialize;

use super::spending::Spending;

/// What a model said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Its words.
    pub(super) text: String,
    /// Whether it had to stop before its end.
    pub(super) cut: bool,
}

/// An answer, or a part of one, as it comes.
#[derive(Debug, Deserialize)]
pub(super) struct Chunk {
    #[serde(default)]
    pub(super) choices: Vec<Choice>,
    #[serde(default)]
    pub(super) usage: Option<Tokens>,
    #[serde(default)]
    pub(super) error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Choice {
    #[serde(default, alias = "delta")]
    pub(super) message: Message,
    #[serde(default)]
    pub(super) finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Message {
    #[serde(default)]
    pub(super) content: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Tokens {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl Chunk {
    /// Reads one; what is spent is noted whatever else it says.
    pub(super) fn read(json: &[u8], name: &str, spending: &mut Spending) -> Result<Self, StepError> {
        let chunk: Self = serde_json::from_slice(json).map_err(|error| {
            let message = format!("{name} answers what is no chat completion: {error}");
            StepError::new(Fault::Output, message).hint("look whether its base_url is one of OpenAI's kind")
        })?;
        if let Some(usage) = &chunk.usage {
            spending.told(usage.prompt_tokens, usage.completion_tokens);
        }
        match &chunk.error {
            None => Ok(chunk),
            Some(error) => {
                let said = error
                    .get("message")
                    .and_then(serde_json::Value::as_str)
                    .map_or_else(|| error.to_string(), str::to_owned);
                let message = format!("{name} failed: {}", caudal_types::shorten(&said));
                Err(StepError::new(Fault::Unreachable, message).hint("try again later; the fault is theirs"))
            }
        }
    }

    /// The one choice that was asked for.
    pub(super) fn choice(self, name: &str) -> Result<Option<Choice>, StepError> {
        let Some(choice) = self.choices.into_iter().next() else { return Ok(None) };
        match (&choice.message.refusal, choice.finish_reason.as_deref()) {
            (Some(refusal), _) => Err(unwilling(name, refusal)),
            (None, Some("content_filter")) => Err(unwilling(name, "its filter let nothing through")),
            _ => Ok(Some(choice)),
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
    let Some(Choice { message: Message { content: Some(text), .. }, finish_reason }) = choice else {
        let error = StepError::new(Fault::Output, format!("{name} answers without a word"));
        return Err(error.hint("try again; if it stays so, look at the model"));
    };
    Ok(Said { text, cut: finish_reason.as_deref() == Some("length") })
}
