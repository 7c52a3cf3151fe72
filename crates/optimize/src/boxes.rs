//! Boxes of two answers, paired.

use caudal_vision::Detection;

/// For each of `wanted` the place of the box among `found` that says the same: its class, overlapping it by at least
/// `iou`, and nobody else's. The surest choose first, and take what overlaps them most.
pub(crate) fn pair(wanted: &[Detection], found: &[Detection], iou: f32) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*b].confidence.total_cmp(&wanted[*a].confidence));
    let (mut pairs, mut taken) = (vec![None; wanted.len()], vec![false; found.len()]);
    for index in order {
        let one = &wanted[index];
        let free = found.iter().enumerate().filter(|(place, other)| !taken[*place] && other.class_id == one.class_id);
        // Two that are the same and have no area do not overlap.
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

    pub(crate) fn found(x: f32, confidence: f32, class_id: usize) -> Detection {
        Detection { rect: BoxF { x1: x, y1: 0.0, x2: x + 10.0, y2: 10.0 }, confidence, class_id }
    }

    #[test]
    fn each_box_is_paired_once_and_with_its_class_alone() {
        let wanted = [found(1.0, 0.6, 0), found(0.0, 0.9, 0), found(50.0, 0.9, 1)];
        let other = [found(0.5, 0.8, 0), found(50.0, 0.9, 0)];
        assert_eq!(pair(&wanted, &other, 0.5), [None, Some(0), None]);
        assert_eq!(pair(&wanted, &wanted, 0.99), [Some(0), Some(1), Some(2)]);
    }
}
