//! Archives whose index is gone or damaged, or that another program has written to: written again from the events in them.

use std::{
    fs,
    iter::Peekable,
    path::{Path, PathBuf},
};

use caudal_store::{Archive, ArchiveNote, Digest};
use tokio::runtime::Handle;

use crate::{
    Consultations, RecordError,
    archive::{
        ArchiveError, Import, ImportLimits, Imported, Link, Options, Reader, Writer, import, read_line, sync_folder,
    },
    consultations::{aside, stream_of},
    seals::digest_of,
};

/// What became of an archive.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Reindexed {
    /// Its file's name.
    pub file: Box<str>,
    /// Whether it was as it was sealed, and so was left alone.
    pub whole: bool,
    /// Events of it that were written again; none where the file was not replaced.
    pub events: u64,
    /// The name under which the file stays as it was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
    /// What could not be brought back, and why.
    pub lost: Vec<String>,
}

/// What was written again, and what was not.
struct Written {
    events: u64,
    lost: Vec<String>,
}

impl Consultations {
    /// Writes each archive again that is not as it was sealed, by what can still be read of it: by its index, or else by the
    /// HDF5 library in a process of `program`, which is `caudal`. Each consultation's events must make the chain that the
    /// store says. A file that is replaced stays under another name.
    ///
    /// # Errors
    /// Where the store cannot be read, or another process seals. What is wrong with an archive stands in what is returned.
    pub async fn reindex(&self, program: &Path, options: Options) -> Result<Vec<Reindexed>, RecordError> {
        let folder = self.folder("archives")?.archives();
        let lock = {
            let folder = folder.clone();
            aside(move || Ok(caudal_store::lock(&folder)?))
        };
        let _lock = lock.await?;
        let mut all = Vec::new();
        for note in self.store.archives().await? {
            let path = folder.join(&*note.file);
            let done = self.reindex_one(&path, &note, program, &options).await;
            all.push(done.unwrap_or_else(|error| Reindexed {
                file: note.file.clone(),
                whole: false,
                events: 0,
                kept: None,
                lost: vec![error.to_string()],
            }));
        }
        Ok(all)
    }

    async fn reindex_one(
        &self,
        path: &Path,
        note: &ArchiveNote,
        program: &Path,
        options: &Options,
    ) -> Result<Reindexed, RecordError> {
        let (found, digest, threads) = (path.to_owned(), note.digest, options.threads);
        let mut done = Reindexed { file: note.file.clone(), whole: false, events: 0, kept: None, lost: Vec::new() };
        if aside(move || Ok(is_as_sealed(&found, digest, threads))).await? {
            done.whole = true;
            return Ok(done);
        }
        let new = path.with_file_name(format!(".{}.new", note.file));
        let again = Again {
            record: self.clone(),
            handle: Handle::current(),
            path: path.to_owned(),
            new: new.clone(),
            file: note.file.clone(),
            options: Options { limit: u64::MAX, ..options.clone() },
        };
        let program = program.to_owned();
        let Written { events, lost } = aside(move || again.write(&program)).await?;
        done.lost = lost;
        if events < note.records && done.lost.is_empty() {
            done.lost.push(format!("{} of {} events are not in it", note.records - events, note.records));
        }
        let (old, note, all) = (path.to_owned(), note.clone(), done.lost.is_empty());
        let replaced = aside(move || match all || Reader::open(&old).is_err() {
            true => replace(&old, &new, note).map(Some),
            // By its index more can be read: all but what is damaged.
            false => fs::remove_file(&new).map_err(RecordError::file(&new)).map(|()| None),
        });
        let Some((kept, note)) = replaced.await? else { return Ok(done) };
        done.events = events;
        self.store.seal(Archive { note, parts: Vec::new() }).await?;
        done.kept = Some(kept);
        Ok(done)
    }
}

/// Whether a file is the one that was sealed, and whole.
fn is_as_sealed(path: &Path, digest: Digest, threads: usize) -> bool {
    let whole = Reader::open(path).and_then(|reader| reader.verify(threads, &|_| {}));
    whole.is_ok() && digest_of(path).is_ok_and(|found| found == digest)
}

/// Puts `new` in place of `old`, which stays under the name that is returned; and what is to be known of it.
fn replace(old: &Path, new: &Path, note: ArchiveNote) -> Result<(String, ArchiveNote), RecordError> {
    let names = (1_u32..).map(|number| match number {
        1 => format!("{}.damaged", note.file),
        number => format!("{}.damaged-{number}", note.file),
    });
    let kept = names.map(|name| old.with_file_name(name)).find(|path| !path.exists()).unwrap_or_default();
    // The archive's own name is never without a file, where the disk lets a file have two names.
    fs::hard_link(old, &kept).or_else(|_| fs::rename(old, &kept)).map_err(RecordError::file(old))?;
    let bytes = fs::metadata(new).map_err(RecordError::file(new))?.len();
    let digest = digest_of(new)?;
    fs::rename(new, old).map_err(RecordError::file(old))?;
    sync_folder(old)?;
    let kept = kept.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok((kept, ArchiveNote { bytes, digest, ..note }))
}

/// An archive that is written again.
struct Again {
    record: Consultations,
    handle: Handle,
    path: PathBuf,
    new: PathBuf,
    /// Its name in the store.
    file: Box<str>,
    options: Options,
}

impl Again {
    fn write(self, program: &Path) -> Result<Written, RecordError> {
        let mut found = import(program, &self.path, ImportLimits::default())?.peekable();
        if self.new.exists() {
            fs::remove_file(&self.new).map_err(RecordError::file(&self.new))?;
        }
        let mut writer = Writer::create(&self.new, self.options.clone())?;
        let mut written = Written { events: 0, lost: Vec::new() };
        while let Some(item) = found.next() {
            match item? {
                Imported::Consultation { name, .. } => {
                    self.consultation(&name, &mut found, &mut writer, &mut written)?;
                }
                Imported::Damaged { consultation, words } => written.lost.push(format!("{consultation}: {words}")),
                // What other programs have added, and events of a consultation that was left out.
                Imported::Skipped(_) | Imported::Event { .. } => {}
            }
        }
        if written.events == 0 {
            let why = if written.lost.is_empty() { "it has no events".to_owned() } else { written.lost.join("; ") };
            return Err(ArchiveError::Damaged { path: self.path, what: why }.into());
        }
        writer.finish()?;
        Ok(written)
    }

    fn consultation(
        &self,
        name: &str,
        found: &mut Peekable<Import>,
        writer: &mut Writer,
        written: &mut Written,
    ) -> Result<(), RecordError> {
        // What is said of the consultation as a whole the store knows better.
        let again = |item: &Result<Imported, ArchiveError>| matches!(item, Ok(Imported::Consultation { name: next, .. }) if **next == *name);
        while found.next_if(again).is_some() {}
        let id = stream_of(name);
        let Some(stream) = self.handle.block_on(self.record.store.stream(&id))? else {
            written.lost.push(format!("{name}: the store does not know it"));
            return Ok(());
        };
        let parts = self.handle.block_on(self.record.store.sealed(&id))?;
        let Some(at) = parts.iter().position(|part| part.file == self.file) else {
            written.lost.push(format!("{name}: the store does not know that it is in this archive"));
            return Ok(());
        };
        let from = match at.checked_sub(1).map(|before| &parts[before]) {
            Some(before) => Link { sequence: before.last, chain: before.chain },
            None => Link::origin(&stream),
        };
        let mut records = Records { found, before: from.chain };
        let added = writer.add(&stream, from, &mut records)?;
        let part = &parts[at];
        if added.last != (Link { sequence: part.last, chain: part.chain }) {
            let what = format!("the events of {name} are not those that were sealed");
            return Err(ArchiveError::Damaged { path: self.path.clone(), what }.into());
        }
        written.events += part.last - from.sequence;
        Ok(())
    }
}

/// Events of one consultation, as records.
struct Records<'a> {
    found: &'a mut Peekable<Import>,
    before: Digest,
}

impl Iterator for Records<'_> {
    type Item = Result<caudal_store::Record, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.found.next_if(|item| matches!(item, Ok(Imported::Event { .. }) | Err(_)))?;
        Some(match item {
            Ok(Imported::Event { json, .. }) => {
                let record = read_line(json.as_bytes(), &self.before);
                record.inspect(|record| self.before = record.chain)
            }
            Ok(_) => return None,
            Err(error) => Err(error.to_string()),
        })
    }
}
