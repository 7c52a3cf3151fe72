//! The doors of Caudal: HTTP, limits, errors to status codes, the API's description.
//!
//! A request comes in through a connection ([`http`]), finds its handler by its path, passes the door, which gives
//! it a clock and a slot, and is handed to a task; its answer passes the door again, which writes down the time.
//! What tensors mean, and which backend runs them, this room does not know.

mod access;
mod admin;
mod app;
mod budgets;
mod debug;
mod docs;
mod flow;
mod health;
mod http;
mod json;
mod kpis;
mod kserve;
mod lists;
mod live;
mod memory;
mod metrics;
mod openai;
mod params;
mod pictures;
mod problem;
mod process;
mod record;
mod route;
mod router;
mod settings;
mod watch;

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::{Duration, Instant, SystemTime},
};

use caudal_flow::{TakenUp, journal::MAX_RECOVERIES};
use caudal_memory::MemoryMonitor;
use caudal_tasks::{Defaults, Stay};
use caudal_telemetry::{Meter, Telemetry};
use futures_util::future::join_all;

use crate::{
    access::Gate,
    app::App,
    http::{Connections, Entrance},
    router::{Answers, router},
};
pub use crate::{
    access::{AccessSettings, AdminAccess, AllowedHosts, AllowedOrigins, Secret},
    app::{Facts, Rooms},
    budgets::Budgets,
    docs::openapi_json,
    http::{Flags, ListenError, Listener, Listeners, SlowRequests},
    settings::{ModelControl, Profiling, RecordSettings, ServerSettings, WINDOWS},
};

/// How long runs that were given up may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// Most connections of who administers the server, where these have a socket of their own.
const ADMIN_CONNECTIONS: usize = 256;

/// Bounds of how often idle models are looked for.
const SOON: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_secs(5);

/// A server, ready to accept connections.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    listeners: Listeners,
}

/// How a server came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything that was begun was finished.
    Clean,
    /// The same, before all models were loaded; one may still be, on a thread of its own.
    BeforeLoaded,
    /// Time was up; this many connections were cut.
    CutShort(usize),
}

impl Server {
    /// A server for what is in `rooms` that answers on `listeners`, and gives `telemetry` each request that is told of, and its metrics.
    pub fn new(
        listeners: Listeners,
        rooms: Rooms,
        settings: ServerSettings,
        facts: Facts,
        telemetry: Telemetry,
    ) -> std::io::Result<Self> {
        let app = Arc::new(App::new(rooms, settings, facts, telemetry)?);
        memory::join(&app);
        Ok(Self { app, listeners })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.listeners.public.address()
    }

    /// Where it is administered, if that is a socket of its own.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.listeners.admin.as_ref().map(Listener::address)
    }

    /// A handle by which settings are changed while it serves.
    pub fn control(&self) -> Control {
        Control(Arc::downgrade(&self.app))
    }

    /// The watch over memory: to it belongs whoever can give some back.
    pub fn memory(&self) -> &MemoryMonitor {
        &self.app.memory
    }

    /// Serves until `shutdown` completes, then finishes what was begun, within the exit timeout. Models are loaded meanwhile,
    /// by `load` on a thread of its own: before that is done probes are answered and the server is not ready, then `loaded`
    /// is called. If it fails that is the end.
    ///
    /// The order matters to whoever watches: first it stops being ready and turns new work away, still accepting
    /// connections to say so; when the work is done it stops accepting, answers those that the kernel had accepted
    /// already, and closes.
    pub async fn run<E: Send + 'static>(
        self,
        load: impl FnOnce() -> Result<(), E> + Send + 'static,
        loaded: impl FnOnce(),
        shutdown: impl Future<Output = ()>,
    ) -> Result<Ending, E> {
        let Self { app, listeners } = self;
        app.catalog.set_loading(true);
        watch(&app);
        look_back(&app);
        tell(&app);
        let each = Arc::downgrade(&app);
        let working = move || each.upgrade().is_some_and(|app| app.working() > 0);
        if let Err(error) = app.memory.start_watching(working) {
            tracing::error!(%error, "memory is not watched: its thread could not be started");
        }
        let entrances = entrances(&app, listeners);
        let connections = Arc::clone(&app.connections);
        tokio::select! {
            biased;
            () = shutdown => {}
            () = welcome(&entrances, &connections) => {}
            error = load_aside(&app, load, loaded) => return Err(error),
        }
        app.drain();
        tracing::info!(working = app.working(), connections = connections.open(), "shutting down");
        let finish = async {
            tokio::select! {
                () = idle(&app) => {}
                () = welcome(&entrances, &connections) => {}
            }
            join_all(entrances.into_iter().map(|entrance| entrance.close(&connections))).await;
            connections.end();
            connections.ended().await;
        };
        let finished = tokio::time::timeout(app.settings().exit_timeout, finish).await;
        app.flows.leave_runs().await;
        if let Some(meter) = &app.meter {
            meter.export(metrics::told(&app));
        }
        match finished {
            Ok(()) if app.catalog.now().is_loading() => {
                // The load runs in the background: the file may have gigabytes.
                std::mem::forget(app);
                Ok(Ending::BeforeLoaded)
            }
            Ok(()) => Ok(Ending::Clean),
            Err(_) => {
                let open = connections.open();
                connections.cut();
                // Runs stop at their next operator, and the process should not end under them. One that goes on
                // is left behind: waiting for it is what the timeout forbids.
                let stopped = async {
                    connections.ended().await;
                    until(|| app.catalog.now().idle()).await;
                };
                let _ = tokio::time::timeout(STOP_WITHIN, stopped).await;
                std::mem::forget(app);
                Ok(Ending::CutShort(open))
            }
        }
    }
}

/// Loads the models that serve from the start on; comes back with an error or never.
async fn load_aside<E: Send + 'static>(
    app: &Arc<App>,
    load: impl FnOnce() -> Result<(), E> + Send + 'static,
    loaded: impl FnOnce(),
) -> E {
    match tokio::task::spawn_blocking(load).await {
        Ok(Ok(())) => {
            app.catalog.set_loading(false);
            // They may ask models.
            take_up(app);
            loaded();
            std::future::pending().await
        }
        Ok(Err(error)) => error,
        Err(broken) => std::panic::resume_unwind(broken.into_panic()),
    }
}

/// Changes settings of a server that runs.
#[derive(Debug, Clone)]
pub struct Control(Weak<App>);

impl Control {
    /// Whether requests for work would be served.
    pub fn is_ready(&self) -> bool {
        self.0.upgrade().is_some_and(|app| app.is_ready())
    }

    /// The doors keep to `server` from the next request on, and models that are loaded from now on to `models` and `stay`.
    pub fn apply(&self, server: ServerSettings, models: Defaults, stay: Stay) {
        if let Some(app) = self.0.upgrade() {
            caudal_observe::set_enabled(server.profiling.enabled);
            app.set_settings(server);
            app.catalog.set(models, stay);
        }
    }
}

/// How often it is looked whether another process has gone and left runs of pipelines.
const LEFT: Duration = Duration::from_secs(15);

/// Takes up runs of pipelines that another process left.
fn take_up(app: &Arc<App>) {
    let telling = Arc::downgrade(app);
    app.flows.take_up_aside(LEFT, move |taken| match taken {
        Ok(TakenUp { runs, left, given_up }) => {
            if !runs.is_empty() {
                tracing::info!(taken_up = runs.len(), "runs that were interrupted go on");
            }
            if left > 0 {
                tracing::warn!(left, "runs that were interrupted cannot be taken up; caudal flow list shows them");
            }
            for run_id in given_up {
                tracing::error!(
                    run_id = &*run_id,
                    "the run was recovered {MAX_RECOVERIES} times without a step done, and its process ended each time: \
                     it stays interrupted until it is resumed by its name"
                );
            }
            if let Some(app) = telling.upgrade() {
                runs.into_iter().for_each(|going| flow::aside::tell(&app, going, None));
            }
        }
        Err(error) => tracing::warn!(%error, "runs that were interrupted could not be looked for"),
    });
}

/// Lets models come and go with the repository, and rest when nobody asks for them, on a thread that ends with the
/// server.
fn watch(app: &Arc<App>) {
    let polled = match app.settings().model_control {
        ModelControl::Poll(interval) => Some(interval),
        ModelControl::None | ModelControl::Explicit => None,
    };
    // Who is asked for is noted in any case: when memory is short, it tells who may rest.
    let looked_at = app.catalog.stay().idle.map_or(LATER, |idle| (idle / 4).clamp(SOON, LATER));
    let interval = polled.into_iter().chain([looked_at]).min().unwrap_or(LATER);
    let app = Arc::downgrade(app);
    let look = move || {
        let mut last = Instant::now();
        loop {
            std::thread::sleep(interval);
            let Some(app) = app.upgrade().filter(|app| !app.is_draining()) else { return };
            if polled.is_some_and(|polled| last.elapsed() >= polled) {
                last = Instant::now();
                app.catalog.poll();
            }
            app.catalog.rest_idle();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("models".to_owned()).spawn(look) {
        tracing::error!(%error, "the repository is not watched: its thread could not be started");
    }
}

/// Remembers what sections did in each span, until the server ends.
fn look_back(app: &Arc<App>) {
    caudal_observe::set_enabled(app.settings().profiling.enabled);
    let each = Arc::downgrade(app);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(process::TICK).await;
            let Some(app) = each.upgrade() else { return };
            app.cpu.tick();
        }
    });
    let (bucket, each) = (app.kpis.bucket_length(), Arc::downgrade(app));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(bucket).await;
            let Some(app) = each.upgrade() else { return };
            app.kpis.close_bucket(app.metrics.counted(), SystemTime::now());
        }
    });
    let (span, app) = (app.history.span_length(), Arc::downgrade(app));
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(span).await;
            let Some(app) = app.upgrade() else { return };
            app.history.close_span(&caudal_observe::summaries(), SystemTime::now());
        }
    });
}

/// Tells of all metrics every so often, where a collector is named, until the server ends.
fn tell(app: &Arc<App>) {
    let Some(interval) = app.meter.as_ref().map(Meter::export_interval) else { return };
    let each = Arc::downgrade(app);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(interval).await;
            let Some(app) = each.upgrade() else { return };
            // Reading them asks the kernel for some.
            tokio::task::spawn_blocking(move || {
                if let Some(meter) = &app.meter {
                    meter.export(metrics::told(&app));
                }
            });
        }
    });
}

/// Each socket with what is answered there.
fn entrances(app: &Arc<App>, listeners: Listeners) -> Vec<Entrance> {
    let Listeners { public, admin } = listeners;
    let places = app.settings().max_connections;
    let entrance = |listener: Listener, answers, places| {
        let loopback = listener.address().ip().to_canonical().is_loopback();
        Entrance::new(listener, Gate::new(app, router(app, answers), answers, loopback), places)
    };
    match admin {
        None => vec![entrance(public, Answers::All, places)],
        Some(admin) => {
            vec![entrance(public, Answers::Public, places), entrance(admin, Answers::Admin, ADMIN_CONNECTIONS)]
        }
    }
}

/// Lets everybody in at all entrances, without end.
async fn welcome(entrances: &[Entrance], connections: &Arc<Connections>) {
    join_all(entrances.iter().map(|entrance| entrance.welcome(connections))).await;
}

/// Waits until no request is being worked on.
async fn idle(app: &App) {
    // Runs that are kept are taken up by the next process; others would be gone.
    until(|| app.working() == 0 && app.flows.passing() == 0).await;
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
