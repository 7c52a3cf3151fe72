//! Consultations written out, with a manifest.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use bytes::Bytes;
use caudal_record::export::Format;
use caudal_types::shorten;
use futures_util::stream;
use serde::Deserialize;
use serde_json::json;
use tokio::task::spawn_blocking;

use super::{note, parse, record};
use crate::{
    app::App,
    docs::schemas,
    http::{
        Path,
        door::{self, Answer, Visitor},
    },
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// Most bytes of what is asked.
const LARGEST: u64 = 16 << 10;
/// Bytes of a file that are sent in one piece.
const PIECE: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    consultation_id: String,
    #[serde(default, deserialize_with = "crate::json::null_is_absent")]
    formats: Vec<String>,
    #[serde(default)]
    user_id: Option<String>,
}

/// Exports a consultation as Markdown, JSON or CSV, with a manifest of hashes.
#[utoipa::path(
    post,
    path = "/api/exports",
    operation_id = "create_export",
    tag = "consultations",
    request_body = schemas::ExportRequest,
    responses((status = 201, body = schemas::ExportAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn make(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(app, Route::ExportMake, request, true, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let record = record(&app)?;
        let received = super::json(&app, &visitor, request, LARGEST).await?;
        let hint = "send {\"consultation_id\": \"…\", \"formats\": [\"md\", \"json\", \"csv\"]}";
        let Wanted { consultation_id, formats, user_id } = parse(&received, "the body asks for no export", hint)?;
        let mut wanted = Vec::new();
        for name in &formats {
            let format = Format::read(name).ok_or_else(|| {
                Problem::parameter(format!("there is no form {:?}", shorten(name)), "send md, json or csv")
            })?;
            if !wanted.contains(&format) {
                wanted.push(format);
            }
        }
        if wanted.is_empty() {
            wanted = vec![Format::Markdown, Format::Json];
        }
        let by = user_id.as_deref().unwrap_or("unknown");
        let (id, manifest) = record.export(&consultation_id, &wanted, by).await?;
        let details = json!({"export_id": id, "formats": formats, "by": by});
        note(&record, &visitor, "EXPORTED", Some(&consultation_id), details).await?;
        Ok(Answer::json(&json!({"export_id": id, "manifest": manifest})).status(StatusCode::CREATED))
    })
    .await
}

/// Shows the manifest of an export.
#[utoipa::path(
    get,
    path = "/api/exports/{id}",
    operation_id = "get_export",
    tag = "consultations",
    params(("id" = String, Path, description = "the id of the export")),
    responses((status = 200, body = schemas::ExportAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn show(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::Export, request, false, async |app: Arc<App>, _: Visitor, _: Request| {
        let manifest = record(&app)?.export_manifest(&id).await?;
        Ok::<_, Problem>(Answer::json(&json!({"export_id": id, "manifest": manifest})))
    })
    .await
}

/// Verifies that an export is unchanged.
#[utoipa::path(
    post,
    path = "/api/exports/{id}/verify",
    operation_id = "verify_export",
    tag = "consultations",
    params(("id" = String, Path, description = "the id of the export")),
    responses((status = 200, body = schemas::CheckedExport), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn verify(State(app): State<Arc<App>>, Path(id): Path<String>, request: Request) -> Response {
    door::keep(app, Route::ExportVerify, request, true, async |app: Arc<App>, _: Visitor, _: Request| {
        Ok::<_, Problem>(Answer::json(&record(&app)?.check_export(&id).await?))
    })
    .await
}

/// Downloads a file of an export.
#[utoipa::path(
    get,
    path = "/api/exports/{id}/download/{file}",
    operation_id = "download_export_file",
    tag = "consultations",
    params(("id" = String, Path, description = "the id of the export"), ("file" = String, Path, description = "as the manifest names it")),
    responses((status = 200, description = "the file", content(
            (String = "text/markdown"), (String = "text/csv"), (serde_json::Value = "application/json"),
        )), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn download(
    State(app): State<Arc<App>>,
    Path((id, name)): Path<(String, String)>,
    request: Request,
) -> Response {
    door::keep(app, Route::ExportDownload, request, true, async |app: Arc<App>, visitor: Visitor, _: Request| {
        let record = record(&app)?;
        let (file, media_type) = record.export_file(&id, &name).await?;
        note(&record, &visitor, "EXPORT_DOWNLOADED", None, json!({"export_id": id, "file": name})).await?;
        let pieces = stream::try_unfold(file, |mut file| async {
            let read = spawn_blocking(move || {
                let mut piece = vec![0; PIECE];
                let count = std::io::Read::read(&mut file, &mut piece)?;
                piece.truncate(count);
                Ok::<_, std::io::Error>((piece, file))
            });
            let (piece, file) = read.await.map_err(std::io::Error::other)??;
            Ok::<_, std::io::Error>((!piece.is_empty()).then(|| (Bytes::from(piece), file)))
        });
        Ok::<_, Problem>(Answer::flowing(media_type, Body::from_stream(pieces)).file(&name))
    })
    .await
}
