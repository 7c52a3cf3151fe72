//! What tokens cost.

use std::collections::BTreeMap;

use caudal_flow::{StepError, Usage};
use serde::Deserialize;

/// What a model's tokens cost.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(from = "Written")]
pub struct Price {
    /// Millionths of a dollar for a token that is read, which is dollars for a million of them.
    input: f64,
    /// The same for a token that is written.
    output: f64,
}

/// A price as settings have it.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    prompt_tokens_per_1k: f64,
    completion_tokens_per_1k: f64,
    prompt_tokens_per_1m: f64,
    completion_tokens_per_1m: f64,
}

impl From<Written> for Price {
    fn from(written: Written) -> Self {
        Self::per_million(
            written.prompt_tokens_per_1m + written.prompt_tokens_per_1k * 1e3,
            written.completion_tokens_per_1m + written.completion_tokens_per_1k * 1e3,
        )
    }
}

impl Price {
    /// US dollars for a million tokens.
    pub fn per_million(input: f64, output: f64) -> Self {
        let price = |price: f64| if price.is_finite() { price.max(0.0) } else { 0.0 };
        Self { input: price(input), output: price(output) }
    }

    /// US dollars for a thousand tokens.
    pub fn per_thousand(input: f64, output: f64) -> Self {
        Self::per_million(input * 1e3, output * 1e3)
    }

    /// What so many tokens come to: a part of a millionth counts as a whole one.
    pub fn of(self, tokens_in: u64, tokens_out: u64) -> Usage {
        let cost = self.input * tokens_in as f64 + self.output * tokens_out as f64;
        // Sums of decimals are off by some last digits: what is not more than that is not a part.
        Usage { tokens_in, tokens_out, cost: (cost - 1e-6).ceil().max(0.0) as u64 }
    }
}

impl Price {
    /// The most tokens that may be written for `cost` millionths of a dollar, where `tokens_in` are read too.
    pub(super) fn affordable(self, tokens_in: u64, cost: u64) -> u64 {
        let left = cost as f64 + 1e-6 - self.input * tokens_in as f64;
        if left < 0.0 {
            return 0;
        }
        if self.output > 0.0 { (left / self.output) as u64 } else { u64::MAX }
    }
}

/// Prices by provider and model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices {
    known: BTreeMap<String, Price>,
    strict: bool,
}

impl Prices {
    /// Prices under `provider:model`, or `provider:*` for all of its other models.
    pub fn new(known: BTreeMap<String, Price>) -> Self {
        Self { known, strict: false }
    }

    /// The same, and models without a price are not asked: else they count as free.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    pub(super) fn of(&self, provider: &str, model: &str) -> Result<Price, StepError> {
        let find = |model: &str| self.known.get(&format!("{provider}:{model}")).copied();
        match find(model).or_else(|| find("*")) {
            None if self.strict => {
                let error = StepError::failed(format!("nobody says what {provider}:{model} costs"));
                Err(error.hint("add its price to the server's settings").for_good())
            }
            price => Ok(price.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_read_and_rounded_up() {
        let read = |text: &str| serde_json::from_str::<Price>(text).unwrap();
        let price = read(r#"{"prompt_tokens_per_1k": 0.005, "completion_tokens_per_1m": 15}"#);
        assert_eq!(price, Price::per_million(5.0, 15.0));
        assert_eq!(price.of(1_000, 10), Usage { tokens_in: 1_000, tokens_out: 10, cost: 5_150 });
        assert_eq!(Price::per_thousand(0.000_15, 0.0).of(3, 9).cost, 1);
        assert_eq!(Price::per_million(0.1, 0.2).of(3, 0).cost, 1);
        assert_eq!(Price::per_million(f64::NAN, -1.0).of(9, 9).cost, 0);
        assert!(serde_json::from_str::<Price>(r#"{"prompt": 1}"#).is_err());
    }

    #[test]
    fn the_nearest_price_counts() {
        let [one, all] = [Price::per_million(1.0, 2.0), Price::per_million(3.0, 4.0)];
        let known = [("a:m".to_owned(), one), ("a:*".to_owned(), all)].into();
        let prices = Prices::new(known);
        assert_eq!(
            (prices.of("a", "m"), prices.of("a", "x"), prices.of("b", "m")),
            (Ok(one), Ok(all), Ok(Price::default()))
        );
        assert!(prices.strict().of("b", "m").is_err());
    }
}
