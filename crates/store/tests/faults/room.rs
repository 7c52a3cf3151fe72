//! Disks that fail, fill up, or cannot be written.

use std::{fs, path::Path, process::Command, time::Duration};

use caudal_store::{Clock, Range, Store, StoreError};

use crate::{
    child,
    child::{Place, Seen},
    contract::{all, append, id, make, record, run},
    power::shim,
};

/// How long a store may take to notice that a fault is gone.
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn a_disk_that_fails_is_told_and_survived() {
    let Some(shim) = shim() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let within = folder.path().join("db");
    fs::create_dir(&within).expect("a folder");
    let fault = folder.path().join("fault");
    fs::write(&fault, "-").expect("no fault");
    let place = Place::Folder(within.display().to_string());
    let mut process = child::command("faults", &place, &folder.path().join("acks"));
    process.env("LD_PRELOAD", shim).env("SHIM_FOLDER", &within).env("SHIM_LOG", "/dev/null").env("SHIM_FAULT", &fault);
    let done = process.output().expect("a process");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let store = place.open(Clock::system()).expect("it opens");
    assert!(Seen::default().check(&*store, "") > 0);
}

/// What the process does whose disk fails: see `shim.c` for the letters.
pub(crate) fn faults(place: &Place) {
    let fault = std::env::var("SHIM_FAULT").expect("SHIM_FAULT");
    let fail = |letter: &str| fs::write(&fault, letter).expect("a fault");
    let store = place.open(Clock::system()).expect("a store");
    let one = || append("a", vec![record("one", vec![b'x'; 2_000])]);
    run(async {
        make(&*store, "a").await;
        let mut kept = 0;
        for round in 0..40 {
            for letter in ["s", "n", "w", "r"] {
                // A fault hits the log, and once it is long enough, its way back into the database.
                for _ in 0..fastrand::usize(1..40) {
                    store.append(one()).await.expect("appended");
                    kept += 1;
                }
                let before = all(&*store, "a").await;
                assert_eq!(before.len(), kept, "round {round}, {letter}");
                fail(letter);
                for _ in 0..3 {
                    let tried = store.append(one()).await;
                    match letter {
                        "n" => assert_eq!(tried, Err(StoreError::DiskFull)),
                        _ => assert!(
                            matches!(tried, Err(StoreError::Io(_) | StoreError::ReadOnly(_))),
                            "{letter}: {tried:?}"
                        ),
                    }
                    assert_eq!(all(&*store, "a").await, before, "reads go on");
                }
                fail("-");
                recovers(&*store, one()).await;
                kept += 1;
                assert_eq!(all(&*store, "a").await.len(), kept, "{letter}: what was refused is not there");
            }
        }
        assert_eq!(store.check().await.expect("checked"), Vec::<String>::new());
    });
}

/// Appends as soon as it is possible again.
async fn recovers(store: &dyn Store, again: caudal_store::Append) {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        match store.append(again.clone()).await {
            Ok(_) => return,
            Err(error) => assert!(std::time::Instant::now() < end, "it does not recover by itself: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A small disk of its own. None without the right to have one.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        if mount(&["-t", "tmpfs", "-o", options, "tmpfs"], folder.path()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: mounting a disk needs root");
        None
    }

    fn again(&self, options: &str) {
        assert!(mount(&["-o", &format!("remount,{options}")], self.0.path()), "remount,{options}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(arguments: &[&str], place: &Path) -> bool {
    let mut mount = Command::new("mount");
    mount.args(arguments).arg(place).stderr(std::process::Stdio::null());
    mount.status().is_ok_and(|status| status.success())
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let Some(disk) = Mount::new("size=6m") else { return };
    let place = Place::Folder(disk.0.path().display().to_string());
    let store = place.open(Clock::system()).expect("a store");
    run(async {
        make(&*store, "a").await;
        let one = || append("a", vec![record("one", vec![b'x'; 20_000])]);
        let mut kept = 0;
        let refused = loop {
            match store.append(one()).await {
                Ok(_) => kept += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, StoreError::DiskFull);
        assert_eq!(store.append(one()).await, Err(StoreError::DiskFull), "it stays so");
        assert_eq!(all(&*store, "a").await.len(), kept, "reads go on");
        disk.again("size=60m");
        recovers(&*store, one()).await;
        assert_eq!(all(&*store, "a").await.len(), kept + 1);
        assert_eq!(store.check().await.expect("checked"), Vec::<String>::new());
    });
}

#[test]
fn a_disk_that_is_read_only_is_told() {
    let Some(disk) = Mount::new("size=20m") else { return };
    let place = Place::Folder(disk.0.path().join("db").display().to_string());
    let store = place.open(Clock::system()).expect("a store");
    run(async {
        make(&*store, "a").await;
        store.append(append("a", vec![record("one", "1")])).await.expect("appended");
    });
    drop(store);
    disk.again("ro");
    let opened = place.open(Clock::system()).map(drop);
    assert!(matches!(opened, Err(StoreError::ReadOnly(_))), "{opened:?}");
    disk.again("rw");
    let store = place.open(Clock::system()).expect("a store");
    assert_eq!(run(store.read(&id("a"), Range::after(0, 9))).expect("a record").len(), 1);
}
