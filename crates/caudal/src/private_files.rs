//! Files of the server's user alone: what is recorded, and what is made of it, is no business of other users of the machine.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::Mode,
    process::{geteuid, umask},
};

use crate::settings::Settings;

/// How names of what Caudal keeps in a data folder begin. Others, such as those of models, are their owner's matter.
const KEPT: [&str; 8] =
    ["caudal.db", "flow-cache.db", "audit.", "archives", "exports", "lock", "head.key", "admin.token"];
/// Files of a folder that is Caudal's own: the database, or the key of archives beside PostgreSQL.
const OWN: [&str; 2] = ["caudal.db", "head.key"];
/// Where archives lie, which are written once.
const ARCHIVES: &str = "archives";
/// Bits of a mode that only directories and special files have.
const STICKY: u32 = 0o1000;

fn denied(settings: &Settings) -> u32 {
    if settings.data_group_read { 0o027 } else { 0o077 }
}

/// Makes all files that this process creates from now on its user's alone, or readable by its group where the settings say so,
/// whatever the umask was.
pub(crate) fn create_private(settings: &Settings) {
    umask(Mode::from_raw_mode(denied(settings)));
}

/// Permissions of users who are neither the owner nor in its group.
const OTHERS: u32 = 0o007;

/// Sets files that an earlier process left in the data folder to the same modes.
pub(crate) fn tighten_data(settings: &Settings) {
    if let Some(folder) = &settings.data_dir {
        let denied = denied(settings);
        tell(folder, tighten_folder(folder, Modes { denied, wrong: denied }));
    }
}

/// The same for a command, of files in `folder` that all users can reach: a server with `data_group_read` may have given them
/// to its group.
pub(crate) fn tighten_open(settings: &Settings, folder: &Path) {
    tell(folder, tighten_folder(folder, Modes { denied: denied(settings), wrong: OTHERS }));
}

fn tell(folder: &Path, changed: usize) {
    if changed > 0 {
        tracing::warn!(
            files = changed,
            folder = %folder.display(),
            "other users of the machine could read files of the data folder, or archives could be written to: their modes are \
             corrected"
        );
    }
}

/// Which permissions are taken away, and which a file must have for that.
#[derive(Debug, Clone, Copy)]
struct Modes {
    denied: u32,
    wrong: u32,
}

/// Corrects the modes of what Caudal keeps in `folder`; how many were wrong.
fn tighten_folder(folder: &Path, modes: Modes) -> usize {
    let mut changed = 0;
    let is_kept = |name: &str| KEPT.iter().any(|kept| name.starts_with(kept));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_kept) {
            tighten_all(&entry.path(), modes, &mut changed);
        }
    }
    // The folder itself only where it is for nothing else.
    if OWN.iter().any(|own| folder.join(own).exists()) {
        tighten_one(folder, modes, &mut changed);
    }
    changed
}

/// Corrects the modes of `path` and of all below it. Links are not followed.
fn tighten_all(path: &Path, modes: Modes, changed: &mut usize) {
    let mut waiting: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        if tighten_one(&path, modes, changed) {
            waiting.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
}

/// The same for `path` alone. True for a folder.
fn tighten_one(path: &Path, modes: Modes, changed: &mut usize) -> bool {
    let Ok(meta) = fs::symlink_metadata(path) else { return false };
    if !meta.is_file() && !meta.is_dir() {
        return false;
    }
    let mode = meta.mode() & 0o7777;
    // An archive is written once, so any write permission is wrong.
    let written_once = if is_archive(path) { 0o222 } else { 0 };
    let (denied, wrong) = (modes.denied | written_once, modes.wrong | written_once);
    if mode & wrong != 0 && mode & STICKY == 0 && meta.uid() == geteuid().as_raw() {
        match set_mode(path, mode & !denied) {
            Ok(()) => *changed += 1,
            Err(error) => tracing::warn!(path = %path.display(), %error, "the mode could not be set"),
        }
    }
    meta.is_dir()
}

fn is_archive(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    folder.is_some_and(|folder| folder == ARCHIVES) && path.extension().is_some_and(|extension| extension == "h5")
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn files_of_earlier_start_lose_what_others_may_do() {
        let home = tempfile::tempdir().unwrap();
        let (folder, elsewhere) = (home.path().join("exports"), home.path().join("elsewhere"));
        let (inner, file) = (folder.join("a"), folder.join("a/b.json"));
        fs::create_dir_all(&inner).unwrap();
        fs::write(&file, "x").unwrap();
        fs::write(&elsewhere, "x").unwrap();
        symlink(&elsewhere, folder.join("link")).unwrap();
        for (path, open) in [(&folder, 0o755), (&inner, 0o700), (&file, 0o664), (&elsewhere, 0o644)] {
            set_mode(path, open).unwrap();
        }
        let mut changed = 0;
        let modes = |denied| Modes { denied, wrong: denied };
        tighten_all(&folder, modes(0o027), &mut changed);
        assert_eq!((mode(&folder), mode(&file), changed), (0o750, 0o640, 2));
        tighten_all(&folder, Modes { denied: 0o077, wrong: OTHERS }, &mut changed);
        assert_eq!((mode(&folder), mode(&file)), (0o750, 0o640), "a command leaves the group what it may");
        tighten_all(&folder, modes(0o077), &mut changed);
        assert_eq!((mode(&folder), mode(&inner), mode(&file), changed), (0o700, 0o700, 0o600, 4));
        assert_eq!(mode(&elsewhere), 0o644, "links are not followed");
        // Beside PostgreSQL there is no database in the folder.
        for (key, expected) in [("lock", 0o755), ("head.key", 0o700)] {
            fs::write(home.path().join(key), "x").unwrap();
            set_mode(&home.path().join(key), 0o644).unwrap();
            set_mode(home.path(), 0o755).unwrap();
            tighten_folder(home.path(), modes(0o077));
            assert_eq!((mode(&home.path().join(key)), mode(home.path())), (0o600, expected), "{key}");
        }
        set_mode(home.path(), 0o700).unwrap();
        tighten_all(&home.path().join("nothing"), modes(0o077), &mut changed);
        assert_eq!(changed, 4);
        let archive = home.path().join("archives/sealed-1.h5");
        fs::create_dir_all(home.path().join("archives")).unwrap();
        fs::write(&archive, "x").unwrap();
        set_mode(&archive, 0o640).unwrap();
        tighten_all(&home.path().join("archives"), modes(0o027), &mut changed);
        assert_eq!(mode(&archive), 0o440, "archives are written once");
    }
}
