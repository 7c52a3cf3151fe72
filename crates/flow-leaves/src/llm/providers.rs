//! Who is asked: providers by name, where each is, and with which key. All of it is the server's to say.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use caudal_flow::{Fault, StepError};
use caudal_types::shorten;
use hyper::{
    HeaderMap, Method,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;
use url::Url;

use super::{Price, Prices};
use crate::net::Ask;

/// Who is meant where no provider is named.
const USUAL: &str = "openai";
/// Where OpenAI is, if nobody says otherwise.
const OPENAI: &str = "https://api.openai.com/v1";

/// A provider of models.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// Where it is, up to `/chat/completions`.
    pub base_url: String,
    /// The environment's variable with its key; `<NAME>_API_KEY` if none is named.
    #[serde(default)]
    pub key_env: Option<String>,
}

/// Reads a variable of the environment.
type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The providers of language models, and what they cost.
#[derive(Clone)]
pub struct Llm {
    providers: BTreeMap<String, Provider>,
    prices: Prices,
    environment: Environment,
}

impl fmt::Debug for Llm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Llm").field("providers", &self.providers).field("prices", &self.prices).finish_non_exhaustive()
    }
}

impl Default for Llm {
    fn default() -> Self {
        Self::new(BTreeMap::new(), Prices::default(), |name| std::env::var(name).ok())
    }
}

impl Llm {
    /// These providers beside OpenAI, at these prices, with keys out of `environment`.
    pub fn new(
        providers: BTreeMap<String, Provider>,
        prices: Prices,
        environment: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        Self { providers, prices, environment: Arc::new(environment) }
    }

    fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Whom `model` means.
    pub(super) fn endpoint(&self, model: &str) -> Result<Endpoint, StepError> {
        let (provider, model) = model.split_once(':').unwrap_or((USUAL, model));
        let own = self.providers.get(provider);
        let variable = |what: &str| format!("{}_{what}", provider.to_uppercase().replace(['-', '.', ' '], "_"));
        let base = own.map(|own| own.base_url.clone()).or_else(|| self.variable(&variable("BASE_URL")));
        let base = base.or_else(|| (provider == USUAL).then(|| OPENAI.to_owned())).ok_or_else(|| {
            let error = StepError::input(format!("there is no provider {:?} of models", shorten(provider)));
            error
                .hint(format!(
                    "write openai:{provider}:{model} if that is a model's name, or set {}",
                    variable("BASE_URL")
                ))
                .for_good()
        })?;
        let url = Url::parse(&format!("{}/chat/completions", base.trim_end_matches('/')));
        let url = url.map_err(|error| misled(format!("the address of {provider} is no URL: {error}")))?;
        let wanted = own.and_then(|own| own.key_env.clone()).unwrap_or_else(|| variable("API_KEY"));
        let key = self.variable(&wanted);
        if key.is_none() && base == OPENAI {
            let error = StepError::new(Fault::Unauthorized, format!("there is no key for {provider}"));
            return Err(error.hint(format!("set {wanted} in the server's environment")).for_good());
        }
        let price = self.prices.of(provider, model)?;
        let newer = base == OPENAI;
        Ok(Endpoint { name: provider.to_owned(), model: model.to_owned(), url, key, price, newer })
    }
}

fn misled(message: String) -> StepError {
    StepError::failed(message).hint("mend the server's settings of providers").for_good()
}

/// Whom to ask.
pub(super) struct Endpoint {
    /// The provider.
    pub(super) name: String,
    /// The model, as the provider calls it.
    pub(super) model: String,
    /// What it costs.
    pub(super) price: Price,
    /// Whether the length of an answer has its newer name there.
    pub(super) newer: bool,
    url: Url,
    key: Option<String>,
}

impl Endpoint {
    /// The question without its words. By `key` the provider knows a question that it was asked before.
    pub(super) fn ask(&self, key: &str) -> Result<Ask, StepError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(key) = HeaderValue::from_str(key) {
            headers.insert("idempotency-key", key);
        }
        if let Some(key) = &self.key {
            let odd = |_| misled(format!("the key for {} has signs that no key has", self.name));
            let mut bearer = HeaderValue::from_str(&format!("Bearer {key}")).map_err(odd)?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(Ask { method: Method::POST, url: self.url.clone(), headers, body: Bytes::new() })
    }
}
