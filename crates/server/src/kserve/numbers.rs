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
    #[error("{text} at place {place} of the data is no {dtype}")]
    WrongElement {
        /// What stands there.
        text: String,
        /// Its place, from 0.
        place: usize,
        /// What it should be.
        dtype: DType,
    },
}

/// Reads the list `json` into the bytes of a tensor of `dtype`, which should be `expected` many.
pub(crate) fn read(json: &str, dtype: DType, expected: usize) -> Result<Vec<u8>, NumberError> {
    match dtype {
        DType::Bool => each(json, dtype, expected, |text| match text {
            "true" | "1" => Some([1u8]),
            "false" | "0" => Some([0]),
            _ => None,
        }),
        DType::U8 => numbers::<u8, 1>(json, dtype, expected, u8::to_ne_bytes),
        DType::U16 => numbers::<u16, 2>(json, dtype, expected, u16::to_ne_bytes),
        DType::U32 => numbers::<u32, 4>(json, dtype, expected, u32::to_ne_bytes),
        DType::U64 => numbers::<u64, 8>(json, dtype, expected, u64::to_ne_bytes),
        DType::I8 => numbers::<i8, 1>(json, dtype, expected, i8::to_ne_bytes),
        DType::I16 => numbers::<i16, 2>(json, dtype, expected, i16::to_ne_bytes),
        DType::I32 => numbers::<i32, 4>(json, dtype, expected, i32::to_ne_bytes),
        DType::I64 => numbers::<i64, 8>(json, dtype, expected, i64::to_ne_bytes),
        DType::F32 => numbers::<f32, 4>(json, dtype, expected, f32::to_ne_bytes),
        DType::F64 => numbers::<f64, 8>(json, dtype, expected, f64::to_ne_bytes),
        DType::F16 => {
            each(json, dtype, expected, |text| narrow(text, |number| f16::from_f64(number)).map(f16::to_ne_bytes))
        }
        DType::BF16 => {
            each(json, dtype, expected, |text| narrow(text, |number| bf16::from_f64(number)).map(bf16::to_ne_bytes))
        }
        DType::Bytes => Err(NumberError::HasNoJson(dtype)),
    }
}

fn numbers<T: FromStr, const N: usize>(
    json: &str,
    dtype: DType,
    expected: usize,
    bytes: impl Fn(T) -> [u8; N],
) -> Result<Vec<u8>, NumberError> {
    each(json, dtype, expected, |text| text.parse().ok().map(&bytes))
}

/// The number `text` in 16 bits; none if it is finite and too large for them.
fn narrow<T: Copy + Into<f64>>(text: &str, round: impl Fn(f64) -> T) -> Option<T> {
    let number: f64 = text.parse().ok()?;
    let narrow = round(number);
    (narrow.into().is_finite() || !number.is_finite()).then_some(narrow)
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
    fn what_is_no_number_of_the_type_is_named_with_its_place() {
        let error = |json, dtype| read(json, dtype, 64).unwrap_err().to_string();
        assert_eq!(error("[1, \"two\"]", DType::F32), "\"two\" at place 1 of the data is no FP32");
        assert_eq!(error("[1, 300]", DType::U8), "300 at place 1 of the data is no UINT8");
        assert_eq!(error("[1.5]", DType::I32), "1.5 at place 0 of the data is no INT32");
        assert_eq!(error("[null]", DType::F64), "null at place 0 of the data is no FP64");
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
        assert_eq!(error, "70000 at place 1 of the data is no FP16");
    }
}
