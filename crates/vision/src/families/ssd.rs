//! SSD as TensorFlow's detection zoo writes it before suppression: boxes `[1, anchors, 4]` or `[1, anchors, 1, 4]` as
//! `y1, x1, y2, x2` between 0 and 1, and class scores `[1, anchors, classes]`, already between 0 and 1. A first
//! class that says "nothing" is skipped. (TensorFlow, `object_detection/core/post_processing.py`.)
//!
//! Many other families give two outputs of these shapes, with other boxes in them: only the fourth dimension, or
//! TensorFlow's own names, make sure that it is this one.

use super::{Candidates, Habits, Network, Output, Parts, Reader, Shown, Span, Unit};
use crate::{BoxF, Detection, Fit};

pub(super) struct Ssd;

impl Reader for Ssd {
    fn names(&self) -> &'static [&'static str] {
        &["ssd"]
    }

    fn habits(&self) -> Habits {
        Habits { fit: Fit::Stretch, side: 300, ..Habits::default() }
    }

    fn find(&self, network: &Network<'_>) -> Option<Parts> {
        let [a, b] = network.outputs else { return None };
        let (outputs, anchors, scores) = match (boxes(a.dims), boxes(b.dims)) {
            (Some(anchors), None) => (vec![0, 1], anchors, b.dims),
            (None, Some(anchors)) => (vec![1, 0], anchors, a.dims),
            _ => return None,
        };
        match *scores {
            [_, count, classes] if count == anchors && classes > 0 => {
                let background = usize::from(network.classes.is_some_and(|known| known + 1 == classes));
                Some(Parts { outputs, classes: Some(classes - background), background })
            }
            _ => None,
        }
    }

    fn is_sure(&self, network: &Network<'_>, parts: &Parts) -> bool {
        let is_its_own = |name: &str| ["Postprocessor/", "raw_detection_boxes"].iter().any(|own| name.starts_with(own));
        let by_shape = network.outputs.iter().any(|output| matches!(output.dims, [_, _, 1, 4]));
        let known = by_shape || network.outputs.iter().any(|output| is_its_own(output.name));
        known && parts.classes.is_some_and(|classes| classes > 0)
    }

    fn unit(&self) -> Unit {
        Unit::Parts
    }

    fn shown(&self, outputs: &[Output<'_>], _input: (usize, usize)) -> Shown {
        let [boxes, scores] = outputs else { return Shown::default() };
        let (sides, scores) = (Span::of(boxes.values.floats()), Span::of(scores.values.floats()));
        Shown { scores, sides, ..Shown::default() }
    }

    fn candidates(&self, outputs: &[Output<'_>], parts: &Parts, input: (usize, usize), conf: f32) -> Candidates {
        let [boxes, scores] = outputs else { return Vec::new() };
        let [_, _, classes] = *scores.dims else { return Vec::new() };
        let (width, height) = (input.0 as f32, input.1 as f32);
        let anchors = boxes.values.floats().chunks_exact(4).zip(scores.values.floats().chunks_exact(classes.max(1)));
        let mut found = Vec::new();
        for (corners, scores) in anchors {
            let rect = BoxF {
                x1: corners[1] * width,
                y1: corners[0] * height,
                x2: corners[3] * width,
                y2: corners[2] * height,
            };
            // Classes do not exclude one another here: each that is sure enough is a candidate of its own.
            for (class_id, score) in scores.iter().skip(parts.background).enumerate() {
                if *score >= conf {
                    found.push(Detection { rect, confidence: *score, class_id });
                }
            }
        }
        found
    }
}

/// How many boxes an output of `dims` holds, if it holds boxes.
fn boxes(dims: &[usize]) -> Option<usize> {
    match *dims {
        [_, anchors, 4] | [_, anchors, 1, 4] => Some(anchors),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::families::Values;

    #[test]
    fn boxes_are_parts_of_the_picture_and_classes_stand_for_themselves() {
        let boxes = Output { dims: &[1, 2, 1, 4], values: Values::F32(&[0.1, 0.2, 0.5, 0.6, 0.0, 0.0, 1.0, 1.0]) };
        let scores = Output { dims: &[1, 2, 3], values: Values::F32(&[0.0, 0.7, 0.9, 0.95, 0.1, 0.2]) };
        let parts = Parts { background: 1, ..Parts::default() };
        let found = Ssd.candidates(&[boxes, scores], &parts, (200, 100), 0.5);
        let rect = BoxF { x1: 0.2 * 200.0, y1: 0.1 * 100.0, x2: 0.6 * 200.0, y2: 0.5 * 100.0 };
        let expected = [(0.7, 0), (0.9, 1)].map(|(confidence, class_id)| Detection { rect, confidence, class_id });
        assert_eq!(found, expected, "the second anchor holds nothing, and says so");
    }
}
