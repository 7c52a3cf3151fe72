//! Who wants to know when a stream grows.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::record::StreamId;

/// Streams that somebody follows, each with how far it has come.
#[derive(Debug, Default)]
pub(crate) struct Followers(Mutex<HashMap<StreamId, watch::Sender<u64>>>);

impl Followers {
    /// Tells of each append to `stream` from now on.
    pub(crate) fn follow(&self, stream: &StreamId) -> watch::Receiver<u64> {
        let mut followed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|_, sender| sender.receiver_count() > 0);
        followed.entry(stream.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// `stream` has come to `sequence`.
    pub(crate) fn tell(&self, stream: &StreamId, sequence: u64) {
        let followed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = followed.get(stream) {
            sender.send_if_modified(|told| {
                let grown = sequence > *told;
                *told = sequence.max(*told);
                grown
            });
        }
    }

    /// Which streams somebody follows.
    pub(crate) fn followed(&self) -> Vec<StreamId> {
        let mut followed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        followed.retain(|_, sender| sender.receiver_count() > 0);
        followed.keys().cloned().collect()
    }
}
