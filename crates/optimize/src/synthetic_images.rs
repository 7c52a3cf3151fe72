//! Synthetic images, used if none are given: gradients, noise and rectangles in several sizes. They resemble no
//! training data, but exercise the whole computation.

use std::path::PathBuf;

use caudal_vision::{ImageError, encode_jpeg};

use crate::bench::InputImage;

const IMAGE_SIZES: [(usize, usize); 4] = [(640, 480), (360, 640), (1280, 720), (97, 61)];

pub(crate) fn make_images() -> Result<Vec<InputImage>, ImageError> {
    let each = IMAGE_SIZES.iter().enumerate().map(|(number, (width, height))| {
        let rgb = paint_image(*width, *height, number as u32 + 1);
        let bytes = encode_jpeg(*width, *height, &rgb)?;
        Ok(InputImage { path: PathBuf::from(format!("synthetic image {}", number + 1)), bytes: bytes.into() })
    });
    each.collect()
}

fn paint_image(width: usize, height: usize, seed: u32) -> Vec<u8> {
    // A linear congruential generator (Knuth): the same images on every machine.
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut rgb: Vec<u8> = (0..width * height)
        .flat_map(|at| [at % width * 255 / width, at / width * 255 / height, (at % width + at / width) % 256])
        .map(|slope| (slope as u8).saturating_add(next() / 16))
        .collect();
    for _ in 0..12 {
        let part = |length: usize, by: u8| length * usize::from(by) / 256;
        let (left, top) = (part(width, next()), part(height, next()));
        let (right, bottom) = (left + 1 + part(width - left - 1, next()), top + 1 + part(height - top - 1, next()));
        let colour = [next(), next(), next()];
        for row in top..bottom {
            rgb[(row * width + left) * 3..(row * width + right) * 3].as_chunks_mut().0.fill(colour);
        }
    }
    rgb
}
