//! Networks that remove duplicates in their graph, in two forms:
//!
//! - `num_dets [1, 1]`, `det_boxes [1, most, 4]`, `det_scores [1, most]`, `det_classes [1, most]`, as TensorRT's
//!   EfficientNMS plugin and the exporters built around it write them; told apart by their names;
//! - `[1, most, 6]` or `[found, 6]`: a box, its score, its class, as YOLOv10 and CenterNet write them.
//!
//! Boxes are corners in input pixels. Places that hold nothing have a score of 0 or come after the count.

use super::{Candidates, Network, Output, OutputShape, Parts, Reader, Shown, Span, only};
use crate::{BoxF, Detection};

/// A network that has picked its boxes gives some hundreds; thousands are a grid.
const MOST: usize = 1000;

/// Least confidence of a box that must be one: places that hold nothing may have any numbers.
const LEAST: f32 = 0.05;

pub(super) struct EndToEnd;

impl Reader for EndToEnd {
    fn names(&self) -> &'static [&'static str] {
        &["end2end", "yolov10"]
    }

    fn suppresses(&self) -> bool {
        true
    }

    fn find(&self, network: &Network<'_>) -> Option<Parts> {
        match network.outputs {
            [OutputShape { dims: [1, _, 6] | [_, 6], .. }] => Some(Parts { outputs: vec![0], ..Parts::default() }),
            outputs @ [_, _, _, _] => {
                let place = |word: &str| outputs.iter().position(|output| output.name.contains(word));
                let places = ["num", "boxes", "scores", "classes"].map(place);
                let outputs: Vec<usize> = places.into_iter().flatten().collect();
                let boxes = network.outputs.get(*outputs.get(1)?)?.dims;
                let fits = outputs.len() == 4 && matches!(boxes, [_, _, 4]);
                fits.then_some(Parts { outputs, ..Parts::default() })
            }
            _ => None,
        }
    }

    fn is_sure(&self, network: &Network<'_>, _parts: &Parts) -> bool {
        match only(network) {
            Some([_, most, _]) => *most <= MOST,
            // One row of six may be a classifier of six classes, and no row may be of any layout.
            Some(_) => false,
            // TensorFlow's four outputs have these words in their names too, and boxes of `y1, x1, y2, x2` in parts.
            None => !network.outputs.iter().any(|output| output.name.contains("detection")),
        }
    }

    fn shown(&self, outputs: &[Output<'_>], _input: (usize, usize)) -> Shown {
        let mut shown = Shown::default();
        let mut look = |corners: &[f32], score: f32, class: f32| {
            shown.scores = shown.scores.with(score);
            shown.sides = shown.sides.and(Span::of(corners));
            let inside_out = corners[2] < corners[0] - 1.0 || corners[3] < corners[1] - 1.0;
            let counts = score > LEAST && corners.iter().all(|side| side.is_finite());
            let impossible = inside_out || class.fract() != 0.0 || class < 0.0;
            shown.impossible += usize::from(counts && impossible);
            shown.found += usize::from(counts && !impossible);
        };
        match outputs {
            [all] => all.values.floats().chunks_exact(6).for_each(|six| look(&six[..4], six[4], six[5])),
            [count, boxes, scores, classes] => {
                let count = count.values.get(0).unwrap_or(0.0).max(0.0) as usize;
                for (i, corners) in boxes.values.floats().chunks_exact(4).take(count).enumerate() {
                    look(corners, scores.values.get(i).unwrap_or(0.0), classes.values.get(i).unwrap_or(0.0));
                }
            }
            _ => {}
        }
        shown
    }

    fn is_named(&self, network: &Network<'_>) -> bool {
        network.outputs.len() > 1
    }

    /// Places that hold nothing have whatever numbers: only a box shows how boxes are written.
    fn is_proved_by(&self, shown: &Shown) -> bool {
        shown.found > 0
    }

    fn candidates(&self, outputs: &[Output<'_>], _parts: &Parts, _input: (usize, usize), conf: f32) -> Candidates {
        match outputs {
            [all] => {
                let sixes = all.values.floats().chunks_exact(6);
                sixes.filter_map(|six| detection(&six[..4], six[4], six[5], conf)).collect()
            }
            [count, boxes, scores, classes] => {
                let count = count.values.get(0).unwrap_or(0.0).max(0.0) as usize;
                let boxes = boxes.values.floats().chunks_exact(4).take(count).enumerate();
                let found = boxes
                    .filter_map(|(i, corners)| detection(corners, scores.values.get(i)?, classes.values.get(i)?, conf));
                found.collect()
            }
            _ => Vec::new(),
        }
    }
}

fn detection(corners: &[f32], confidence: f32, class: f32, conf: f32) -> Option<Detection> {
    let rect = BoxF { x1: corners[0], y1: corners[1], x2: corners[2], y2: corners[3] };
    let counts = confidence >= conf && confidence > 0.0 && class >= 0.0;
    counts.then_some(Detection { rect, confidence, class_id: class as usize })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::Values;

    #[test]
    fn both_forms_hold_the_same_boxes() {
        let boxes = [10.0, 20.0, 30.0, 40.0, 1.0, 2.0, 3.0, 4.0, 9.0, 9.0, 9.0, 9.0];
        let four = [
            Output { dims: &[1, 1], values: Values::I32(&[2]) },
            Output { dims: &[1, 3, 4], values: Values::F32(&boxes) },
            Output { dims: &[1, 3], values: Values::F32(&[0.9, 0.3, 0.9]) },
            Output { dims: &[1, 3], values: Values::I64(&[7, 1, 1]) },
        ];
        let six = [10.0, 20.0, 30.0, 40.0, 0.9, 7.0, 1.0, 2.0, 3.0, 4.0, 0.3, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0];
        let one = [Output { dims: &[1, 3, 6], values: Values::F32(&six) }];
        for (conf, count) in [(0.5, 1), (0.0, 2)] {
            let read = |outputs: &[Output<'_>]| EndToEnd.candidates(outputs, &Parts::default(), (64, 64), conf);
            assert_eq!(read(&four), read(&one));
            assert_eq!(read(&one).len(), count);
        }
        let first = EndToEnd.candidates(&four, &Parts::default(), (64, 64), 0.5)[0];
        assert_eq!((first.class_id, first.rect), (7, BoxF { x1: 10.0, y1: 20.0, x2: 30.0, y2: 40.0 }));
    }
}
