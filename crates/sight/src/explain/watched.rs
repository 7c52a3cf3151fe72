//! What was seen of a server while somebody watched it: nothing but figures.

use std::collections::BTreeMap;

use caudal_types::{ErrorKind, Stage};

use crate::Kept;

/// A server, watched for a while.
#[derive(Debug, Clone, Default)]
pub struct Watched {
    /// For how long, in seconds.
    pub seconds: f64,
    /// Cores that it may use, by quota and affinity.
    pub cores: f64,
    /// Its threads, by what they are for.
    pub threads: BTreeMap<Role, Spent>,
    /// How busy these cores were with everything that runs on the machine, from 0 to 1.
    pub machine: f64,
    /// Part of the quota's periods in which the kernel held it back.
    pub throttled: f64,
    /// Part of the looks in which its memory was at the limit.
    pub short_of_memory: f64,
    /// How full the memory set aside for uploads was on average, from 0 to 1.
    pub uploads: f64,
    /// How full that for decoded pictures was.
    pub pixels: f64,
    /// The doors.
    pub doors: Doors,
    /// Requests in progress at each stage, on average.
    pub live: BTreeMap<Stage, f64>,
    /// What waited for a decode thread, on average.
    pub decoding: f64,
    /// Its models.
    pub models: Vec<ModelSeen>,
    /// Models that were loaded meanwhile.
    pub loads: u64,
    /// Requests that ended meanwhile; the first of them if there were very many.
    pub requests: Vec<Kept>,
    /// How many ended.
    pub ended: u64,
}

/// What a thread is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Talks to sockets.
    Io,
    /// Decodes and draws.
    Decode,
    /// Runs models, or helps to.
    Infer,
    /// Everything else.
    Other,
}

/// What threads did, in seconds of all of them together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spent {
    /// How many there are.
    pub threads: usize,
    /// On a core.
    pub cpu: f64,
    /// Ready to run, waiting for a core.
    pub ready: f64,
}

/// What the doors did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Doors {
    /// Connections that were opened.
    pub opened: u64,
    /// Open ones, on average.
    pub open: f64,
    /// Most that may be open.
    pub most_open: usize,
    /// Requests in progress, on average.
    pub working: f64,
    /// Most that may be.
    pub most_working: usize,
    /// Part of the time in which the most blocked of the threads that talk to sockets did not get to its next task.
    pub blocked: f64,
    /// How long requests may take, in seconds.
    pub timeout: f64,
}

/// What a model did, and what it keeps to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelSeen {
    /// Its name.
    pub name: String,
    /// Runs at once.
    pub instances: usize,
    /// Threads of a run.
    pub threads: usize,
    /// Threads of a run that has the machine to itself.
    pub wide: Option<usize>,
    /// Most rows of a run.
    pub max_batch: usize,
    /// Whether rows of several requests may share a run at all.
    pub joined: bool,
    /// Whether runs happen on the thread that brings them.
    pub in_place: bool,
    /// What a run of one row took again and again when it was loaded, in seconds; none of rows that differ.
    pub warm: Option<f64>,
    /// What a run of two rows took of what two runs of one did, when it was loaded.
    pub pair: Option<f64>,
    /// The same of eight rows, where that was worth a try.
    pub eight: Option<f64>,
    /// How long a free instance waits for more, in seconds.
    pub delay: f64,
    /// Most that may wait.
    pub queue_limit: usize,
    /// What waited, on average.
    pub waiting: f64,
    /// Instances that ran, on average.
    pub busy: f64,
    /// Runs.
    pub runs: u64,
    /// Rows in them.
    pub rows: u64,
    /// How long they took, in seconds of all together.
    pub ran: f64,
}

impl ModelSeen {
    /// How busy its instances were, from 0 to 1.
    pub(crate) fn load(&self) -> f64 {
        self.busy / self.instances.max(1) as f64
    }

    /// A run, in seconds.
    pub(crate) fn run(&self) -> f64 {
        self.ran / self.runs.max(1) as f64
    }

    /// Rows of a run.
    pub(crate) fn batch(&self) -> f64 {
        self.rows as f64 / self.runs.max(1) as f64
    }
}

impl Watched {
    pub(crate) fn role(&self, role: Role) -> Spent {
        self.threads.get(&role).copied().unwrap_or_default()
    }

    /// Its own part of the cores' time.
    pub(crate) fn own(&self) -> f64 {
        self.threads.values().map(|spent| spent.cpu).sum::<f64>() / (self.seconds * self.cores)
    }

    /// What others took of it.
    pub(crate) fn others(&self) -> f64 {
        (self.machine - self.own()).max(0.0)
    }

    /// What nobody took.
    pub(crate) fn idle(&self) -> f64 {
        (1.0 - self.machine.max(self.own())).clamp(0.0, 1.0)
    }

    /// Part of the time of those who wanted to run in which they got no core.
    pub(crate) fn stretched(&self, role: Role) -> f64 {
        let Spent { cpu, ready, .. } = self.role(role);
        if cpu + ready > 0.0 { ready / (cpu + ready) } else { 0.0 }
    }

    /// How busy the threads of `role` were: on a core, or waiting for one; from 0 to 1.
    pub(crate) fn busy(&self, role: Role) -> f64 {
        let Spent { threads, cpu, ready, .. } = self.role(role);
        (cpu + ready) / (self.seconds * threads.max(1) as f64)
    }

    /// Requests that were answered.
    pub(crate) fn answered(&self) -> impl Iterator<Item = &Kept> + Clone {
        self.requests.iter().filter(|kept| kept.error.is_none())
    }

    /// Part of the requests that ended with one of `errors`.
    pub(crate) fn lost(&self, errors: &[ErrorKind]) -> f64 {
        let lost = self.requests.iter().filter(|kept| kept.error.is_some_and(|error| errors.contains(&error))).count();
        lost as f64 / self.requests.len().max(1) as f64
    }

    /// Seconds that requests spent at `stage`, all together.
    pub(crate) fn spent(&self, stage: Stage) -> f64 {
        self.requests.iter().map(|kept| kept.stamps.spent(stage).as_secs_f64()).sum()
    }

    /// Seconds that requests which have not ended spent at `stage`: what takes longer than anybody watches would not be
    /// seen otherwise.
    pub(crate) fn unfinished(&self, stage: Stage) -> f64 {
        // Of very many requests only some are kept: in progress are the same part of all.
        let part = self.requests.len() as f64 / self.ended.max(1) as f64;
        let part = if self.ended == 0 { 1.0 } else { part };
        let live = self.live.get(&stage).copied().unwrap_or(0.0) * self.seconds * part;
        let ended = self.spent(stage);
        // It is looked at now and then: a little more than what ended is chance.
        if live > 1.25 * ended + 0.02 * self.seconds { live - ended } else { 0.0 }
    }

    /// Seconds that requests took, all together.
    pub(crate) fn whole(&self) -> f64 {
        self.requests.iter().map(|kept| kept.stamps.total().as_secs_f64()).sum()
    }

    /// Of requests that were answered, 95 of a hundred took at most so many seconds.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        quantile(self.answered().map(|kept| kept.stamps.total().as_secs_f64()).collect(), q)
    }
}

/// The value below which the part `q` of `values` lies; 0 where there are none.
pub(crate) fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = ((values.len() as f64 * q).ceil() as usize).max(1) - 1;
    values.get(place).copied().unwrap_or(0.0)
}
