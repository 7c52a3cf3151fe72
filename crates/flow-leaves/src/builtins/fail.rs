//! `fail`: fails, so that what is done then can be tried out.

use caudal_flow::{Answer, Call, Fault, Registry, StepError, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plain::quick;

const ABOUT: &str = "Fails with `message`, to try out retries and fallbacks. With `times`, the first tries fail and later ones give \
                     the input.";

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// What is said.
    #[serde(default = "message")]
    message: String,
    /// How many tries fail; all, if left out.
    #[serde(default)]
    times: Option<u32>,
    /// Whether trying again is said to help.
    #[serde(default = "yes")]
    again: bool,
    /// The code of the failure, such as `step_timeout`.
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
