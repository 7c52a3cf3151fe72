//! Synthetic request bodies for requests without an input file: tensors and texts; and the multipart form for images.

use bytes::Bytes;
use serde_json::{Value, json};

/// Elements of a synthetic tensor; servers refuse larger requests.
const MAX_TENSOR_ELEMENTS: i64 = 16 << 20;
/// Bytes of one text; many models truncate longer ones.
const MAX_TEXT_BYTES: usize = 500;
/// Texts per request; servers refuse more.
const MAX_TEXTS_PER_REQUEST: usize = 2048;
const SAMPLE_WORDS: [&str; 8] = ["water", "moves", "through", "narrow", "channels", "and", "wide", "rivers"];
const MULTIPART_BOUNDARY: &str = "caudal-bench-7d1f0a5c9b3e";

/// A multipart form with one image: its Content-Type and its body.
pub(crate) fn multipart_form(image: &[u8]) -> (String, Bytes) {
    let mut body = Vec::with_capacity(image.len() + form_overhead_bytes());
    body.extend(form_head().bytes());
    body.extend_from_slice(image);
    body.extend(form_tail().bytes());
    (format!("multipart/form-data; boundary={MULTIPART_BOUNDARY}"), body.into())
}

/// Size of a multipart form without its image.
pub(crate) fn form_overhead_bytes() -> usize {
    form_head().len() + form_tail().len()
}

fn form_head() -> String {
    format!(
        "--{MULTIPART_BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"picture\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
}

fn form_tail() -> String {
    format!("\r\n--{MULTIPART_BOUNDARY}--\r\n")
}

/// A request with one row of zeros in the shapes of `metadata` (`GET /v2/models/{model}`); free dimensions become 1.
pub(crate) fn zero_tensors(metadata: &[u8]) -> Result<Bytes, String> {
    let told: Value =
        serde_json::from_slice(metadata).map_err(|_| "invalid model metadata: expected JSON".to_owned())?;
    let inputs = told["inputs"].as_array().ok_or_else(|| "invalid model metadata: no inputs".to_owned())?;
    let inputs: Vec<Value> = inputs.iter().map(zero_tensor).collect::<Result<_, _>>()?;
    Ok(json!({ "inputs": inputs }).to_string().into())
}

fn zero_tensor(input: &Value) -> Result<Value, String> {
    let unread = || format!("invalid model metadata: invalid input: {input}");
    let dims = input["shape"].as_array().ok_or_else(unread)?;
    let shape: Option<Vec<i64>> = dims.iter().map(|dim| dim.as_i64().map(|dim| dim.max(1))).collect();
    let shape = shape.ok_or_else(unread)?;
    let numbers = shape.iter().try_fold(1i64, |all, dim| all.checked_mul(*dim)).unwrap_or(i64::MAX);
    if numbers > MAX_TENSOR_ELEMENTS {
        return Err(format!("an input of {numbers} elements is too large; provide one with --input"));
    }
    Ok(
        json!({ "name": input["name"], "shape": shape, "datatype": input["datatype"], "data": vec![0; numbers as usize] }),
    )
}

/// An embeddings request of about `size` bytes, with texts of at most 500 bytes.
pub(crate) fn embedding_request(model: &str, size: usize) -> Bytes {
    let body = |texts: &[String]| json!({ "model": model, "input": texts, "truncate": true }).to_string();
    let mut left = size.saturating_sub(body(&[]).len());
    let mut texts = Vec::new();
    // Each text adds two quotes and a comma.
    while texts.is_empty() || (left > 3 && texts.len() < MAX_TEXTS_PER_REQUEST) {
        let length = left.saturating_sub(3).clamp(1, MAX_TEXT_BYTES);
        texts.push(sample_text(length));
        left = left.saturating_sub(length + 3);
    }
    body(&texts).into()
}

/// Words with `length` bytes in total.
fn sample_text(length: usize) -> String {
    let words = SAMPLE_WORDS.iter().cycle().flat_map(|word| word.chars().chain([' ']));
    let text: String = words.take(length).collect();
    // Servers may trim a space at the end, and a text must not be empty.
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedding_request_has_the_requested_size() {
        for size in [0usize, 60, 200, 700, 5_000, 100_000] {
            let made = embedding_request("m", size);
            let read: Value = serde_json::from_slice(&made).unwrap();
            assert!(read["input"].as_array().unwrap().iter().all(|text| !text.as_str().unwrap().is_empty()));
            let most = size.max(60);
            assert!(made.len() <= most && made.len() * 100 >= size * 98, "{} is not {size}", made.len());
        }
        let read: Value = serde_json::from_slice(&embedding_request("m", 10 << 20)).unwrap();
        assert_eq!(read["input"].as_array().unwrap().len(), MAX_TEXTS_PER_REQUEST);
    }

    #[test]
    fn zero_tensors_have_the_shapes_of_the_model() {
        let metadata = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,2,3]},{"name":"y","datatype":"INT64","shape":[]}]}"#;
        let made: Value = serde_json::from_slice(&zero_tensors(metadata.as_bytes()).unwrap()).unwrap();
        assert_eq!(made["inputs"][0], json!({"name":"x","datatype":"FP32","shape":[1,2,3],"data":[0,0,0,0,0,0]}));
        assert_eq!(made["inputs"][1], json!({"name":"y","datatype":"INT64","shape":[],"data":[0]}));
        for (bad, words) in [
            (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1000000,1000000]}]}"#, "too large"),
            (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[9000000000000000000,9]}]}"#, "too large"),
            (r#"{"inputs":[{"name":"x"}]}"#, "invalid input"),
            ("{}", "no inputs"),
            ("<html>", "expected JSON"),
        ] {
            assert!(zero_tensors(bad.as_bytes()).unwrap_err().contains(words), "{bad}");
        }
    }

    #[test]
    fn multipart_form_contains_the_image() {
        let (content_type, body) = multipart_form(b"picture bytes");
        assert!(content_type.ends_with(MULTIPART_BOUNDARY));
        assert_eq!(body.len(), form_overhead_bytes() + 13);
    }
}
