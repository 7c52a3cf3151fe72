//! `now`: what time it is.

use std::time::{SystemTime, UNIX_EPOCH};

use caudal_flow::{Action, Call, Registry, Started, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plain::{add, leaf};

const ABOUT: &str = "Returns the time: as UTC text such as 2026-11-22T05:51:10.000Z, or as seconds since 1970 with \
                    form: unix. It is never cached; a durable run that resumes reuses the time of its journal.";

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Form {
    /// RFC 3339.
    #[default]
    Iso,
    /// Seconds since 1970.
    Unix,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Format of the time.
    #[serde(default)]
    form: Form,
}

struct Now(Form);

pub(super) fn register(registry: &mut Registry) {
    add(registry, "now", leaf::<Settings, _>(ABOUT, |_, settings| Ok(Now(settings.form))));
}

impl Action for Now {
    fn identity(&self) -> Value {
        Value::text(match self.0 {
            Form::Iso => "now",
            Form::Unix => "now unix",
        })
    }

    fn start(&self, _: Call) -> Started<'_> {
        let now = SystemTime::now();
        Started::Done(Ok(match self.0 {
            Form::Iso => humantime::format_rfc3339_millis(now).to_string().into(),
            Form::Unix => now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64().into(),
        }))
    }

    fn repeatable(&self) -> bool {
        false
    }
}
