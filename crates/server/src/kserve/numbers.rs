//! Elements of a tensor as JSON writes them: numbers in lists, nested or flat.
//!
//! What comes here has been checked to be JSON, so only its meaning is looked at. It is read straight into the
//! tensor's bytes: no list of values in between.

use std::str::FromStr;

use caudal_types::{DType, shorten};
use half::{bf16, f16};

/// Why the data is no tensor's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NumberError {
    /// The type cannot be written in JSON.
    #[error("{0} cannot be sent as JSON")]
    HasNoJson(DType),
    /// Data must be a list.
    #[error("data is not a list")]
    NoList,
    /// More elements than the shape says.
    #[error("the data has more elements than the {0} that the shape says")]
    TooMany(usize),
    /// Something that is no number of this type.
    #[error("element {place} is {text}, but the type is {dtype}")]
    WrongElement {
        /// What stands there.
        text: String,
        /// Its place, from 0.
        place: usize,
        /// What it should be.
        dtype: DType,
    },
}

/// What floats can be that JSON has no numbers for.
const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// `body` with `NaN`, `Infinity` and `-Infinity` in quotes where they stand bare, as Python's `json` writes them; nothing
/// if there is none.
pub(crate) fn quote_not_finite(body: &[u8]) -> Option<Vec<u8>> {
    let mut quoted = Vec::new();
    let (mut kept, mut at) = (0, 0);
    while at < body.len() {
        if body[at] == b'"' {
            at = string_end(body, at);
            continue;
        }
        match NOT_FINITE.iter().find(|word| body[at..].starts_with(word.as_bytes())) {
            None => at += 1,
            Some(word) => {
                quoted.extend_from_slice(&body[kept..at]);
                quoted.extend_from_slice(format!("\"{word}\"").as_bytes());
                at += word.len();
                kept = at;
            }
        }
    }
    (kept > 0).then(|| {
        quoted.extend_from_slice(&body[kept..]);
        quoted
    })
}

/// The end of the string in `json` that begins at `start`.
fn string_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < json.len() {
        match json[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

/// Reads the list `json` into the bytes of a tensor of `dtype`, which should be `expected` many.
pub(crate) fn read(json: &str, dtype: DType, expected: usize) -> Result<Vec<u8>, NumberError> {
    match dtype {
        DType::Bool => each(json, dtype, expected, |text| match text {
            "true" | "1" | "1.0" => Some([1u8]),
            "false" | "0" | "0.0" => Some([0]),
            _ => None,
        }),
        DType::U8 => whole::<u8, 1>(json, dtype, expected, u8::to_ne_bytes),
        DType::U16 => whole::<u16, 2>(json, dtype, expected, u16::to_ne_bytes),
        DType::U32 => whole::<u32, 4>(json, dtype, expected, u32::to_ne_bytes),
        DType::U64 => whole::<u64, 8>(json, dtype, expected, u64::to_ne_bytes),
        DType::I8 => whole::<i8, 1>(json, dtype, expected, i8::to_ne_bytes),
        DType::I16 => whole::<i16, 2>(json, dtype, expected, i16::to_ne_bytes),
        DType::I32 => whole::<i32, 4>(json, dtype, expected, i32::to_ne_bytes),
        DType::I64 => whole::<i64, 8>(json, dtype, expected, i64::to_ne_bytes),
        DType::F32 => floats(json, dtype, expected, |text| text.parse().ok(), f32::to_ne_bytes),
        DType::F64 => floats(json, dtype, expected, |text| text.parse().ok(), f64::to_ne_bytes),
        DType::F16 => floats(json, dtype, expected, |text| text.parse().ok().map(f16::from_f64), f16::to_ne_bytes),
        DType::BF16 => floats(json, dtype, expected, |text| text.parse().ok().map(bf16::from_f64), bf16::to_ne_bytes),
        DType::Bytes => Err(NumberError::HasNoJson(dtype)),
    }
}

/// Whole numbers, also those that are written as floats, as some clients write all numbers.
fn whole<T: FromStr + TryFrom<i64>, const N: usize>(
    json: &str,
    dtype: DType,
    expected: usize,
    bytes: impl Fn(T) -> [u8; N],
) -> Result<Vec<u8>, NumberError> {
    each(json, dtype, expected, |text| text.parse().ok().or_else(|| whole_float(text)).map(&bytes))
}

/// The whole number that `text` writes as a float, where floats tell it from its neighbours.
fn whole_float<T: TryFrom<i64>>(text: &str) -> Option<T> {
    const EXACT: f64 = (1u64 << 53) as f64;
    let number: f64 = text.parse().ok()?;
    (number.fract() == 0.0 && number.abs() <= EXACT).then(|| T::try_from(number as i64).ok()).flatten()
}

/// Floats. Those that JSON cannot write are texts, as in answers; a number that is too large for its type is refused.
fn floats<T: Into<f64> + Copy, const N: usize>(
    json: &str,
    dtype: DType,
    expected: usize,
    parse: impl Fn(&str) -> Option<T>,
    bytes: impl Fn(T) -> [u8; N],
) -> Result<Vec<u8>, NumberError> {
    each(json, dtype, expected, |text| {
        let word = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let number = match word {
            Some(word) => NOT_FINITE.contains(&word).then(|| parse(word))??,
            None => parse(text).filter(|number| Into::<f64>::into(*number).is_finite())?,
        };
        Some(bytes(number))
    })
}

fn each<const N: usize>(
    json: &str,
    dtype: DType,
    expected: usize,
    read: impl Fn(&str) -> Option<[u8; N]>,
) -> Result<Vec<u8>, NumberError> {
    if !json.starts_with('[') {
        return Err(NumberError::NoList);
    }
    // A number takes two characters at least, with what divides it from the next: the shape may say more than came.
    let mut out = Vec::with_capacity(expected.min((json.len() / 2 + 1) * N));
    let letters = json.as_bytes();
    let mut at = 0;
    while at < letters.len() {
        if is_between(letters[at]) {
            at += 1;
            continue;
        }
        let start = at;
        while at < letters.len() && !is_between(letters[at]) {
            at += 1;
        }
        // What divides numbers is one byte long, so both ends are ends of letters.
        let text = &json[start..at];
        let Some(bytes) = read(text) else {
            return Err(NumberError::WrongElement { text: shorten(text).into_owned(), place: out.len() / N, dtype });
        };
        if out.len() + N > expected {
            return Err(NumberError::TooMany(expected / N));
        }
        out.extend_from_slice(&bytes);
    }
    Ok(out)
}

fn is_between(letter: u8) -> bool {
    matches!(letter, b',' | b'[' | b']' | b' ' | b'\n' | b'\r' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(json: &str) -> Vec<f32> {
        let bytes = read(json, DType::F32, 1 << 10).unwrap();
        bytes.chunks(4).map(|chunk| f32::from_ne_bytes(chunk.try_into().unwrap())).collect()
    }

    #[test]
    fn lists_are_read_flat_or_nested() {
        assert_eq!(floats("[1, -2.5,3e2]"), [1.0, -2.5, 300.0]);
        assert_eq!(floats("[[1,2],\n [3 , 4]]"), [1.0, 2.0, 3.0, 4.0]);
        assert!(floats("[]").is_empty());
        assert_eq!(read("[true,false,1]", DType::Bool, 3).unwrap(), [1, 0, 1]);
        assert_eq!(read("[-1]", DType::I64, 8).unwrap(), (-1i64).to_ne_bytes());
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        assert_eq!(read("[1.0, -0.0, 3e2]", DType::I16, 8).unwrap(), [1i16, 0, 300].map(i16::to_ne_bytes).concat());
        assert_eq!(read("[255.0]", DType::U8, 8).unwrap(), [255]);
        assert_eq!(read("[1.0, 0.0]", DType::Bool, 2).unwrap(), [1, 0]);
        let large = i64::MAX.to_string();
        assert_eq!(read(&format!("[{large}]"), DType::I64, 8).unwrap(), i64::MAX.to_ne_bytes());
    }

    #[test]
    fn floats_that_json_cannot_write_are_texts() {
        let read = floats("[\"NaN\", \"Infinity\", \"-Infinity\", 1]");
        assert!(read[0].is_nan());
        assert_eq!(read[1..], [f32::INFINITY, f32::NEG_INFINITY, 1.0]);
    }

    #[test]
    fn bare_words_are_quoted_outside_of_strings() {
        let quoted = |text: &str| quote_not_finite(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap());
        assert_eq!(quoted("[1, 2]"), None);
        assert_eq!(quoted(r#"{"NaN": "a \" NaN"}"#), None);
        assert_eq!(
            quoted(r#"{"a": "x\\", "b": [NaN, -Infinity,Infinity, "NaN"]}"#).unwrap(),
            r#"{"a": "x\\", "b": ["NaN", "-Infinity","Infinity", "NaN"]}"#
        );
        assert_eq!(quoted("\"NaN"), None, "no string ends there");
        assert_eq!(quoted("\"\\"), None);
    }

    #[test]
    fn what_is_no_number_of_the_type_is_named_with_its_place() {
        let error = |json, dtype| read(json, dtype, 64).unwrap_err().to_string();
        assert_eq!(error("[1, \"two\"]", DType::F32), "element 1 is \"two\", but the type is FP32");
        assert_eq!(error("[\"1\"]", DType::F32), "element 0 is \"1\", but the type is FP32");
        assert_eq!(error("[1, 300]", DType::U8), "element 1 is 300, but the type is UINT8");
        assert_eq!(error("[0.5]", DType::I32), "element 0 is 0.5, but the type is INT32");
        assert_eq!(error("[\"NaN\"]", DType::I32), "element 0 is \"NaN\", but the type is INT32");
        assert_eq!(error("[1e300]", DType::I64), "element 0 is 1e300, but the type is INT64");
        assert_eq!(error("[-1.0]", DType::U8), "element 0 is -1.0, but the type is UINT8");
        assert_eq!(
            error("[9007199254740993.0e1]", DType::I64),
            "element 0 is 9007199254740993.0e1, but the type is INT64"
        );
        assert_eq!(error("[1, 1e39]", DType::F32), "element 1 is 1e39, but the type is FP32");
        assert_eq!(error("[null]", DType::F64), "element 0 is null, but the type is FP64");
        assert_eq!(error("{}", DType::F32), "data is not a list");
        assert_eq!(read("[1,2,3]", DType::F32, 8), Err(NumberError::TooMany(2)));
        assert_eq!(error("[1]", DType::Bytes), "BYTES cannot be sent as JSON");
    }

    #[test]
    fn numbers_of_16_bits_are_rounded_to_the_nearest_and_those_that_do_not_fit_refused() {
        let half = read("[1, -2.5, 0.1, 65504]", DType::F16, 8).unwrap();
        let back: Vec<f32> =
            half.chunks(2).map(|chunk| f16::from_ne_bytes(chunk.try_into().unwrap()).to_f32()).collect();
        assert_eq!(back, [1.0, -2.5, 0.099_975_586, 65504.0]);
        assert_eq!(read("[70000]", DType::BF16, 2).unwrap(), bf16::from_f32(70000.0).to_ne_bytes());
        let error = read("[1, 70000]", DType::F16, 8).unwrap_err().to_string();
        assert_eq!(error, "element 1 is 70000, but the type is FP16");
    }
}
