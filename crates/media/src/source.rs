//! A film on disk that has been looked at: a regular file, of a kind that leads nowhere else.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    error::MediaError,
    limits::Limits,
    sniff::{Container, HEAD, sniff},
};

/// A film on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The file, without links.
    #[serde(skip)]
    pub path: PathBuf,
    /// The name by which it was given.
    pub file: String,
    /// What its first bytes say it is.
    #[serde(serialize_with = "by_demuxer")]
    pub container: Container,
    /// Its size.
    pub bytes: u64,
}

fn by_demuxer<S: serde::Serializer>(container: &Container, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(container.demuxer())
}

impl Source {
    /// Looks at the file that `name` is.
    ///
    /// # Errors
    /// If it is no regular file that can be read, larger than `limits` allow, or of no kind that is opened.
    pub fn open(name: &Path, limits: &Limits) -> Result<Self, MediaError> {
        let file = name.display().to_string();
        let unreadable = |reason: String| MediaError::Unreadable { file: file.clone(), reason };
        let path = fs::canonicalize(name).map_err(|error| unreadable(error.to_string()))?;
        let found = fs::metadata(&path).map_err(|error| unreadable(error.to_string()))?;
        // Opening a pipe would wait for somebody to write.
        if !found.is_file() {
            return Err(unreadable("it is no regular file".into()));
        }
        let bytes = found.len();
        if bytes > limits.bytes {
            return Err(MediaError::TooMuch {
                file,
                found: format!("{bytes} bytes"),
                most: format!("{} bytes", limits.bytes),
            });
        }
        let head = head(&path).map_err(|error| unreadable(error.to_string()))?;
        match sniff(&head) {
            Ok(container) => Ok(Self { path, file, container, bytes }),
            Err(found) => Err(MediaError::Refused { file, found }),
        }
    }

    /// The words that make ffmpeg or ffprobe read this file, by this reader, and nothing else.
    pub(crate) fn input(&self, limits: &Limits) -> Vec<OsString> {
        let mut words = safe_input(self.container.demuxer());
        words.extend(["-max_pixels".into(), limits.pixels.to_string().into()]);
        if self.container == Container::Mov {
            // Their defaults, said because everything hangs on them: tracks whose data lies in other files.
            words.extend(["-enable_drefs", "0", "-use_absolute_path", "0"].map(OsString::from));
        }
        words.extend(["-f".into(), self.container.demuxer().into(), "-i".into(), file_url(&self.path)]);
        words
    }
}

/// One protocol and these readers alone.
pub(crate) fn safe_input(demuxers: &str) -> Vec<OsString> {
    ["-protocol_whitelist", "file", "-format_whitelist", demuxers].map(OsString::from).into()
}

/// The name of a file that ffmpeg takes for nothing else: no option, no protocol, no pattern.
pub(crate) fn file_url(path: &Path) -> OsString {
    let mut url = OsString::from("file:");
    url.push(path);
    url
}

fn head(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| Source::open(&folder.path().join(name), &Limits::default());
        let fails = |name: &str, words: &str| {
            let said = open(name).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        };
        fs::write(folder.path().join("list.mp4"), "#EXTM3U\n").unwrap();
        fs::write(folder.path().join("-i"), b"\0\0\0\x20ftypisom").unwrap();
        fails("absent.mp4", "No such file");
        fails("", "no regular file");
        fails("list.mp4", "is a playlist");
        let film = open("-i").unwrap();
        assert_eq!(film.container, Container::Mov);
        let words = film.input(&Limits::default());
        assert!(words.last().unwrap().to_str().unwrap().starts_with("file:/"), "{words:?}");
        assert!(Source::open(Path::new("http://127.0.0.1/a.mp4"), &Limits::default()).is_err());
        assert!(Source::open(&folder.path().join("-i"), &Limits { bytes: 3, ..Limits::default() }).is_err());
    }
}
