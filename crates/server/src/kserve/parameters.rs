//! Parameters of an inference request, of its inputs and of its outputs. One that is not supported is refused: what it asks
//! for would not happen, and the caller could not tell.

use std::collections::BTreeMap;

use caudal_types::{ErrorKind, nearest, shorten};
use serde_json::Value;

use crate::problem::Problem;

/// Parameters by name.
pub(super) type Parameters = BTreeMap<String, Value>;

/// What a request asks of the queue.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// 1 is the highest; 0 is the default.
    pub(super) priority: Option<u64>,
    /// Microseconds until the answer is worth nothing.
    pub(super) timeout: Option<u64>,
}

/// Parameters by which Triton's clients say that a request belongs to a sequence.
const OF_SEQUENCES: [&str; 3] = ["sequence_id", "sequence_start", "sequence_end"];

/// Reads the parameters of a whole request.
pub(super) fn of_request(parameters: &Parameters) -> Result<Asked, Problem> {
    let mut asked = Asked::default();
    for (name, value) in parameters {
        match name.as_str() {
            _ if value.is_null() => {}
            "priority" => asked.priority = Some(whole(name, value)?),
            "timeout" => asked.timeout = Some(whole(name, value)?),
            // Answers are JSON, whatever form of them is preferred.
            "binary_data_output" => {}
            name if OF_SEQUENCES.contains(&name) => {
                if !says_nothing(value) {
                    let hint = "leave it out, and send with each request all that the model needs";
                    return Err(refused("the request", name, "models here keep nothing between requests", hint));
                }
            }
            name => return Err(unknown("the request", name, &["priority", "timeout"])),
        }
    }
    Ok(asked)
}

/// Checks the parameters of the input `input`.
pub(super) fn check_input(input: &str, parameters: &Parameters) -> Result<(), Problem> {
    for (name, value) in parameters {
        match name.as_str() {
            _ if value.is_null() => {}
            // What the elements stand for in the client: numbers are the same numbers.
            "content_type" => {}
            "binary_data_size" => return Err(elsewhere(input, name, "binary tensors are not supported")),
            name if name.starts_with("shared_memory") => {
                return Err(elsewhere(input, name, "shared memory is not supported"));
            }
            name => return Err(unknown(&format!("input {:?}", shorten(input)), name, &[])),
        }
    }
    Ok(())
}

/// Checks the parameters of the output `output`.
pub(super) fn check_output(output: &str, parameters: &Parameters) -> Result<(), Problem> {
    let whose = || format!("output {:?}", shorten(output));
    for (name, value) in parameters {
        match name.as_str() {
            _ if value.is_null() => {}
            // Triton's client asks for it by itself, and reads JSON as well.
            "binary_data" => {}
            "classification" => {
                if !says_nothing(value) {
                    let hint = "leave it out (tritonclient: class_count), and sort the output's values by yourself";
                    return Err(refused(&whose(), name, "outputs are given as they are", hint));
                }
            }
            name if name.starts_with("shared_memory") => {
                let hint = "leave it out: the output comes with the answer";
                return Err(refused(&whose(), name, "shared memory is not supported", hint));
            }
            name => return Err(unknown(&whose(), name, &[])),
        }
    }
    Ok(())
}

/// Whether a value is what clients send who want nothing: 0, false or an empty text.
fn says_nothing(value: &Value) -> bool {
    matches!(value, Value::Bool(false)) || value.as_u64() == Some(0) || value.as_str() == Some("")
}

fn whole(name: &str, value: &Value) -> Result<u64, Problem> {
    let float = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=1e15).contains(number));
    value.as_u64().or(float.map(|number| number as u64)).ok_or_else(|| {
        let message = format!("parameter {name:?} is a whole number, 0 or more, not {}", shorten(&value.to_string()));
        Problem::parameter(message, "correct the value")
    })
}

fn refused(whose: &str, name: &str, why: &str, hint: &'static str) -> Problem {
    Problem::parameter(format!("{whose} has the parameter {name:?}, which is not supported: {why}"), hint)
}

fn elsewhere(input: &str, name: &str, why: &str) -> Problem {
    let message = format!("input {:?} has the parameter {name:?}, and its data elsewhere: {why}", shorten(input));
    Problem::new(ErrorKind::InvalidTensor, message, "send the elements as JSON, in the member `data`")
}

fn unknown(whose: &str, name: &str, known: &[&'static str]) -> Problem {
    let message = format!("{whose} has the parameter {:?}, which is not supported", shorten(name));
    let hint = match nearest(name, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None if known.is_empty() => "leave it out".to_owned(),
        None => format!("leave it out; there are {}", known.join(" and ")),
    };
    Problem::parameter(message, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(json: &str) -> Parameters {
        serde_json::from_str(json).unwrap()
    }

    fn refuses(outcome: Result<impl std::fmt::Debug, Problem>, words: &str) {
        let problem = outcome.unwrap_err();
        let said = format!("{}: {}; {}", problem.kind.code(), problem.message, problem.hint);
        assert!(said.contains(words), "{said}");
    }

    #[test]
    fn priority_and_timeout_are_read() {
        let all = r#"{"priority": 1, "timeout": 2.0, "binary_data_output": true, "sequence_id": 0, "sequence_end": false, "x": null}"#;
        assert_eq!(of_request(&parameters(all)).unwrap(), Asked { priority: Some(1), timeout: Some(2) });
        assert_eq!(of_request(&parameters(r#"{"priority": null}"#)).unwrap(), Asked::default());
    }

    #[test]
    fn what_would_be_ignored_is_refused_by_name() {
        let of_request = |json| of_request(&parameters(json));
        refuses(
            of_request(r#"{"sequence_id": 7}"#),
            "\"sequence_id\", which is not supported: models here keep nothing",
        );
        refuses(of_request(r#"{"sequence_start": true}"#), "\"sequence_start\"");
        refuses(
            of_request(r#"{"my": 1}"#),
            "\"my\", which is not supported; leave it out; there are priority and timeout",
        );
        refuses(of_request(r#"{"timeuot": 1}"#), "did you mean \"timeout\"?");
        refuses(of_request(r#"{"timeout": -1}"#), "0 or more, not -1");
        refuses(of_request(r#"{"priority": "high"}"#), "\"priority\" is a whole number");
        refuses(
            check_output("y", &parameters(r#"{"classification": 3}"#)),
            "output \"y\" has the parameter \"classification\"",
        );
        refuses(check_output("y", &parameters(r#"{"other": 3}"#)), "\"other\", which is not supported; leave it out");
        refuses(check_input("x", &parameters(r#"{"binary_data_size": 8}"#)), "invalid_tensor: input \"x\"");
        refuses(check_input("x", &parameters(r#"{"shared_memory_region": "r"}"#)), "shared memory is not supported");
        assert!(check_output("y", &parameters(r#"{"binary_data": true, "classification": 0}"#)).is_ok());
        assert!(check_input("x", &parameters(r#"{"content_type": "np"}"#)).is_ok());
    }
}
