//! JPEG through libjpeg-turbo, with the same choices as OpenCV's `imdecode`, so that pixels are equal.

use turbojpeg::{Colorspace, DecompressHeader, Decompressor, Error, Image, PixelFormat, ScalingFactor};

use crate::{
    Format, Header, ImageError, Orientation, Reduction, exif,
    segments::{APP1, EOI, SOS, segments},
    tidy::tidy,
};

/// Scans that every picture may come in: encoders make about ten, those that search for the smallest file up to twenty.
const USUAL_SCANS: u64 = 20;
/// Scans that a small picture may come in.
const MAX_SCANS: u64 = 100;
/// Each scan of a progressive file touches every pixel, however few bytes it has: most pixels that all scans touch
/// together, some half a second of a core.
const MAX_SCANNED_PIXELS: u64 = 500_000_000;

/// Most scans that a picture of `pixels` may come in.
fn scan_limit(pixels: u64) -> u64 {
    (MAX_SCANNED_PIXELS / pixels.max(1)).clamp(USUAL_SCANS, MAX_SCANS)
}

fn damaged(error: &Error) -> ImageError {
    ImageError::Damaged { format: Format::Jpeg.name(), reason: error.to_string() }
}

/// Reads the header.
pub(crate) fn probe(bytes: &[u8]) -> Result<Header, ImageError> {
    let jpeg = turbojpeg::read_header(&tidy(bytes)).map_err(|error| damaged(&error))?;
    let unsupported = |reason: &str| Err(ImageError::Unsupported { format: "JPEG", reason: reason.to_owned() });
    if jpeg.is_lossless {
        return unsupported("it is lossless");
    }
    let (Ok(width), Ok(height)) = (u32::try_from(jpeg.width), u32::try_from(jpeg.height)) else {
        return unsupported("its size is not a size");
    };
    let (orientation, in_first_scan) = before_scans(bytes);
    let components = match jpeg.colorspace {
        Colorspace::Gray => 1,
        Colorspace::RGB | Colorspace::YCbCr => 3,
        Colorspace::CMYK | Colorspace::YCCK => 4,
    };
    let pixels = u64::from(width) * u64::from(height);
    let per_pixel = if is_cmyk(&jpeg) { 4 + 3 } else { 3 };
    // Where scans bring the picture bit by bit or one component after another, its coefficients are all held until
    // the last: two bytes for each value of each component, in whole blocks of at most 32 by 32.
    let in_parts = jpeg.is_progressive || in_first_scan < components;
    let padded = u64::from(width).next_multiple_of(32) * u64::from(height).next_multiple_of(32);
    let coefficients = if in_parts { 2 * u64::from(components) * padded } else { 0 };
    Ok(Header { format: Format::Jpeg, width, height, orientation, decode_bytes: pixels * per_pixel + coefficients })
}

/// What turbojpeg does not tell: how the camera was held, and how many components the first scan brings.
fn before_scans(bytes: &[u8]) -> (Orientation, u8) {
    let mut orientation = None;
    for (marker, content) in segments(bytes) {
        if marker == APP1 && orientation.is_none() && content.starts_with(exif::NAME) {
            orientation = Some(Orientation::from_exif(content));
        }
        if marker == SOS {
            return (orientation.unwrap_or_default(), content.first().copied().unwrap_or(0));
        }
    }
    (orientation.unwrap_or_default(), 0)
}

fn is_cmyk(jpeg: &DecompressHeader) -> bool {
    matches!(jpeg.colorspace, Colorspace::CMYK | Colorspace::YCCK)
}

/// Decodes into `rgb`, three bytes a pixel; gives width and height, reduced as `reduction` says.
///
/// The decompressor is made for this picture alone (a microsecond): one that is used again keeps the Huffman and
/// quantisation tables of the picture before, and decodes with them what has none of its own. A new one has the
/// standard's Huffman tables, which Motion-JPEG leaves out, and no quantisation tables.
pub(crate) fn decode(bytes: &[u8], rgb: &mut Vec<u8>, reduction: Reduction) -> Result<(usize, usize), ImageError> {
    let bytes = &*tidy(bytes);
    let failed = |error: Error| damaged(&error);
    let scale = ScalingFactor::new(1, reduction.divisor());
    let mut decompressor = Decompressor::new().map_err(failed)?;
    decompressor.set_scaling_factor(scale).map_err(failed)?;
    let stored = decompressor.read_header(bytes).map_err(failed)?;
    check_scans(bytes, &stored)?;
    decompressor.set_scan_limit(MAX_SCANS as u32).map_err(failed)?;
    let jpeg = stored.scaled(scale);
    let (width, height) = (jpeg.width, jpeg.height);
    if is_cmyk(&jpeg) {
        let mut cmyk = vec![0; width * height * 4];
        decompress(&mut decompressor, bytes, &mut cmyk, (width, height), PixelFormat::CMYK)?;
        rgb.clear();
        rgb.extend(cmyk.as_chunks::<4>().0.iter().flat_map(cmyk_to_rgb));
        return Ok((width, height));
    }
    rgb.resize(width * height * 3, 0);
    decompress(&mut decompressor, bytes, rgb, (width, height), PixelFormat::RGB)?;
    Ok((width, height))
}

/// Refuses a progressive picture whose scans would take far longer than its size lets expect, before one is decoded.
fn check_scans(bytes: &[u8], jpeg: &DecompressHeader) -> Result<(), ImageError> {
    if !jpeg.is_progressive {
        return Ok(());
    }
    let limit = scan_limit(jpeg.width as u64 * jpeg.height as u64);
    let scans = segments(bytes).filter(|(marker, _)| *marker == SOS).count();
    if scans as u64 <= limit {
        return Ok(());
    }
    let (width, height) = (jpeg.width, jpeg.height);
    let reason = format!("it comes in {scans} scans, expected at most {limit} for {width}x{height} pixels");
    Err(ImageError::Unsupported { format: Format::Jpeg.name(), reason })
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
        // Some cameras leave stray bytes after a scan: every viewer shows such pictures, and so do we. But only the
        // first warning is told, and a later one may have been of a missing end. All other warnings cost pixels: what
        // is harmless in a header has been corrected.
        Err(Error::TurboJpegError(words)) if words.contains("extraneous bytes") => {
            let whole = segments(bytes).any(|(marker, _)| marker == EOI);
            let cut = || ImageError::Damaged { format: "JPEG", reason: "its end is missing".to_owned() };
            whole.then_some(()).ok_or_else(cut)
        }
        Err(error) => Err(damaged(&error)),
    }
}

/// Adobe stores ink inverted: 255 is no ink. The formula is OpenCV's.
fn cmyk_to_rgb([c, m, y, k]: &[u8; 4]) -> [u8; 3] {
    let k = i32::from(*k);
    [c, m, y].map(|ink| (k - (((255 - i32::from(*ink)) * k) >> 8)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Canvas, Decoder, Decoding, Element, Fit, InputFormat, Layout, Limits, encode_jpeg, exif::tests::exif_block,
        header,
    };

    const SIDE: usize = 40;
    const SCAN: &[u8] = &[0xff, SOS];

    fn noise() -> Vec<u8> {
        let mut noise = 1u32;
        let next = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        };
        std::iter::repeat_with(next).take(SIDE * SIDE * 3).collect()
    }

    fn baseline() -> Vec<u8> {
        encode_jpeg(SIDE, SIDE, &noise()).unwrap()
    }

    fn progressive() -> Vec<u8> {
        let mut compressor = turbojpeg::Compressor::new().unwrap();
        compressor.set_progressive(true).unwrap();
        let image =
            Image { pixels: &noise()[..], width: SIDE, pitch: SIDE * 3, height: SIDE, format: PixelFormat::RGB };
        compressor.compress_to_vec(image).unwrap()
    }

    fn with(jpeg: &[u8], at: usize, extra: &[u8]) -> Vec<u8> {
        [&jpeg[..at], extra, &jpeg[at..]].concat()
    }

    /// Where the last scan begins.
    fn last_scan(jpeg: &[u8]) -> usize {
        jpeg.windows(2).rposition(|pair| pair == SCAN).unwrap()
    }

    fn decodes(jpeg: &[u8]) -> bool {
        let header = header::probe(jpeg, &Limits { max_pixels: 10_000 });
        header.is_ok_and(|header| Decoder::default().decode(jpeg, &header, Reduction::FULL).is_ok())
    }

    #[test]
    fn a_jpeg_cut_anywhere_is_refused() {
        for jpeg in [baseline(), progressive()] {
            assert!(decodes(&jpeg));
            (0..jpeg.len()).for_each(|length| assert!(!decodes(&jpeg[..length]), "{length} of {}", jpeg.len()));
        }
    }

    #[test]
    fn a_reduced_jpeg_shows_the_whole_picture_in_fewer_pixels() {
        let format = InputFormat {
            width: 10,
            height: 10,
            element: Element::F32,
            layout: Layout::Planar,
            bgr: false,
            fit: Fit::Letterbox,
            pad: 114,
            decoding: Decoding::Reduced,
        };
        // Left half black, right half white.
        let half: Vec<u8> = (0..SIDE * SIDE).flat_map(|i| [if i % SIDE < SIDE / 2 { 0 } else { 255 }; 3]).collect();
        let jpeg = encode_jpeg(SIDE, SIDE, &half).unwrap();
        let header = header::probe(&jpeg, &Limits { max_pixels: 10_000 }).unwrap();
        let reduction = Reduction::for_model(&header, &format);
        assert_eq!(reduction.divisor(), 2, "a quarter would be the model's size itself");
        let mut decoder = Decoder::default();
        let pixels = decoder.decode(&jpeg, &header, reduction).unwrap();
        assert_eq!((pixels.width, pixels.height, pixels.full), (SIDE / 2, SIDE / 2, (SIDE, SIDE)));
        let canvas = Canvas::letterbox(pixels, format);
        assert_eq!(canvas.geometry().source, (SIDE as u32, SIDE as u32), "boxes find back onto the whole picture");
        assert!(canvas.values()[..4].iter().all(|value| *value < 20));
        assert!(canvas.values()[6..10].iter().all(|value| *value > 235));
        let full = decoder.decode(&jpeg, &header, Reduction::FULL).unwrap();
        assert_eq!(full.width, SIDE, "and the next is as it asks");
    }

    #[test]
    fn stray_bytes_after_a_scan_are_passed_over() {
        for jpeg in [baseline(), progressive()] {
            assert!(decodes(&with(&jpeg, jpeg.len() - 2, b"stray")));
        }
        let jpeg = progressive();
        assert!(decodes(&with(&jpeg, last_scan(&jpeg), b"stray")));
    }

    fn pixels(jpeg: &[u8]) -> Result<Vec<u8>, ImageError> {
        let header = header::probe(jpeg, &Limits { max_pixels: 10_000 })?;
        Decoder::default().decode(jpeg, &header, Reduction::FULL).map(|pixels| pixels.rgb.to_vec())
    }

    #[test]
    fn header_with_harmless_fault_gives_the_same_pixels() {
        let jpeg = baseline();
        let right = pixels(&jpeg).unwrap();
        let scan = last_scan(&jpeg);
        for end in [[0, 0, 0], [0, 63, 1], [0, 62, 0]] {
            let mut odd = jpeg.clone();
            // Marker, length, three components of two bytes each and their number come before.
            odd[scan + 11..scan + 14].copy_from_slice(&end);
            assert_eq!(pixels(&odd).as_ref(), Ok(&right), "{end:?}");
        }
        let mut newer = jpeg.clone();
        assert_eq!(newer[6..12], *b"JFIF\0\x01");
        newer[11] = 2;
        assert_eq!(pixels(&newer).as_ref(), Ok(&right), "a version of JFIF that is yet to come");
        let profile = |number: u8| [&b"\xff\xe2\0\x14ICC_PROFILE\0"[..], &[number, 2], b"icc!"].concat();
        for extra in [&b"\0\0"[..], b"stray", b"\xff\xff", &profile(1), &[profile(2), profile(2)].concat()] {
            // Behind the first segment: a JPEG is known by the three bytes before.
            assert_eq!(pixels(&with(&jpeg, 20, extra)).as_ref(), Ok(&right), "{extra:?}");
            assert_eq!(pixels(&with(&jpeg, scan, extra)).as_ref(), Ok(&right), "{extra:?}");
        }
        let cut = with(&jpeg[..jpeg.len() - 40], scan, b"stray");
        assert!(matches!(pixels(&cut), Err(ImageError::Damaged { .. })), "what is cut stays refused");
    }

    /// `jpeg` without its segments of kind `marker`.
    fn without(jpeg: &[u8], marker: u8) -> Vec<u8> {
        let mut rest = jpeg.to_vec();
        let places: Vec<_> =
            segments(jpeg).take_while(|(kind, _)| *kind != SOS).filter(|(kind, _)| *kind == marker).collect();
        assert!(!places.is_empty());
        for (_, content) in places.into_iter().rev() {
            let from = content.as_ptr() as usize - jpeg.as_ptr() as usize;
            rest.drain(from - 4..from + content.len());
        }
        rest
    }

    #[test]
    fn tables_of_the_picture_before_are_not_used() {
        // Its quality and its Huffman tables are its own.
        let other = {
            let mut compressor = turbojpeg::Compressor::new().unwrap();
            compressor.set_quality(30).unwrap();
            compressor.set_optimize(true).unwrap();
            let image =
                Image { pixels: &noise()[..], width: SIDE, pitch: SIDE * 3, height: SIDE, format: PixelFormat::RGB };
            compressor.compress_to_vec(image).unwrap()
        };
        let jpeg = baseline();
        let right = pixels(&jpeg).unwrap();
        let (motion, unscaled) = (without(&jpeg, 0xc4), without(&jpeg, 0xdb));
        let header = header::probe(&motion, &Limits { max_pixels: 10_000 }).unwrap();
        let mut decoder = Decoder::default();
        for before in [&jpeg, &other, &motion] {
            decoder.decode(before, &header, Reduction::FULL).unwrap();
            let got = decoder.decode(&motion, &header, Reduction::FULL).unwrap();
            assert_eq!(got.rgb, right, "without Huffman tables the standard's hold");
            decoder.decode(before, &header, Reduction::FULL).unwrap();
            let refused = decoder.decode(&unscaled, &header, Reduction::FULL).map(|pixels| pixels.width);
            assert!(matches!(refused, Err(ImageError::Damaged { .. })), "nothing says how it was quantised");
        }
    }

    #[test]
    fn scans_are_bounded_by_the_pixels_they_touch() {
        assert_eq!((scan_limit(0), scan_limit(1 << 20), scan_limit(49_000_000)), (100, 100, 20));
        assert_eq!(scan_limit(12_500_000), 40);
        let jpeg = progressive();
        let (last, end) = (last_scan(&jpeg), jpeg.len() - 2);
        let again = |times: usize| [&jpeg[..end], &jpeg[last..end].repeat(times), &jpeg[end..]].concat();
        let usual = segments(&jpeg).filter(|(marker, _)| *marker == SOS).count();
        assert!((2..=20).contains(&usual), "{usual}");
        let Err(ImageError::Unsupported { reason, .. }) = pixels(&again(101 - usual)) else { panic!("it is refused") };
        assert_eq!(reason, "it comes in 101 scans, expected at most 100 for 40x40 pixels");
    }

    #[test]
    fn stray_bytes_do_not_hide_a_missing_end() {
        // A comment that holds what looks like an end, and stray bytes before the last scan.
        let jpeg = with(&progressive(), 2, b"\xff\xfe\0\x04\xff\xd9");
        let stray = with(&jpeg, last_scan(&jpeg), b"stray");
        assert!(decodes(&stray));
        assert!(!decodes(&stray[..stray.len() - 2]));
        assert!(!decodes(&stray[..last_scan(&stray) + 20]));
    }

    /// The header of a JPEG of 100 by 50 pixels, up to its first scan.
    fn top(frame: u8, components: u8, in_first_scan: u8) -> Vec<u8> {
        let mut jpeg = vec![0xff, 0xd8, 0xff, frame, 0, 8 + 3 * components, 8, 0, 50, 0, 100, components];
        (1..=components).for_each(|id| jpeg.extend([id, 0x11, 0]));
        jpeg.extend([0xff, SOS, 0, 6 + 2 * in_first_scan, in_first_scan]);
        (1..=in_first_scan).for_each(|id| jpeg.extend([id, 0]));
        jpeg.extend([0, 63, 0]);
        jpeg
    }

    #[test]
    fn memory_is_counted_for_coefficients_that_wait_for_later_scans() {
        let bytes =
            |frame, components, in_first_scan| probe(&top(frame, components, in_first_scan)).unwrap().decode_bytes;
        let (pixels, padded) = (100 * 50, 128 * 64);
        assert_eq!(bytes(0xc0, 3, 3), 3 * pixels);
        assert_eq!(bytes(0xc0, 3, 1), 3 * pixels + 6 * padded);
        assert_eq!(bytes(0xc2, 3, 3), 3 * pixels + 6 * padded);
        assert_eq!(bytes(0xc2, 1, 1), 3 * pixels + 2 * padded);
        assert_eq!(bytes(0xc0, 4, 4), 7 * pixels);
        assert_eq!(bytes(0xc0, 4, 2), 7 * pixels + 8 * padded);
        assert_eq!(bytes(0xc2, 4, 4), 7 * pixels + 8 * padded);
        // A segment that is too short for its own length does not hide the scan.
        let hidden = with(&top(0xc0, 3, 1), 2, b"\xff\xfe\0\0");
        assert_eq!(probe(&hidden).unwrap().decode_bytes, 3 * pixels + 6 * padded);
    }

    #[test]
    fn the_first_exif_segment_counts() {
        let turned = |orientation| {
            let block = [exif::NAME, &exif_block(orientation)].concat();
            [&[0xff, APP1, 0, block.len() as u8 + 2], &block[..]].concat()
        };
        let orientation = |jpeg: &[u8]| probe(jpeg).unwrap().orientation;
        let jpeg = baseline();
        assert_eq!(orientation(&jpeg), Orientation::UPRIGHT);
        let other_and_two = [&b"\xff\xe1\0\x06http"[..], &turned(6), &turned(3)].concat();
        let expected = Orientation { transpose: true, flip_x: true, flip_y: false };
        assert_eq!(orientation(&with(&jpeg, 2, &other_and_two)), expected);
    }
}
