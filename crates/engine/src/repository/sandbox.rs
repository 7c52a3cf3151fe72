//! Nothing that a model names may lie outside its folder, and nothing but plain files is opened there.

use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path},
};

/// Longest text that is read: settings, class names.
const MAX_TEXT: u64 = 1 << 20;

/// A file that is not to be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// Not in the model's folder, perhaps through a link.
    #[error("it leads out of the model's folder")]
    Outside,
    /// A folder, a pipe, a device.
    #[error("it is not a plain file")]
    NotAFile,
    /// More than what it is read for can have.
    #[error("it is larger than {} MiB", .0 >> 20)]
    TooLarge(u64),
    /// Weights named by an absolute path or through `..`.
    #[error("the model keeps weights in {0:?}, which is outside its folder")]
    ExternalData(String),
    /// Weights that are not there, or not a plain file.
    #[error("the model keeps weights in {0:?}, which is not a readable file there")]
    Missing(String),
}

/// Why a file of a model was not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Forbidden(#[from] Forbidden),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl OpenError {
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Opens `file` for reading. Links are followed and must end within `folder`, at a plain file: opening a pipe would
/// wait for whoever writes to it.
pub(super) fn open(folder: &Path, file: &Path) -> Result<File, OpenError> {
    let real = file.canonicalize()?;
    if !real.starts_with(folder.canonicalize()?) {
        return Err(Forbidden::Outside.into());
    }
    if !real.is_file() {
        return Err(Forbidden::NotAFile.into());
    }
    Ok(File::open(real)?)
}

/// Reads `file`, which is opened as [`open`] does and has at most `limit` bytes.
pub(super) fn read(folder: &Path, file: &Path, limit: u64) -> Result<Vec<u8>, OpenError> {
    let mut bytes = Vec::new();
    open(folder, file)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(Forbidden::TooLarge(limit).into()) } else { Ok(bytes) }
}

/// Reads the text in `file`, which is opened as [`open`] does.
pub(super) fn read_text(folder: &Path, file: &Path) -> Result<String, OpenError> {
    let text = read(folder, file, MAX_TEXT)?;
    String::from_utf8(text).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8").into())
}

/// Checks that every file in `external`, named relative to `model`, truly lies within `folder`.
pub(super) fn check(folder: &Path, model: &Path, external: &[String]) -> Result<(), Forbidden> {
    let home = model.parent().unwrap_or(folder);
    for name in external {
        let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !plain {
            return Err(Forbidden::ExternalData(name.clone()));
        }
        open(folder, &home.join(name)).map_err(|error| match error {
            OpenError::Forbidden(Forbidden::Outside) => Forbidden::ExternalData(name.clone()),
            _ => Forbidden::Missing(name.clone()),
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command, sync::mpsc, thread, time::Duration};

    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            fs::create_dir_all(home.path().join("m/1")).unwrap();
            fs::write(home.path().join("m/1/model.onnx"), b"x").unwrap();
            fs::write(home.path().join("m/1/w.bin"), b"x").unwrap();
            fs::write(home.path().join("secret"), b"x").unwrap();
            Self(home)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn check(&self, external: &str) -> Result<(), Forbidden> {
            check(&self.path("m"), &self.path("m/1/model.onnx"), &[external.to_owned()])
        }
    }

    #[test]
    fn weights_beside_the_model_are_fine() {
        assert_eq!(Home::new().check("w.bin"), Ok(()));
        assert_eq!(Home::new().check("./w.bin"), Ok(()));
    }

    #[test]
    fn weights_elsewhere_are_not() {
        let home = Home::new();
        let absolute = home.path("secret").display().to_string();
        for name in ["../../secret", absolute.as_str(), "/etc/passwd"] {
            assert_eq!(home.check(name), Err(Forbidden::ExternalData(name.to_owned())));
        }
        symlink(home.path("secret"), home.path("m/1/link")).unwrap();
        assert_eq!(home.check("link"), Err(Forbidden::ExternalData("link".to_owned())));
        assert_eq!(home.check("nowhere"), Err(Forbidden::Missing("nowhere".to_owned())));
    }

    #[test]
    fn a_link_may_lead_to_files_inside_only() {
        let home = Home::new();
        let open = |name: &str| open(&home.path("m"), &home.path(name)).map(drop);
        fs::create_dir(home.path("m/2")).unwrap();
        symlink(home.path("m/1/model.onnx"), home.path("m/2/model.onnx")).unwrap();
        open("m/2/model.onnx").unwrap();
        symlink(home.path("secret"), home.path("m/2/out.onnx")).unwrap();
        for outside in ["m/2/out.onnx", "m/../secret", "secret"] {
            assert!(matches!(open(outside), Err(OpenError::Forbidden(Forbidden::Outside))), "{outside}");
        }
        symlink(home.path("m"), home.path("linked")).unwrap();
        super::open(&home.path("linked"), &home.path("linked/1/w.bin")).unwrap();
    }

    #[test]
    fn nothing_but_plain_files_is_opened() {
        let home = Home::new();
        let (pipe, folder) = (home.path("m/pipe"), home.path("m"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for file in [pipe, home.path("m/1")] {
            let (sender, receiver) = mpsc::channel();
            let folder = folder.clone();
            thread::spawn(move || sender.send(open(&folder, &file).map(drop)));
            let opened = receiver.recv_timeout(Duration::from_secs(5)).expect("it must not wait");
            assert!(matches!(opened, Err(OpenError::Forbidden(Forbidden::NotAFile))), "{opened:?}");
        }
        assert_eq!(home.check("../pipe"), Err(Forbidden::ExternalData("../pipe".to_owned())));
    }

    #[test]
    fn texts_have_an_end() {
        let home = Home::new();
        let read = |content: &[u8]| {
            fs::write(home.path("m/text"), content).unwrap();
            read_text(&home.path("m"), &home.path("m/text")).map_err(|error| error.to_string())
        };
        let longest = "x".repeat(MAX_TEXT as usize);
        assert_eq!(read(longest.as_bytes()), Ok(longest.clone()));
        assert_eq!(read(format!("{longest}x").as_bytes()), Err("it is larger than 1 MiB".to_owned()));
        assert_eq!(read(b"\xff"), Err("it is not UTF-8".to_owned()));
    }
}
