//! Pictures made up: JPEGs of a given size in bytes that cost about what a photograph of that size costs to decode.

use bytes::Bytes;
use turbojpeg::{Image, PixelFormat, Subsamp};

use crate::LoadError;

/// Pixels for each byte: photographs at a common quality have 2 to 3 bits a pixel.
const PIXELS_A_BYTE: f64 = 3.5;
/// More pixels than this are not made: larger files hold more noise instead.
const MOST_PIXELS: f64 = 24e6;
const QUALITY: i32 = 85;
/// Pictures are drawn again until they are within a twentieth below the size, this often at most.
const TRIES: usize = 6;
/// A comment's marker and length, and the most that it holds with its length (ITU-T T.81, B.2.4.5).
const COMMENT: [u8; 2] = [0xff, 0xfe];
const MOST_COMMENT: usize = 0xffff;

/// A JPEG of `size` bytes; of the smallest that there is, if that is larger.
pub(crate) fn jpeg(size: usize) -> Result<Bytes, LoadError> {
    let mut pixels = (size as f64 * PIXELS_A_BYTE).clamp(64.0, MOST_PIXELS);
    let mut noise = 12.0;
    let mut best = draw(64.0, 0.0)?;
    for _ in 0..TRIES {
        let drawn = draw(pixels, noise)?;
        let share = drawn.len() as f64 / size as f64;
        if drawn.len() <= size && drawn.len() > best.len() {
            best = drawn;
        }
        if (0.95..=1.0).contains(&share) {
            break;
        }
        match share < 1.0 && pixels >= MOST_PIXELS {
            true if noise >= 200.0 => break,
            true => noise = (noise * 1.5).min(200.0),
            false => pixels = (pixels * 0.975 / share).clamp(64.0, MOST_PIXELS),
        }
    }
    Ok(pad(best, size).into())
}

fn draw(pixels: f64, noise: f64) -> Result<Vec<u8>, LoadError> {
    let width = ((pixels * 4.0 / 3.0).sqrt() as usize).clamp(8, 8192);
    let height = ((pixels / width as f64) as usize).clamp(8, 8192);
    let mut chance = fastrand::Rng::with_seed(7);
    let mut bytes = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            // Waves for a content that changes slowly, and grain as sensors have it.
            let wave = (x as f32 / 23.0).sin() * 60.0 + (y as f32 / 31.0).cos() * 50.0;
            let grain = (chance.f32() - 0.5) * 2.0 * noise as f32;
            bytes.extend(
                [wave + grain + 128.0, wave * 0.7 + grain + 120.0, 140.0 - wave + grain].map(|value| value as u8),
            );
        }
    }
    let image = Image { pixels: bytes.as_slice(), width, pitch: width * 3, height, format: PixelFormat::RGB };
    let made = turbojpeg::compress(image, QUALITY, Subsamp::Sub2x2);
    let failed = |error| LoadError::Generator(format!("no picture could be made: {error}"));
    Ok(made.map_err(failed)?.to_vec())
}

/// Brings a JPEG to `size` bytes with comments, which decoders skip, right behind its first marker.
fn pad(jpeg: Vec<u8>, size: usize) -> Vec<u8> {
    let mut missing = size.saturating_sub(jpeg.len());
    let mut padded = jpeg[..2].to_vec();
    // A comment takes four bytes at least: fewer would be left over.
    while missing >= 4 {
        let mut length = (missing - 2).min(MOST_COMMENT);
        let over = missing - 2 - length;
        if (1..4).contains(&over) {
            length -= 4;
        }
        padded.extend(COMMENT);
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
    fn pictures_have_the_size_asked_for_and_can_be_decoded() {
        for size in [2_000, 76_473, 300_001, 1_500_000] {
            let made = jpeg(size).unwrap();
            assert!(size - made.len() < 4, "{} is not {size}", made.len());
            let decoded = turbojpeg::decompress(&made, PixelFormat::RGB).unwrap();
            let pixels = (decoded.width * decoded.height) as f64;
            assert!((1.0..8.0).contains(&(pixels / size as f64)), "{pixels} pixels in {size} bytes");
        }
    }

    #[test]
    fn the_smallest_is_as_small_as_it_can_be() {
        let made = jpeg(7).unwrap();
        assert!(made.len() < 1000);
        turbojpeg::decompress(&made, PixelFormat::RGB).unwrap();
    }

    #[test]
    fn comments_fill_any_gap() {
        let whole = draw(64.0, 0.0).unwrap();
        for more in [0, 3, 4, 5, 65_537, 65_538, 65_539, 65_540, 65_541, 65_545, 200_000] {
            let padded = pad(whole.clone(), whole.len() + more);
            let expected = if more < 4 { whole.len() } else { whole.len() + more };
            assert_eq!(padded.len(), expected, "{more}");
            turbojpeg::decompress(&padded, PixelFormat::RGB).unwrap();
        }
    }
}
