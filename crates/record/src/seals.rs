//! Consultations moved to archives: written, verified, and only then forgotten by the store.

use std::{
    fs,
    path::{Path, PathBuf},
};

use caudal_store::{Archive, ArchiveNote, ArchivePart, Clock, Digest, Head, List, Order, Range, Stream, Time};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use crate::{
    Consultations, RecordError, SPACE,
    archive::{Link, Options, Reader, Sealed, Series},
    consultations::aside,
};

/// Streams that are listed in one go.
const STEP: u32 = 1_000;
/// Records that are read in one go.
const RECORDS: u32 = 1_000;

/// What is to be sealed, and how.
#[derive(Debug, Clone)]
pub struct Sealing {
    /// Consultations to which nothing was appended since then.
    pub idle_since: Time,
    /// This one alone.
    pub only: Option<String>,
    /// How files are written.
    pub options: Options,
}

/// What was sealed.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Done {
    /// Consultations.
    pub consultations: u64,
    /// Their events.
    pub events: u64,
    /// Bytes of these.
    pub bytes_in: u64,
    /// Bytes of the files.
    pub bytes_out: u64,
    /// The files' names.
    pub files: Vec<String>,
}

impl Consultations {
    /// Seals. `progress` hears of events as they are written.
    pub async fn seal(
        &self,
        sealing: Sealing,
        progress: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<Done, RecordError> {
        let folder = self.folder("archives")?.archives();
        // Held from the first look to the end: nobody else seals the same, and no file that is being written is removed.
        let lock = {
            let folder = folder.clone();
            aside(move || Ok(caudal_store::lock(&folder)?))
        };
        let _lock = lock.await?;
        let streams = self.sealable(&sealing).await?;
        if streams.is_empty() {
            return Ok(Done::default());
        }
        self.tidy(&folder).await?;
        let (record, handle) = (self.clone(), Handle::current());
        let written = {
            let folder = folder.clone();
            aside(move || record.write_archives(&streams, &folder, sealing.options, &handle, &progress))
        };
        let mut done = Done::default();
        for sealed in written.await? {
            let archive = aside(move || describe(&sealed).map(|archive| (sealed, archive)));
            let (sealed, archive) = archive.await?;
            done.consultations += archive.parts.len() as u64;
            done.events += sealed.records;
            done.bytes_in += sealed.bytes_in;
            done.bytes_out += sealed.bytes_out;
            done.files.push(archive.note.file.to_string());
            self.store.seal(archive).await?;
        }
        Ok(done)
    }

    /// Streams that may be sealed, as they stand.
    async fn sealable(&self, sealing: &Sealing) -> Result<Vec<Stream>, RecordError> {
        if let Some(name) = &sealing.only {
            let stream = self.stream(name).await?;
            return Ok(if stream.head.sequence > stream.sealed { vec![stream] } else { Vec::new() });
        }
        let mut streams = Vec::new();
        loop {
            let list = List {
                space: SPACE.into(),
                order: Order::Oldest,
                limit: STEP,
                offset: streams.len() as u64,
                idle_since: Some(sealing.idle_since),
            };
            let page = self.store.streams(list).await?;
            if page.streams.is_empty() {
                return Ok(streams);
            }
            streams.extend(page.streams);
        }
    }

    /// Removes what seals that were cut off have left: files that are not whole, and archives of which the store knows
    /// nothing while it holds all that is in them. After an older backup was restored, archives hold what nobody else has:
    /// those stay.
    async fn tidy(&self, folder: &Path) -> Result<(), RecordError> {
        let known = self.store.archives().await?;
        let folder = folder.to_owned();
        let left = aside(move || left_in(&folder, &known)).await?;
        for path in left {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || self.has_all_of(&path).await? {
                tracing::info!("{name} was left by a seal that was cut off, and is removed");
                aside(move || fs::remove_file(&path).map_err(RecordError::file(&path))).await?;
            } else {
                tracing::warn!("{name} is an archive of which the store knows nothing; it stays");
            }
        }
        Ok(())
    }

    /// Whether all that an archive holds is among what is not sealed.
    async fn has_all_of(&self, archive: &Path) -> Result<bool, RecordError> {
        let path = archive.to_owned();
        let parts = aside(move || Ok(Reader::open(&path)?.streams().collect::<Result<Vec<_>, _>>()?));
        let Ok(parts) = parts.await else { return Ok(false) };
        for part in parts {
            let id = &part.stream.id;
            let hot = self.store.stream(id).await?.is_some_and(|stream| stream.sealed < part.first);
            let same = match part.last.checked_sub(1) {
                Some(before) if hot => {
                    self.store.read(id, Range::after(before, 1)).await?.first().map(|last| last.chain)
                        == Some(part.link)
                }
                _ => hot,
            };
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn write_archives(
        &self,
        streams: &[Stream],
        folder: &Path,
        options: Options,
        handle: &Handle,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<Vec<Sealed>, RecordError> {
        let day = crate::time::iso(Clock::system().now())[..19].replace(['-', ':'], "");
        let mut series = Series::new(folder, &format!("sealed-{day}"), options);
        for stream in streams {
            let from = handle.block_on(self.link_at_seal(stream))?;
            let records = Records { record: self, handle, stream, at: from.sequence, page: Vec::new().into_iter() };
            series.add(stream, from, records.inspect(|_| progress(1)))?;
        }
        Ok(series.finish()?)
    }

    /// Where the part of a stream that is not sealed begins.
    async fn link_at_seal(&self, stream: &Stream) -> Result<Link, RecordError> {
        if stream.sealed == 0 {
            return Ok(Link::origin(stream));
        }
        let last = self.store.sealed(&stream.id).await?.pop();
        let last = last.ok_or_else(|| RecordError::NoEvent(stream.sealed.to_string().into()))?;
        Ok(Link { sequence: last.last, chain: last.chain })
    }
}

/// Records of a stream that the store holds, up to its head as it was when sealing began.
struct Records<'a> {
    record: &'a Consultations,
    handle: &'a Handle,
    stream: &'a Stream,
    at: u64,
    page: std::vec::IntoIter<caudal_store::Record>,
}

impl Iterator for Records<'_> {
    type Item = Result<caudal_store::Record, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.stream.head.sequence {
            return None;
        }
        if self.page.len() == 0 {
            let read = self.record.store.read(&self.stream.id, Range::after(self.at, RECORDS));
            match self.handle.block_on(read) {
                Ok(page) => self.page = page.into_iter(),
                Err(error) => {
                    self.at = u64::MAX;
                    return Some(Err(error.into()));
                }
            }
        }
        let record = self.page.next()?;
        self.at = record.sequence;
        Some(Ok(record))
    }
}

/// Files of seals of which the store knows nothing.
fn left_in(folder: &Path, known: &[ArchiveNote]) -> Result<Vec<PathBuf>, RecordError> {
    let wrong = || RecordError::file(folder);
    let mut left = Vec::new();
    for entry in fs::read_dir(folder).map_err(wrong())? {
        let entry = entry.map_err(wrong())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // What `reindex` keeps ends otherwise.
        let ours = name.starts_with(".sealed-") || name.starts_with("sealed-") && name.ends_with(".h5");
        if ours && !known.iter().any(|note| *note.file == *name) {
            left.push(entry.path());
        }
    }
    Ok(left)
}

/// What the store is to know of a sealed file.
fn describe(sealed: &Sealed) -> Result<Archive, RecordError> {
    let path = &sealed.path;
    let reader = Reader::open(path)?;
    let part = |part: crate::archive::Part| {
        let Stream { id, head, .. } = part.stream;
        ArchivePart {
            stream: id,
            first: part.first,
            last: Head { sequence: part.last, chain: part.link, time: head.time },
        }
    };
    let parts: Result<Vec<_>, _> = reader.streams().map(|found| found.map(part)).collect();
    let note = ArchiveNote {
        file: path.file_name().map(|name| name.to_string_lossy().into()).unwrap_or_default(),
        time: Clock::system().now(),
        records: sealed.records,
        bytes: sealed.bytes_out,
        digest: digest_of(path)?,
    };
    Ok(Archive { note, parts: parts?.into_iter().filter(|part| part.last.sequence >= part.first).collect() })
}

/// SHA-256 of a file.
pub(crate) fn digest_of(path: &Path) -> Result<Digest, RecordError> {
    let mut file = fs::File::open(path).map_err(RecordError::file(path))?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match std::io::Read::read(&mut file, &mut piece).map_err(RecordError::file(path))? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&piece[..count]),
        }
    }
}
