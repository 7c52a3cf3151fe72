//! What is found in pictures, as JSON; `docs/schemas/pictures.rs` describes it.

use std::borrow::Cow;

use base64::{Engine, prelude::BASE64_STANDARD};
use caudal_tasks::{Detection, Found, Likely, Mask, PictureModel, Seen, Segment, ServedModel};
use caudal_types::StageTimes;
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::problem::{ErrorBody, Problem};

/// What was found in one picture.
#[derive(Debug, Serialize)]
pub(crate) struct PictureAnswer<'a> {
    status: &'static str,
    /// The model's name, also if it was asked for by an alias.
    model: &'a str,
    version: String,
    image_size: ImageSize,
    #[serde(flatten)]
    found: FoundAnswer<'a>,
    timings_ms: Timings,
}

/// What was found, by what the model looks for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FoundAnswer<'a> {
    /// Objects, surest first.
    Detections(Vec<Object<'a>>),
    /// What the whole picture shows, likeliest first.
    Classifications(Vec<Class<'a>>),
    /// Which pixels belong to what.
    Segments(Vec<Area<'a>>),
}

/// Size of the upright picture, in pixels.
#[derive(Debug, Serialize)]
pub(crate) struct ImageSize {
    width: u32,
    height: u32,
}

/// One object found; corners in pixels of the picture.
#[derive(Debug, Serialize)]
pub(crate) struct Object<'a> {
    x1: f32,
    y1: f32,
    x2: f32,
    y2: f32,
    /// 0 to 1.
    confidence: f32,
    class_id: usize,
    class: Cow<'a, str>,
}

/// What a picture may show.
#[derive(Debug, Serialize)]
pub(crate) struct Class<'a> {
    class_id: usize,
    class: Cow<'a, str>,
    /// 0 to 1.
    confidence: f32,
}

/// The pixels of one class.
#[derive(Debug, Serialize)]
pub(crate) struct Area<'a> {
    class_id: usize,
    class: Cow<'a, str>,
    /// How much of the picture they are, 0 to 1.
    area: f32,
    mask: MaskAnswer,
}

/// Which pixels, in the picture's size.
#[derive(Debug, Serialize)]
#[serde(tag = "encoding", rename_all = "lowercase")]
pub(crate) enum MaskAnswer {
    /// A PNG of one channel, 255 within and 0 outside, in Base64.
    Png {
        /// The file.
        data: String,
    },
    /// COCO's run lengths.
    Rle {
        /// Height and width.
        size: [u32; 2],
        /// Column after column, the first run outside.
        counts: Vec<u32>,
    },
}

/// Milliseconds at each stage, and in all.
#[derive(Debug)]
pub(crate) struct Timings(StageTimes);

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
#[derive(Debug, Serialize)]
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
#[derive(Debug, Serialize)]
pub(crate) struct BatchResult<'a> {
    filename: Option<&'a str>,
    image_index: usize,
    image_size: ImageSize,
    #[serde(flatten)]
    found: FoundAnswer<'a>,
}

/// Why one of several pictures failed.
#[derive(Debug, Serialize)]
pub(crate) struct BatchFailure<'a> {
    filename: Option<&'a str>,
    image_index: usize,
    error: ErrorBody<'a>,
}

fn found<'a>(seen: &Seen, model: &'a PictureModel) -> FoundAnswer<'a> {
    match &seen.found {
        Found::Objects(found) => FoundAnswer::Detections(found.iter().map(|found| object(found, model)).collect()),
        Found::Classes(found) => FoundAnswer::Classifications(found.iter().map(|found| class(found, model)).collect()),
        Found::Segments(found) => {
            FoundAnswer::Segments(found.iter().map(|found| segment(found, model, seen.size)).collect())
        }
    }
}

fn object<'a>(found: &Detection, model: &'a PictureModel) -> Object<'a> {
    Object {
        x1: found.rect.x1,
        y1: found.rect.y1,
        x2: found.rect.x2,
        y2: found.rect.y2,
        confidence: found.confidence,
        class_id: found.class_id,
        class: model.label(found.class_id),
    }
}

fn class<'a>(found: &Likely, model: &'a PictureModel) -> Class<'a> {
    Class { class_id: found.class_id, class: model.label(found.class_id), confidence: found.confidence }
}

fn segment<'a>(found: &Segment, model: &'a PictureModel, (width, height): (u32, u32)) -> Area<'a> {
    let mask = match &found.mask {
        Mask::Png(file) => MaskAnswer::Png { data: BASE64_STANDARD.encode(file) },
        Mask::Rle(counts) => MaskAnswer::Rle { size: [height, width], counts: counts.clone() },
    };
    Area { class_id: found.class_id, class: model.label(found.class_id), area: found.area, mask }
}

fn size((width, height): (u32, u32)) -> ImageSize {
    ImageSize { width, height }
}

impl<'a> PictureAnswer<'a> {
    pub(crate) fn new(model: &'a ServedModel, pictures: &'a PictureModel, seen: &Seen) -> Self {
        Self {
            status: "success",
            model: &model.name,
            version: model.version.to_string(),
            image_size: size(seen.size),
            found: found(seen, pictures),
            timings_ms: Timings(seen.stamps),
        }
    }
}

/// One of several pictures: its file's name, and what became of it.
pub(crate) type Outcome = (Option<String>, Result<Seen, Problem>);

impl<'a> BatchAnswer<'a> {
    pub(crate) fn new(
        model: &'a ServedModel,
        pictures: &'a PictureModel,
        outcomes: &'a [Outcome],
        stamps: StageTimes,
    ) -> Self {
        let (mut results, mut failures) = (Vec::new(), Vec::new());
        for (image_index, (filename, outcome)) in outcomes.iter().enumerate() {
            let filename = filename.as_deref();
            match outcome {
                Ok(seen) => results.push(BatchResult {
                    filename,
                    image_index,
                    image_size: size(seen.size),
                    found: found(seen, pictures),
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
