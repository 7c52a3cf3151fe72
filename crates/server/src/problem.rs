//! What goes wrong, as callers see it: a status code, a stable code, one sentence, what to do.

use std::{borrow::Cow, time::Duration};

use axum::http::StatusCode;
use caudal_record::RecordError;
use caudal_tasks::{ChangeError, TaskError, Unavailable, without_values};
use caudal_types::{ErrorKind, Explain};
use serde::Serialize;

/// When to ask again whoever was refused for want of memory: the level does not fall within a second.
const MEMORY_COMES_BACK: Duration = Duration::from_secs(2);

/// When to ask again whoever was refused because nothing can be recorded now.
const STORE_COMES_BACK: Duration = Duration::from_secs(1);

/// An error on its way to a caller.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) kind: ErrorKind,
    pub(crate) message: String,
    pub(crate) hint: Cow<'static, str>,
    pub(crate) retry_after: Option<Duration>,
    /// What else a program may want to know.
    pub(crate) details: Option<serde_json::Value>,
}

impl Problem {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), hint: hint.into(), retry_after: None, details: None }
    }

    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(crate) fn details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(details);
        self
    }

    pub(crate) fn parameter(message: impl Into<String>, hint: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidParameter, message, hint)
    }

    pub(crate) fn late() -> Self {
        TaskError::Late.into()
    }

    pub(crate) fn memory_short() -> Self {
        Self::new(
            ErrorKind::MemoryPressure,
            "memory is short: new work is refused until some is given back",
            "try again after Retry-After; GET /admin/memory tells whoever administers the server what can be done",
        )
        .retry_after(MEMORY_COMES_BACK)
    }

    pub(crate) fn status(&self) -> StatusCode {
        status(self.kind)
    }

    fn explain(error: &dyn Explain) -> Self {
        Self::new(error.kind(), error.to_string(), error.hint())
    }

    /// Its message as it may be logged: what a model says of its input may hold values of it, which are for the caller alone.
    pub(crate) fn for_log(&self) -> &str {
        match (self.kind, without_values(&self.message)) {
            (ErrorKind::InferenceFailed, "") => "the model failed on this input",
            (ErrorKind::InferenceFailed, operator) => operator,
            _ => &self.message,
        }
    }

    /// The error as it stands in an answer.
    pub(crate) fn body<'a>(&'a self, request_id: Option<&'a str>) -> ErrorBody<'a> {
        let Self { message, hint, details, .. } = self;
        ErrorBody { code: self.kind.code(), message, hint, details: details.as_ref(), request_id }
    }
}

/// An error, as all routes but KServe's tell it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ErrorBody<'a> {
    /// Stable code, to be compared by programs; `docs/errors.md` lists all.
    code: &'a str,
    /// What went wrong, in one sentence.
    message: &'a str,
    /// What to do about it.
    hint: &'a str,
    /// What else a program may want to know, where there is something.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a serde_json::Value>,
    /// The request's id, as in the header `X-Request-ID` and in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

/// The body of a failed request.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Error)]
pub(crate) struct ErrorAnswer<'a> {
    pub(crate) error: ErrorBody<'a>,
}

impl From<TaskError> for Problem {
    fn from(error: TaskError) -> Self {
        let problem = Self::explain(&error);
        match &error {
            TaskError::Refused(refusal) => match refusal.retry_after() {
                Some(wait) => problem.retry_after(wait),
                None => problem,
            },
            _ => problem,
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        Self::explain(&error)
    }
}

impl From<RecordError> for Problem {
    fn from(error: RecordError) -> Self {
        let problem = Self::explain(&error);
        match problem.kind {
            ErrorKind::StoreUnavailable | ErrorKind::TooManyRequests => problem.retry_after(STORE_COMES_BACK),
            _ => problem,
        }
    }
}

impl From<Unavailable> for Problem {
    fn from(error: Unavailable) -> Self {
        Self::explain(&error)
    }
}

/// The status code that follows from an error's kind.
pub(crate) fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::InvalidRequest
        | ErrorKind::InvalidParameter
        | ErrorKind::EmptyBody
        | ErrorKind::MissingFile
        | ErrorKind::TooManyParts
        | ErrorKind::InvalidImage
        | ErrorKind::InvalidTensor
        | ErrorKind::TextTooLong
        | ErrorKind::WrongTask
        | ErrorKind::ClientGone => StatusCode::BAD_REQUEST,
        ErrorKind::LoadFailed => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden | ErrorKind::CrossOrigin => StatusCode::FORBIDDEN,
        ErrorKind::MisdirectedRequest => StatusCode::MISDIRECTED_REQUEST,
        ErrorKind::NotFound | ErrorKind::ModelNotFound => StatusCode::NOT_FOUND,
        ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::BodyTimeout | ErrorKind::HeadersTimeout => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::UriTooLong => StatusCode::URI_TOO_LONG,
        ErrorKind::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ErrorKind::ImageTooLarge | ErrorKind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::UnsupportedImage | ErrorKind::UnsupportedMediaType | ErrorKind::UnsupportedEncoding => {
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        }
        ErrorKind::QueueFull | ErrorKind::TooManyRequests | ErrorKind::MemoryFull | ErrorKind::DeadlineUnreachable => {
            StatusCode::TOO_MANY_REQUESTS
        }
        ErrorKind::ArchiveDamaged => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::InferenceFailed | ErrorKind::ExportFailed | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::ProfileRunning | ErrorKind::NothingSampled | ErrorKind::RunState | ErrorKind::RunCancelled => {
            StatusCode::CONFLICT
        }
        ErrorKind::StepFailed => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::BudgetExceeded => StatusCode::PAYMENT_REQUIRED,
        ErrorKind::NotBuiltIn | ErrorKind::RecordOff => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::InvalidEvent | ErrorKind::KeyReused | ErrorKind::InvalidPipeline => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::InvalidJson => StatusCode::BAD_REQUEST,
        ErrorKind::Exists | ErrorKind::VersionConflict => StatusCode::CONFLICT,
        ErrorKind::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::StoreUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::RecordDamaged => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::ModelNotReady | ErrorKind::QueueTimeout | ErrorKind::MemoryPressure | ErrorKind::ShuttingDown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_lists_every_code() {
        let mut text = String::from(
            "# Errors\n\nGenerated from `crates/types/src/error.rs`.\n\n\
             Every error response has a status, a stable code for programs, a message for people and a hint for the remedy:\n\n\
             ```json\n{\"error\": {\"code\": \"image_too_large\", \"message\": \"…\", \"hint\": \"…\", \"request_id\": \"…\"}}\n```\n\n\
             Routes below `/v2` follow KServe's protocol, in which an error is one string: `{\"error\": \"code: message; hint\"}`.\n\
             Responses with status 429 have a `Retry-After` header, in seconds.\n\n\
             | code | status | meaning |\n|---|---|---|\n",
        );
        for kind in ErrorKind::ALL {
            text += &format!("| `{}` | {} | {} |\n", kind.code(), status(*kind).as_u16(), kind.meaning());
        }
        caudal_testkit::check_document("errors.md", &text);
    }
}
