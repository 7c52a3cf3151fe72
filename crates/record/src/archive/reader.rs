//! Reads sealed archives, by `pread` and checksums alone: from many threads at once, without a lock and without the HDF5
//! library. Every byte is checked before it is looked at.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use caudal_store::{Digest, Record, Stream, StreamId, Time};
use sha2::{Digest as _, Sha256};

use super::{
    FORMAT,
    codec::Codec,
    error::ArchiveError,
    index::{Chunk, Entry, PLACE, Place, TAIL, Tail, key},
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
    tail: Tail,
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
    /// Opens an archive. Its tail and its directory are checked, no more.
    ///
    /// # Errors
    /// Where it is no archive of ours, cut short, of a later format, or damaged in tail or directory.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let file = File::open(path).map_err(ArchiveError::io(path, "open it"))?;
        let length = file.metadata().map_err(ArchiveError::io(path, "look at it"))?.len();
        let tail = read_tail(path, &file, length)?;
        if tail.format != FORMAT {
            return Err(ArchiveError::Version { path: path.to_owned(), found: tail.format });
        }
        if tail.file_length() != Some(length) {
            return Err(ArchiveError::damaged(path, "bytes were added or taken out"));
        }
        let codec = tail.codec.parse().map_err(|_| ArchiveError::damaged(path, "its codec is unknown"))?;
        let mut reader = Self { path: path.to_owned(), file, tail, codec, directory: Box::default() };
        let lines = reader.bytes(reader.tail.hdf5 + reader.tail.entries, reader.tail.streams as usize * PLACE)?;
        if reader.tail.directory_sum != Sha256::digest(&lines)[..] {
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
        let Tail { made, streams, records, plain, .. } = self.tail;
        let bytes_out = self.tail.file_length().unwrap_or_default();
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

    pub(super) fn tail(&self) -> &Tail {
        &self.tail
    }

    pub(super) fn entry(&self, place: &Place) -> Result<Entry, ArchiveError> {
        let end = self.tail.hdf5 + self.tail.entries;
        let within =
            place.offset >= self.tail.hdf5 && place.offset.checked_add(place.length).is_some_and(|at| at <= end);
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
            Some(end) if end <= self.tail.hdf5 => self.bytes(chunk.address, chunk.stored as usize),
            _ => Err(self.damaged("a chunk lies outside the file")),
        }
    }

    /// SHA-256 of the HDF5 part.
    pub(super) fn hdf5_sum(&self) -> Result<Digest, ArchiveError> {
        sum(&self.path, &self.file, self.tail.hdf5)
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
    fn part(self) -> Part {
        let last = self.first + self.count - 1;
        Part { first: self.first, last, before: self.before, link: self.last, stream: self.stream }
    }
}

/// SHA-256 of the first `length` bytes of a file.
pub(super) fn sum(path: &Path, file: &File, length: u64) -> Result<Digest, ArchiveError> {
    let (mut hash, mut at, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
    while at < length {
        let piece = &mut piece[..(length - at).min(PIECE as u64) as usize];
        file.read_exact_at(piece, at).map_err(ArchiveError::io(path, "read it"))?;
        hash.update(&piece);
        at += piece.len() as u64;
    }
    Ok(hash.finalize().into())
}

fn read_tail(path: &Path, file: &File, length: u64) -> Result<Tail, ArchiveError> {
    let read = |bytes: &mut [u8], at| file.read_exact_at(bytes, at).map_err(ArchiveError::io(path, "read it"));
    let mut head = [0; 64];
    let have = length.min(64) as usize;
    read(&mut head[..have], 0)?;
    let looks = head.starts_with(SIGNATURE);
    let mut bytes = [0; TAIL];
    if let Some(at) = length.checked_sub(TAIL as u64) {
        read(&mut bytes, at)?;
    }
    // A tail that is whole makes it ours, whatever became of its beginning.
    match Tail::decode(&bytes) {
        Ok(tail) => Ok(tail),
        Err(_) if have == 0 || !looks && !bytes.ends_with(b"CAUDALH5") => {
            Err(ArchiveError::NotHdf5 { path: path.to_owned() })
        }
        Err(words) if bytes.ends_with(b"CAUDALH5") || bytes.starts_with(b"CAUDALH5") => {
            Err(ArchiveError::damaged(path, words))
        }
        Err(_) => Err(cut_short(path, &head, length)),
    }
}

/// Whether an HDF5 file without our index is shorter than its superblock says.
fn cut_short(path: &Path, head: &[u8; 64], length: u64) -> ArchiveError {
    // Superblocks 2 and 3 with addresses of 8 bytes: where the file ends stands at byte 28.
    let ends = u64::from_le_bytes(head[28..36].try_into().expect("it has 8 bytes"));
    let path = path.to_owned();
    match matches!(head[8], 2 | 3) && head[9] == 8 && ends >= length {
        true => ArchiveError::Truncated { path, has: length, wants: ends.saturating_add(TAIL as u64) },
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
