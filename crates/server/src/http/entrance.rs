//! A socket with what is answered there.

use std::{net::TcpStream, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Connections, Listener};
use crate::access::Gate;

/// A socket with what is answered there, and places for its connections. Each entrance has its own: who administers the
/// server comes in though everybody else's places are taken.
pub(crate) struct Entrance {
    listener: Listener,
    gate: Gate,
    places: Arc<Semaphore>,
}

impl Entrance {
    /// An entrance to `gate` with so many `places`.
    pub(crate) fn new(listener: Listener, gate: Gate, places: usize) -> Self {
        Self { listener, gate, places: Arc::new(Semaphore::new(places.max(1))) }
    }

    /// Lets everybody in; further connections wait while all places are taken.
    pub(crate) async fn welcome(&self, connections: &Arc<Connections>) {
        loop {
            let (stream, place) = self.accept().await;
            connections.serve(stream, self.gate.clone(), Some(place));
        }
    }

    async fn accept(&self) -> (TcpStream, OwnedSemaphorePermit) {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the places are never closed");
        (self.listener.accept().await, place)
    }

    /// Closes, and serves those that the kernel has accepted already.
    pub(crate) async fn close(self, connections: &Arc<Connections>) {
        for stream in self.listener.drain().await {
            connections.serve(stream, self.gate.clone(), None);
        }
    }
}
