//! PNG, with everything that is not pixels left unread.

use std::io::Cursor;

use png::{ColorType, Decoder, DecodingError, Limits, Reader, Transformations};

use crate::{Format, Header, ImageError, Orientation};

/// Memory for anything but pixels: a palette, an EXIF block. Text and colour profiles are skipped unread.
const SIDE_MEMORY: usize = 4 << 20;

type PngReader<'a> = Reader<Cursor<&'a [u8]>>;

fn damaged(error: &DecodingError) -> ImageError {
    ImageError::Damaged { format: Format::Png.name(), reason: error.to_string() }
}

fn open(bytes: &[u8]) -> Result<PngReader<'_>, ImageError> {
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: SIDE_MEMORY });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    // Palettes and small depths become 8 bits, 16 bits lose their lower half, as in OpenCV.
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    decoder.read_info().map_err(|error| damaged(&error))
}

pub(crate) fn probe(bytes: &[u8]) -> Result<Header, ImageError> {
    let reader = open(bytes)?;
    let info = reader.info();
    let channels = reader.output_color_type().0.samples() as u64;
    let pixels = u64::from(info.width) * u64::from(info.height);
    let orientation = info.exif_metadata.as_deref().map_or(Orientation::UPRIGHT, Orientation::from_exif);
    Ok(Header {
        format: Format::Png,
        width: info.width,
        height: info.height,
        orientation,
        decode_bytes: pixels * (channels + 3),
    })
}

/// Decodes into `rgb`, three bytes a pixel; transparency is dropped.
pub(crate) fn decode(bytes: &[u8], rgb: &mut Vec<u8>) -> Result<(), ImageError> {
    let mut reader = open(bytes)?;
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| ImageError::Damaged { format: "PNG", reason: "its size is not a size".to_owned() })?;
    let (color, _) = reader.output_color_type();
    if color == ColorType::Rgb {
        rgb.resize(size, 0);
        return reader.next_frame(rgb).map(drop).map_err(|error| damaged(&error));
    }
    let mut pixels = vec![0; size];
    reader.next_frame(&mut pixels).map_err(|error| damaged(&error))?;
    rgb.clear();
    match color {
        ColorType::Grayscale => rgb.extend(pixels.iter().flat_map(|grey| [*grey; 3])),
        ColorType::GrayscaleAlpha => rgb.extend(pixels.as_chunks::<2>().0.iter().flat_map(|[grey, _]| [*grey; 3])),
        ColorType::Rgba => rgb.extend(pixels.as_chunks::<4>().0.iter().flat_map(|[r, g, b, _]| [*r, *g, *b])),
        ColorType::Rgb | ColorType::Indexed => unreachable!("read above, and palettes are expanded"),
    }
    Ok(())
}
