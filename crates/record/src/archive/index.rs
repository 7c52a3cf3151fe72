//! The index of an archive: where each stream's chunks lie, and the checksums of all bytes of the file.
//!
//! It is part of the HDF5 file, so that programs which open the file to write keep it: HDF5 cuts a file to its own end when
//! it is closed, so nothing that stands behind that end is safe. It has three parts (numbers little-endian;
//! `docs/archive.md` has the tables):
//!
//! 1. an **entry** per stream, with its chunks;
//! 2. the **directory**: for each stream, in the order of its key, where its entry is and the entry's SHA-256;
//! 3. the **root**: the sizes of all this, the SHA-256 of the rest of the file and of the directory, its own.
//!
//! Entries and directory are the dataset [`DATASET`]; the root is the user block, the first 512 bytes of the file, which
//! HDF5 leaves to its users. In format 1 all three stood behind the HDF5 part, the root (of 256 bytes) last.
//!
//! So every byte of the file is covered by some SHA-256, and a record is read by three small reads and its chunk, each
//! checked before it is looked at, without the HDF5 library: damage is an error, and crashes nothing.

use caudal_store::{Digest, Head, Stream, StreamId, Time};
use sha2::{Digest as _, Sha256};

/// How a root begins and ends.
pub(super) const MAGIC: &[u8; 8] = b"CAUDALH5";
/// Bytes of the root, which are those of the user block.
pub(super) const ROOT: usize = 512;
/// Bytes of the root in format 1, where it was the end of the file.
pub(super) const TAIL: usize = 256;
/// The dataset of entries and directory, in the root group.
pub(super) const DATASET: &str = "caudal_index";
/// Bytes of a line of the directory.
pub(super) const PLACE: usize = 64;

/// A chunk of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Where it begins in the file.
    pub(super) address: u64,
    /// Its bytes there, HDF5's checksum included.
    pub(super) stored: u32,
    /// Whether the codec was left out for it.
    pub(super) as_is: bool,
    /// The first record whose line begins in it; where none does, the first of those behind it.
    pub(super) first: u64,
    /// Where that line begins among all bytes of the stream.
    pub(super) at: u64,
    /// The link of the chain before that record.
    pub(super) before: Digest,
    /// SHA-256 of its bytes in the file.
    pub(super) sum: Digest,
}

/// What an archive holds of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stream: Stream,
    /// The sequence of the first record.
    pub(super) first: u64,
    /// How many records there are.
    pub(super) count: u64,
    /// The link before the first record.
    pub(super) before: Digest,
    /// The link of the last record.
    pub(super) last: Digest,
    /// Bytes of all lines.
    pub(super) length: u64,
    /// Bytes of a chunk, unpacked; the last one is filled up with zeros.
    pub(super) chunk: u32,
    pub(super) chunks: Vec<Chunk>,
}

impl Entry {
    /// The last record's sequence.
    pub(super) fn last_sequence(&self) -> u64 {
        self.first + self.count - 1
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(256 + self.chunks.len() * 96);
        let stream = &self.stream;
        for text in [stream.id.space.as_bytes(), stream.id.name.as_bytes(), &stream.meta] {
            to.extend_from_slice(&(text.len() as u32).to_le_bytes());
            to.extend_from_slice(text);
        }
        let (at_origin, at_head) = (self.before == stream.origin(), self.last == stream.head.chain);
        to.extend_from_slice(&(u32::from(at_origin) | u32::from(at_head) << 1).to_le_bytes());
        to.extend_from_slice(&stream.created.to_le_bytes());
        to.extend_from_slice(&stream.head.sequence.to_le_bytes());
        to.extend_from_slice(&stream.head.time.to_le_bytes());
        to.extend_from_slice(&stream.head.chain);
        to.extend_from_slice(&stream.sealed.to_le_bytes());
        for number in [self.first, self.count, self.length] {
            to.extend_from_slice(&number.to_le_bytes());
        }
        // Most streams are small and begin and end here: what follows from the rest is left out.
        to.extend_from_slice(if at_origin { &[] } else { &self.before });
        to.extend_from_slice(if at_head { &[] } else { &self.last });
        to.extend_from_slice(&self.chunk.to_le_bytes());
        to.extend_from_slice(&(self.chunks.len() as u32).to_le_bytes());
        for (number, chunk) in self.chunks.iter().enumerate() {
            to.extend_from_slice(&chunk.address.to_le_bytes());
            to.extend_from_slice(&chunk.stored.to_le_bytes());
            to.extend_from_slice(&u32::from(chunk.as_is).to_le_bytes());
            to.extend_from_slice(&chunk.sum);
            if number > 0 {
                to.extend_from_slice(&chunk.first.to_le_bytes());
                to.extend_from_slice(&chunk.at.to_le_bytes());
                to.extend_from_slice(&chunk.before);
            }
        }
        to
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut from = From(bytes);
        let (space, name) = (from.text()?, from.text()?);
        let meta = from.bytes()?.to_vec().into();
        let flags = from.u32()?;
        let created = from.time()?;
        let head = Head { sequence: from.u64()?, time: from.time()?, chain: from.array()? };
        let stream = Stream { id: StreamId { space, name }, meta, created, head, sealed: from.u64()? };
        let (first, count, length) = (from.u64()?, from.u64()?, from.u64()?);
        let before = if flags & 1 == 0 { from.array()? } else { stream.origin() };
        let last = if flags & 2 == 0 { from.array()? } else { stream.head.chain };
        let (chunk, chunks) = (from.u32()?, from.u32()? as usize);
        // Numbers that fit together, so that nobody has to look again.
        let fits = first >= 1 && first.checked_add(count).is_some() && chunk >= 1;
        if !fits || chunks as u64 != length.div_ceil(chunk.into()) || from.0.len() != (chunks * 96).saturating_sub(48) {
            return None;
        }
        let begin = |number| (number == 0).then_some((first, 0, before));
        let chunks = (0..chunks).map(|number| from.chunk(begin(number))).collect::<Option<_>>()?;
        Some(Self { stream, first, count, before, last, length, chunk, chunks })
    }
}

/// Bytes from which numbers are taken, one after the other.
struct From<'a>(&'a [u8]);

impl<'a> From<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Time> {
        self.array().map(Time::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    fn text(&mut self) -> Option<Box<str>> {
        std::str::from_utf8(self.bytes()?).ok().map(Box::from)
    }

    /// A chunk; where its first line begins is said unless it is known.
    fn chunk(&mut self, begin: Option<(u64, u64, Digest)>) -> Option<Chunk> {
        let (address, stored, as_is, sum) = (self.u64()?, self.u32()?, self.u32()? != 0, self.array()?);
        let (first, at, before) = match begin {
            Some(begin) => begin,
            None => (self.u64()?, self.u64()?, self.array()?),
        };
        Some(Chunk { address, stored, as_is, first, at, before, sum })
    }
}

/// A line of the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// See [`key`].
    pub(super) key: [u8; 16],
    /// Where in the file the entry begins.
    pub(super) offset: u64,
    /// Its length.
    pub(super) length: u64,
    /// Its SHA-256.
    pub(super) sum: Digest,
}

/// What streams are found by: the first half of `SHA-256(space ‖ 0 ‖ name)`.
pub(super) fn key(id: &StreamId) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in [&*id.space, "\0", &*id.name] {
        hash.update(part);
    }
    *hash.finalize().first_chunk().expect("a SHA-256 has 32 bytes")
}

impl Place {
    pub(super) fn encode(&self) -> [u8; PLACE] {
        let mut line = [0; PLACE];
        line[..16].copy_from_slice(&self.key);
        line[16..24].copy_from_slice(&self.offset.to_le_bytes());
        line[24..32].copy_from_slice(&self.length.to_le_bytes());
        line[32..].copy_from_slice(&self.sum);
        line
    }

    pub(super) fn decode(line: &[u8; PLACE]) -> Option<Self> {
        let mut from = From(line);
        Some(Self { key: from.array()?, offset: from.u64()?, length: from.u64()?, sum: from.array()? })
    }
}

/// What is read first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    pub(super) format: u32,
    /// Where the HDF5 part ended when it was sealed.
    pub(super) hdf5: u64,
    /// Where the entries begin; the directory follows them.
    pub(super) index: u64,
    /// Bytes of all entries.
    pub(super) entries: u64,
    /// Lines of the directory.
    pub(super) streams: u64,
    pub(super) records: u64,
    /// Bytes of all lines, before they were packed.
    pub(super) plain: u64,
    /// When the archive was made, in microseconds since 1970.
    pub(super) made: Time,
    /// The codec's name.
    pub(super) codec: String,
    /// SHA-256 of the HDF5 part; without the user block, where that is the root.
    pub(super) hdf5_sum: Digest,
    /// SHA-256 of the directory.
    pub(super) directory_sum: Digest,
}

impl Root {
    /// The user block.
    pub(super) fn encode(&self) -> [u8; ROOT] {
        let mut to = Vec::with_capacity(ROOT);
        to.extend_from_slice(MAGIC);
        to.extend_from_slice(&self.format.to_le_bytes());
        to.extend_from_slice(&0_u32.to_le_bytes());
        for number in [self.hdf5, self.entries, self.streams, self.records, self.plain] {
            to.extend_from_slice(&number.to_le_bytes());
        }
        to.extend_from_slice(&self.made.to_le_bytes());
        let mut codec = [0; 16];
        codec[..self.codec.len()].copy_from_slice(self.codec.as_bytes());
        for part in [&codec[..], &self.hdf5_sum, &self.directory_sum, &self.index.to_le_bytes()] {
            to.extend_from_slice(part);
        }
        to.resize(covered(ROOT), 0);
        let sum = Sha256::digest(&to);
        to.extend_from_slice(&sum);
        to.extend_from_slice(MAGIC);
        to.try_into().expect("the parts add up to its length")
    }

    /// The root that these bytes are, of either length; in words why they are none.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let (covered, rest) = bytes.split_at(covered(bytes.len()));
        let fits = rest.len() == 32 + MAGIC.len() && rest[..32] == Sha256::digest(covered)[..];
        if !fits || !bytes.starts_with(MAGIC) || !bytes.ends_with(MAGIC) {
            return Err("the root of its index is not what was written");
        }
        Self::fields(&covered[MAGIC.len()..]).ok_or("the root of its index makes no sense")
    }

    fn fields(bytes: &[u8]) -> Option<Self> {
        let mut from = From(bytes);
        let (format, _) = (from.u32()?, from.u32()?);
        let (hdf5, entries, streams, records, plain) =
            (from.u64()?, from.u64()?, from.u64()?, from.u64()?, from.u64()?);
        let made = from.time()?;
        let codec = std::str::from_utf8(from.take(16)?).ok()?.trim_end_matches('\0').to_owned();
        let (hdf5_sum, directory_sum) = (from.array()?, from.array()?);
        let index = if format == 1 { hdf5 } else { from.u64()? };
        Some(Self { format, hdf5, index, entries, streams, records, plain, made, codec, hdf5_sum, directory_sum })
    }

    /// Where the directory begins, and where it ends, if that can be.
    pub(super) fn directory(&self) -> Option<(u64, u64)> {
        let begin = self.index.checked_add(self.entries)?;
        Some((begin, begin.checked_add(self.streams.checked_mul(PLACE as u64)?)?))
    }

    /// The length of the whole file when it was sealed, where that can be.
    pub(super) fn file_length(&self) -> Option<u64> {
        let (_, end) = self.directory()?;
        match self.format {
            1 => end.checked_add(TAIL as u64),
            _ => Some(self.hdf5).filter(|length| end <= *length),
        }
    }
}

/// How many bytes of a root of `length` bytes its own SHA-256 covers.
fn covered(length: usize) -> usize {
    length.saturating_sub(32 + MAGIC.len())
}
