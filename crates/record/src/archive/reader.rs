//! Reads sealed archives, by `pread` and checksums alone: from many threads at once, without a lock and without the HDF5
//! library. Every byte is checked before it is looked at.

use std::{
    fs::{File, OpenOptions},
    ops::Range,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use caudal_store::{Digest, Record, Stream, StreamId, Time};
use rustix::fs::OFlags;
use sha2::{Digest as _, Sha256};

use super::{
    FORMAT,
    codec::Codec,
    error::ArchiveError,
    index::{Chunk, Entry, MAGIC, PLACE, Place, ROOT, Root, TAIL, key},
    line,
};

/// How HDF5 files begin.
const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
/// Bytes that are read at once where a file is summed up.
const PIECE: usize = 1 << 20;

/// An archive, open. Cheap to keep: it holds a file descriptor and 64 bytes per stream.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: File,
    root: Root,
    codec: Codec,
    directory: Box<[Place]>,
}

/// What an archive says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How its chunks are packed.
    pub codec: Codec,
    /// When it was sealed.
    pub made: Time,
    /// Streams in it.
    pub streams: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes of the records' JSON.
    pub bytes_in: u64,
    /// Bytes of the file.
    pub bytes_out: u64,
}

/// What an archive holds of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The stream as it was when it was sealed.
    pub stream: Stream,
    /// The first record here; with `last` one less where there is none.
    pub first: u64,
    /// The last record here.
    pub last: u64,
    /// The link before the first record.
    pub before: Digest,
    /// The link of the last record.
    pub link: Digest,
}

impl Reader {
    /// Opens an archive. Its root and its directory are checked, no more. What other programs have added to the file since it
    /// was sealed does no harm as long as they have left alone what is read.
    ///
    /// # Errors
    /// Where it is no archive of ours, cut short, of a later format, or damaged in root or directory.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let file = open_regular(path)?;
        let length = file.metadata().map_err(ArchiveError::io(path, "look at it"))?.len();
        let root = read_root(path, &file, length)?;
        if !(1..=FORMAT).contains(&root.format) {
            return Err(ArchiveError::Version { path: path.to_owned(), found: root.format });
        }
        match root.file_length() {
            Some(wants) if length < wants => {
                return Err(ArchiveError::Truncated { path: path.into(), has: length, wants });
            }
            Some(_) => {}
            None => return Err(ArchiveError::damaged(path, "the root of its index makes no sense")),
        }
        let codec = root.codec.parse().map_err(|_| ArchiveError::damaged(path, "its codec is unknown"))?;
        let mut reader = Self { path: path.to_owned(), file, root, codec, directory: Box::default() };
        let begins = reader.root.index + reader.root.entries;
        let lines = reader.bytes(begins, reader.root.streams as usize * PLACE)?;
        if reader.root.directory_sum != Sha256::digest(&lines)[..] {
            return Err(reader.damaged("the directory of its index is not what was written"));
        }
        reader.directory = lines.as_chunks::<PLACE>().0.iter().filter_map(Place::decode).collect();
        Ok(reader)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself.
    pub fn summary(&self) -> Summary {
        let Root { made, streams, records, plain, .. } = self.root;
        let bytes_out = self.root.file_length().unwrap_or_default();
        Summary { codec: self.codec, made, streams, records, bytes_in: plain, bytes_out }
    }

    /// All streams, in the order of the index, which means nothing.
    pub fn streams(&self) -> impl Iterator<Item = Result<Part, ArchiveError>> {
        self.directory.iter().map(|place| self.entry(place).map(Entry::part))
    }

    /// What it holds of a stream.
    ///
    /// # Errors
    /// Where the stream's entry is damaged.
    pub fn stream(&self, id: &StreamId) -> Result<Option<Part>, ArchiveError> {
        Ok(self.find(id)?.map(Entry::part))
    }

    /// At most `limit` records of a stream, from the one after `after` on. Only chunks that hold them are read.
    ///
    /// # Errors
    /// Where a byte that is needed is not what was written.
    pub fn read(&self, id: &StreamId, after: u64, limit: usize) -> Result<Vec<Record>, ArchiveError> {
        let Some(entry) = self.find(id)? else { return Ok(Vec::new()) };
        let from = entry.first.max(after.saturating_add(1));
        if entry.count == 0 || from > entry.last_sequence() || limit == 0 {
            return Ok(Vec::new());
        }
        let most = usize::try_from(entry.last_sequence() - from + 1).unwrap_or(usize::MAX);
        let mut records = Vec::with_capacity(limit.min(most).min(1_000));
        let chunk = entry.chunks.partition_point(|chunk| chunk.first <= from).saturating_sub(1);
        let mut lines = Lines::at(self, &entry, chunk)?;
        while records.len() < limit
            && let Some(record) = lines.next()?
        {
            if record.sequence >= from {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// The entry of a stream.
    pub(super) fn find(&self, id: &StreamId) -> Result<Option<Entry>, ArchiveError> {
        let key = key(id);
        let Ok(at) = self.directory.binary_search_by_key(&key, |place| place.key) else { return Ok(None) };
        let entry = self.entry(&self.directory[at])?;
        if entry.stream.id != *id {
            return Err(self.damaged("the directory names another stream's entry"));
        }
        Ok(Some(entry))
    }

    pub(super) fn directory(&self) -> &[Place] {
        &self.directory
    }

    pub(super) fn root(&self) -> &Root {
        &self.root
    }

    pub(super) fn entry(&self, place: &Place) -> Result<Entry, ArchiveError> {
        let end = self.root.index + self.root.entries;
        let within =
            place.offset >= self.root.index && place.offset.checked_add(place.length).is_some_and(|at| at <= end);
        if !within {
            return Err(self.damaged("an entry lies outside its index"));
        }
        let bytes = self.bytes(place.offset, place.length as usize)?;
        let whole = place.sum == Sha256::digest(&bytes)[..];
        let entry = whole.then(|| Entry::decode(&bytes)).flatten();
        entry.ok_or_else(|| self.damaged("the entry of a stream in its index is not what was written"))
    }

    /// The bytes of a chunk, unpacked, without what fills up the last one.
    pub(super) fn chunk(&self, entry: &Entry, number: usize) -> Result<Vec<u8>, ArchiveError> {
        let chunk = &entry.chunks[number];
        let stored = self.stored(chunk)?;
        let mut plain = (chunk.sum == Sha256::digest(&stored)[..])
            .then(|| self.codec.unpack(&stored, chunk.as_is, entry.chunk as usize))
            .flatten()
            .ok_or_else(|| {
                self.damaged(format!("chunk {number} of {} is not what was written", entry.stream.id.name))
            })?;
        let begins = number as u64 * u64::from(entry.chunk);
        plain.truncate((entry.length - begins).min(plain.len() as u64) as usize);
        Ok(plain)
    }

    fn stored(&self, chunk: &Chunk) -> Result<Vec<u8>, ArchiveError> {
        match chunk.address.checked_add(chunk.stored.into()) {
            Some(end) if end <= self.root.hdf5 => self.bytes(chunk.address, chunk.stored as usize),
            _ => Err(self.damaged("a chunk lies outside the file")),
        }
    }

    /// SHA-256 of the HDF5 part, without the root.
    pub(super) fn hdf5_sum(&self) -> Result<Digest, ArchiveError> {
        let begins = if self.root.format == 1 { 0 } else { ROOT as u64 };
        sum(&self.path, &self.file, begins..self.root.hdf5)
    }

    /// Whether the file has as many bytes as when it was sealed.
    pub(super) fn has_its_length(&self) -> Result<bool, ArchiveError> {
        let found = self.file.metadata().map_err(ArchiveError::io(&self.path, "look at it"))?;
        Ok(self.root.file_length() == Some(found.len()))
    }

    fn bytes(&self, at: u64, length: usize) -> Result<Vec<u8>, ArchiveError> {
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(ArchiveError::io(&self.path, "read it")).map(|()| bytes)
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> ArchiveError {
        ArchiveError::damaged(&self.path, what)
    }
}

impl Entry {
    pub(super) fn part(self) -> Part {
        let last = self.first + self.count - 1;
        Part { first: self.first, last, before: self.before, link: self.last, stream: self.stream }
    }
}

/// Opens a file to read; without waiting, where it is a pipe that nothing is written to.
pub(super) fn open_regular(path: &Path) -> Result<File, ArchiveError> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file =
        OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(ArchiveError::io(path, "open it"))?;
    match file.metadata().map_err(ArchiveError::io(path, "look at it"))?.is_file() {
        true => Ok(file),
        false => Err(ArchiveError::NotRegular { path: path.to_owned() }),
    }
}

/// SHA-256 of some bytes of a file.
pub(super) fn sum(path: &Path, file: &File, bytes: Range<u64>) -> Result<Digest, ArchiveError> {
    let (mut hash, mut at, mut piece) = (Sha256::new(), bytes.start, vec![0; PIECE]);
    while at < bytes.end {
        let piece = &mut piece[..(bytes.end - at).min(PIECE as u64) as usize];
        file.read_exact_at(piece, at).map_err(ArchiveError::io(path, "read it"))?;
        hash.update(&piece);
        at += piece.len() as u64;
    }
    Ok(hash.finalize().into())
}

/// The root: the first bytes of the file, or in format 1 the last.
fn read_root(path: &Path, file: &File, length: u64) -> Result<Root, ArchiveError> {
    let read = |bytes: &mut [u8], at| file.read_exact_at(bytes, at).map_err(ArchiveError::io(path, "read it"));
    // With the superblock that stands behind the user block.
    let mut begin = [0; ROOT + 64];
    read(&mut begin[..length.min((ROOT + 64) as u64) as usize], 0)?;
    let (block, superblock) = begin.split_at(ROOT);
    if block.starts_with(MAGIC) || block.ends_with(MAGIC) {
        return match length < ROOT as u64 {
            true => Err(ArchiveError::Truncated { path: path.to_owned(), has: length, wants: ROOT as u64 }),
            false => Root::decode(block).map_err(|words| ArchiveError::damaged(path, words)),
        };
    }
    let mut tail = [0; TAIL];
    if let Some(at) = length.checked_sub(TAIL as u64) {
        read(&mut tail, at)?;
    }
    if tail.starts_with(MAGIC) || tail.ends_with(MAGIC) {
        let whole_length = |root: &Root| root.format != 1 || root.file_length() == Some(length);
        return match Root::decode(&tail) {
            Ok(root) if whole_length(&root) => Ok(root),
            Ok(_) => Err(ArchiveError::damaged(path, "bytes were added or taken out")),
            Err(words) => Err(ArchiveError::damaged(path, words)),
        };
    }
    match [block, superblock].into_iter().find(|bytes| bytes.starts_with(SIGNATURE)) {
        Some(superblock) => Err(without_index(path, superblock, length)),
        None => Err(ArchiveError::NotHdf5 { path: path.to_owned() }),
    }
}

/// An HDF5 file without our index, which may be shorter than its superblock says.
fn without_index(path: &Path, superblock: &[u8], length: u64) -> ArchiveError {
    let path = path.to_owned();
    // Superblocks 2 and 3 with addresses of 8 bytes: where the file ends stands at byte 28.
    let ends = superblock.get(28..36).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    match matches!(superblock[8], 2 | 3) && superblock[9] == 8 && ends > length {
        true => ArchiveError::Truncated { path, has: length, wants: ends },
        false => ArchiveError::NotOurs { path },
    }
}

/// The records of a stream, one after the other, from some chunk on.
pub(super) struct Lines<'a> {
    reader: &'a Reader,
    entry: &'a Entry,
    /// The chunk to unpack next.
    next: usize,
    /// Bytes that are unpacked and not yet read, from `at` on.
    bytes: Vec<u8>,
    at: usize,
    /// The record that comes next, and the link before it.
    sequence: u64,
    before: Digest,
}

impl<'a> Lines<'a> {
    /// From the first line on that begins in `chunk`.
    pub(super) fn at(reader: &'a Reader, entry: &'a Entry, chunk: usize) -> Result<Self, ArchiveError> {
        let bytes = reader.chunk(entry, chunk)?;
        let place = &entry.chunks[chunk];
        let begins = chunk as u64 * u64::from(entry.chunk);
        let at = place.at.checked_sub(begins).map(|at| at as usize).filter(|at| *at <= bytes.len());
        let at = at.ok_or_else(|| reader.damaged("a chunk of its index names a line that is not in it"))?;
        Ok(Self { reader, entry, next: chunk + 1, bytes, at, sequence: place.first, before: place.before })
    }

    /// The next record's sequence, where its line begins among all bytes, and the link before it.
    pub(super) fn place(&self) -> (u64, u64, Digest) {
        let unpacked = (self.next as u64 * u64::from(self.entry.chunk)).min(self.entry.length);
        (self.sequence, unpacked - (self.bytes.len() - self.at) as u64, self.before)
    }

    /// The next record.
    pub(super) fn next(&mut self) -> Result<Option<Record>, ArchiveError> {
        let Some(length) = self.line()? else { return Ok(None) };
        let line = &self.bytes[self.at..self.at + length];
        let wrong = |words| {
            let stream = &self.entry.stream.id.name;
            self.reader.damaged(format!("record {} of {stream}: {words}", self.sequence))
        };
        let record = line::read(line, &self.before).map_err(wrong)?;
        if record.sequence != self.sequence {
            return Err(wrong(format!("record {} stands there", record.sequence)));
        }
        self.at += length;
        self.sequence += 1;
        self.before = record.chain;
        Ok(Some(record))
    }

    /// The length of the next line; chunks are unpacked until it is whole.
    fn line(&mut self) -> Result<Option<usize>, ArchiveError> {
        let mut looked = 0;
        loop {
            let rest = &self.bytes[self.at..];
            if let Some(at) = memchr::memchr(b'\n', &rest[looked..]) {
                return Ok(Some(looked + at + 1));
            }
            looked = rest.len();
            if self.next == self.entry.chunks.len() {
                return match looked {
                    0 => Ok(None),
                    _ => Err(self.reader.damaged("a line does not end")),
                };
            }
            let more = self.reader.chunk(self.entry, self.next)?;
            self.next += 1;
            self.bytes.drain(..self.at);
            self.at = 0;
            self.bytes.extend_from_slice(&more);
        }
    }
}
