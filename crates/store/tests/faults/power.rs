//! Power cuts, on a disk that is simulated: every write and flush of a real process is recorded, and the disks that a cut
//! at any moment could have left are made and opened.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use caudal_store::Clock;

use crate::{
    chance, child,
    child::{Place, Seen},
    contract::{append, record, run},
    disk::{Disk, events},
    rounds,
};

/// How many disks are made of one process's life.
const IMAGES: usize = 60;

/// The shim, made once. None where there is no C compiler, or this is not Linux with glibc.
pub(crate) fn shim() -> Option<&'static Path> {
    static SHIM: std::sync::OnceLock<Option<(tempfile::TempDir, PathBuf)>> = std::sync::OnceLock::new();
    let made = SHIM.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/shim.c");
        let mut cc = Command::new("cc");
        let made = cc.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-lpthread").status();
        made.is_ok_and(|status| status.success()).then_some((folder, library))
    });
    if made.is_none() {
        eprintln!("skipped: there is no C compiler (Debian: build-essential)");
    }
    made.as_ref().map(|(_, library)| library.as_path())
}

#[test]
fn a_power_cut_loses_nothing_that_was_acknowledged() {
    cut("some", "-", rounds(120, 10_000));
}

#[test]
fn nor_does_one_after_flushes_have_failed() {
    cut("shaky", "x", rounds(120, 10_000));
}

fn cut(what: &str, fault: &str, images: usize) {
    let Some(shim) = shim() else { return };
    let mut chance = chance(what);
    let (mut done, mut records, mut acknowledged, mut wrote) = (0, 0, 0, 0);
    while done < images {
        let folder = tempfile::tempdir().expect("a folder");
        let (within, log) = (folder.path().join("db"), folder.path().join("log"));
        fs::create_dir(&within).expect("a folder");
        fs::write(folder.path().join("fault"), fault).expect("a fault");
        let place = Place::Folder(within.display().to_string());
        let mut process = child::command(what, &place, &within.join("acks"));
        process.env("LD_PRELOAD", shim).env("SHIM_FOLDER", &within).env("SHIM_LOG", &log).env("SHIM_QUICK", "1");
        process.env("SHIM_FAULT", folder.path().join("fault")).env("SHIM_SEED", chance.u32(..).to_string());
        assert!(process.status().expect("a process").success());
        let events = events(&fs::read(&log).expect("a log"));
        assert!(events.len() > 100, "the shim has seen too little: {}", events.len());
        wrote += events.len();
        let mut moments: Vec<usize> = (0..IMAGES.min(images - done)).map(|_| chance.usize(..=events.len())).collect();
        moments.sort_unstable();
        let (mut disk, mut place) = (Disk::default(), 0);
        for moment in moments {
            events[place..moment].iter().for_each(|event| disk.follow(event, &mut chance));
            place = moment;
            let image = folder.path().join("image");
            disk.cut(&image, &mut chance);
            let acks = std::str::from_utf8(&disk.acks).expect("text");
            records += look(&image, acks);
            acknowledged += acks.lines().count();
            done += 1;
        }
    }
    println!(
        "{what}: {done} disks of {wrote} writes and flushes: {records} records read, {acknowledged} acknowledged appends found"
    );
}

/// Opens what the cut has left, checks it, and goes on.
fn look(image: &Path, acks: &str) -> usize {
    let place = Place::Folder(image.display().to_string());
    let store = place.open(Clock::system()).expect("it opens");
    let mut seen = Seen::default();
    let count = seen.check(&*store, acks);
    if count > 0 {
        run(async {
            let stream = store.stream(&crate::contract::id("a")).await.expect("asked");
            if stream.is_some() {
                store.append(append("a", vec![record("one", "after the cut")])).await.expect("it goes on");
            }
            assert_eq!(store.check().await.expect("checked"), Vec::<String>::new());
        });
    }
    count
}
