//! The last steps of sealing: where HDF5 put the chunks, the index, and making it all durable.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions, Permissions},
    io,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
};

use caudal_store::Time;
use sha2::{Digest as _, Sha256};

use super::{
    FORMAT,
    codec::Codec,
    error::ArchiveError,
    hdf5::{self, ChunkPlace, Failed},
    index::{DATASET, Entry, PLACE, Place, ROOT, Root, key},
    names, reader,
};

/// Opens the file with the HDF5 library, as any reader would, puts down where it finds each chunk, and makes room for the
/// index; returns where that is. What the library finds must be what was written: as many bytes, in as many chunks.
pub(super) fn locate(path: &Path, entries: &mut [Entry]) -> Result<u64, ArchiveError> {
    let file = hdf5::File::open_to_add(path).map_err(ArchiveError::hdf5(path))?;
    let mut spaces = HashMap::new();
    for entry in entries.iter_mut() {
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
    let room = |file: hdf5::File| {
        let place = file.root()?.reserve(DATASET, index_length(entries))?;
        file.close().map(|()| place)
    };
    room(file).map_err(ArchiveError::hdf5(path))
}

/// Bytes of entries and directory. Addresses that are not known yet take as many as those that are.
fn index_length(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| (entry.encode().len() + PLACE) as u64).sum::<u64>().max(1)
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

/// Writes the index to its place in the file, the root to the user block, and makes the file durable.
pub(super) fn write_index(
    path: &Path,
    place: u64,
    entries: &[Entry],
    codec: Codec,
    made: Time,
) -> Result<(), ArchiveError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(ArchiveError::io(path, "open it"))?;
    let (mut index, mut directory) = (Vec::new(), Vec::with_capacity(entries.len()));
    for entry in entries {
        let bytes = entry.encode();
        let (offset, length) = (place + index.len() as u64, bytes.len() as u64);
        directory.push(Place { key: key(&entry.stream.id), offset, length, sum: Sha256::digest(&bytes).into() });
        index.extend_from_slice(&bytes);
    }
    directory.sort_unstable_by_key(|place| place.key);
    let lines: Vec<[u8; PLACE]> = directory.iter().map(Place::encode).collect();
    let bytes_of_entries = index.len() as u64;
    index.extend_from_slice(lines.as_flattened());
    file.write_all_at(&index, place).map_err(ArchiveError::io(path, "write its index"))?;
    let hdf5 = file.metadata().map_err(ArchiveError::io(path, "look at it"))?.len();
    let root = Root {
        format: FORMAT,
        hdf5,
        index: place,
        entries: bytes_of_entries,
        streams: entries.len() as u64,
        records: entries.iter().map(|entry| entry.count).sum(),
        plain: entries.iter().map(|entry| entry.length).sum(),
        made,
        codec: codec.to_string(),
        hdf5_sum: reader::sum(path, &file, ROOT as u64..hdf5)?,
        directory_sum: Sha256::digest(lines.as_flattened()).into(),
    };
    file.write_all_at(&root.encode(), 0).map_err(ArchiveError::io(path, "write its index"))?;
    file.sync_all().map_err(ArchiveError::io(path, "make it durable"))
}

/// Opens the file once more: the HDF5 library must find the index where it was written.
pub(super) fn check_place(path: &Path, place: u64) -> Result<(), ArchiveError> {
    let found = || {
        let file = hdf5::File::open_own(path)?;
        let found = file.root()?.dataset(DATASET)?.address();
        file.close().map(|()| found)
    };
    match found().map_err(ArchiveError::hdf5(path))? == Some(place) {
        true => Ok(()),
        false => Err(ArchiveError::damaged(path, "HDF5 finds the index at another place than where it was written")),
    }
}

/// Takes the permission to write from those who have it: nothing is to be written to an archive any more. Who may read it,
/// the process's umask has said when the file was made.
pub(super) fn make_read_only(file: &File) -> io::Result<()> {
    let mode = file.metadata()?.permissions().mode();
    file.set_permissions(Permissions::from_mode(mode & 0o440))
}

/// Makes a name in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> Result<(), ArchiveError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(ArchiveError::io(folder, "make its names durable"))
}
