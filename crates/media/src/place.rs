//! Where a result comes to lie: made in a folder of its own beside it, renamed into place when it is whole.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tempfile::TempDir;

use crate::error::MediaError;

/// How the folders begin in which results are made. One is left where we were killed; whoever works beside it next
/// removes it.
const PREFIX: &str = ".caudal-media-";
/// The file that whoever works in a folder holds locked for as long.
const LOCK: &str = "lock";

/// By what a folder is known to be a result of ours, which may be replaced as a whole.
pub(crate) const LIST: &str = "segments.json";

/// What a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    File,
    Folder,
}

/// The place of a result.
pub(crate) struct Place {
    target: PathBuf,
    replace: bool,
    work: TempDir,
    /// Ends with us, however we end.
    _lock: File,
}

impl Place {
    /// Looks whether `target` can be written, and makes a folder to work in, on the same file system.
    pub(crate) fn prepare(target: &Path, shape: Shape, replace: bool, inputs: &[&Path]) -> Result<Self, MediaError> {
        let name = target.file_name().ok_or_else(|| MediaError::Order(format!("{} is no name", target.display())))?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let parent = fs::canonicalize(parent).map_err(MediaError::io(parent))?;
        let target = parent.join(name);
        // Also by another link: what is replaced must not be what is read.
        let resolved = fs::canonicalize(&target).unwrap_or_else(|_| target.clone());
        if inputs.iter().any(|input| *input == resolved || *input == target || is_same(input, &resolved)) {
            return Err(MediaError::Same(target));
        }
        let is_empty = |folder: &Path| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
        match (shape, target.symlink_metadata()) {
            (_, Err(_)) => {}
            (Shape::Folder, Ok(_)) if is_empty(&target) => {}
            (_, Ok(_)) if !replace => return Err(MediaError::Exists(target)),
            (Shape::File, Ok(there)) if there.is_file() || there.is_symlink() => {}
            (Shape::Folder, Ok(there)) if there.is_dir() && target.join(LIST).is_file() => {}
            // Never a folder of somebody's own, with whatever lies in it.
            (_, Ok(_)) => {
                let words = format!("{} is something else than what would be written there", target.display());
                return Err(MediaError::Order(words));
            }
        }
        sweep(&parent);
        let work = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&parent).map_err(MediaError::io(&parent))?;
        let lock = lock(work.path()).map_err(MediaError::io(work.path()))?;
        Ok(Self { target, replace, work, _lock: lock })
    }

    /// The folder to work in.
    pub(crate) fn work(&self) -> &Path {
        self.work.path()
    }

    /// Where the result will be.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Puts `made`, a file or a folder of files within the folder to work in, in place.
    pub(crate) fn commit(self, made: &Path) -> Result<(), MediaError> {
        sync(made).map_err(MediaError::io(made))?;
        let target = &self.target;
        match self.replace {
            true => self.swap(made).map_err(MediaError::io(target))?,
            // Whoever wrote there meanwhile keeps what they wrote.
            // An empty folder is room for one that is full.
            false if self.target.is_dir() => fs::rename(made, target).map_err(MediaError::io(target))?,
            false => match renameat_with(CWD, made, CWD, target, RenameFlags::NOREPLACE).map_err(io::Error::from) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(MediaError::Exists(target.clone()));
                }
                // Some file systems cannot do that.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => {
                    fs::rename(made, target).map_err(MediaError::io(target))?;
                }
                other => other.map_err(MediaError::io(target))?,
            },
        }
        let parent = target.parent().expect("it was joined to one");
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(MediaError::io(parent))
    }

    /// What was there goes into the folder to work in, and with it.
    fn swap(&self, made: &Path) -> io::Result<()> {
        if self.target.is_dir() {
            fs::rename(&self.target, self.work.path().join("replaced"))?;
        }
        fs::rename(made, &self.target)
    }
}

/// Locked before it gets its name: a folder without that file belongs to somebody who is just beginning.
fn lock(work: &Path) -> io::Result<File> {
    let early = work.join("lock.early");
    let lock = File::create(&early)?;
    lock.try_lock()?;
    fs::rename(early, work.join(LOCK))?;
    Ok(lock)
}

/// Removes what those left who were killed at their work.
fn sweep(parent: &Path) {
    let is_ours = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for folder in entries.map(|entry| entry.path()).filter(is_ours) {
        let Ok(lock) = File::open(folder.join(LOCK)) else { continue };
        if lock.try_lock().is_ok() {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    id(one).is_some() && id(one) == id(other)
}

fn sync(made: &Path) -> io::Result<()> {
    if made.is_dir() {
        for entry in fs::read_dir(made)? {
            File::open(entry?.path())?.sync_all()?;
        }
    }
    File::open(made)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_appear_whole_and_replace_only_what_they_may() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out.mp4");
        let place = Place::prepare(&target, Shape::File, false, &[]).unwrap();
        let made = place.work().join("made");
        fs::write(&made, "film").unwrap();
        place.commit(&made).unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"film");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        assert!(matches!(Place::prepare(&target, Shape::File, false, &[]), Err(MediaError::Exists(_))));
        assert!(matches!(Place::prepare(&target, Shape::File, true, &[&target]), Err(MediaError::Same(_))));
    }

    #[test]
    fn what_the_dead_left_is_swept_and_the_living_are_let_be() {
        let folder = tempfile::tempdir().unwrap();
        let living = Place::prepare(&folder.path().join("one.mp4"), Shape::File, false, &[]).unwrap();
        let dead = folder.path().join(format!("{PREFIX}dead"));
        let beginning = folder.path().join(format!("{PREFIX}new"));
        for path in [&dead, &beginning] {
            fs::create_dir(path).unwrap();
        }
        fs::write(dead.join(LOCK), "").unwrap();
        fs::write(dead.join("segment_0.mp4"), "half").unwrap();
        let other = Place::prepare(&folder.path().join("two.mp4"), Shape::File, false, &[]).unwrap();
        assert!(!dead.exists() && beginning.exists());
        assert!(living.work().exists() && other.work().exists());
    }

    #[test]
    fn who_wrote_there_meanwhile_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out.mp4");
        let place = Place::prepare(&target, Shape::File, false, &[]).unwrap();
        let made = place.work().join("made");
        fs::write(&made, "film").unwrap();
        fs::write(&target, "theirs").unwrap();
        assert!(matches!(place.commit(&made), Err(MediaError::Exists(_))));
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
    }

    #[test]
    fn folders_are_replaced_only_if_they_were_made_here() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("parts");
        let make = |replace| {
            let place = Place::prepare(&target, Shape::Folder, replace, &[])?;
            let made = place.work().join("made");
            fs::create_dir(&made).unwrap();
            fs::write(made.join(LIST), "{}").unwrap();
            place.commit(&made)
        };
        fs::create_dir(&target).unwrap();
        make(false).unwrap();
        assert!(matches!(make(false), Err(MediaError::Exists(_))));
        fs::write(target.join("old"), "").unwrap();
        make(true).unwrap();
        assert!(!target.join("old").exists());
        fs::remove_file(target.join(LIST)).unwrap();
        fs::write(target.join("letter.txt"), "dear").unwrap();
        assert!(matches!(make(true), Err(MediaError::Order(_))));
        assert!(matches!(Place::prepare(&target, Shape::File, true, &[]), Err(MediaError::Order(_))));
        assert_eq!(fs::read(target.join("letter.txt")).unwrap(), b"dear");
    }

    #[test]
    fn a_link_to_the_input_is_the_input() {
        let folder = tempfile::tempdir().unwrap();
        let (input, link, hard) = (folder.path().join("in"), folder.path().join("link"), folder.path().join("hard"));
        fs::write(&input, "film").unwrap();
        std::os::unix::fs::symlink(&input, &link).unwrap();
        fs::hard_link(&input, &hard).unwrap();
        let input = input.canonicalize().unwrap();
        for other in [link, hard] {
            assert!(
                matches!(Place::prepare(&other, Shape::File, true, &[&input]), Err(MediaError::Same(_))),
                "{other:?}"
            );
        }
    }
}
