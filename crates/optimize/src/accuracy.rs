//! How far the answers of a new version are from those of the one that serves, and from the truth where that is known.

use std::fmt;

use caudal_tasks::{Found, Mask, Segment, ServedModel};
use caudal_vision::Detection;

use crate::{
    OptimizeError,
    bench::{Bench, Image, seer},
    boxes::pair,
    labels::{Precision, Truth},
};

/// How sure the serving version must be of a box for its loss to count.
const SURE: f32 = 0.5;
/// Least confidence of boxes that precision is made of.
const WEAKEST: f32 = 0.001;

/// What a version answers, beside what the serving one does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracy {
    /// How much of it agrees.
    pub agreement: Agreement,
    /// Its precision on labelled pictures.
    pub precision: Option<Precision>,
    /// What the change costs: of mAP@0.5:0.95 where there are labels, else the part that does not agree.
    pub loss: f64,
}

/// How much two versions agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Agreement {
    /// Of boxes.
    Boxes {
        /// Boxes of the serving version that count, and are at least this sure.
        of: usize,
        /// The same.
        least: f32,
        /// Part of these that the other has, overlapping by half.
        kept: f64,
        /// The same, overlapping by three quarters.
        kept_75: f64,
        /// Boxes that only the other has.
        extra: usize,
        /// How much confidences differ, on average.
        shift: f64,
    },
    /// Part of the pictures whose likeliest class is the same.
    Classes(f64),
    /// Intersection over union of the masks, on average.
    Masks(f64),
}

impl Agreement {
    /// The part that does not agree.
    fn loss(self) -> f64 {
        match self {
            Self::Boxes { of, kept, extra, .. } => 1.0 - kept * of as f64 / (of + extra) as f64,
            Self::Classes(same) => 1.0 - same,
            Self::Masks(iou) => 1.0 - iou,
        }
    }
}

impl fmt::Display for Accuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(precision) = self.precision {
            write!(f, "mAP@0.5 {:.3}, mAP@0.5:0.95 {:.3}; ", precision.map_50, precision.map_50_95)?;
        }
        match self.agreement {
            Agreement::Boxes { of, kept, kept_75, extra, shift, .. } => {
                let count = |part: f64| (part * of as f64).round();
                let (kept, kept_75) = (count(kept), count(kept_75));
                write!(f, "{kept} of {of} boxes ({kept_75} at IoU 0.75), {extra} more, confidence ±{shift:.3}")
            }
            Agreement::Classes(same) => write!(f, "same class in {:.1} %", same * 100.0),
            Agreement::Masks(iou) => write!(f, "IoU of masks {iou:.4}"),
        }
    }
}

/// Knows what the serving version answers, and judges others by it.
pub(crate) struct Judge<'a> {
    bench: &'a Bench<'a>,
    images: &'a [Image],
    truth: Option<Truth>,
    reference: Vec<Found>,
    /// Least confidence of a request that names none.
    conf: f32,
    /// Precision of the serving version.
    precision: Option<Precision>,
}

impl<'a> Judge<'a> {
    pub(crate) fn of(
        bench: &'a Bench<'a>,
        serving: &ServedModel,
        images: &'a [Image],
        truth: Option<Truth>,
    ) -> Result<Self, OptimizeError> {
        let conf = seer(serving)?.thresholds().conf;
        let mut judge = Self { bench, images, truth, reference: Vec::new(), conf, precision: None };
        (judge.reference, judge.precision) = judge.answers(serving)?;
        if judge.reference.iter().all(|found| found.count() == 0) {
            return Err(OptimizeError::NothingFound(serving.name.clone()));
        }
        Ok(judge)
    }

    pub(crate) fn judge(&self, model: &ServedModel) -> Result<Accuracy, OptimizeError> {
        let (answers, precision) = self.answers(model)?;
        let agreement = agreement(&self.reference, &answers);
        let lost = precision.zip(self.precision).map(|(after, before)| before.map_50_95 - after.map_50_95);
        Ok(Accuracy { agreement, precision, loss: lost.unwrap_or_else(|| agreement.loss()) })
    }

    /// The answers to requests that name no thresholds; with labels the precision of all that was found.
    fn answers(&self, model: &ServedModel) -> Result<(Vec<Found>, Option<Precision>), OptimizeError> {
        let Some(truth) = &self.truth else { return Ok((self.bench.see(model, self.images, None)?, None)) };
        let mut all = self.bench.see(model, self.images, Some(WEAKEST))?;
        let precision = truth.precision(&all);
        for found in &mut all {
            if let Found::Objects(found) = found {
                found.retain(|found| found.confidence >= self.conf);
            }
        }
        Ok((all, Some(precision)))
    }
}

pub(crate) fn agreement(reference: &[Found], answers: &[Found]) -> Agreement {
    let pairs: Vec<_> = reference.iter().zip(answers).collect();
    match reference.first() {
        Some(Found::Classes(_)) => {
            let top = |found: &Found| {
                if let Found::Classes(found) = found { found.first().map(|best| best.class_id) } else { None }
            };
            let same = pairs.iter().filter(|(one, other)| top(one) == top(other)).count();
            Agreement::Classes(same as f64 / pairs.len() as f64)
        }
        Some(Found::Segments(_)) => {
            let ious: Vec<f64> =
                pairs.iter().flat_map(|(one, other)| overlaps(segments(one), segments(other))).collect();
            Agreement::Masks(ious.iter().sum::<f64>() / ious.len().max(1) as f64)
        }
        _ => boxes(&pairs),
    }
}

pub(crate) fn objects(found: &Found) -> &[Detection] {
    if let Found::Objects(found) = found { found } else { &[] }
}

fn segments(found: &Found) -> &[Segment] {
    if let Found::Segments(found) = found { found } else { &[] }
}

fn boxes(pairs: &[(&Found, &Found)]) -> Agreement {
    let sure = pairs.iter().any(|(one, _)| objects(one).iter().any(|found| found.confidence >= SURE));
    // A detector that is never sure is judged by all that it finds.
    let least = if sure { SURE } else { 0.0 };
    let (mut of, mut kept, mut kept_75, mut extra, mut shift) = (0, 0, 0, 0, 0.0);
    for (one, other) in pairs {
        let (one, other) = (objects(one), objects(other));
        let counts = |found: &&Detection| found.confidence >= least;
        let wanted: Vec<Detection> = one.iter().filter(counts).copied().collect();
        of += wanted.len();
        for (wanted, pair) in wanted.iter().zip(pair(&wanted, other, 0.5)) {
            let Some(place) = pair else { continue };
            kept += 1;
            kept_75 += usize::from(wanted.rect.iou(&other[place].rect) >= 0.75);
            shift += f64::from((wanted.confidence - other[place].confidence).abs());
        }
        let new: Vec<Detection> = other.iter().filter(counts).copied().collect();
        extra += pair(&new, one, 0.5).into_iter().filter(Option::is_none).count();
    }
    let part = |count: usize| count as f64 / of.max(1) as f64;
    Agreement::Boxes { of, least, kept: part(kept), kept_75: part(kept_75), extra, shift: shift / kept.max(1) as f64 }
}

/// Intersection over union of the masks of each class that either answer shows.
fn overlaps(one: &[Segment], other: &[Segment]) -> Vec<f64> {
    let mut classes: Vec<usize> = one.iter().chain(other).map(|segment| segment.class_id).collect();
    classes.sort_unstable();
    classes.dedup();
    let mask =
        |segments: &[Segment], class: usize| segments.iter().find(|segment| segment.class_id == class).map(pixels);
    let each = classes.into_iter().map(|class| match (mask(one, class), mask(other, class)) {
        (Some(one), Some(other)) => {
            let shared = one.iter().zip(&other).filter(|(one, other)| **one && **other).count();
            let either = one.iter().zip(&other).filter(|(one, other)| **one || **other).count();
            shared as f64 / either.max(1) as f64
        }
        _ => 0.0,
    });
    each.collect()
}

/// Which pixels a mask of run lengths holds.
fn pixels(segment: &Segment) -> Vec<bool> {
    let Mask::Rle(runs) = &segment.mask else { return Vec::new() };
    runs.iter().enumerate().flat_map(|(place, run)| std::iter::repeat_n(place % 2 == 1, *run as usize)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boxes::tests::found;

    #[test]
    fn lost_boxes_and_new_ones_both_count() {
        let one = [Found::Objects(vec![found(0.0, 0.9, 0), found(50.0, 0.8, 1), found(90.0, 0.3, 0)])];
        let other = [Found::Objects(vec![found(2.0, 0.8, 0), found(90.0, 0.6, 0), found(200.0, 0.7, 1)])];
        let Agreement::Boxes { of, kept, kept_75, extra, shift, .. } = agreement(&one, &other) else { panic!() };
        assert_eq!((of, kept, kept_75, extra), (2, 0.5, 0.0, 1), "one that was there before, less sure, is not new");
        assert!((shift - 0.1).abs() < 1e-6);
        assert!((agreement(&one, &other).loss() - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(agreement(&one, &one).loss(), 0.0);
    }

    #[test]
    fn masks_are_compared_pixel_by_pixel() {
        let mask = |runs: &[u32]| {
            let segment = Segment { class_id: 0, area: 0.0, mask: Mask::Rle(runs.to_vec()) };
            [Found::Segments(vec![segment])]
        };
        assert_eq!(agreement(&mask(&[2, 4, 2]), &mask(&[4, 2, 2])), Agreement::Masks(0.5));
        assert_eq!(agreement(&mask(&[2, 4, 2]), &[Found::Segments(Vec::new())]), Agreement::Masks(0.0));
    }
}
