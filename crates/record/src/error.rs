//! What goes wrong with a record.

use std::{borrow::Cow, path::Path, sync::Arc};

use caudal_store::StoreError;
use caudal_types::{ErrorKind, Explain, shorten};

use crate::{
    archive::ArchiveError,
    canonical::JsonError,
    export::ExportsFull,
    kinds::{KindError, PayloadError},
    resent::IdInUse,
};

/// Why something was not recorded, or cannot be told.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordError {
    /// Not JSON that can be recorded.
    #[error("the event cannot be recorded: {0}")]
    Json(#[from] JsonError),
    /// Not an event of its type.
    #[error(transparent)]
    Kind(#[from] KindError),
    /// Not what an event of its type says.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No such consultation.
    #[error("there is no consultation {:?}", shorten(.0))]
    NoConsultation(Box<str>),
    /// No such event.
    #[error("the consultation has no event {:?}", shorten(.0))]
    NoEvent(Box<str>),
    /// An event's id that is none.
    #[error("{:?} is no UUID", shorten(.0))]
    EventId(Box<str>),
    /// An event's id that another event has.
    #[error("{0}")]
    IdInUse(IdInUse),
    /// A name that no consultation can have.
    #[error("{0}")]
    Name(&'static str),
    /// An archive cannot be read, or written.
    #[error(transparent)]
    Archive(Arc<ArchiveError>),
    /// A file or folder of ours cannot be read, or written.
    #[error("{path}: {words}")]
    File {
        /// Which.
        path: Box<str>,
        /// What was said.
        words: Box<str>,
    },
    /// No such export.
    #[error("there is no export {:?}", shorten(.0))]
    NoExport(Box<str>),
    /// No room for an export.
    #[error(transparent)]
    ExportsFull(ExportsFull),
    /// What cannot be done without a folder for it.
    #[error("there is no folder for {0}")]
    NoFolder(&'static str),
    /// What ran aside broke off.
    #[error("the work broke off: {0}")]
    BrokeOff(Box<str>),
    /// Nothing to append.
    #[error("there is no event in the request")]
    Nothing,
}

impl From<ArchiveError> for RecordError {
    fn from(error: ArchiveError) -> Self {
        Self::Archive(Arc::new(error))
    }
}

impl RecordError {
    /// What went wrong with a file.
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.display().to_string().into();
        move |error| match error.get_ref().and_then(|inner| inner.downcast_ref::<ExportsFull>()) {
            Some(full) => Self::ExportsFull(*full),
            None => Self::File { path, words: error.to_string().into() },
        }
    }
}

impl Explain for RecordError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Json(error) => error.kind(),
            Self::Kind(error) => error.kind(),
            Self::Payload(error) => Explain::kind(error),
            Self::Store(error) => error.kind(),
            Self::NoConsultation(_) | Self::NoEvent(_) => ErrorKind::NotFound,
            Self::EventId(_) | Self::Name(_) => ErrorKind::InvalidParameter,
            Self::IdInUse(_) => ErrorKind::Exists,
            Self::Nothing => ErrorKind::EmptyBody,
            Self::Archive(error) => error.kind(),
            Self::File { .. } => ErrorKind::StoreUnavailable,
            Self::NoExport(_) => ErrorKind::NotFound,
            Self::ExportsFull(_) => ErrorKind::TooManyRequests,
            Self::NoFolder(_) => ErrorKind::RecordOff,
            Self::BrokeOff(_) => ErrorKind::Internal,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Json(error) => error.hint(),
            Self::Kind(error) => error.hint(),
            Self::Payload(error) => error.hint(),
            Self::Store(error) => error.hint(),
            Self::NoConsultation(_) => "GET /consultations lists those there are; POST /consultations makes one".into(),
            Self::NoEvent(_) => "GET /consultations/{id}/events lists them".into(),
            Self::EventId(_) => "send a UUID, or leave it out: one is made".into(),
            Self::IdInUse(in_use) => in_use.hint().into(),
            Self::Name(_) => "leave consultation_id out: one is made".into(),
            Self::Archive(error) => error.hint(),
            Self::File { .. } => "look at the data folder: its disk, and who may read and write there".into(),
            Self::NoExport(_) => "POST /api/exports makes one".into(),
            Self::ExportsFull(_) => {
                "try again in ten minutes: exports that are older go for new ones; or raise record_exports_mb, or write it \
                 elsewhere by caudal record export"
                    .into()
            }
            Self::NoFolder(_) => "start with --data-dir DIR".into(),
            Self::BrokeOff(_) => "try again; if it stays so, caudal record verify --all tells what is damaged".into(),
            Self::Nothing => "send at least one event".into(),
        }
    }
}
