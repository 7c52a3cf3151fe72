//! JPEG through libjpeg-turbo, with the same choices as OpenCV's `imdecode`, so that pixels are equal.

use turbojpeg::{Colorspace, DecompressHeader, Decompressor, Error, Image, PixelFormat};

use crate::{Format, Header, ImageError, Orientation};

/// Progressive files may hold thousands of scans that each touch every pixel; honest ones hold about ten.
const MAX_SCANS: u32 = 100;

fn damaged(error: &Error) -> ImageError {
    ImageError::Damaged { format: Format::Jpeg.name(), reason: error.to_string() }
}

pub(crate) fn decompressor() -> Decompressor {
    let mut decompressor = Decompressor::new().expect("a decompressor needs nothing but memory");
    decompressor.set_scan_limit(MAX_SCANS).expect("the limit is a small number");
    decompressor
}

pub(crate) fn probe(bytes: &[u8]) -> Result<Header, ImageError> {
    let jpeg = turbojpeg::read_header(bytes).map_err(|error| damaged(&error))?;
    let unsupported = |reason: &str| Err(ImageError::Unsupported { format: "JPEG", reason: reason.to_owned() });
    if jpeg.is_lossless {
        return unsupported("it is lossless");
    }
    let (Ok(width), Ok(height)) = (u32::try_from(jpeg.width), u32::try_from(jpeg.height)) else {
        return unsupported("its size is not a size");
    };
    let pixels = u64::from(width) * u64::from(height);
    let per_pixel = channels(&jpeg) as u64 + 3 * u64::from(is_cmyk(&jpeg));
    // A progressive file's coefficients are all held until the last scan: two bytes for each of three channels.
    let coefficients = if jpeg.is_progressive { 6 * pixels } else { 0 };
    Ok(Header {
        format: Format::Jpeg,
        width,
        height,
        orientation: Orientation::of_jpeg(bytes),
        decode_bytes: pixels * per_pixel + coefficients,
    })
}

fn is_cmyk(jpeg: &DecompressHeader) -> bool {
    matches!(jpeg.colorspace, Colorspace::CMYK | Colorspace::YCCK)
}

fn channels(jpeg: &DecompressHeader) -> usize {
    if is_cmyk(jpeg) { 4 } else { 3 }
}

/// Decodes into `rgb`, three bytes a pixel.
pub(crate) fn decode(decompressor: &mut Decompressor, bytes: &[u8], rgb: &mut Vec<u8>) -> Result<(), ImageError> {
    let jpeg = decompressor.read_header(bytes).map_err(|error| damaged(&error))?;
    // A cut-off file would decode with a warning and a grey rest; its end marker is missing.
    if !bytes.windows(2).rev().any(|pair| pair == [0xff, 0xd9]) {
        return Err(ImageError::Damaged { format: "JPEG", reason: "its end is missing".to_owned() });
    }
    let (width, height) = (jpeg.width, jpeg.height);
    if is_cmyk(&jpeg) {
        let mut cmyk = vec![0; width * height * 4];
        decompress(decompressor, bytes, &mut cmyk, (width, height), PixelFormat::CMYK)?;
        rgb.clear();
        rgb.extend(cmyk.as_chunks::<4>().0.iter().flat_map(cmyk_to_rgb));
        return Ok(());
    }
    rgb.resize(width * height * 3, 0);
    decompress(decompressor, bytes, rgb, (width, height), PixelFormat::RGB)
}

fn decompress(
    decompressor: &mut Decompressor,
    bytes: &[u8],
    pixels: &mut [u8],
    (width, height): (usize, usize),
    format: PixelFormat,
) -> Result<(), ImageError> {
    let image = Image { pixels, width, pitch: width * format.size(), height, format };
    match decompressor.decompress(bytes, image) {
        Ok(()) => Ok(()),
        // Some cameras leave stray bytes between segments: every viewer shows such pictures, and so do we.
        Err(Error::TurboJpegError(words)) if words.contains("extraneous bytes") => Ok(()),
        Err(error) => Err(damaged(&error)),
    }
}

/// Adobe stores ink inverted: 255 is no ink. The formula is OpenCV's.
fn cmyk_to_rgb([c, m, y, k]: &[u8; 4]) -> [u8; 3] {
    let k = i32::from(*k);
    [c, m, y].map(|ink| (k - (((255 - i32::from(*ink)) * k) >> 8)) as u8)
}
