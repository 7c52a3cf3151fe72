//! Writes vectors.

use base64::{Engine, prelude::BASE64_STANDARD};
use caudal_tasks::Embedded;
use serde::{Serialize, Serializer};

use super::request::EncodingFormat;

use crate::docs::schemas;

/// The vectors of a request's texts, in their order.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct EmbeddingsAnswer<'a> {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<Embedding<'a>>,
    /// The name that was asked for.
    model: &'a str,
    usage: Usage,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
struct Embedding<'a> {
    #[schema(example = "embedding")]
    object: &'static str,
    index: usize,
    /// Numbers, or a text where Base64 was asked for.
    #[schema(value_type = schemas::EmbeddingVector)]
    embedding: Vector<'a>,
}

/// Tokens that the model was given, special tokens included.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = EmbeddingsUsage)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

impl<'a> EmbeddingsAnswer<'a> {
    pub(crate) fn new(model: &'a str, format: EncodingFormat, embedded: &'a Embedded) -> Self {
        let each = embedded.vectors.iter().enumerate();
        Self {
            object: "list",
            data: each
                .map(|(index, values)| Embedding { object: "embedding", index, embedding: Vector { values, format } })
                .collect(),
            model,
            usage: Usage { prompt_tokens: embedded.tokens, total_tokens: embedded.tokens },
        }
    }
}

#[derive(Debug)]
struct Vector<'a> {
    values: &'a [f32],
    format: EncodingFormat,
}

impl Serialize for Vector<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.format {
            EncodingFormat::Float => self.values.serialize(serializer),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = self.values.iter().flat_map(|value| value.to_le_bytes()).collect();
                serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
            }
        }
    }
}
