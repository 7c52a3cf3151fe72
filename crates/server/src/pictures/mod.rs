//! Pictures in, what is on them out: the detector API.

mod answer;
mod multipart;
mod upload;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_tasks::{Ask, Call, Found, Seen, ServedModel, within};
use caudal_types::{ErrorKind, Stage, shorten};
use futures_util::future::join_all;

pub(crate) use self::answer::{BatchAnswer, PictureAnswer};
use self::{
    answer::Outcome,
    upload::{Picture, Upload},
};
use crate::{
    app::App,
    docs::schemas,
    http::{
        Path, aside,
        door::{self, Answer, Visit},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// A form with a picture in it, for the API's description.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the form, which is read part by part")]
pub(crate) struct PictureForm {
    /// The picture. `image` is another name for it; `images` may come several times.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// A form with several pictures in it, for the API's description.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "describes the form, which is read part by part")]
pub(crate) struct PicturesForm {
    /// The pictures.
    #[schema(value_type = Vec<schemas::Binary>)]
    images: Vec<Vec<u8>>,
}

/// What a request may say beside its picture, in the query or as fields of the form.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters, which `Query` reads")]
pub(crate) struct DetectParams {
    /// Least confidence; of a segmentation with one class, the least probability of a pixel.
    #[param(minimum = 0, maximum = 1)]
    conf: Option<f32>,
    /// Overlap (IoU) above which the less confident of two boxes of a class is removed.
    #[param(minimum = 0, maximum = 1)]
    iou: Option<f32>,
    /// Most boxes in an answer.
    #[param(minimum = 1, maximum = 30000)]
    max_det: Option<usize>,
    /// Classes that count, by number or name, comma-separated; a name with a comma stands in double quotes. May be given
    /// several times.
    classes: Option<String>,
    /// Most classes of a classification; 5 when absent.
    #[param(minimum = 1, maximum = 30000)]
    top_k: Option<usize>,
    /// How masks are written.
    #[param(value_type = Option<schemas::MaskFormat>, inline)]
    masks: Option<String>,
    /// Milliseconds after which the request is given up with 504.
    #[param(exclusive_minimum = 0)]
    timeout_ms: Option<f64>,
    /// The place in the queue.
    #[param(value_type = Option<schemas::PriorityName>, inline)]
    priority: Option<String>,
    /// Answer the picture as a JPEG with the boxes on it; for one picture only.
    draw: Option<bool>,
}

/// Predicts objects, classes or masks of an image, depending on the model.
///
/// The image is the form field `file` (or `image`), or the body itself as `image/*`. Several images in `images` are
/// answered like `/predict_batch`.
#[utoipa::path(
    post,
    path = "/predict/{model}",
    operation_id = "predict_picture",
    tag = "pictures",
    params(
        ("model" = String, Path, description = "name or alias of a model; GET /v1/models lists them", example = "small"),
        DetectParams,
    ),
    request_body(content(
        (PictureForm = "multipart/form-data"),
        (schemas::Binary = "image/jpeg"),
        (schemas::Binary = "image/png"),
        (schemas::Binary = "image/webp"),
    )),
    responses(
        (status = 200, content((schemas::PictureAnswer = "application/json"), (schemas::Binary = "image/jpeg")), description = "what was found; with `draw`, the picture with the boxes on it"),
        (status = "4XX", body = ErrorAnswer),
        (status = "5XX", body = ErrorAnswer),
    ),
)]
pub(crate) async fn predict(State(app): State<Arc<App>>, Path(model): Path<String>, request: Request) -> Response {
    door::work(app, Route::Predict, request, |app, visit, request| run(app, visit, request, Some(model), Form::AsSent))
        .await
}

/// Predicts several images; one that fails does not fail the others.
#[utoipa::path(
    post,
    path = "/predict_batch/{model}",
    operation_id = "predict_pictures",
    tag = "pictures",
    params(("model" = String, Path, description = "name or alias of a model; GET /v1/models lists them", example = "small"), DetectParams),
    request_body(content = PicturesForm, content_type = "multipart/form-data"),
    responses((status = 200, body = schemas::BatchAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn predict_batch(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
    request: Request,
) -> Response {
    door::work(app, Route::PredictBatch, request, |app, visit, request| {
        run(app, visit, request, Some(model), Form::Batch)
    })
    .await
}

/// Predicts objects of an image, with the model and all parameters as form fields or query parameters. Without `model`,
/// the only detector is used.
#[utoipa::path(
    post,
    path = "/api/v1/inference/image",
    operation_id = "infer_image",
    tag = "pictures",
    params(("model" = Option<String>, Query, description = "name or alias of a model; may be left out where one model detects"), DetectParams),
    request_body(content = PictureForm, content_type = "multipart/form-data"),
    responses((status = 200, content((schemas::PictureAnswer = "application/json"), (schemas::Binary = "image/jpeg"))), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn inference_image(State(app): State<Arc<App>>, request: Request) -> Response {
    door::work(app, Route::InferenceImage, request, |app, visit, request| run(app, visit, request, None, Form::AsSent))
        .await
}

/// The form of the answer.
#[derive(PartialEq)]
enum Form {
    /// One picture, one answer; several, a batch.
    AsSent,
    Batch,
}

async fn run(
    app: Arc<App>,
    mut visit: Visit,
    request: Request,
    name: Option<String>,
    form: Form,
) -> Result<Answer, Problem> {
    // What the query already says wrong, and what has no room, costs no upload.
    if let Some(model) = named(&app, &visit, name.as_deref()).await? {
        visit.query.ask(model.picture_model()?)?;
        model.check_see(&visit.call)?;
    }
    let upload = Upload::read(&app, request, &mut visit.query, &visit.call).await?;
    // Fields of the form may have said more.
    visit.query.apply(&mut visit.call)?;
    let model = match named(&app, &visit, name.as_deref()).await? {
        Some(model) => model,
        None => {
            let only = app.catalog.now().only("detect").map(str::to_owned);
            app.catalog.demand(&only.ok_or_else(no_model)?, None, visit.id.as_str(), Some(&visit.call.trace)).await?
        }
    };
    let ask = visit.query.ask(model.picture_model()?)?;
    let work = async {
        match &upload.pictures[..] {
            [picture] if form == Form::AsSent => one(&app, &model, &ask, &visit.call, picture).await,
            pictures => several(&app, &model, &ask, &visit.call, pictures).await,
        }
    };
    within(visit.call.deadline, Problem::late, work).await
}

async fn named(app: &App, visit: &Visit, name: Option<&str>) -> Result<Option<Arc<ServedModel>>, Problem> {
    if let (Some(path), Some(said)) = (name, visit.query.model())
        && !app.catalog.now().are_same(path, said)
    {
        let message = format!(
            "the path names the model {:?}, and the parameter model another: {:?}",
            shorten(path),
            shorten(said)
        );
        return Err(Problem::parameter(message, "leave the parameter model out"));
    }
    match name.or(visit.query.model()) {
        None => Ok(None),
        Some(name) => Ok(Some(app.catalog.demand(name, None, visit.id.as_str(), Some(&visit.call.trace)).await?)),
    }
}

fn no_model() -> Problem {
    Problem::new(
        ErrorKind::InvalidRequest,
        "no model is named, and there is not exactly one detector",
        "name one in the field or query parameter `model`",
    )
}

/// Things in an answer that is written at once.
const FEW: usize = 500;

fn is_small(seen: &Seen) -> bool {
    seen.found.count() <= FEW && !matches!(seen.found, Found::Segments(_))
}

async fn one(
    app: &App,
    model: &Arc<ServedModel>,
    ask: &Ask,
    call: &Call,
    picture: &Picture,
) -> Result<Answer, Problem> {
    let mut seen = model.see(&app.pictures, picture.bytes.clone(), ask, call).await?;
    if let Some(jpeg) = seen.drawn.take() {
        return Ok(Answer::new("image/jpeg", jpeg));
    }
    let (small, model) = (is_small(&seen), Arc::clone(model));
    let write = move || Ok::<_, Problem>(Answer::json(&PictureAnswer::new(&model, model.picture_model()?, &seen)));
    aside(app, small, call, Stage::Encode, write).await?
}

async fn several(
    app: &App,
    model: &Arc<ServedModel>,
    ask: &Ask,
    call: &Call,
    pictures: &[Picture],
) -> Result<Answer, Problem> {
    if ask.draw {
        return Err(Problem::parameter(
            "several pictures cannot be drawn in one answer",
            "send them one by one, or leave draw out",
        ));
    }
    let traces = call.trace.part(pictures.len());
    let each = pictures.iter().zip(&*traces).map(|(picture, trace)| async move {
        let call = Call { trace: trace.clone(), ..*call };
        let seen = model.see(&app.pictures, picture.bytes.clone(), ask, &call).await;
        call.trace.enter(Stage::Encode);
        (picture.filename.clone(), seen.map_err(Problem::from))
    });
    let outcomes: Vec<Outcome> = join_all(each).await;
    drop(traces);
    let (mut things, mut small) = (0, true);
    for (_, outcome) in &outcomes {
        match outcome {
            Ok(seen) => {
                things += seen.found.count();
                small &= is_small(seen) && things <= FEW;
            }
            Err(problem) => app.metrics.count_error(problem.kind),
        }
    }
    // When none succeeded the answer is an error like that of the first.
    let failed = match outcomes.iter().all(|(_, outcome)| outcome.is_err()).then(|| outcomes.first()).flatten() {
        Some((_, Err(problem))) => Some((problem.status(), problem.retry_after)),
        _ => None,
    };
    let (model, stamps) = (Arc::clone(model), call.trace.stage_times());
    let write =
        move || Ok::<_, Problem>(Answer::json(&BatchAnswer::new(&model, model.picture_model()?, &outcomes, stamps)));
    let answer = aside(app, small, call, Stage::Encode, write).await??;
    Ok(match failed {
        Some((status, wait)) => answer.status(status).retry_after(wait),
        None => answer,
    })
}
