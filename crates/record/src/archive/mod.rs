//! Sealed archives: HDF5 files that stock readers open in thirty years, and that we read without the HDF5 library.
//!
//! Streams come in as [`Stream`](caudal_store::Stream) and [`Record`](caudal_store::Record), and go out as the same
//! values, byte by byte. Which store they are in, and when they may leave it, is not known here.
//!
//! **Layout.** A group per stream, `consultations/<id>`, as readers of such files expect, and in it a dataset `events`:
//! the events' JSON, one a line, as bytes in chunks. Not as strings of variable length, for HDF5 keeps those on a heap that
//! no filter reaches (`caudal bench codec` shows it). A stream that fits one chunk has one of exactly its size; above
//! that chunks have 512 KiB, and a dataset `offsets` says where each line begins. One dataset for all streams would pack
//! some percent better, and cut each stream's events loose from its group; measured on 2,000 consultations of 50 events of
//! 1 KB, what HDF5 keeps about a group costs 1 KB of 14 (`docs/archive.md`).
//!
//! **Why the reference library writes.** An archive is for decades, so its bytes come from the library that defines the
//! format. It is C, slow to open and not safe for threads, and crashes on damaged files; so nothing of ours is read with
//! it: each archive has an index of our own (`index.rs`).

pub mod bench;
mod codec;
mod columns;
mod corpus;
mod error;
mod fletcher;
mod hdf5;
mod import;
mod index;
mod line;
mod lzf;
mod names;
mod own;
mod pool;
mod reader;
pub mod sample;
mod seal;
mod series;
mod unindexed;
mod verify;
mod worker;
mod writer;

pub use codec::Codec;
pub use error::ArchiveError;
pub use import::{Foreign, IMPORT_COMMAND, Import, ImportLimits, Imported, Original, import};
pub(crate) use line::read as read_line;
pub use own::Own;
pub use reader::{Part, Reader, Summary};
pub(crate) use seal::sync_folder;
pub use series::Series;
pub use verify::Report;
pub use worker::{WorkerLimits, import_worker};
pub use writer::{Added, Link, Options, Sealed, Writer};

/// The format that this build writes. It reads the one before as well.
pub const FORMAT: u32 = 2;
