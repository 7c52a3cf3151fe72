//! The open loop: each request is sent at its scheduled time, whatever happened to earlier ones.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Control, EndReason, Limits, LoadError, Report, Request, Schedule, Target,
    client::Client,
    generator::run_on_own_thread,
    precise_sleep::PreciseTimer,
    report::{LoadKind, RunCounts},
    schedule::check_duration,
    stats::{Dispatch, GroupStats, LoadContext},
};

/// Delay before the first request, which would otherwise be late.
const START_DELAY: Duration = Duration::from_millis(5);

/// Configuration of an open loop.
#[derive(Debug, Clone)]
pub struct OpenLoop {
    /// The server.
    pub target: Target,
    /// Requests to send, selected by the schedule.
    pub requests: Arc<[Request]>,
    /// Times of the requests.
    pub schedule: Schedule,
    /// Period at the start whose requests are sent but not counted.
    pub warm_up: Duration,
    /// Limits.
    pub limits: Limits,
}

/// Runs an open loop until all requests have ended, at the latest `limits.timeout` after the last one was sent, or
/// until `control` stops it.
///
/// Latency is measured from the scheduled time of a request. The generator runs on a thread of its own; dropping the
/// future stops it.
pub async fn open_loop(config: OpenLoop, control: Control) -> Result<Report, LoadError> {
    Ok(open_loop_in_groups(config, Arc::default(), control).await?.0)
}

/// Runs an open loop and returns statistics of request groups as well: `groups` has the group of each request.
pub(crate) async fn open_loop_in_groups(
    config: OpenLoop,
    groups: Arc<[usize]>,
    control: Control,
) -> Result<(Report, Vec<GroupStats>), LoadError> {
    config.schedule.check_bounds()?;
    config.limits.check_bounds()?;
    check_duration("the warm-up", config.warm_up)?;
    check_requests(&config)?;
    let url = config.target.url().to_owned();
    let handle = control.clone();
    let mut finished = run_on_own_thread(&control, move || run_schedule(config, groups, handle)).await?;
    let counted = std::mem::take(&mut finished.outcome.stats.groups);
    Ok((Report::new(LoadKind::Open, url, finished), counted))
}

/// Checks the request numbers of the schedule before anything is sent.
fn check_requests(config: &OpenLoop) -> Result<(), LoadError> {
    let numbers = match &config.schedule {
        Schedule::At(arrivals) => arrivals.iter().map(|(_, request)| *request).max(),
        _ => Some(0),
    };
    if numbers.is_some_and(|number| number >= config.requests.len()) {
        return Err(LoadError::Generator("the schedule refers to a request that does not exist".to_owned()));
    }
    Ok(())
}

async fn run_schedule(config: OpenLoop, groups: Arc<[usize]>, control: Control) -> Result<RunCounts, LoadError> {
    let failed = |error: std::io::Error| LoadError::Generator(format!("cannot create a timer: {error}"));
    let timer = PreciseTimer::new().map_err(failed)?;
    let context = LoadContext::new(Client::new(config.target.clone(), config.limits.timeout), control.clone());
    let mut tasks = JoinSet::new();
    let began = Instant::now() + START_DELAY;
    let mut arrived = ArrivalCounts::default();
    let mut arrivals = config.schedule.arrival_times(config.requests.len());
    let ended = loop {
        if arrived.all == config.limits.requests {
            break EndReason::Requests;
        }
        let Some((at, number)) = arrivals.next() else { break EndReason::Time };
        let due = began + at;
        tokio::select! {
            biased;
            () = control.wait_until_stopped() => break EndReason::Stopped,
            woken = timer.sleep_until(due) => woken.map_err(failed)?,
        }
        while tasks.try_join_next().is_some() {}
        let is_counted = at >= config.warm_up;
        arrived.count_arrival(is_counted);
        if tasks.len() >= config.limits.in_flight {
            control.count_not_sent();
            arrived.over_limit += u64::from(is_counted);
            continue;
        }
        let (context, requests) = (context.clone(), Arc::clone(&config.requests));
        let dispatch = Dispatch { due: Some(due), counted: is_counted, group: groups.get(number).copied() };
        tasks.spawn(async move { context.send_and_count(&requests[number], dispatch).await });
        // A late generator must still let the other tasks run.
        tokio::task::yield_now().await;
    };
    let ended = tokio::select! {
        biased;
        () = join_all(&mut tasks) => ended,
        () = control.wait_until_stopped() => EndReason::Stopped,
    };
    tasks.shutdown().await;
    let counted_from = began + config.warm_up;
    // At a rate, the remaining number is not known.
    let left = match &config.schedule {
        Schedule::At(arrivals) => arrivals.len() as u64 - arrived.all,
        _ => 0,
    };
    Ok(RunCounts {
        planned: arrived.counted + left,
        over_limit: arrived.over_limit,
        left,
        ended,
        counted_from,
        connections: context.client.connections_opened(),
        stats: context.into_stats(),
    })
}

async fn join_all(tasks: &mut JoinSet<bool>) {
    while tasks.join_next().await.is_some() {}
}

/// Arrivals so far.
#[derive(Default)]
struct ArrivalCounts {
    all: u64,
    counted: u64,
    over_limit: u64,
}

impl ArrivalCounts {
    fn count_arrival(&mut self, is_counted: bool) {
        self.all += 1;
        self.counted += u64::from(is_counted);
    }
}
