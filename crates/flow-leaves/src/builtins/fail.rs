//! `fail`: fails, so that what is done then can be tried out.

use caudal_flow::{Answer, Call, Fault, Registry, StepError, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plain::quick;

const ABOUT: &str = "Fails with `message`, to try out retries and fallbacks. With `times`, the first attempts fail and \
                    later ones return the input.";

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Message of the error.
    #[serde(default = "message")]
    message: String,
    /// Number of attempts that fail; default: all.
    #[serde(default)]
    times: Option<u32>,
    /// Mark the error as retryable.
    #[serde(default = "yes")]
    again: bool,
    /// Code of the error, such as `step_timeout`.
    #[serde(default)]
    code: Option<String>,
}

fn message() -> String {
    "it was told to fail".to_owned()
}

fn yes() -> bool {
    true
}

pub(super) fn register(registry: &mut Registry) {
    quick::<Settings>(registry, "fail", ABOUT, work);
}

fn work(_: &Value, settings: &Settings, call: &Call) -> Answer {
    if settings.times.is_some_and(|times| call.attempt > times) {
        return Ok(call.input.clone());
    }
    let fault = settings.code.as_deref().and_then(Fault::of).unwrap_or(Fault::Failed);
    let error = StepError::new(fault, settings.message.clone()).hint("it fails on purpose");
    Err(StepError { again: settings.again, ..error })
}
