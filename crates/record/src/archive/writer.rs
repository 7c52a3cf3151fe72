//! Seals streams into one file: written under another name, made durable, read back event by event, then renamed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    error::Error,
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use caudal_store::{Digest, Record, Stream, Time, link};

use super::{
    FORMAT,
    codec::Codec,
    error::ArchiveError,
    hdf5,
    index::{Chunk, Entry, ROOT, key},
    line, names,
    pool::{Pool, Ticket},
    reader::Reader,
    seal,
};

/// How archives are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// How chunks are packed.
    pub codec: Codec,
    /// Threads that pack, and that read back.
    pub threads: usize,
    /// Bytes after which a file takes no more.
    pub limit: u64,
    /// Bytes of a chunk, before it is packed; a stream with fewer has one chunk of its size.
    pub chunk: u32,
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        Self { codec: Codec::default(), threads, limit: 4_000_000_000, chunk: 512 * 1024 }
    }
}

/// A place in a stream's chain: a record, and the link that it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The record's sequence; 0 before the first.
    pub sequence: u64,
    /// Its link; the chain's origin before the first.
    pub chain: Digest,
}

impl Link {
    /// Before the first record of a stream.
    pub fn origin(stream: &Stream) -> Self {
        Self { sequence: 0, chain: stream.origin() }
    }
}

/// What became of the records of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// The last record that was taken; where it began, if none was.
    pub last: Link,
    /// Whether the file is full: records may be left.
    pub full: bool,
}

/// An archive that is whole, durable and has been read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The file.
    pub path: PathBuf,
    /// Streams in it.
    pub streams: u64,
    /// Records in it.
    pub records: u64,
    /// Bytes of the records' JSON.
    pub bytes_in: u64,
    /// Bytes of the file.
    pub bytes_out: u64,
}

/// A file that is being written. Dropped unfinished, nothing is left of it.
pub struct Writer {
    path: PathBuf,
    part: PathBuf,
    options: Options,
    /// `None` once it has been closed.
    file: Option<hdf5::File>,
    /// Held by whoever writes the file; gone with the process.
    lock: File,
    spaces: HashMap<String, hdf5::Group>,
    pool: Pool,
    /// What is to be written, in order; chunks may still be with the pool.
    waiting: VecDeque<Work>,
    growing: VecDeque<Growing>,
    entries: Vec<Entry>,
    seen: HashSet<[u8; 16]>,
    written: u64,
}

enum Work {
    /// A chunk of the first stream that grows, and how many bytes of the stream there are then.
    Chunk { ticket: Ticket, through: u64 },
    /// The first stream that grows has no more.
    End,
}

/// A stream of which chunks are still to be written.
struct Growing {
    entry: Entry,
    /// Made with the first chunk.
    set: Option<(hdf5::Group, hdf5::Dataset)>,
    /// Where each line begins, and where the last one ends.
    starts: Vec<u64>,
}

impl Writer {
    /// Begins the archive that is to be `path`. Until it is whole it is called `.NAME.part`; what a writer that died left
    /// under that name is overwritten.
    ///
    /// # Errors
    /// Where the file cannot be made, or is there already.
    pub fn create(path: &Path, mut options: Options) -> Result<Self, ArchiveError> {
        if path.exists() {
            return Err(ArchiveError::io(path, "create it")(io::ErrorKind::AlreadyExists.into()));
        }
        options.chunk = options.chunk.clamp(1, 16 << 20);
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let part = path.with_file_name(format!(".{name}.part"));
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&part);
        let lock = lock.map_err(ArchiveError::io(&part, "create it"))?;
        lock.try_lock().map_err(|error| ArchiveError::io(&part, "have it alone")(error.into()))?;
        let pool =
            Pool::new(options.codec, options.threads).map_err(ArchiveError::io(&part, "start threads for it"))?;
        let file = hdf5::File::create(&part, ROOT as u64).map_err(ArchiveError::hdf5(&part))?;
        let writer = Self {
            path: path.to_owned(),
            part,
            options,
            file: Some(file),
            lock,
            spaces: HashMap::new(),
            pool,
            waiting: VecDeque::new(),
            growing: VecDeque::new(),
            entries: Vec::new(),
            seen: HashSet::new(),
            written: 0,
        };
        writer.describe().map_err(ArchiveError::hdf5(&writer.part))?;
        Ok(writer)
    }

    /// Bytes that the file has, about.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether it takes no more.
    pub fn is_full(&self) -> bool {
        self.written >= self.options.limit
    }

    /// Takes records of a stream, those after `from`, until there are no more or the file is full. Each must follow from
    /// the one before it by its link, and its digest must be that of its body: what the store had damaged is not sealed.
    ///
    /// # Errors
    /// Where records do not fit together, the iterator fails, or the file cannot be written. The archive is lost then.
    pub fn add<E: Into<Box<dyn Error + Send + Sync>>>(
        &mut self,
        stream: &Stream,
        from: Link,
        records: &mut dyn Iterator<Item = Result<Record, E>>,
    ) -> Result<Added, ArchiveError> {
        if !self.seen.insert(key(&stream.id)) {
            return Err(unfit(stream, from.sequence, "the stream stands in this archive already"));
        }
        let mut lines = Lines::new(self.options.chunk, from);
        self.growing.push_back(Growing::new(stream, from));
        for record in records {
            let record = record.map_err(|error| unfit(stream, lines.last.sequence + 1, error.into().to_string()))?;
            lines.push(stream, &record)?;
            while let Some((plain, through)) = lines.full_chunk() {
                self.growing.back_mut().expect("it was put there above").entry.chunk = self.options.chunk;
                let ticket = self.pool.pack(plain);
                self.waiting.push_back(Work::Chunk { ticket, through });
                self.settle(self.options.threads * 2)?;
            }
            if self.is_full() {
                break;
            }
        }
        let last = lines.last;
        self.end(lines)?;
        Ok(Added { last, full: self.is_full() })
    }

    fn end(&mut self, mut lines: Lines) -> Result<(), ArchiveError> {
        let (rest, chunk, through) = lines.last_chunk();
        if let Some(plain) = rest {
            self.waiting.push_back(Work::Chunk { ticket: self.pool.pack(plain), through });
        }
        self.waiting.push_back(Work::End);
        let growing = self.growing.back_mut().expect("it was put there when the stream was begun");
        growing.starts = lines.starts;
        let entry = &mut growing.entry;
        (entry.count, entry.last, entry.length) = (lines.last.sequence + 1 - entry.first, lines.last.chain, through);
        entry.chunk = chunk;
        let place =
            |(first, at, before)| Chunk { address: 0, stored: 0, as_is: false, first, at, before, sum: [0; 32] };
        // Chunks that were written while lines still came have put down what they are already.
        for (number, mark) in lines.marks.into_iter().enumerate() {
            match entry.chunks.get_mut(number) {
                Some(chunk) => (chunk.first, chunk.at, chunk.before) = mark,
                None => entry.chunks.push(place(mark)),
            }
        }
        self.settle(self.options.threads * 2)
    }

    /// Writes what is ready, until at most `most` things wait.
    fn settle(&mut self, most: usize) -> Result<(), ArchiveError> {
        while self.waiting.len() > most {
            match self.waiting.pop_front() {
                Some(Work::Chunk { ticket, through }) => self.write(&ticket, through)?,
                Some(Work::End) => self.close_stream()?,
                None => break,
            }
        }
        Ok(())
    }

    fn write(&mut self, ticket: &Ticket, through: u64) -> Result<(), ArchiveError> {
        let packed = ticket.recv().unwrap_or_else(|_| Err(io::Error::other("a thread that packs is gone")));
        let (packed, sum) = packed.map_err(ArchiveError::io(&self.part, "pack a chunk of it"))?;
        let mut growing = self.growing.pop_front().expect("its end comes after its chunks");
        let number = growing.written();
        self.written += packed.bytes.len() as u64;
        let stored = u32::try_from(packed.bytes.len()).expect("a chunk is far below 4 GB");
        let done = self.open(&mut growing).and_then(|()| {
            let Some((_, set)) = &growing.set else { return Ok(()) };
            if !growing.entry.is_one() {
                set.extend(through)?;
            }
            let offset = number as u64 * u64::from(growing.entry.chunk);
            set.write_chunk(offset, packed.as_is.into(), &packed.bytes)
        });
        done.map_err(ArchiveError::hdf5(&self.part))?;
        growing.put(number, stored, packed.as_is, sum);
        self.growing.push_front(growing);
        Ok(())
    }

    /// The stream's group and its dataset, made if they are not there yet.
    fn open(&mut self, growing: &mut Growing) -> Result<(), hdf5::Failed> {
        if growing.set.is_none() {
            let group = self.group(&growing.entry.stream)?;
            let (chunk, one) = (growing.entry.chunk, growing.entry.is_one());
            let set = self
                .options
                .codec
                .with_filters(chunk, |filters| group.create_bytes("events", chunk.into(), one, filters))?;
            growing.set = Some((group, set));
        }
        Ok(())
    }

    fn group(&mut self, stream: &Stream) -> Result<hdf5::Group, hdf5::Failed> {
        let (space, name) = names::groups(&stream.id);
        if !self.spaces.contains_key(&space) {
            let file = self.file.as_ref().expect("it is closed at the end");
            self.spaces.insert(space.clone(), file.root()?.create_group(&space)?);
        }
        self.spaces[&space].create_group(&name)
    }

    fn close_stream(&mut self) -> Result<(), ArchiveError> {
        let mut growing = self.growing.pop_front().expect("each stream ends once");
        let done = self.open(&mut growing).and_then(|()| match &growing.set {
            Some((group, _)) => growing.describe(group),
            None => Ok(()),
        });
        done.map_err(ArchiveError::hdf5(&self.part))?;
        self.entries.push(growing.entry);
        Ok(())
    }

    /// What the file says of itself, to people who find it in thirty years.
    fn describe(&self) -> Result<(), hdf5::Failed> {
        let root = self.file.as_ref().expect("it is closed at the end").root()?;
        let codec = self.options.codec;
        root.set_number("format_version", FORMAT.into())?;
        root.set_text("written_by", concat!("caudal ", env!("CARGO_PKG_VERSION")))?;
        root.set_text("made_at", line::time(now()).trim_matches('"'))?;
        root.set_text("codec", &codec.to_string())?;
        if let Some(id) = codec.filter_id() {
            root.set_number("filter_id", id.unsigned_abs().into())?;
        }
        let import = match codec.plugin() {
            Some(plugin) => {
                root.set_text("filter_plugin", plugin)?;
                format!("import h5py, {plugin}, json")
            }
            None => "import h5py, json".to_owned(),
        };
        root.set_text(
            "reader_hint",
            &format!(
                "{import}\nfile = h5py.File(path)\nfor name, group in file['consultations'].items():\n    \
                 lines = group['events'][:].tobytes().splitlines()\n    events = [json.loads(line) for line in lines]"
            ),
        )
    }

    /// Makes the file whole: closes it, finds its chunks by the HDF5 library again, writes the index, makes it durable,
    /// reads back every event, gives it its name, and takes from all the permission to write to it.
    ///
    /// # Errors
    /// Where any of this fails; nothing is left then.
    pub fn finish(mut self) -> Result<Sealed, ArchiveError> {
        self.settle(0)?;
        self.spaces.clear();
        let file = self.file.take().expect("it is closed here");
        file.close().map_err(ArchiveError::hdf5(&self.part))?;
        let mut entries = std::mem::take(&mut self.entries);
        let place = seal::locate(&self.part, &mut entries)?;
        seal::write_index(&self.part, place, &entries, self.options.codec, now())?;
        seal::check_place(&self.part, place)?;
        let reader = Reader::open(&self.part)?;
        let report = reader.verify(self.options.threads, &|_| {})?;
        let summary = reader.summary();
        fs::rename(&self.part, &self.path).map_err(ArchiveError::io(&self.path, "rename it"))?;
        seal::make_read_only(&self.lock).map_err(ArchiveError::io(&self.path, "make it read-only"))?;
        seal::sync_folder(&self.path)?;
        Ok(Sealed {
            path: self.path.clone(),
            streams: report.streams,
            records: report.records,
            bytes_in: summary.bytes_in,
            bytes_out: summary.bytes_out,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After `finish` nothing has that name.
        self.growing.clear();
        self.spaces.clear();
        self.file = None;
        let _ = fs::remove_file(&self.part);
    }
}

pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::try_from(since.as_micros()).unwrap_or(Time::MAX)
}

fn unfit(stream: &Stream, sequence: u64, why: impl Into<String>) -> ArchiveError {
    ArchiveError::Unfit { stream: stream.id.name.to_string(), sequence, why: why.into() }
}

impl Entry {
    /// Whether its events fill one chunk of just their size.
    pub(super) fn is_one(&self) -> bool {
        self.length == u64::from(self.chunk)
    }
}

impl Growing {
    fn new(stream: &Stream, from: Link) -> Self {
        let (first, before) = (from.sequence + 1, from.chain);
        let entry = Entry {
            stream: stream.clone(),
            first,
            count: 0,
            before,
            last: before,
            length: 0,
            chunk: 0,
            chunks: Vec::new(),
        };
        Self { entry, set: None, starts: Vec::new() }
    }

    /// How many chunks have been written.
    fn written(&self) -> usize {
        self.entry.chunks.iter().take_while(|chunk| chunk.stored > 0).count()
    }

    fn put(&mut self, number: usize, stored: u32, as_is: bool, sum: Digest) {
        let none = Chunk { address: 0, stored: 0, as_is: false, first: 0, at: 0, before: [0; 32], sum: [0; 32] };
        if self.entry.chunks.len() <= number {
            self.entry.chunks.resize(number + 1, none);
        }
        let chunk = &mut self.entry.chunks[number];
        (chunk.stored, chunk.as_is, chunk.sum) = (stored, as_is, sum);
    }

    fn describe(&self, group: &hdf5::Group) -> Result<(), hdf5::Failed> {
        let (entry, stream) = (&self.entry, &self.entry.stream);
        let time = |time| line::time(time).trim_matches('"').to_owned();
        group.set_text("created_at", &time(stream.created))?;
        group.set_text("updated_at", &time(stream.head.time))?;
        group.set_number("event_count", entry.count)?;
        group.set_text("chain_head", &line::hex(&entry.last))?;
        if entry.first > 1 {
            group.set_number("first_sequence", entry.first)?;
            group.set_text("chain_before", &line::hex(&entry.before))?;
        }
        // The text lies in a heap of the file: an attribute's own limit of 64 KiB does not count.
        if let Ok(meta) = std::str::from_utf8(&stream.meta)
            && !meta.contains('\0')
        {
            group.set_text("meta", meta)?;
        }
        // One chunk is read whole in any case, and its lines end with newlines.
        if entry.chunks.len() > 1 { group.create_numbers("offsets", &self.starts) } else { Ok(()) }
    }
}

/// Lines of a stream on their way into chunks.
struct Lines {
    chunk: u32,
    bytes: Vec<u8>,
    /// Bytes that have gone into chunks already.
    gone: u64,
    starts: Vec<u64>,
    /// For each chunk the first line that begins in it or behind it: sequence, place, link before.
    marks: Vec<(u64, u64, Digest)>,
    last: Link,
}

impl Lines {
    fn new(chunk: u32, last: Link) -> Self {
        Self { chunk, bytes: Vec::new(), gone: 0, starts: Vec::new(), marks: Vec::new(), last }
    }

    fn length(&self) -> u64 {
        self.gone + self.bytes.len() as u64
    }

    fn push(&mut self, stream: &Stream, record: &Record) -> Result<(), ArchiveError> {
        let wrong = |why: &str| Err(unfit(stream, record.sequence, why));
        if record.sequence != self.last.sequence + 1 {
            return wrong(&format!("record {} was to come next", self.last.sequence + 1));
        }
        if !line::digest_fits(record) {
            return wrong("its digest is not that of its body");
        }
        if record.chain != link(&self.last.chain, &record.leaf()) {
            return wrong("its link does not follow from the one before");
        }
        let at = self.length();
        self.mark_until(at / u64::from(self.chunk) + 1, at);
        self.starts.push(at);
        line::write(&mut self.bytes, &stream.id, record);
        self.last = Link { sequence: record.sequence, chain: record.chain };
        Ok(())
    }

    /// The next line is at `at`: the first one of all chunks up to there that have none yet.
    fn mark_until(&mut self, chunks: u64, at: u64) {
        let mark = (self.last.sequence + 1, at, self.last.chain);
        self.marks.resize(self.marks.len().max(chunks as usize), mark);
    }

    /// A chunk that is full and not the only one, and how many bytes there are with it.
    fn full_chunk(&mut self) -> Option<(Vec<u8>, u64)> {
        let chunk = self.chunk as usize;
        if self.bytes.len() <= chunk {
            return None;
        }
        let rest = self.bytes.split_off(chunk);
        let plain = std::mem::replace(&mut self.bytes, rest);
        self.gone += chunk as u64;
        Some((plain, self.gone))
    }

    /// What is left as the last chunk, the size of chunks, and how many bytes there are in all.
    fn last_chunk(&mut self) -> (Option<Vec<u8>>, u32, u64) {
        let through = self.length();
        self.starts.push(through);
        let mut plain = std::mem::take(&mut self.bytes);
        let chunk = match self.gone {
            0 => u32::try_from(plain.len()).unwrap_or(self.chunk).max(1),
            _ => self.chunk,
        };
        self.mark_until(through.div_ceil(chunk.into()), through);
        plain.resize(if plain.is_empty() { 0 } else { chunk as usize }, 0);
        ((!plain.is_empty()).then_some(plain), chunk, through)
    }
}
