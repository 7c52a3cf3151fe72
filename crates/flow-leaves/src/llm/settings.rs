//! What is said about a model: as agents of Flujo have it.

use std::time::{Duration, Instant};

use caudal_flow::Value;
use caudal_types::Deadline;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::Error as _};

/// The longest answer that may be asked for, in tokens.
const MOST_TOKENS: u64 = 1_000_000;
/// Seconds for an answer, if nobody says how many.
const SECONDS: f64 = 120.0;
/// The longest that an answer may take, in seconds.
const LONGEST: f64 = 3_600.0;

/// What is said about a model.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// provider:name, or the name alone for OpenAI's models.
    pub(super) model: String,
    /// System prompt. It may contain expressions in {{ }}.
    #[serde(default)]
    pub(super) system_prompt: Option<String>,
    /// JSON schema that the answer must fit. Without one, or with that of a plain string, the answer is text.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    pub(super) output_schema: Option<Value>,
    /// Sampling temperature, 0 to 2.
    #[serde(default)]
    temperature: Option<f64>,
    /// Nucleus sampling: probability mass of the tokens to choose from, 0 to 1.
    #[serde(default)]
    top_p: Option<f64>,
    /// Maximum tokens of the answer; default: 4096, or half of the remaining budget if that is less.
    #[serde(default)]
    max_tokens: Option<u64>,
    /// Stream the answer, so that clients that follow the run see it as it is generated.
    #[serde(default)]
    pub(super) stream: bool,
    /// Further settings: temperature, top_p, max_tokens, and others that the provider accepts, such as seed or stop.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    model_settings: Option<Value>,
    /// Number of most likely tokens to choose from, if the provider supports it.
    #[serde(default)]
    top_k: Option<u64>,
    /// Send the context's conversation_history before the input.
    #[serde(default)]
    pub(super) use_history: bool,
    /// Output processing. With structured_output: off, the schema goes into the prompt, not into the provider's API.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    processing: Option<Value>,
    /// Timeout of an answer in seconds; default: 120.
    #[serde(default, deserialize_with = "number")]
    timeout: Option<f64>,
    /// Number of retries. Applied by the step, not by this action.
    #[serde(default, deserialize_with = "number")]
    #[expect(dead_code, reason = "a part of what is said about agents, which the step reads")]
    max_retries: Option<f64>,
}

/// What a pipeline cannot say: it is this leaf's own, or would cost more than was set aside.
const OURS: [&str; 9] = [
    "model",
    "messages",
    "stream",
    "stream_options",
    "response_format",
    "n",
    "tools",
    "max_completion_tokens",
    "best_of",
];

/// A number, or a text of one.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    let read = |value: serde_json::Value| match &value {
        serde_json::Value::String(text) => text.trim().parse().ok(),
        other => other.as_f64(),
    };
    value.map(|value| read(value).ok_or_else(|| D::Error::custom("a number is wanted"))).transpose()
}

impl Settings {
    /// Refuses what makes no sense.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.model.trim().is_empty() {
            return Err("model: say which, such as openai:gpt-4o-mini".to_owned());
        }
        if let Some(ours) = self.more().find(|(name, _)| OURS.contains(name)) {
            return Err(format!("model_settings: {} is not for a pipeline to say", ours.0));
        }
        let within = |name: &str, value: Option<f64>, most: f64| match value {
            Some(value) if !(0.0..=most).contains(&value) => Err(format!("{name}: it is 0 to {most}, not {value}")),
            _ => Ok(()),
        };
        within("temperature", self.temperature, 2.0)?;
        within("top_p", self.top_p, 1.0)?;
        within("timeout", self.timeout, LONGEST)?;
        match self.tokens() {
            None | Some(1..=MOST_TOKENS) => Ok(()),
            Some(_) => Err(format!("max_tokens: an answer has 1 to {MOST_TOKENS} tokens")),
        }
    }

    /// What else is said, under the provider's own names.
    pub(super) fn more(&self) -> impl Iterator<Item = (&str, &Value)> {
        let all = self.model_settings.as_ref().and_then(Value::as_map);
        all.into_iter().flatten().map(|(name, value)| (&**name, value))
    }

    /// What is said under the provider's own names, all of it but how long the answer may be.
    pub(super) fn said(&self) -> impl Iterator<Item = (&str, Value)> {
        let own = [("temperature", self.temperature.map(Value::from)), ("top_p", self.top_p.map(Value::from))];
        let own = own.into_iter().chain([("top_k", self.top_k.map(Value::from))]);
        let own = own.filter_map(|(name, value)| Some((name, value?)));
        let more = self.more().filter(|(name, _)| *name != "max_tokens");
        more.map(|(name, value)| (name, value.clone())).chain(own)
    }

    /// Whether the provider is told of the schema.
    pub(super) fn structured(&self) -> bool {
        let way = self.processing.as_ref().and_then(|processing| processing.get("structured_output"));
        way.is_none_or(|way| *way != Value::text("off") && *way != Value::Bool(false))
    }

    /// Tokens that the answer may have, if that is said.
    pub(super) fn tokens(&self) -> Option<u64> {
        let more = self.more().find(|(name, _)| *name == "max_tokens").map(|(_, value)| value);
        let more = more.map(|value| value.as_i64().and_then(|tokens| tokens.try_into().ok()).unwrap_or(0));
        self.max_tokens.or(more)
    }

    /// How long an answer may take from `now` on.
    pub(super) fn time(&self, deadline: Deadline, now: Instant) -> Duration {
        let own = Duration::from_secs_f64(self.timeout.unwrap_or(SECONDS));
        deadline.moment().map_or(own, |moment| own.min(moment.saturating_duration_since(now)))
    }
}
