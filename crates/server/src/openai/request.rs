//! Reads a request for embeddings.

use caudal_tasks::{EmbedAsk, Text};
use caudal_types::{ErrorKind, nearest, shorten};
use serde::Deserialize;

use crate::problem::Problem;

/// Most texts in one request, as OpenAI has it.
const MAX_INPUTS: usize = 2048;

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) model: String,
    pub(crate) texts: Vec<Text>,
    pub(crate) format: EncodingFormat,
    pub(crate) ask: EmbedAsk,
}

/// A request for embeddings.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EmbeddingsRequest {
    /// Name or alias.
    #[schema(example = "all-MiniLM-L6-v2")]
    model: String,
    input: Input,
    #[serde(default)]
    encoding_format: EncodingFormat,
    /// Values of each vector, the first of all it has; all when absent.
    dimensions: Option<usize>,
    /// Whether texts longer than the model takes are cut; else they are refused, unless `model.yaml` says otherwise.
    truncate: Option<bool>,
    /// Accepted, and of no effect.
    #[serde(rename = "user")]
    _user: Option<String>,
}

/// One text, several, the token ids of one text, or of several.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(untagged, expecting = "input is a text, a list of texts, a list of token ids, or a list of such lists")]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Ids(Vec<u32>),
    IdLists(Vec<Vec<u32>>),
}

/// How vectors are written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EncodingFormat {
    /// A list of numbers.
    #[default]
    Float,
    /// Little-endian float32 in Base64: a third of the bytes.
    Base64,
}

/// The fields of a request.
const FIELDS: [&str; 6] = ["model", "input", "encoding_format", "dimensions", "truncate", "user"];

impl Asked {
    /// Reads the JSON of a request.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() {
            return Err(Problem::new(ErrorKind::EmptyBody, "the body is empty", "send {\"model\", \"input\"} as JSON"));
        }
        let request: EmbeddingsRequest = serde_json::from_slice(body).map_err(|error| malformed(&error.to_string()))?;
        let texts: Vec<Text> = match request.input {
            Input::Text(words) => vec![Text::Words(words)],
            Input::Texts(texts) => texts.into_iter().map(Text::Words).collect(),
            Input::Ids(ids) if ids.is_empty() => Vec::new(),
            Input::Ids(ids) => vec![Text::Tokens(ids)],
            Input::IdLists(lists) => lists.into_iter().map(Text::Tokens).collect(),
        };
        if texts.is_empty() {
            return Err(Problem::parameter("input is empty", "send at least one text"));
        }
        if texts.len() > MAX_INPUTS {
            return Err(Problem::new(
                ErrorKind::TooManyParts,
                format!("input has {} texts, and a request may bring {MAX_INPUTS}", texts.len()),
                "send them in several requests",
            ));
        }
        Ok(Self {
            model: request.model,
            texts,
            format: request.encoding_format,
            ask: EmbedAsk { dimensions: request.dimensions, truncate: request.truncate },
        })
    }
}

fn malformed(reason: &str) -> Problem {
    let unknown = reason.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    match unknown.and_then(|field| nearest(field, FIELDS)) {
        Some(meant) => Problem::parameter(shorten(reason).into_owned(), format!("did you mean {meant:?}?")),
        None => Problem::new(
            ErrorKind::InvalidRequest,
            format!("the body is not a request for embeddings: {}", shorten(reason)),
            format!("send a JSON object of {}", FIELDS.join(", ")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(input: &str) -> Vec<Text> {
        Asked::read(format!(r#"{{"model": "m", "input": {input}}}"#).as_bytes()).unwrap().texts
    }

    fn refused(body: &str, words: &str) {
        let problem = Asked::read(body.as_bytes()).unwrap_err();
        let said = format!("{}: {}; {}", problem.kind.code(), problem.message, problem.hint);
        assert!(said.contains(words), "{body}: {said}");
    }

    #[test]
    fn input_has_four_forms() {
        let words = |words: &str| Text::Words(words.to_owned());
        assert_eq!(texts(r#""a \"b\"""#), [words("a \"b\"")]);
        assert_eq!(texts(r#"["a", "b"]"#), [words("a"), words("b")]);
        assert_eq!(texts("[1, 2]"), [Text::Tokens(vec![1, 2])]);
        assert_eq!(texts("[[1], [2, 3]]"), [Text::Tokens(vec![1]), Text::Tokens(vec![2, 3])]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        refused("", "empty_body");
        refused("{", "invalid_request");
        refused(r#"{"model": "m"}"#, "missing field `input`");
        refused(r#"{"input": "a"}"#, "missing field `model`");
        refused(r#"{"model": "m", "input": [1, "a"]}"#, "input is a text, a list of texts");
        refused(r#"{"model": "m", "input": [-1]}"#, "input is a text, a list of texts");
        refused(r#"{"model": "m", "input": []}"#, "input is empty");
        refused(r#"{"model": "m", "input": "a", "dimension": 3}"#, "did you mean \"dimensions\"?");
        refused(r#"{"model": "m", "input": "a", "encoding_format": "hex"}"#, "`float` or `base64`");
        let many = format!(r#"{{"model": "m", "input": [{}"a"]}}"#, "\"a\",".repeat(MAX_INPUTS));
        refused(&many, "input has 2049 texts, and a request may bring 2048");
    }
}
