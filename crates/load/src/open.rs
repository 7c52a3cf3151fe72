//! The open loop: each request is sent at its time, whatever became of those before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Control, Ended, Limits, LoadError, Report, Request, Schedule, Target,
    alarm::Alarm,
    client::Client,
    generator::on_own_thread,
    report::{Counted, Kind},
    schedule::check_length,
    tally::{Group, Order, Shared},
};

/// The first request is sent so long after the start, or it would be late already.
const HEAD_START: Duration = Duration::from_millis(5);

/// An open loop.
#[derive(Debug, Clone)]
pub struct OpenLoop {
    /// The server.
    pub target: Target,
    /// What is sent; the schedule says which when.
    pub requests: Arc<[Request]>,
    /// When.
    pub schedule: Schedule,
    /// Requests within this time from the start are sent and not counted.
    pub warm_up: Duration,
    /// Bounds.
    pub limits: Limits,
}

/// Sends an open loop. It ends when all requests have ended, at the latest `limits.timeout` after the last was sent; or
/// when `control` stops it.
///
/// Latency counts from the moment at which the schedule wanted a request sent. The generator runs on a thread of its own;
/// who drops the future stops it.
pub async fn open_loop(config: OpenLoop, control: Control) -> Result<Report, LoadError> {
    Ok(open_loop_in_groups(config, Arc::default(), control).await?.0)
}

/// The same, and what is counted of groups of requests: `groups` says the one of each request.
pub(crate) async fn open_loop_in_groups(
    config: OpenLoop,
    groups: Arc<[usize]>,
    control: Control,
) -> Result<(Report, Vec<Group>), LoadError> {
    config.schedule.check()?;
    config.limits.check()?;
    check_length("the warm-up", config.warm_up)?;
    check_requests(&config)?;
    let url = config.target.url().to_owned();
    let hand = control.clone();
    let mut worked = on_own_thread(&control, move || run(config, groups, hand)).await?;
    let counted = std::mem::take(&mut worked.outcome.tally.groups);
    Ok((Report::new(Kind::Open, url, worked), counted))
}

/// What would not fit is said before anything is sent.
fn check_requests(config: &OpenLoop) -> Result<(), LoadError> {
    let numbers = match &config.schedule {
        Schedule::At(arrivals) => arrivals.iter().map(|(_, request)| *request).max(),
        _ => Some(0),
    };
    if numbers.is_some_and(|number| number >= config.requests.len()) {
        return Err(LoadError::Generator("the schedule names a request that is not there".to_owned()));
    }
    Ok(())
}

async fn run(config: OpenLoop, groups: Arc<[usize]>, control: Control) -> Result<Counted, LoadError> {
    let failed = |error: std::io::Error| LoadError::Generator(format!("no timer: {error}"));
    let alarm = Alarm::new().map_err(failed)?;
    let shared = Shared::new(Client::new(config.target.clone(), config.limits.timeout), control.clone());
    let mut tasks = JoinSet::new();
    let began = Instant::now() + HEAD_START;
    let mut seen = Seen::default();
    let mut arrivals = config.schedule.arrivals(config.requests.len());
    let ended = loop {
        if seen.all == config.limits.requests {
            break Ended::Requests;
        }
        let Some((at, number)) = arrivals.next() else { break Ended::Time };
        let due = began + at;
        tokio::select! {
            biased;
            () = control.stopped() => break Ended::Stopped,
            rung = alarm.until(due) => rung.map_err(failed)?,
        }
        while tasks.try_join_next().is_some() {}
        let counts = at >= config.warm_up;
        seen.count(counts);
        if tasks.len() >= config.limits.in_flight {
            control.count_not_sent();
            seen.over_limit += u64::from(counts);
            continue;
        }
        let (shared, requests) = (shared.clone(), Arc::clone(&config.requests));
        let order = Order { due: Some(due), counts, group: groups.get(number).copied() };
        tasks.spawn(async move { shared.send(&requests[number], order).await });
        // Who is behind must still let the others work.
        tokio::task::yield_now().await;
    };
    let ended = tokio::select! {
        biased;
        () = all(&mut tasks) => ended,
        () = control.stopped() => Ended::Stopped,
    };
    tasks.shutdown().await;
    let counted_from = began + config.warm_up;
    // At a rate there is no saying what would have come.
    let left = match &config.schedule {
        Schedule::At(arrivals) => arrivals.len() as u64 - seen.all,
        _ => 0,
    };
    Ok(Counted {
        planned: seen.counted + left,
        over_limit: seen.over_limit,
        left,
        ended,
        counted_from,
        connections: shared.client.opened(),
        tally: shared.into_tally(),
    })
}

async fn all(tasks: &mut JoinSet<bool>) {
    while tasks.join_next().await.is_some() {}
}

/// Arrivals that have come.
#[derive(Default)]
struct Seen {
    all: u64,
    counted: u64,
    over_limit: u64,
}

impl Seen {
    fn count(&mut self, counts: bool) {
        self.all += 1;
        self.counted += u64::from(counts);
    }
}
