//! Bodies made up where no file is given: of a picture, of tensors, of texts. And the form that pictures are sent in.

use bytes::Bytes;
use serde_json::{Value, json};

/// Numbers in a tensor made up; more is no request that a server takes.
const MOST_NUMBERS: i64 = 16 << 20;
/// Bytes of one text: more than many models take is cut by the server anyway.
const TEXT: usize = 500;
/// Texts of one request: more are refused.
const MOST_TEXTS: usize = 2048;
const WORDS: [&str; 8] = ["water", "moves", "through", "narrow", "channels", "and", "wide", "rivers"];
const BOUNDARY: &str = "caudal-bench-7d1f0a5c9b3e";

/// A form with one picture: its Content-Type and its body.
pub(crate) fn form(picture: &[u8]) -> (String, Bytes) {
    let mut body = Vec::with_capacity(picture.len() + form_bytes());
    body.extend(form_head().bytes());
    body.extend_from_slice(picture);
    body.extend(form_tail().bytes());
    (format!("multipart/form-data; boundary={BOUNDARY}"), body.into())
}

/// Bytes of a form beside its picture.
pub(crate) fn form_bytes() -> usize {
    form_head().len() + form_tail().len()
}

fn form_head() -> String {
    format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"picture\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
}

fn form_tail() -> String {
    format!("\r\n--{BOUNDARY}--\r\n")
}

/// One row of zeros as `metadata` (`GET /v2/models/{model}`) wants it; lengths that are free are 1.
pub(crate) fn zeros(metadata: &[u8]) -> Result<Bytes, String> {
    let told: Value = serde_json::from_slice(metadata).map_err(|_| "its metadata is no JSON".to_owned())?;
    let inputs = told["inputs"].as_array().ok_or_else(|| "its metadata names no inputs".to_owned())?;
    let inputs: Vec<Value> = inputs.iter().map(tensor).collect::<Result<_, _>>()?;
    Ok(json!({ "inputs": inputs }).to_string().into())
}

fn tensor(input: &Value) -> Result<Value, String> {
    let unread = || format!("its metadata names an input that cannot be read: {input}");
    let dims = input["shape"].as_array().ok_or_else(unread)?;
    let shape: Option<Vec<i64>> = dims.iter().map(|dim| dim.as_i64().map(|dim| dim.max(1))).collect();
    let shape = shape.ok_or_else(unread)?;
    let numbers = shape.iter().try_fold(1i64, |all, dim| all.checked_mul(*dim)).unwrap_or(i64::MAX);
    if numbers > MOST_NUMBERS {
        return Err(format!("an input of {numbers} numbers is too large; give one by --input"));
    }
    Ok(
        json!({ "name": input["name"], "shape": shape, "datatype": input["datatype"], "data": vec![0; numbers as usize] }),
    )
}

/// A request for embeddings of about `size` bytes: texts of at most 500 bytes, as many as it takes.
pub(crate) fn texts(model: &str, size: usize) -> Bytes {
    let body = |texts: &[String]| json!({ "model": model, "input": texts, "truncate": true }).to_string();
    let mut left = size.saturating_sub(body(&[]).len());
    let mut texts = Vec::new();
    // Two quotes and a comma go with each.
    while texts.is_empty() || (left > 3 && texts.len() < MOST_TEXTS) {
        let length = left.saturating_sub(3).clamp(1, TEXT);
        texts.push(text(length));
        left = left.saturating_sub(length + 3);
    }
    body(&texts).into()
}

/// Words of `length` bytes.
fn text(length: usize) -> String {
    let words = WORDS.iter().cycle().flat_map(|word| word.chars().chain([' ']));
    let text: String = words.take(length).collect();
    // A space at its end might be cut, and a text must not be empty.
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_add_up_to_the_size() {
        for size in [0usize, 60, 200, 700, 5_000, 100_000] {
            let made = texts("m", size);
            let read: Value = serde_json::from_slice(&made).unwrap();
            assert!(read["input"].as_array().unwrap().iter().all(|text| !text.as_str().unwrap().is_empty()));
            let most = size.max(60);
            assert!(made.len() <= most && made.len() * 100 >= size * 98, "{} is not {size}", made.len());
        }
        let read: Value = serde_json::from_slice(&texts("m", 10 << 20)).unwrap();
        assert_eq!(read["input"].as_array().unwrap().len(), MOST_TEXTS);
    }

    #[test]
    fn zeros_have_the_shape_of_the_model() {
        let metadata = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[-1,2,3]},{"name":"y","datatype":"INT64","shape":[]}]}"#;
        let made: Value = serde_json::from_slice(&zeros(metadata.as_bytes()).unwrap()).unwrap();
        assert_eq!(made["inputs"][0], json!({"name":"x","datatype":"FP32","shape":[1,2,3],"data":[0,0,0,0,0,0]}));
        assert_eq!(made["inputs"][1], json!({"name":"y","datatype":"INT64","shape":[],"data":[0]}));
        for (bad, words) in [
            (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1000000,1000000]}]}"#, "too large"),
            (r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[9000000000000000000,9]}]}"#, "too large"),
            (r#"{"inputs":[{"name":"x"}]}"#, "cannot be read"),
            ("{}", "no inputs"),
            ("<html>", "no JSON"),
        ] {
            assert!(zeros(bad.as_bytes()).unwrap_err().contains(words), "{bad}");
        }
    }

    #[test]
    fn a_form_holds_the_picture() {
        let (content_type, body) = form(b"picture bytes");
        assert!(content_type.ends_with(BOUNDARY));
        assert_eq!(body.len(), form_bytes() + 13);
    }
}
