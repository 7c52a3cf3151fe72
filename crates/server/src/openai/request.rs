//! Reads a request for embeddings.

use std::{borrow::Cow, fmt};

use caudal_tasks::{EmbedAsk, Text};
use caudal_types::{ErrorKind, nearest, shorten};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};

use crate::{json::without_bom, problem::Problem};

/// Most texts in one request, as OpenAI has it.
const MAX_INPUTS: usize = 2048;

/// What a request asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) model: String,
    pub(crate) texts: Vec<Text>,
    pub(crate) format: EncodingFormat,
    pub(crate) ask: EmbedAsk,
    /// Members of the request that change nothing.
    pub(crate) ignored: Vec<String>,
}

/// A request for embeddings. Members that are not listed are ignored, for OpenAI's clients send those of other servers.
#[derive(Debug, utoipa::ToSchema)]
pub(crate) struct EmbeddingsRequest {
    /// Name or alias.
    #[schema(example = "all-MiniLM-L6-v2")]
    model: String,
    input: Input,
    /// `float` when absent.
    encoding_format: Option<EncodingFormat>,
    /// Values of each vector, the first of all it has; all when absent.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    /// Whether texts longer than the model takes are cut; else they are refused, unless `model.yaml` says otherwise.
    #[schema(value_type = Option<bool>)]
    truncate: Option<Truncate>,
    /// Members that change nothing here.
    #[schema(ignore)]
    ignored: Vec<String>,
}

/// Whether long texts are cut, as a boolean or as NVIDIA's servers have it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "truncate is true or false")]
enum Truncate {
    Flag(bool),
    Side(Side),
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Side {
    #[serde(rename = "NONE")]
    None,
    #[serde(rename = "END")]
    End,
}

impl Truncate {
    fn cuts(self) -> bool {
        matches!(self, Self::Flag(true) | Self::Side(Side::End))
    }
}

impl<'de> Deserialize<'de> for EmbeddingsRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

/// Reads the members of a request one by one: what is not known is passed over, or named if it looks like one that is.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = EmbeddingsRequest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<EmbeddingsRequest, M::Error> {
        let (mut model, mut input, mut format, mut dimensions, mut truncate) = (None, None, None, None, None);
        let mut ignored = Vec::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            let twice = match &*name {
                "model" => model.replace(map.next_value()?).is_some(),
                "input" => input.replace(map.next_value()?).is_some(),
                "encoding_format" => format.replace(map.next_value()?).is_some(),
                "dimensions" => dimensions.replace(map.next_value()?).is_some(),
                "truncate" => truncate.replace(map.next_value()?).is_some(),
                name => {
                    if !OF_OTHERS.contains(&name) && nearest(name, FIELDS).is_some() {
                        return Err(M::Error::unknown_field(name, &FIELDS));
                    }
                    let given: Option<IgnoredAny> = map.next_value()?;
                    if given.is_some() && ignored.len() < MAX_IGNORED {
                        ignored.push(shorten(name).into_owned());
                    }
                    false
                }
            };
            if twice {
                return Err(M::Error::custom(format_args!("the member {name:?} is given twice")));
            }
        }
        Ok(EmbeddingsRequest {
            model: model.ok_or_else(|| M::Error::missing_field("model"))?,
            input: input.ok_or_else(|| M::Error::missing_field("input"))?,
            encoding_format: format.flatten(),
            dimensions: dimensions.flatten(),
            truncate: truncate.flatten(),
            ignored,
        })
    }
}

/// One text, several, the token ids of one text, or of several.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[schema(as = EmbeddingsInput)]
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

/// The members of a request that mean something here.
const FIELDS: [&str; 5] = ["model", "input", "encoding_format", "dimensions", "truncate"];
/// Members of OpenAI's API, and of servers that are asked by OpenAI's clients, which mean nothing here: no misspellings of ours.
const OF_OTHERS: [&str; 6] = ["user", "input_type", "modality", "truncate_dim", "truncation", "models"];
/// Most members that are told to be ignored.
const MAX_IGNORED: usize = 16;

impl Asked {
    /// Reads the JSON of a request.
    pub(crate) fn read(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() {
            return Err(Problem::new(ErrorKind::EmptyBody, "the body is empty", "send {\"model\", \"input\"} as JSON"));
        }
        let request: EmbeddingsRequest =
            serde_json::from_slice(without_bom(body)).map_err(|error| malformed(&error.to_string()))?;
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
            format: request.encoding_format.unwrap_or_default(),
            ask: EmbedAsk { dimensions: request.dimensions, truncate: request.truncate.map(Truncate::cuts) },
            ignored: request.ignored,
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
    fn null_is_as_good_as_absent() {
        let body = r#"{"model": "m", "input": "a", "encoding_format": null, "dimensions": null, "truncate": null, "user": null}"#;
        let asked = Asked::read(body.as_bytes()).unwrap();
        assert_eq!((asked.format, asked.ask.dimensions, asked.ask.truncate), (EncodingFormat::Float, None, None));
        assert!(asked.ignored.is_empty());
    }

    #[test]
    fn members_of_other_servers_are_ignored_and_named() {
        let body = r#"{"model": "m", "input": "a", "user": "u", "input_type": "query", "truncate_prompt_tokens": 5, "x": {"y": [1]}}"#;
        assert_eq!(
            Asked::read(body.as_bytes()).unwrap().ignored,
            ["user", "input_type", "truncate_prompt_tokens", "x"]
        );
        for (truncate, cuts) in [("\"NONE\"", false), ("\"END\"", true), ("true", true)] {
            let body = format!(r#"{{"model": "m", "input": "a", "truncate": {truncate}}}"#);
            assert_eq!(Asked::read(body.as_bytes()).unwrap().ask.truncate, Some(cuts), "{truncate}");
        }
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
        refused(r#"{"model": "m", "input": "a", "truncat": true}"#, "did you mean \"truncate\"?");
        refused(r#"{"model": "m", "input": "a", "truncate": "START"}"#, "truncate is true or false");
        refused(r#"{"model": "m", "input": "a", "input": "b"}"#, "\"input\" is given twice");
        refused(r#"["m", "a"]"#, "invalid_request");
        refused(r#"{"model": "m", "input": "a", "encoding_format": "hex"}"#, "`float` or `base64`");
        let many = format!(r#"{{"model": "m", "input": [{}"a"]}}"#, "\"a\",".repeat(MAX_INPUTS));
        refused(&many, "input has 2049 texts, and a request may bring 2048");
    }
}
