//! YOLOv8, v9 and v11: `[1, 4 + classes, cells]`, boxes as centre and size in input pixels, scores already
//! between 0 and 1, no objectness. (Ultralytics, `ultralytics/utils/ops.py`, export layout.)

use multiversion::multiversion;

use super::{Candidates, Network, Output, Parts, Reader, Shown, Span, grid_cells, only};
use crate::{BoxF, Detection};

/// Cells looked at together: their best scores stay in the first-level cache while all classes pass by.
const BLOCK: usize = 256;

pub(super) struct YoloV8;

impl Reader for YoloV8 {
    fn names(&self) -> &'static [&'static str] {
        &["yolov8", "yolov9", "yolov11", "yolo11"]
    }

    fn find(&self, network: &Network<'_>) -> Option<Parts> {
        match only(network)? {
            [_, channels, _] if *channels > 4 => {
                Some(Parts { outputs: vec![0], classes: Some(channels - 4), ..Parts::default() })
            }
            _ => None,
        }
    }

    fn is_sure(&self, network: &Network<'_>, _parts: &Parts) -> bool {
        only(network).is_some_and(|dims| dims[2] == grid_cells(network.input))
    }

    fn shown(&self, outputs: &[Output<'_>], _input: (usize, usize)) -> Shown {
        let [Output { dims: [_, _, cells], values }] = outputs else { return Shown::default() };
        let (sides, scores) = values.floats().split_at((4 * *cells).min(values.floats().len()));
        Shown { scores: Span::of(scores), sides: Span::of(sides), ..Shown::default() }
    }

    fn candidates(&self, outputs: &[Output<'_>], _parts: &Parts, _input: (usize, usize), conf: f32) -> Candidates {
        match outputs {
            [Output { dims: [_, channels, cells], values }] => candidates(values.floats(), *channels, *cells, conf),
            _ => Vec::new(),
        }
    }
}

fn candidates(values: &[f32], channels: usize, cells: usize, conf: f32) -> Candidates {
    let (classes, mut found) = (channels.saturating_sub(4), Vec::new());
    if cells == 0 || values.len() != channels * cells {
        return found;
    }
    let (boxes, scores) = values.split_at(4 * cells);
    let mut best = Best { score: [0.0; BLOCK], class: [0; BLOCK] };
    for from in (0..cells).step_by(BLOCK) {
        let count = BLOCK.min(cells - from);
        find_best(&mut best, scores, cells, classes, from, count);
        for i in 0..count {
            if best.score[i] >= conf {
                let [cx, cy, width, height] = std::array::from_fn(|side| boxes[side * cells + from + i]);
                found.push(Detection {
                    rect: BoxF::around(cx, cy, width, height),
                    confidence: best.score[i],
                    class_id: best.class[i] as usize,
                });
            }
        }
    }
    found
}

struct Best {
    score: [f32; BLOCK],
    class: [u32; BLOCK],
}

/// The best class of each of `count` cells from `from` on, and its score. Scores lie class after class, so a run over
/// neighbouring cells is one over neighbouring memory.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma+lzcnt", "aarch64+neon"))]
fn find_best(best: &mut Best, scores: &[f32], cells: usize, classes: usize, from: usize, count: usize) {
    best.score.fill(f32::NEG_INFINITY);
    for class in 0..classes {
        let row = &scores[class * cells + from..][..count];
        for ((score, best), best_class) in row.iter().zip(&mut best.score).zip(&mut best.class) {
            let better = *score > *best;
            *best = if better { *score } else { *best };
            *best_class = if better { class as u32 } else { *best_class };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_speaks_for_its_best_class() {
        let (cells, classes) = (300, 3);
        let mut values = vec![0.0; (4 + classes) * cells];
        let mut set = |channel: usize, cell: usize, value: f32| values[channel * cells + cell] = value;
        for (channel, value) in [100.0, 50.0, 20.0, 10.0].into_iter().enumerate() {
            set(channel, 270, value);
        }
        set(4, 270, 0.3);
        set(6, 270, 0.8);
        set(5, 7, 0.5);
        let found = candidates(&values, 4 + classes, cells, 0.5);
        assert_eq!(found.len(), 2);
        let expected = BoxF { x1: 90.0, y1: 45.0, x2: 110.0, y2: 55.0 };
        assert_eq!(found[1], Detection { rect: expected, confidence: 0.8, class_id: 2 });
        assert_eq!((found[0].class_id, found[0].confidence), (1, 0.5));
    }

    #[test]
    fn scores_that_are_no_numbers_are_no_candidates() {
        assert_eq!(candidates(&[f32::NAN; 7 * 10], 7, 10, 0.0), []);
    }
}
