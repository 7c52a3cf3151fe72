//! Large values: kept beside a run, by their hash.

use sha2::{Digest as _, Sha256};

use super::{Runs, lines::read};
use crate::{error::RunError, value::Value};

/// Values whose JSON is longer are kept beside the run.
const INLINE: usize = 64 << 10;
/// The name under which a hash stands in place of a value.
const BLOB: &str = "$blob";

/// Keeps a value that is too large for a line beside it.
pub(super) async fn shelve(runs: &dyn Runs, value: &Value) -> Result<Value, RunError> {
    let plain = value.plain().map_err(|error| RunError::Journal(error.to_string().into()))?;
    // Only a Rust value can be deeper here than what went from step to step.
    plain.check_bounds().map_err(|deep| RunError::Step { step: "journal".into(), error: deep.into() })?;
    // What looks like a hash in place of a value is kept beside the run, however short: else it would be taken for one.
    let alike = plain.get(BLOB).is_some();
    if plain.size() < INLINE / 2 && !alike {
        return Ok(plain);
    }
    let json = plain.to_json();
    if json.len() <= INLINE && !alike {
        return Ok(plain);
    }
    let hash: String = Sha256::digest(&json).iter().map(|byte| format!("{byte:02x}")).collect();
    runs.keep(&hash, json.into()).await?;
    Ok(Value::Map([(BLOB, Value::from(hash))].into_iter().collect()))
}

/// The value that a hash stands for.
pub(super) async fn fetch(runs: &dyn Runs, value: Value) -> Result<Value, RunError> {
    let hash = match &value {
        Value::Map(map) if map.len() == 1 => map.get(BLOB).and_then(Value::as_text),
        _ => None,
    };
    let Some(hash) = hash else { return Ok(value) };
    let missing = || RunError::Journal(format!("the value {hash} is missing").into());
    read(&runs.kept(hash).await?.ok_or_else(missing)?)
}
