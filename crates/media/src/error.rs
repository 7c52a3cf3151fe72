//! Why a film was not made.

use std::{borrow::Cow, io, path::PathBuf};

use caudal_types::{ErrorKind, Explain};

/// Why a film was not made. Whatever it is, nothing was written in the output's place.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// A program is not on this machine.
    #[error("{0} is not on this machine")]
    NoProgram(&'static str),
    /// A program is older than what we ask of it.
    #[error("ffmpeg is version {found}, and at least 5.1 is needed")]
    TooOld {
        /// What it says of itself.
        found: String,
    },
    /// The input is not a file that can be read.
    #[error("{file} cannot be read: {reason}")]
    Unreadable {
        /// Its name.
        file: String,
        /// Why.
        reason: String,
    },
    /// The input names other files or addresses, or is no film at all.
    #[error("{file} is {found}, and that is not opened")]
    Refused {
        /// Its name.
        file: String,
        /// What it is.
        found: &'static str,
    },
    /// ffprobe makes no sense of the input.
    #[error("{file} is no film that ffmpeg reads: {said}")]
    Broken {
        /// Its name.
        file: String,
        /// What ffprobe said.
        said: String,
    },
    /// The file is shorter than its container promises.
    #[error("{file} is not whole: {missing}")]
    Torn {
        /// Its name.
        file: String,
        /// What is missing.
        missing: String,
    },
    /// Time stamps run back in a container whose streams cannot be put on one clock.
    #[error("{file} has time stamps that run back, at {seconds:.3} s (packet {packet} of stream {stream})")]
    RunsBack {
        /// Its name.
        file: String,
        /// The stream.
        stream: usize,
        /// The first packet that does.
        packet: usize,
        /// When the packet before it is presented.
        seconds: f64,
    },
    /// An edit list hides frames, and a copy would show them.
    #[error("{file} has {frames} frames that its edit list hides, and a copy would show them")]
    Hidden {
        /// Its name.
        file: String,
        /// How many.
        frames: u64,
    },
    /// The film lacks what was asked for.
    #[error("{file} has no {lacks}")]
    Lacks {
        /// Its name.
        file: String,
        /// What is missing.
        lacks: &'static str,
    },
    /// The film is larger than allowed.
    #[error("{file} has {found}, and at most {most} is allowed")]
    TooMuch {
        /// Its name.
        file: String,
        /// How much of what.
        found: String,
        /// The limit.
        most: String,
    },
    /// The order cannot be carried out as it was given.
    #[error("{0}")]
    Order(String),
    /// The output is there already.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// The output is one of the inputs.
    #[error("{} would be read and written at once", .0.display())]
    Same(PathBuf),
    /// Films that should be joined differ.
    #[error("{file} cannot be joined to {first}: {what}")]
    Differ {
        /// The first film.
        first: String,
        /// The one that differs.
        file: String,
        /// In what.
        what: String,
    },
    /// No encoder works.
    #[error("no encoder for {codec} works here: {said}")]
    NoEncoder {
        /// The codec.
        codec: &'static str,
        /// What was tried and what it said.
        said: String,
    },
    /// ffmpeg ended with an error.
    #[error("{what} failed: {said}")]
    Failed {
        /// What it was to do.
        what: String,
        /// What it said, shortened.
        said: String,
    },
    /// Somebody else killed ffmpeg.
    #[error("{what} was killed by signal {signal}")]
    Killed {
        /// What it was to do.
        what: String,
        /// The signal.
        signal: i32,
    },
    /// ffmpeg made no progress.
    #[error("{what} made no progress for {seconds} s and was ended")]
    Stalled {
        /// What it was to do.
        what: String,
        /// For how long.
        seconds: u64,
    },
    /// The file system is full.
    #[error("{what} failed: no space is left on the device")]
    DiskFull {
        /// What was to be done.
        what: String,
    },
    /// The result is not what the source is.
    #[error("the result differs from its source: {what} should be {expected} and is {found}")]
    Mismatch {
        /// What differs.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Whoever asked for it has changed their mind.
    #[error("stopped")]
    Stopped,
    /// Something of the file system.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
}

impl MediaError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| match error.kind() {
            io::ErrorKind::StorageFull => Self::DiskFull { what: format!("writing {}", path.display()) },
            _ => Self::Io { path, error },
        }
    }
}

impl Explain for MediaError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoProgram(_) | Self::TooOld { .. } | Self::NoEncoder { .. } => ErrorKind::NotBuiltIn,
            Self::Unreadable { .. } => ErrorKind::NotFound,
            Self::Refused { .. } | Self::Broken { .. } | Self::Torn { .. } | Self::RunsBack { .. } => {
                ErrorKind::UnsupportedMediaType
            }
            Self::TooMuch { .. } => ErrorKind::BodyTooLarge,
            Self::Order(_) | Self::Exists(_) | Self::Same(_) => ErrorKind::InvalidParameter,
            Self::Lacks { .. } | Self::Differ { .. } | Self::Hidden { .. } => ErrorKind::InvalidRequest,
            Self::Stalled { .. } => ErrorKind::DeadlineExceeded,
            Self::Stopped => ErrorKind::ClientGone,
            Self::Failed { .. } | Self::Killed { .. } | Self::DiskFull { .. } => ErrorKind::ExportFailed,
            Self::Mismatch { .. } | Self::Io { .. } => ErrorKind::ExportFailed,
        }
    }

    fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::NoProgram(_) => "Debian and Ubuntu: apt-get install --no-install-recommends ffmpeg".into(),
            Self::TooOld { .. } => "Debian 12 and Ubuntu 24.04 have newer ones".into(),
            Self::Unreadable { .. } => "inputs are files on this machine, never addresses".into(),
            Self::Refused { .. } => {
                "films in mp4, mov, mkv, webm, ts, mpg, avi, flv and ogg are, and sound in wav, mp3, flac and aac"
                    .into()
            }
            Self::Broken { .. } => "check that the file is whole".into(),
            Self::Torn { .. } => {
                "fetch the file again; `ffmpeg -i FILE -c copy rest.mkv` makes a film of what is there".into()
            }
            Self::RunsBack { .. } => "`ffmpeg -i FILE rest.mkv` makes a film on one clock of it".into(),
            Self::Hidden { .. } => "`caudal media transcode` makes a film of what is shown, which can be copied".into(),
            Self::Lacks { .. } => "`caudal media probe` tells what it has".into(),
            Self::TooMuch { .. } => "see the limits in `caudal media transcode --help`".into(),
            Self::Order(_) => "see `caudal media --help`".into(),
            Self::Exists(_) => "say --force to replace it".into(),
            Self::Same(_) => "name another output".into(),
            Self::Differ { .. } => "make them alike with `caudal media transcode` first".into(),
            Self::NoEncoder { .. } => {
                "`ffmpeg -encoders` lists those there are; --encoder software takes none of hardware".into()
            }
            Self::Failed { .. } => "nothing was written; check that the source plays to its end".into(),
            Self::Killed { .. } => "nothing was written; `dmesg` tells whether the machine ran out of memory".into(),
            Self::Stalled { .. } => "nothing was written; raise --stall-timeout if this machine is slow".into(),
            Self::DiskFull { .. } => {
                "nothing was written; twice the result's size must be free beside the output".into()
            }
            Self::Mismatch { .. } => {
                "nothing was written; the source may be damaged: play it, or encode it by `caudal media transcode`, \
                 with --segments 1 and --encoder software if it was that"
                    .into()
            }
            Self::Stopped => "nothing was written".into(),
            Self::Io { .. } => "check that the folder is there and the rights to write there".into(),
        }
    }
}
