//! Pictures in, boxes out.

use std::sync::Arc;

use bytes::Bytes;
use caudal_batcher::{Failure, Job, OutputRows, Request};
use caudal_types::{DType, Shape, Stage, Stamps};
use caudal_vision::{
    Canvas, Detection, Family, InputFormat, Label, Layout, MAX_JPEG_SIDE, Normalisation, Thresholds, suppress,
};

use crate::{Call, Pictures, ServedModel, TaskError};

/// What a detector knows beside its weights.
#[derive(Debug)]
pub struct Detector {
    /// The layout of its output.
    pub family: Family,
    /// The picture it takes.
    pub format: InputFormat,
    /// What happens to the picture's values.
    pub normalisation: Normalisation,
    /// Class names.
    pub labels: Vec<Arc<str>>,
    /// Thresholds of requests that name none.
    pub defaults: Thresholds,
}

impl Detector {
    /// The name of class `class_id`.
    pub fn label(&self, class_id: usize) -> &str {
        self.labels.get(class_id).map_or("?", |label| label)
    }

    /// The class called `name`, or of that number.
    pub fn class(&self, name: &str) -> Option<usize> {
        let by_number = name.parse().ok().filter(|class| *class < self.labels.len());
        by_number.or_else(|| self.labels.iter().position(|label| **label == *name))
    }
}

/// What a request wants of a detector.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What a detection must have.
    pub thresholds: Thresholds,
    /// The classes that count; all when empty.
    pub classes: Vec<usize>,
    /// Whether the picture is wanted back with the boxes on it.
    pub draw: bool,
}

/// The answer to one picture.
#[derive(Debug)]
pub struct Detections {
    /// What was found, surest first, in pixels of the upright picture.
    pub found: Vec<Detection>,
    /// Width and height of the upright picture.
    pub size: (u32, u32),
    /// The picture with the boxes on it, as a JPEG, if that was asked for.
    pub drawn: Option<Vec<u8>>,
    /// Where the time went.
    pub stamps: Stamps,
}

impl ServedModel {
    /// Whether a picture would be given a seat now: if not, its bytes need not even be read.
    pub fn check_detect(&self, call: &Call) -> Result<(), TaskError> {
        Ok(self.queue.check(&self.detect_request(self.detector()?, call))?)
    }

    fn detect_request(&self, detector: &Detector, call: &Call) -> Request {
        Request { rows: 1, bytes: detector.format.values(), priority: call.priority, deadline: call.deadline }
    }

    /// Finds objects in the picture in `bytes`.
    ///
    /// The header is read and the seat taken before a pixel is decoded.
    pub async fn detect(
        &self,
        pictures: &Pictures,
        bytes: Bytes,
        ask: &Ask,
        call: &Call,
    ) -> Result<Detections, TaskError> {
        let detector = self.detector()?;
        let header = pictures.probe(call, &bytes).await?;
        let (width, height) = header.size();
        if ask.draw && width.max(height) > MAX_JPEG_SIDE {
            return Err(TaskError::TooLargeToDraw(width.max(height)));
        }
        call.trace.enter(Stage::Wait);
        let seat = self.queue.admit(self.detect_request(detector, call))?;
        let canvas = pictures.decode(call, &bytes, header, detector.format).await?;
        let found = seat.submit(Row::new(canvas, detector, ask), call.trace.clone()).await?;
        let mut drawn = None;
        if ask.draw {
            drawn = Some(pictures.draw(call, &bytes, header, labels(detector, &found)).await?);
            call.trace.enter(Stage::Encode);
        }
        Ok(Detections { found, size: header.size(), drawn, stamps: call.trace.stamps() })
    }
}

fn labels(detector: &Detector, found: &[Detection]) -> Vec<Label> {
    let text = |found: &Detection| format!("{} {:.2}", detector.label(found.class_id), found.confidence);
    found.iter().map(|found| Label { rect: found.rect, text: text(found), class_id: found.class_id }).collect()
}

/// One picture on its way through the batch.
struct Row {
    canvas: Canvas,
    shapes: [Shape; 1],
    normalisation: Normalisation,
    family: Family,
    thresholds: Thresholds,
    classes: Vec<usize>,
}

impl Row {
    fn new(canvas: Canvas, detector: &Detector, ask: &Ask) -> Self {
        Self {
            canvas,
            shapes: [row_shape(&detector.format)],
            normalisation: detector.normalisation,
            family: detector.family,
            thresholds: ask.thresholds,
            classes: ask.classes.clone(),
        }
    }
}

fn row_shape(format: &InputFormat) -> Shape {
    match format.layout {
        Layout::Planar => vec![1, 3, format.height, format.width],
        Layout::Interleaved => vec![1, format.height, format.width, 3],
    }
}

impl Job for Row {
    type Answer = Vec<Detection>;

    fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    fn fill(&self, _input: usize, rows: &mut [u8]) {
        self.canvas.write(&self.normalisation, bytemuck::cast_slice_mut(rows));
    }

    fn read(self, outputs: OutputRows<'_>) -> Result<Vec<Detection>, Failure> {
        let output = outputs.get(0).filter(|(view, _)| view.dtype == DType::F32);
        let Some((view, dims)) = output else {
            return Err(Failure::Failed("it gave no float32 output".to_owned()));
        };
        let values: &[f32] = bytemuck::try_cast_slice(view.bytes)
            .map_err(|_| Failure::Failed("its output is not aligned".to_owned()))?;
        let mut candidates = self.family.candidates(values, &dims, self.thresholds.conf);
        if !self.classes.is_empty() {
            candidates.retain(|candidate| self.classes.contains(&candidate.class_id));
        }
        let mut found = suppress(candidates, self.thresholds.iou, self.thresholds.max_det);
        let geometry = self.canvas.geometry();
        found.iter_mut().for_each(|found| found.rect = geometry.to_source(found.rect));
        Ok(found)
    }
}
