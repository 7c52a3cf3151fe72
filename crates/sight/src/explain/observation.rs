//! Observation: the figures of a server over an interval, without interpretation.

use std::collections::BTreeMap;

use caudal_types::{ErrorKind, Stage};

use crate::RequestRecord;

/// The figures of a server over an interval.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// Length of the interval in seconds.
    pub seconds: f64,
    /// Cores available to the server, by quota and affinity.
    pub cores: f64,
    /// Times of its threads, by role.
    pub threads: BTreeMap<ThreadRole, ThreadTimes>,
    /// Utilization of these cores by all programs of the machine, from 0 to 1.
    pub machine: f64,
    /// Share of the quota's periods in which the kernel throttled the server.
    pub throttled: f64,
    /// Share of the samples in which its memory was at the limit.
    pub short_of_memory: f64,
    /// Mean fill level of the memory reserved for uploads, from 0 to 1.
    pub uploads: f64,
    /// Mean fill level of the memory reserved for decoded images, from 0 to 1.
    pub pixels: f64,
    /// Connections and requests in progress.
    pub connections: ConnectionStats,
    /// Mean number of requests in progress at each stage.
    pub live: BTreeMap<Stage, f64>,
    /// Mean number of images that waited for a decode thread.
    pub decoding: f64,
    /// Its models.
    pub models: Vec<ModelStats>,
    /// Number of models loaded during the interval.
    pub loads: u64,
    /// Requests that ended during the interval; only the first of very many.
    pub requests: Vec<RequestRecord>,
    /// Number of requests that ended.
    pub ended: u64,
}

/// Role of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ThreadRole {
    /// Serves sockets.
    Io,
    /// Decodes and encodes images.
    Decode,
    /// Runs models, or is part of a run.
    Infer,
    /// Anything else.
    Other,
}

/// Times of threads, in seconds summed over all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ThreadTimes {
    /// Number of threads.
    pub threads: usize,
    /// On a core.
    pub cpu: f64,
    /// Ready to run, waiting for a core.
    pub ready: f64,
}

/// Figures of connections and of requests in progress.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ConnectionStats {
    /// Connections that were opened.
    pub opened: u64,
    /// Mean number of open connections.
    pub open: f64,
    /// Maximum number of open connections.
    pub max_open: usize,
    /// Mean number of requests in progress.
    pub in_progress: f64,
    /// Maximum number of requests in progress.
    pub max_in_progress: usize,
    /// Share of the time in which the most delayed io thread did not get to its next task.
    pub blocked: f64,
    /// The request timeout in seconds.
    pub timeout: f64,
}

/// Figures and settings of a model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelStats {
    /// Its name.
    pub name: String,
    /// Number of concurrent instances.
    pub instances: usize,
    /// Threads per run.
    pub threads: usize,
    /// Threads per run of the wide instance.
    pub wide: Option<usize>,
    /// Maximum number of rows per run.
    pub max_batch: usize,
    /// Whether rows of several requests may share a run.
    pub joined: bool,
    /// Whether runs are executed on the calling thread.
    pub in_place: bool,
    /// Time of a repeated run with one row, measured at load, in seconds; none if rows differ in length.
    pub warm: Option<f64>,
    /// Time of a run with two rows relative to two runs with one row, measured at load.
    pub pair: Option<f64>,
    /// The same for eight rows, if it was measured.
    pub eight: Option<f64>,
    /// Time that a free instance waits for more rows, in seconds.
    pub delay: f64,
    /// Maximum number of entries in the queue.
    pub queue_limit: usize,
    /// Mean number of waiting entries.
    pub waiting: f64,
    /// Mean number of busy instances.
    pub busy: f64,
    /// Number of runs.
    pub runs: u64,
    /// Number of rows in them.
    pub rows: u64,
    /// Total time of the runs, in seconds.
    pub run_seconds: f64,
}

impl ModelStats {
    /// Utilization of its instances, from 0 to 1.
    pub(crate) fn utilization(&self) -> f64 {
        self.busy / self.instances.max(1) as f64
    }

    /// Mean time of a run, in seconds.
    pub(crate) fn mean_run_seconds(&self) -> f64 {
        self.run_seconds / self.runs.max(1) as f64
    }

    /// Mean number of rows per run.
    pub(crate) fn mean_rows(&self) -> f64 {
        self.rows as f64 / self.runs.max(1) as f64
    }
}

impl Observation {
    pub(crate) fn thread_times(&self, role: ThreadRole) -> ThreadTimes {
        self.threads.get(&role).copied().unwrap_or_default()
    }

    /// Share of the cores' time that the server used.
    pub(crate) fn own_cpu_share(&self) -> f64 {
        self.threads.values().map(|spent| spent.cpu).sum::<f64>() / (self.seconds * self.cores)
    }

    /// Share of the cores' time that other programs used.
    pub(crate) fn other_cpu_share(&self) -> f64 {
        (self.machine - self.own_cpu_share()).max(0.0)
    }

    /// Share of the cores' time that was unused.
    pub(crate) fn idle_cpu_share(&self) -> f64 {
        (1.0 - self.machine.max(self.own_cpu_share())).clamp(0.0, 1.0)
    }

    /// Share of the time in which threads of `role` were runnable but had no core.
    pub(crate) fn cpu_wait_share(&self, role: ThreadRole) -> f64 {
        let ThreadTimes { cpu, ready, .. } = self.thread_times(role);
        if cpu + ready > 0.0 { ready / (cpu + ready) } else { 0.0 }
    }

    /// Utilization of the threads of `role`, on a core or waiting for one, from 0 to 1.
    pub(crate) fn thread_utilization(&self, role: ThreadRole) -> f64 {
        let ThreadTimes { threads, cpu, ready, .. } = self.thread_times(role);
        (cpu + ready) / (self.seconds * threads.max(1) as f64)
    }

    /// Requests without an error.
    pub(crate) fn answered_requests(&self) -> impl Iterator<Item = &RequestRecord> + Clone {
        self.requests.iter().filter(|record| record.error.is_none())
    }

    /// Share of the requests that ended with one of `errors`.
    pub(crate) fn failed_share(&self, errors: &[ErrorKind]) -> f64 {
        let lost =
            self.requests.iter().filter(|record| record.error.is_some_and(|error| errors.contains(&error))).count();
        lost as f64 / self.requests.len().max(1) as f64
    }

    /// Seconds that finished requests spent at `stage`, in total.
    pub(crate) fn stage_seconds(&self, stage: Stage) -> f64 {
        self.requests.iter().map(|record| record.stamps.spent(stage).as_secs_f64()).sum()
    }

    /// Seconds that unfinished requests spent at `stage`. Requests longer than the interval would be missed otherwise.
    pub(crate) fn unfinished_seconds(&self, stage: Stage) -> f64 {
        // Only some of very many requests are recorded; the same share of those in progress is counted.
        let part = self.requests.len() as f64 / self.ended.max(1) as f64;
        let part = if self.ended == 0 { 1.0 } else { part };
        let live = self.live.get(&stage).copied().unwrap_or(0.0) * self.seconds * part;
        let ended = self.stage_seconds(stage);
        // Requests in progress are sampled, so a small excess is chance.
        if live > 1.25 * ended + 0.02 * self.seconds { live - ended } else { 0.0 }
    }

    /// Seconds that finished requests took in total.
    pub(crate) fn total_seconds(&self) -> f64 {
        self.requests.iter().map(|record| record.stamps.total().as_secs_f64()).sum()
    }

    /// The quantile `q` of the time of successful requests, in seconds.
    pub(crate) fn latency_quantile(&self, q: f64) -> f64 {
        quantile(self.answered_requests().map(|record| record.stamps.total().as_secs_f64()).collect(), q)
    }
}

/// The value below which the share `q` of `values` lies; 0 without values.
pub(crate) fn quantile(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = ((values.len() as f64 * q).ceil() as usize).max(1) - 1;
    values.get(place).copied().unwrap_or(0.0)
}
