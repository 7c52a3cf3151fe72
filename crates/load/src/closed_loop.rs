//! The closed loop: each connection sends its next request when it has received the last response.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Control, EndReason, Limits, LoadError, Report, Request, Target,
    client::Client,
    generator::{MAX_IN_FLIGHT, run_on_own_thread},
    report::{LoadKind, RunCounts},
    schedule::check_duration,
    stats::{Dispatch, LoadContext},
};

/// Delay of a connection after a request without a response, so that a server that is down is not flooded.
const DELAY_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Configuration of a closed loop.
#[derive(Debug, Clone)]
pub struct ClosedLoop {
    /// The server.
    pub target: Target,
    /// Requests to send, in turn.
    pub requests: Arc<[Request]>,
    /// Connections, each with one request at a time; at most 10,000.
    pub connections: usize,
    /// Period at the start whose requests are sent but not counted.
    pub warm_up: Duration,
    /// Period after the warm-up during which requests are sent.
    pub duration: Duration,
    /// Limits; `in_flight` is not used here.
    pub limits: Limits,
}

/// Runs a closed loop until its duration is over and the requests in flight have ended, or until `control` stops it.
///
/// Latency is measured from the moment at which a request is sent: if the server slows down, a closed loop sends less.
/// The generator runs on a thread of its own; dropping the future stops it.
pub async fn closed_loop(config: ClosedLoop, control: Control) -> Result<Report, LoadError> {
    config.limits.check_bounds()?;
    check_duration("the duration", config.duration)?;
    check_duration("the warm-up", config.warm_up)?;
    if config.connections == 0 || config.connections > MAX_IN_FLIGHT {
        let bounds = format!("between 1 and {MAX_IN_FLIGHT}");
        return Err(LoadError::out_of_bounds("the number of connections", config.connections, bounds));
    }
    if config.requests.is_empty() {
        return Err(LoadError::NothingToSend("there is no request".to_owned()));
    }
    let url = config.target.url().to_owned();
    let handle = control.clone();
    let finished = run_on_own_thread(&control, move || run_connections(config, handle)).await?;
    Ok(Report::new(LoadKind::Closed, url, finished))
}

async fn run_connections(config: ClosedLoop, control: Control) -> Result<RunCounts, LoadError> {
    let context = LoadContext::new(Client::new(config.target.clone(), config.limits.timeout), control.clone());
    let counted_from = Instant::now() + config.warm_up;
    let plan = Arc::new(ConnectionPlan {
        context: context.clone(),
        requests: config.requests,
        next: AtomicU64::new(0),
        max_requests: config.limits.requests,
        counted_from,
        end: counted_from + config.duration,
    });
    let mut connections: JoinSet<()> = (0..config.connections).map(|_| Arc::clone(&plan).run_connection()).collect();
    let stopped = tokio::select! {
        biased;
        () = async { while connections.join_next().await.is_some() {} } => false,
        () = control.wait_until_stopped() => true,
    };
    connections.shutdown().await;
    let ended = match stopped {
        true => EndReason::Stopped,
        false if plan.next.load(Relaxed) >= plan.max_requests => EndReason::Requests,
        false => EndReason::Time,
    };
    let stats = context.clone().into_stats();
    let connections = context.client.connections_opened();
    Ok(RunCounts { planned: stats.sent, over_limit: 0, left: 0, ended, counted_from, connections, stats })
}

/// State that the connections share.
struct ConnectionPlan {
    context: LoadContext,
    requests: Arc<[Request]>,
    next: AtomicU64,
    max_requests: u64,
    counted_from: Instant,
    end: Instant,
}

impl ConnectionPlan {
    /// Sends requests on one connection until the loop ends.
    async fn run_connection(self: Arc<Self>) {
        loop {
            let now = Instant::now();
            if now >= self.end || self.next.load(Relaxed) >= self.max_requests {
                return;
            }
            let number = self.next.fetch_add(1, Relaxed);
            let request = &self.requests[(number % self.requests.len() as u64) as usize];
            let dispatch = Dispatch { due: None, counted: now >= self.counted_from, group: None };
            if !self.context.send_and_count(request, dispatch).await {
                tokio::time::sleep(DELAY_AFTER_FAILURE).await;
            }
        }
    }
}
