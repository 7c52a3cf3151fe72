//! The last steps of sealing: where HDF5 put the chunks, the index behind them, and making it all durable.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::Write as _,
    path::Path,
};

use caudal_store::Time;
use sha2::{Digest as _, Sha256};

use super::{
    FORMAT,
    codec::Codec,
    error::ArchiveError,
    hdf5::{self, ChunkPlace, Failed},
    index::{Entry, PLACE, Place, Tail, key},
    names, reader,
};

/// Opens the file with the HDF5 library, as any reader would, and puts down where it finds each chunk. What it finds must
/// be what was written: as many bytes, in as many chunks.
pub(super) fn locate(path: &Path, entries: &mut [Entry]) -> Result<(), ArchiveError> {
    let file = hdf5::File::open_own(path).map_err(ArchiveError::hdf5(path))?;
    let mut spaces = HashMap::new();
    for entry in entries {
        let (space, name) = names::groups(&entry.stream.id);
        if !spaces.contains_key(&space) {
            let group = file.root().and_then(|root| root.group(&space)).map_err(ArchiveError::hdf5(path))?;
            spaces.insert(space.clone(), group);
        }
        let places = find(&spaces[&space], &name, entry.length).map_err(ArchiveError::hdf5(path))?;
        if !put(entry, &places) {
            return Err(ArchiveError::damaged(path, format!("HDF5 finds other chunks of {name} than were written")));
        }
    }
    drop(spaces);
    file.close().map_err(ArchiveError::hdf5(path))
}

fn find(space: &hdf5::Group, name: &str, length: u64) -> Result<Vec<ChunkPlace>, Failed> {
    let group = space.group(name)?;
    let set = group.dataset("events")?;
    if set.length()? != length || group.number("event_count")?.is_none() {
        return Err(Failed(format!("{name} has not the length that was written")));
    }
    let mut places = set.chunks()?;
    places.sort_unstable_by_key(|place| place.offset);
    Ok(places)
}

fn put(entry: &mut Entry, places: &[ChunkPlace]) -> bool {
    if places.len() != entry.chunks.len() {
        return false;
    }
    entry.chunks.iter_mut().zip(places).enumerate().all(|(number, (chunk, place))| {
        chunk.address = place.address;
        place.offset == number as u64 * u64::from(entry.chunk)
            && place.stored == u64::from(chunk.stored)
            && place.mask == u32::from(chunk.as_is)
    })
}

/// Writes the index behind the HDF5 part, and makes the file durable.
pub(super) fn append_index(path: &Path, entries: &[Entry], codec: Codec, made: Time) -> Result<(), ArchiveError> {
    let mut file = OpenOptions::new().read(true).append(true).open(path).map_err(ArchiveError::io(path, "open it"))?;
    let hdf5 = file.metadata().map_err(ArchiveError::io(path, "look at it"))?.len();
    let hdf5_sum = reader::sum(path, &file, hdf5)?;
    let (mut index, mut directory) = (Vec::new(), Vec::with_capacity(entries.len()));
    for entry in entries {
        let bytes = entry.encode();
        let (offset, length) = (hdf5 + index.len() as u64, bytes.len() as u64);
        directory.push(Place { key: key(&entry.stream.id), offset, length, sum: Sha256::digest(&bytes).into() });
        index.extend_from_slice(&bytes);
    }
    directory.sort_unstable_by_key(|place| place.key);
    let lines: Vec<[u8; PLACE]> = directory.iter().map(Place::encode).collect();
    let tail = Tail {
        format: FORMAT,
        hdf5,
        entries: index.len() as u64,
        streams: entries.len() as u64,
        records: entries.iter().map(|entry| entry.count).sum(),
        plain: entries.iter().map(|entry| entry.length).sum(),
        made,
        codec: codec.to_string(),
        hdf5_sum,
        directory_sum: Sha256::digest(lines.as_flattened()).into(),
    };
    index.extend_from_slice(lines.as_flattened());
    index.extend_from_slice(&tail.encode());
    file.write_all(&index).map_err(ArchiveError::io(path, "write its index"))?;
    file.sync_all().map_err(ArchiveError::io(path, "make it durable"))
}

/// Makes a name in a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), ArchiveError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(ArchiveError::io(folder, "make its names durable"))
}
