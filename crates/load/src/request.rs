//! A request that is ready to be sent: nothing is left to be made when its time comes.

use bytes::Bytes;
use hyper::Method;

use crate::{Input, inputs::with_model};

pub(crate) const JSON: &str = "application/json";
const OCTETS: &str = "application/octet-stream";

/// A request that is ready to be sent.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Path and query, from the slash on.
    pub path: String,
    /// The type of its body, if it has one.
    pub content_type: Option<String>,
    /// Its body.
    pub body: Bytes,
}

impl Request {
    /// A question without a body.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), content_type: None, body: Bytes::new() }
    }

    /// A request with a body.
    pub fn post(path: impl Into<String>, content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, path: path.into(), content_type: Some(content_type.into()), body: body.into() }
    }

    /// What asks `model` about `input`, by the route that takes such an input.
    pub fn about(model: &str, input: &Input) -> Self {
        match input {
            Input::Picture(bytes) => Self::picture(model, bytes.clone()),
            Input::Tensors(bytes) => Self::tensors(model, bytes.clone()),
            Input::Texts(asked) => Self::texts(with_model(asked, model)),
        }
    }

    pub(crate) fn picture(model: &str, bytes: Bytes) -> Self {
        Self::post(format!("/predict/{}", segment(model)), OCTETS, bytes)
    }

    pub(crate) fn tensors(model: &str, body: Bytes) -> Self {
        Self::post(format!("/v2/models/{}/infer", segment(model)), JSON, body)
    }

    pub(crate) fn texts(body: Bytes) -> Self {
        Self::post("/v1/embeddings", JSON, body)
    }
}

/// `name` as it may stand between two slashes, or as a value of a query.
pub(crate) fn segment(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_within_their_place() {
        assert_eq!(segment("yolo-v8_s.1~"), "yolo-v8_s.1~");
        assert_eq!(segment("a/b?c d%é"), "a%2Fb%3Fc%20d%25%C3%A9");
    }
}
