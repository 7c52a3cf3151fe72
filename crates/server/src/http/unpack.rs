//! Request bodies that come compressed (`Content-Encoding`): gzip, and deflate with and without its zlib header.
//!
//! A body is unpacked while it arrives, a step at a time. A step reads and writes at most some kilobytes, and other
//! connections of the thread get their turn in between, so that a few bytes that become gigabytes keep nobody waiting. How
//! large a body may become is limited by its reader: its length is not known in advance.

use std::{
    io::{self, BufRead, Read},
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::{body::Body, extract::Request, http::header};
use bytes::{Buf, Bytes, BytesMut};
use caudal_types::{ErrorKind, shorten};
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::body::{Body as _, Frame, SizeHint};

use crate::problem::Problem;

/// Most bytes that a step gives.
const OUT: usize = 32 << 10;
/// Most bytes that a step takes. Bytes that become nothing, such as empty members of a gzip file, cost time too.
const IN: usize = 16 << 10;

/// The encodings that are read, as `Accept-Encoding` of a refusal lists them.
pub(crate) const ACCEPTED: &str = "gzip, deflate";

/// A body that is not what its Content-Encoding says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body is not valid {encoding}: {reason}")]
pub(crate) struct Undecodable {
    encoding: &'static str,
    reason: String,
}

impl From<&Undecodable> for Problem {
    fn from(error: &Undecodable) -> Self {
        Self::new(
            ErrorKind::InvalidRequest,
            error.to_string(),
            "send the whole compressed body, or the plain body without Content-Encoding",
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Deflate,
}

/// `request` with its body as it was before it was compressed.
pub(crate) fn unpack(request: Request) -> Result<Request, Problem> {
    let codings = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let codings: Vec<_> = codings.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let is_chunked = codings.len() == 1 && codings[0].trim().eq_ignore_ascii_case("chunked");
    if !codings.is_empty() && !is_chunked {
        return Err(Problem::new(
            ErrorKind::UnsupportedEncoding,
            format!("Transfer-Encoding is {:?}; supported is chunked alone, once", shorten(&codings.join(", "))),
            "send Transfer-Encoding: chunked, and say with Content-Encoding that the body is compressed",
        ));
    }
    if !request.headers().contains_key(header::CONTENT_ENCODING) {
        return Ok(request);
    }
    let (mut head, body) = request.into_parts();
    let encoding =
        read_encoding(head.headers.get_all(header::CONTENT_ENCODING).iter().map(axum::http::HeaderValue::as_bytes))?;
    head.headers.remove(header::CONTENT_ENCODING);
    let Some(encoding) = encoding.filter(|_| !body.is_end_stream()) else {
        return Ok(Request::from_parts(head, body));
    };
    head.headers.remove(header::CONTENT_LENGTH);
    Ok(Request::from_parts(head, Body::new(Unpacking::new(body, encoding))))
}

/// The encoding that the values of Content-Encoding name; none if it changes nothing.
fn read_encoding<'a>(values: impl Iterator<Item = &'a [u8]>) -> Result<Option<Encoding>, Problem> {
    let values: Vec<_> = values.map(String::from_utf8_lossy).collect();
    let names = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    let names: Vec<_> = names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity")).collect();
    match names[..] {
        [] => Ok(None),
        [name] if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => Ok(Some(Encoding::Gzip)),
        [name] if name.eq_ignore_ascii_case("deflate") => Ok(Some(Encoding::Deflate)),
        _ => Err(Problem::new(
            ErrorKind::UnsupportedEncoding,
            format!(
                "Content-Encoding is {:?}; supported are gzip and deflate, one at a time",
                shorten(&names.join(", "))
            ),
            "compress the body with gzip or deflate, or send it uncompressed without Content-Encoding",
        )),
    }
}

/// Compressed bytes on their way to a decoder, which is told to come back when there are none for now.
#[derive(Debug, Default)]
struct Feed {
    bytes: Bytes,
    ended: bool,
    /// Bytes that it may still take in this step.
    allowed: usize,
}

impl Feed {
    fn visible(&self) -> usize {
        self.bytes.len().min(self.allowed)
    }
}

impl Read for Feed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(into)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.visible() {
            0 if self.ended && self.bytes.is_empty() => Ok(&[]),
            0 => Err(io::ErrorKind::WouldBlock.into()),
            visible => Ok(&self.bytes[..visible]),
        }
    }

    fn consume(&mut self, count: usize) {
        self.bytes.advance(count);
        self.allowed -= count;
    }
}

enum Decoder {
    /// Deflate whose first two bytes have not come: they tell whether it has a zlib header (RFC 9110, 8.4.1.2).
    Undecided(Feed),
    Gzip(MultiGzDecoder<Feed>),
    Zlib(ZlibDecoder<Feed>),
    Raw(DeflateDecoder<Feed>),
}

impl Decoder {
    fn feed(&mut self) -> &mut Feed {
        match self {
            Self::Undecided(feed) => feed,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zlib(decoder) => decoder.get_mut(),
            Self::Raw(decoder) => decoder.get_mut(),
        }
    }

    /// Chooses the form of deflate by its first bytes, where that is open.
    fn decide(&mut self) {
        let Self::Undecided(feed) = self else { return };
        if feed.bytes.len() < 2 && !feed.ended {
            return;
        }
        let feed = std::mem::take(feed);
        *self = match is_zlib(&feed.bytes) {
            true => Self::Zlib(ZlibDecoder::new(feed)),
            false => Self::Raw(DeflateDecoder::new(feed)),
        };
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Undecided(_) => Err(io::ErrorKind::WouldBlock.into()),
            Self::Gzip(decoder) => decoder.read(into),
            Self::Zlib(decoder) => decoder.read(into),
            Self::Raw(decoder) => decoder.read(into),
        }
    }
}

/// Whether `bytes` begin with a zlib header (RFC 1950): method 8 and a check that divides by 31. No raw stream does: its
/// first block would be a stored one whose padding bits are set.
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(*bytes, [first, second, ..] if first & 15 == 8 && u16::from_be_bytes([first, second]).is_multiple_of(31))
}

/// A body that is unpacked as it is read.
struct Unpacking {
    body: Body,
    encoding: Encoding,
    decoder: Decoder,
    /// Others have their turn before the next step.
    yields: bool,
    done: bool,
}

/// What a step has come to.
enum Step {
    Gave(Bytes),
    /// It has taken as much as a step may, and nothing came of it yet.
    Took,
    Starves,
    Done,
}

impl Unpacking {
    fn new(body: Body, encoding: Encoding) -> Self {
        let decoder = match encoding {
            Encoding::Gzip => Decoder::Gzip(MultiGzDecoder::new(Feed::default())),
            Encoding::Deflate => Decoder::Undecided(Feed::default()),
        };
        Self { body, encoding, decoder, yields: false, done: false }
    }

    fn step(&mut self) -> Result<Step, Undecodable> {
        self.decoder.decide();
        self.decoder.feed().allowed = IN;
        let mut out = BytesMut::zeroed(OUT);
        let mut filled = 0;
        while filled < OUT {
            match self.decoder.read(&mut out[filled..]) {
                Ok(0) => {
                    self.done = true;
                    break;
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.undecodable(&error)),
            }
        }
        out.truncate(filled);
        Ok(match (filled, self.done) {
            (1.., _) => Step::Gave(out.freeze()),
            (0, true) => Step::Done,
            (0, false) if self.decoder.feed().bytes.len() > 1 => Step::Took,
            (0, false) => Step::Starves,
        })
    }

    fn undecodable(&self, error: &io::Error) -> Undecodable {
        let encoding = match self.encoding {
            Encoding::Gzip => "gzip",
            Encoding::Deflate => "deflate",
        };
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
            _ => error.to_string(),
        };
        Undecodable { encoding, reason }
    }

    /// Gives what came next of the compressed body to the decoder.
    fn feed(&mut self, more: Bytes) {
        let feed = self.decoder.feed();
        feed.bytes = match feed.bytes.is_empty() {
            true => more,
            false => [&feed.bytes[..], &more].concat().into(),
        };
    }
}

impl hyper::body::Body for Unpacking {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.yields) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            if this.done {
                return Poll::Ready(None);
            }
            match this.step() {
                Ok(Step::Gave(bytes)) => {
                    this.yields = bytes.len() == OUT || !this.decoder.feed().bytes.is_empty();
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Ok(Step::Took) => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Step::Done) => return Poll::Ready(None),
                Ok(Step::Starves) => {}
                Err(error) => {
                    this.done = true;
                    return Poll::Ready(Some(Err(axum::Error::new(error))));
                }
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(more) = frame.into_data() {
                        this.feed(more);
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => this.decoder.feed().ended = true,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{
        Compression,
        write::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use futures_util::stream;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn raw(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// What comes out of `packed` that arrives in pieces of `piece` bytes, and the most that came out at a time.
    fn unpacked(encoding: &str, packed: &[u8], piece: usize) -> Result<(Vec<u8>, usize), String> {
        let pieces: Vec<_> = packed.chunks(piece.max(1)).map(Bytes::copy_from_slice).map(Ok::<_, io::Error>).collect();
        let request = Request::builder()
            .header("content-encoding", encoding)
            .header("content-length", packed.len())
            .body(Body::from_stream(stream::iter(pieces)))
            .unwrap();
        let mut body = unpack(request).map_err(|problem| problem.message)?.into_body();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut whole, mut most) = (Vec::new(), 0);
        while let Some(frame) = runtime.block_on(body.frame()) {
            let bytes = frame.map_err(|error| error.to_string())?.into_data().unwrap();
            most = most.max(bytes.len());
            whole.extend_from_slice(&bytes);
        }
        Ok((whole, most))
    }

    #[test]
    fn gzip_zlib_and_raw_deflate_are_unpacked() {
        let text = "a text that repeats itself, ".repeat(9_000).into_bytes();
        for (encoding, packed) in [
            ("gzip", gzip(&text)),
            ("GZip", gzip(&text)),
            ("identity, x-gzip", gzip(&text)),
            ("deflate", zlib(&text)),
            ("deflate", raw(&text)),
            ("gzip", [gzip(&text[..1000]), gzip(&text[1000..])].concat()),
        ] {
            for piece in [1, 7, packed.len()] {
                let (whole, most) = unpacked(encoding, &packed, piece).unwrap();
                assert!(whole == text, "{encoding} in pieces of {piece}");
                assert!(most <= OUT, "{most} bytes in one step");
            }
        }
        assert_eq!(unpacked("identity", b"plain", 3).unwrap().0, b"plain");
    }

    #[test]
    fn a_body_that_is_not_what_it_says_is_named() {
        let text = b"a text that is long enough to be cut somewhere".repeat(20);
        for (encoding, packed, words) in [
            ("gzip", gzip(&text)[..40].to_vec(), "not valid gzip: it ends too early"),
            ("deflate", zlib(&text)[..40].to_vec(), "not valid deflate: it ends too early"),
            ("deflate", raw(&text)[..20].to_vec(), "not valid deflate: it ends too early"),
            ("gzip", b"this is a plain text".to_vec(), "not valid gzip: invalid gzip header"),
            ("deflate", vec![0xff; 40], "not valid deflate"),
            ("br", b"x".to_vec(), "Content-Encoding is \"br\""),
            ("gzip, gzip", b"x".to_vec(), "Content-Encoding is \"gzip, gzip\""),
        ] {
            for piece in [1, packed.len()] {
                let error = unpacked(encoding, &packed, piece).unwrap_err();
                assert!(error.contains(words), "{encoding}: {error}");
            }
        }
        let mut broken = gzip(&text);
        let middle = broken.len() - 6;
        broken[middle] ^= 1;
        assert!(unpacked("gzip", &broken, 9).is_err(), "the checksum counts");
        let packed = Request::builder().header("transfer-encoding", "gzip, chunked").body(Body::empty()).unwrap();
        assert!(unpack(packed).unwrap_err().message.contains("Transfer-Encoding is \"gzip, chunked\""));
        let chunked = || Request::builder().header("transfer-encoding", "Chunked");
        assert!(unpack(chunked().body(Body::empty()).unwrap()).is_ok());
        assert!(unpack(chunked().header("transfer-encoding", "chunked").body(Body::empty()).unwrap()).is_err());
    }

    #[test]
    fn a_bomb_comes_in_steps() {
        let packed = gzip(&vec![0; 64 << 20]);
        let request = Request::builder().header("content-encoding", "gzip").body(Body::from(packed)).unwrap();
        let mut body = unpack(request).unwrap().into_body();
        let mut context = Context::from_waker(std::task::Waker::noop());
        let (mut given, mut turns) = (0, 0);
        while given < 1 << 20 {
            match Pin::new(&mut body).poll_frame(&mut context) {
                Poll::Ready(frame) => given += frame.unwrap().unwrap().into_data().unwrap().len(),
                Poll::Pending => turns += 1,
            }
        }
        assert!(turns >= (1 << 20) / OUT - 1, "others had {turns} turns");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
            let _ = unpacked("gzip", &bytes, piece);
            let _ = unpacked("deflate", &bytes, piece);
            let mut headed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
            headed.extend(&bytes);
            let _ = unpacked("gzip", &headed, piece);
        }
    }
}
