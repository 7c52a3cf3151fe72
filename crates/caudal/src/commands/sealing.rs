//! Consultations that are over are moved to archives while the server serves.

use std::time::Duration;

use caudal_record::{Consultations, Sealing, archive::Options};
use caudal_store::{Clock, Time};
use caudal_types::Explain;

use crate::settings::SealPolicy;

/// Bounds of how often it is looked for such consultations.
const SOON: Duration = Duration::from_secs(1);
const LATER: Duration = Duration::from_secs(3_600);

/// Seals what is idle for long enough, again and again.
pub(super) async fn keep_sealing(record: Consultations, policy: SealPolicy) {
    let Some(after) = policy.after else { return };
    loop {
        tokio::time::sleep((after / 4).clamp(SOON, LATER)).await;
        match record.seal(sealing(&policy, after), |_| ()).await {
            Ok(done) if done.consultations == 0 => {}
            Ok(done) => tracing::info!(
                consultations = done.consultations,
                events = done.events,
                bytes = done.bytes_out,
                "sealed {}",
                done.files.join(", ")
            ),
            Err(error) => tracing::error!("nothing was sealed: {error}; {}", error.hint()),
        }
    }
}

/// Everything idle for `after`, as the settings have it.
pub(super) fn sealing(policy: &SealPolicy, after: Duration) -> Sealing {
    let idle_since = Clock::system().now().saturating_sub(Time::try_from(after.as_micros()).unwrap_or(Time::MAX));
    let options = Options { codec: policy.codec, limit: policy.limit, ..Options::default() };
    Sealing { idle_since, only: None, options }
}
