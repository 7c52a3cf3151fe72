//! Members of a request's body that are not known. One that was ignored would leave its sender believing that it counts.

use std::{borrow::Cow, collections::BTreeMap};

use caudal_types::{ErrorKind, nearest, shorten};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::problem::Problem;

/// Members of an inference request; of those of its inputs, and of its outputs.
const OF_REQUEST: [&str; 6] = ["id", "parameters", "inputs", "outputs", "model_name", "model_version"];
const OF_INPUT: [&str; 5] = ["name", "shape", "datatype", "parameters", "data"];
const OF_OUTPUT: [&str; 2] = ["name", "parameters"];

/// A member's name, perhaps with escapes.
#[derive(Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

type Object<'a> = BTreeMap<Name<'a>, &'a RawValue>;

/// The first member of an inference request that is not known, if the body has one.
pub(super) fn unknown_in_inference(body: &[u8]) -> Option<Problem> {
    let text = std::str::from_utf8(body).ok()?;
    if let Some(problem) = unknown(text, "the request", &OF_REQUEST) {
        return Some(problem);
    }
    let request: Object<'_> = serde_json::from_str(text).ok()?;
    let within = |list: &str, one: &str, known: &[&'static str]| {
        let list = request.get(&Name(list.into()))?;
        let items: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
        items.into_iter().find_map(|item| unknown(item.get(), one, known))
    };
    within("inputs", "an input", &OF_INPUT).or_else(|| within("outputs", "an output", &OF_OUTPUT))
}

/// The first member of the JSON object `text`, which is called `whose`, that is not one of `known`, if it has one.
pub(super) fn unknown(text: &str, whose: &str, known: &[&'static str]) -> Option<Problem> {
    let object: Object<'_> = serde_json::from_str(text).ok()?;
    let Name(name) = object.into_keys().find(|Name(name)| !known.contains(&&**name))?;
    let hint = match nearest(&name, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("leave it out; the members are {}", known.join(", ")),
    };
    let message = format!("{whose} has the member {:?}, which is not known", shorten(&name));
    Some(Problem::new(ErrorKind::InvalidRequest, message, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(body: &str, words: &str) {
        let problem = unknown_in_inference(body.as_bytes()).unwrap_or_else(|| panic!("{body}"));
        let said = format!("{}; {}", problem.message, problem.hint);
        assert!(said.contains(words), "{said}");
    }

    #[test]
    fn unknown_member_is_named_with_the_one_that_may_be_meant() {
        check(
            r#"{"inputs": [], "output": []}"#,
            "the request has the member \"output\", which is not known; did you mean",
        );
        check(r#"{"inputs": [], "paramters": {}}"#, "did you mean \"parameters\"?");
        check(r#"{"inputs": [], "p\u0061ramters": {}}"#, "\"paramters\"");
        check(r#"{"colour": 1}"#, "leave it out; the members are id, parameters");
        check(r#"{"inputs": [{"name": "x"}, {"dtype": "FP32"}]}"#, "an input has the member \"dtype\"");
        check(r#"{"outputs": [{"name": "y", "classification": 3}]}"#, "an output has the member \"classification\"");
    }

    #[test]
    fn requests_of_triton_and_kserve_clients_have_no_unknown_members() {
        for body in [
            r#"{"id": "1", "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}],
                "outputs": [{"name": "y", "parameters": {"binary_data": true}}], "parameters": {"binary_data_output": true}}"#,
            r#"{"id": "1", "model_name": "m", "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}"#,
            "[]",
            "{",
            "",
        ] {
            assert!(unknown_in_inference(body.as_bytes()).is_none(), "{body}");
        }
    }
}
