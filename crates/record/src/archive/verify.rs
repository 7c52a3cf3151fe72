//! Believes nothing: every record is read, its digest and its link are formed anew, and every byte of the file is summed
//! up.

use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use caudal_store::StreamId;

use super::{
    error::ArchiveError,
    index::{Entry, Place},
    line,
    reader::{Lines, Part, Reader},
};

/// Streams that are not what was written, each with the first difference.
type DamagedStreams = Vec<(StreamId, ArchiveError)>;

/// What was found whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Streams.
    pub streams: u64,
    /// Records.
    pub records: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Chunks that one thread looks at in one go.
const STRETCH: usize = 16;

impl Reader {
    /// Reads all of it on `threads` threads; `progress` hears of records as they are found whole.
    ///
    /// # Errors
    /// The first thing that is not what was written: a record by stream and sequence where it is one.
    pub fn verify(&self, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<Report, ArchiveError> {
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut records = 0;
            while !failed.load(Relaxed)
                && let Some(place) = self.directory().get(next.fetch_add(1, Relaxed))
            {
                let checked = self.check(place, threads, progress);
                records += checked.inspect_err(|_| failed.store(true, Relaxed))?;
            }
            Ok(records)
        };
        let records = on_threads(threads, &work)?;
        self.check_sums(records)?;
        let summary = self.summary();
        Ok(Report { streams: summary.streams, records, bytes: summary.bytes_out })
    }

    /// The streams that are whole by their entries and records, and those that are not, each with the first thing that is
    /// not what was written. An entry that is damaged is an error of the index.
    pub(super) fn sift(&self, threads: usize) -> Result<(Vec<Part>, DamagedStreams), ArchiveError> {
        let entries: Vec<Entry> = self.directory().iter().map(|place| self.entry(place)).collect::<Result<_, _>>()?;
        let (next, damaged) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let work = || {
            while let Some(entry) = entries.get(next.fetch_add(1, Relaxed)) {
                if let Err(error) = self.check_entry(entry, threads, &|_| {}) {
                    damaged.lock().unwrap_or_else(PoisonError::into_inner).push((entry.stream.id.clone(), error));
                }
            }
            Ok(0)
        };
        on_threads(threads, &work)?;
        let damaged = damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
        let is_whole = |part: &Part| damaged.iter().all(|(id, _)| *id != part.stream.id);
        Ok((entries.into_iter().map(Entry::part).filter(is_whole).collect(), damaged))
    }

    fn check(&self, place: &Place, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<u64, ArchiveError> {
        self.check_entry(&self.entry(place)?, threads, progress)
    }

    fn check_entry(&self, entry: &Entry, threads: usize, progress: &(dyn Fn(u64) + Sync)) -> Result<u64, ArchiveError> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut records = 0;
            while let begin = next.fetch_add(STRETCH, Relaxed)
                && begin < entry.chunks.len()
            {
                let found = self.check_stretch(entry, begin..(begin + STRETCH).min(entry.chunks.len()))?;
                progress(found);
                records += found;
            }
            Ok(records)
        };
        // Most streams are small, and there are many of them.
        let threads = if entry.chunks.len() > STRETCH { threads } else { 1 };
        let records = on_threads(threads, &work)?;
        let empty_fits = entry.count > 0 || entry.last == entry.before;
        match records == entry.count && empty_fits {
            true => Ok(records),
            false => Err(self.damaged(format!("{} has not as many records as its index says", entry.stream.id.name))),
        }
    }

    /// The records whose lines begin in these chunks; the chunks that follow must take up where they end.
    fn check_stretch(&self, entry: &Entry, chunks: Range<usize>) -> Result<u64, ArchiveError> {
        let end = (chunks.end as u64 * u64::from(entry.chunk)).min(entry.length);
        let begins = |number: usize| entry.chunks[number].at < (number as u64 + 1) * u64::from(entry.chunk);
        let Some(first) = chunks.clone().find(|number| begins(*number)) else { return Ok(0) };
        let mut lines = Lines::at(self, entry, first)?;
        let (mut records, mut marks) = (0, entry.chunks[chunks.start..].iter().peekable());
        loop {
            let (sequence, at, before) = lines.place();
            while let Some(mark) = marks.next_if(|mark| mark.at <= at) {
                if (mark.first, mark.at, mark.before) != (sequence, at, before) {
                    return Err(self.damaged(format!("record {sequence} of {}: its link does not fit", name(entry))));
                }
            }
            if at >= end {
                let over = at == entry.length;
                let ends = !over || (before, sequence) == (entry.last, entry.last_sequence() + 1);
                let why = || self.damaged(format!("{} does not end with the link of its index", name(entry)));
                return if ends { Ok(records) } else { Err(why()) };
            }
            let record = lines.next()?.ok_or_else(|| self.damaged(format!("{} ends too early", name(entry))))?;
            if !line::digest_fits(&record) {
                return Err(self.damaged(format!("record {sequence} of {}: its digest does not fit", name(entry))));
            }
            records += 1;
        }
    }

    /// What no record covers: what HDF5 keeps about them, and the index itself.
    fn check_sums(&self, records: u64) -> Result<(), ArchiveError> {
        let root = self.root();
        let entries: u64 = self.directory().iter().map(|place| place.length).sum();
        if entries != root.entries || records != root.records {
            return Err(self.damaged("the parts of its index do not add up"));
        }
        match self.hdf5_sum()? == root.hdf5_sum && self.has_its_length()? {
            true => Ok(()),
            false => Err(self.damaged("its events are whole, but the rest of the file is not what was written")),
        }
    }
}

fn name(entry: &Entry) -> &str {
    &entry.stream.id.name
}

/// The sum of what `work` returns on each of some threads, or the first error.
fn on_threads(threads: usize, work: &(dyn Fn() -> Result<u64, ArchiveError> + Sync)) -> Result<u64, ArchiveError> {
    if threads <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        ended.collect::<Vec<_>>().into_iter().sum()
    })
}
