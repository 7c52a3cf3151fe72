//! Bilinear resizing as OpenCV's `INTER_LINEAR` samples: pixel centres meet pixel centres, two taps an axis,
//! no smoothing when shrinking. Models trained on pictures resized that way expect its very artefacts: the
//! antialiased kind moves boxes by pixels.
//!
//! Rows are blended first, where neighbouring values lie side by side and vector instructions help, then
//! columns are picked. Vertical weights have 8 bits and horizontal ones 11, so a value can differ from
//! OpenCV's by one grey level.

/// One output position of an axis: the first of two neighbours, and the weight of the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tap<const ONE: u32> {
    first: u32,
    weight: u32,
}

const ROW_ONE: u32 = 1 << 8;
const COLUMN_ONE: u32 = 1 << 11;

fn taps<const ONE: u32>(source: usize, target: usize) -> impl Iterator<Item = Tap<ONE>> {
    let scale = source as f64 / target as f64;
    (0..target).map(move |position| {
        let centre = (position as f64 + 0.5) * scale - 0.5;
        let first = centre.floor();
        if first < 0.0 {
            return Tap { first: 0, weight: 0 };
        }
        let last = source as u32 - 1;
        if first as u32 >= last {
            return Tap { first: last, weight: 0 };
        }
        Tap { first: first as u32, weight: ((centre - first) * f64::from(ONE)).round() as u32 }
    })
}

/// Resizes `rgb`, rows of `width` pixels, to `to` and hands each row to `row`: three bytes a pixel.
pub(crate) fn resize(
    rgb: &[u8],
    (width, height): (usize, usize),
    to: (usize, usize),
    mut row: impl FnMut(usize, &[u8]),
) {
    let stride = width * 3;
    if (width, height) == to {
        rgb.chunks_exact(stride).enumerate().for_each(|(y, pixels)| row(y, pixels));
        return;
    }
    let arch = pulp::Arch::new();
    let columns: Vec<Tap<COLUMN_ONE>> = taps(width, to.0).collect();
    // One pixel more than a row, so that the last column has a second neighbour too.
    let mut blended = vec![0u16; stride + 3];
    let mut picked = vec![0u8; to.0 * 3];
    for (y, tap) in taps::<ROW_ONE>(height, to.1).enumerate() {
        let at = |y: usize| &rgb[y * stride..(y + 1) * stride];
        let upper = at(tap.first as usize);
        let lower = at((tap.first as usize + 1).min(height - 1));
        arch.dispatch(|| blend_rows(upper, lower, tap.weight as u16, &mut blended));
        pick_columns(&blended, &columns, &mut picked);
        row(y, &picked);
    }
}

/// `upper * (1 - weight) + lower * weight`, in 1/256.
#[inline(always)]
fn blend_rows(upper: &[u8], lower: &[u8], weight: u16, blended: &mut [u16]) {
    let rest = ROW_ONE as u16 - weight;
    if weight == 0 {
        for (value, upper) in blended.iter_mut().zip(upper) {
            *value = u16::from(*upper) << 8;
        }
        return;
    }
    for (value, (upper, lower)) in blended.iter_mut().zip(upper.iter().zip(lower)) {
        *value = u16::from(*upper) * rest + u16::from(*lower) * weight;
    }
}

#[inline(always)]
fn pick_columns(blended: &[u16], columns: &[Tap<COLUMN_ONE>], picked: &mut [u8]) {
    const SHIFT: u32 = COLUMN_ONE.ilog2() + ROW_ONE.ilog2();
    for (pixel, tap) in picked.as_chunks_mut::<3>().0.iter_mut().zip(columns) {
        let at = tap.first as usize * 3;
        let Some([a, b, c, d, e, f]) = blended.get(at..at + 6).and_then(|six| six.first_chunk::<6>()) else { return };
        let mix = |left: u16, right: u16| {
            let sum = u32::from(left) * (COLUMN_ONE - tap.weight) + u32::from(right) * tap.weight;
            ((sum + (1 << (SHIFT - 1))) >> SHIFT) as u8
        };
        *pixel = [mix(*a, *d), mix(*b, *e), mix(*c, *f)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resized(rgb: &[u8], from: (usize, usize), to: (usize, usize)) -> Vec<u8> {
        let mut out = Vec::new();
        resize(rgb, from, to, |y, row| {
            assert_eq!(out.len(), y * to.0 * 3);
            out.extend_from_slice(row);
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

    /// What OpenCV 4.14 makes of `np.arange(27).reshape(3, 3, 3) * 9`: its rounding differs by at most one.
    #[test]
    fn values_agree_with_opencv() {
        let rgb: Vec<u8> = (0..27).map(|value| value * 9).collect();
        let opencv: [(_, &[u8]); 2] = [
            ((2, 2), &[27, 36, 45, 67, 76, 85, 148, 157, 166, 189, 198, 207]),
            (
                (4, 2),
                &[
                    20, 29, 38, 37, 46, 55, 57, 66, 75, 74, 83, 92, 142, 151, 160, 158, 167, 176, 179, 188, 197, 196,
                    205, 214,
                ],
            ),
        ];
        for (to, expected) in opencv {
            let ours = resized(&rgb, (3, 3), to);
            assert!(ours.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= 1), "{ours:?} {expected:?}");
        }
    }
}
