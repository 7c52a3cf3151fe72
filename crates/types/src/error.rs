//! Error kinds: the closed set of ways in which a request can fail. Each crate has typed errors that map to one of
//! these kinds, and the server derives the status code from the kind alone.

use std::borrow::Cow;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident => $code:literal,)+) => {
        /// The kind of a failure, as far as a client can act on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[doc = $doc])+ $kind,)+ }

        impl ErrorKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The stable code in responses, logs and metrics.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$kind => $code,)+ }
            }

            /// One sentence for the reference.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$kind => concat!($($doc),+).trim_start(),)+ }
            }
        }
    };
}

kinds! {
    /// The request is malformed, and no more specific code applies.
    InvalidRequest => "invalid_request",
    /// A query parameter or field has an invalid value.
    InvalidParameter => "invalid_parameter",
    /// The body is empty.
    EmptyBody => "empty_body",
    /// The multipart body has no field with the image.
    MissingFile => "missing_file",
    /// The request has more parts or images than allowed.
    TooManyParts => "too_many_parts",
    /// The image is damaged or incomplete.
    InvalidImage => "invalid_image",
    /// The image format is not supported.
    UnsupportedImage => "unsupported_image",
    /// The image has more pixels than allowed.
    ImageTooLarge => "image_too_large",
    /// The body has more bytes than allowed.
    BodyTooLarge => "body_too_large",
    /// The route does not accept this Content-Type.
    UnsupportedMediaType => "unsupported_media_type",
    /// The Content-Encoding is not supported; the Accept-Encoding header of the response lists the supported ones.
    UnsupportedEncoding => "unsupported_encoding",
    /// The path and query are too long.
    UriTooLong => "uri_too_long",
    /// The request has too many headers, or too many bytes of them.
    HeadersTooLarge => "headers_too_large",
    /// The first request on a connection did not arrive in time.
    HeadersTimeout => "headers_timeout",
    /// The body did not arrive in time.
    BodyTimeout => "body_timeout",
    /// The client closed the connection before the request was complete.
    ClientGone => "client_gone",
    /// The model does not accept a tensor with this name, type, shape or size.
    InvalidTensor => "invalid_tensor",
    /// A text is longer than the model accepts.
    TextTooLong => "text_too_long",
    /// The path, or the item that it names, does not exist.
    NotFound => "not_found",
    /// The path exists, but does not support this method.
    MethodNotAllowed => "method_not_allowed",
    /// The model or version does not exist.
    ModelNotFound => "model_not_found",
    /// The model exists but cannot serve: it failed to load or is loading.
    ModelNotReady => "model_not_ready",
    /// The model could not be loaded.
    LoadFailed => "load_failed",
    /// An admin route was called without the admin key or token, or with a wrong one.
    Unauthorized => "unauthorized",
    /// The server's settings do not allow the operation.
    Forbidden => "forbidden",
    /// The request comes from a page of another origin, which the server does not allow.
    CrossOrigin => "cross_origin_request",
    /// The server does not answer under the name in the request's Host.
    MisdirectedRequest => "misdirected_request",
    /// The model does not support the task of the route.
    WrongTask => "wrong_task",
    /// The model's queue is full.
    QueueFull => "queue_full",
    /// The request waited longer than the model's queue policy allows for its priority.
    QueueTimeout => "queue_timeout",
    /// The server has too many requests in progress.
    TooManyRequests => "too_many_requests",
    /// The memory reserved for bodies or pixels is in use.
    MemoryFull => "memory_full",
    /// The machine's memory is nearly exhausted, and new work could cause the kernel to kill the server.
    MemoryPressure => "memory_pressure",
    /// The response could not be ready before the deadline, so no work was started.
    DeadlineUnreachable => "deadline_unreachable",
    /// The deadline passed before the response was ready.
    DeadlineExceeded => "deadline_exceeded",
    /// The server is shutting down.
    ShuttingDown => "shutting_down",
    /// Another CPU profile is being taken; only one can run at a time.
    ProfileRunning => "profile_running",
    /// Requests are not recorded: enable_profiling is off.
    NothingSampled => "nothing_sampled",
    /// This build of the server does not include the feature.
    NotBuiltIn => "not_built_in",
    /// A file could not be written to the server's disk.
    ExportFailed => "export_failed",
    /// The event archive is damaged, truncated or not an archive.
    ArchiveDamaged => "archive_damaged",
    /// The model failed on this input.
    InferenceFailed => "inference_failed",
    /// An item with this name or id already exists.
    Exists => "exists",
    /// The consultation is not at the version that the client expected.
    VersionConflict => "version_conflict",
    /// The idempotency key was already used for another request.
    KeyReused => "idempotency_key_reused",
    /// The type or payload of the event is invalid.
    InvalidEvent => "invalid_event",
    /// The JSON is invalid or cannot be stored without loss.
    InvalidJson => "invalid_json",
    /// The disk is full.
    DiskFull => "disk_full",
    /// The event store cannot be read or written at the moment.
    StoreUnavailable => "store_unavailable",
    /// The server has no event store: it was started without a data folder.
    RecordOff => "record_off",
    /// Stored events are damaged.
    RecordDamaged => "record_damaged",
    /// A step of a pipeline failed.
    StepFailed => "step_failed",
    /// The operation would exceed its budget.
    BudgetExceeded => "budget_exceeded",
    /// The state of the run does not allow the operation, or another process holds the run.
    RunState => "run_state",
    /// The run was cancelled.
    RunCancelled => "run_cancelled",
    /// The pipeline file is invalid.
    InvalidPipeline => "invalid_pipeline",
    /// The server has an internal fault.
    Internal => "internal",
}

/// Kind and hint of an error that a client may see, beside its `Display` sentence.
pub trait Explain: std::error::Error {
    /// The kind of this failure.
    fn kind(&self) -> ErrorKind;

    /// A remedy for the client.
    fn hint(&self) -> Cow<'static, str>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn codes_are_unique() {
        let codes: HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
    }
}
