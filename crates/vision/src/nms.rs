//! Removes boxes that say again what a surer box has said.

use crate::Detection;

/// Non-maximum suppression within each class: of two boxes that overlap by more than `iou`, the less sure goes.
/// What stays is sorted, surest first (among equals, first found first), at most `max_det`.
///
/// Greedy, as in Felzenszwalb et al., "Object Detection with Discriminatively Trained Part-Based Models" (2010).
pub fn suppress(mut candidates: Vec<Detection>, iou: f32, max_det: usize) -> Vec<Detection> {
    candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    let mut kept: Vec<Detection> = Vec::new();
    for candidate in candidates {
        if kept.len() == max_det {
            break;
        }
        let repeats =
            |better: &Detection| better.class_id == candidate.class_id && better.rect.iou(&candidate.rect) > iou;
        if !kept.iter().any(repeats) {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BoxF;
    use proptest::prelude::*;

    fn detection(x: f32, confidence: f32, class_id: usize) -> Detection {
        Detection { rect: BoxF { x1: x, y1: 0.0, x2: x + 10.0, y2: 10.0 }, confidence, class_id }
    }

    #[test]
    fn the_surer_of_two_overlapping_boxes_stays() {
        let kept = suppress(vec![detection(1.0, 0.6, 0), detection(0.0, 0.9, 0), detection(30.0, 0.7, 0)], 0.5, 300);
        assert_eq!(kept, [detection(0.0, 0.9, 0), detection(30.0, 0.7, 0)]);
    }

    #[test]
    fn classes_do_not_touch_each_other() {
        assert_eq!(suppress(vec![detection(0.0, 0.9, 0), detection(0.0, 0.8, 1)], 0.5, 300).len(), 2);
    }

    #[test]
    fn equals_keep_their_order_and_the_limit_holds() {
        let equal: Vec<_> = (0..5).map(|i| detection(i as f32 * 20.0, 0.5, 0)).collect();
        assert_eq!(suppress(equal.clone(), 0.5, 3), equal[..3]);
        assert_eq!(suppress(equal, 0.5, 0), []);
    }

    #[test]
    fn numbers_that_are_none_do_no_harm() {
        let odd = Detection {
            rect: BoxF { x1: f32::NAN, y1: 0.0, x2: 1.0, y2: f32::INFINITY },
            ..detection(0.0, f32::NAN, 0)
        };
        assert_eq!(suppress(vec![odd, detection(0.0, 0.9, 0)], 0.5, 300).len(), 2);
    }

    proptest! {
        #[test]
        fn what_stays_is_sorted_and_overlaps_no_surer_box_of_its_class(
            raw in proptest::collection::vec((0f32..100.0, 0f32..1.0, 0usize..3), 0..60), iou in 0f32..1.0,
        ) {
            let all: Vec<_> = raw.into_iter().map(|(x, confidence, class)| detection(x, confidence, class)).collect();
            let kept = suppress(all.clone(), iou, usize::MAX);
            for (i, a) in kept.iter().enumerate() {
                for b in &kept[i + 1..] {
                    prop_assert!(a.confidence >= b.confidence);
                    prop_assert!(a.class_id != b.class_id || a.rect.iou(&b.rect) <= iou);
                }
            }
            for gone in all.iter().filter(|d| !kept.contains(d)) {
                prop_assert!(kept.iter().any(|d| d.class_id == gone.class_id && d.rect.iou(&gone.rect) > iou));
            }
        }
    }
}
