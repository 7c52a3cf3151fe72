//! YOLOX as its own exporter writes it: `[1, cells, 5 + classes]`, one box a cell and still in the grid's terms:
//! `x = (p + column) · stride`, `w = exp(p) · stride`; then objectness and class scores, whose product is the
//! confidence. (Megvii, `yolox/utils/demo_utils.py`; Ge et al., "YOLOX", 2021.)
//!
//! An export with the boxes decoded in the graph has the numbers of `yolov5`.

use super::{
    Candidates, Habits, Network, Output, Parts, Reader, STRIDES, Shown, Span, grid_cells, only, shown::rows,
    yolov5::best,
};
use crate::{BoxF, Fit};

pub(super) struct YoloX;

impl Reader for YoloX {
    fn names(&self) -> &'static [&'static str] {
        &["yolox"]
    }

    fn habits(&self) -> Habits {
        Habits { fit: Fit::Corner, bgr: true, scale: 1.0, side: 640 }
    }

    fn find(&self, network: &Network<'_>) -> Option<Parts> {
        match only(network)? {
            [_, cells, channels] if *channels > 5 && *cells == grid_cells(network.input) => {
                Some(Parts { outputs: vec![0], classes: Some(channels - 5), ..Parts::default() })
            }
            _ => None,
        }
    }

    fn is_sure(&self, _network: &Network<'_>, _parts: &Parts) -> bool {
        true
    }

    fn shown(&self, outputs: &[Output<'_>], input: (usize, usize)) -> Shown {
        let [output @ Output { dims: [_, _, channels], values }] = outputs else { return Shown::default() };
        let cells = values.floats().chunks_exact((*channels).max(6)).zip(places(input));
        // A size that is beyond all numbers is no side of a box either: it was decoded already.
        let size = |logarithm: f32, stride: f32| (logarithm.exp() * stride).min(f32::MAX);
        let sides = cells.fold(Span::default(), |span, (cell, (column, row, stride))| {
            let centre = [(cell[0] + column) * stride, (cell[1] + row) * stride];
            let span = centre.into_iter().fold(span, Span::with);
            [cell[2], cell[3]].into_iter().fold(span, |span, side| span.with(size(side, stride)))
        });
        Shown { sides, ..rows(output, *channels) }
    }

    fn candidates(&self, outputs: &[Output<'_>], _parts: &Parts, input: (usize, usize), conf: f32) -> Candidates {
        let [Output { dims: [_, _, channels], values }] = outputs else { return Vec::new() };
        let cells = values.floats().chunks_exact((*channels).max(6)).zip(places(input));
        let found = cells.filter(|(cell, _)| cell[4] >= conf).filter_map(|(cell, (column, row, stride))| {
            let mut found = best(cell, conf)?;
            let (cx, cy) = ((cell[0] + column) * stride, (cell[1] + row) * stride);
            found.rect = BoxF::around(cx, cy, cell[2].exp() * stride, cell[3].exp() * stride);
            Some(found)
        });
        found.collect()
    }
}

/// Column, row and stride of every cell of YOLOX's grids over an input of this width and height, in the order of its
/// output.
pub fn places((width, height): (usize, usize)) -> impl Iterator<Item = (f32, f32, f32)> {
    STRIDES.into_iter().flat_map(move |stride| {
        let columns = width.div_ceil(stride);
        let cells = columns * height.div_ceil(stride);
        (0..cells).map(move |cell| ((cell % columns) as f32, (cell / columns) as f32, stride as f32))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::Values;

    #[test]
    fn boxes_leave_the_grids_terms() {
        let input = (64, 32);
        let (cells, channels) = (grid_cells(input), 7);
        assert_eq!(cells, 8 * 4 + 4 * 2 + 2);
        let mut values = vec![0.0; cells * channels];
        let mut set = |cell: usize, numbers: [f32; 7]| values[cell * channels..][..7].copy_from_slice(&numbers);
        // Row 1, column 2 of the grid of stride 16; and the last cell of all, of stride 32.
        set(32 + 4 + 2, [0.5, 0.25, 0.0, 2f32.ln(), 0.9, 0.1, 0.8]);
        set(cells - 1, [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]);
        let output = Output { dims: &[1, cells, channels], values: Values::F32(&values) };
        let found = YoloX.candidates(&[output], &Parts::default(), input, 0.5);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].class_id, found[0].rect), (1, BoxF::around(2.5 * 16.0, 1.25 * 16.0, 16.0, 32.0)));
        assert!((found[0].confidence - 0.72).abs() < 1e-6);
        assert_eq!((found[1].class_id, found[1].rect), (0, BoxF::around(32.0, 0.0, 32.0, 32.0)));
    }
}
