//! Matching of boxes between two predictions.

use caudal_vision::Detection;

/// For each of `wanted` the index of the matching box in `found`: same class, IoU of at least `iou`, and not matched
/// otherwise. The most confident choose first, and take the box with the largest overlap.
pub(crate) fn match_boxes(wanted: &[Detection], found: &[Detection], iou: f32) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*b].confidence.total_cmp(&wanted[*a].confidence));
    let (mut pairs, mut taken) = (vec![None; wanted.len()], vec![false; found.len()]);
    for index in order {
        let one = &wanted[index];
        let free = found.iter().enumerate().filter(|(place, other)| !taken[*place] && other.class_id == one.class_id);
        // Two equal boxes without area have no IoU.
        let overlap = |other: &Detection| if one.rect == other.rect { 1.0 } else { one.rect.iou(&other.rect) };
        let overlapping = free.map(|(place, other)| (place, overlap(other)));
        let best = overlapping.filter(|(_, overlap)| *overlap >= iou).max_by(|(_, a), (_, b)| a.total_cmp(b));
        if let Some((place, _)) = best {
            (pairs[index], taken[place]) = (Some(place), true);
        }
    }
    pairs
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use caudal_vision::BoxF;

    pub(crate) fn detection(x: f32, confidence: f32, class_id: usize) -> Detection {
        Detection { rect: BoxF { x1: x, y1: 0.0, x2: x + 10.0, y2: 10.0 }, confidence, class_id }
    }

    #[test]
    fn boxes_are_matched_once_and_by_class() {
        let wanted = [detection(1.0, 0.6, 0), detection(0.0, 0.9, 0), detection(50.0, 0.9, 1)];
        let other = [detection(0.5, 0.8, 0), detection(50.0, 0.9, 0)];
        assert_eq!(match_boxes(&wanted, &other, 0.5), [None, Some(0), None]);
        assert_eq!(match_boxes(&wanted, &wanted, 0.99), [Some(0), Some(1), Some(2)]);
    }
}
