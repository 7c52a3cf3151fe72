//! Preprocessing and suppression moved into the graph: the same answers from a file that any runtime can serve alone.

use std::path::PathBuf;

use caudal_engine::repository::ModelVersion;
use caudal_graph::{Boxes, Model, Pixels, Suppression};
use caudal_tasks::{
    Found, Look, PictureModel,
    fused::{PIXELS, SUPPRESSED, fit_name},
};
use caudal_vision::{Detection, Element, Layout, places};

use crate::{
    OptimizeError, Site,
    accuracy::{Agreement, agreement, objects},
    bench::{Bench, Image, seer, unwritable},
    boxes::pair,
    synthetic,
};

/// What can be moved into a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// From bytes, pixel after pixel, to the network's input.
    Preprocess,
    /// From the network's outputs to boxes without duplicates.
    Suppress,
}

impl Part {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preprocess => "preprocess",
            Self::Suppress => "nms",
        }
    }
}

/// A version that was fused.
#[derive(Debug, Clone)]
pub struct Fused {
    /// The version it was made of.
    pub from: u64,
    /// The version written.
    pub version: ModelVersion,
    /// What was moved.
    pub parts: Vec<Part>,
    /// Pictures on which both versions were compared.
    pub pictures: usize,
    /// What both found in them.
    pub found: usize,
    /// Least confidence of what was compared.
    pub conf: f32,
}

/// How far a side of a box may lie from where it was, in pixels of the picture.
const PIXELS_OFF: f32 = 0.1;
/// How far a confidence may be from what it was.
const CONFIDENCE_OFF: f32 = 1e-3;
/// Least confidence of boxes that are compared where a detector finds nothing else. So weak, some stand so close to a
/// threshold that rounding decides: one in a hundred may differ.
const WEAK: f32 = 0.001;

/// Writes a version of the model with `only`, or all that can be, in its graph, if that answers the same on `images`; on
/// made ones if there are none.
pub fn fuse(site: &Site, only: Option<Part>, images: &[PathBuf]) -> Result<Fused, OptimizeError> {
    let bench = Bench::at(site)?;
    let name = &site.folder.name;
    let way = site.ways[0];
    let serving = bench.load(&bench.serving, way)?;
    let model = seer(&serving)?;
    let parts = parts(model, only).map_err(|reason| OptimizeError::NothingToFuse { model: name.clone(), reason })?;
    let images = match images {
        [] => synthetic::pictures().map_err(|error| OptimizeError::Image("a made picture".into(), error.into()))?,
        named => named.iter().map(|path| Image::read(path)).collect::<Result<_, _>>()?,
    };

    let read =
        || std::fs::read(&bench.serving.file).map_err(|error| OptimizeError::Io(bench.serving.file.clone(), error));
    let unfit = |reason| OptimizeError::Graph { model: name.clone(), reason };
    let plain = Model::parse(&read()?).map_err(unfit)?;
    let made = |conf: f32| {
        let mut graph = plain.clone();
        parts.iter().try_for_each(|part| part.put(&mut graph, model, conf))?;
        graph.to_bytes()
    };
    let workshop = site.folder.workshop().map_err(unwritable(site))?;
    let version = workshop.write("fused", &made(model.thresholds().conf).map_err(unfit)?).map_err(unwritable(site))?;
    let different = |difference| OptimizeError::Different { model: name.clone(), difference };

    // It must answer the same; where that is nothing, a twin with a lower threshold has more to say.
    let compare = |version: &ModelVersion, asked: Option<f32>, may_differ: f64| {
        let fused = bench.load(version, way)?;
        let now = seer(&fused)?;
        if (now.look.name(), &now.labels) != (model.look.name(), &model.labels) {
            return Err(different(format!("it would be taken for another kind of model, {}", now.look.name())));
        }
        let (before, after) = (bench.see(&serving, &images, asked)?, bench.see(&fused, &images, asked)?);
        same(&before, &after, may_differ).map_err(different)
    };
    let mut conf = model.thresholds().conf;
    let mut found = compare(&version, None, 0.0)?;
    if found == 0 && matches!(model.look, Look::Detect(_)) {
        conf = WEAK;
        let twin = workshop.write("twin", &made(conf).map_err(unfit)?).map_err(unwritable(site))?;
        found = compare(&twin, Some(conf), 0.01)?;
    }
    let version = workshop.publish("fused").map_err(unwritable(site))?;
    Ok(Fused { from: bench.serving.number, version, parts, pictures: images.len(), found, conf })
}

/// What can be moved into the graph of `model`; in words why nothing can.
fn parts(model: &PictureModel, only: Option<Part>) -> Result<Vec<Part>, String> {
    let able = |part: Part| match (part, &model.look) {
        (Part::Preprocess, _) if model.format.element == Element::U8 => Err("it takes bytes already"),
        (_, _) if model.format.element == Element::F16 => Err("its numbers have 16 bits"),
        (Part::Preprocess, _) => Ok(()),
        (Part::Suppress, Look::Detect(head)) if head.suppresses() => Err("it removes duplicates by itself already"),
        (Part::Suppress, Look::Detect(_)) => Ok(()),
        (Part::Suppress, _) => Err("it gives no boxes of which some could be duplicates"),
    };
    let all = [Part::Preprocess, Part::Suppress];
    let wanted: Vec<Part> = all.into_iter().filter(|part| only.is_none_or(|only| only == *part)).collect();
    let able_parts: Vec<Part> = wanted.iter().copied().filter(|part| able(*part).is_ok()).collect();
    if able_parts.is_empty() {
        let reasons: Vec<_> = wanted.into_iter().filter_map(|part| able(part).err()).collect();
        return Err(reasons.join(", and "));
    }
    Ok(able_parts)
}

impl Part {
    fn put(self, graph: &mut Model, model: &PictureModel, conf: f32) -> Result<(), caudal_graph::GraphError> {
        let format = model.format;
        match (self, &model.look) {
            (Self::Preprocess, _) => {
                let pixels = Pixels {
                    width: format.width,
                    height: format.height,
                    scale: model.normalisation.scale,
                    bias: model.normalisation.bias,
                    planar: format.layout == Layout::Planar,
                    bgr: format.bgr,
                };
                caudal_graph::take_bytes(graph, &pixels)?;
                graph.set_note(PIXELS, fit_name(format.fit));
            }
            (Self::Suppress, Look::Detect(head)) => {
                let family = head.family();
                let input = (format.width, format.height);
                let boxes = match family.name() {
                    "yolov8" => Boxes::Columns,
                    "yolov5" => Boxes::Cells,
                    "yolox" => Boxes::Grid(places(input).map(|(column, row, stride)| [column, row, stride]).collect()),
                    _ => Boxes::Anchors { width: input.0, height: input.1, background: head.background() },
                };
                let how = Suppression {
                    boxes,
                    outputs: head.outputs().to_vec(),
                    classes: head.classes().unwrap_or(0),
                    conf,
                    iou: model.thresholds().iou,
                    max_det: model.thresholds().max_det,
                };
                caudal_graph::suppress(graph, &how)?;
                graph.set_note(SUPPRESSED, family.name());
                // The new outputs no longer tell how many classes there are.
                graph.set_note("names", &names(model));
            }
            (Self::Suppress, _) => {}
        }
        Ok(())
    }
}

/// The names of the classes as Ultralytics notes them.
fn names(model: &PictureModel) -> String {
    let quoted = |name: &str| name.replace('\\', r"\\").replace('\'', r"\'");
    let each = model.labels.iter().enumerate().map(|(class, name)| format!("{class}: '{}'", quoted(name)));
    format!("{{{}}}", each.collect::<Vec<_>>().join(", "))
}

/// How many things both answers found, if they are the same but for `may_differ` of them; else what differs.
fn same(before: &[Found], after: &[Found], may_differ: f64) -> Result<usize, String> {
    let count = before.iter().map(Found::count).sum::<usize>();
    match agreement(before, after) {
        Agreement::Boxes { .. } => {
            let moved: usize = before.iter().zip(after).map(|(one, other)| moved(objects(one), objects(other))).sum();
            if moved as f64 > may_differ * count as f64 {
                return Err(format!(
                    "{moved} of {count} boxes differ by more than {PIXELS_OFF} pixels or {CONFIDENCE_OFF} in confidence"
                ));
            }
        }
        Agreement::Classes(_) => {
            for (one, other) in before.iter().zip(after) {
                let (Found::Classes(one), Found::Classes(other)) = (one, other) else { continue };
                let odd = one.iter().find(|class| {
                    let same = other.iter().find(|same| same.class_id == class.class_id);
                    same.is_none_or(|same| (same.confidence - class.confidence).abs() > CONFIDENCE_OFF)
                });
                if let Some(odd) = odd {
                    return Err(format!("class {} is no longer {:.4} sure", odd.class_id, odd.confidence));
                }
            }
        }
        Agreement::Masks(iou) if count > 0 && iou < 0.999 => {
            return Err(format!("its masks overlap by {iou:.4} alone"));
        }
        Agreement::Masks(_) => {}
    }
    Ok(count)
}

/// How many boxes of either answer are not where the other has them.
fn moved(one: &[Detection], other: &[Detection]) -> usize {
    let pairs = pair(one, other, 0.5);
    let near = |a: f32, b: f32, most: f32| (a - b).abs() <= most;
    let same = one.iter().zip(pairs).filter(|(found, pair)| {
        let Some(other) = pair.map(|place| other[place]) else { return false };
        let (a, b) = (found.rect, other.rect);
        let sides = [(a.x1, b.x1), (a.y1, b.y1), (a.x2, b.x2), (a.y2, b.y2)];
        sides.iter().all(|(a, b)| near(*a, *b, PIXELS_OFF)) && near(found.confidence, other.confidence, CONFIDENCE_OFF)
    });
    one.len().max(other.len()) - same.count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boxes::tests::found;

    #[test]
    fn boxes_that_moved_are_counted() {
        let one = [found(0.0, 0.9, 0), found(50.0, 0.8, 1)];
        assert_eq!(moved(&one, &one), 0);
        assert_eq!(moved(&one, &one[..1]), 1);
        assert_eq!(moved(&one[..1], &one), 1);
        assert_eq!(moved(&one, &[found(0.05, 0.9, 0), found(50.5, 0.8, 1)]), 1);
        assert_eq!(moved(&one, &[found(0.0, 0.9, 0), found(50.0, 0.81, 1)]), 1);
    }
}
