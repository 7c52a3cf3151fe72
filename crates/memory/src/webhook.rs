//! Webhook for alerts: a POST from a thread of its own, so that a slow receiver does not delay monitoring.

use std::{
    sync::{
        Mutex, PoisonError,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

/// Maximum number of queued alerts; further ones are dropped and logged.
const MAX_QUEUED_ALERTS: usize = 16;

/// Timeout of a POST.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

struct Alert {
    url: String,
    body: Value,
}

/// The sender thread, started with the first alert.
#[derive(Default)]
pub(crate) struct Webhook(Mutex<Option<SyncSender<Alert>>>);

impl Webhook {
    /// Queues an alert with `body` for `url`.
    pub(crate) fn queue_alert(&self, url: &str, body: Value) {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.is_none() {
            *sender = start_sender();
        }
        let Some(sender) = &*sender else { return };
        match sender.try_send(Alert { url: url.to_owned(), body }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => tracing::warn!("alert dropped: memory_webhook_url is too slow"),
            Err(TrySendError::Disconnected(_)) => tracing::warn!("alert dropped: its thread has ended"),
        }
    }
}

fn start_sender() -> Option<SyncSender<Alert>> {
    let (sender, alerts) = sync_channel::<Alert>(MAX_QUEUED_ALERTS);
    let send = move || {
        let config = ureq::Agent::config_builder().timeout_global(Some(POST_TIMEOUT)).max_redirects(0).build();
        let agent = ureq::Agent::new_with_config(config);
        for Alert { url, body } in alerts {
            // The URL may contain a secret, so it is not logged.
            if let Err(error) = agent.post(&url).send_json(&body) {
                tracing::warn!(%error, "cannot send an alert to memory_webhook_url");
            }
        }
    };
    let started = thread::Builder::new().name("webhook".to_owned()).spawn(send);
    started.map(|_| sender).inspect_err(|error| tracing::error!(%error, "cannot send alerts")).ok()
}
