//! `embed`: vectors of texts.

use caudal_flow::{Action, Answer, Call, Registry, Started, StepError, Value};
use caudal_tasks::{EmbedAsk, Text};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Serving, Urgency, model, present, way, within};
use crate::plain::{add, leaf};

const ABOUT: &str = "Computes the vector of a text, or a list of vectors for a list of texts, with a model of this \
                    server.";

/// Texts of one call.
const MOST: usize = 10_000;

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Name or alias of the model; may be omitted if there is only one text model.
    #[serde(default)]
    model: Option<String>,
    /// Number of values of each vector; default: all.
    #[serde(default)]
    dimensions: Option<usize>,
    /// Truncate texts that are too long.
    #[serde(default)]
    truncate: Option<bool>,
    /// Priority in the queue.
    #[serde(default)]
    priority: Urgency,
}

struct Embed {
    said: Value,
    settings: Settings,
    models: Option<Serving>,
}

pub(super) fn register(registry: &mut Registry, models: Option<&Serving>) {
    let models = models.cloned();
    let make = move |said: &Value, settings| Ok(Embed { said: said.clone(), settings, models: models.clone() });
    add(registry, "embed", leaf::<Settings, _>(ABOUT, make));
}

impl Action for Embed {
    fn identity(&self) -> Value {
        Value::list([Value::text("embed"), self.said.clone()])
    }

    fn start(&self, call: Call) -> Started<'_> {
        Started::Later(Box::pin(async move { self.embed(&call).await }))
    }
}

impl Embed {
    async fn embed(&self, call: &Call) -> Answer {
        let models = present(self.models.as_ref()).await?;
        let only = || models.catalog.now().only("embed").map(str::to_owned);
        let unnamed = || {
            StepError::input("no model is named, and there is not exactly one for texts").hint("say model").for_good()
        };
        let name = self.settings.model.clone().or_else(only).ok_or_else(unnamed)?;
        let served = model(&models, &name, call).await?;
        let texts = texts(&call.input)?;
        let ask = EmbedAsk { dimensions: self.settings.dimensions, truncate: self.settings.truncate };
        let way = way(call, self.settings.priority);
        let made = within(call, served.embed(models.pictures.decoders(), texts, ask, &way)).await?;
        let mut vectors = made.vectors.iter().map(|vector| Value::list(vector.iter().map(|x| f64::from(*x).into())));
        Ok(match &call.input {
            Value::Text(_) => vectors.next().unwrap_or_default(),
            _ => Value::list(vectors),
        })
    }
}

fn texts(input: &Value) -> Result<Vec<Text>, StepError> {
    let own = |text: &str| Text::Words(text.to_owned());
    let texts = match input {
        Value::Text(text) => Some(vec![own(text)]),
        Value::List(texts) if texts.len() <= MOST => texts.iter().map(|text| text.as_text().map(own)).collect(),
        _ => None,
    };
    texts.ok_or_else(|| {
        let error = StepError::input(format!("it takes a text or a list of up to {MOST} texts, not {}", input.sort()));
        error.hint("use stringify for what is no text").for_good()
    })
}
