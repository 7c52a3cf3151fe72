//! Bilinear resizing that gives OpenCV's `INTER_LINEAR` to the bit: pixel centres meet pixel centres, two taps an
//! axis, no smoothing when shrinking, and the same rounding on the way.
//!
//! Models trained on pictures resized that way expect its very artefacts: the antialiased kind moves boxes by
//! pixels, and even a difference of one grey level here and there moves some by more than one. So the arithmetic is
//! OpenCV's own (`modules/imgproc/src/resize.cpp`, `HResizeLinear` and `VResizeLinear` for bytes): columns first,
//! with weights of 11 bits, then rows, with the high halves of 16-bit products.

/// A weight of one.
const ONE: i32 = 1 << 11;

/// One output position of an axis: its two neighbours, and the weights of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tap {
    neighbours: [usize; 2],
    weights: [i32; 2],
}

impl Tap {
    /// Position `position` of `target` on an axis of `source`, and how far it lies beyond its first neighbour.
    fn place(position: usize, source: usize, target: usize) -> (isize, f32) {
        // OpenCV computes positions in single precision.
        let centre = ((position as f64 + 0.5) * (source as f64 / target as f64) - 0.5) as f32;
        (centre.floor() as isize, centre - centre.floor())
    }

    fn new(first: isize, share: f32, source: usize) -> Self {
        let inside = |index: isize| index.clamp(0, source as isize - 1) as usize;
        let weight = |share: f32| (share * ONE as f32).round_ties_even() as i32;
        Self { neighbours: [inside(first), inside(first + 1)], weights: [weight(1.0 - share), weight(share)] }
    }

    /// Columns: beyond the edge the outermost one has all the weight.
    fn column(position: usize, source: usize, target: usize) -> Self {
        let (first, share) = Self::place(position, source, target);
        let beyond = first < 0 || first >= source as isize - 1;
        Self::new(first, if beyond { 0.0 } else { share }, source)
    }

    /// Rows: beyond the edge the outermost one counts twice, with both weights, and is rounded twice.
    fn row(position: usize, source: usize, target: usize) -> Self {
        let (first, share) = Self::place(position, source, target);
        Self::new(first, share, source)
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
    let arch = pulp::Arch::new();
    let mut planes = [(); 3].map(|()| vec![0u8; to.0]);
    let pixels = |y: usize| rgb[y * width * 3..(y + 1) * width * 3].as_chunks::<3>().0;
    if (width, height) == to {
        for y in 0..height {
            arch.dispatch(|| separate(pixels(y), &mut planes));
            row(y, planes.each_ref().map(|plane| &plane[..]));
        }
        return;
    }
    let columns: Vec<Tap> = (0..to.0).map(|x| Tap::column(x, width, to.0)).collect();
    let mut recent = Recent::new(to.0);
    for y in 0..to.1 {
        let tap = Tap::row(y, height, to.1);
        // A row without weight need not be looked at: shrinking by three, say, uses one row in three.
        let [first, second] = tap.neighbours;
        let needed = [first, if tap.weights[1] == 0 { first } else { second }];
        let rows = recent.rows(needed, |y, out| shrink_columns(pixels(y), &columns, out));
        arch.dispatch(|| blend_rows(rows, tap.weights, &mut planes));
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
    fn rows(&mut self, needed: [usize; 2], make: impl Fn(usize, &mut Columns)) -> [&Columns; 2] {
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

fn shrink_columns(pixels: &[[u8; 3]], columns: &[Tap], out: &mut Columns) {
    let [red, green, blue] = out;
    let out = red.iter_mut().zip(green).zip(blue);
    for (((red, green), blue), tap) in out.zip(columns) {
        let [left, right] = tap.neighbours.map(|x| pixels[x]);
        let mix = |c: usize| ((i32::from(left[c]) * tap.weights[0] + i32::from(right[c]) * tap.weights[1]) >> 4) as i16;
        (*red, *green, *blue) = (mix(0), mix(1), mix(2));
    }
}

#[inline(always)]
fn blend_rows(rows: [&Columns; 2], weights: [i32; 2], planes: &mut [Vec<u8>; 3]) {
    for (channel, plane) in planes.iter_mut().enumerate() {
        let (upper, lower) = (&rows[0][channel][..], &rows[1][channel][..]);
        for ((value, upper), lower) in plane.iter_mut().zip(upper).zip(lower) {
            let high = |value: i16, weight: i32| (i32::from(value) * weight) >> 16;
            *value = ((high(*upper, weights[0]) + high(*lower, weights[1]) + 2) >> 2) as u8;
        }
    }
}

#[inline(always)]
fn separate(pixels: &[[u8; 3]], planes: &mut [Vec<u8>; 3]) {
    let [red, green, blue] = planes;
    for (((pixel, red), green), blue) in pixels.iter().zip(red).zip(green).zip(blue) {
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
