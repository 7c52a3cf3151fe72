//! How bytes of a chunk are made smaller, in the forms that HDF5's filters give them.

use std::{
    borrow::Cow,
    cell::RefCell,
    fmt,
    io::{self, Read as _, Write as _},
    str::FromStr,
};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use zstd::bulk::{Compressor, Decompressor};

use super::{error::ArchiveError, fletcher, hdf5::Filter, lzf};

/// How a chunk is made smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not at all.
    None,
    /// Deflate, at a level from 1 to 9. Every HDF5 has it.
    Gzip(u8),
    /// LZF, which h5py has; other libraries want a plugin.
    Lzf,
    /// LZ4, by a plugin.
    Lz4,
    /// Zstandard, at a level from 1 to 19; by a plugin.
    Zstd(u8),
}

impl Default for Codec {
    /// What opens in any HDF5: see the table in `docs/archive.md` for the level.
    fn default() -> Self {
        Self::Gzip(4)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => to.write_str("none"),
            Self::Gzip(level) => write!(to, "gzip-{level}"),
            Self::Lzf => to.write_str("lzf"),
            Self::Lz4 => to.write_str("lz4"),
            Self::Zstd(level) => write!(to, "zstd-{level}"),
        }
    }
}

impl FromStr for Codec {
    type Err = ArchiveError;

    fn from_str(name: &str) -> Result<Self, ArchiveError> {
        let level = |most| move |level: &str| level.parse().ok().filter(|level| (1..=most).contains(level));
        let codec = match name {
            "none" => Some(Self::None),
            "lzf" => Some(Self::Lzf),
            "lz4" => Some(Self::Lz4),
            _ => match name.split_once('-') {
                Some(("gzip", rest)) => level(9)(rest).map(Self::Gzip),
                Some(("zstd", rest)) => level(19)(rest).map(Self::Zstd),
                _ => None,
            },
        };
        codec.ok_or_else(|| ArchiveError::Codec(name.to_owned()))
    }
}

/// Numbers of filters, as registered with the HDF Group.
pub(super) const LZF_FILTER: i32 = 32000;
pub(super) const LZ4_FILTER: i32 = 32004;
pub(super) const ZSTD_FILTER: i32 = 32015;
/// LZF of h5py: its filter's version, liblzf's.
const LZF_VERSIONS: [u32; 2] = [4, 0x0105];
/// Most that a chunk may claim to hold once unpacked.
const MOST: usize = 64 << 20;

/// A chunk as it stands in the file.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) bytes: Vec<u8>,
    /// Whether the codec was left out, because the bytes did not become fewer.
    pub(super) as_is: bool,
}

impl Codec {
    /// The number of its filter, as registered with the HDF Group.
    pub fn filter_id(self) -> Option<i32> {
        match self {
            Self::None => None,
            Self::Gzip(_) => Some(1),
            Self::Lzf => Some(LZF_FILTER),
            Self::Lz4 => Some(LZ4_FILTER),
            Self::Zstd(_) => Some(ZSTD_FILTER),
        }
    }

    /// What h5py needs beside itself to read it.
    pub fn plugin(self) -> Option<&'static str> {
        matches!(self, Self::Lz4 | Self::Zstd(_)).then_some("hdf5plugin")
    }

    /// The values that its filter wants, for chunks of `chunk` bytes.
    fn filter_values(self, chunk: u32) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::Gzip(level) | Self::Zstd(level) => vec![level.into()],
            Self::Lzf => vec![LZF_VERSIONS[0], LZF_VERSIONS[1], chunk],
            Self::Lz4 => vec![0],
        }
    }

    /// Calls `then` with the filters of a dataset: the codec, and HDF5's own checksum behind it.
    pub(super) fn with_filters<T>(self, chunk: u32, then: impl FnOnce(&[Filter<'_>]) -> T) -> T {
        let values = self.filter_values(chunk);
        let codec = self.filter_id().map(|id| Filter { id, values: &values });
        let filters: Vec<Filter<'_>> =
            codec.into_iter().chain([Filter { id: fletcher::FILTER, values: &[] }]).collect();
        then(&filters)
    }

    /// Packs a chunk.
    pub(super) fn pack(self, plain: &[u8]) -> io::Result<Packed> {
        let packed = match self {
            Self::None => None,
            Self::Gzip(level) => {
                let mut into = ZlibEncoder::new(Vec::with_capacity(plain.len() / 3), Compression::new(level.into()));
                into.write_all(plain)?;
                Some(into.finish()?)
            }
            Self::Lzf => lzf::compress(plain),
            Self::Lz4 => Some(pack_lz4(plain)),
            Self::Zstd(level) => Some(pack_zstd(plain, level.into())?),
        };
        let as_is = packed.is_none() && self != Self::None;
        let mut bytes = packed.unwrap_or_else(|| plain.to_vec());
        let sum = fletcher::sum(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        Ok(Packed { bytes, as_is })
    }

    /// Unpacks a chunk that holds `length` bytes; `None` where it does not.
    pub(super) fn unpack(self, stored: &[u8], as_is: bool, length: usize) -> Option<Vec<u8>> {
        let (bytes, sum) = stored.split_last_chunk::<4>()?;
        if length > MOST || fletcher::sum(bytes) != u32::from_le_bytes(*sum) {
            return None;
        }
        let codec = if as_is { Self::None } else { self };
        let plain = match codec {
            Self::None => Cow::Borrowed(bytes),
            Self::Gzip(_) => {
                let mut plain = Vec::with_capacity(length);
                ZlibDecoder::new(bytes).take(length as u64 + 1).read_to_end(&mut plain).ok()?;
                plain.into()
            }
            Self::Lzf => unpack_lzf(bytes, length)?.into(),
            Self::Lz4 => unpack_lz4(bytes, length)?.into(),
            Self::Zstd(_) => unpack_zstd(bytes, length).ok()?.into(),
        };
        (plain.len() == length).then(|| plain.into_owned())
    }
}

thread_local! {
    // Tables of some megabytes, which would be made for each chunk anew.
    static ZSTD: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static UNZSTD: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn pack_zstd(plain: &[u8], level: i32) -> io::Result<Vec<u8>> {
    ZSTD.with_borrow_mut(|kept| match kept {
        Some((of, compressor)) if *of == level => compressor.compress(plain),
        _ => kept.insert((level, Compressor::new(level)?)).1.compress(plain),
    })
}

fn unpack_zstd(bytes: &[u8], length: usize) -> io::Result<Vec<u8>> {
    UNZSTD.with_borrow_mut(|kept| match kept {
        Some(decompressor) => decompressor.decompress(bytes, length),
        None => kept.insert(Decompressor::new()?).decompress(bytes, length),
    })
}

/// The form of HDF5's LZ4 filter: the length of all and that of a block, big-endian, then each block with its length.
fn pack_lz4(plain: &[u8]) -> Vec<u8> {
    let block = lz4_flex::block::compress(plain);
    // A block that did not shrink is stored as it is; its length then says so.
    let block = if block.len() < plain.len() { &block[..] } else { plain };
    let length = u32::try_from(plain.len()).expect("a chunk is far below 4 GB");
    let mut bytes = Vec::with_capacity(block.len() + 16);
    bytes.extend_from_slice(&u64::from(length).to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(block.len()).expect("it is no longer than the chunk").to_be_bytes());
    bytes.extend_from_slice(block);
    bytes
}

/// Undoes HDF5's LZ4 filter where that makes at most `most` bytes. Other programs write several blocks.
pub(super) fn unpack_lz4(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let (total, rest) = bytes.split_first_chunk()?;
    let (block, mut rest) = rest.split_first_chunk()?;
    let total = usize::try_from(u64::from_be_bytes(*total)).ok().filter(|total| *total <= most)?;
    let block = u32::from_be_bytes(*block) as usize;
    let mut plain = Vec::new();
    while plain.len() < total {
        let length = block.min(total - plain.len());
        let (size, after) = rest.split_first_chunk()?;
        let (packed, after) = after.split_at_checked(u32::from_be_bytes(*size) as usize)?;
        match packed.len() == length {
            true => plain.extend_from_slice(packed),
            false => plain.extend(lz4_flex::block::decompress(packed, length).ok()?),
        }
        rest = after;
    }
    Some(plain)
}

/// Undoes LZF where that makes at most `most` bytes.
pub(super) fn unpack_lzf(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    lzf::decompress(bytes, most)
}

/// Undoes Zstandard where that makes at most `most` bytes. Other programs write frames that do not say their length.
pub(super) fn unpack_zstd_stream(bytes: &[u8], most: usize) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let frames = zstd::stream::read::Decoder::with_buffer(bytes).ok()?;
    frames.take(most as u64 + 1).read_to_end(&mut plain).ok()?;
    (plain.len() <= most).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Codec; 7] =
        [Codec::None, Codec::Gzip(1), Codec::Gzip(9), Codec::Lzf, Codec::Lz4, Codec::Zstd(1), Codec::Zstd(19)];

    #[test]
    fn names_are_read_and_written() {
        for codec in ALL {
            assert_eq!(codec.to_string().parse::<Codec>().unwrap(), codec);
        }
        for wrong in ["", "gzip", "gzip-0", "gzip-10", "zstd-20", "zstd--1", "blosc", "lzf-1"] {
            assert!(wrong.parse::<Codec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn bytes_come_back() {
        let mut noise = fastrand::Rng::with_seed(7);
        let random: Vec<u8> = (0..70_000).map(|_| noise.u8(..)).collect();
        let text = "paciente refiere cefalea leve desde el martes, sin fiebre; ".repeat(900).into_bytes();
        for codec in ALL {
            for plain in [&b""[..], b"x", b"aaaaaaaa", &random, &text, &text[..7], &random[..33]] {
                let packed = codec.pack(plain).unwrap();
                let back = codec.unpack(&packed.bytes, packed.as_is, plain.len());
                assert_eq!(back.as_deref(), Some(plain), "{codec}, {} bytes", plain.len());
                assert_eq!(codec.unpack(&packed.bytes, packed.as_is, plain.len() + 1), None, "{codec}");
            }
        }
    }

    #[test]
    fn chunks_of_other_programs_are_unpacked() {
        let plain = "dolor de cabeza, ".repeat(1_000).into_bytes();
        // LZ4 in blocks of 5,000 bytes, one of which is stored as it is.
        let mut lz4 = [(plain.len() as u64).to_be_bytes().as_slice(), &5_000_u32.to_be_bytes()].concat();
        for (number, block) in plain.chunks(5_000).enumerate() {
            let packed = if number == 1 { block.to_vec() } else { lz4_flex::block::compress(block) };
            lz4.extend_from_slice(&(packed.len() as u32).to_be_bytes());
            lz4.extend_from_slice(&packed);
        }
        assert_eq!(unpack_lz4(&lz4, plain.len()), Some(plain.clone()));
        let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        zstd.write_all(&plain).unwrap();
        let zstd = zstd.finish().unwrap();
        assert_eq!(unpack_zstd_stream(&zstd, plain.len()), Some(plain.clone()));
        let lzf = lzf::compress(&plain).unwrap();
        assert_eq!(unpack_lzf(&lzf, 1 << 30), Some(plain.clone()));
        let most = plain.len() - 1;
        assert_eq!(
            (unpack_lz4(&lz4, most), unpack_zstd_stream(&zstd, most), unpack_lzf(&lzf, most)),
            (None, None, None)
        );
    }

    #[test]
    fn hostile_chunks_are_refused() {
        let mut noise = fastrand::Rng::with_seed(8);
        for codec in ALL {
            let packed = codec.pack(&b"una consulta ".repeat(500)).unwrap();
            for _ in 0..2_000 {
                let mut bytes = packed.bytes[..packed.bytes.len() - 4].to_vec();
                for _ in 0..noise.usize(1..4) {
                    let at = noise.usize(..bytes.len());
                    bytes[at] ^= 1 << noise.u8(..8);
                }
                bytes.truncate(noise.usize(..=bytes.len()));
                // With a sum that fits, so that the codec itself meets them.
                bytes.extend_from_slice(&fletcher::sum(&bytes).to_le_bytes());
                let back = codec.unpack(&bytes, packed.as_is, 6_500);
                assert!(back.is_none_or(|back| back.len() == 6_500));
            }
        }
    }
}
