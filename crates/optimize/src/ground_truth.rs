//! Ground truth in the format of YOLO's trainers: beside `photo.jpg` a `photo.txt` with lines of `class cx cy width
//! height`, relative to the image. And the mean average precision of a detector against it.

use std::{collections::BTreeSet, fs, path::Path};

use caudal_tasks::Found;
use caudal_vision::{BoxF, Detection, Limits, probe};

use crate::{OptimizeError, accuracy::detections_of, bench::InputImage};

/// Mean average precision over all classes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanPrecision {
    /// With IoU 0.5.
    pub map_50: f64,
    /// Mean over IoU 0.5 to 0.95.
    pub map_50_95: f64,
}

/// The true boxes of each image.
pub(crate) struct GroundTruth(Vec<Vec<Detection>>);

impl GroundTruth {
    /// Reads the labels of `images` in `folder`. An image without a file shows nothing.
    pub(crate) fn from_folder(folder: &Path, images: &[InputImage], limits: &Limits) -> Result<Self, OptimizeError> {
        let wrong = |reason: String| OptimizeError::Labels(folder.to_owned(), reason);
        let mut all = Vec::new();
        for image in images {
            let header =
                probe(&image.bytes, limits).map_err(|error| OptimizeError::Image(image.path.clone(), error.into()))?;
            let file = folder.join(image.path.file_stem().unwrap_or_default()).with_extension("txt");
            let text = match fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(OptimizeError::Io(file, error)),
            };
            let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
            let boxes = lines.map(|(number, line)| {
                let place = || format!("{}, line {}: {line:?}", file.display(), number + 1);
                parse_label(line, header.size())
                    .ok_or_else(|| wrong(format!("{} is not `class cx cy width height`", place())))
            });
            all.push(boxes.collect::<Result<Vec<_>, _>>()?);
        }
        match all.iter().all(Vec::is_empty) {
            true => Err(wrong("no image has a box".to_owned())),
            false => Ok(Self(all)),
        }
    }

    pub(crate) fn mean_precision(&self, found: &[Found]) -> MeanPrecision {
        let found: Vec<&[Detection]> = found.iter().map(detections_of).collect();
        let classes: BTreeSet<usize> = self.0.iter().flatten().map(|truth| truth.class_id).collect();
        let mean = |iou: f32| {
            let each = classes.iter().map(|class| self.average_precision(&found, *class, iou));
            each.sum::<f64>() / classes.len().max(1) as f64
        };
        let steps: Vec<f64> = (0..10).map(|step| mean(0.5 + 0.05 * step as f32)).collect();
        MeanPrecision { map_50: steps[0], map_50_95: steps.iter().sum::<f64>() / steps.len() as f64 }
    }

    /// Precision at 101 levels of recall, averaged, as COCO does. (Lin et al., "Microsoft COCO", 2014.)
    fn average_precision(&self, found: &[&[Detection]], class: usize, iou: f32) -> f64 {
        let of_class =
            |all: &[Detection]| -> Vec<Detection> { all.iter().filter(|one| one.class_id == class).copied().collect() };
        let (mut total, mut hits) = (0, Vec::new());
        for (truth, found) in self.0.iter().zip(found) {
            let (truth, found) = (of_class(truth), of_class(found));
            total += truth.len();
            let pairs = crate::box_matching::match_boxes(&found, &truth, iou);
            hits.extend(found.iter().zip(pairs).map(|(found, pair)| (found.confidence, pair.is_some())));
        }
        hits.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let (mut right, mut curve) = (0, Vec::with_capacity(hits.len()));
        for (place, (_, hit)) in hits.iter().enumerate() {
            right += usize::from(*hit);
            curve.push((right as f64 / total.max(1) as f64, right as f64 / (place + 1) as f64));
        }
        // The best precision at this recall or a higher one.
        let mut best = 0.0;
        for (_, precision) in curve.iter_mut().rev() {
            best = f64::max(best, *precision);
            *precision = best;
        }
        let at = |recall: f64| {
            let from = curve.partition_point(|(reached, _)| *reached < recall);
            curve.get(from).map_or(0.0, |(_, precision)| *precision)
        };
        (0..=100).map(|level| at(f64::from(level) / 100.0)).sum::<f64>() / 101.0
    }
}

fn parse_label(line: &str, (width, height): (u32, u32)) -> Option<Detection> {
    let numbers: Vec<f32> = line.split_whitespace().map(|word| word.parse().ok()).collect::<Option<_>>()?;
    let [class, cx, cy, w, h] = numbers[..] else { return None };
    let fits = class >= 0.0 && class.fract() == 0.0 && [cx, cy, w, h].iter().all(|part| (0.0..=1.0).contains(part));
    let (width, height) = (width as f32, height as f32);
    let rect = BoxF::around(cx * width, cy * height, w * width, h * height);
    fits.then_some(Detection { rect, confidence: 1.0, class_id: class as usize })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::box_matching::tests::detection;

    #[test]
    fn mean_precision_is_one_for_truth_and_falls_with_errors() {
        let truth =
            GroundTruth(vec![vec![detection(0.0, 1.0, 0), detection(50.0, 1.0, 0)], vec![detection(0.0, 1.0, 1)]]);
        let precision = |first: &[Detection], second: &[Detection]| {
            truth.mean_precision(&[Found::Objects(first.to_vec()), Found::Objects(second.to_vec())])
        };
        let (a, b, c) = (detection(0.0, 0.9, 0), detection(50.0, 0.8, 0), detection(0.0, 0.7, 1));
        assert!((precision(&[a, b], &[c]).map_50_95 - 1.0).abs() < 1e-9);
        // Half of class 0: recall up to 0.5 at full precision, 51 of 101 levels.
        assert!((precision(&[a], &[c]).map_50 - (51.0 / 101.0 + 1.0) / 2.0).abs() < 1e-9);
        // Moved by 2 of 10: an overlap of 8 / 12.
        let moved = precision(&[detection(2.0, 0.9, 0), b], &[c]);
        assert!((moved.map_50 - 1.0).abs() < 1e-9 && moved.map_50_95 < 0.9);
        // A wrong box that is more confident than the right ones.
        assert!(precision(&[detection(90.0, 0.95, 0), a, b], &[c]).map_50 < 0.9);
        assert_eq!(precision(&[], &[]).map_50, 0.0);
    }

    #[test]
    fn label_lines_parse_class_and_relative_box() {
        let parsed = parse_label("3 0.5 0.5 0.5 1", (100, 40)).unwrap();
        assert_eq!((parsed.class_id, parsed.rect), (3, BoxF { x1: 25.0, y1: 0.0, x2: 75.0, y2: 40.0 }));
        for wrong in ["", "1 2 3", "a 0 0 1 1", "1.5 0.5 0.5 0.1 0.1", "0 0.5 0.5 200 1", "0 nan 0 1 1"] {
            assert!(parse_label(wrong, (100, 40)).is_none(), "{wrong}");
        }
    }
}
