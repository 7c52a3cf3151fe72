//! Where films are worked on: the programs, the limits, who is told of progress, and who may stop it all.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::{
    error::MediaError,
    guard::{self, Reach},
    limits::Limits,
};

/// How far a piece of work is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// What is being done, in a word.
    pub doing: &'static str,
    /// Seconds of the film that are done.
    pub seconds: f64,
    /// Seconds of the whole film.
    pub of: f64,
    /// Frames that are done; 0 where they are not counted.
    pub frames: u64,
}

/// Who is told of progress.
pub type Told<'a> = dyn Fn(Progress) + Sync + 'a;

/// Where films are worked on.
pub struct Workshop<'a> {
    ffmpeg: PathBuf,
    ffprobe: PathBuf,
    /// What ffmpeg says its version is.
    pub version: String,
    guard: Option<Vec<OsString>>,
    /// What a film may be at most.
    pub limits: Limits,
    stop: &'a AtomicBool,
    pub(crate) told: &'a Told<'a>,
}

/// One of the two programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Ffmpeg,
    Ffprobe,
}

impl<'a> Workshop<'a> {
    /// The workshop with the ffmpeg of `PATH`.
    ///
    /// `guard` is a command that hands the words after it to [`guard::guard`]: children then die with us and see no
    /// files but theirs. Without it, ffmpeg runs as it is. All work ends soon after `stop` is set.
    ///
    /// # Errors
    /// [`MediaError::NoProgram`] and [`MediaError::TooOld`].
    pub fn open(
        guard: Option<Vec<OsString>>,
        limits: Limits,
        stop: &'a AtomicBool,
        told: &'a Told<'a>,
    ) -> Result<Self, MediaError> {
        let (ffmpeg, ffprobe) = (find("ffmpeg")?, find("ffprobe")?);
        let version = version(&ffmpeg)?;
        Ok(Self { ffmpeg, ffprobe, version, guard, limits, stop, told })
    }

    /// What people should know where the kernel does not keep ffmpeg to its files.
    pub(crate) fn unguarded(&self) -> Option<String> {
        let words = "this kernel has no Landlock: ffmpeg was kept to its files by its own options alone";
        (self.guard.is_some() && !guard::kernel_guards()).then(|| words.to_owned())
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn tell(&self, doing: &'static str, seconds: f64, of: f64, frames: u64) {
        (self.told)(Progress { doing, seconds, of, frames });
    }

    /// A command that runs `program` and lets it see what is within `reach`.
    pub(crate) fn command(&self, program: Program, reach: &Reach) -> Command {
        let file = match program {
            Program::Ffmpeg => &self.ffmpeg,
            Program::Ffprobe => &self.ffprobe,
        };
        let mut command = match &self.guard {
            Some(guard) => {
                let mut command = Command::new(&guard[0]);
                command.args(&guard[1..]).args(guard::words(reach, file));
                command
            }
            None => Command::new(file),
        };
        // What would make ffmpeg write a report into a file, or change what it says.
        command.env_remove("FFREPORT").env_remove("AV_LOG_FORCE_COLOR").env("AV_LOG_FORCE_NOCOLOR", "1");
        command
    }
}

fn find(name: &'static str) -> Result<PathBuf, MediaError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.and_then(|file| file.canonicalize().ok()).ok_or(MediaError::NoProgram(name))
}

fn version(ffmpeg: &Path) -> Result<String, MediaError> {
    let output = Command::new(ffmpeg).arg("-version").env_remove("FFREPORT").output();
    let output = output.map_err(MediaError::io(ffmpeg))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found =
        text.strip_prefix("ffmpeg version ").and_then(|rest| rest.split_whitespace().next()).unwrap_or("unknown");
    match numbers(found) {
        Some(numbers) if numbers < (5, 1) => Err(MediaError::TooOld { found: found.to_owned() }),
        _ => Ok(found.to_owned()),
    }
}

/// Major and minor; builds from a repository (`N-117…`) have none and are taken to be new.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    let mut parts = version.trim_start_matches('n').split('.');
    Some((digits(parts.next()?)?, parts.next().and_then(digits).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_kinds_are_read() {
        assert_eq!(numbers("5.1.9-0+deb12u1"), Some((5, 1)));
        assert_eq!(numbers("7.0.2-static"), Some((7, 0)));
        assert_eq!(numbers("n6.1"), Some((6, 1)));
        assert_eq!(numbers("8-full_build"), Some((8, 0)));
        assert_eq!(numbers("N-117000-gabc"), None);
        assert!(numbers("4.4.2-0ubuntu0.22.04.1") < Some((5, 1)));
    }
}
