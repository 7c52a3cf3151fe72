//! Who read or exported what: for whoever administers the server.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    extract::{Request, State},
    response::Response,
};
use caudal_record::{AUDIT, event::EventView};
use caudal_store::StreamId;
use caudal_types::Stage;
use serde_json::json;

use super::{listing::Part, record};
use crate::{
    admin::Parameters,
    app::App,
    docs::schemas,
    http::door::{self, Answer, Visitor},
    problem::{ErrorAnswer, Problem},
    route::Route,
};

/// Most entries of one answer.
const MOST: u32 = 1_000;

/// Lists the entries of the audit log, newest first.
#[utoipa::path(
    get,
    path = "/api/audit/logs",
    operation_id = "list_audit_log",
    tag = "admin",
    params(("limit" = Option<u32>, Query, description = "at most so many; default 100", minimum = 1, maximum = 1000), ("offset" = Option<u64>, Query, description = "entries to leave out before the first")),
    responses((status = 200, body = schemas::AuditPage), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn logs(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(app, Route::AuditLogs, request, false, async |app: Arc<App>, visitor: Visitor, request: Request| {
        let parameters = Parameters::of(request.uri(), &["limit", "offset"])?;
        let Part { limit, offset } = Part::of(&parameters, 100, MOST)?;
        let (total, noted) = record(&app)?.noted(limit, offset).await?;
        visitor.call.trace.enter(Stage::Encode);
        let stream = StreamId::new(AUDIT, "log");
        let logs: Vec<_> = noted.iter().map(|noted| EventView::of(&stream, noted)).collect();
        Ok(Answer::json(&json!({"total": total, "offset": offset, "returned_count": logs.len(), "logs": logs})))
    })
    .await
}

/// Counts the actions among the last thousand entries of the audit log.
#[utoipa::path(
    get,
    path = "/api/audit/stats",
    operation_id = "get_audit_stats",
    tag = "admin",
    responses((status = 200, body = schemas::AuditStats), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)),
)]
pub(crate) async fn stats(State(app): State<Arc<App>>, request: Request) -> Response {
    door::keep(app, Route::AuditStats, request, false, async |app: Arc<App>, _: Visitor, _: Request| {
        let (total, noted) = record(&app)?.noted(MOST, 0).await?;
        let mut operations = BTreeMap::<&str, u64>::new();
        for entry in &noted {
            *operations.entry(&entry.kind).or_default() += 1;
        }
        Ok::<_, Problem>(Answer::json(&json!({"total": total, "among": noted.len(), "operations": operations})))
    })
    .await
}

/// What is noted.
const OPERATIONS: [&str; 14] = [
    "CONSULTATIONS_LISTED",
    "CONSULTATION_READ",
    "SOAP_READ",
    "EVENTS_READ",
    "EVENT_READ",
    "EVENTS_FOLLOWED",
    "TIMELINE_LISTED",
    "TIMELINE_READ",
    "RECEIPT_MADE",
    "VERIFIED",
    "EXPORTED",
    "EXPORT_DOWNLOADED",
    "WRITABLE_AGAIN",
    "READS_NOT_NOTED",
];

/// Lists the actions that the audit log records.
#[utoipa::path(
    get,
    path = "/api/audit/operations",
    operation_id = "list_audit_operations",
    tag = "admin",
    responses((status = 200, body = schemas::AuditOperations), (status = "4XX", body = ErrorAnswer)),
)]
pub(crate) async fn operations(State(app): State<Arc<App>>, request: Request) -> Response {
    door::ask(&app, Route::AuditOperations, &request, |_| Ok(Answer::json(&json!({"operations": OPERATIONS}))))
}
