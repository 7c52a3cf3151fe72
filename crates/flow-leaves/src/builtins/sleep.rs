//! `sleep`: waits.

use std::time::Duration;

use caudal_flow::{Action, Call, Registry, Started, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plain::{add, leaf};

const ABOUT: &str = "Waits for `seconds`, at most an hour, and returns its input. Cancelling the run ends the wait.";

/// The longest wait.
const LONGEST: f64 = 3_600.0;

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Duration in seconds.
    seconds: f64,
}

struct Sleep {
    said: Value,
    wait: Duration,
}

pub(super) fn register(registry: &mut Registry) {
    add(registry, "sleep", leaf::<Settings, _>(ABOUT, make));
}

fn make(said: &Value, settings: Settings) -> Result<Sleep, String> {
    if !(0.0..=LONGEST).contains(&settings.seconds) {
        return Err(format!("seconds: it waits for 0 to {LONGEST} seconds, not {}", settings.seconds));
    }
    Ok(Sleep { said: said.clone(), wait: Duration::from_secs_f64(settings.seconds) })
}

impl Action for Sleep {
    fn identity(&self) -> Value {
        Value::list([Value::text("sleep"), self.said.clone()])
    }

    fn start(&self, call: Call) -> Started<'_> {
        Started::Later(Box::pin(async move {
            tokio::time::sleep(self.wait).await;
            Ok(call.input)
        }))
    }
}
