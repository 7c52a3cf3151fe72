//! The closed set of ways in which a request can fail. Rooms raise typed errors of their own; each of them
//! says which of these kinds it is, and the doors derive status codes from the kind alone.

use std::borrow::Cow;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident => $code:literal,)+) => {
        /// What went wrong, as far as a caller can act on it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorKind { $($(#[doc = $doc])+ $kind,)+ }

        impl ErrorKind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind,)+];

            /// The stable code that stands in answers, logs and metrics.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$kind => $code,)+ }
            }

            /// What it means, for the reference.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$kind => concat!($($doc),+).trim_start(),)+ }
            }
        }
    };
}

kinds! {
    /// The request is malformed in a way no other kind names.
    InvalidRequest => "invalid_request",
    /// A query parameter or field has a value it cannot have.
    InvalidParameter => "invalid_parameter",
    /// The body is empty.
    EmptyBody => "empty_body",
    /// A multipart body without the field that carries the picture.
    MissingFile => "missing_file",
    /// More parts or pictures than one request may hold.
    TooManyParts => "too_many_parts",
    /// The bytes claim to be a picture and are not a whole one.
    InvalidImage => "invalid_image",
    /// Not a picture format we read.
    UnsupportedImage => "unsupported_image",
    /// More pixels than allowed.
    ImageTooLarge => "image_too_large",
    /// More bytes than allowed.
    BodyTooLarge => "body_too_large",
    /// A Content-Type this route does not read.
    UnsupportedMediaType => "unsupported_media_type",
    /// A Content-Encoding that is not supported; the answer lists those that are in Accept-Encoding.
    UnsupportedEncoding => "unsupported_encoding",
    /// The path with its query is too long.
    UriTooLong => "uri_too_long",
    /// Too many headers, or too many bytes of them.
    HeadersTooLarge => "headers_too_large",
    /// The first request on a connection did not arrive in time.
    HeadersTimeout => "headers_timeout",
    /// The body did not arrive in time.
    BodyTimeout => "body_timeout",
    /// The client closed the connection before its request was whole.
    ClientGone => "client_gone",
    /// A tensor whose name, type, shape or size the model does not take.
    InvalidTensor => "invalid_tensor",
    /// A text longer than the model takes.
    TextTooLong => "text_too_long",
    /// No such path.
    NotFound => "not_found",
    /// The path exists, the method does not.
    MethodNotAllowed => "method_not_allowed",
    /// No such model or version.
    ModelNotFound => "model_not_found",
    /// The model exists and cannot serve: it failed to load or is loading.
    ModelNotReady => "model_not_ready",
    /// The model could not be loaded.
    LoadFailed => "load_failed",
    /// An admin route without the admin key or token, or with a wrong one.
    Unauthorized => "unauthorized",
    /// The settings of the server do not allow it.
    Forbidden => "forbidden",
    /// The request comes from a page of another origin, which the server does not allow.
    CrossOrigin => "cross_origin_request",
    /// The request's Host is a name under which this server does not answer.
    MisdirectedRequest => "misdirected_request",
    /// The model cannot do what the route asks of it.
    WrongTask => "wrong_task",
    /// The model's queue is full.
    QueueFull => "queue_full",
    /// The request waited longer than the model's queue policy allows for its priority.
    QueueTimeout => "queue_timeout",
    /// Too many requests at once for this server.
    TooManyRequests => "too_many_requests",
    /// The memory set aside for bodies or pixels is taken.
    MemoryFull => "memory_full",
    /// The machine's memory is nearly used up, and new work would bring the kernel to kill.
    MemoryPressure => "memory_pressure",
    /// The answer could not have come in time, so no work was begun.
    DeadlineUnreachable => "deadline_unreachable",
    /// The deadline passed.
    DeadlineExceeded => "deadline_exceeded",
    /// The server is going away.
    ShuttingDown => "shutting_down",
    /// A CPU profile is being taken already; there is one at a time.
    ProfileRunning => "profile_running",
    /// Requests are not remembered: enable_profiling is off.
    NothingSampled => "nothing_sampled",
    /// This build of the server cannot do it.
    NotBuiltIn => "not_built_in",
    /// What was asked to be written on the server's disk could not be.
    ExportFailed => "export_failed",
    /// An archive of records is not what was written: damaged, cut short, or something else.
    ArchiveDamaged => "archive_damaged",
    /// The model failed on this input.
    InferenceFailed => "inference_failed",
    /// There is one of that name already.
    Exists => "exists",
    /// What is recorded has gone on since the caller looked.
    VersionConflict => "version_conflict",
    /// An idempotency key that stands for another request.
    KeyReused => "idempotency_key_reused",
    /// An event whose type or payload is none that can be recorded.
    InvalidEvent => "invalid_event",
    /// JSON that cannot be recorded faithfully.
    InvalidJson => "invalid_json",
    /// The disk has no room left.
    DiskFull => "disk_full",
    /// What is recorded cannot be kept or reached now.
    StoreUnavailable => "store_unavailable",
    /// The server keeps no records: it was started without a folder for them.
    RecordOff => "record_off",
    /// What is recorded is damaged.
    RecordDamaged => "record_damaged",
    /// A step of a pipeline failed.
    StepFailed => "step_failed",
    /// It would cost more than may be spent.
    BudgetExceeded => "budget_exceeded",
    /// The run is not in a state for what was asked, or another process has it.
    RunState => "run_state",
    /// The run was cancelled.
    RunCancelled => "run_cancelled",
    /// A pipeline that is not one.
    InvalidPipeline => "invalid_pipeline",
    /// A fault of ours.
    Internal => "internal",
}

/// What every error a caller may see can say about itself, beside its `Display` sentence.
pub trait Explain: std::error::Error {
    /// Which kind of failure this is.
    fn kind(&self) -> ErrorKind;

    /// What the caller can do about it.
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
