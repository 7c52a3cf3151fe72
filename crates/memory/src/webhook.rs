//! Tells somebody by a POST, on a thread of its own: whoever answers slowly keeps nobody from watching.

use std::{
    sync::{
        Mutex, PoisonError,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

/// Messages that may wait; more are dropped, and that is logged.
const WAITING: usize = 16;

/// How long one may take.
const TIMEOUT: Duration = Duration::from_secs(10);

struct Message {
    to: String,
    body: Value,
}

/// The thread that tells, once there is something to tell.
#[derive(Default)]
pub(crate) struct Webhook(Mutex<Option<SyncSender<Message>>>);

impl Webhook {
    /// Sends `body` to `to`, some time soon.
    pub(crate) fn post(&self, to: &str, body: Value) {
        let mut sender = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sender.is_none() {
            *sender = start();
        }
        let Some(sender) = &*sender else { return };
        match sender.try_send(Message { to: to.to_owned(), body }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => tracing::warn!("memory_webhook_url is too slow: an alert was not sent"),
            Err(TrySendError::Disconnected(_)) => tracing::warn!("an alert was not sent: its thread has ended"),
        }
    }
}

fn start() -> Option<SyncSender<Message>> {
    let (sender, messages) = sync_channel::<Message>(WAITING);
    let send = move || {
        let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).max_redirects(0).build();
        let agent = ureq::Agent::new_with_config(config);
        for Message { to, body } in messages {
            // The address may hold a secret: it stays out of the log.
            if let Err(error) = agent.post(&to).send_json(&body) {
                tracing::warn!(%error, "an alert could not be sent to memory_webhook_url");
            }
        }
    };
    let started = thread::Builder::new().name("webhook".to_owned()).spawn(send);
    started.map(|_| sender).inspect_err(|error| tracing::error!(%error, "alerts are not sent")).ok()
}
