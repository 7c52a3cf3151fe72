//! Fusing: moves preprocessing and NMS into the graph, so that any runtime can serve the file alone with the same
//! results.

use std::path::PathBuf;

use caudal_engine::repository::ModelVersion;
use caudal_graph::{BoxLayout, Model, NmsSpec, Preprocessing};
use caudal_tasks::{
    Found, Look, PictureModel,
    fused::{PIXELS, SUPPRESSED, fit_name},
};
use caudal_vision::{Detection, Element, Layout, places};

use crate::{
    ModelContext, OptimizeError,
    accuracy::{Agreement, compare_predictions, detections_of},
    bench::{InputImage, TestBench, image_model, workspace_error},
    box_matching::match_boxes,
    synthetic_images,
};

/// A part that can be moved into a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FusedPart {
    /// The conversion from pixels to the network's input.
    Preprocess,
    /// Non-maximum suppression of the network's boxes.
    Suppress,
}

impl FusedPart {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preprocess => "preprocess",
            Self::Suppress => "nms",
        }
    }
}

/// Result of fusing a model.
#[derive(Debug, Clone)]
pub struct FuseReport {
    /// The version that was fused.
    pub from: u64,
    /// The new version.
    pub version: ModelVersion,
    /// The parts that were moved.
    pub parts: Vec<FusedPart>,
    /// Number of images on which both versions were compared.
    pub pictures: usize,
    /// Number of predictions in them.
    pub found: usize,
    /// Lowest confidence of the compared predictions.
    pub conf: f32,
}

/// Tolerance of a box's sides in pixels of the image.
const MAX_BOX_SHIFT_PIXELS: f32 = 0.1;
/// Tolerance of a confidence.
const MAX_CONFIDENCE_SHIFT: f32 = 1e-3;
/// Lowest confidence that is compared if a detector finds nothing otherwise. At this level rounding can move scores
/// across the threshold: one in a hundred may differ.
const LOW_CONFIDENCE: f32 = 0.001;

/// Writes a version with the part `only`, or all possible parts, in its graph, if its predictions are the same on
/// `images`, or on synthetic images if there are none.
pub fn fuse_model(
    site: &ModelContext,
    only: Option<FusedPart>,
    images: &[PathBuf],
) -> Result<FuseReport, OptimizeError> {
    let bench = TestBench::for_model(site)?;
    let name = &site.folder.name;
    let way = site.ways[0];
    let serving = bench.load_version(&bench.serving, way)?;
    let model = image_model(&serving)?;
    let parts =
        fusable_parts(model, only).map_err(|reason| OptimizeError::NothingToFuse { model: name.clone(), reason })?;
    let images = match images {
        [] => synthetic_images::make_images()
            .map_err(|error| OptimizeError::Image("a synthetic image".into(), error.into()))?,
        named => named.iter().map(|path| InputImage::from_file(path)).collect::<Result<_, _>>()?,
    };

    let read =
        || std::fs::read(&bench.serving.file).map_err(|error| OptimizeError::Io(bench.serving.file.clone(), error));
    let unfit = |reason| OptimizeError::Graph { model: name.clone(), reason };
    let plain = Model::parse(&read()?).map_err(unfit)?;
    let made = |conf: f32| {
        let mut graph = plain.clone();
        parts.iter().try_for_each(|part| part.apply_to_graph(&mut graph, model, conf))?;
        graph.to_bytes()
    };
    let workshop = site.folder.create_workspace().map_err(workspace_error(site))?;
    let version =
        workshop.write("fused", &made(model.thresholds().conf).map_err(unfit)?).map_err(workspace_error(site))?;
    let different = |difference| OptimizeError::Different { model: name.clone(), difference };

    // The predictions must be the same; if there are none, a twin with a lower threshold is compared.
    let compare = |version: &ModelVersion, asked: Option<f32>, may_differ: f64| {
        let fused = bench.load_version(version, way)?;
        let now = image_model(&fused)?;
        if (now.look.name(), &now.labels) != (model.look.name(), &model.labels) {
            return Err(different(format!("it would be detected as another kind of model, {}", now.look.name())));
        }
        let (before, after) =
            (bench.predict_images(&serving, &images, asked)?, bench.predict_images(&fused, &images, asked)?);
        require_same_predictions(&before, &after, may_differ).map_err(different)
    };
    let mut conf = model.thresholds().conf;
    let mut found = compare(&version, None, 0.0)?;
    if found == 0 && matches!(model.look, Look::Detect(_)) {
        conf = LOW_CONFIDENCE;
        let twin = workshop.write("twin", &made(conf).map_err(unfit)?).map_err(workspace_error(site))?;
        found = compare(&twin, Some(conf), 0.01)?;
    }
    let version = workshop.publish("fused").map_err(workspace_error(site))?;
    Ok(FuseReport { from: bench.serving.number, version, parts, pictures: images.len(), found, conf })
}

/// The parts that can be moved into the graph of `model`, or the reason why none can.
fn fusable_parts(model: &PictureModel, only: Option<FusedPart>) -> Result<Vec<FusedPart>, String> {
    let able = |part: FusedPart| match (part, &model.look) {
        (FusedPart::Preprocess, _) if model.format.element == Element::U8 => Err("it already takes bytes"),
        (_, _) if model.format.element == Element::F16 => Err("its numbers have 16 bits"),
        (FusedPart::Preprocess, _) => Ok(()),
        (FusedPart::Suppress, Look::Detect(head)) if head.suppresses() => Err("it already has NMS"),
        (FusedPart::Suppress, Look::Detect(_)) => Ok(()),
        (FusedPart::Suppress, _) => Err("it gives no boxes"),
    };
    let all = [FusedPart::Preprocess, FusedPart::Suppress];
    let wanted: Vec<FusedPart> = all.into_iter().filter(|part| only.is_none_or(|only| only == *part)).collect();
    let able_parts: Vec<FusedPart> = wanted.iter().copied().filter(|part| able(*part).is_ok()).collect();
    if able_parts.is_empty() {
        let reasons: Vec<_> = wanted.into_iter().filter_map(|part| able(part).err()).collect();
        return Err(reasons.join(", and "));
    }
    Ok(able_parts)
}

impl FusedPart {
    fn apply_to_graph(
        self,
        graph: &mut Model,
        model: &PictureModel,
        conf: f32,
    ) -> Result<(), caudal_graph::GraphError> {
        let format = model.format;
        match (self, &model.look) {
            (Self::Preprocess, _) => {
                let pixels = Preprocessing {
                    width: format.width,
                    height: format.height,
                    scale: model.normalisation.scale,
                    bias: model.normalisation.bias,
                    planar: format.layout == Layout::Planar,
                    bgr: format.bgr,
                };
                caudal_graph::fuse_preprocessing(graph, &pixels)?;
                graph.set_metadata(PIXELS, fit_name(format.fit));
            }
            (Self::Suppress, Look::Detect(head)) => {
                let family = head.family();
                let input = (format.width, format.height);
                let boxes = match family.name() {
                    "yolov8" => BoxLayout::Columns,
                    "yolov5" => BoxLayout::Cells,
                    "yolox" => {
                        BoxLayout::Grid(places(input).map(|(column, row, stride)| [column, row, stride]).collect())
                    }
                    _ => BoxLayout::Anchors { width: input.0, height: input.1, background: head.background() },
                };
                let how = NmsSpec {
                    boxes,
                    outputs: head.outputs().to_vec(),
                    classes: head.classes().unwrap_or(0),
                    conf,
                    iou: model.thresholds().iou,
                    max_det: model.thresholds().max_det,
                };
                caudal_graph::fuse_nms(graph, &how)?;
                graph.set_metadata(SUPPRESSED, family.name());
                // The new outputs no longer show the number of classes.
                graph.set_metadata("names", &labels_metadata(model));
            }
            (Self::Suppress, _) => {}
        }
        Ok(())
    }
}

/// Class names in the format of Ultralytics' metadata.
fn labels_metadata(model: &PictureModel) -> String {
    let quoted = |name: &str| name.replace('\\', r"\\").replace('\'', r"\'");
    let each = model.labels.iter().enumerate().map(|(class, name)| format!("{class}: '{}'", quoted(name)));
    format!("{{{}}}", each.collect::<Vec<_>>().join(", "))
}

/// Number of predictions if both agree except for the share `may_differ`; else the difference.
fn require_same_predictions(before: &[Found], after: &[Found], may_differ: f64) -> Result<usize, String> {
    let count = before.iter().map(Found::count).sum::<usize>();
    match compare_predictions(before, after) {
        Agreement::Boxes { .. } => {
            let moved: usize = before
                .iter()
                .zip(after)
                .map(|(one, other)| count_moved_boxes(detections_of(one), detections_of(other)))
                .sum();
            if moved as f64 > may_differ * count as f64 {
                return Err(format!(
                    "{moved} of {count} boxes differ by more than {MAX_BOX_SHIFT_PIXELS} pixels or {MAX_CONFIDENCE_SHIFT} in confidence"
                ));
            }
        }
        Agreement::Classes(_) => {
            for (one, other) in before.iter().zip(after) {
                let (Found::Classes(one), Found::Classes(other)) = (one, other) else { continue };
                let odd = one.iter().find(|class| {
                    let same = other.iter().find(|same| same.class_id == class.class_id);
                    same.is_none_or(|same| (same.confidence - class.confidence).abs() > MAX_CONFIDENCE_SHIFT)
                });
                if let Some(odd) = odd {
                    return Err(format!("the confidence of class {} is no longer {:.4}", odd.class_id, odd.confidence));
                }
            }
        }
        Agreement::Masks(iou) if count > 0 && iou < 0.999 => {
            return Err(format!("its masks overlap by only {iou:.4}"));
        }
        Agreement::Masks(_) => {}
    }
    Ok(count)
}

/// Number of boxes in either prediction without an equal one in the other.
fn count_moved_boxes(one: &[Detection], other: &[Detection]) -> usize {
    let pairs = match_boxes(one, other, 0.5);
    let near = |a: f32, b: f32, most: f32| (a - b).abs() <= most;
    let same = one.iter().zip(pairs).filter(|(found, pair)| {
        let Some(other) = pair.map(|place| other[place]) else { return false };
        let (a, b) = (found.rect, other.rect);
        let sides = [(a.x1, b.x1), (a.y1, b.y1), (a.x2, b.x2), (a.y2, b.y2)];
        sides.iter().all(|(a, b)| near(*a, *b, MAX_BOX_SHIFT_PIXELS))
            && near(found.confidence, other.confidence, MAX_CONFIDENCE_SHIFT)
    });
    one.len().max(other.len()) - same.count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::box_matching::tests::detection;

    #[test]
    fn moved_boxes_are_counted() {
        let one = [detection(0.0, 0.9, 0), detection(50.0, 0.8, 1)];
        assert_eq!(count_moved_boxes(&one, &one), 0);
        assert_eq!(count_moved_boxes(&one, &one[..1]), 1);
        assert_eq!(count_moved_boxes(&one[..1], &one), 1);
        assert_eq!(count_moved_boxes(&one, &[detection(0.05, 0.9, 0), detection(50.5, 0.8, 1)]), 1);
        assert_eq!(count_moved_boxes(&one, &[detection(0.0, 0.9, 0), detection(50.0, 0.81, 1)]), 1);
    }
}
