//! Prepared requests: nothing is computed when one is sent.

use bytes::Bytes;
use hyper::Method;

use crate::{Input, inputs::with_model};

const CONTENT_TYPE_JSON: &str = "application/json";
const CONTENT_TYPE_OCTETS: &str = "application/octet-stream";

/// A prepared request.
#[derive(Debug, Clone)]
pub struct Request {
    /// HTTP method.
    pub method: Method,
    /// Path and query, from the leading slash.
    pub path: String,
    /// Content type of the body, if there is one.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// A GET request without a body.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), content_type: None, body: Bytes::new() }
    }

    /// A POST request with a body.
    pub fn post(path: impl Into<String>, content_type: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, path: path.into(), content_type: Some(content_type.into()), body: body.into() }
    }

    /// A request to `model` with `input`, on the route that accepts such an input.
    pub fn for_input(model: &str, input: &Input) -> Self {
        match input {
            Input::Image(bytes) => Self::image_request(model, bytes.clone()),
            Input::Tensors(bytes) => Self::tensor_request(model, bytes.clone()),
            Input::Texts(fields) => Self::embedding_request(with_model(fields, model)),
        }
    }

    pub(crate) fn image_request(model: &str, bytes: Bytes) -> Self {
        Self::post(format!("/predict/{}", percent_encode(model)), CONTENT_TYPE_OCTETS, bytes)
    }

    pub(crate) fn tensor_request(model: &str, body: Bytes) -> Self {
        Self::post(format!("/v2/models/{}/infer", percent_encode(model)), CONTENT_TYPE_JSON, body)
    }

    pub(crate) fn embedding_request(body: Bytes) -> Self {
        Self::post("/v1/embeddings", CONTENT_TYPE_JSON, body)
    }
}

/// Percent-encodes `name` for a path segment or a query value (RFC 3986, 2.1).
pub(crate) fn percent_encode(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    name.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encode_keeps_only_unreserved_characters() {
        assert_eq!(percent_encode("yolo-v8_s.1~"), "yolo-v8_s.1~");
        assert_eq!(percent_encode("a/b?c d%é"), "a%2Fb%3Fc%20d%25%C3%A9");
    }
}
