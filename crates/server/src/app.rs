//! What all doors share.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use caudal_flow::Flows;
use caudal_memory::{Level, MemoryMonitor, Sources};
use caudal_record::Consultations;
use caudal_sight::{History, Kpis, Recorder};
use caudal_tasks::{Catalog, Pictures};
use caudal_telemetry::{Meter, Telemetry, Tracer};
use caudal_types::{ErrorKind, Trace};

use crate::{
    access::AdminAccess,
    budgets::Breaches,
    http::{Connections, SlowLog, body::BodyMemory},
    live::{Live, Place},
    metrics::HttpMetrics,
    problem::Problem,
    process::CpuMeter,
    route::Route,
    settings::ServerSettings,
};

/// The server's state.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) pictures: Pictures,
    pub(crate) bodies: Arc<BodyMemory>,
    settings: ArcSwap<ServerSettings>,
    pub(crate) facts: Facts,
    pub(crate) metrics: HttpMetrics,
    pub(crate) breaches: Breaches,
    /// Held by whoever times a model's operators.
    pub(crate) operators: Arc<tokio::sync::Mutex<()>>,
    pub(crate) recorder: Recorder,
    /// Who tells a collector of requests, where there is one.
    pub(crate) tracer: Option<Tracer>,
    /// Who tells a collector of metrics, where there is one.
    pub(crate) meter: Option<Meter>,
    /// What is recorded, where there is a folder for it.
    pub(crate) record: Option<Consultations>,
    /// Pipelines and their runs.
    pub(crate) flows: Arc<Flows>,
    pub(crate) history: History,
    pub(crate) kpis: Kpis,
    pub(crate) cpu: CpuMeter,
    pub(crate) slow_log: SlowLog,
    pub(crate) memory: Arc<MemoryMonitor>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) started: Instant,
    /// Requests for work that are in progress.
    pub(crate) live: Live,
    working: AtomicUsize,
    /// Requests in progress that have no deadline: uploads, exports, checks of the whole record.
    unlimited: AtomicUsize,
    draining: AtomicBool,
}

/// What the doors lead to.
#[derive(Debug)]
pub struct Rooms {
    /// The models.
    pub catalog: Arc<Catalog>,
    /// The way of pictures to them.
    pub pictures: Pictures,
    /// What is recorded, where there is a folder for it.
    pub record: Option<Consultations>,
    /// Pipelines and their runs.
    pub flows: Arc<Flows>,
}

/// What the server says of itself and cannot find out.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The backend, in words.
    pub backend: String,
    /// Cores that it may use.
    pub cpus: usize,
    /// Instructions that pixel loops run with.
    pub simd: String,
    /// Whether JPEGs are decoded with vector instructions.
    pub simd_jpeg: bool,
    /// Settings as names and values, for `/health`.
    pub config: Vec<(String, String)>,
}

impl App {
    pub(crate) fn new(
        Rooms { catalog, pictures, record, flows }: Rooms,
        settings: ServerSettings,
        facts: Facts,
        Telemetry { tracer, meter }: Telemetry,
    ) -> std::io::Result<Self> {
        Ok(Self {
            catalog,
            pictures,
            bodies: Arc::new(BodyMemory::new(settings.max_body_memory)),
            metrics: HttpMetrics::new(),
            breaches: Breaches::new(),
            operators: Arc::default(),
            recorder: Recorder::new(Route::ALL.iter().map(|route| route.title())),
            tracer,
            meter,
            record,
            flows,
            history: History::new(settings.profiling.span),
            kpis: Kpis::new(settings.kpi_bucket, settings.kpi_retention),
            cpu: CpuMeter::start(),
            slow_log: SlowLog::default(),
            memory: Arc::new(MemoryMonitor::new(Sources::local_machine(), settings.memory.clone())),
            connections: Arc::new(Connections::start(&settings)?),
            started: Instant::now(),
            live: Live::default(),
            working: AtomicUsize::new(0),
            unlimited: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            settings: ArcSwap::from_pointee(settings),
            facts,
        })
    }

    /// What the server keeps to now.
    pub(crate) fn settings(&self) -> Guard<Arc<ServerSettings>> {
        self.settings.load()
    }

    /// Keeps to other settings from the next request on, those aside that have had their effect.
    pub(crate) fn set_settings(&self, mut settings: ServerSettings) {
        if let AdminAccess::Closed = settings.access.admin {
            // The settings name no key: the token of this server's start stays.
            settings.access.admin = self.settings().access.admin.clone();
        }
        self.memory.set_policy(settings.memory.clone());
        self.settings.store(Arc::new(settings));
    }

    /// A slot for one request of `route`, whose way `trace` tells, unless all are taken, memory is short, or the server is
    /// going down.
    pub(crate) fn admit(self: &Arc<Self>, route: Route, lane: Lane, trace: &Trace) -> Result<Slot, Problem> {
        self.memory.notify_activity();
        let before = self.slots(lane).fetch_add(1, Ordering::SeqCst);
        let slot = Slot { place: self.live.enter(trace), app: Arc::clone(self), lane };
        if self.is_draining() {
            return Err(Problem::new(
                ErrorKind::ShuttingDown,
                "the server is shutting down",
                "send the request to another instance of the server",
            ));
        }
        if self.memory.level() == Level::Critical && route.takes_memory() {
            return Err(Problem::memory_short());
        }
        let (limit, kind) = match (self.settings().concurrency_limit, lane) {
            (limit, Lane::Deadline) => (limit, "requests"),
            (limit, Lane::NoDeadline) => (limit.div_ceil(2), "uploads, exports and checks"),
        };
        if before >= limit {
            return Err(Problem::new(
                ErrorKind::TooManyRequests,
                format!("{limit} {kind} are already being worked on"),
                "try again after Retry-After, send fewer at once, or raise concurrency_limit",
            )
            .retry_after(Duration::from_secs(1)));
        }
        Ok(slot)
    }

    /// Requests being worked on.
    pub(crate) fn working(&self) -> usize {
        self.working.load(Ordering::SeqCst) + self.unlimited.load(Ordering::SeqCst)
    }

    fn slots(&self, lane: Lane) -> &AtomicUsize {
        match lane {
            Lane::Deadline => &self.working,
            Lane::NoDeadline => &self.unlimited,
        }
    }

    /// From now on new work is turned away.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Whether requests for work would be served.
    pub(crate) fn is_ready(&self) -> bool {
        let recording = self.record.as_ref().is_none_or(Consultations::is_writable);
        !self.is_draining() && self.catalog.now().serve(self.settings().strict_readiness) && recording
    }
}

/// Which slots a request takes. Requests that may take as long as their client likes have slots of their own, so that
/// slow uploads never keep all others out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Requests that end at their deadline: `concurrency_limit` of them.
    Deadline,
    /// Requests without a deadline: half as many.
    NoDeadline,
}

/// A request being worked on.
pub(crate) struct Slot {
    app: Arc<App>,
    lane: Lane,
    place: Place,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.app.live.leave(self.place);
        self.app.slots(self.lane).fetch_sub(1, Ordering::SeqCst);
    }
}
