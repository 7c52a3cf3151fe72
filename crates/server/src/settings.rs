//! The limits of the doors, resolved.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use crate::{AccessSettings, Budgets, SlowRequests};

/// How models come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelControl {
    /// With the server.
    None,
    /// As the repository changes, which is looked at so often.
    Poll(Duration),
    /// When they are told to.
    Explicit,
}

/// How events are taken in.
#[derive(Debug, Clone)]
pub struct RecordSettings {
    /// Most bytes of one event.
    pub max_event: u64,
    /// What events say of where the clinic is.
    pub timezone: String,
}

/// Everything that the server keeps to.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Address and port where only who administers the server asks; none where that is the same socket.
    pub admin: Option<SocketAddr>,
    /// Threads that talk to sockets.
    pub io_threads: usize,
    /// Connections that the kernel keeps until they are accepted.
    pub backlog: u32,
    /// Largest body, in bytes.
    pub max_body_bytes: u64,
    /// Bytes that all bodies may hold at once.
    pub max_body_memory: u64,
    /// Most pictures in one request.
    pub max_images: usize,
    /// Whether one model that fails to load makes the whole server not ready.
    pub strict_readiness: bool,
    /// Requests worked on at once; more get 429.
    pub concurrency_limit: usize,
    /// Open connections; more wait in the backlog.
    pub max_connections: usize,
    /// Deadline of requests that name none.
    pub request_timeout: Duration,
    /// How long a head may take to arrive.
    pub header_timeout: Duration,
    /// How long a body may pause.
    pub body_timeout: Duration,
    /// How long a connection may be idle.
    pub keep_alive: Duration,
    /// How long shutting down may take before it is cut short.
    pub exit_timeout: Duration,
    /// Access control.
    pub access: AccessSettings,
    /// How models come and go.
    pub model_control: ModelControl,
    /// How memory is watched, and when new work is refused for want of it.
    pub memory: caudal_memory::Policy,
    /// How events are taken in.
    pub record: RecordSettings,
    /// Whether `/docs` and `/openapi.json` are served.
    pub api_docs_enabled: bool,
    /// Whether `/metrics` and `/api/kpis` are served.
    pub metrics_enabled: bool,
    /// Whether metrics are shown under Triton's names too.
    pub triton_metrics: bool,
    /// Which requests are logged as slow.
    pub slow_request: SlowRequests,
    /// How it looks at itself.
    pub profiling: Profiling,
    /// The buckets of key figures.
    pub kpi_bucket: Duration,
    /// How long they are kept.
    pub kpi_retention: Duration,
    /// Their window where nobody says another: one of [`WINDOWS`].
    pub kpi_window: &'static str,
}

/// Windows of key figures, by name.
pub const WINDOWS: [(&str, Duration); 5] = [
    ("1m", Duration::from_secs(60)),
    ("5m", Duration::from_secs(300)),
    ("15m", Duration::from_secs(900)),
    ("1h", Duration::from_secs(3600)),
    ("24h", Duration::from_secs(86_400)),
];

/// How a server looks at itself.
#[derive(Debug, Clone)]
pub struct Profiling {
    /// Whether it does.
    pub enabled: bool,
    /// A section that takes longer on average is a bottleneck.
    pub threshold: Duration,
    /// Where tables are written.
    pub folder: PathBuf,
    /// `json`, `csv` or `txt`.
    pub format: &'static str,
    /// How long a span of the history is.
    pub span: Duration,
    /// What requests may take.
    pub budgets: Budgets,
}
