//! Input files for requests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use caudal_types::shorten;
use serde_json::{Map, Value, json};

use crate::LoadError;

/// Total bytes of all files, because they stay in memory while the load runs.
const MAX_INPUT_BYTES: u64 = 1 << 30;

/// The content of one file.
#[derive(Debug, Clone)]
pub enum Input {
    /// An image.
    Image(Bytes),
    /// The body of a KServe v2 inference request.
    Tensors(Bytes),
    /// The body of an embeddings request in OpenAI's form; its model is inserted when it is sent.
    Texts(Map<String, Value>),
}

/// All input files, by content.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    all: Vec<Input>,
}

impl Inputs {
    /// Reads `files`. JSON with `inputs` is a tensor body, with `input` a text body; a .txt is a text; anything else is
    /// an image.
    pub fn read_files(files: &[PathBuf]) -> Result<Self, LoadError> {
        let (mut all, mut bytes) = (Vec::new(), 0);
        for file in files {
            let failed = |source| LoadError::File { path: file.clone(), source };
            bytes += fs::metadata(file).map_err(failed)?.len();
            if bytes > MAX_INPUT_BYTES {
                let bounds = format!("at most {} MiB", MAX_INPUT_BYTES >> 20);
                return Err(LoadError::out_of_bounds("the size of all inputs", format!("{} MiB", bytes >> 20), bounds));
            }
            all.push(parse_input(file, fs::read(file).map_err(failed)?)?);
        }
        Ok(Self { all })
    }

    /// All inputs, in the order given.
    pub fn as_slice(&self) -> &[Input] {
        &self.all
    }

    pub(crate) fn image_bodies(&self) -> impl Iterator<Item = &Bytes> {
        self.all.iter().filter_map(|input| match input {
            Input::Image(bytes) => Some(bytes),
            _ => None,
        })
    }

    pub(crate) fn tensor_bodies(&self) -> impl Iterator<Item = &Bytes> {
        self.all.iter().filter_map(|input| match input {
            Input::Tensors(bytes) => Some(bytes),
            _ => None,
        })
    }

    pub(crate) fn text_bodies(&self) -> impl Iterator<Item = &Map<String, Value>> {
        self.all.iter().filter_map(|input| match input {
            Input::Texts(fields) => Some(fields),
            _ => None,
        })
    }
}

/// The body whose length is nearest to `size`.
pub(crate) fn nearest_in_size(bodies: impl Iterator<Item = Bytes>, size: u64) -> Option<Bytes> {
    bodies.min_by_key(|body| (body.len() as u64).abs_diff(size))
}

/// The body `fields` with its model set to `model`.
pub(crate) fn with_model(fields: &Map<String, Value>, model: &str) -> Bytes {
    let mut fields = fields.clone();
    fields.insert("model".to_owned(), model.into());
    serde_json::to_vec(&fields).expect("a map of names is JSON").into()
}

fn parse_input(file: &Path, bytes: Vec<u8>) -> Result<Input, LoadError> {
    let wrong = |reason: String| LoadError::Input { path: file.to_owned(), reason };
    if bytes.is_empty() {
        return Err(wrong("the file is empty".to_owned()));
    }
    let ending = file.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    match ending.as_str() {
        "txt" => {
            let text = String::from_utf8(bytes).map_err(|_| wrong("the text is not UTF-8".to_owned()))?;
            let fields = json!({ "input": text.trim_end() });
            Ok(Input::Texts(fields.as_object().cloned().unwrap_or_default()))
        }
        "json" => {
            let read = serde_json::from_slice::<Map<String, Value>>(&bytes);
            let fields =
                read.map_err(|error| wrong(format!("expected a JSON object: {}", shorten(&error.to_string()))))?;
            match (fields.contains_key("inputs"), fields.contains_key("input")) {
                (true, _) => Ok(Input::Tensors(bytes.into())),
                (false, true) => Ok(Input::Texts(fields)),
                _ => Err(wrong("expected `inputs` (tensors) or `input` (texts)".to_owned())),
            }
        }
        _ => Ok(Input::Image(bytes.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_input_detects_the_kind_by_content() {
        let read = |name: &str, text: &str| parse_input(Path::new(name), text.into());
        assert!(matches!(read("a.JPG", "x"), Ok(Input::Image(_))));
        assert!(matches!(read("a.json", r#"{"inputs":[]}"#), Ok(Input::Tensors(_))));
        let Ok(Input::Texts(fields)) = read("a.json", r#"{"input":"hello","model":"other"}"#) else { panic!() };
        assert_eq!(with_model(&fields, "m"), r#"{"input":"hello","model":"m"}"#);
        let Ok(Input::Texts(fields)) = read("a.txt", "hello\n") else { panic!() };
        assert_eq!(with_model(&fields, "m"), r#"{"input":"hello","model":"m"}"#);
        for (bad, words) in [(r#"{"a":1}"#, "expected `inputs`"), ("[]", "JSON object"), ("", "empty")] {
            assert!(read("a.json", bad).unwrap_err().to_string().contains(words), "{bad}");
        }
    }

    #[test]
    fn nearest_in_size_returns_the_closest_body() {
        let bodies = || [10usize, 100, 1000].into_iter().map(|size| Bytes::from(vec![0; size]));
        for (size, taken) in [(0, 10), (40, 10), (70, 100), (5000, 1000)] {
            assert_eq!(nearest_in_size(bodies(), size).unwrap().len(), taken);
        }
    }
}
