//! The container of a WebP: how large the picture is, and how it was held. The `image` crate decodes it, and takes
//! memory for whatever size a frame gives itself before it looks at the canvas: so the two are compared here.
//! (<https://developers.google.com/speed/webp/docs/riff_container>)

use std::iter;

use crate::{Format, Header, ImageError, Orientation};

/// Set among the flags of an animation.
const ANIMATED: u8 = 2;

/// A chunk: its name and what it holds.
type Chunk<'a> = (&'a [u8; 4], &'a [u8]);

/// Width and height.
type Size = (u32, u32);

fn damaged(reason: &str) -> ImageError {
    ImageError::Damaged { format: Format::WebP.name(), reason: reason.to_owned() }
}

/// Reads the header.
pub(crate) fn probe(bytes: &[u8]) -> Result<Header, ImageError> {
    let body = bytes.get(12..).unwrap_or_default();
    let first = chunks(body).next().ok_or_else(|| damaged("it holds nothing"))?;
    let (size, orientation) = match first {
        (b"VP8X", extended) => (canvas(extended, body)?, orientation(body)),
        frame => (frame_size(frame).ok_or_else(|| damaged("its frame has no size"))?, Orientation::UPRIGHT),
    };
    let (width, height) = size;
    // At once live the frame's planes, its transparency, its colours and what is given out, or an animation's frame,
    // canvas and what is given out: twelve bytes for each pixel of whole blocks. Compressed bytes are copied twice.
    let padded = u64::from(width).next_multiple_of(16) * u64::from(height).next_multiple_of(16);
    let decode_bytes = 12 * padded + 2 * bytes.len() as u64;
    Ok(Header { format: Format::WebP, width, height, orientation, decode_bytes })
}

/// The chunks that `bytes` are made of. What one says to hold beyond their end is not there.
fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let mut rest = bytes;
    iter::from_fn(move || {
        let (name, after) = rest.split_first_chunk::<4>()?;
        let (length, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        // Chunks begin at even places.
        rest = after.get(length.next_multiple_of(2)..).unwrap_or_default();
        Some((name, &after[..length.min(after.len())]))
    })
}

/// The size of the canvas that `extended` describes, if the frame that will be decoded fits it.
fn canvas(extended: &[u8], body: &[u8]) -> Result<Size, ImageError> {
    let [flags, _, _, _, w0, w1, w2, h0, h1, h2, ..] = *extended else { return Err(damaged("its header is cut")) };
    let canvas = (less_one([w0, w1, w2]), less_one([h0, h1, h2]));
    let fits = if flags & ANIMATED == 0 {
        let frame = chunks(body).find(|(name, _)| matches!(*name, b"VP8 " | b"VP8L"));
        frame.and_then(frame_size) == Some(canvas)
    } else {
        let animated = chunks(body).find(|(name, _)| *name == b"ANMF");
        let size = animated.and_then(|(_, frame)| animated_size(frame));
        size.is_some_and(|(width, height)| width <= canvas.0 && height <= canvas.1)
    };
    fits.then_some(canvas).ok_or_else(|| damaged("its frame does not fit its canvas"))
}

/// The size of an animation's frame, if what it holds has the size that it says.
fn animated_size(frame: &[u8]) -> Option<Size> {
    let [_, _, _, _, _, _, w0, w1, w2, h0, h1, h2, _, _, _, _, ref inner @ ..] = *frame else { return None };
    let size = (less_one([w0, w1, w2]), less_one([h0, h1, h2]));
    let mut inner = chunks(inner);
    // Transparency stands before the colours.
    let picture = inner.next().and_then(|chunk| if chunk.0 == b"ALPH" { inner.next() } else { Some(chunk) });
    picture.and_then(frame_size).filter(|inner| *inner == size)
}

/// The size that a frame gives itself.
fn frame_size(frame: Chunk<'_>) -> Option<Size> {
    match frame {
        // RFC 6386, 9.1: a tag, three bytes that are always the same, twice 14 bits and two of scaling.
        (b"VP8 ", &[_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..]) => {
            let side = |bytes| u32::from(u16::from_le_bytes(bytes) & 0x3fff);
            Some((side([w0, w1]), side([h0, h1])))
        }
        // RFC 9649, 3.4: a byte that is always the same, twice 14 bits, each one less than the side.
        (b"VP8L", &[0x2f, a, b, c, d, ..]) => {
            let sides = u32::from_le_bytes([a, b, c, d]);
            Some(((sides & 0x3fff) + 1, (sides >> 14 & 0x3fff) + 1))
        }
        _ => None,
    }
}

/// A side that is stored as one less in three bytes.
fn less_one([a, b, c]: [u8; 3]) -> u32 {
    u32::from_le_bytes([a, b, c, 0]) + 1
}

fn orientation(body: &[u8]) -> Orientation {
    let exif = chunks(body).find(|(name, _)| *name == b"EXIF");
    exif.map_or(Orientation::UPRIGHT, |(_, block)| Orientation::from_exif(block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exif::tests::exif_block;

    const LARGE: u16 = 16_383;

    fn chunk(name: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let padding = &[0][..content.len() % 2];
        [name, &(content.len() as u32).to_le_bytes()[..], content, padding].concat()
    }

    fn webp(chunks: &[Vec<u8>]) -> Vec<u8> {
        let body = chunks.concat();
        [b"RIFF", &(body.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &body].concat()
    }

    fn lossy(width: u16, height: u16) -> Vec<u8> {
        chunk(b"VP8 ", &[&[0, 0, 0, 0x9d, 1, 0x2a][..], &width.to_le_bytes(), &height.to_le_bytes(), &[0; 20]].concat())
    }

    fn lossless(width: u16, height: u16) -> Vec<u8> {
        let sides = u32::from(width - 1) | u32::from(height - 1) << 14;
        chunk(b"VP8L", &[&[0x2f][..], &sides.to_le_bytes(), &[0; 20]].concat())
    }

    fn sides(width: u16, height: u16) -> Vec<u8> {
        [width - 1, height - 1].iter().flat_map(|side| [side.to_le_bytes()[0], side.to_le_bytes()[1], 0]).collect()
    }

    fn extended(flags: u8, width: u16, height: u16) -> Vec<u8> {
        chunk(b"VP8X", &[&[flags, 0, 0, 0], &sides(width, height)[..]].concat())
    }

    fn animated(width: u16, height: u16, inner: &[Vec<u8>]) -> Vec<u8> {
        chunk(b"ANMF", &[&[0; 6], &sides(width, height)[..], &[0; 4], &inner.concat()].concat())
    }

    fn size(chunks: &[Vec<u8>]) -> Option<Size> {
        probe(&webp(chunks)).ok().map(|header| (header.width, header.height))
    }

    #[test]
    fn the_size_is_the_frames_or_the_canvas() {
        assert_eq!(size(&[lossy(300, 200)]), Some((300, 200)));
        assert_eq!(size(&[lossless(300, 200)]), Some((300, 200)));
        assert_eq!(size(&[lossless(16_384, 1)]), Some((16_384, 1)));
        assert_eq!(size(&[extended(0, 300, 200), chunk(b"ICCP", b"odd"), lossy(300, 200)]), Some((300, 200)));
        let part = animated(30, 20, &[chunk(b"ALPH", b"a"), lossy(30, 20)]);
        assert_eq!(size(&[extended(ANIMATED, 300, 200), chunk(b"ANIM", &[0; 6]), part]), Some((300, 200)));
    }

    #[test]
    fn a_frame_that_does_not_fit_its_canvas_is_refused_by_the_header() {
        for frame in [lossy(LARGE, LARGE), lossless(LARGE, LARGE), lossy(1, 2)] {
            assert_eq!(size(&[extended(0, 1, 1), frame.clone()]), None);
            assert_eq!(size(&[extended(0, 1, 1), frame, lossy(1, 1)]), None, "the first is decoded");
        }
        let animation = |frame: Vec<u8>| size(&[extended(ANIMATED, 8, 8), lossy(8, 8), frame]);
        let alpha = || chunk(b"ALPH", b"a");
        assert_eq!(animation(animated(8, 8, &[lossless(8, 8)])), Some((8, 8)));
        assert_eq!(animation(animated(8, 9, &[lossless(8, 9)])), None);
        assert_eq!(animation(animated(8, 8, &[lossy(LARGE, LARGE)])), None);
        assert_eq!(animation(animated(8, 8, &[alpha(), lossy(LARGE, LARGE)])), None);
        assert_eq!(animation(animated(8, 8, &[alpha(), alpha(), lossy(8, 8)])), None);
        assert_eq!(animation(chunk(b"ANMF", &[0; 15])), None);
    }

    #[test]
    fn headers_without_a_size_are_refused() {
        let cut = || chunk(b"VP8 ", &[0, 0, 0, 0x9d, 1, 0x2a, 1]);
        let extended = || extended(0, 1, 1);
        for chunks in [vec![], vec![extended()], vec![cut()], vec![extended(), cut()], vec![chunk(b"ICCP", b"")]] {
            assert_eq!(size(&chunks), None);
        }
    }

    #[test]
    fn the_orientation_is_read_with_and_without_the_name_before_it() {
        let orientation = |exif: Vec<u8>| probe(&webp(&[extended(8, 9, 9), lossy(9, 9), exif])).unwrap().orientation;
        let turned = Orientation { transpose: true, flip_x: true, flip_y: false };
        let block = exif_block(6);
        assert_eq!(orientation(chunk(b"EXIF", &block)), turned);
        assert_eq!(orientation(chunk(b"EXIF", &[crate::exif::NAME, &block].concat())), turned);
        // Two gigabytes that are not there are not waited for.
        let boast = [b"EXIF", &i32::MAX.to_le_bytes()[..], &block].concat();
        assert_eq!(orientation(boast), turned);
    }

    #[test]
    fn memory_is_counted_in_whole_blocks() {
        let bytes = webp(&[lossy(17, 16)]);
        assert_eq!(probe(&bytes).unwrap().decode_bytes, 12 * 32 * 16 + 2 * bytes.len() as u64);
    }
}
