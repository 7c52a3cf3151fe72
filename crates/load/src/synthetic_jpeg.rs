//! Synthetic JPEGs of a given size in bytes, which take about as long to decode as a photograph of that size.

use bytes::Bytes;
use turbojpeg::{Image, PixelFormat, Subsamp};

use crate::LoadError;

/// Pixels per byte: photographs at a common quality have 2 to 3 bits per pixel.
const PIXELS_PER_BYTE: f64 = 3.5;
/// Maximum number of pixels; larger files get more noise instead.
const MAX_PIXELS: f64 = 24e6;
const JPEG_QUALITY: i32 = 85;
/// Attempts to get within 5 % below the requested size.
const MAX_ATTEMPTS: usize = 6;
/// Marker of a comment segment, and the maximum of its length field (ITU-T T.81, B.2.4.5).
const COMMENT_MARKER: [u8; 2] = [0xff, 0xfe];
const MAX_COMMENT_BYTES: usize = 0xffff;

/// A JPEG of `size` bytes, or of the smallest possible size if that is larger.
pub(crate) fn synthetic_jpeg(size: usize) -> Result<Bytes, LoadError> {
    let mut pixels = (size as f64 * PIXELS_PER_BYTE).clamp(64.0, MAX_PIXELS);
    let mut noise = 12.0;
    let mut best = draw_jpeg(64.0, 0.0)?;
    for _ in 0..MAX_ATTEMPTS {
        let drawn = draw_jpeg(pixels, noise)?;
        let share = drawn.len() as f64 / size as f64;
        if drawn.len() <= size && drawn.len() > best.len() {
            best = drawn;
        }
        if (0.95..=1.0).contains(&share) {
            break;
        }
        match share < 1.0 && pixels >= MAX_PIXELS {
            true if noise >= 200.0 => break,
            true => noise = (noise * 1.5).min(200.0),
            false => pixels = (pixels * 0.975 / share).clamp(64.0, MAX_PIXELS),
        }
    }
    Ok(pad_with_comments(best, size).into())
}

fn draw_jpeg(pixels: f64, noise: f64) -> Result<Vec<u8>, LoadError> {
    let width = ((pixels * 4.0 / 3.0).sqrt() as usize).clamp(8, 8192);
    let height = ((pixels / width as f64) as usize).clamp(8, 8192);
    let mut chance = fastrand::Rng::with_seed(7);
    let mut bytes = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            // Waves for slowly changing content, and grain as sensors produce it.
            let wave = (x as f32 / 23.0).sin() * 60.0 + (y as f32 / 31.0).cos() * 50.0;
            let grain = (chance.f32() - 0.5) * 2.0 * noise as f32;
            bytes.extend(
                [wave + grain + 128.0, wave * 0.7 + grain + 120.0, 140.0 - wave + grain].map(|value| value as u8),
            );
        }
    }
    let image = Image { pixels: bytes.as_slice(), width, pitch: width * 3, height, format: PixelFormat::RGB };
    let made = turbojpeg::compress(image, JPEG_QUALITY, Subsamp::Sub2x2);
    let failed = |error| LoadError::Generator(format!("cannot encode an image: {error}"));
    Ok(made.map_err(failed)?.to_vec())
}

/// Pads a JPEG to `size` bytes with comments, which decoders skip, after its first marker.
fn pad_with_comments(jpeg: Vec<u8>, size: usize) -> Vec<u8> {
    let mut missing = size.saturating_sub(jpeg.len());
    let mut padded = jpeg[..2].to_vec();
    // A comment takes at least four bytes, so a remainder of fewer stays.
    while missing >= 4 {
        let mut length = (missing - 2).min(MAX_COMMENT_BYTES);
        let over = missing - 2 - length;
        if (1..4).contains(&over) {
            length -= 4;
        }
        padded.extend(COMMENT_MARKER);
        padded.extend((length as u16).to_be_bytes());
        padded.resize(padded.len() + length - 2, b' ');
        missing -= length + 2;
    }
    padded.extend_from_slice(&jpeg[2..]);
    padded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synthetic_jpeg_has_the_size_and_decodes() {
        for size in [2_000, 76_473, 300_001, 1_500_000] {
            let made = synthetic_jpeg(size).unwrap();
            assert!(size - made.len() < 4, "{} is not {size}", made.len());
            let decoded = turbojpeg::decompress(&made, PixelFormat::RGB).unwrap();
            let pixels = (decoded.width * decoded.height) as f64;
            assert!((1.0..8.0).contains(&(pixels / size as f64)), "{pixels} pixels in {size} bytes");
        }
    }

    #[test]
    fn synthetic_jpeg_below_the_minimum_is_as_small_as_possible() {
        let made = synthetic_jpeg(7).unwrap();
        assert!(made.len() < 1000);
        turbojpeg::decompress(&made, PixelFormat::RGB).unwrap();
    }

    #[test]
    fn pad_with_comments_fills_any_gap() {
        let whole = draw_jpeg(64.0, 0.0).unwrap();
        for more in [0, 3, 4, 5, 65_537, 65_538, 65_539, 65_540, 65_541, 65_545, 200_000] {
            let padded = pad_with_comments(whole.clone(), whole.len() + more);
            let expected = if more < 4 { whole.len() } else { whole.len() + more };
            assert_eq!(padded.len(), expected, "{more}");
            turbojpeg::decompress(&padded, PixelFormat::RGB).unwrap();
        }
    }
}
