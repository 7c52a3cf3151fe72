//! What is said about a leaf: read with types, told as a JSON schema.

use caudal_flow::{Map, StepError, Value};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;

/// Settings of a leaf. They say in their type what may be said.
pub(crate) trait Settings: DeserializeOwned + JsonSchema + Clone + Send + Sync + 'static {}

impl<T: DeserializeOwned + JsonSchema + Clone + Send + Sync + 'static> Settings for T {}

/// What a leaf of these settings takes, as a JSON schema.
pub(crate) fn schema<S: Settings>() -> Value {
    serde_json::Value::from(schemars::schema_for!(S)).into()
}

/// Reads what was said; nothing said is an empty object. `Err` names the key.
pub(crate) fn read<S: Settings>(said: &Value) -> Result<S, String> {
    let said = match said {
        Value::Null => Value::Map(Map::default()),
        said => said.plain().map_err(|error| error.to_string())?,
    };
    if said.as_map().is_none() {
        return Err(format!("its settings are an object, not {}", said.sort()));
    }
    let json = serde_json::Value::from(&said);
    serde_path_to_error::deserialize(json).map_err(|error| match error.path().to_string().as_str() {
        "." => error.inner().to_string(),
        path => format!("{path}: {}", error.inner()),
    })
}

/// What a call is about, where its input may be either the data or an object of all arguments, as functions are called.
///
/// An input that has `data` and whose names are all among `names` is such an object: what it says counts in place of
/// what the settings say.
pub(crate) fn arguments<S: Settings>(
    said: &Value,
    read_already: &S,
    input: &Value,
    data: &str,
    names: &[&str],
) -> Result<(S, Value), StepError> {
    let plain = input.plain().map_err(|error| StepError::input(format!("its input is no JSON: {error}")))?;
    let Some(found) = arguments_of(&plain, data, names) else { return Ok((read_already.clone(), plain)) };
    let own = said.as_map().cloned().unwrap_or_default();
    let all = own.merged(&found.without(data));
    let settings =
        read(&Value::Map(all)).map_err(|wrong| StepError::input(format!("its input: {wrong}")).for_good())?;
    Ok((settings, found.get(data).cloned().unwrap_or_default()))
}

fn arguments_of<'a>(input: &'a Value, data: &str, names: &[&str]) -> Option<&'a Map> {
    let map = input.as_map().filter(|map| map.get(data).is_some())?;
    map.iter().all(|(name, _)| **name == *data || names.contains(&&**name)).then_some(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_flow::value;

    #[derive(Clone, serde::Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Said {
        #[serde(default)]
        field: Option<String>,
        #[serde(default)]
        deep: Vec<u8>,
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |said: Value| read::<Said>(&said).err().unwrap();
        assert!(
            wrong(value!({"deep": [1, "two"]})).starts_with("deep[1]: "),
            "{}",
            wrong(value!({"deep": [1, "two"]}))
        );
        assert!(wrong(value!({"feild": 1})).contains("unknown field `feild`, expected `field`"));
        assert_eq!(wrong(value!("x")), "its settings are an object, not string");
        assert!(read::<Said>(&Value::Null).unwrap().deep.is_empty());
    }

    #[test]
    fn arguments_come_with_the_input_or_before() {
        let said = value!({"field": "a"});
        let settings: Said = read(&said).unwrap();
        let given = |input: Value| {
            let (settings, data) = arguments(&said, &settings, &input, "data", &["field"]).unwrap();
            (settings.field.unwrap(), data)
        };
        assert_eq!(given(value!([1])), ("a".into(), value!([1])));
        assert_eq!(given(value!({"data": [1]})), ("a".into(), value!([1])));
        assert_eq!(given(value!({"data": [1], "field": "b"})), ("b".into(), value!([1])));
        let own = value!({"data": [1], "other": 2});
        assert_eq!(given(own.clone()), ("a".into(), own), "an object with other names is the data itself");
    }
}
