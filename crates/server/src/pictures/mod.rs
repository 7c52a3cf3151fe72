//! Pictures in, boxes out: the detector API.

mod answer;
mod multipart;
mod upload;

use std::sync::Arc;

use axum::{
    extract::{Path, Request, State},
    response::Response,
};
use caudal_tasks::{Call, ServedModel};
use caudal_types::{ErrorKind, Stage};
use futures_util::future::join_all;

pub(crate) use self::answer::{BatchAnswer, PictureAnswer};
use self::{
    answer::Outcome,
    upload::{Picture, Upload},
};
use crate::{
    app::App,
    http::door::{self, Answer, Visit},
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

/// Finds objects in a picture.
///
/// The picture is the field `file` (or `image`) of a form, or the body itself as `image/*`. Several pictures in
/// `images` are answered as by `/predict_batch`.
#[utoipa::path(
    post,
    path = "/predict/{model}",
    tag = "pictures",
    params(
        ("model" = String, Path, description = "name or alias", example = "small"),
        ("conf" = Option<f32>, Query, description = "least confidence, 0 to 1"),
        ("iou" = Option<f32>, Query, description = "overlap above which the weaker of two boxes of a class goes, 0 to 1"),
        ("max_det" = Option<usize>, Query, description = "most boxes"),
        ("classes" = Option<String>, Query, description = "classes that count, by number or name, divided by commas"),
        ("timeout_ms" = Option<f64>, Query, description = "milliseconds until the answer is worth nothing"),
        ("priority" = Option<String>, Query, description = "high, normal or low"),
        ("draw" = Option<bool>, Query, description = "answer the picture as a JPEG with the boxes on it"),
    ),
    request_body(content(
        (PictureForm = "multipart/form-data"),
        (String = "image/jpeg"),
        (String = "image/png"),
    )),
    responses(
        (status = 200, content((PictureAnswer = "application/json"), (String = "image/jpeg"))),
        (status = "4XX", body = ErrorAnswer),
        (status = "5XX", body = ErrorAnswer),
    ),
)]
pub(crate) async fn predict(State(app): State<Arc<App>>, Path(model): Path<String>, request: Request) -> Response {
    door::work(app, Route::Predict, request, |app, visit, request| run(app, visit, request, Some(model), Form::AsSent))
        .await
}

/// Finds objects in several pictures, each by itself: one that fails does not fail the others.
#[utoipa::path(
    post,
    path = "/predict_batch/{model}",
    tag = "pictures",
    params(("model" = String, Path, description = "name or alias", example = "small")),
    request_body(content = PictureForm, content_type = "multipart/form-data"),
    responses((status = 200, body = BatchAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
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

/// Finds objects in a picture, with the model and all parameters as fields of the form or of the query. Without
/// a model the only detector is asked.
#[utoipa::path(
    post,
    path = "/api/v1/inference/image",
    tag = "pictures",
    params(("model" = Option<String>, Query, description = "name or alias; may also be a field of the form")),
    request_body(content = PictureForm, content_type = "multipart/form-data"),
    responses((status = 200, body = PictureAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
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
    // What the query already says wrong costs no upload.
    if let Some(model) = named(&app, name.as_deref().or(visit.query.model()))? {
        visit.query.ask(model.detector()?)?;
        check_room(model, &visit.call)?;
    }
    let upload = Upload::read(&app, request, &mut visit.query).await?;
    visit.call.stamps.stamp(Stage::Receive);
    let model = match named(&app, name.as_deref().or(visit.query.model()))? {
        Some(model) => model,
        None => app.catalog.only_detector().ok_or_else(no_model)?,
    };
    match &upload.pictures[..] {
        [picture] if form == Form::AsSent => one(&app, model, &visit, picture).await,
        pictures => several(&app, model, &visit, pictures).await,
    }
}

fn named<'a>(app: &'a App, name: Option<&str>) -> Result<Option<&'a Arc<ServedModel>>, Problem> {
    Ok(name.map(|name| app.catalog.get(name, None)).transpose()?)
}

/// Whether a picture would be admitted if it were here: if not, its bytes need not come.
fn check_room(model: &ServedModel, call: &Call) -> Result<(), Problem> {
    Ok(model.check_detect(call)?)
}

fn no_model() -> Problem {
    Problem::new(
        ErrorKind::InvalidRequest,
        "no model is named, and there is not exactly one detector",
        "name one in the field or query parameter `model`",
    )
}

async fn one(app: &App, model: &ServedModel, visit: &Visit, picture: &Picture) -> Result<Answer, Problem> {
    let detector = model.detector()?;
    let ask = visit.query.ask(detector)?;
    let done = model.detect(&app.pictures, picture.bytes.clone(), &ask, visit.call).await?;
    let stamps = done.stamps;
    let answer = match done.drawn {
        Some(jpeg) => Answer::new("image/jpeg", jpeg),
        None => Answer::json(&PictureAnswer::new(model, detector, &done)),
    };
    Ok(answer.stamps(stamps))
}

async fn several(app: &App, model: &ServedModel, visit: &Visit, pictures: &[Picture]) -> Result<Answer, Problem> {
    let detector = model.detector()?;
    let ask = visit.query.ask(detector)?;
    if ask.draw {
        return Err(Problem::parameter(
            "several pictures cannot be drawn in one answer",
            "send them one by one, or leave draw out",
        ));
    }
    let each = pictures.iter().map(|picture| async {
        let done = model.detect(&app.pictures, picture.bytes.clone(), &ask, visit.call).await;
        (picture.filename.clone(), done.map_err(Problem::from))
    });
    let outcomes: Vec<Outcome> = join_all(each).await;
    let mut stamps = visit.call.stamps;
    for done in outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()) {
        stamps = stamps.later(done.stamps);
    }
    let answer = Answer::json(&BatchAnswer::new(model, detector, &outcomes, stamps)).stamps(stamps);
    // When none succeeded the answer is an error like that of the first.
    match outcomes.iter().all(|(_, outcome)| outcome.is_err()).then(|| outcomes.first()).flatten() {
        Some((_, Err(problem))) => Ok(answer.status(problem.status())),
        _ => Ok(answer),
    }
}
