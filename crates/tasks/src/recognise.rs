//! What a model is for, from its settings or from its names and shapes.

use caudal_engine::{
    Dim, ModelSpec, TensorSpec,
    repository::{self as settings, ChannelOrder, ModelSettings},
};
use caudal_types::{DType, Shape};
use caudal_vision::{Family, Fit, InputFormat, Layout, Normalisation, Thresholds};

use crate::{Detector, Task, labels::parse_names};

/// The input size of a detector whose file leaves it free and whose settings say nothing: YOLO's usual one.
const USUAL_SIZE: usize = 640;

/// The picture that the model's first input takes, if it takes pictures: four dimensions, three channels, and
/// floating point.
pub(crate) fn picture_input(spec: &ModelSpec, settings: &ModelSettings) -> Option<InputFormat> {
    let [input] = &spec.inputs[..] else { return None };
    let [_, a, b, c] = &input.dims[..] else { return None };
    let (layout, height, width) = match (a.fixed(), c.fixed()) {
        (Some(3), _) => (Layout::Planar, b, c),
        (_, Some(3)) => (Layout::Interleaved, a, b),
        _ => return None,
    };
    if input.dtype != DType::F32 {
        return None;
    }
    let pre = &settings.preprocessing;
    let usual = pre.size.unwrap_or([USUAL_SIZE; 2]);
    Some(InputFormat {
        width: width.fixed().unwrap_or(usual[0]),
        height: height.fixed().unwrap_or(usual[1]),
        layout,
        bgr: pre.color == Some(ChannelOrder::Bgr),
        fit: match pre.fit {
            Some(settings::Fit::Stretch) => Fit::Stretch,
            _ => Fit::Letterbox,
        },
        pad: pre.pad.unwrap_or(114),
    })
}

/// The shape of each input for a warm-up of `rows` rows: what is free is one, or what the picture says.
pub(crate) fn warmup_shapes(spec: &ModelSpec, picture: Option<&InputFormat>, rows: usize) -> Vec<Shape> {
    let shape = |input: &TensorSpec| -> Shape {
        let mut shape: Shape = input.dims.iter().map(|dim| dim.fixed().unwrap_or(1)).collect();
        if let Some(picture) = picture {
            let sides = match picture.layout {
                Layout::Planar => [(2, picture.height), (3, picture.width)],
                Layout::Interleaved => [(1, picture.height), (2, picture.width)],
            };
            sides.into_iter().for_each(|(axis, length)| shape[axis] = length);
        }
        if let (Some(first), Some(Dim::Free(_))) = (shape.first_mut(), input.dims.first()) {
            *first = rows;
        }
        shape
    };
    spec.inputs.iter().map(shape).collect()
}

/// What the model is for; `outputs` are the shapes that its warm-up gave for one row, `file_labels` the class
/// names in its settings.
pub(crate) fn task(
    spec: &ModelSpec,
    settings: &ModelSettings,
    picture: Option<InputFormat>,
    outputs: Option<&[Shape]>,
    file_labels: Option<Vec<String>>,
) -> Result<Task, String> {
    match settings.kind.as_deref() {
        Some("tensors") => return Ok(Task::Tensors),
        None | Some("detect") => {}
        Some(other) => return Err(format!("kind {other:?} is not known; detect and tensors are")),
    }
    let wanted = settings.kind.is_some() || settings.family.is_some();
    let labels = file_labels.or_else(|| spec.notes.get("names").and_then(|names| parse_names(names)));
    let found = detector(spec, settings, picture, outputs, labels);
    match found {
        Ok(detector) => Ok(Task::Detect(Box::new(detector))),
        Err(reason) if wanted => Err(reason),
        Err(_) => Ok(Task::Tensors),
    }
}

fn detector(
    spec: &ModelSpec,
    settings: &ModelSettings,
    picture: Option<InputFormat>,
    outputs: Option<&[Shape]>,
    labels: Option<Vec<String>>,
) -> Result<Detector, String> {
    let format = picture.ok_or("it takes no pictures: one float32 input of four dimensions, three of them channels")?;
    if let Some(rows) = spec.inputs[0].dims[0].fixed().filter(|rows| *rows != 1) {
        return Err(format!("its first dimension is fixed at {rows}; export it with 1 or a free first dimension"));
    }
    let dims = match outputs {
        Some([dims]) if spec.outputs.first().is_some_and(|output| output.dtype == DType::F32) => match dims.first() {
            Some(1) => dims,
            _ => return Err(format!("its output of {dims:?} for one picture does not begin with 1")),
        },
        Some(_) => return Err("it has no single float32 output".to_owned()),
        None => return Err("its warm-up gave no output to recognise it by".to_owned()),
    };
    let family = match &settings.family {
        Some(name) => name.parse::<Family>()?,
        None => Family::recognise((format.width, format.height), dims, labels.as_ref().map(Vec::len))
            .ok_or_else(|| format!("no family of detectors gives an output of {dims:?}; say `family` in model.yaml"))?,
    };
    let classes = family.classes(dims).ok_or_else(|| format!("an output of {dims:?} is not one of {family}"))?;
    let labels = labels.unwrap_or_else(|| (0..classes).map(|class| format!("class_{class}")).collect());
    if labels.len() != classes {
        return Err(format!("it tells {classes} classes apart, and {} names are given", labels.len()));
    }
    let pre = &settings.preprocessing;
    let (scale, mean, std) =
        (pre.scale.unwrap_or(1.0 / 255.0), pre.mean.unwrap_or([0.0; 3]), pre.std.unwrap_or([1.0; 3]));
    Ok(Detector {
        family,
        format,
        normalisation: Normalisation::new(scale, mean, std),
        labels: labels.into_iter().map(Into::into).collect(),
        defaults: Thresholds {
            conf: settings.thresholds.conf.unwrap_or(0.25),
            iou: settings.thresholds.iou.unwrap_or(0.45),
            max_det: settings.thresholds.max_det.unwrap_or(300),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[usize], rows: Dim) -> TensorSpec {
        let dims = [rows].into_iter().chain(dims.iter().map(|length| Dim::Fixed(*length))).collect();
        TensorSpec { name: "t".to_owned(), dtype: DType::F32, dims }
    }

    /// Recognises a detector of 64 by 64 pixels and two classes whose first dimensions are `input` and `output`, of
    /// which a warm-up gave `rows`.
    fn recognise(settings: &str, input: Dim, output: Dim, rows: usize) -> Result<Task, String> {
        let settings = ModelSettings::parse(settings, "model.yaml").unwrap();
        let (inputs, outputs) = (vec![tensor(&[3, 64, 64], input)], vec![tensor(&[6, 84], output)]);
        let spec = ModelSpec { inputs, outputs, ..Default::default() };
        task(&spec, &settings, picture_input(&spec, &settings), Some(&[vec![rows, 6, 84]]), None)
    }

    #[test]
    fn a_detector_takes_one_picture_or_any_number() {
        let free = || Dim::Free("batch".to_owned());
        for (input, output) in [(Dim::Fixed(1), Dim::Fixed(1)), (free(), free()), (Dim::Fixed(1), free())] {
            assert!(matches!(recognise("", input, output, 1), Ok(Task::Detect(_))));
        }
    }

    #[test]
    fn a_first_dimension_that_is_fixed_at_more_is_refused_in_words() {
        let words =
            |task: Result<Task, String>| task.map(|task| task.name().to_owned()).unwrap_or_else(|reason| reason);
        let four = |settings: &str| words(recognise(settings, Dim::Fixed(4), Dim::Fixed(4), 4));
        let expected = "its first dimension is fixed at 4; export it with 1 or a free first dimension";
        assert_eq!(four("kind: detect"), expected);
        assert_eq!(four("family: yolov8"), expected);
        assert_eq!(four(""), "tensors");
        let output = words(recognise("kind: detect", Dim::Fixed(1), Dim::Fixed(4), 4));
        assert_eq!(output, "its output of [4, 6, 84] for one picture does not begin with 1");
    }
}
