//! WebP, BMP and GIF: rarer formats through the `image` crate. Of an animation the first frame is read.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageError as Cause, Limits,
    codecs::{bmp::BmpDecoder, gif::GifDecoder, webp::WebPDecoder},
};

use crate::{Format, Header, ImageError, Orientation};

fn damaged(format: Format) -> impl Fn(Cause) -> ImageError {
    move |error| match error {
        Cause::Unsupported(error) => ImageError::Unsupported { format: format.name(), reason: error.to_string() },
        Cause::Limits(_) => {
            ImageError::Damaged { format: format.name(), reason: "its frame is larger than itself".to_owned() }
        }
        error => ImageError::Damaged { format: format.name(), reason: error.to_string() },
    }
}

fn open(bytes: &[u8], format: Format) -> Result<Box<dyn ImageDecoder + '_>, Cause> {
    let input = Cursor::new(bytes);
    Ok(match format {
        Format::WebP => Box::new(WebPDecoder::new(input)?),
        Format::Gif => Box::new(bounded(GifDecoder::new(input)?)?),
        _ => Box::new(BmpDecoder::new(input)?),
    })
}

/// A GIF's frame gives itself a size, and may lie about it: it gets no more memory than the whole picture takes.
fn bounded<D: ImageDecoder>(mut decoder: D) -> Result<D, Cause> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(decoder.total_bytes());
    decoder.set_limits(limits)?;
    Ok(decoder)
}

/// Reads the header of a BMP.
pub(crate) fn probe_bmp(bytes: &[u8]) -> Result<Header, ImageError> {
    let (width, height) = open(bytes, Format::Bmp).map_err(damaged(Format::Bmp))?.dimensions();
    // Four bytes a pixel, and our copy of three.
    let decode_bytes = 7 * u64::from(width) * u64::from(height);
    Ok(Header { format: Format::Bmp, width, height, orientation: Orientation::UPRIGHT, decode_bytes })
}

/// Reads the header of a GIF: its decoder would also read, and copy, all the notes before the first frame.
pub(crate) fn probe_gif(bytes: &[u8]) -> Result<Header, ImageError> {
    let &[_, _, _, _, _, _, w0, w1, h0, h1, ..] = bytes else {
        return Err(ImageError::Damaged { format: Format::Gif.name(), reason: "its header is cut".to_owned() });
    };
    let (width, height) = (u32::from(u16::from_le_bytes([w0, w1])), u32::from(u16::from_le_bytes([h0, h1])));
    // Picture and frame of four bytes a pixel, the frame's indices of one, and the notes.
    let decode_bytes = 9 * u64::from(width) * u64::from(height) + 2 * bytes.len() as u64;
    Ok(Header { format: Format::Gif, width, height, orientation: Orientation::UPRIGHT, decode_bytes })
}

/// Decodes into `rgb`, three bytes a pixel; transparency is dropped.
pub(crate) fn decode(bytes: &[u8], format: Format, rgb: &mut Vec<u8>) -> Result<(), ImageError> {
    let picture = open(bytes, format).and_then(DynamicImage::from_decoder).map_err(damaged(format))?;
    *rgb = picture.into_rgb8().into_raw();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A GIF of one by one pixel whose only frame has `sides`.
    fn gif(sides: [u16; 2]) -> Vec<u8> {
        let mut gif = b"GIF89a\x01\0\x01\0\x80\0\0".to_vec();
        gif.extend([255, 0, 0, 0, 0, 0]);
        gif.extend(b"\x2c\0\0\0\0");
        sides.iter().for_each(|side| gif.extend(side.to_le_bytes()));
        gif.extend(b"\0\x02\x02\x44\x01\0\x3b");
        gif
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, ImageError> {
        let mut rgb = Vec::new();
        decode(bytes, Format::Gif, &mut rgb).map(|()| rgb)
    }

    #[test]
    fn a_gifs_header_is_read() {
        let bytes = gif([1, 1]);
        let header = probe_gif(&bytes).unwrap();
        assert_eq!((header.width, header.height, header.decode_bytes), (1, 1, 9 + 2 * bytes.len() as u64));
        assert!(probe_gif(&bytes[..9]).is_err());
    }

    #[test]
    fn a_gif_gets_no_memory_for_a_frame_larger_than_itself() {
        assert_eq!(decoded(&gif([1, 1])), Ok(vec![255, 0, 0]));
        let reason = "its frame is larger than itself".to_owned();
        let refused = Err(ImageError::Damaged { format: "GIF", reason });
        assert_eq!(decoded(&gif([u16::MAX, u16::MAX])), refused);
        assert_eq!(decoded(&gif([2, 1])), refused);
    }
}
