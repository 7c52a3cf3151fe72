//! Removes boxes that say again what a surer box has said.

use std::ops::Range;

use multiversion::multiversion;

use crate::{BoxF, Detection};

/// Non-maximum suppression within each class: of two boxes that overlap by more than `iou`, the less sure goes.
/// What stays is sorted, surest first (among equals, first found first), at most `max_det`.
///
/// Greedy, as in Felzenszwalb et al., "Object Detection with Discriminatively Trained Part-Based Models" (2010).
#[caudal_observe::profile]
pub fn suppress(mut candidates: Vec<Detection>, iou: f32, max_det: usize) -> Vec<Detection> {
    candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    if iou >= 1.0 {
        // No two boxes overlap by more than that.
        candidates.truncate(max_det);
        return candidates;
    }
    let mut shelf = Shelf::new(&candidates);
    let mut kept = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        if kept.len() == max_det {
            break;
        }
        if !shelf.is_gone(index) {
            kept.push(*candidate);
            shelf.remove_repeats(candidate, iou);
        }
    }
    kept
}

/// All candidates by class, and within a class by their left edge. So those that repeat a box stand side by side, and
/// thousands of boxes of which none repeats another need not all be compared.
struct Shelf {
    /// Where each candidate stands.
    places: Vec<usize>,
    /// Class and left edge of what stands at each place.
    keys: Vec<(usize, f32)>,
    x1: Vec<f32>,
    y1: Vec<f32>,
    x2: Vec<f32>,
    y2: Vec<f32>,
    /// 1 for what has gone; as wide as a coordinate, so that eight are compared at once.
    gone: Vec<u32>,
    /// The largest width among them.
    widest: f64,
}

impl Shelf {
    fn new(candidates: &[Detection]) -> Self {
        let key = |index: usize| (candidates[index].class_id, candidates[index].rect.x1);
        let mut order: Vec<_> = (0..candidates.len()).map(|index| (key(index), index)).collect();
        order.sort_unstable_by(|((class_a, x1_a), _), ((class_b, x1_b), _)| {
            class_a.cmp(class_b).then(x1_a.total_cmp(x1_b))
        });
        let mut places = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, (_, index))| places[*index] = place);
        let side = |side: fn(&BoxF) -> f32| order.iter().map(|(_, index)| side(&candidates[*index].rect)).collect();
        Self {
            places,
            keys: order.iter().map(|(key, _)| *key).collect(),
            x1: side(|rect| rect.x1),
            y1: side(|rect| rect.y1),
            x2: side(|rect| rect.x2),
            y2: side(|rect| rect.y2),
            gone: vec![0; order.len()],
            widest: candidates.iter().map(|candidate| width(&candidate.rect)).fold(0.0, f64::max),
        }
    }

    fn is_gone(&self, index: usize) -> bool {
        self.gone[self.places[index]] == 1
    }

    /// Where boxes stand that may overlap `kept` by more than `iou`.
    ///
    /// The part that two such boxes share is wider than `iou` times either of them. So the other is not wider than
    /// `kept` divided by `iou`, reaches that far into `kept`, and begins before the last such part of `kept`.
    fn near(&self, kept: &Detection, iou: f32) -> Range<usize> {
        let least = f64::from(iou) * 0.999; // an overlap is computed with an error of a millionth
        let (x1, width) = (f64::from(kept.rect.x1), width(&kept.rect));
        let before = |x: f64| {
            let is_before =
                |(class, x1): &(usize, f32)| class.cmp(&kept.class_id).then(f64::from(*x1).total_cmp(&x)).is_lt();
            self.keys.partition_point(is_before)
        };
        let from = before(x1 - (1.0 - least) * (width / least).min(self.widest));
        from..before(x1 + (1.0 - least) * width).max(from)
    }

    /// Takes away what overlaps `kept` by more than `iou`, itself included. Surer boxes of its class do not: had they
    /// overlapped that much, `kept` would be gone.
    fn remove_repeats(&mut self, kept: &Detection, iou: f32) {
        let near = self.near(kept, iou);
        let sides = [&self.x1, &self.y1, &self.x2, &self.y2].map(|side| &side[near.clone()]);
        mark_repeats(&mut self.gone[near], sides, kept.rect, iou);
    }
}

fn width(rect: &BoxF) -> f64 {
    f64::from(rect.x2) - f64::from(rect.x1)
}

/// Sets `gone` for each box that overlaps `kept` by more than `iou`.
#[multiversion(targets("x86_64+avx2+bmi1+bmi2+fma+lzcnt", "aarch64+neon"))]
fn mark_repeats(gone: &mut [u32], [x1, y1, x2, y2]: [&[f32]; 4], kept: BoxF, iou: f32) {
    for ((((gone, x1), y1), x2), y2) in gone.iter_mut().zip(x1).zip(y1).zip(x2).zip(y2) {
        let other = BoxF { x1: *x1, y1: *y1, x2: *x2, y2: *y2 };
        *gone |= u32::from(kept.iou(&other) > iou);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn detection(x: f32, confidence: f32, class_id: usize) -> Detection {
        Detection { rect: BoxF { x1: x, y1: 0.0, x2: x + 10.0, y2: 10.0 }, confidence, class_id }
    }

    /// What [`suppress`] must equal: each candidate against all that are kept.
    fn plain(mut candidates: Vec<Detection>, iou: f32, max_det: usize) -> Vec<Detection> {
        candidates.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
        let mut kept: Vec<Detection> = Vec::new();
        for candidate in candidates {
            let repeats =
                |better: &Detection| better.class_id == candidate.class_id && better.rect.iou(&candidate.rect) > iou;
            if kept.len() < max_det && !kept.iter().any(repeats) {
                kept.push(candidate);
            }
        }
        kept
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
        assert_eq!(suppress(equal.clone(), 1.0, 3), equal[..3]);
        assert_eq!(suppress(equal, 0.5, 0), []);
    }

    #[test]
    fn numbers_that_are_none_do_no_harm() {
        let odd = Detection {
            rect: BoxF { x1: f32::NAN, y1: 0.0, x2: 1.0, y2: f32::INFINITY },
            ..detection(0.0, f32::NAN, 0)
        };
        assert_eq!(suppress(vec![odd, detection(0.0, 0.9, 0)], 0.5, 300).len(), 2);
        for x in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for rect in [BoxF { x1: x, y1: x, x2: x, y2: x }, BoxF { x1: 0.0, y1: x, x2: x, y2: x }] {
                let odd = Detection { rect, ..odd };
                assert!(!suppress(vec![odd, detection(0.0, 0.9, 0), odd], 0.5, 300).is_empty());
            }
        }
    }

    #[test]
    fn of_thousands_of_boxes_only_neighbours_are_compared() {
        let spread: Vec<_> = (0..30_000).map(|i| detection((i * 7919 % 30_000) as f32 / 24.0, 0.5, 0)).collect();
        let shelf = Shelf::new(&spread);
        let compared: usize = spread.iter().map(|kept| shelf.near(kept, 0.9).len()).sum();
        assert!(compared < 100 * spread.len(), "{compared}");
    }

    proptest! {
        #[test]
        fn what_stays_equals_plain_suppression(
            raw in proptest::collection::vec((0u8..40, 0u8..40, -2i8..25, -2i8..25, 0u8..20, 0usize..3), 0..200),
            iou in prop_oneof![Just(0.0), Just(0.5), Just(0.999_999), Just(1.0), 0f32..1.0],
            scale in 0.01f32..100.0,
            max_det in prop_oneof![Just(usize::MAX), 0usize..50],
        ) {
            // Coarse steps, so that edges, sizes and confidences are often equal; some boxes are turned inside out.
            let all: Vec<_> = raw
                .into_iter()
                .map(|(x, y, width, height, confidence, class_id)| {
                    let (x1, y1) = (f32::from(x) * scale, f32::from(y) * scale);
                    let (x2, y2) = (x1 + f32::from(width) * scale, y1 + f32::from(height) * scale);
                    Detection { rect: BoxF { x1, y1, x2, y2 }, confidence: f32::from(confidence) / 20.0, class_id }
                })
                .collect();
            prop_assert_eq!(suppress(all.clone(), iou, max_det), plain(all, iou, max_det));
        }
    }
}
