//! Load for tests: bounded in time and in connections, on loopback only.

use std::{
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::http::{Answer, Ask, Connection};

/// What became of one request.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Since the load began: when it should have been sent.
    pub planned: Duration,
    /// From then to its answer.
    pub took: Duration,
    /// The status; 0 where the connection failed.
    pub status: u16,
    /// What the server says it took.
    pub server_ms: f64,
    /// The code of an error, if it is one.
    pub code: String,
    /// What went wrong with the connection, if it did.
    pub failure: String,
}

/// How the load comes.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Connections that are open at once.
    pub connections: usize,
    /// For how long requests are sent.
    pub duration: Duration,
    /// Requests a second, whether or not earlier ones are answered; none sends each when the last is answered.
    pub rate: Option<f64>,
}

impl Load {
    /// Sends `ask` again and again; gives what became of each, in the order of the plan.
    pub fn run(&self, address: SocketAddr, ask: &Ask<'_>) -> Vec<Sample> {
        assert!(address.ip().is_loopback(), "load stays on this machine");
        let (samples, next, began) = (Mutex::new(Vec::new()), AtomicU64::new(0), Instant::now());
        thread::scope(|scope| {
            for _ in 0..self.connections {
                scope.spawn(|| {
                    let mut client = Client { address, connection: None };
                    let mut own = Vec::new();
                    while let Some(planned) = self.plan(&next, began) {
                        thread::sleep((began + planned).saturating_duration_since(Instant::now()));
                        own.push(client.sample(ask, began, planned));
                    }
                    samples.lock().unwrap().append(&mut own);
                });
            }
        });
        let mut samples = samples.into_inner().unwrap();
        samples.sort_by_key(|sample| sample.planned);
        samples
    }

    /// When the next request should be sent; none when the time is over.
    fn plan(&self, next: &AtomicU64, began: Instant) -> Option<Duration> {
        let planned = match self.rate {
            Some(rate) => Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / rate),
            None => began.elapsed(),
        };
        (planned < self.duration).then_some(planned)
    }
}

struct Client {
    address: SocketAddr,
    connection: Option<Connection>,
}

impl Client {
    fn sample(&mut self, ask: &Ask<'_>, began: Instant, planned: Duration) -> Sample {
        let answer = self.ask(ask);
        let mut sample = Sample {
            planned,
            took: began.elapsed().saturating_sub(planned),
            status: 0,
            server_ms: f64::NAN,
            code: String::new(),
            failure: String::new(),
        };
        match answer {
            Ok(answer) => {
                sample.status = answer.status;
                sample.server_ms = answer.header("x-process-time").trim_end_matches("ms").parse().unwrap_or(f64::NAN);
                if answer.status >= 400 && answer.header("content-type") == "application/json" {
                    sample.code = answer.code();
                }
                if answer.header("connection") == "close" {
                    self.connection = None;
                }
            }
            Err(error) => {
                sample.failure = error.to_string();
                self.connection = None;
            }
        }
        sample
    }

    fn ask(&mut self, ask: &Ask<'_>) -> std::io::Result<Answer> {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(self.address)?);
        }
        self.connection.as_mut().unwrap().ask(ask)
    }
}

/// The value below which the share `q` of `values` lies.
pub fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * q).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}
