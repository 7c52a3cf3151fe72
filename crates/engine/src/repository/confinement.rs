//! Confinement to the model's folder: files that a model names must lie within it, and only regular files are opened.

use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path},
};

/// Maximum size of text files: settings, class names.
const MAX_TEXT_BYTES: u64 = 1 << 20;

/// The reason why a file must not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForbiddenFile {
    /// It lies outside the model's folder, perhaps through a link.
    #[error("it leads out of the model's folder")]
    Outside,
    /// It is a folder, a pipe or a device.
    #[error("it is not a plain file")]
    NotAFile,
    /// It exceeds the limit for its purpose.
    #[error("it is larger than {} MiB", .0 >> 20)]
    TooLarge(u64),
    /// Weights named by an absolute path or through `..`.
    #[error("the model keeps weights in {0:?}, which is outside its folder")]
    ExternalData(String),
    /// Weights that do not exist or are not a regular file.
    #[error("the model keeps weights in {0:?}, which is not a readable file there")]
    Missing(String),
}

/// The reason why a file of a model was not opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error(transparent)]
    Forbidden(#[from] ForbiddenFile),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl OpenError {
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Opens `file` for reading. Links are followed and must end within `folder` at a regular file, because opening a pipe
/// would block until it has a writer.
pub(super) fn open_within(folder: &Path, file: &Path) -> Result<File, OpenError> {
    let real = file.canonicalize()?;
    if !real.starts_with(folder.canonicalize()?) {
        return Err(ForbiddenFile::Outside.into());
    }
    if !real.is_file() {
        return Err(ForbiddenFile::NotAFile.into());
    }
    Ok(File::open(real)?)
}

/// Reads `file`, which is opened by [`open_within`] and has at most `limit` bytes.
pub(super) fn read_within(folder: &Path, file: &Path, limit: u64) -> Result<Vec<u8>, OpenError> {
    let mut bytes = Vec::new();
    open_within(folder, file)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(ForbiddenFile::TooLarge(limit).into()) } else { Ok(bytes) }
}

/// Reads the text in `file`, which is opened by [`open_within`].
pub(super) fn read_text(folder: &Path, file: &Path) -> Result<String, OpenError> {
    let text = read_within(folder, file, MAX_TEXT_BYTES)?;
    String::from_utf8(text).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8").into())
}

/// Checks that every file in `external`, named relative to `model`, lies within `folder` after links are resolved.
pub(super) fn check_external_files(folder: &Path, model: &Path, external: &[String]) -> Result<(), ForbiddenFile> {
    let home = model.parent().unwrap_or(folder);
    for name in external {
        let plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !plain {
            return Err(ForbiddenFile::ExternalData(name.clone()));
        }
        open_within(folder, &home.join(name)).map_err(|error| match error {
            OpenError::Forbidden(ForbiddenFile::Outside) => ForbiddenFile::ExternalData(name.clone()),
            _ => ForbiddenFile::Missing(name.clone()),
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

        fn check(&self, external: &str) -> Result<(), ForbiddenFile> {
            check_external_files(&self.path("m"), &self.path("m/1/model.onnx"), &[external.to_owned()])
        }
    }

    #[test]
    fn external_weights_in_folder_are_accepted() {
        assert_eq!(Home::new().check("w.bin"), Ok(()));
        assert_eq!(Home::new().check("./w.bin"), Ok(()));
    }

    #[test]
    fn external_weights_outside_folder_are_refused() {
        let home = Home::new();
        let absolute = home.path("secret").display().to_string();
        for name in ["../../secret", absolute.as_str(), "/etc/passwd"] {
            assert_eq!(home.check(name), Err(ForbiddenFile::ExternalData(name.to_owned())));
        }
        symlink(home.path("secret"), home.path("m/1/link")).unwrap();
        assert_eq!(home.check("link"), Err(ForbiddenFile::ExternalData("link".to_owned())));
        assert_eq!(home.check("nowhere"), Err(ForbiddenFile::Missing("nowhere".to_owned())));
    }

    #[test]
    fn links_must_end_inside_folder() {
        let home = Home::new();
        let open = |name: &str| open_within(&home.path("m"), &home.path(name)).map(drop);
        fs::create_dir(home.path("m/2")).unwrap();
        symlink(home.path("m/1/model.onnx"), home.path("m/2/model.onnx")).unwrap();
        open("m/2/model.onnx").unwrap();
        symlink(home.path("secret"), home.path("m/2/out.onnx")).unwrap();
        for outside in ["m/2/out.onnx", "m/../secret", "secret"] {
            assert!(matches!(open(outside), Err(OpenError::Forbidden(ForbiddenFile::Outside))), "{outside}");
        }
        symlink(home.path("m"), home.path("linked")).unwrap();
        super::open_within(&home.path("linked"), &home.path("linked/1/w.bin")).unwrap();
    }

    #[test]
    fn only_regular_files_are_opened() {
        let home = Home::new();
        let (pipe, folder) = (home.path("m/pipe"), home.path("m"));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for file in [pipe, home.path("m/1")] {
            let (sender, receiver) = mpsc::channel();
            let folder = folder.clone();
            thread::spawn(move || sender.send(open_within(&folder, &file).map(drop)));
            let opened = receiver.recv_timeout(Duration::from_secs(5)).expect("it must not wait");
            assert!(matches!(opened, Err(OpenError::Forbidden(ForbiddenFile::NotAFile))), "{opened:?}");
        }
        assert_eq!(home.check("../pipe"), Err(ForbiddenFile::ExternalData("../pipe".to_owned())));
    }

    #[test]
    fn text_files_are_limited_in_size() {
        let home = Home::new();
        let read = |content: &[u8]| {
            fs::write(home.path("m/text"), content).unwrap();
            read_text(&home.path("m"), &home.path("m/text")).map_err(|error| error.to_string())
        };
        let longest = "x".repeat(MAX_TEXT_BYTES as usize);
        assert_eq!(read(longest.as_bytes()), Ok(longest.clone()));
        assert_eq!(read(format!("{longest}x").as_bytes()), Err("it is larger than 1 MiB".to_owned()));
        assert_eq!(read(b"\xff"), Err("it is not UTF-8".to_owned()));
    }
}
