//! The doors of Caudal: HTTP, limits, errors to status codes, the API's description.
//!
//! A request comes in through a connection ([`http`]), finds its handler by its path, passes the door, which gives
//! it a clock and a slot, and is handed to a task; its answer passes the door again, which writes down the time.
//! What tensors mean, and which backend runs them, this room does not know.

mod app;
mod docs;
mod health;
mod http;
mod kserve;
mod metrics;
mod openai;
mod params;
mod pictures;
mod problem;
mod process;
mod route;
mod router;
mod settings;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use caudal_tasks::{Catalog, Pictures};

use crate::{app::App, router::router};
pub use crate::{
    app::Facts,
    docs::openapi_json,
    http::{ListenError, Listener},
    settings::{ModelControl, ServerSettings},
};

/// How long runs that were given up may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// A server, ready to accept connections.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    listener: Listener,
}

/// How a server came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything that was begun was finished.
    Clean,
    /// Time was up; this many connections were cut.
    CutShort(usize),
}

impl Server {
    /// A server for `catalog` that answers on `listener`.
    pub fn new(
        listener: Listener,
        catalog: Catalog,
        pictures: Pictures,
        settings: ServerSettings,
        facts: Facts,
    ) -> std::io::Result<Self> {
        Ok(Self { app: Arc::new(App::new(catalog, pictures, settings, facts)?), listener })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// Whether all models serve.
    pub fn is_ready(&self) -> bool {
        self.app.is_ready()
    }

    /// Serves until `shutdown` completes, then finishes what was begun, within the exit timeout.
    ///
    /// The order matters to whoever watches: first it stops being ready and turns new work away, still accepting
    /// connections to say so; when the work is done it stops accepting, answers those that the kernel had accepted
    /// already, and closes.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Ending {
        let Self { app, listener } = self;
        if let ModelControl::Poll(interval) = app.settings.model_control {
            watch(&app, interval);
        }
        let router = router(Arc::clone(&app));
        let connections = Arc::clone(&app.connections);
        {
            let mut shutdown = std::pin::pin!(shutdown);
            loop {
                tokio::select! {
                    biased;
                    () = &mut shutdown => break,
                    (stream, place) = accept(&listener, &app) => connections.serve(stream, router.clone(), Some(place)),
                }
            }
        }
        app.drain();
        tracing::info!(working = app.working(), connections = connections.open(), "shutting down");
        let finish = async {
            tokio::select! {
                () = idle(&app) => {}
                () = async {
                    loop {
                        let (stream, place) = accept(&listener, &app).await;
                        connections.serve(stream, router.clone(), Some(place));
                    }
                } => {}
            }
            for stream in listener.drain().await {
                connections.serve(stream, router.clone(), None);
            }
            connections.end();
            connections.ended().await;
        };
        match tokio::time::timeout(app.settings.exit_timeout, finish).await {
            Ok(()) => Ending::Clean,
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
                Ending::CutShort(open)
            }
        }
    }
}

/// Lets models come and go with the repository, on a thread that ends with the server.
fn watch(app: &Arc<App>, interval: Duration) {
    let app = Arc::downgrade(app);
    let look = move || {
        loop {
            std::thread::sleep(interval);
            match app.upgrade() {
                Some(app) if !app.is_draining() => app.catalog.poll(),
                _ => return,
            }
        }
    };
    if let Err(error) = std::thread::Builder::new().name("models".to_owned()).spawn(look) {
        tracing::error!(%error, "the repository is not watched: its thread could not be started");
    }
}

async fn accept(listener: &Listener, app: &App) -> (std::net::TcpStream, tokio::sync::OwnedSemaphorePermit) {
    let place = app.connections.place().await;
    (listener.accept().await, place)
}

/// Waits until no request is being worked on.
async fn idle(app: &App) {
    until(|| app.working() == 0).await;
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
