//! One run of ffmpeg or ffprobe: what it says is read within bounds, and it ends when it should.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, ExitStatus, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::MediaError,
    guard::Reach,
    workshop::{Program, Workshop},
};

/// How often a child is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// The longest line that is read.
const MOST_LINE: u64 = 1 << 20;
/// How much of what a child says on standard error is kept.
const MOST_SAID: usize = 4096;

/// One run.
pub(crate) struct Call<'a> {
    /// What it is for, as it should stand in an error.
    pub(crate) what: String,
    pub(crate) program: Program,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) reach: Reach,
    /// The folder in which it runs; ours when absent.
    pub(crate) folder: Option<&'a Path>,
    /// Whoever works beside it sets this when there is no use in going on.
    pub(crate) abort: Option<&'a AtomicBool>,
}

/// What a line of standard output meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Something came forward.
    Progress,
    /// Nothing new.
    Nothing,
    /// Enough is enough.
    TooMuch,
}

impl Call<'_> {
    /// Runs it; each line that it writes is handed to `hear`. Comes back with what it said on standard error.
    pub(crate) fn run(
        self,
        workshop: &Workshop,
        hear: &mut (dyn FnMut(&str) -> Heard + Send),
    ) -> Result<String, MediaError> {
        let mut command = workshop.command(self.program, &self.reach);
        // A group of its own: Ctrl-C is for us to hear, and to act upon in order.
        command.args(&self.arguments).process_group(0);
        if let Some(folder) = self.folder {
            command.current_dir(folder);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(MediaError::io(command.get_program()))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let beat = Beat::default();
        let (ended, said) = thread::scope(|scope| {
            scope.spawn(|| listen(stdout.expect("it is piped"), hear, &beat));
            let said = scope.spawn(|| excerpt(stderr.expect("it is piped")));
            let ended = self.watch(workshop, &mut child, &beat);
            (ended, said.join().unwrap_or_default())
        });
        self.judge(ended?, said, &beat)
    }

    /// Waits until the child is done, or there is a reason to end it.
    fn watch(&self, workshop: &Workshop, child: &mut Child, beat: &Beat) -> Result<ExitStatus, MediaError> {
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(error) => return Err(end(child, MediaError::Io { path: self.what.clone().into(), error })),
            }
            if workshop.stopped() || self.abort.is_some_and(|abort| abort.load(Ordering::Relaxed)) {
                return Err(end(child, MediaError::Stopped));
            }
            if beat.too_much.load(Ordering::Relaxed) {
                let _ = child.kill();
            }
            let stall = workshop.limits.stall;
            if beat.age() > stall {
                return Err(end(child, MediaError::Stalled { what: self.what.clone(), seconds: stall.as_secs() }));
            }
            thread::sleep(LOOK);
        }
    }

    fn judge(self, status: ExitStatus, said: String, beat: &Beat) -> Result<String, MediaError> {
        if beat.too_much.load(Ordering::Relaxed) {
            return Err(MediaError::TooMuch {
                file: self.what,
                found: "more packets".into(),
                most: "the limit".into(),
            });
        }
        match (status.success(), status.signal()) {
            (true, _) => Ok(said),
            (_, Some(signal)) => Err(MediaError::Killed { what: self.what, signal }),
            _ if said.contains("No space left on device") => Err(MediaError::DiskFull { what: self.what }),
            _ => Err(MediaError::Failed { what: self.what, said: brief(&said, status) }),
        }
    }
}

fn end(child: &mut Child, error: MediaError) -> MediaError {
    let _ = child.kill();
    let _ = child.wait();
    error
}

/// The last words, which are those that matter, on one line.
fn brief(said: &str, status: ExitStatus) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.is_empty() {
        true => status.to_string(),
        false => lines[lines.len().saturating_sub(3)..].join("; "),
    }
}

/// When something last came forward.
struct Beat {
    last: Mutex<Instant>,
    too_much: AtomicBool,
}

impl Default for Beat {
    fn default() -> Self {
        Self { last: Mutex::new(Instant::now()), too_much: AtomicBool::new(false) }
    }
}

impl Beat {
    fn age(&self) -> Duration {
        self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner).elapsed()
    }

    fn hear(&self, heard: Heard) {
        match heard {
            Heard::Progress => *self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now(),
            Heard::Nothing => {}
            Heard::TooMuch => self.too_much.store(true, Ordering::Relaxed),
        }
    }
}

fn listen(stdout: impl Read, hear: &mut (dyn FnMut(&str) -> Heard + Send), beat: &Beat) {
    let mut reader = BufReader::with_capacity(1 << 16, stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(MOST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => beat.hear(hear(String::from_utf8_lossy(&line).trim_end())),
        }
    }
}

/// The first and the last of what is said; all of it is read, so that nobody waits for us.
fn excerpt(mut stderr: impl Read) -> String {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stderr.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..length]);
        if kept.len() > 2 * MOST_SAID {
            kept.drain(MOST_SAID / 2..kept.len() - MOST_SAID / 2);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// What `ffmpeg -progress` writes: lines of `key=value`, one group each time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meter {
    /// Frames that are out.
    pub(crate) frames: u64,
    /// Microseconds of the film that are out.
    pub(crate) micros: i64,
    bytes: u64,
}

impl Meter {
    /// Takes a line in, and says whether something came forward.
    pub(crate) fn hear(&mut self, line: &str) -> Heard {
        let before = *self;
        if let Some((key, value)) = line.split_once('=') {
            let value = value.trim();
            match key {
                "frame" => self.frames = value.parse().unwrap_or(self.frames),
                "out_time_us" => self.micros = value.parse().unwrap_or(self.micros),
                "total_size" => self.bytes = value.parse().unwrap_or(self.bytes),
                _ => {}
            }
        }
        if *self == before { Heard::Nothing } else { Heard::Progress }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_progress() {
        let mut meter = Meter::default();
        assert_eq!(meter.hear("frame=12"), Heard::Progress);
        assert_eq!(meter.hear("frame=12"), Heard::Nothing);
        assert_eq!(meter.hear("fps=0.00"), Heard::Nothing);
        assert_eq!(meter.hear("out_time_us=N/A"), Heard::Nothing);
        assert_eq!(meter.hear("out_time_us=480000"), Heard::Progress);
        assert_eq!((meter.frames, meter.micros), (12, 480_000));
    }

    #[test]
    fn what_is_said_without_end_is_kept_in_part() {
        let words = "first\n".to_owned() + &"noise\n".repeat(100_000) + "last\n";
        let kept = excerpt(words.as_bytes());
        assert!(kept.starts_with("first") && kept.ends_with("last\n") && kept.len() <= 3 * MOST_SAID, "{}", kept.len());
    }
}
