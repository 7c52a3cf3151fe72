//! The closed loop: each connection sends the next request when it has the last answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Control, Ended, Limits, LoadError, Report, Request, Target,
    client::Client,
    generator::{IN_FLIGHT, on_own_thread},
    report::{Counted, Kind},
    schedule::check_length,
    tally::{Order, Shared},
};

/// A connection waits so long after a request without an answer: a server that is gone is not hammered.
const PAUSE: Duration = Duration::from_millis(100);

/// A closed loop.
#[derive(Debug, Clone)]
pub struct ClosedLoop {
    /// The server.
    pub target: Target,
    /// What is sent, in turn.
    pub requests: Arc<[Request]>,
    /// Connections, each with one request at a time; at most 10,000.
    pub connections: usize,
    /// Requests within this time from the start are sent and not counted.
    pub warm_up: Duration,
    /// How long requests are sent after that.
    pub duration: Duration,
    /// Bounds; `in_flight` does not matter here.
    pub limits: Limits,
}

/// Sends a closed loop. It ends when its time is over and the requests that are under way have ended, or when `control`
/// stops it.
///
/// Latency counts from the moment at which a request is sent: where a server grows slow, a closed loop sends less. The
/// generator runs on a thread of its own; who drops the future stops it.
pub async fn closed_loop(config: ClosedLoop, control: Control) -> Result<Report, LoadError> {
    config.limits.check()?;
    check_length("the duration", config.duration)?;
    check_length("the warm-up", config.warm_up)?;
    if config.connections == 0 || config.connections > IN_FLIGHT {
        let bounds = format!("between 1 and {IN_FLIGHT}");
        return Err(LoadError::bounds("the number of connections", config.connections, bounds));
    }
    if config.requests.is_empty() {
        return Err(LoadError::NothingToSend("there is no request".to_owned()));
    }
    let url = config.target.url().to_owned();
    let hand = control.clone();
    let worked = on_own_thread(&control, move || run(config, hand)).await?;
    Ok(Report::new(Kind::Closed, url, worked))
}

async fn run(config: ClosedLoop, control: Control) -> Result<Counted, LoadError> {
    let shared = Shared::new(Client::new(config.target.clone(), config.limits.timeout), control.clone());
    let counted_from = Instant::now() + config.warm_up;
    let turns = Arc::new(Turns {
        shared: shared.clone(),
        requests: config.requests,
        next: AtomicU64::new(0),
        most: config.limits.requests,
        counted_from,
        end: counted_from + config.duration,
    });
    let mut connections: JoinSet<()> = (0..config.connections).map(|_| Arc::clone(&turns).all()).collect();
    let stopped = tokio::select! {
        biased;
        () = async { while connections.join_next().await.is_some() {} } => false,
        () = control.stopped() => true,
    };
    connections.shutdown().await;
    let ended = match stopped {
        true => Ended::Stopped,
        false if turns.next.load(Relaxed) >= turns.most => Ended::Requests,
        false => Ended::Time,
    };
    let tally = shared.clone().into_tally();
    let connections = shared.client.opened();
    Ok(Counted { planned: tally.sent, over_limit: 0, left: 0, ended, counted_from, connections, tally })
}

/// What the connections take turns in.
struct Turns {
    shared: Shared,
    requests: Arc<[Request]>,
    next: AtomicU64,
    most: u64,
    counted_from: Instant,
    end: Instant,
}

impl Turns {
    /// One connection from the start to the end.
    async fn all(self: Arc<Self>) {
        loop {
            let now = Instant::now();
            if now >= self.end || self.next.load(Relaxed) >= self.most {
                return;
            }
            let number = self.next.fetch_add(1, Relaxed);
            let request = &self.requests[(number % self.requests.len() as u64) as usize];
            let order = Order { due: None, counts: now >= self.counted_from, group: None };
            if !self.shared.send(request, order).await {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
