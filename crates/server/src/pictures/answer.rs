//! What is found in pictures, as JSON.

use caudal_tasks::{Detection, Detections, Detector, ServedModel};
use caudal_types::Stamps;
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::problem::{ErrorBody, Problem};

/// What was found in one picture.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct PictureAnswer<'a> {
    status: &'static str,
    /// The model's name, also if it was asked for by an alias.
    model: &'a str,
    version: String,
    image_size: ImageSize,
    /// Surest first.
    detections: Vec<Found<'a>>,
    timings_ms: Timings,
}

/// Size of the upright picture, in pixels.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ImageSize {
    width: u32,
    height: u32,
}

/// One object found; corners in pixels of the picture.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Found<'a> {
    x1: f32,
    y1: f32,
    x2: f32,
    y2: f32,
    /// 0 to 1.
    confidence: f32,
    class_id: usize,
    class: &'a str,
}

/// Milliseconds at each stage, and in all.
#[derive(Debug, utoipa::ToSchema)]
#[schema(value_type = std::collections::HashMap<String, f64>)]
pub(crate) struct Timings(Stamps);

impl Serialize for Timings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = |spent: std::time::Duration| spent.as_micros() as f64 / 1e3;
        let mut map = serializer.serialize_map(None)?;
        for (stage, spent) in self.0.iter() {
            map.serialize_entry(stage.name(), &ms(spent))?;
        }
        map.serialize_entry("total", &ms(self.0.total()))?;
        map.end()
    }
}

/// What was found in several pictures; some may have failed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct BatchAnswer<'a> {
    /// `success`, `partial` or `error`.
    status: &'static str,
    model: &'a str,
    version: String,
    total_images: usize,
    processed_images: usize,
    failed_images: usize,
    results: Vec<BatchResult<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<BatchFailure<'a>>,
    timings_ms: Timings,
}

/// What was found in one of several pictures.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct BatchResult<'a> {
    filename: Option<&'a str>,
    image_index: usize,
    image_size: ImageSize,
    detections: Vec<Found<'a>>,
}

/// Why one of several pictures failed.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct BatchFailure<'a> {
    filename: Option<&'a str>,
    image_index: usize,
    error: ErrorBody<'a>,
}

fn found<'a>(detections: &[Detection], detector: &'a Detector) -> Vec<Found<'a>> {
    let one = |found: &Detection| Found {
        x1: found.rect.x1,
        y1: found.rect.y1,
        x2: found.rect.x2,
        y2: found.rect.y2,
        confidence: found.confidence,
        class_id: found.class_id,
        class: detector.label(found.class_id),
    };
    detections.iter().map(one).collect()
}

fn size((width, height): (u32, u32)) -> ImageSize {
    ImageSize { width, height }
}

impl<'a> PictureAnswer<'a> {
    pub(crate) fn new(model: &'a ServedModel, detector: &'a Detector, done: &Detections) -> Self {
        Self {
            status: "success",
            model: &model.name,
            version: model.version.to_string(),
            image_size: size(done.size),
            detections: found(&done.found, detector),
            timings_ms: Timings(done.stamps),
        }
    }
}

/// One of several pictures: its file's name, and what became of it.
pub(crate) type Outcome = (Option<String>, Result<Detections, Problem>);

impl<'a> BatchAnswer<'a> {
    pub(crate) fn new(model: &'a ServedModel, detector: &'a Detector, outcomes: &'a [Outcome], stamps: Stamps) -> Self {
        let (mut results, mut failures) = (Vec::new(), Vec::new());
        for (image_index, (filename, outcome)) in outcomes.iter().enumerate() {
            let filename = filename.as_deref();
            match outcome {
                Ok(done) => results.push(BatchResult {
                    filename,
                    image_index,
                    image_size: size(done.size),
                    detections: found(&done.found, detector),
                }),
                Err(problem) => failures.push(BatchFailure { filename, image_index, error: problem.body(None) }),
            }
        }
        let status = match (results.len(), failures.len()) {
            (_, 0) => "success",
            (0, _) => "error",
            _ => "partial",
        };
        Self {
            status,
            model: &model.name,
            version: model.version.to_string(),
            total_images: outcomes.len(),
            processed_images: results.len(),
            failed_images: failures.len(),
            results,
            failures,
            timings_ms: Timings(stamps),
        }
    }
}
