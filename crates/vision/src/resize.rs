//! Bilinear resizing that gives OpenCV's `INTER_LINEAR` to the bit: pixel centres meet pixel centres, two taps an
//! axis, no smoothing when shrinking, and the same rounding on the way.
//!
//! Models trained on pictures resized that way expect its very artefacts: the antialiased kind moves boxes by
//! pixels, and even a difference of one grey level here and there moves some by more than one. So the arithmetic is
//! OpenCV's own (`modules/imgproc/src/resize.cpp`, `HResizeLinear` and `VResizeLinear` for bytes): columns first,
//! with weights of 11 bits, then rows, with the high halves of 16-bit products.

use multiversion::multiversion;

/// A weight of one.
const ONE: f32 = 2048.0;

/// Where output position `position` of `target` lies on an axis of `source`: at or before which neighbour, and how
/// far beyond it. In single precision, as OpenCV has it.
fn place(position: usize, source: usize, target: usize) -> (isize, f32) {
    let centre = ((position as f64 + 0.5) * (source as f64 / target as f64) - 0.5) as f32;
    (centre.floor() as isize, centre - centre.floor())
}

/// The weights of two neighbours, the second having `share`.
fn weights(share: f32) -> [i16; 2] {
    [1.0 - share, share].map(|share| (share * ONE).round_ties_even() as i16)
}

/// One row of the output: the two source rows that it is mixed of. Beyond the edge the outermost one counts twice,
/// with both weights, and is rounded twice.
struct RowTap {
    neighbours: [usize; 2],
    weights: [i16; 2],
}

impl RowTap {
    fn new(position: usize, source: usize, target: usize) -> Self {
        let (first, share) = place(position, source, target);
        let inside = |index: isize| index.clamp(0, source as isize - 1) as usize;
        let (neighbours, weights) = ([inside(first), inside(first + 1)], weights(share));
        // A row without weight need not be looked at: shrinking by three, say, uses one row in three.
        Self { neighbours: if weights[1] == 0 { [neighbours[0]; 2] } else { neighbours }, weights }
    }
}

/// The columns of the output: where in a row the first neighbour of each begins, and the weights of both. Beyond the
/// edge the outermost one has all the weight.
struct ColumnTaps {
    from: Vec<usize>,
    first: Vec<i16>,
    second: Vec<i16>,
}

impl ColumnTaps {
    fn new(source: usize, target: usize) -> Self {
        let mut taps = Self { from: Vec::new(), first: Vec::new(), second: Vec::new() };
        let last = source as isize - 1;
        for position in 0..target {
            let (first, share) = place(position, source, target);
            let share = if first < 0 || first >= last { 0.0 } else { share };
            let [first_weight, second_weight] = weights(share);
            taps.from.push(first.clamp(0, last) as usize * 3);
            taps.first.push(first_weight);
            taps.second.push(second_weight);
        }
        taps
    }

    /// Whether no second neighbour has any weight: so it is when shrinking by three, say.
    fn is_plain(&self) -> bool {
        self.second.iter().all(|weight| *weight == 0)
    }

    /// Lets every second neighbour lie within the row of `source` pixels, whatever its weight.
    fn step_inside(&mut self, source: usize) {
        for ((from, first), second) in self.from.iter_mut().zip(&mut self.first).zip(&mut self.second) {
            if *from == (source - 1) * 3 {
                (*from, *second) = (*from - 3, std::mem::take(first));
            }
        }
    }
}

/// Red, green and blue values of one row, each for itself.
pub(crate) type PlanarRow<'a> = [&'a [u8]; 3];

/// Resizes `rgb`, rows of `width` pixels, to `to` and hands each row to `row`.
pub(crate) fn resize(
    rgb: &[u8],
    (width, height): (usize, usize),
    to: (usize, usize),
    mut row: impl FnMut(usize, PlanarRow<'_>),
) {
    let mut planes = [(); 3].map(|()| vec![0u8; to.0]);
    let source = |y: usize| &rgb[y * width * 3..(y + 1) * width * 3];
    if (width, height) == to {
        for y in 0..height {
            separate(source(y), &mut planes);
            row(y, planes.each_ref().map(|plane| &plane[..]));
        }
        return;
    }
    let mut columns = ColumnTaps::new(width, to.0);
    let plain = columns.is_plain();
    if !plain {
        columns.step_inside(width);
    }
    let mut pairs = vec![0; to.0];
    let mut shrink = |y: usize, out: &mut Columns| match plain {
        true => pick_columns(source(y), &columns, out),
        false => mix_columns(source(y), &columns, &mut pairs, out),
    };
    let mut recent = Recent::new(to.0);
    for y in 0..to.1 {
        let tap = RowTap::new(y, height, to.1);
        blend_rows(recent.rows(tap.neighbours, &mut shrink), tap.weights, &mut planes);
        row(y, planes.each_ref().map(|plane| &plane[..]));
    }
}

/// Values of one source row at the output's columns, in sixteenths of a weight of 2^11, each channel for itself.
type Columns = [Vec<i16>; 3];

/// The two source rows used last: when a picture grows, neighbours share them.
struct Recent {
    kept: [(usize, Columns); 2],
}

impl Recent {
    fn new(width: usize) -> Self {
        let empty = || (usize::MAX, [(); 3].map(|()| vec![0; width]));
        Self { kept: [empty(), empty()] }
    }

    /// Rows `needed[0]` and `needed[1]`, made by `make` where they are not at hand.
    fn rows(&mut self, needed: [usize; 2], mut make: impl FnMut(usize, &mut Columns)) -> [&Columns; 2] {
        if self.kept[1].0 == needed[0] {
            self.kept.swap(0, 1);
        }
        for (slot, y) in self.kept.iter_mut().zip(needed).take(if needed[0] == needed[1] { 1 } else { 2 }) {
            if slot.0 != y {
                make(y, &mut slot.1);
                slot.0 = y;
            }
        }
        let second = usize::from(needed[0] != needed[1]);
        [&self.kept[0].1, &self.kept[second].1]
    }
}

/// Weighs the two neighbours of each column: first they are gathered side by side, which takes one load and one store
/// a column, then weighed many at a time.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma+lzcnt", "aarch64+neon"))]
fn mix_columns(row: &[u8], columns: &ColumnTaps, pairs: &mut [u64], out: &mut Columns) {
    for (pair, from) in pairs.iter_mut().zip(&columns.from) {
        let Some([a, b, c, d, e, f]) = row.get(*from..).and_then(|rest| rest.first_chunk::<6>()) else { return };
        *pair = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, 0, 0]);
    }
    for (channel, out) in out.iter_mut().enumerate() {
        let taps = pairs.iter().zip(&columns.first).zip(&columns.second);
        for (value, ((pair, first), second)) in out.iter_mut().zip(taps) {
            let (left, right) = ((pair >> (8 * channel)) as u8, (pair >> (8 * channel + 24)) as u8);
            let mixed = i32::from(left) * i32::from(*first) + i32::from(right) * i32::from(*second);
            *value = (mixed >> 4) as i16;
        }
    }
}

/// Takes one pixel for each column, where no other has any weight.
fn pick_columns(row: &[u8], columns: &ColumnTaps, out: &mut Columns) {
    let [red, green, blue] = out;
    let out = red.iter_mut().zip(green).zip(blue);
    for (((red, green), blue), from) in out.zip(&columns.from) {
        let Some([r, g, b]) = row.get(*from..).and_then(|rest| rest.first_chunk::<3>()) else { return };
        (*red, *green, *blue) = (i16::from(*r) << 7, i16::from(*g) << 7, i16::from(*b) << 7);
    }
}

#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma+lzcnt", "aarch64+neon"))]
fn blend_rows(rows: [&Columns; 2], weights: [i16; 2], planes: &mut [Vec<u8>; 3]) {
    for (channel, plane) in planes.iter_mut().enumerate() {
        let (upper, lower) = (&rows[0][channel][..], &rows[1][channel][..]);
        for ((value, upper), lower) in plane.iter_mut().zip(upper).zip(lower) {
            // Both factors have 16 bits, so this is one instruction for as many values as a register holds.
            let high = |value: i16, weight: i16| ((i32::from(value) * i32::from(weight)) >> 16) as i16;
            *value = ((high(*upper, weights[0]) + high(*lower, weights[1]) + 2) >> 2) as u8;
        }
    }
}

#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma+lzcnt", "aarch64+neon"))]
fn separate(row: &[u8], planes: &mut [Vec<u8>; 3]) {
    let [red, green, blue] = planes;
    for (((pixel, red), green), blue) in row.as_chunks::<3>().0.iter().zip(red).zip(green).zip(blue) {
        [*red, *green, *blue] = *pixel;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPENCV: [((usize, usize), u64); 10] = [
        ((97, 61), 0x9926bb3856e0d820),
        ((33, 20), 0xc64a94b1a4136fbd),
        ((32, 61), 0x04997126eeeb6d92),
        ((97, 30), 0xc30ee448a132618c),
        ((48, 30), 0xfcefbf294a395e71),
        ((194, 122), 0xad434f8ac566cfce),
        ((150, 95), 0xa744fb1d7aa7293c),
        ((31, 200), 0x1510d0cb0760033e),
        ((1, 1), 0xdb523319900aa341),
        ((640, 402), 0x0ddf33ac9f36400b),
    ];

    fn resized(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
        let mut out = Vec::new();
        resize(rgb, from, to, |y, row| {
            assert_eq!(out.len(), y * to.0 * 3);
            (0..to.0).for_each(|x| out.extend(row.map(|plane| plane[x])));
        });
        out
    }

    /// The same thing in the plainest way.
    fn plain(rgb: &[u8], (w, h): (usize, usize), (tw, th): (usize, usize)) -> Vec<f64> {
        let axis = |position: usize, source: usize, target: usize| {
            let centre = (position as f64 + 0.5) * source as f64 / target as f64 - 0.5;
            let centre = centre.clamp(0.0, source as f64 - 1.0);
            (centre.floor() as usize, (centre.floor() as usize + 1).min(source - 1), centre.fract())
        };
        let mut out = Vec::new();
        for y in 0..th {
            for x in 0..tw {
                for c in 0..3 {
                    let ((x0, x1, fx), (y0, y1, fy)) = (axis(x, w, tw), axis(y, h, th));
                    let at = |x: usize, y: usize| f64::from(rgb[(y * w + x) * 3 + c]);
                    let upper = at(x0, y0) * (1.0 - fx) + at(x1, y0) * fx;
                    let lower = at(x0, y1) * (1.0 - fx) + at(x1, y1) * fx;
                    out.push(upper * (1.0 - fy) + lower * fy);
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn it_is_bilinear_within_a_grey_level(
            w in 1usize..20, h in 1usize..20, tw in 1usize..30, th in 1usize..30, seed in any::<u64>(),
        ) {
            let mut state = seed;
            let rgb: Vec<u8> = (0..w * h * 3).map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            }).collect();
            let (ours, exact) = (resized(&rgb, (w, h), (tw, th)), plain(&rgb, (w, h), (tw, th)));
            for (ours, exact) in ours.iter().zip(&exact) {
                prop_assert!((f64::from(*ours) - exact).abs() <= 1.1, "{ours} {exact}");
            }
        }
    }

    /// What OpenCV 4.14 makes of `np.arange(27).reshape(3, 3, 3) * 9`.
    #[test]
    fn values_are_opencvs() {
        let rgb: Vec<u8> = (0..27).map(|value| value * 9).collect();
        assert_eq!(resized(&rgb, (3, 3), (2, 2)), [27, 36, 45, 67, 76, 85, 148, 157, 166, 189, 198, 207]);
        assert_eq!(
            resized(&rgb, (3, 3), (4, 2)),
            [
                20, 29, 38, 37, 46, 55, 57, 66, 75, 74, 83, 92, 142, 151, 160, 158, 167, 176, 179, 188, 197, 196, 205,
                214
            ]
        );
    }

    /// FNV-1a over what OpenCV makes of a picture of noise, shrunk and grown to odd sizes; by
    /// `benches/parity/resize.py`.
    #[test]
    fn noise_is_resized_as_opencv_does() {
        let mut state = 1u32;
        let rgb: Vec<u8> = (0..97 * 61 * 3)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let hash = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
        };
        for (to, expected) in OPENCV {
            assert_eq!(hash(&resized(&rgb, (97, 61), to)), expected, "to {to:?}");
        }
    }
}
