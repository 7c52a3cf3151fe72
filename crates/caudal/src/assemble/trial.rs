//! The process in which models are tried before they are loaded.

use std::{ffi::OsString, fs, os::unix::fs::MetadataExt, path::Path};

use caudal_engine_ort::locate_library;
use caudal_memory::Sources;
use caudal_tasks::trial::{Known, Trial};

use crate::{cli::TRY_COMMAND, settings::Settings};

/// The trial that the settings ask for.
pub(super) fn trial(settings: &Settings) -> Option<Trial> {
    let time = settings.bounds.load_time?;
    let (library, _) = locate_library(settings.onnxruntime_library.as_deref()).ok()?;
    let age = fs::metadata(&library).map(|meta| (meta.len(), meta.mtime())).unwrap_or_default();
    let kernel = Sources::with_root(Path::new("/"));
    Some(Trial {
        about: format!("{} {age:?}", library.display()).into_bytes(),
        // This program again, as it is on disk even if a newer one has taken its place there.
        command: ["/proc/self/exe", TRY_COMMAND, "--library"]
            .map(OsString::from)
            .into_iter()
            .chain([library.into()])
            .collect(),
        notes: caudal_types::cache_dir().join("tried-models"),
        known: Known::default(),
        memory: settings.bounds.load_memory,
        time,
        free: Box::new(move || kernel.take_reading().bytes_until(100.0)),
    })
}
