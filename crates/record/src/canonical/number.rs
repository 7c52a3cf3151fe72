//! Numbers as Python writes them: integers digit by digit, floats as the shortest text that reads back the same.

use super::error::{Fault, JsonError};

/// Python reads no longer integers (`sys.int_info.default_max_str_digits`).
pub const MOST_DIGITS: usize = 4300;

/// Decimals of so many significant digits come back unchanged from 64 bits (`DBL_DIG`).
const EXACT_DIGITS: usize = 15;

/// Reads the number that starts at `start` of `text`, writes it to `out`, and says where it ends.
pub(super) fn number(text: &[u8], start: usize, out: &mut Vec<u8>) -> Result<usize, JsonError> {
    let minus = text[start] == b'-';
    let whole = start + usize::from(minus);
    let mut at = digits(text, whole);
    match text.get(whole) {
        Some(b'0') if at > whole + 1 => {
            let found = char::from(text[whole + 1]);
            return Err(Fault::Unexpected { found, wanted: "no digit after a leading zero" }.at(whole + 1));
        }
        Some(b'I') if minus => return Err(Fault::NotANumber.at(start)),
        _ if at == whole => return Err(super::unexpected(text, whole, "a digit")),
        _ => {}
    }
    let whole = whole..at;
    let mut fraction = at..at;
    if text.get(at) == Some(&b'.') {
        fraction = at + 1..digits(text, at + 1);
        at = fraction.end;
        if fraction.is_empty() {
            return Err(super::unexpected(text, at, "a digit"));
        }
    }
    let exponent = matches!(text.get(at), Some(b'e' | b'E'));
    if exponent {
        at += 1;
        at += usize::from(matches!(text.get(at), Some(b'+' | b'-')));
        let end = digits(text, at);
        if end == at {
            return Err(super::unexpected(text, at, "a digit"));
        }
        at = end;
    }
    let written = &text[start..at];
    if fraction.is_empty() && !exponent {
        if whole.len() > MOST_DIGITS {
            return Err(Fault::NumberTooLong.at(start));
        }
        out.extend_from_slice(if written == b"-0" { b"0" } else { written });
    } else if !exponent && is_shortest(&text[whole], &text[fraction]) {
        out.extend_from_slice(written);
    } else {
        // Digits, a point and an exponent: always a float to the library.
        let value = std::str::from_utf8(written).ok().and_then(|text| text.parse::<f64>().ok()).unwrap_or(f64::NAN);
        if !value.is_finite() {
            return Err(Fault::NumberTooLarge.at(start));
        }
        float(value, out);
    }
    Ok(at)
}

fn digits(text: &[u8], from: usize) -> usize {
    from + text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Whether a decimal is its own shortest form, told without reading it: few digits, none of them idle, and a size
/// for which Python writes no exponent. Two decimals of 15 digits never share a float, so none shorter would do.
fn is_shortest(whole: &[u8], fraction: &[u8]) -> bool {
    let small = whole == b"0" && fraction.starts_with(b"0000");
    whole.len() + fraction.len() <= EXACT_DIGITS && (fraction == b"0" || fraction.last() != Some(&b'0')) && !small
}

/// Writes `value` as Python's `repr` does.
pub(super) fn float(value: f64, out: &mut Vec<u8>) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(value.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let whole = mantissa.split_once('.').map_or(mantissa, |(whole, _)| whole);
    // The number is 0.DIGITS × 10^point. Texts of floats hold at most 17 digits, and few zeros before them.
    let mut point = exponent.parse().unwrap_or(0) + i32::try_from(whole.len()).unwrap_or(0);
    let mut digits = [0u8; 40];
    let mut length = 0;
    for (place, digit) in digits.iter_mut().zip(mantissa.bytes().filter(u8::is_ascii_digit)) {
        *place = digit;
        length += 1;
    }
    let digits = &digits[..length];
    let leading = digits.iter().take_while(|digit| **digit == b'0').count();
    point -= i32::try_from(leading).unwrap_or(0);
    let digits = &digits[leading..];
    let digits = &digits[..digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1)];

    if value.is_sign_negative() {
        out.push(b'-');
    }
    if digits.is_empty() {
        return out.extend_from_slice(b"0.0");
    }
    let zeros = |count: i32, out: &mut Vec<u8>| out.extend((0..count).map(|_| b'0'));
    let count = i32::try_from(digits.len()).unwrap_or(0);
    match point {
        -3..=0 => {
            out.extend_from_slice(b"0.");
            zeros(-point, out);
            out.extend_from_slice(digits);
        }
        1..=16 if count <= point => {
            out.extend_from_slice(digits);
            zeros(point - count, out);
            out.extend_from_slice(b".0");
        }
        1..=16 => {
            let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
            out.extend_from_slice(whole);
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
        _ => {
            out.push(digits[0]);
            if count > 1 {
                out.push(b'.');
                out.extend_from_slice(&digits[1..]);
            }
            let exponent = point - 1;
            out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
            out.extend_from_slice(format!("{:02}", exponent.abs()).as_bytes());
        }
    }
}
