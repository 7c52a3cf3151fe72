//! `detect`: what is on a picture.

use caudal_flow::{Action, Answer, Call, Map, Registry, Started, StepError, Value, value};
use caudal_tasks::{
    Ask, Detection, Found, Likely, Look, Mask, MaskForm, PictureModel, Seen, Segment, ServedModel, Thresholds,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Serving, Urgency, failed, model, present, way, within};
use crate::{
    aside::aside,
    files::Folder,
    plain::{add, leaf},
};

const ABOUT: &str = "Runs a vision model on an image and returns detections, classifications or segments, depending on \
                    the model. The image is the input: bytes, a Base64 string, or {path: …} of a file in the folder \
                    that the server opens for pipelines. Concurrent runs share the model's batches.";

/// More boxes than this in one answer are no answer.
const MAX_DET: usize = 30_000;
/// Classes of a classification that are told where nobody says how many.
const TOP_K: usize = 5;

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Name or alias of the model; may be omitted if there is only one detector.
    #[serde(default)]
    model: Option<String>,
    /// Minimum confidence, 0 to 1.
    #[serde(default)]
    conf: Option<f32>,
    /// IoU above which the less confident of two boxes of a class is suppressed, 0 to 1.
    #[serde(default)]
    iou: Option<f32>,
    /// Maximum number of boxes.
    #[serde(default)]
    max_det: Option<usize>,
    /// Classes to report, by name or number; default: all.
    #[serde(default)]
    classes: Vec<Class>,
    /// Maximum number of classes of a classification.
    #[serde(default)]
    top_k: Option<usize>,
    /// Encoding of masks.
    #[serde(default)]
    masks: Masks,
    /// Also return the image with the results drawn on it, as a JPEG in `drawn`.
    #[serde(default)]
    draw: bool,
    /// Priority in the queue.
    #[serde(default)]
    priority: Urgency,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Class {
    Number(u32),
    Name(String),
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Masks {
    /// A PNG, as bytes.
    #[default]
    Png,
    /// COCO's run lengths.
    Rle,
}

struct Detect {
    said: Value,
    settings: Settings,
    models: Option<Serving>,
    folder: Folder,
}

pub(super) fn register(registry: &mut Registry, models: Option<&Serving>, folder: &Folder) {
    let (models, folder) = (models.cloned(), folder.clone());
    let make = move |said: &Value, settings: Settings| {
        settings.check()?;
        Ok(Detect { said: said.clone(), settings, models: models.clone(), folder: folder.clone() })
    };
    add(registry, "detect", leaf::<Settings, _>(ABOUT, make));
}

impl Action for Detect {
    fn identity(&self) -> Value {
        Value::list([Value::text("detect"), self.said.clone()])
    }

    fn start(&self, call: Call) -> Started<'_> {
        Started::Later(Box::pin(async move { self.look(&call).await }))
    }
}

impl Detect {
    async fn look(&self, call: &Call) -> Answer {
        let models = present(self.models.as_ref()).await?;
        let name = match &self.settings.model {
            Some(name) => name.clone(),
            None => models.catalog.now().only("detect").map(str::to_owned).ok_or_else(unnamed)?,
        };
        let served = model(&models, &name, call).await?;
        let ask = self.settings.ask(served.picture_model().map_err(|error| failed(&error))?)?;
        let picture = self.folder.picture(&call.input).await?;
        let way = way(call, self.settings.priority);
        let seen = within(call, served.see(&models.pictures, picture, &ask, &way)).await?;
        let size = if matches!(seen.found, Found::Segments(_)) { usize::MAX } else { seen.found.count() * 128 };
        aside(size, move || written(&served, seen)).await
    }
}

fn unnamed() -> StepError {
    let error = StepError::input("no model is named, and there is not exactly one detector");
    error.hint("say model; caudal models list names them").for_good()
}

impl Settings {
    fn check(&self) -> Result<(), String> {
        let unit = |name: &str, value: Option<f32>| match value {
            Some(value) if !(0.0..=1.0).contains(&value) => {
                Err(format!("{name}: a number between 0 and 1, not {value}"))
            }
            _ => Ok(()),
        };
        let count = |name: &str, value: Option<usize>| match value {
            Some(value) if !(1..=MAX_DET).contains(&value) => {
                Err(format!("{name}: a whole number from 1 to {MAX_DET}, not {value}"))
            }
            _ => Ok(()),
        };
        unit("conf", self.conf)?;
        unit("iou", self.iou)?;
        count("max_det", self.max_det)?;
        count("top_k", self.top_k)
    }

    /// What is asked of this model.
    fn ask(&self, model: &PictureModel) -> Result<Ask, StepError> {
        if self.draw && matches!(model.look, Look::Classify { .. }) {
            return Err(StepError::input("a classification has no place on the picture")
                .hint("leave draw out")
                .for_good());
        }
        let usual = model.thresholds();
        let thresholds = Thresholds {
            conf: self.conf.unwrap_or(usual.conf),
            iou: self.iou.unwrap_or(usual.iou),
            max_det: self.max_det.unwrap_or(usual.max_det),
        };
        let masks = match self.masks {
            Masks::Png => MaskForm::Png,
            Masks::Rle => MaskForm::Rle,
        };
        let classes = self.classes.iter().map(|class| class.of(model)).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(Ask { thresholds, classes, top_k: self.top_k.unwrap_or(TOP_K), masks, draw: self.draw })
    }
}

impl Class {
    fn of(&self, model: &PictureModel) -> Result<Vec<usize>, StepError> {
        let name = match self {
            Self::Number(number) => number.to_string(),
            Self::Name(name) => name.clone(),
        };
        let classes = model.classes(&name);
        if classes.is_empty() {
            let error = StepError::input(format!("the model knows no class {:?}", caudal_types::shorten(&name)));
            return Err(error.hint("name one of its classes; caudal models show lists them").for_good());
        }
        Ok(classes)
    }
}

/// As the answer to a request by HTTP, without its times.
fn written(served: &ServedModel, seen: Seen) -> Answer {
    let model = served.picture_model().map_err(|error| failed(&error))?;
    let (name, found) = match &seen.found {
        Found::Objects(found) => ("detections", Value::list(found.iter().map(|found| object(found, model)))),
        Found::Classes(found) => ("classifications", Value::list(found.iter().map(|found| class(found, model)))),
        Found::Segments(found) => ("segments", Value::list(found.iter().map(|found| segment(found, model, seen.size)))),
    };
    let (width, height) = seen.size;
    let all = value!({
        "model": served.name, "version": served.version.to_string(), "image_size": {"width": width, "height": height},
    });
    let all = all.as_map().cloned().unwrap_or_default().with(name, found);
    Ok(Value::Map(match seen.drawn {
        Some(jpeg) => all.with("drawn", Value::Bytes(jpeg.into())),
        None => all,
    }))
}

fn object(found: &Detection, model: &PictureModel) -> Value {
    let Detection { rect, confidence, class_id } = *found;
    let corners = [("x1", rect.x1), ("y1", rect.y1), ("x2", rect.x2), ("y2", rect.y2)];
    let corners = corners.map(|(name, at)| (name, number(at)));
    Value::Map(corners.into_iter().chain(what(class_id, model)).chain([("confidence", number(confidence))]).collect())
}

fn class(found: &Likely, model: &PictureModel) -> Value {
    let sure = [("confidence", number(found.confidence))];
    Value::Map(what(found.class_id, model).into_iter().chain(sure).collect())
}

fn segment(found: &Segment, model: &PictureModel, (width, height): (u32, u32)) -> Value {
    let mask: Map = match &found.mask {
        Mask::Png(file) => {
            [("encoding", value!("png")), ("data", Value::Bytes(file.clone().into()))].into_iter().collect()
        }
        Mask::Rle(counts) => {
            let counts = Value::list(counts.iter().map(|count| Value::from(*count)));
            [("encoding", value!("rle")), ("size", value!([height, width])), ("counts", counts)].into_iter().collect()
        }
    };
    let rest = [("area", number(found.area)), ("mask", mask.into())];
    Value::Map(what(found.class_id, model).into_iter().chain(rest).collect())
}

fn what(class_id: usize, model: &PictureModel) -> [(&'static str, Value); 2] {
    [("class_id", class_id.into()), ("class", Value::text(&*model.label(class_id)))]
}

/// With the digits that it has, not those of the wider number that is nearest.
fn number(narrow: f32) -> Value {
    narrow.to_string().parse::<f64>().unwrap_or(f64::from(narrow)).into()
}
