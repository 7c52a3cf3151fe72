//! `multipart/form-data` (RFC 7578) over a body that is in memory already: parts are slices of it, nothing is
//! copied.

use bytes::Bytes;
use caudal_types::ErrorKind;
use memchr::memmem;

use crate::problem::Problem;

/// Headers of one part.
const MAX_HEADERS: usize = 16;
/// Bytes that these have.
const MAX_HEAD: usize = 8 << 10;

/// One part of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// The field's name.
    pub(crate) name: String,
    /// The file's name, if it is one.
    pub(crate) filename: Option<String>,
    /// What is in it.
    pub(crate) content: Bytes,
}

impl Part {
    /// Whether it is a file input in which nothing was chosen.
    pub(crate) fn is_unchosen(&self) -> bool {
        self.filename.as_deref() == Some("") && self.content.is_empty()
    }
}

/// Why a body is no form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MultipartError {
    /// The Content-Type names no boundary.
    #[error("the Content-Type names no boundary")]
    NoBoundary,
    /// The boundary it names is not in the body.
    #[error("the boundary that the Content-Type names does not begin the body")]
    WrongBoundary,
    /// The last boundary is missing.
    #[error("the form is cut off: its last boundary is missing")]
    CutOff,
    /// A part's headers cannot be read.
    #[error("the headers of part {0} cannot be read")]
    BadHeaders(usize),
    /// A part has no field name.
    #[error("part {0} has no field name")]
    NoName(usize),
    /// Too many parts.
    #[error("the form has more than {0} parts")]
    TooManyParts(usize),
}

impl From<MultipartError> for Problem {
    fn from(error: MultipartError) -> Self {
        let (kind, hint) = match error {
            MultipartError::TooManyParts(_) => {
                (ErrorKind::TooManyParts, "send fewer pictures at once, or raise max_images")
            }
            MultipartError::NoBoundary | MultipartError::WrongBoundary => {
                (ErrorKind::InvalidRequest, "let the client library set Content-Type, or copy the boundary exactly")
            }
            _ => (ErrorKind::InvalidRequest, "send the form whole, as a browser or curl -F does"),
        };
        Problem::new(kind, error.to_string(), hint)
    }
}

/// The boundary that `content_type` names.
pub(crate) fn boundary(content_type: &str) -> Result<String, MultipartError> {
    let parameter = |part: &str| {
        let (name, value) = part.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    };
    let found = content_type.split(';').skip(1).find_map(parameter);
    // RFC 2046: 1 to 70 characters.
    found.filter(|boundary| (1..=70).contains(&boundary.len())).ok_or(MultipartError::NoBoundary)
}

/// The parts of `body`, at most `max_parts`.
pub(crate) fn parse(body: &Bytes, boundary: &str, max_parts: usize) -> Result<Vec<Part>, MultipartError> {
    let delimiter = format!("\r\n--{boundary}");
    let finder = memmem::Finder::new(&delimiter);
    // The first boundary may stand at the very beginning, where no line ends before it.
    let mut at = match body.starts_with(&delimiter.as_bytes()[2..]) {
        true => delimiter.len() - 2,
        false => finder.find(body).ok_or(MultipartError::WrongBoundary)? + delimiter.len(),
    };
    let mut parts = Vec::new();
    loop {
        let rest = &body[at..];
        if rest.starts_with(b"--") {
            return Ok(parts);
        }
        if parts.len() == max_parts {
            return Err(MultipartError::TooManyParts(max_parts));
        }
        // Blanks may follow the boundary before its line ends.
        let blanks = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if !rest[blanks..].starts_with(b"\r\n") {
            return Err(if rest.len() < blanks + 2 { MultipartError::CutOff } else { MultipartError::WrongBoundary });
        }
        let start = at + blanks + 2;
        let head = read_head(&body[start..], parts.len())?;
        // A part without content ends with the line of its last header.
        let content = start + head.length;
        let from = content.saturating_sub(2).max(start);
        let end = from + finder.find(&body[from..]).ok_or(MultipartError::CutOff)?;
        parts.push(Part {
            name: head.name,
            filename: head.filename,
            content: body.slice(content.min(end.max(content))..end.max(content)),
        });
        at = end + delimiter.len();
    }
}

struct Head {
    name: String,
    filename: Option<String>,
    /// Bytes up to the content.
    length: usize,
}

fn read_head(bytes: &[u8], index: usize) -> Result<Head, MultipartError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let (length, headers) = match httparse::parse_headers(&bytes[..bytes.len().min(MAX_HEAD)], &mut headers) {
        Ok(httparse::Status::Complete(parsed)) => parsed,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Err(MultipartError::CutOff),
        _ => return Err(MultipartError::BadHeaders(index)),
    };
    let disposition = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-disposition"));
    let value = disposition.map(|header| String::from_utf8_lossy(header.value).into_owned()).unwrap_or_default();
    let name = parameter(&value, "name").ok_or(MultipartError::NoName(index))?;
    let filename = parameter(&value, "filename*").and_then(|extended| read_extended(&extended));
    Ok(Head { name, filename: filename.or_else(|| parameter(&value, "filename")), length })
}

/// A value with its character set and language (RFC 8187): `UTF-8'en'na%C3%AFve.jpg`.
fn read_extended(value: &str) -> Option<String> {
    let mut pieces = value.splitn(3, '\'');
    let (charset, _, text) = (pieces.next()?, pieces.next()?, pieces.next()?);
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(text).collect();
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" => String::from_utf8(bytes).ok(),
        // The first 256 characters of Unicode.
        "iso-8859-1" => Some(bytes.into_iter().map(char::from).collect()),
        _ => None,
    }
}

/// A parameter of a Content-Disposition, quoted or not.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let (text, next) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (text, next) = after.split_once(';').unwrap_or((after, ""));
                (text.trim().to_owned(), next)
            }
        };
        if name.trim_matches([' ', ';', '\t']).eq_ignore_ascii_case(wanted) {
            return Some(text);
        }
        rest = next;
    }
}

/// The text up to the closing quote, and what follows. Browsers write a quote in a name as `%22` or `\"`.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((text, &quoted[at + 1..])),
            '\\' if quoted[at + 1..].starts_with(['"', '\\']) => text.push(letters.next()?.1),
            letter => text.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(name: &str, filename: Option<&str>, content: &[u8]) -> Part {
        Part { name: name.to_owned(), filename: filename.map(str::to_owned), content: Bytes::copy_from_slice(content) }
    }

    fn write(parts: &[Part], boundary: &str) -> Bytes {
        let mut body = Vec::new();
        for part in parts {
            body.extend(format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"", part.name).bytes());
            if let Some(filename) = &part.filename {
                body.extend(format!("; filename=\"{filename}\"\r\nContent-Type: image/jpeg").bytes());
            }
            body.extend(b"\r\n\r\n");
            body.extend(&part.content);
            body.extend(b"\r\n");
        }
        body.extend(format!("--{boundary}--\r\n").bytes());
        body.into()
    }

    fn check(body: &[u8], expected: Result<&[Part], MultipartError>) {
        let got = parse(&Bytes::copy_from_slice(body), "B", 10);
        assert_eq!(got.as_deref().map_err(Clone::clone), expected, "{}", String::from_utf8_lossy(body));
    }

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        let parts =
            [part("file", Some("a b.jpg"), b"\xff\xd8\r\n--b\r\n"), part("model", None, b""), part("x", None, b"\r\n")];
        check(&write(&parts, "B"), Ok(&parts));
        check(b"--B--", Ok(&[]));
        check(
            b"preamble\r\n--B \t\r\nContent-Disposition: form-data; name=x\r\n\r\n1\r\n--B--",
            Ok(&[part("x", None, b"1")]),
        );
        check(
            b"--B\r\ncontent-disposition: form-data; filename=\"a\\\"b;c.jpg\"; NAME=\"f\"\r\n\r\n1\r\n--B--",
            Ok(&[part("f", Some("a\"b;c.jpg"), b"1")]),
        );
    }

    #[test]
    fn a_file_name_may_come_in_another_character_set() {
        let check = |parameters: &str, expected: Option<&str>| {
            let form = format!("--B\r\nContent-Disposition: form-data; name=\"f\"; {parameters}\r\n\r\n1\r\n--B--");
            check(form.as_bytes(), Ok(&[part("f", expected, b"1")]));
        };
        check("filename*=UTF-8''na%C3%AFve%20.jpg", Some("naïve .jpg"));
        check("filename=\"naive.jpg\"; filename*=utf-8'en'na%C3%AFve.jpg", Some("naïve.jpg"));
        check("filename*=iso-8859-1''na%EFve.jpg; filename=\"naive.jpg\"", Some("naïve.jpg"));
        check("filename*=utf-8''%ff; filename=plain.jpg", Some("plain.jpg"));
        check("filename*=koi8-r''a; filename=plain.jpg", Some("plain.jpg"));
        check("filename*=nonsense", None);
    }

    #[test]
    fn an_input_in_which_no_file_was_chosen_is_known() {
        let form = |parameters: &str, content: &str| {
            let form =
                format!("--B\r\nContent-Disposition: form-data; name=\"f\"{parameters}\r\n\r\n{content}\r\n--B--");
            parse(&form.into(), "B", 1).unwrap()[0].is_unchosen()
        };
        assert!(form("; filename=\"\"", ""));
        assert!(!form("; filename=\"\"", "1"));
        assert!(!form("; filename=\"a\"", ""));
        assert!(!form("", ""));
    }

    #[test]
    fn what_is_no_form_is_said_to_be_none() {
        check(b"", Err(MultipartError::WrongBoundary));
        check(b"--C\r\n", Err(MultipartError::WrongBoundary));
        check(b"--B", Err(MultipartError::CutOff));
        check(b"--B\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1", Err(MultipartError::CutOff));
        check(b"--B\r\nContent-Disposition: form-data; name=\"x\"\r\n", Err(MultipartError::CutOff));
        check(b"--B\r\nContent-Type: a/b\r\n\r\n1\r\n--B--", Err(MultipartError::NoName(0)));
        check(b"--B\r\n\x01: x\r\n\r\n1\r\n--B--", Err(MultipartError::BadHeaders(0)));
        check(&write(&vec![part("x", None, b"1"); 11], "B"), Err(MultipartError::TooManyParts(10)));
    }

    #[test]
    fn the_boundary_is_found_in_the_content_type() {
        let found = |text| boundary(text).ok();
        assert_eq!(found("multipart/form-data; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(found("multipart/form-data; charset=utf-8; Boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(found("multipart/form-data"), None);
        assert_eq!(found("multipart/form-data; boundary="), None);
    }

    /// What the library `multer` reads out of the same bytes.
    fn oracle(body: &Bytes) -> Option<Vec<Part>> {
        let stream = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(body.clone())]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut form = multer::Multipart::new(stream, "B");
            let mut parts = Vec::new();
            while let Some(field) = form.next_field().await.ok()? {
                let (name, filename) = (field.name()?.to_owned(), field.file_name().map(str::to_owned));
                parts.push(Part { name, filename, content: field.bytes().await.ok()? });
            }
            Some(parts)
        })
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_multer_agrees(
            contents in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..5),
        ) {
            let parts: Vec<Part> = contents.iter().map(|content| part("file", Some("a.jpg"), content)).collect();
            let body = write(&parts, "B");
            prop_assert_eq!(parse(&body, "B", 10).unwrap(), parts.clone());
            prop_assert_eq!(oracle(&body).unwrap(), parts);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(
            proptest::sample::select(b"-B\r\n: ;=\"nameContent-Disposition\xff".to_vec()), 0..120,
        )) {
            let _ = parse(&[&b"--B\r\n"[..], &bytes].concat().into(), "B", 10);
            let _ = parse(&bytes.into(), "B", 10);
        }
    }
}
