//! Proofs read strictly: what no hash covers is refused, for people would read it as proven.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A member that a proof does not have, by the names that lead to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is a member that no hash covers")]
pub struct Uncovered(pub String);

/// Reads a proof, and refuses members that do not belong to it. Members in `known` may stand beside its own at the top.
///
/// # Errors
/// It is no such proof.
pub fn read<T: DeserializeOwned + Serialize>(
    json: &[u8],
    known: &[&str],
) -> Result<(T, Option<Uncovered>), serde_json::Error> {
    let json = json.strip_prefix("\u{feff}".as_bytes()).unwrap_or(json);
    let proof: T = serde_json::from_slice(json)?;
    let mut said: Value = serde_json::from_slice(json)?;
    if let Value::Object(members) = &mut said {
        members.retain(|name, _| !known.contains(&&**name));
    }
    let own = serde_json::to_value(&proof)?;
    Ok((proof, more(&said, &own).map(Uncovered)))
}

/// The first member of `said` that `own` does not have.
fn more(said: &Value, own: &Value) -> Option<String> {
    let below = |name: &str, rest: String| if rest.is_empty() { name.to_owned() } else { format!("{name}.{rest}") };
    match (said, own) {
        (Value::Object(said), Value::Object(own)) => said.iter().find_map(|(name, value)| match own.get(name) {
            None => Some(name.clone()),
            Some(own) => more(value, own).map(|rest| below(name, rest)),
        }),
        (Value::Array(said), Value::Array(own)) => said.iter().enumerate().find_map(|(place, value)| {
            let own = own.get(place).unwrap_or(&Value::Null);
            more(value, own).map(|rest| below(&place.to_string(), rest))
        }),
        (Value::Object(_) | Value::Array(_), _) => Some(String::new()),
        _ => None,
    }
}
