//! A consultation written out for people and programs: Markdown, JSON, CSV, and a manifest that says what the files must
//! be. Events go by one after the other; nothing is held but the state.

mod csv;
mod json;
mod manifest;
mod markdown;
pub(crate) mod room;
#[cfg(test)]
mod tests;

use std::io;

use caudal_store::{Record, Stream};
use sha2::{Digest as _, Sha256};

use crate::event::EventView;
use crate::hash::Hash;
use crate::proof::SignedHead;
use crate::state::State;

pub use manifest::{FileFault, Manifest, ManifestFault, ManifestFile};
pub use room::ExportsFull;

/// A form to write in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[serde(rename = "md")]
    Markdown,
    /// For programs: everything.
    Json,
    /// For spreadsheets.
    Csv,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Markdown, Self::Json, Self::Csv];

    /// Its name, and how its files end.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Markdown => "md",
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }

    /// The form of this name.
    pub fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Markdown => "text/markdown; charset=utf-8",
            Self::Json => "application/json",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }
}

/// Writes a consultation while its events go by.
#[derive(Debug)]
pub struct Exporter<W: io::Write> {
    format: Format,
    stream: Stream,
    out: Counted<W>,
    events: u64,
    state: State,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// In which form.
    pub format: Format,
    /// How many bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: Hash,
    /// How many events.
    pub events: u64,
}

impl<W: io::Write> Exporter<W> {
    /// Begins to write the consultation `stream` to `out`. Writes are small: `out` should gather them.
    ///
    /// # Errors
    /// `out` fails.
    pub fn new(format: Format, stream: Stream, out: W) -> io::Result<Self> {
        let mut out = Counted { out, bytes: 0, hash: Sha256::new() };
        match format {
            Format::Markdown => markdown::begin(&mut out, &stream)?,
            Format::Json => json::begin(&mut out, &stream)?,
            Format::Csv => csv::begin(&mut out)?,
        }
        Ok(Self { format, stream, out, events: 0, state: State::default() })
    }

    /// Writes the next event.
    ///
    /// # Errors
    /// `out` fails.
    pub fn event(&mut self, record: &Record) -> io::Result<()> {
        let view = EventView::of(&self.stream.id, record);
        match self.format {
            Format::Markdown => {
                self.state.apply(&record.into());
                markdown::event(&mut self.out, &view)?;
            }
            Format::Json => json::event(&mut self.out, &view, self.events == 0)?,
            Format::Csv => csv::event(&mut self.out, &view)?,
        }
        self.events += 1;
        Ok(())
    }

    /// Ends with the head that the events make. Gives back `out` too.
    ///
    /// # Errors
    /// `out` fails.
    pub fn finish(mut self, head: &SignedHead) -> io::Result<(Written, W)> {
        match self.format {
            Format::Markdown => markdown::end(&mut self.out, &self.state, head)?,
            Format::Json => json::end(&mut self.out, self.events, head)?,
            Format::Csv => {}
        }
        io::Write::flush(&mut self.out)?;
        let Counted { out, bytes, hash } = self.out;
        let sha256 = Hash::from(<[u8; 32]>::from(hash.finalize()));
        Ok((Written { format: self.format, bytes, sha256, events: self.events }, out))
    }
}

/// Counts and hashes what goes through.
#[derive(Debug)]
struct Counted<W> {
    out: W,
    bytes: u64,
    hash: Sha256,
}

impl<W: io::Write> io::Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.bytes += count as u64;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
