//! WebP, BMP and GIF: rarer formats through the `image` crate. Of an animation the first frame is read.

use std::io::Cursor;

use image::{
    DynamicImage, ImageDecoder, ImageError as Cause,
    codecs::{bmp::BmpDecoder, gif::GifDecoder, webp::WebPDecoder},
};

use crate::{Format, Header, ImageError, Orientation};

fn damaged(format: Format) -> impl Fn(Cause) -> ImageError {
    move |error| match error {
        Cause::Unsupported(error) => ImageError::Unsupported { format: format.name(), reason: error.to_string() },
        error => ImageError::Damaged { format: format.name(), reason: error.to_string() },
    }
}

fn with_decoder<T>(
    bytes: &[u8],
    format: Format,
    visit: impl FnOnce(Box<dyn ImageDecoder + '_>) -> Result<T, Cause>,
) -> Result<T, ImageError> {
    let input = Cursor::new(bytes);
    let decoder: Result<Box<dyn ImageDecoder>, Cause> = match format {
        Format::WebP => WebPDecoder::new(input).map(|decoder| Box::new(decoder) as _),
        Format::Gif => GifDecoder::new(input).map(|decoder| Box::new(decoder) as _),
        _ => BmpDecoder::new(input).map(|decoder| Box::new(decoder) as _),
    };
    decoder.and_then(visit).map_err(damaged(format))
}

pub(crate) fn probe(bytes: &[u8], format: Format) -> Result<Header, ImageError> {
    with_decoder(bytes, format, |mut decoder| {
        let (width, height) = decoder.dimensions();
        let exif = decoder.exif_metadata()?;
        Ok(Header {
            format,
            width,
            height,
            orientation: exif.as_deref().map_or(Orientation::UPRIGHT, Orientation::from_exif),
            // The decoder's canvas, its frame and our copy.
            decode_bytes: u64::from(width) * u64::from(height) * 11,
        })
    })
}

/// Decodes into `rgb`, three bytes a pixel; transparency is dropped.
pub(crate) fn decode(bytes: &[u8], format: Format, rgb: &mut Vec<u8>) -> Result<(), ImageError> {
    *rgb = with_decoder(bytes, format, |decoder| Ok(DynamicImage::from_decoder(decoder)?.into_rgb8().into_raw()))?;
    Ok(())
}
