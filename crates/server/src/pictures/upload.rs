//! The pictures in a request: one as its raw body, or one and more as parts of a form.

use axum::{
    extract::Request,
    http::{HeaderMap, header},
};
use bytes::Bytes;
use caudal_tasks::Call;
use caudal_types::{ErrorKind, Stage, shorten};

use super::multipart::{self, Part};
use crate::{
    app::App,
    http::{
        aside,
        body::{self, BodyLimits, Received},
    },
    params::Query,
    problem::Problem,
};

/// Form fields that hold a picture.
const FILE_FIELDS: [&str; 3] = ["file", "image", "images"];
/// Form fields beside the pictures.
const OTHER_PARTS: usize = 32;
/// A form whose parts are found at once.
const SMALL_FORM: usize = 2 << 20;
/// Bytes that a form takes beside its files.
const FORM_OVERHEAD: u64 = 64 << 10;

/// One picture of a request.
#[derive(Debug, Clone)]
pub(crate) struct Picture {
    pub(crate) filename: Option<String>,
    pub(crate) bytes: Bytes,
}

/// What a request brings.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) pictures: Vec<Picture>,
    /// The memory that the pictures lie in.
    _received: Received,
}

enum Kind {
    Raw,
    Form(String),
}

impl Upload {
    /// Reads a request's pictures; parameters among the fields of a form go into `query`.
    pub(crate) async fn read(app: &App, request: Request, query: &mut Query, call: &Call) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        let kind = kind(&head.headers)?;
        let overhead = if matches!(kind, Kind::Form(_)) { FORM_OVERHEAD } else { 0 };
        let limits = BodyLimits::of(app, &call.trace).with_overhead(overhead);
        let received = body::read(&head.headers, body, &limits).await?;
        if received.bytes.is_empty() {
            return Err(Problem::new(
                ErrorKind::EmptyBody,
                "the body is empty",
                "send a picture as the body, or as the field `file` of a form",
            ));
        }
        let pictures = match kind {
            Kind::Raw => vec![Picture { filename: None, bytes: received.bytes.clone() }],
            Kind::Form(boundary) => {
                let (form, most) = (received.bytes.clone(), app.settings().max_images + OTHER_PARTS);
                let small = form.len() <= SMALL_FORM;
                let parse = move || multipart::parse(&form, &boundary, most);
                let parts = aside(app, small, call, Stage::Decode, parse).await??;
                sort(parts, query, app.settings().max_images)?
            }
        };
        Ok(Self { pictures, _received: received })
    }
}

fn kind(headers: &HeaderMap) -> Result<Kind, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Kind::Raw) };
    let text = value.to_str().unwrap_or_default();
    let media = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match &*media {
        "multipart/form-data" => Ok(Kind::Form(multipart::boundary(text)?)),
        // What curl -d and --data-binary say when told nothing.
        "application/octet-stream" | "application/x-www-form-urlencoded" | "" => Ok(Kind::Raw),
        media if media.starts_with("image/") => Ok(Kind::Raw),
        media => Err(Problem::new(
            ErrorKind::UnsupportedMediaType,
            format!("a body of type {media} is not read here"),
            "send multipart/form-data with a field `file`, or the picture itself as image/jpeg, image/png and so on",
        )),
    }
}

fn sort(parts: Vec<Part>, query: &mut Query, max_images: usize) -> Result<Vec<Picture>, Problem> {
    let (files, others): (Vec<Part>, Vec<Part>) =
        parts.into_iter().partition(|part| FILE_FIELDS.contains(&&*part.name));
    // What browsers send of a file input in which nothing was chosen.
    let (unchosen, files): (Vec<Part>, Vec<Part>) = files.into_iter().partition(Part::is_unchosen);
    if files.is_empty() {
        return Err(missing(&unchosen, &others));
    }
    for part in others {
        query.set_field(&part.name, String::from_utf8_lossy(&part.content).into_owned(), &FILE_FIELDS)?;
    }
    let pictures: Vec<_> =
        files.into_iter().map(|part| Picture { filename: part.filename, bytes: part.content }).collect();
    if pictures.len() > max_images {
        return Err(Problem::new(
            ErrorKind::TooManyParts,
            format!("the form has {} pictures, {max_images} are allowed", pictures.len()),
            "send fewer pictures at once, or raise max_images",
        ));
    }
    Ok(pictures)
}

fn missing(unchosen: &[Part], others: &[Part]) -> Problem {
    let message = match (unchosen, others) {
        ([part, ..], _) => format!("no file was chosen: the form's field {:?} is empty", part.name),
        ([], []) => "the form has no field and no picture".to_owned(),
        ([], others) => {
            let names: Vec<_> = others.iter().map(|part| shorten(&part.name)).collect();
            format!("the form has the fields {names:?} and no picture")
        }
    };
    Problem::new(ErrorKind::MissingFile, message, "send the picture as the field `file`, `image` or `images`")
}
