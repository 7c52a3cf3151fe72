//! Exports: a consultation written out into a folder of its own, with a manifest. Whole, or not there.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use caudal_store::{Clock, Range, Stream};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    Consultations, RecordError,
    consultations::aside,
    export::{
        Exporter, Format, Manifest, Written,
        room::{Bounded, Writing},
    },
    proof::{SignedHead, Uncovered, VerifyingKey, strict},
};

/// The manifest's name.
pub const MANIFEST: &str = "manifest.json";
/// Events that are written in one go.
const STEP: u32 = 500;

/// Whether an export is what it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Checked {
    /// Whether everything is as the manifest says.
    pub valid: bool,
    /// What the manifest itself lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// File by file.
    pub files: Vec<CheckedFile>,
}

/// Whether a file is what it was.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckedFile {
    /// Its name.
    pub name: String,
    /// Whether it is.
    pub valid: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

impl Consultations {
    /// Writes one out into `folder`, which is made.
    pub async fn export_to(
        &self,
        name: &str,
        formats: &[Format],
        folder: &Path,
        by: &str,
    ) -> Result<Manifest, RecordError> {
        self.export_within(None, name, formats, folder, by).await
    }

    async fn export_within(
        &self,
        room: Option<Arc<Writing>>,
        name: &str,
        formats: &[Format],
        folder: &Path,
        by: &str,
    ) -> Result<Manifest, RecordError> {
        let (folder, beside) = (folder.to_owned(), folder.with_extension("part"));
        let written = self.write_out(room, name, formats, &beside, by).await;
        aside(move || {
            let placed = written.and_then(|manifest| place(&beside, &folder).map(|()| manifest));
            if placed.is_err() {
                let _ = fs::remove_dir_all(&beside);
            }
            placed
        })
        .await
    }

    async fn write_out(
        &self,
        room: Option<Arc<Writing>>,
        name: &str,
        formats: &[Format],
        folder: &Path,
        by: &str,
    ) -> Result<Manifest, RecordError> {
        let stream = self.stream(name).await?;
        let head = self.head(name).await?;
        let mut exporters = {
            let (formats, folder) = (formats.to_vec(), folder.to_owned());
            aside(move || begin(room, &formats, &stream, &folder)).await?
        };
        let mut at = 0;
        while at < head.sequence {
            let wanted = u32::try_from(head.sequence - at).unwrap_or(STEP).min(STEP);
            let some = self.events(name, Range::after(at, wanted)).await?;
            let Some(last) = some.last() else { break };
            at = last.sequence;
            exporters = aside(move || {
                for (path, exporter) in &mut exporters {
                    some.iter().try_for_each(|record| exporter.event(record)).map_err(RecordError::file(path))?;
                }
                Ok(exporters)
            })
            .await?;
        }
        let (folder, by) = (folder.to_owned(), by.to_owned());
        aside(move || finish(exporters, head, &folder, &by)).await
    }

    /// Writes one out into a folder of the server's own, and tells its name.
    pub async fn export(&self, name: &str, formats: &[Format], by: &str) -> Result<(String, Manifest), RecordError> {
        let exports = self.folder("exports")?.exports();
        let id = Uuid::new_v4().to_string();
        // A name that no consultation has costs no look at the folder.
        self.stream(name).await?;
        let room = match &self.exports {
            Some(room) => {
                let room = Arc::clone(room);
                Some(aside(move || Ok(room.begin())).await?)
            }
            None => None,
        };
        let manifest = self.export_within(room, name, formats, &exports.join(&id), by).await?;
        Ok((id, manifest))
    }

    /// The folder of an export.
    fn export_folder(&self, id: &str) -> Result<PathBuf, RecordError> {
        let none = || RecordError::NoExport(id.into());
        // A UUID, and so no path.
        let id = Uuid::try_parse(id).map_err(|_| none())?.to_string();
        let folder = self.folder("exports")?.exports().join(id);
        if folder.is_dir() { Ok(folder) } else { Err(none()) }
    }

    /// The manifest of an export.
    pub async fn export_manifest(&self, id: &str) -> Result<Manifest, RecordError> {
        let folder = self.export_folder(id)?;
        aside(move || read_manifest(&folder)).await
    }

    /// Whether an export is what it was.
    pub async fn check_export(&self, id: &str) -> Result<Checked, RecordError> {
        let (folder, key) = (self.export_folder(id)?, self.signing_key()?);
        aside(move || check_folder(&folder, key.as_ref())).await
    }

    /// The file of an export, open, if the manifest knows it.
    pub async fn export_file(&self, id: &str, name: &str) -> Result<(File, &'static str), RecordError> {
        let manifest = self.export_manifest(id).await?;
        let path = self.export_folder(id)?.join(name);
        let kind = match manifest.files.iter().find(|file| file.name == name) {
            Some(file) => file.format.media_type(),
            None if name == MANIFEST => "application/json",
            None => return Err(RecordError::NoExport(format!("{id}/{name}").into())),
        };
        aside(move || Ok((File::open(&path).map_err(RecordError::file(&path))?, kind))).await
    }
}

type Exporters = Vec<(PathBuf, Exporter<BufWriter<Bounded<File>>>)>;

fn begin(
    room: Option<Arc<Writing>>,
    formats: &[Format],
    stream: &Stream,
    folder: &Path,
) -> Result<Exporters, RecordError> {
    fs::create_dir_all(folder).map_err(RecordError::file(folder))?;
    let begun = formats.iter().map(|format| {
        let path = folder.join(format!("consultation.{}", format.name()));
        let exporter = File::create(&path).and_then(|out| {
            let out = Bounded { out, room: room.clone() };
            Exporter::new(*format, stream.clone(), BufWriter::new(out))
        });
        exporter.map_err(RecordError::file(&path)).map(|exporter| (path, exporter))
    });
    begun.collect()
}

/// Gives a folder that is written its name, for good.
fn place(beside: &Path, folder: &Path) -> Result<(), RecordError> {
    fs::rename(beside, folder).map_err(RecordError::file(folder))?;
    let around = folder.parent().filter(|around| !around.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(around).and_then(|folder| folder.sync_all()).map_err(RecordError::file(around))
}

fn finish(exporters: Exporters, head: SignedHead, folder: &Path, by: &str) -> Result<Manifest, RecordError> {
    let mut files: Vec<(String, Written)> = Vec::new();
    for (path, exporter) in exporters {
        let (written, out) = exporter.finish(&head).map_err(RecordError::file(&path))?;
        let file = out.into_inner().map_err(|error| RecordError::file(&path)(error.into_error()))?;
        file.out.sync_all().map_err(RecordError::file(&path))?;
        files.push((path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(), written));
    }
    let files: Vec<(&str, Written)> = files.iter().map(|(name, written)| (name.as_str(), *written)).collect();
    let manifest = Manifest::new(&files, head, Clock::system().now(), by);
    let path = folder.join(MANIFEST);
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&path)?;
        serde_json::to_writer_pretty(&mut file, &manifest)?;
        file.write_all(b"\n")?;
        file.sync_all()
    };
    write().map_err(RecordError::file(&path))?;
    Ok(manifest)
}

fn read_manifest(folder: &Path) -> Result<Manifest, RecordError> {
    Ok(read_strictly(folder)?.0)
}

/// The manifest, and what stands in it that no hash covers.
fn read_strictly(folder: &Path) -> Result<(Manifest, Option<Uncovered>), RecordError> {
    let path = folder.join(MANIFEST);
    let text = fs::read(&path).map_err(RecordError::file(&path))?;
    strict::read(&text, &[]).map_err(|error| RecordError::File {
        path: path.display().to_string().into(),
        words: format!("is no manifest: {error}").into(),
    })
}

/// Whether what lies in `folder` is what its manifest says, and, where a key is given, whether that key signed its head.
pub fn check_folder(folder: &Path, key: Option<&VerifyingKey>) -> Result<Checked, RecordError> {
    let (manifest, uncovered) = read_strictly(folder)?;
    let fault = manifest.verify(key).err().map(|fault| fault.to_string());
    let fault = fault.or(uncovered.map(|uncovered| uncovered.to_string()));
    let check = |name: &str| -> Result<(), String> {
        // What a manifest says is no reason to look elsewhere.
        if name.contains('/') || name == ".." {
            return Err("the name leads out of the folder".to_owned());
        }
        let file = File::open(folder.join(name)).map_err(|error| error.to_string())?;
        manifest.verify_file(name, file).map_err(|fault| fault.to_string())
    };
    let files = manifest.files.iter().map(|file| {
        let fault = check(&file.name).err();
        CheckedFile { name: file.name.clone(), valid: fault.is_none(), fault }
    });
    let files: Vec<_> = files.collect();
    Ok(Checked { valid: fault.is_none() && files.iter().all(|file| file.valid), fault, files })
}
