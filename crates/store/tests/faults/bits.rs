//! Bits that flip in the file: every one either shows or was nowhere.

use std::{fs, path::Path};

use caudal_store::{
    Appended, Archive, ArchiveNote, ArchivePart, Clock, Head, Key, List, Order, Record, Sealed, Snapshot, StoreError,
    Stream, StreamId,
};
use uuid::Uuid;

use crate::{
    chance,
    child::Place,
    contract::{append, id, make, record, run},
    rounds,
};

#[test]
fn no_flipped_bit_gives_back_what_was_never_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let original = folder.path().join("original");
    let ids = fill(&original);
    let bytes = fs::read(original.join("caudal.db")).expect("the database");
    let expected = Content::of(&original, &ids).expect("all of it");
    let mut chance = chance("bits");
    let (flips, mut told) = (rounds(300, 10_000), 0);
    let folder = folder.path().join("flipped");
    for _ in 0..flips {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a folder");
        let (byte, bit) = (chance.usize(..bytes.len()), chance.u8(..8));
        let mut flipped = bytes.clone();
        flipped[byte] ^= 1 << bit;
        fs::write(folder.join("caudal.db"), flipped).expect("a file");
        match Content::of(&folder, &ids) {
            Err(_) => told += 1,
            Ok(content) => assert_eq!(content, expected, "bit {bit} of byte {byte}: nobody noticed"),
        }
    }
    println!("{flips} flips in {} bytes: {told} told, {} in places that hold nothing", bytes.len(), flips - told);
}

/// Everything that a store gives back.
#[derive(Debug, PartialEq)]
struct Content {
    streams: Vec<Stream>,
    records: Vec<Vec<Record>>,
    sealed: Vec<Vec<Sealed>>,
    snapshots: Vec<Option<Snapshot>>,
    archives: Vec<ArchiveNote>,
    places: Vec<Option<(StreamId, u64)>>,
    repeats: Vec<Appended>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

impl Content {
    /// All of it, or why not.
    fn of(folder: &Path, ids: &[Uuid]) -> Result<Self, StoreError> {
        let store = Place::Folder(folder.display().to_string()).open(Clock::system())?;
        run(async {
            let wrong = store.check().await?;
            if let Some(wrong) = wrong.first() {
                return Err(StoreError::Damaged(wrong.clone()));
            }
            let list = List { space: "test".into(), order: Order::Oldest, limit: 10, offset: 0, idle_since: None };
            let mut content = Self {
                streams: store.streams(list).await?.streams,
                records: Vec::new(),
                sealed: Vec::new(),
                snapshots: Vec::new(),
                archives: store.archives().await?,
                places: Vec::new(),
                repeats: Vec::new(),
            };
            for name in NAMES {
                content.records.push(store.read(&id(name), caudal_store::Range::after(0, 1_000)).await?);
                content.sealed.push(store.sealed(&id(name)).await?);
                // Whoever misses what is kept of records reads the records.
                content.snapshots.push(store.snapshot(&id(name)).await?);
                content.repeats.push(store.append(keyed(name)).await?);
            }
            for id in ids {
                content.places.push(store.find(*id).await?);
            }
            Ok(content)
        })
    }
}

fn keyed(name: &str) -> caudal_store::Append {
    let key = Key { name: "again".into(), request: [7; 32] };
    caudal_store::Append { key: Some(key), ..append(name, vec![record("one", "once")]) }
}

/// A database with something of everything in it, closed as it should be.
fn fill(folder: &Path) -> Vec<Uuid> {
    let store = Place::Folder(folder.display().to_string()).open(Clock::system()).expect("a store");
    run(async {
        let mut ids = Vec::new();
        for name in NAMES {
            make(&*store, name).await;
            store.append(keyed(name)).await.expect("appended");
            for number in 0..20 {
                let records = vec![record("one", format!("{number}").repeat(40 * number)), record("two", "")];
                ids.extend(records.iter().map(|record| record.id));
                store.append(append(name, records)).await.expect("appended");
            }
            store
                .keep_snapshot(&id(name), Snapshot { sequence: 9, body: vec![3; 500].into() }, false)
                .await
                .expect("kept");
        }
        let records = store.read(&id("a"), caudal_store::Range::after(0, 10)).await.expect("records");
        let last = &records[9];
        let last = Head { sequence: last.sequence, time: last.time, chain: last.chain };
        let note = ArchiveNote { file: "one".into(), time: 7, records: 10, bytes: 100, digest: [3; 32] };
        let archive = Archive { note, parts: vec![ArchivePart { stream: id("a"), first: 1, last }] };
        store.seal(archive).await.expect("sealed");
        store.append(append("a", vec![record("one", "more")])).await.expect("appended");
        ids
    })
}
