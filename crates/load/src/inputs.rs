//! Files that requests carry.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use caudal_types::shorten;
use serde_json::{Map, Value, json};

use crate::LoadError;

/// Bytes of all files together: they lie in memory while the load runs.
const MOST_BYTES: u64 = 1 << 30;

/// Something to ask a model about.
#[derive(Debug, Clone)]
pub enum Input {
    /// A picture.
    Picture(Bytes),
    /// The body of a request for inference, by KServe v2.
    Tensors(Bytes),
    /// The body of a request for embeddings, in OpenAI's form; its model is put in when it is sent.
    Texts(Map<String, Value>),
}

/// Files by what they are.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    all: Vec<Input>,
}

impl Inputs {
    /// Reads `files`. JSON with `inputs` is a body of tensors, with `input` one of texts; a .txt is a text; anything else is
    /// a picture.
    pub fn read(files: &[PathBuf]) -> Result<Self, LoadError> {
        let (mut all, mut bytes) = (Vec::new(), 0);
        for file in files {
            let failed = |source| LoadError::File { path: file.clone(), source };
            bytes += fs::metadata(file).map_err(failed)?.len();
            if bytes > MOST_BYTES {
                let bounds = format!("at most {} MiB", MOST_BYTES >> 20);
                return Err(LoadError::bounds("the size of all inputs", format!("{} MiB", bytes >> 20), bounds));
            }
            all.push(input(file, fs::read(file).map_err(failed)?)?);
        }
        Ok(Self { all })
    }

    /// All of them, in the order given.
    pub fn all(&self) -> &[Input] {
        &self.all
    }

    pub(crate) fn pictures(&self) -> impl Iterator<Item = &Bytes> {
        self.all.iter().filter_map(|input| match input {
            Input::Picture(bytes) => Some(bytes),
            _ => None,
        })
    }

    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Bytes> {
        self.all.iter().filter_map(|input| match input {
            Input::Tensors(bytes) => Some(bytes),
            _ => None,
        })
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &Map<String, Value>> {
        self.all.iter().filter_map(|input| match input {
            Input::Texts(asked) => Some(asked),
            _ => None,
        })
    }
}

/// Whichever of `bodies` is nearest to `size`.
pub(crate) fn nearest(bodies: impl Iterator<Item = Bytes>, size: u64) -> Option<Bytes> {
    bodies.min_by_key(|body| (body.len() as u64).abs_diff(size))
}

/// The body that asks `model` for what `asked` says.
pub(crate) fn with_model(asked: &Map<String, Value>, model: &str) -> Bytes {
    let mut asked = asked.clone();
    asked.insert("model".to_owned(), model.into());
    serde_json::to_vec(&asked).expect("a map of names is JSON").into()
}

fn input(file: &Path, bytes: Vec<u8>) -> Result<Input, LoadError> {
    let wrong = |reason: String| LoadError::Input { path: file.to_owned(), reason };
    if bytes.is_empty() {
        return Err(wrong("it is empty".to_owned()));
    }
    let ending = file.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
    match ending.as_str() {
        "txt" => {
            let text = String::from_utf8(bytes).map_err(|_| wrong("a text is UTF-8".to_owned()))?;
            let asked = json!({ "input": text.trim_end() });
            Ok(Input::Texts(asked.as_object().cloned().unwrap_or_default()))
        }
        "json" => {
            let read = serde_json::from_slice::<Map<String, Value>>(&bytes);
            let asked =
                read.map_err(|error| wrong(format!("it is no JSON object: {}", shorten(&error.to_string()))))?;
            match (asked.contains_key("inputs"), asked.contains_key("input")) {
                (true, _) => Ok(Input::Tensors(bytes.into())),
                (false, true) => Ok(Input::Texts(asked)),
                _ => Err(wrong("it has neither `inputs` (tensors) nor `input` (texts)".to_owned())),
            }
        }
        _ => Ok(Input::Picture(bytes.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_what_they_hold() {
        let read = |name: &str, text: &str| input(Path::new(name), text.into());
        assert!(matches!(read("a.JPG", "x"), Ok(Input::Picture(_))));
        assert!(matches!(read("a.json", r#"{"inputs":[]}"#), Ok(Input::Tensors(_))));
        let Ok(Input::Texts(asked)) = read("a.json", r#"{"input":"hello","model":"other"}"#) else { panic!() };
        assert_eq!(with_model(&asked, "m"), r#"{"input":"hello","model":"m"}"#);
        let Ok(Input::Texts(asked)) = read("a.txt", "hello\n") else { panic!() };
        assert_eq!(with_model(&asked, "m"), r#"{"input":"hello","model":"m"}"#);
        for (bad, words) in [(r#"{"a":1}"#, "neither"), ("[]", "no JSON object"), ("", "empty")] {
            assert!(read("a.json", bad).unwrap_err().to_string().contains(words), "{bad}");
        }
    }

    #[test]
    fn the_nearest_in_size_is_taken() {
        let bodies = || [10usize, 100, 1000].into_iter().map(|size| Bytes::from(vec![0; size]));
        for (size, taken) in [(0, 10), (40, 10), (70, 100), (5000, 1000)] {
            assert_eq!(nearest(bodies(), size).unwrap().len(), taken);
        }
    }
}
