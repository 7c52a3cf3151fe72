//! Trial of a model: it is loaded in a process of its own before the server loads it.
//!
//! Opening a file makes ONNX Runtime compute constants, expand functions and fill sparse tensors, and a warm-up runs what is
//! left. So a file of 300 bytes can take all memory or never end, and neither can be stopped from within a process. The
//! trial does all of it first, within bounds of memory and time that the parent process watches. What has passed is noted
//! on disk, and is not tried again while files and settings stay the same.

mod passed;
mod process;

use std::{
    borrow::Cow,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use self::process::Ended;
pub use self::{passed::Known, process::confine};
use crate::{Defaults, ModelError};
use caudal_engine::{
    Provider,
    repository::{FolderError, ModelFolder, ModelSettings},
};

/// How many times its files a model may take while it is loaded: they are read, parsed, copied, converted to another type
/// and packed.
const TIMES_FILES: u64 = 8;

/// What a process takes that loads a model of no size.
const PROCESS: u64 = 64 << 20;

/// Least memory that is allowed beside the model's files: activations of a warm-up count, and no other limit knows them.
const LEAST: u64 = 256 << 20;

/// Bytes of files that are read in a second at least.
const READ_RATE: u64 = 16 << 20;

/// Loads models in a process of their own first.
pub struct Trial {
    /// The program that does it and its first arguments. Flags follow: `--repository`, `--model`, `--parent`, `--run-limit-ms`,
    /// and `--instances`, `--threads`, `--max-batch-size` where they are set. It calls [`confine`] first, and exits with 0 if
    /// the model loads, else with 1 and what [`failure`] gives on its standard output.
    pub command: Vec<OsString>,
    /// What decides beside files and settings how a model loads, such as the backend's library.
    pub about: Vec<u8>,
    /// The folder of notes of what has passed.
    pub notes: PathBuf,
    /// What has passed since this process began: nothing at first.
    pub known: Known,
    /// Memory that a load may take beside 8 times the model's files; half of what is free where none.
    pub memory: Option<u64>,
    /// Time that it may take, and a second more for each 16 MiB of the files.
    pub time: Duration,
    /// Memory that is free on this machine, as far as the kernel tells.
    pub free: Box<dyn Fn() -> Option<u64> + Send + Sync>,
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("command", &self.command).field("time", &self.time).finish_non_exhaustive()
    }
}

/// Why a model is not loaded after its trial.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// It took too much memory.
    #[error("the model {model} was not loaded: loading it takes more than {} MiB of memory", .limit >> 20)]
    Memory {
        /// The model.
        model: String,
        /// Bytes that it may take.
        limit: u64,
    },
    /// It took too long.
    #[error("the model {model} was not loaded: loading it takes longer than {} s", .limit.as_secs_f64())]
    Time {
        /// The model.
        model: String,
        /// How long it may take.
        limit: Duration,
    },
    /// It ended its process.
    #[error("the model {model} was not loaded: the process that tried to load it ended with {status}")]
    Crashed {
        /// The model.
        model: String,
        /// How the process ended.
        status: ExitStatus,
    },
    /// It cannot be loaded.
    #[error("{reason}")]
    Failed {
        /// Why.
        reason: String,
        /// Why, if callers may know it: other reasons name files.
        for_callers: Option<String>,
        /// What to do.
        hint: String,
    },
}

impl TrialError {
    /// What to do.
    pub fn hint(&self) -> Cow<'static, str> {
        match self {
            Self::Memory { .. } => {
                "check the export for constants that grow when they are computed, as by ConstantOfShape, Expand or Tile; if \
                 it needs so much, raise model_load_memory_mb, and model_memory_mb where it is set"
            }
            Self::Time { .. } => {
                "check the export for constants that take long to compute; if it is only slow, raise model_load_timeout_secs"
            }
            Self::Crashed { .. } => {
                "export the model again: it makes ONNX Runtime fail, or the kernel ended the process for want of memory"
            }
            Self::Failed { hint, .. } => return hint.clone().into(),
        }
        .into()
    }
}

/// What the process of a trial is to load, and how.
struct Order {
    repository: PathBuf,
    model: String,
    /// The process that waits for it.
    parent: u32,
    instances: Option<usize>,
    threads: Option<usize>,
    max_batch_size: Option<usize>,
    run_limit: Duration,
}

impl Order {
    fn new(folder: &ModelFolder, defaults: &Defaults) -> Self {
        Self {
            repository: folder.path.parent().unwrap_or(Path::new("")).to_owned(),
            model: folder.name.clone(),
            parent: std::process::id(),
            instances: defaults.instances,
            threads: defaults.threads,
            max_batch_size: defaults.max_batch_size,
            run_limit: defaults.run_limit,
        }
    }

    /// The arguments of the process.
    fn words(&self) -> Vec<OsString> {
        let mut words = vec![
            "--repository".into(),
            self.repository.clone().into_os_string(),
            "--model".into(),
            self.model.clone().into(),
        ];
        let counts =
            [("--instances", self.instances), ("--threads", self.threads), ("--max-batch-size", self.max_batch_size)];
        let counts = counts.into_iter().filter_map(|(flag, count)| Some((flag, count?.to_string())));
        let others =
            [("--parent", self.parent.to_string()), ("--run-limit-ms", self.run_limit.as_millis().max(1).to_string())];
        for (flag, value) in counts.chain(others) {
            words.extend([flag.into(), value.into()]);
        }
        words
    }
}

/// Bounds of one trial.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    memory: u64,
    time: Duration,
}

impl Trial {
    /// Tries to load the model in `folder` as `defaults` say; models may hold `most` bytes in all.
    pub(crate) fn check(&self, folder: &ModelFolder, defaults: &Defaults, most: Option<u64>) -> Result<(), ModelError> {
        let settings = folder.read_settings().map_err(FolderError::from)?;
        let version = folder.serving_version(&settings)?;
        let bounds = self.bounds(folder.weights(&version)?, most);
        let files = folder.files(&version)?;
        let (looks, digest) = self.digests(&files, folder, defaults);
        let passed = |peak: u64| peak <= bounds.memory;
        if self.known.peak(&looks).is_some_and(passed) {
            return Ok(());
        }
        // Files are read: that takes a moment, so it is not done at each load.
        let digest = digest();
        if let Some(peak) = passed::peak(&self.notes, &digest).filter(|peak| passed(*peak)) {
            self.known.note(looks, peak);
            return Ok(());
        }
        let (ended, peak) = match process::run(&self.command, &Order::new(folder, defaults).words(), bounds) {
            Ok(run) => run,
            Err(error) => {
                tracing::warn!(model = folder.name, %error, "a model is loaded without a trial: no process could be started");
                return Ok(());
            }
        };
        self.judge(folder, &settings, defaults, (ended, bounds))?;
        passed::note(&self.notes, &digest, peak);
        self.known.note(looks, peak);
        Ok(())
    }

    fn judge(
        &self,
        folder: &ModelFolder,
        settings: &ModelSettings,
        defaults: &Defaults,
        (ended, bounds): (Ended, Bounds),
    ) -> Result<(), ModelError> {
        let model = folder.name.clone();
        let (status, said) = match ended {
            Ended::Memory => return Err(TrialError::Memory { model, limit: bounds.memory }.into()),
            Ended::Time => return Err(TrialError::Time { model, limit: bounds.time }.into()),
            Ended::Exited(status, said) => (status, said),
        };
        match (status.code(), read_failure(&said)) {
            (Some(0), _) => Ok(()),
            (Some(1), Some(failed)) => {
                let providers = settings.providers.as_deref().unwrap_or(&defaults.providers);
                match providers.iter().all(|provider| *provider == Provider::Cpu) {
                    true => Err(failed.into()),
                    // A trial runs on the processor, and the model may be for a provider that has more operators.
                    false => Ok(()),
                }
            }
            _ => Err(TrialError::Crashed { model, status }.into()),
        }
    }

    fn bounds(&self, files: u64, most: Option<u64>) -> Bounds {
        let free = (self.free)();
        let own = files.saturating_mul(TIMES_FILES).saturating_add(PROCESS);
        let allowed = self.memory.or(free.map(|free| free / 2)).unwrap_or(u64::MAX);
        let allowed = most.map_or(allowed, |most| allowed.min(most)).max(self.memory.unwrap_or(LEAST).min(LEAST));
        // The kernel should find the server's memory as it was, whatever the model's files are.
        let left = free.filter(|_| self.memory.is_none()).map_or(u64::MAX, |free| free - free / 16);
        Bounds {
            memory: own.saturating_add(allowed).min(left.max(LEAST)),
            time: self.time + Duration::from_secs(files / READ_RATE),
        }
    }

    /// Digests of all that decides how the model loads whose `files` these are: by how they look, and by their content, once
    /// that is asked for.
    fn digests<'a>(
        &self,
        files: &'a [PathBuf],
        folder: &'a ModelFolder,
        defaults: &Defaults,
    ) -> (String, impl FnOnce() -> String + use<'a>) {
        let Order { instances, threads, max_batch_size, run_limit, .. } = Order::new(folder, defaults);
        let asked = format!("{instances:?} {threads:?} {max_batch_size:?} {run_limit:?} {}", defaults.cpus.cpus);
        let about = [env!("CARGO_PKG_VERSION").as_bytes(), &self.about, asked.as_bytes()].concat();
        let looks = passed::digest(&about, &folder.path, files, passed::looks);
        (looks, move || passed::digest(&about, &folder.path, files, passed::content))
    }
}

/// The text that the process of a trial writes to its standard output if the model cannot be loaded: the reason, what to
/// do, and the reason for callers, which is empty if they may not know it.
pub fn failure(reason: &str, hint: &str, for_callers: Option<&str>) -> String {
    /// So much is read in any case.
    const MOST: usize = 4096;
    let part = |text: &str| text.chars().filter(|letter| *letter != '\0').take(MOST).collect::<String>();
    [part(reason), part(hint), part(for_callers.unwrap_or_default())].join("\0")
}

/// Reads what [`failure`] wrote.
fn read_failure(said: &str) -> Option<TrialError> {
    let mut parts = said.split('\0').map(str::to_owned);
    let (reason, hint) = (parts.next()?, parts.next()?);
    Some(TrialError::Failed { reason, hint, for_callers: parts.next().filter(|reason| !reason.is_empty()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use caudal_engine::repository::Repository;
    use caudal_testkit::Repo;
    use caudal_types::CpuPlan;

    fn defaults() -> Defaults {
        Defaults {
            cpus: CpuPlan::for_cpus(2),
            providers: vec![Provider::Cpu],
            instances: None,
            threads: None,
            max_batch_size: Some(4),
            max_queue_delay: Duration::ZERO,
            max_queue_size: 1,
            max_queue_bytes: 1,
            run_limit: Duration::from_secs(30),
        }
    }

    /// A trial whose process runs `script`.
    fn trial(notes: &Path, script: &str) -> Trial {
        Trial {
            command: ["sh", "-c", script, "sh"].map(OsString::from).into(),
            about: b"library".to_vec(),
            notes: notes.to_owned(),
            known: Known::default(),
            memory: Some(0),
            time: Duration::from_secs(60),
            free: Box::new(|| None),
        }
    }

    fn check(trial: &Trial, repo: &Repo, defaults: &Defaults) -> Result<(), String> {
        let folder = Repository::open(&repo.path("")).unwrap().list_models().unwrap().remove(0);
        trial.check(&folder, defaults, None).map_err(|error| error.to_string())
    }

    #[test]
    fn memory_time_and_crashes_end_a_trial() {
        let repo = Repo::new().model("m", "double", "");
        let ended = |script: &str, time: Duration| {
            let trial = Trial { time, ..trial(&repo.path("notes"), script) };
            check(&trial, &repo, &defaults()).unwrap_err()
        };
        let long = Duration::from_secs(60);
        assert!(
            ended("exec tail /dev/zero", long).contains("more than 64 MiB of memory"),
            "tail keeps a line in memory"
        );
        assert!(ended("exec sleep 60", Duration::from_millis(50)).contains("longer than 0.05 s"));
        assert!(ended("kill -SEGV $$", long).contains("signal: 11"));
        assert!(ended("exit 1", long).contains("exit status: 1"), "one that does not tell why has not tried");
        assert_eq!(ended(r"printf 'no graph\0export it'; exit 1", long), "no graph");
    }

    #[test]
    fn what_passed_is_tried_again_when_files_or_settings_change() {
        let repo = Repo::new().model("m", "double", "");
        let notes = repo.path(".notes");
        let count = repo.path(".count");
        let trial = trial(&notes, &format!("echo \"$@\" >> {}", count.display()));
        let tries = || std::fs::read_to_string(&count).unwrap().lines().count();
        for _ in 0..2 {
            check(&trial, &repo, &defaults()).unwrap();
            assert_eq!(tries(), 1);
        }
        let said = std::fs::read_to_string(&count).unwrap();
        assert!(said.contains("--model m --max-batch-size 4 --parent"), "{said}");
        let others = Defaults { threads: Some(2), ..defaults() };
        check(&trial, &repo, &others).unwrap();
        assert_eq!(tries(), 2, "other settings of the server");
        let repo = repo.file("m/model.yaml", b"threads: 1");
        check(&trial, &repo, &defaults()).unwrap();
        assert_eq!(tries(), 3, "other settings of the model");
        let repo = repo.model("m", "triple", "threads: 1");
        check(&trial, &repo, &defaults()).unwrap();
        check(&trial, &repo, &defaults()).unwrap();
        assert_eq!(tries(), 4, "another file");
    }

    #[test]
    fn failure_of_a_trial_decides_only_for_models_of_the_processor() {
        let repo = Repo::new().model("m", "double", "");
        let trial = trial(&repo.path("notes"), r"printf 'no kernel\0use a GPU'; exit 1");
        check(&trial, &repo, &defaults()).unwrap_err();
        let card = Defaults { providers: vec![Provider::Cuda, Provider::Cpu], ..defaults() };
        check(&trial, &repo, &card).unwrap();
    }

    #[test]
    fn bounds_grow_with_files_and_keep_to_what_is_free() {
        let bounds = |memory: Option<u64>, free: Option<u64>, files: u64, most: Option<u64>| {
            let trial = Trial { memory, free: Box::new(move || free), ..trial(Path::new(""), "") };
            trial.bounds(files, most).memory >> 20
        };
        const GIB: u64 = 1 << 30;
        assert_eq!(bounds(None, Some(16 * GIB), 0, None), 64 + 8 * 1024, "half of what is free");
        assert_eq!(bounds(None, Some(16 * GIB), GIB, None), 15 * 1024, "never all of it");
        assert_eq!(bounds(None, Some(16 * GIB), 0, Some(200 << 20)), 64 + 256, "what models may hold bounds it too");
        assert_eq!(bounds(None, Some(0), 0, None), 256, "a small model loads wherever a server runs");
        assert_eq!(bounds(Some(GIB), Some(16 * GIB), GIB, None), 64 + 9 * 1024);
        assert_eq!(bounds(Some(GIB), None, 0, Some(4 * GIB)), 64 + 1024);
        let trial = trial(Path::new(""), "");
        assert_eq!(trial.bounds(160 << 20, None).time, Duration::from_secs(70));
    }
}
