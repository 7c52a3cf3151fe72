//! Films cut, encoded in parallel and joined again, by the system's ffmpeg.
//!
//! A [`Workshop`] knows the programs and the limits; it probes, splits, transcodes and joins. Whatever it makes is made
//! beside its place, compared with its source (frames, their times, sound, length) and renamed: there is a whole result
//! or none. Inputs are not trusted: ffmpeg is told which reader to take and may read no other file, which the kernel
//! keeps where it can ([`guard()`]).
//!
//! What comes in are names of files; what goes out are files and plain reports. This room knows no HTTP, no runtime and
//! no terminal.

mod call;
mod check;
mod concat;
mod encoder;
mod error;
mod film;
mod guard;
mod ingest;
mod limits;
mod losses;
mod order;
mod packets;
mod place;
mod plan;
mod sequence;
mod sniff;
mod source;
mod split;
mod timeline;
mod transcode;
mod whole;
mod workshop;
mod wrapping;

pub use concat::{ConcatOrder, Joined};
pub use encoder::{Choice, Quality, VideoCodec};
pub use error::MediaError;
pub use film::{Film, Kind, Ratio, Stream};
pub use guard::{guard, kernel_guards};
pub use limits::Limits;
pub use order::{Audio, Order, Video};
pub use sniff::Container;
pub use source::Source;
pub use split::{Piece, Pieces, SplitOrder};
pub use transcode::Report;
pub use workshop::{Progress, Told, Workshop};
