//! Parameters of questions about the server: each is checked, and one that is not known is named.

use std::{collections::BTreeMap, str::FromStr};

use axum::http::Uri;
use caudal_types::{nearest, shorten};

use crate::{params::read_flag, problem::Problem, route::Route};

/// The parameters of one question.
pub(crate) struct Parameters(BTreeMap<&'static str, String>);

impl Parameters {
    /// Reads those of `uri`; only `known` ones may be there.
    pub(crate) fn of(uri: &Uri, known: &[&'static str]) -> Result<Self, Problem> {
        let mut read = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            let Some(known) = known.iter().find(|known| **known == name) else {
                let message = format!("there is no parameter {:?}", shorten(&name));
                let hint = match nearest(&name, known.iter().copied()) {
                    Some(meant) => format!("did you mean {meant:?}?"),
                    None => format!("there are {}", known.join(", ")),
                };
                return Err(Problem::parameter(message, hint));
            };
            read.insert(*known, value.into_owned());
        }
        Ok(Self(read))
    }

    /// The route `route`, by its path or by method and path.
    pub(crate) fn route(&self) -> Result<Option<Route>, Problem> {
        let Some(wanted) = self.text("route") else { return Ok(None) };
        let found = Route::ALL.iter().find(|route| route.path() == wanted || route.title() == wanted);
        found.copied().map(Some).ok_or_else(|| {
            let message = format!("there is no route {:?}", shorten(wanted));
            Problem::parameter(message, "say it as GET /docs has it, such as /predict/{model}")
        })
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The number `name`, from `least` to `most`; `default` where it is not given.
    pub(crate) fn number<T>(&self, name: &str, default: T, least: T, most: T) -> Result<T, Problem>
    where
        T: FromStr + PartialOrd + std::fmt::Display + Copy,
    {
        let Some(text) = self.text(name) else { return Ok(default) };
        match text.parse::<T>() {
            Ok(number) if number >= least && number <= most => Ok(number),
            _ => Err(Problem::parameter(
                format!("{name} is {:?}", shorten(text)),
                format!("it is a number from {least} to {most}"),
            )),
        }
    }

    /// Whether `name` is said; `default` where it is not given.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, Problem> {
        self.text(name).map_or(Ok(default), |text| read_flag(name, text))
    }

    /// The word `name`, one of `words`; the first where it is not given.
    pub(crate) fn word(&self, name: &str, words: &[&'static str]) -> Result<&'static str, Problem> {
        let Some(text) = self.text(name) else { return Ok(words[0]) };
        words.iter().find(|word| **word == text).copied().ok_or_else(|| {
            let message = format!("{name} is {:?}", shorten(text));
            Problem::parameter(message, format!("it is one of {}", words.join(", ")))
        })
    }
}
