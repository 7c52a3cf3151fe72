//! Pictures in, what is on them out. The one place to read: header, seat, decode, submit, draw.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use caudal_batcher::{EntryRequest, Failure, Job, OutputRows};
use caudal_types::{DType, Shape, Stage, TensorView};
use caudal_vision::{
    Activation, Canvas, ClassMap, Detection, Element, Geometry, Grid, Head, Header, InputFormat, Label, Layout, Likely,
    MAX_JPEG_SIDE, MaskHead, Normalisation, Output, Pixels, Values, draw, likeliest, suppress, tint,
};
use half::{
    f16,
    slice::{HalfBitsSliceExt as _, HalfFloatSliceExt as _},
};

use crate::{Ask, Call, Found, Look, PictureModel, Pictures, Seen, Segment, ServedModel, TaskError};

impl ServedModel {
    /// Whether a picture would be given a seat now: if not, its bytes need not even be read.
    pub fn check_see(&self, call: &Call) -> Result<(), TaskError> {
        call.trace.set_model(&self.id);
        Ok(self.queue.check_admission(&request(&self.picture_model()?.format, call))?)
    }

    /// Looks at the picture in `bytes`.
    ///
    /// The header is read and the seat taken before a pixel is decoded.
    pub async fn see(&self, pictures: &Pictures, bytes: Bytes, ask: &Ask, call: &Call) -> Result<Seen, TaskError> {
        let model = self.picture_model()?;
        let header = pictures.probe(call, &bytes).await?;
        let (width, height) = header.size();
        if ask.draw && width.max(height) > MAX_JPEG_SIDE {
            return Err(TaskError::TooLargeToDraw(width.max(height)));
        }
        let view = View { served: self, model, pictures, bytes: &bytes, header, call };
        let (found, drawn) = match &model.look {
            Look::Detect(head) => view.objects(head, ask).await?,
            Look::Classify { .. } => view.classes(ask).await?,
            Look::Segment(head) => view.segments(*head, ask).await?,
        };
        if drawn.is_some() {
            call.trace.enter(Stage::Encode);
        }
        Ok(Seen { found, size: (width, height), drawn, stamps: call.trace.stage_times() })
    }
}

fn request(format: &InputFormat, call: &Call) -> EntryRequest {
    EntryRequest { rows: 1, tokens: 0, bytes: format.values(), priority: call.priority, deadline: call.deadline }
}

/// What was found, and the picture with it on.
type Shown = (Found, Option<Vec<u8>>);

/// A model's view of one picture.
struct View<'a> {
    served: &'a ServedModel,
    model: &'a PictureModel,
    pictures: &'a Pictures,
    bytes: &'a Bytes,
    header: Header,
    call: &'a Call,
}

impl View<'_> {
    /// Takes a seat, decodes, runs, reads.
    async fn run<R: Read>(&self, reader: R) -> Result<R::Answer, TaskError> {
        let Self { call, model, .. } = self;
        call.trace.enter(Stage::Wait);
        let seat = self.served.queue.admit(request(&model.format, call))?;
        let canvas = self.pictures.decode(call, self.bytes, self.header, model.format).await?;
        Ok(seat.submit(Row::new(canvas, model, reader), call.trace.clone()).await?)
    }

    async fn objects(&self, head: &Arc<Head>, ask: &Ask) -> Result<Shown, TaskError> {
        let (found, dropped) = self.run(Boxes { head: Arc::clone(head), ask: ask.clone() }).await?;
        self.model.dropped.add(&self.served.name, dropped);
        let labels = self.labels(&found);
        let drawn = match ask.draw {
            true => Some(self.pictures.draw(self.call, self.bytes, self.header, move |p| draw(p, &labels)).await?),
            false => None,
        };
        Ok((Found::Objects(found), drawn))
    }

    async fn classes(&self, ask: &Ask) -> Result<Shown, TaskError> {
        let reader = Classes { ask: ask.clone(), activation: self.model.activation };
        let (found, dropped) = self.run(reader).await?;
        self.model.dropped.add(&self.served.name, dropped);
        Ok((Found::Classes(found), None))
    }

    fn labels(&self, found: &[Detection]) -> Vec<Label> {
        let text = |found: &Detection| format!("{} {:.2}", self.model.label(found.class_id), found.confidence);
        found.iter().map(|found| Label { rect: found.rect, text: text(found), class_id: found.class_id }).collect()
    }

    async fn segments(&self, head: MaskHead, ask: &Ask) -> Result<Shown, TaskError> {
        let (grid, geometry) = self.run(Masks { head, activation: self.model.activation }).await?;
        let (nothing, asked) = (self.model.nothing(), ask.clone());
        let (small, threshold) = (grid.clone(), ask.thresholds.conf);
        // The map of classes, and a mask as it is written.
        let held = self.pictures.take(u64::from(geometry.source.0) * u64::from(geometry.source.1) * 2).await?;
        let spread = move |_: &mut _| {
            let found = segments(&grid.spread(&geometry, threshold), &asked, nothing);
            drop(held);
            found
        };
        let found = self.pictures.decoders().run(self.call, Stage::Encode, spread).await?;
        let shown: Vec<usize> = found.iter().map(|segment| segment.class_id).collect();
        let drawn = match ask.draw {
            true => {
                // Spread again: the large map would have to wait for the memory to draw in.
                let paint = move |pixels: Pixels<'_>| tint(pixels, &small.spread(&geometry, threshold), &shown);
                Some(self.pictures.draw(self.call, self.bytes, self.header, paint).await?)
            }
            false => None,
        };
        Ok((Found::Segments(found), drawn))
    }
}

fn segments(map: &ClassMap, ask: &Ask, nothing: Option<usize>) -> Vec<Segment> {
    let areas = map.areas();
    let pixels = map.pixels().max(1) as f32;
    let wanted = |class: &usize| match ask.classes.is_empty() {
        true => Some(*class) != nothing,
        false => ask.classes.contains(class),
    };
    let found = (0..areas.len()).filter(|class| areas[*class] > 0).filter(wanted);
    found
        .map(|class_id| Segment {
            class_id,
            area: areas[class_id] as f32 / pixels,
            mask: map.mask(class_id, ask.masks),
        })
        .collect()
}

/// Makes an answer of what a model gave for one picture.
trait Read: Send + 'static {
    type Answer: Send + 'static;

    fn read(self, outputs: OutputRows<'_>, geometry: &Geometry) -> Result<Self::Answer, Failure>;
}

/// One picture on its way through the batch.
struct Row<R> {
    canvas: Canvas,
    shapes: [Shape; 1],
    normalisation: Normalisation,
    reader: R,
}

impl<R> Row<R> {
    fn new(canvas: Canvas, model: &PictureModel, reader: R) -> Self {
        Self { canvas, shapes: [row_shape(&model.format)], normalisation: model.normalisation, reader }
    }
}

pub(crate) fn row_shape(format: &InputFormat) -> Shape {
    match format.layout {
        Layout::Planar => vec![1, 3, format.height, format.width],
        Layout::Interleaved => vec![1, format.height, format.width, 3],
    }
}

/// Writes `canvas` as the model takes it.
pub(crate) fn write_row(canvas: &Canvas, normalisation: &Normalisation, row: &mut [u8]) {
    match canvas.format().element {
        Element::F32 => canvas.write(normalisation, bytemuck::cast_slice_mut(row)),
        Element::F16 => {
            let mut values = vec![0f32; canvas.format().values()];
            canvas.write(normalisation, &mut values);
            let halves: &mut [f16] = bytemuck::cast_slice_mut::<u8, u16>(row).reinterpret_cast_mut();
            halves.convert_from_f32_slice(&values);
        }
        Element::U8 => row.copy_from_slice(canvas.values()),
    }
}

impl<R: Read> Job for Row<R> {
    type Answer = R::Answer;

    fn shapes(&self) -> &[Shape] {
        &self.shapes
    }

    fn write_rows(&self, _input: usize, rows: &mut [u8]) {
        write_row(&self.canvas, &self.normalisation, rows);
    }

    fn read_outputs(self, outputs: OutputRows<'_>) -> Result<R::Answer, Failure> {
        self.reader.read(outputs, self.canvas.geometry())
    }
}

/// Numbers of an output.
pub(crate) enum Numbers<'a> {
    Given(Values<'a>),
    /// They had 16 bits.
    Widened(Vec<f32>),
}

impl Numbers<'_> {
    pub(crate) fn values(&self) -> Values<'_> {
        match self {
            Self::Given(values) => *values,
            Self::Widened(values) => Values::F32(values),
        }
    }
}

/// Output `index`, if it has numbers of a kind that these models give.
fn numbers<'a>(outputs: &OutputRows<'a>, index: usize) -> Result<(Numbers<'a>, Shape), Failure> {
    let odd = || Failure::Failed("its outputs are not those it has shown before".to_owned());
    let (view, dims) = outputs.output(index).ok_or_else(odd)?;
    Ok((numbers_of(&view).ok_or_else(odd)?, dims))
}

/// The numbers of a tensor, if they are of a kind that these models give.
pub(crate) fn numbers_of<'a>(view: &TensorView<'a>) -> Option<Numbers<'a>> {
    match view.dtype {
        DType::F32 => bytemuck::try_cast_slice(view.bytes).map(Values::F32).map(Numbers::Given).ok(),
        DType::I32 => bytemuck::try_cast_slice(view.bytes).map(Values::I32).map(Numbers::Given).ok(),
        DType::I64 => bytemuck::try_cast_slice(view.bytes).map(Values::I64).map(Numbers::Given).ok(),
        DType::F16 => {
            let each = view.bytes.as_chunks::<2>().0.iter();
            Some(Numbers::Widened(each.map(|bytes| f16::from_ne_bytes(*bytes).to_f32()).collect()))
        }
        _ => None,
    }
}

/// The floats of the first output, of which there must be `count`.
fn floats<'a>(outputs: &OutputRows<'a>, count: usize) -> Result<Cow<'a, [f32]>, Failure> {
    match numbers(outputs, 0)?.0 {
        Numbers::Given(Values::F32(values)) if values.len() == count => Ok(values.into()),
        Numbers::Widened(values) if values.len() == count => Ok(values.into()),
        _ => Err(Failure::Failed("its output has not the shape it has shown before".to_owned())),
    }
}

struct Boxes {
    head: Arc<Head>,
    ask: Ask,
}

impl Read for Boxes {
    /// What was found, and how much was dropped.
    type Answer = (Vec<Detection>, usize);

    fn read(self, outputs: OutputRows<'_>, geometry: &Geometry) -> Result<Self::Answer, Failure> {
        let Self { head, ask } = self;
        let read = head.outputs().iter().map(|index| numbers(&outputs, *index)).collect::<Result<Vec<_>, _>>()?;
        let outputs: Vec<_> = read.iter().map(|(values, dims)| Output { dims, values: values.values() }).collect();
        let (mut candidates, dropped) = head.candidates(&outputs, ask.thresholds.conf);
        if !ask.classes.is_empty() {
            candidates.retain(|candidate| ask.classes.contains(&candidate.class_id));
        }
        // Where the network has removed duplicates, boxes may overlap as they like.
        let iou = if head.suppresses() { 1.0 } else { ask.thresholds.iou };
        let mut found = suppress(candidates, iou, ask.thresholds.max_det);
        found.iter_mut().for_each(|found| found.rect = geometry.to_source(found.rect));
        Ok((found, dropped))
    }
}

struct Classes {
    ask: Ask,
    activation: Activation,
}

impl Read for Classes {
    /// What was found, and how much was dropped.
    type Answer = (Vec<Likely>, usize);

    fn read(self, outputs: OutputRows<'_>, _geometry: &Geometry) -> Result<Self::Answer, Failure> {
        let Self { ask, activation } = self;
        let (values, _) = numbers(&outputs, 0)?;
        let Values::F32(scores) = values.values() else {
            return Err(Failure::Failed("its likelihoods are no floats".to_owned()));
        };
        let (mut found, dropped) = likeliest(scores, activation, ask.thresholds.conf);
        if !ask.classes.is_empty() {
            found.retain(|class| ask.classes.contains(&class.class_id));
        }
        found.truncate(ask.top_k);
        Ok((found, dropped))
    }
}

struct Masks {
    head: MaskHead,
    activation: Activation,
}

impl Read for Masks {
    type Answer = (Grid, Geometry);

    fn read(self, outputs: OutputRows<'_>, geometry: &Geometry) -> Result<(Grid, Geometry), Failure> {
        let scores = floats(&outputs, self.head.values())?;
        Ok((self.head.read(&scores, self.activation), *geometry))
    }
}
