//! Admin token: the credential of admin routes where no `admin_key` is set. The server makes it at its first start and writes
//! it into files of its user's alone, where the commands on the same machine find it by the server's port.

use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::OFlags,
    process::geteuid,
    rand::{GetRandomFlags, getrandom},
};

/// Name of the file in a data folder.
const IN_DATA: &str = "admin.token";
/// Bytes of randomness.
const BYTES: usize = 32;
/// Bits of a mode by which others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Bits of a mode by which others may do anything.
const OPEN_TO_OTHERS: u32 = 0o077;

/// The token of a server that runs, and the file in which commands find it.
#[derive(Debug)]
pub(crate) struct AdminToken {
    pub(crate) text: String,
    /// Where it is written; none where no folder could be written to.
    pub(crate) file: Option<PathBuf>,
    /// The file of this port, which goes with the server.
    by_port: Option<PathBuf>,
}

impl AdminToken {
    /// The token of the server that listens on `port`: of an earlier start if a file still holds it, else a new one.
    pub(crate) fn make(data_dir: Option<&Path>, port: u16) -> io::Result<Self> {
        let in_data = data_dir.map(|folder| folder.join(IN_DATA));
        let name = file_name(port);
        let mut earlier = in_data.iter().cloned().chain(run_folders().into_iter().map(|folder| folder.join(&name)));
        let known = match in_data {
            Some(_) => earlier.next().and_then(|file| read(&file, Owner::ThisUser)),
            None => earlier.find_map(|file| read(&file, Owner::ThisUser)),
        };
        let text = known.map_or_else(random, Ok)?;
        let in_data = in_data.filter(|file| write(file, &text).is_ok());
        let by_port =
            run_folders().into_iter().map(|folder| folder.join(&name)).find(|file| write(file, &text).is_ok());
        Ok(Self { text, file: by_port.clone().or(in_data), by_port })
    }
}

impl Drop for AdminToken {
    fn drop(&mut self) {
        if let Some(file) = &self.by_port {
            let _ = fs::remove_file(file);
        }
    }
}

/// The tokens that a server on `port` of this machine may have, the likeliest first.
pub(crate) fn find(port: u16) -> Vec<String> {
    let name = file_name(port);
    run_folders().into_iter().filter_map(|folder| read(&folder.join(&name), Owner::AnyForRoot)).collect()
}

/// True for a host name that means this machine: a token goes nowhere else.
pub(crate) fn is_here(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|host| host.to_canonical().is_loopback())
}

fn file_name(port: u16) -> String {
    format!("admin-{port}.token")
}

/// Folders for files of running processes, the best first: systemd's, the session's, one in the folder of temporary files.
fn run_folders() -> Vec<PathBuf> {
    let of_systemd = env::var_os("RUNTIME_DIRECTORY").and_then(|folders| env::split_paths(&folders).next());
    let of_session = env::var_os("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join("caudal"));
    let temporary = env::temp_dir().join(format!("caudal-{}", geteuid().as_raw()));
    let folders = [of_systemd, of_session, Some(temporary), Some(PathBuf::from("/run/caudal"))];
    folders.into_iter().flatten().filter(|folder| folder.is_absolute()).collect()
}

/// Whose token files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// This user's. A server takes no token over that another user wrote.
    ThisUser,
    /// This user's; root's commands find the tokens of all users' servers.
    AnyForRoot,
}

/// Reads a token, if the file is its owner's alone.
fn read(file: &Path, owner: Owner) -> Option<String> {
    // A pipe in its place would otherwise be waited for.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(file).ok()?;
    let meta = file.metadata().ok()?;
    let own = geteuid().as_raw();
    let is_owned = meta.uid() == own || own == 0 && owner == Owner::AnyForRoot;
    if !meta.is_file() || !is_owned || meta.mode() & OPEN_TO_OTHERS != 0 {
        return None;
    }
    let mut text = String::new();
    file.take(1024).read_to_string(&mut text).ok()?;
    let text = text.trim();
    (text.len() == 2 * BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| text.to_owned())
}

/// Writes a token into a file of this user's alone, in a folder that no other user can change.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let meta = fs::symlink_metadata(folder)?;
    if !meta.is_dir() || meta.uid() != geteuid().as_raw() || meta.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user can change the folder"));
    }
    let part = file.with_extension(format!("{}.part", std::process::id()));
    let _ = fs::remove_file(&part);
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).and_then(|mut out: File| {
        writeln!(out, "{text}")?;
        fs::rename(&part, file)
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

fn random() -> io::Result<String> {
    let mut bytes = [0; BYTES];
    let mut filled = 0;
    while filled < BYTES {
        filled += getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn token_written_is_read_again_and_belongs_to_its_user() {
        let home = tempfile::tempdir().unwrap();
        let (file, token) = (home.path().join("run/admin-1.token"), random().unwrap());
        assert_ne!(token, random().unwrap());
        write(&file, &token).unwrap();
        assert_eq!(read(&file, Owner::ThisUser), Some(token.clone()));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(file.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn token_others_can_read_or_place_is_not_used() {
        let home = tempfile::tempdir().unwrap();
        let (file, token) = (home.path().join("admin-1.token"), random().unwrap());
        write(&file, &token).unwrap();
        set_mode(&file, 0o644);
        assert_eq!(read(&file, Owner::ThisUser), None, "others may have read it");
        set_mode(&file, 0o600);
        let link = home.path().join("admin-2.token");
        symlink(&file, &link).unwrap();
        assert_eq!(read(&link, Owner::ThisUser), None, "a link leads elsewhere");
        fs::write(&file, "short").unwrap();
        assert_eq!(read(&file, Owner::ThisUser), None);
        set_mode(home.path(), 0o777);
        assert!(write(&file, &token).is_err(), "another user could replace it");
    }

    #[test]
    fn token_goes_to_this_machine_alone() {
        for here in ["localhost", "LOCALHOST", "127.0.0.1", "127.3.2.1", "[::1]", "::1"] {
            assert!(is_here(here), "{here}");
        }
        for elsewhere in ["localhost.example", "10.0.0.7", "caudal", "", "0.0.0.0"] {
            assert!(!is_here(elsewhere), "{elsewhere}");
        }
    }
}
