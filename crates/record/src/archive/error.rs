//! What can go wrong with an archive.

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
};

use caudal_types::{ErrorKind, Explain};

use super::hdf5::Failed;

/// Why an archive could not be written, read or believed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system refused.
    #[error("{path}: could not {doing}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// No room is left where the archive is written.
    #[error("{}: the disk is full", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The file does not begin as HDF5 files do.
    #[error("{} is not an HDF5 file", path.display())]
    NotHdf5 {
        /// The file.
        path: PathBuf,
    },
    /// Something that is read from its beginning to its end alone, or a folder.
    #[error("{} is not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// An HDF5 file without the index that Caudal writes into it.
    #[error("{} is an HDF5 file without Caudal's index", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The file is shorter than it says itself.
    #[error("{} was cut short: it has {has} bytes of {wants}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that are there.
        has: u64,
        /// Bytes that it says it has, at least.
        wants: u64,
    },
    /// Bytes are not those that were written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which part, and how it shows.
        what: String,
    },
    /// Written by a later Caudal.
    #[error("{} has format {found}, and this build reads format {known}", path.display(), known = super::FORMAT)]
    Version {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A file that another program has open for writing, or had when it died.
    #[error("{} is open for writing elsewhere, or was when its writer died ({words})", path.display())]
    OpenElsewhere {
        /// The file.
        path: PathBuf,
        /// What the HDF5 library said.
        words: String,
    },
    /// Chunks went through a filter that neither the HDF5 library nor Caudal can undo.
    #[error("{} cannot be unpacked: {words}", path.display())]
    FilterMissing {
        /// The file.
        path: PathBuf,
        /// What the HDF5 library said.
        words: String,
    },
    /// What stands where events should is something else.
    #[error("{}: {words}", path.display())]
    NotEvents {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        words: String,
    },
    /// The HDF5 library refused.
    #[error("{}: HDF5: {words}", path.display())]
    Hdf5 {
        /// The file.
        path: PathBuf,
        /// What it said.
        words: String,
    },
    /// What is to be archived does not fit together: what the store gave is damaged.
    #[error("record {sequence} of {stream} cannot be archived: {why}")]
    Unfit {
        /// The stream.
        stream: String,
        /// The record.
        sequence: u64,
        /// What is wrong with it.
        why: String,
    },
    /// A codec that does not exist.
    #[error("there is no codec {0:?}")]
    Codec(String),
    /// The process that reads somebody's file ended before its time.
    #[error("{} could not be imported: {words}", path.display())]
    Import {
        /// The file.
        path: PathBuf,
        /// What it said last, or how it ended.
        words: String,
    },
}

impl ArchiveError {
    pub(super) fn io(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { path, doing, source },
        }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }

    /// The library tells by words alone what kind of failure it was.
    pub(super) fn hdf5(path: &Path) -> impl FnOnce(Failed) -> Self {
        let path = path.to_owned();
        move |Failed(words)| {
            let says = |part: &str| words.contains(part);
            if says("errno = 28") {
                Self::DiskFull { path }
            } else if says("truncated file") {
                Self::Damaged { path, what: words }
            } else if says("signature not found") {
                Self::NotHdf5 { path }
            } else if says("unable to lock file") || says("already open for") {
                Self::OpenElsewhere { path, words }
            } else if says("required filter") || says("filter plugins disabled") {
                Self::FilterMissing { path, words }
            } else {
                Self::Hdf5 { path, words }
            }
        }
    }
}

impl Explain for ArchiveError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NotHdf5 { .. } | Self::NotOurs { .. } | Self::Truncated { .. } | Self::Damaged { .. } => {
                ErrorKind::ArchiveDamaged
            }
            Self::Codec(_) | Self::NotRegular { .. } => ErrorKind::InvalidParameter,
            Self::OpenElsewhere { .. } | Self::FilterMissing { .. } | Self::NotEvents { .. } | Self::Import { .. } => {
                ErrorKind::InvalidRequest
            }
            Self::Io { .. } | Self::DiskFull { .. } | Self::Version { .. } | Self::Hdf5 { .. } | Self::Unfit { .. } => {
                ErrorKind::Internal
            }
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Io { .. } => "look at the folder's permissions and at the disk",
            Self::DiskFull { .. } => "free some room; nothing has left the store",
            Self::NotHdf5 { .. } => {
                "archives are made by `caudal record seal`; files of others are read by `caudal record import`"
            }
            Self::NotRegular { .. } => "HDF5 is read from many places at a time: copy it to a file, and name that",
            Self::NotOurs { .. } | Self::Truncated { .. } | Self::Damaged { .. } => {
                "run `caudal record reindex`: it rewrites the archive from its events and names those that it cannot read; restore \
                 these from a backup"
            }
            Self::Version { .. } => "read it with the Caudal that wrote it, or a later one",
            // `h5clear` writes into the file that it is given.
            Self::OpenElsewhere { words, .. } if words.contains("unable to lock file") => {
                "close it there; if no program has it open, its disk may not support locks: set \
                 HDF5_USE_FILE_LOCKING=FALSE for this command"
            }
            Self::OpenElsewhere { .. } => {
                "close it there; if its writer died, copy the file, run `h5clear -s COPY`, and import the copy"
            }
            Self::FilterMissing { .. } => {
                "write it anew with gzip: `h5repack -f GZIP=4 IN OUT`, with the plugins of hdf5plugin"
            }
            Self::NotEvents { .. } => {
                "write the JSON of the events into a dataset of strings of one dimension, and import that; nothing was \
                 imported"
            }
            Self::Hdf5 { .. } => "look at the file with h5ls or h5dump",
            Self::Unfit { .. } => "verify the stream; a damaged record is not archived",
            Self::Codec(_) => "codecs are none, gzip-1 to gzip-9, lzf, lz4 and zstd-1 to zstd-19",
            Self::Import { .. } => {
                "look at the file with h5ls or h5dump; if it is whole, raise the limits of the import"
            }
        }
        .into()
    }
}
