//! `record`: an event that stands for ever.

use caudal_flow::{Action, Answer, Call, Fault, Registry, Started, StepError, Value, key_of, value};
use caudal_record::{Consultations, Ingest, Ingested, NewConsultation, RecordError, time::iso};
use caudal_types::{ErrorKind, Explain};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    aside::aside,
    models::told,
    plain::{add, leaf},
};

const ABOUT: &str = "Appends an event to a consultation: of event_type, with the input as its payload; without \
                    event_type, the input is the whole event. A resumed run appends no event twice. Returns \
                    consultation_id, event_id, sequence, timestamp and repeated.";

/// Whose name is on what a pipeline makes, if nobody says.
const NOBODY: &str = "pipeline";
/// Where the record says that an event came from.
const SOURCE: &str = "caudal flow";
/// The longest event, in bytes.
const LONGEST: usize = 16 << 20;
/// The longest key that is handed on as it is.
const LONGEST_KEY: usize = 200;

/// Where events go.
#[derive(Debug, Clone)]
pub struct Record {
    /// All consultations.
    pub consultations: Consultations,
    /// Where the clinic is, as events say it.
    pub timezone: String,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Id of the consultation; if omitted, `create` must be set, and one is created for the run.
    #[serde(default)]
    consultation: Option<String>,
    /// Type of the event, such as MESSAGE_RECEIVED.
    #[serde(default)]
    event_type: Option<String>,
    /// Payload of the event; default: the input.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    payload: Option<Value>,
    /// User of the event.
    #[serde(default)]
    user_id: Option<String>,
    /// Session of the event.
    #[serde(default)]
    session_id: Option<String>,
    /// Metadata of the event.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    metadata: Option<Value>,
    /// Create the consultation if it does not exist.
    #[serde(default)]
    create: bool,
}

struct Append {
    said: Value,
    settings: Settings,
    record: Option<Record>,
}

/// Adds `record`.
pub(crate) fn register(registry: &mut Registry, record: Option<&Record>) {
    let record = record.cloned();
    let make = move |said: &Value, settings: Settings| match (&settings.consultation, settings.create) {
        (None, false) => Err("consultation: say which, or create: true to have one made".to_owned()),
        _ => Ok(Append { said: said.clone(), settings, record: record.clone() }),
    };
    add(registry, "record", leaf::<Settings, _>(ABOUT, make));
}

impl Action for Append {
    fn identity(&self) -> Value {
        Value::list([Value::text("record"), self.said.clone()])
    }

    fn start(&self, call: Call) -> Started<'_> {
        Started::Later(Box::pin(async move { self.append(&call).await }))
    }

    /// To be told what was recorded before is not to record.
    fn repeatable(&self) -> bool {
        false
    }
}

impl Append {
    async fn append(&self, call: &Call) -> Answer {
        let Some(record) = &self.record else {
            let error = StepError::failed("nothing is recorded where this runs");
            return Err(error.hint("run it with a folder for records: --data-dir DIR").for_good());
        };
        let event = self.event(call)?;
        let timezone = record.timezone.clone();
        let read = move || Ingest::new(SOURCE, &timezone).event(event.as_bytes(), None).map_err(|error| failed(&error));
        let Ingested { record: event, expected } = aside(call.input.size(), read).await?;
        let (all, key, id) = (&record.consultations, shortened(&call.key()), event.id);
        let name = self.consultation(all, call).await?;
        let appended =
            all.append_once(&name, vec![event], expected, Some(&key)).await.map_err(|error| failed(&error))?;
        let id = match appended.repeated {
            false => id,
            true => all.event(&name, &appended.last.to_string()).await.map_err(|error| failed(&error))?.id,
        };
        Ok(value!({
            "consultation_id": name, "event_id": id.to_string(), "sequence": appended.last,
            "timestamp": iso(appended.time), "repeated": appended.repeated,
        }))
    }

    /// The event as it would be sent.
    fn event(&self, call: &Call) -> Result<String, StepError> {
        let Settings { event_type, payload, user_id, session_id, metadata, .. } = &self.settings;
        let input = call.input.plain().map_err(|error| StepError::input(error.to_string()).for_good())?;
        let text = |text: &Option<String>| text.as_deref().map(Value::text);
        let event = match event_type {
            None => input,
            Some(event_type) => {
                let payload = payload.clone().unwrap_or(input);
                let more =
                    [("user_id", text(user_id)), ("session_id", text(session_id)), ("metadata", metadata.clone())];
                let more = more.into_iter().filter_map(|(name, value)| Some((name, value?)));
                let own = [("event_type", Value::text(&**event_type)), ("payload", payload)];
                Value::Map(own.into_iter().chain(more).collect())
            }
        };
        let json = event.to_json();
        match json.len() <= LONGEST {
            true => Ok(json),
            false => Err(StepError::input(format!("the event has more than {LONGEST} bytes"))
                .hint("record less at once")
                .for_good()),
        }
    }

    /// The name of the consultation, which is there or is made.
    async fn consultation(&self, all: &Consultations, call: &Call) -> Result<String, StepError> {
        let Settings { consultation, user_id, session_id, create, .. } = &self.settings;
        let new = |consultation_id| NewConsultation {
            user_id: user_id.clone().unwrap_or_else(|| NOBODY.to_owned()),
            session_id: session_id.clone(),
            consultation_id,
            ..NewConsultation::default()
        };
        let Some(name) = consultation else {
            // One for the run, however many of its steps record something.
            let made = all.make(&new(None), Some(&shortened(call.run()))).await;
            return made.map(|made| made.name().to_owned()).map_err(|error| failed(&error));
        };
        if *create && matches!(all.find(name).await, Err(RecordError::NoConsultation(_))) {
            match all.make(&new(Some(name.clone())), None).await {
                Ok(_) => {}
                // Somebody else was quicker.
                Err(error) if error.kind() == ErrorKind::Exists => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        Ok(name.clone())
    }
}

/// A key that the record takes.
fn shortened(key: &str) -> String {
    if key.len() <= LONGEST_KEY {
        return key.to_owned();
    }
    let digest = key_of(|to| {
        to.extend_from_slice(key.as_bytes());
        Ok(())
    });
    digest.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(error: &RecordError) -> StepError {
    let told = told(error);
    if error.kind() == ErrorKind::NotFound {
        return told.hint("name one that there is, or say create: true").for_good();
    }
    // Whoever waits for disks may try again.
    if error.kind() == ErrorKind::DiskFull { StepError { fault: Fault::Unreachable, ..told } } else { told }
}
