//! `select_fields`: some fields of objects, under other names.

use std::collections::BTreeMap;

use caudal_flow::{Answer, Call, Map, Registry, Value};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{plain::plain, settings::arguments};

const ABOUT: &str = "Selects the fields in `include` (default: all) of an object, or of each object of a list \
                    (`data`), and renames those in `rename`. Any other value is returned unchanged.";

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The fields to select; default: all.
    #[serde(default)]
    include: Option<Vec<String>>,
    /// New names by old names.
    #[serde(default)]
    rename: Option<BTreeMap<String, String>>,
}

pub(super) fn register(registry: &mut Registry) {
    plain::<Settings>(registry, "select_fields", ABOUT, work);
}

fn work(said: &Value, settings: &Settings, call: &Call) -> Answer {
    let (settings, data) = arguments(said, settings, &call.input, "data", &["include", "rename"])?;
    Ok(match &data {
        Value::Map(object) => settings.select(object).into(),
        Value::List(objects) => match objects.iter().map(Value::as_map).collect::<Option<Vec<_>>>() {
            Some(objects) => Value::list(objects.into_iter().map(|object| settings.select(object).into())),
            None => data,
        },
        _ => data,
    })
}

impl Settings {
    fn select(&self, object: &Map) -> Map {
        let wanted = |name: &str| self.include.as_ref().is_none_or(|include| include.iter().any(|own| own == name));
        let kept = object.iter().filter(|(name, _)| wanted(name));
        kept.map(|(name, value)| (self.name(name), value.clone())).collect()
    }

    fn name<'a>(&'a self, name: &'a str) -> &'a str {
        self.rename.as_ref().and_then(|rename| rename.get(name)).map_or(name, String::as_str)
    }
}
