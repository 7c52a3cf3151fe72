//! Archives one after the other: a file that is full is sealed, and the next begins where it ended.

use std::{
    error::Error,
    path::{Path, PathBuf},
};

use caudal_store::{Record, Stream};

use super::{
    error::ArchiveError,
    writer::{Link, Options, Sealed, Writer},
};

/// Files `STEM-0001.h5` and so on in a folder; names that are taken are left out.
pub struct Series {
    folder: PathBuf,
    stem: String,
    options: Options,
    writer: Option<Writer>,
    number: u32,
    sealed: Vec<Sealed>,
}

impl Series {
    /// Nothing is written before the first stream comes.
    pub fn new(folder: &Path, stem: &str, options: Options) -> Self {
        let (folder, stem) = (folder.to_owned(), stem.to_owned());
        Self { folder, stem, options, writer: None, number: 0, sealed: Vec::new() }
    }

    /// Takes all records of a stream that come after `from`; returns the last one's place.
    ///
    /// # Errors
    /// See [`Writer::add`] and [`Writer::finish`]. Files that were sealed before stay.
    pub fn add<E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        stream: &Stream,
        from: Link,
        records: impl Iterator<Item = Result<Record, E>>,
    ) -> Result<Link, ArchiveError> {
        let (mut records, mut from) = (records.peekable(), from);
        loop {
            let added = self.writer()?.add(stream, from, &mut records)?;
            if added.full {
                self.seal()?;
            }
            if records.peek().is_none() {
                return Ok(added.last);
            }
            from = added.last;
        }
    }

    /// Files that are sealed already: what is in them may leave the store.
    pub fn sealed(&self) -> &[Sealed] {
        &self.sealed
    }

    /// Seals what is left.
    ///
    /// # Errors
    /// See [`Writer::finish`].
    pub fn finish(mut self) -> Result<Vec<Sealed>, ArchiveError> {
        self.seal()?;
        Ok(self.sealed)
    }

    fn writer(&mut self) -> Result<&mut Writer, ArchiveError> {
        if self.writer.is_none() {
            let path = loop {
                self.number += 1;
                let path = self.folder.join(format!("{}-{:04}.h5", self.stem, self.number));
                if !path.exists() {
                    break path;
                }
            };
            self.writer = Some(Writer::create(&path, self.options.clone())?);
        }
        Ok(self.writer.as_mut().expect("it was made above"))
    }

    fn seal(&mut self) -> Result<(), ArchiveError> {
        if let Some(writer) = self.writer.take() {
            self.sealed.push(writer.finish()?);
        }
        Ok(())
    }
}
