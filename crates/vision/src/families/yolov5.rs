//! YOLOv5 and v7: `[1, cells, 5 + classes]`, three anchors a grid cell; boxes as centre and size in input
//! pixels, then objectness, then class scores. A class's confidence is objectness times its score.

use super::{Candidates, Network, Output, Parts, Reader, Shown, grid_cells, only, shown::rows};
use crate::{BoxF, Detection};

const ANCHORS: usize = 3;

pub(super) struct YoloV5;

impl Reader for YoloV5 {
    fn names(&self) -> &'static [&'static str] {
        &["yolov5", "yolov7"]
    }

    fn find(&self, network: &Network<'_>) -> Option<Parts> {
        match only(network)? {
            [_, _, channels] if *channels > 5 => {
                Some(Parts { outputs: vec![0], classes: Some(channels - 5), ..Parts::default() })
            }
            _ => None,
        }
    }

    fn is_sure(&self, network: &Network<'_>, _parts: &Parts) -> bool {
        only(network).is_some_and(|dims| dims[1] == ANCHORS * grid_cells(network.input))
    }

    fn shown(&self, outputs: &[Output<'_>], _input: (usize, usize)) -> Shown {
        match outputs {
            [output @ Output { dims: [_, _, channels], .. }] => rows(output, *channels),
            _ => Shown::default(),
        }
    }

    fn candidates(&self, outputs: &[Output<'_>], _parts: &Parts, _input: (usize, usize), conf: f32) -> Candidates {
        match outputs {
            [Output { dims: [_, _, channels], values }] => candidates(values.floats(), *channels, conf),
            _ => Vec::new(),
        }
    }
}

fn candidates(values: &[f32], channels: usize, conf: f32) -> Candidates {
    if channels <= 5 {
        return Vec::new();
    }
    // Scores are at most 1, so a cell whose objectness is too low cannot reach the threshold.
    values.chunks_exact(channels).filter(|cell| cell[4] >= conf).filter_map(|cell| best(cell, conf)).collect()
}

/// The surest class of a cell `[cx, cy, w, h, objectness, scores…]`, if it is sure enough.
pub(super) fn best(cell: &[f32], conf: f32) -> Option<Detection> {
    let (class_id, score) = cell[5..].iter().enumerate().rev().max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let confidence = cell[4] * score;
    let rect = BoxF::around(cell[0], cell[1], cell[2], cell[3]);
    (confidence >= conf).then_some(Detection { rect, confidence, class_id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn confidence_is_objectness_times_score() {
        let sure = [10.0, 20.0, 4.0, 6.0, 0.9, 0.2, 0.8];
        let unsure = [10.0, 20.0, 4.0, 6.0, 0.9, 0.2, 0.3];
        let empty = [10.0, 20.0, 4.0, 6.0, 0.1, 1.0, 1.0];
        let found = candidates(&[sure, unsure, empty].concat(), 7, 0.5);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].class_id, 1);
        assert!((found[0].confidence - 0.72).abs() < 1e-6);
        assert_eq!(found[0].rect, BoxF { x1: 8.0, y1: 17.0, x2: 12.0, y2: 23.0 });
    }

    #[test]
    fn of_equal_classes_the_first_counts() {
        let found = candidates(&[0.0, 0.0, 1.0, 1.0, 1.0, 0.5, 0.5], 7, 0.1);
        assert_eq!(found[0].class_id, 0);
    }
}
