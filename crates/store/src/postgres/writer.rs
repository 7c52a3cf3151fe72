//! A task that writes for its share of the streams. While the database flushes one group, the next gathers.

use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tokio::{sync::mpsc, time::timeout};

use super::{Shared, fault::Trouble, group, pool, seal};
use crate::{
    clock::Clock,
    error::StoreError,
    jobs::{Done, Group, Job, Jobs, Pace, Waiting},
};

/// How often a group is tried that was certainly not committed: others were in its way.
const TRIES: u32 = 5;
/// How long a group may take in all. The database's own limits are shorter: this is for one that does not answer.
const PATIENCE: Duration = Duration::from_secs(35);
/// A connection that was idle for longer is tried before it is used.
const IDLE: Duration = Duration::from_secs(1);
/// How long that may take.
const PING: Duration = Duration::from_secs(5);

/// What came of each job of a group. An error in place of all is of the group, of which nothing was done then, or, if the
/// database went away in the middle of it, perhaps all.
pub(super) type Outcomes = Vec<Result<Done, StoreError>>;

pub(super) struct Writer {
    shared: Shared,
    clock: Clock,
    pre_ping: bool,
    /// Kept from one group to the next.
    connection: Option<(Object, Instant)>,
    /// Why there was no connection for the last group.
    without: Option<StoreError>,
}

impl Writer {
    pub(super) fn new(shared: Shared, clock: Clock, pre_ping: bool) -> Self {
        Self { shared, clock, pre_ping, connection: None, without: None }
    }

    pub(super) async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Waiting>) {
        let mut pace = Pace::default();
        while let Some(first) = asked.recv().await {
            let (mut group, start) = (Group::of(first, &mut asked), Instant::now());
            // The runtime's clock is too coarse to sleep by.
            while pace.waits(&group, start) {
                tokio::task::yield_now().await;
                group.fill(&mut asked);
            }
            let (bytes, group, start) = (group.bytes(), group.jobs(), Instant::now());
            let count = group.len();
            self.write(group).await;
            // What came meanwhile has waited for the same connection.
            if let Some(error) = self.without.take() {
                while let Ok(waiting) = asked.try_recv() {
                    self.shared.gauges.job_failed(waiting.job(), &error);
                    waiting.fail(error.clone());
                }
            }
            pace = Pace::after(count, bytes, asked.len(), start.elapsed());
        }
    }

    /// Writes a group, and answers all who wait for it.
    async fn write(&mut self, group: Jobs) {
        let mut groups = vec![group];
        while let Some(mut group) = groups.pop() {
            if let Some(rest) = split(&mut group) {
                groups.push(rest);
            }
            let jobs: Vec<&Job> = group.iter().map(|(job, _)| job).collect();
            let start = Instant::now();
            match self.commit(&jobs).await {
                Ok(outcomes) => {
                    let records = jobs.iter().zip(&outcomes).filter_map(|(job, outcome)| job.appended(outcome));
                    self.shared.gauges.committed(records, start.elapsed());
                    for ((job, place), outcome) in group.into_iter().zip(outcomes) {
                        drop(place);
                        self.answer(job, outcome);
                    }
                }
                // One of them is at fault: the half that it is not in is written.
                Err(StoreError::Duplicate) if group.len() > 1 => {
                    let rest = group.split_off(group.len() / 2);
                    groups.extend([rest, group]);
                }
                Err(error) => {
                    self.shared.gauges.failed(&error);
                    if error != StoreError::Duplicate {
                        tracing::error!("what was to be recorded was not: {error}");
                    }
                    for (job, _) in group {
                        self.shared.gauges.job_failed(&job, &error);
                        job.fail(error.clone());
                    }
                }
            }
        }
    }

    fn answer(&self, job: Job, outcome: Result<Done, StoreError>) {
        match (job, outcome) {
            (job, Err(error)) => {
                self.shared.gauges.job_failed(&job, &error);
                job.fail(error);
            }
            (Job::Create(_, answer), Ok(Done::Created(stream))) => drop(answer.send(Ok(stream))),
            (Job::Append(append, answer), Ok(Done::Appended(appended))) => {
                if !appended.repeated {
                    self.shared.followers.tell(&append.stream, appended.last);
                }
                drop(answer.send(Ok(appended)));
            }
            (Job::Snapshot(_, _, _, answer), Ok(Done::Kept)) => drop(answer.send(Ok(()))),
            (Job::Seal(_, answer), Ok(Done::Kept)) => {
                self.shared.sealed.notify_one();
                drop(answer.send(Ok(())));
            }
            (job, Ok(_)) => job.fail(StoreError::Closed),
        }
    }

    /// Does all jobs in one transaction.
    async fn commit(&mut self, jobs: &[&Job]) -> Result<Outcomes, StoreError> {
        let mut patience = self.shared.connections.patience();
        for left in (0..TRIES).rev() {
            let start = Instant::now();
            let connection = match self.connected(patience).await {
                Ok(connection) => connection,
                Err(error) => {
                    self.without = Some(error.clone());
                    return Err(error);
                }
            };
            patience = patience.saturating_sub(start.elapsed());
            let start = Instant::now();
            let tried = timeout(PATIENCE, attempt(&connection, jobs, &self.clock)).await;
            self.shared.done("append", start);
            let trouble = match tried {
                Ok(Ok(outcomes)) => {
                    self.connection = Some((connection, Instant::now()));
                    return Ok(outcomes);
                }
                Ok(Err(trouble)) => trouble,
                Err(_) => {
                    pool::discard(connection);
                    return Err(StoreError::Unreachable(format!("no answer within {} s", PATIENCE.as_secs())));
                }
            };
            match connection.batch_execute("rollback").await {
                Ok(()) => self.connection = Some((connection, Instant::now())),
                Err(_) => pool::discard(connection),
            }
            if !trouble.again || left == 0 {
                return Err(trouble.error);
            }
        }
        Err(StoreError::Closed)
    }

    /// The connection that is kept, or another if it cannot be used any longer, within `time`.
    async fn connected(&mut self, time: Duration) -> Result<Object, StoreError> {
        let start = Instant::now();
        if let Some((connection, used)) = self.connection.take() {
            let tried = self.pre_ping && used.elapsed() > IDLE;
            if connection.is_closed() {
                pool::discard(connection);
            } else if self.shared.connections.is_old(&connection) {
                drop(connection);
            } else if !tried || matches!(timeout(PING.min(time / 2), connection.simple_query("")).await, Ok(Ok(_))) {
                return Ok(connection);
            } else {
                pool::discard(connection);
            }
        }
        self.shared.connections.get_within(time.saturating_sub(start.elapsed())).await
    }
}

/// Takes from `group` all behind what must stand alone.
fn split(group: &mut Jobs) -> Option<Jobs> {
    let place = group.iter().position(|(job, _)| matches!(job, Job::Seal(..)))?;
    let rest = group.split_off(place.max(1));
    (!rest.is_empty()).then_some(rest)
}

async fn attempt(connection: &Object, jobs: &[&Job], clock: &Clock) -> Result<Outcomes, Trouble> {
    match jobs {
        [Job::Seal(archive, _)] => Ok(vec![seal::seal(connection, archive).await?.map(|()| Done::Kept)]),
        jobs => group::attempt(connection, jobs, clock).await,
    }
}

/// A fault before anything was sent that could have been done.
pub(super) fn harmless(error: tokio_postgres::Error) -> Trouble {
    let closed = error.is_closed() || error.as_db_error().is_none();
    let trouble = Trouble::from(error);
    Trouble { again: trouble.again || closed, ..trouble }
}
