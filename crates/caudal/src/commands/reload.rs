//! Settings that change while the server runs: at SIGHUP, or when their file does.

use std::{
    convert::Infallible,
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use caudal_server::Control;
use clap::ArgMatches;
use tokio::signal::unix::{SignalKind, signal};

use super::{CommandError, gather_all, settings_file};
use crate::{
    logging,
    settings::{Raw, Settings, SettingsError, TABLE},
};

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What holds now, and where to look for something else.
pub(super) struct Reload<'a> {
    matches: &'a ArgMatches,
    raw: Vec<Raw>,
    file: PathBuf,
}

impl<'a> Reload<'a> {
    pub(super) fn new(matches: &'a ArgMatches, raw: Vec<Raw>) -> Self {
        Self { matches, raw, file: settings_file(matches).unwrap_or_else(|| "caudal.yaml".into()) }
    }

    /// Reads the settings again whenever that is asked for, until the server ends.
    pub(super) async fn keep(&mut self, control: &Control, watch: bool) -> Infallible {
        let mut hang_up = signal(SignalKind::hangup()).expect("signals can be waited for");
        // Nothing seen yet: what was written between the start's own reading and this one is not missed.
        let (mut seen, mut pending) = (None, None);
        loop {
            let asked = tokio::select! {
                _ = hang_up.recv() => true,
                () = tokio::time::sleep(LOOK), if watch => {
                    // One that looks the same twice is no longer being written.
                    let now = self.changed();
                    let settled = std::mem::replace(&mut pending, now) == now;
                    if now == seen || !settled {
                        continue;
                    }
                    seen = now;
                    false
                }
            };
            match self.read(control, asked) {
                Ok(()) => {}
                Err(error) => tracing::error!("the settings stay as they are: {error}"),
            }
        }
    }

    fn changed(&self) -> Option<(SystemTime, u64)> {
        let meta = fs::metadata(&self.file).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    }

    fn read(&mut self, control: &Control, asked: bool) -> Result<(), CommandError> {
        let mut raw = gather_all(self.matches)?.values;
        // What is wrong is wrong even where it would wait for a restart.
        Settings::resolve(&raw)?;
        let (mut taken, mut waiting) = (Vec::new(), Vec::new());
        for (new, old) in raw.iter_mut().zip(&self.raw).filter(|(new, old)| new.value != old.value) {
            // Without a key there would be a token, which is made at start.
            let removed = new.key == "admin_key" && new.value.is_empty();
            if !removed && TABLE.iter().any(|key| key.name == new.key && key.live) {
                taken.push(new.key);
            } else {
                waiting.push(new.key);
                new.clone_from(old);
            }
        }
        let settings = Settings::resolve(&raw)?;
        logging::set_level(&settings.log_level).map_err(|reason| {
            let origin = raw.iter().find(|raw| raw.key == "log_level").expect("it is in the table").clone();
            SettingsError::Invalid { key: origin.key, value: origin.value, origin: origin.origin, reason }
        })?;
        control.apply(settings.server, settings.models, settings.stay);
        self.raw = raw;
        if asked || !taken.is_empty() {
            tracing::info!(changed = taken.join(", "), "settings read again");
        }
        if !waiting.is_empty() {
            tracing::warn!("these take a restart to change: {}", waiting.join(", "));
        }
        Ok(())
    }
}
