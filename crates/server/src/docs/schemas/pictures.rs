//! What is found in pictures. Which of the three lists an answer has follows from the model's task.

use std::collections::BTreeMap;

use utoipa::ToSchema;

use crate::problem::ErrorBody;

/// What was found in one picture.
#[derive(ToSchema)]
pub(crate) struct PictureAnswer {
    /// `success`.
    #[schema(example = "success")]
    status: String,
    /// The model's name, also if an alias was asked.
    model: String,
    version: String,
    image_size: ImageSize,
    /// Of a detector: objects, the most confident first.
    #[schema(nullable = false)]
    detections: Option<Vec<Detection>>,
    /// Of a classifier: classes of the whole picture, the most likely first.
    #[schema(nullable = false)]
    classifications: Option<Vec<Classification>>,
    /// Of a segmentation: the pixels of each class.
    #[schema(nullable = false)]
    segments: Option<Vec<Segment>>,
    /// Milliseconds of each stage, and `total`.
    timings_ms: BTreeMap<String, f64>,
}

/// Size of the upright picture, in pixels.
#[derive(ToSchema)]
struct ImageSize {
    width: u32,
    height: u32,
}

/// An object: its box in pixels of the picture, its class, its confidence.
#[derive(ToSchema)]
#[schema(example = json!({"x1": 112.4, "y1": 40.1, "x2": 438.0, "y2": 377.5, "confidence": 0.87, "class_id": 5, "class": "bus"}))]
struct Detection {
    /// Left edge.
    x1: f32,
    /// Upper edge.
    y1: f32,
    /// Right edge.
    x2: f32,
    /// Lower edge.
    y2: f32,
    #[schema(minimum = 0, maximum = 1)]
    confidence: f32,
    class_id: usize,
    class: String,
}

/// A class of the whole picture.
#[derive(ToSchema)]
struct Classification {
    class_id: usize,
    class: String,
    #[schema(minimum = 0, maximum = 1)]
    confidence: f32,
}

/// The pixels of one class.
#[derive(ToSchema)]
struct Segment {
    class_id: usize,
    class: String,
    /// Its share of the picture.
    #[schema(minimum = 0, maximum = 1)]
    area: f32,
    mask: SegmentMask,
}

/// Which pixels, at the picture's size: `data` with `png`, `size` and `counts` with `rle`.
#[derive(ToSchema)]
struct SegmentMask {
    #[schema(inline)]
    encoding: super::MaskFormat,
    /// A PNG of one channel in Base64: 255 inside, 0 outside.
    #[schema(nullable = false)]
    data: Option<String>,
    /// Height and width.
    #[schema(nullable = false, min_items = 2, max_items = 2)]
    size: Option<Vec<u32>>,
    /// COCO's run lengths: column by column, the first run outside.
    #[schema(nullable = false)]
    counts: Option<Vec<u32>>,
}

/// What was found in several pictures.
#[derive(ToSchema)]
pub(crate) struct BatchAnswer {
    status: BatchStatus,
    model: String,
    version: String,
    total_images: usize,
    processed_images: usize,
    failed_images: usize,
    results: Vec<BatchResult>,
    /// Pictures that failed; absent where none did.
    #[schema(required = false)]
    failures: Vec<BatchFailure>,
    /// Milliseconds of each stage, and `total`.
    timings_ms: BTreeMap<String, f64>,
}

/// Whether all, some or none of the pictures succeeded.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum BatchStatus {
    Success,
    Partial,
    Error,
}

/// What was found in one of several pictures.
#[derive(ToSchema)]
struct BatchResult {
    filename: Option<String>,
    image_index: usize,
    image_size: ImageSize,
    #[schema(nullable = false)]
    detections: Option<Vec<Detection>>,
    #[schema(nullable = false)]
    classifications: Option<Vec<Classification>>,
    #[schema(nullable = false)]
    segments: Option<Vec<Segment>>,
}

/// Why one of several pictures failed.
#[derive(ToSchema)]
struct BatchFailure {
    filename: Option<String>,
    image_index: usize,
    error: ErrorBody<'static>,
}
