//! Accuracy of a new version: agreement with the served version, and precision on labelled images.

use std::fmt;

use caudal_tasks::{Found, Mask, Segment, ServedModel};
use caudal_vision::Detection;

use crate::{
    OptimizeError,
    bench::{InputImage, TestBench, image_model},
    box_matching::match_boxes,
    ground_truth::{GroundTruth, MeanPrecision},
};

/// Boxes of the served version with less confidence do not count as lost.
const CONFIDENT_BOX_MIN: f32 = 0.5;
/// Lowest confidence of boxes for mean average precision.
const MAP_MIN_CONFIDENCE: f32 = 0.001;

/// Accuracy of a version relative to the served one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracy {
    /// Agreement with the served version.
    pub agreement: Agreement,
    /// Its precision on labelled images.
    pub precision: Option<MeanPrecision>,
    /// Loss of mAP@0.5:0.95 if there are labels, else the share that does not agree.
    pub loss: f64,
}

/// Agreement of two versions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Agreement {
    /// Of boxes.
    Boxes {
        /// Number of boxes of the served version with at least the confidence `least`.
        of: usize,
        /// Lowest confidence of the boxes that count.
        least: f32,
        /// Share of these that the other version has with IoU 0.5.
        kept: f64,
        /// The same with IoU 0.75.
        kept_75: f64,
        /// Number of boxes that only the other version has.
        extra: usize,
        /// Mean difference of the confidences.
        shift: f64,
    },
    /// Share of the images with the same top class.
    Classes(f64),
    /// Mean intersection over union of the masks.
    Masks(f64),
}

impl Agreement {
    /// The share that does not agree.
    fn disagreement(self) -> f64 {
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

/// Evaluates versions against the predictions of the served one.
pub(crate) struct Evaluator<'a> {
    bench: &'a TestBench<'a>,
    images: &'a [InputImage],
    truth: Option<GroundTruth>,
    reference: Vec<Found>,
    /// Default lowest confidence.
    conf: f32,
    /// Precision of the served version.
    precision: Option<MeanPrecision>,
}

impl<'a> Evaluator<'a> {
    pub(crate) fn from_serving(
        bench: &'a TestBench<'a>,
        serving: &ServedModel,
        images: &'a [InputImage],
        truth: Option<GroundTruth>,
    ) -> Result<Self, OptimizeError> {
        let conf = image_model(serving)?.thresholds().conf;
        let mut judge = Self { bench, images, truth, reference: Vec::new(), conf, precision: None };
        (judge.reference, judge.precision) = judge.predict_images(serving)?;
        if judge.reference.iter().all(|found| found.count() == 0) {
            return Err(OptimizeError::NothingFound(serving.name.clone()));
        }
        Ok(judge)
    }

    pub(crate) fn evaluate_model(&self, model: &ServedModel) -> Result<Accuracy, OptimizeError> {
        let (answers, precision) = self.predict_images(model)?;
        let agreement = compare_predictions(&self.reference, &answers);
        let lost = precision.zip(self.precision).map(|(after, before)| before.map_50_95 - after.map_50_95);
        Ok(Accuracy { agreement, precision, loss: lost.unwrap_or_else(|| agreement.disagreement()) })
    }

    /// Predictions with default thresholds; with labels also the precision.
    fn predict_images(&self, model: &ServedModel) -> Result<(Vec<Found>, Option<MeanPrecision>), OptimizeError> {
        let Some(truth) = &self.truth else { return Ok((self.bench.predict_images(model, self.images, None)?, None)) };
        let mut all = self.bench.predict_images(model, self.images, Some(MAP_MIN_CONFIDENCE))?;
        let precision = truth.mean_precision(&all);
        for found in &mut all {
            if let Found::Objects(found) = found {
                found.retain(|found| found.confidence >= self.conf);
            }
        }
        Ok((all, Some(precision)))
    }
}

pub(crate) fn compare_predictions(reference: &[Found], answers: &[Found]) -> Agreement {
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
                pairs.iter().flat_map(|(one, other)| mask_ious(segments_of(one), segments_of(other))).collect();
            Agreement::Masks(ious.iter().sum::<f64>() / ious.len().max(1) as f64)
        }
        _ => box_agreement(&pairs),
    }
}

pub(crate) fn detections_of(found: &Found) -> &[Detection] {
    if let Found::Objects(found) = found { found } else { &[] }
}

fn segments_of(found: &Found) -> &[Segment] {
    if let Found::Segments(found) = found { found } else { &[] }
}

fn box_agreement(pairs: &[(&Found, &Found)]) -> Agreement {
    let sure =
        pairs.iter().any(|(one, _)| detections_of(one).iter().any(|found| found.confidence >= CONFIDENT_BOX_MIN));
    // A detector without confident boxes is judged by all of its boxes.
    let least = if sure { CONFIDENT_BOX_MIN } else { 0.0 };
    let (mut of, mut kept, mut kept_75, mut extra, mut shift) = (0, 0, 0, 0, 0.0);
    for (one, other) in pairs {
        let (one, other) = (detections_of(one), detections_of(other));
        let counts = |found: &&Detection| found.confidence >= least;
        let wanted: Vec<Detection> = one.iter().filter(counts).copied().collect();
        of += wanted.len();
        for (wanted, pair) in wanted.iter().zip(match_boxes(&wanted, other, 0.5)) {
            let Some(place) = pair else { continue };
            kept += 1;
            kept_75 += usize::from(wanted.rect.iou(&other[place].rect) >= 0.75);
            shift += f64::from((wanted.confidence - other[place].confidence).abs());
        }
        let new: Vec<Detection> = other.iter().filter(counts).copied().collect();
        extra += match_boxes(&new, one, 0.5).into_iter().filter(Option::is_none).count();
    }
    let part = |count: usize| count as f64 / of.max(1) as f64;
    Agreement::Boxes { of, least, kept: part(kept), kept_75: part(kept_75), extra, shift: shift / kept.max(1) as f64 }
}

/// Intersection over union of the masks of each class in either prediction.
fn mask_ious(one: &[Segment], other: &[Segment]) -> Vec<f64> {
    let mut classes: Vec<usize> = one.iter().chain(other).map(|segment| segment.class_id).collect();
    classes.sort_unstable();
    classes.dedup();
    let mask =
        |segments: &[Segment], class: usize| segments.iter().find(|segment| segment.class_id == class).map(decode_mask);
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

/// The pixels of a mask of run lengths.
fn decode_mask(segment: &Segment) -> Vec<bool> {
    let Mask::Rle(runs) = &segment.mask else { return Vec::new() };
    runs.iter().enumerate().flat_map(|(place, run)| std::iter::repeat_n(place % 2 == 1, *run as usize)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::box_matching::tests::detection;

    #[test]
    fn agreement_counts_lost_and_new_boxes() {
        let one = [Found::Objects(vec![detection(0.0, 0.9, 0), detection(50.0, 0.8, 1), detection(90.0, 0.3, 0)])];
        let other = [Found::Objects(vec![detection(2.0, 0.8, 0), detection(90.0, 0.6, 0), detection(200.0, 0.7, 1)])];
        let Agreement::Boxes { of, kept, kept_75, extra, shift, .. } = compare_predictions(&one, &other) else {
            panic!()
        };
        assert_eq!((of, kept, kept_75, extra), (2, 0.5, 0.0, 1), "one that was there before, less sure, is not new");
        assert!((shift - 0.1).abs() < 1e-6);
        assert!((compare_predictions(&one, &other).disagreement() - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(compare_predictions(&one, &one).disagreement(), 0.0);
    }

    #[test]
    fn agreement_compares_masks_by_pixel() {
        let mask = |runs: &[u32]| {
            let segment = Segment { class_id: 0, area: 0.0, mask: Mask::Rle(runs.to_vec()) };
            [Found::Segments(vec![segment])]
        };
        assert_eq!(compare_predictions(&mask(&[2, 4, 2]), &mask(&[4, 2, 2])), Agreement::Masks(0.5));
        assert_eq!(compare_predictions(&mask(&[2, 4, 2]), &[Found::Segments(Vec::new())]), Agreement::Masks(0.0));
    }
}
