//! Models that come when they are asked for and go when others need their memory.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use caudal_engine::repository::{ModelFolder, ModelSettings};
use caudal_types::{Stage, Trace, with_request_id};
use tokio::sync::Mutex;

use crate::{Catalog, ChangeError, Entry, ServedModel, Unavailable, catalog::Turn};

/// How much models may hold, and how long they stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stay {
    /// Most bytes that all models hold together; no limit when none.
    pub memory: Option<u64>,
    /// How long a model stays that nobody asks for; for ever when none.
    pub idle: Option<Duration>,
}

/// A model that is not in memory and will be when somebody asks for it.
pub struct Resting {
    name: String,
    /// What it was for when it was last in memory.
    pub(crate) task: Option<&'static str>,
    /// What was changed of it while it served.
    changes: Option<Changes>,
    /// In the hands of who brings it back; the others wait for it here.
    gate: Mutex<()>,
}

/// What was changed of a model that served, to hold again when it is back in memory.
#[derive(Debug)]
pub(crate) struct Changes {
    /// How its folder looked when it was loaded: changes are of that model and no other.
    print: u64,
    settings: ModelSettings,
}

impl Changes {
    /// What holds for the model in `folder`: nothing if its files or settings are others now.
    fn for_folder(&self, folder: &ModelFolder) -> Option<&ModelSettings> {
        if folder.fingerprint() == self.print {
            return Some(&self.settings);
        }
        tracing::warn!(
            model = folder.name,
            "what was changed while the model served no longer holds: its files or settings are others"
        );
        None
    }
}

impl fmt::Debug for Resting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resting({})", self.name)
    }
}

impl Resting {
    pub(crate) fn new(name: &str, task: Option<&'static str>, changes: Option<Changes>) -> Arc<Self> {
        Arc::new(Self { name: name.to_owned(), task, changes, gate: Mutex::default() })
    }

    /// What the model is for, if it has been in memory.
    pub fn task(&self) -> Option<&'static str> {
        self.task
    }
}

impl Catalog {
    /// The model called `name`, which is brought back if it rests. However many ask, it is loaded once; and models are
    /// loaded one after the other, in the order in which they were first asked for, so that none is let go before it
    /// has answered those who waited for it. What is logged meanwhile names `request`, which asks; the time until the model is
    /// loaded is the stage `load` of `trace`.
    pub async fn demand(
        self: &Arc<Self>,
        name: &str,
        version: Option<&str>,
        request: &str,
        trace: Option<&Trace>,
    ) -> Result<Arc<ServedModel>, Unavailable> {
        let mut loading = None;
        loop {
            let resting = match self.get(name, version) {
                Err(Unavailable::Resting(_)) => self.now().resting(name).cloned(),
                known => return known,
            };
            let Some(resting) = resting else { continue };
            if loading.is_none() {
                loading = trace.map(|trace| trace.during(Stage::Load));
            }
            let _first = resting.gate.lock().await;
            let still = self.now().resting(name).is_some_and(|now| Arc::ptr_eq(now, &resting));
            if !still {
                continue;
            }
            let turn = Arc::clone(&self.waking).lock_owned().await;
            let (catalog, own, request) = (Arc::clone(self), resting.name.clone(), request.to_owned());
            // Not on a thread that talks to sockets; and it goes on if who asked has no time left.
            let woken = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                with_request_id(&request, || catalog.wake(&own))
            });
            return match woken.await {
                Ok(Ok(_)) => match self.get(name, version) {
                    Err(Unavailable::Resting(_)) => continue,
                    known => known,
                },
                _ => Err(Unavailable::NotReady { name: name.to_owned(), reason: None }),
            };
        }
    }

    /// Brings the model `name` back, unless somebody else has.
    fn wake(&self, name: &str) -> Result<(), ChangeError> {
        let mut turn = self.turn();
        let Some(resting) = self.now().resting(name).cloned() else { return Ok(()) };
        let folder = self.folder(name)?;
        let changes = resting.changes.as_ref().and_then(|changes| changes.for_folder(&folder));
        self.load_changed(&mut turn, &folder, changes).map(drop)
    }

    /// What all models may hold beside what is kept for the runs of all.
    fn room(&self) -> Option<u64> {
        Some(self.stay().memory?.saturating_sub(self.backend().arena_bytes().unwrap_or(0)))
    }

    /// What the model in `folder` will hold at least, as far as is known.
    fn estimate(&self, turn: &Turn, folder: &ModelFolder) -> u64 {
        turn.ledger.bytes(&folder.name).unwrap_or_else(|| {
            let settings = folder.read_settings().unwrap_or_default();
            folder.serving_version(&settings).and_then(|version| folder.weights(&version)).unwrap_or(0)
        })
    }

    /// Whether the model in `folder` would find room if others went, and not without.
    pub(crate) fn would_crowd(&self, turn: &Turn, folder: &ModelFolder) -> bool {
        let Some(limit) = self.room() else { return false };
        let need = self.estimate(turn, folder);
        need <= limit && turn.ledger.held(&self.now(), &folder.name) + need > limit
    }

    /// Lets models go until there is room for the one in `folder`.
    pub(crate) fn make_room(&self, turn: &mut Turn, folder: &ModelFolder) -> Result<(), ChangeError> {
        let Some(limit) = self.room() else { return Ok(()) };
        let need = self.estimate(turn, folder);
        if need > limit {
            return Err(ChangeError::TooLarge { model: folder.name.clone(), need, limit });
        }
        self.shrink(turn, &folder.name, limit - need);
        Ok(())
    }

    /// Lets models go, but for the one called `name`, until the others hold no more than `limit`.
    fn shrink(&self, turn: &mut Turn, name: &str, limit: u64) {
        turn.ledger.read(&self.now(), Instant::now());
        while turn.ledger.held(&self.now(), name) > limit {
            let Some(model) = turn.ledger.least(&self.now(), name) else { return };
            self.rest(turn, model, "others need its memory");
        }
    }

    /// Takes stock of a model that has just been loaded: now it is known what it holds.
    pub(crate) fn settle(&self, turn: &mut Turn, model: &ServedModel) -> Result<(), ChangeError> {
        turn.ledger.loaded(model, Instant::now());
        let Some(limit) = self.room() else { return Ok(()) };
        let need = turn.ledger.bytes(&model.name).unwrap_or_default();
        if need > limit {
            return Err(ChangeError::TooLarge { model: model.name.clone(), need, limit });
        }
        self.shrink(turn, &model.name, limit - need);
        Ok(())
    }

    /// Takes note of who is asked for, and lets go the models that nobody has asked for in a while, if they may not stay.
    pub fn rest_idle(&self) {
        let mut turn = self.turn();
        turn.ledger.read(&self.now(), Instant::now());
        if let Some(idle) = self.stay().idle {
            self.rest_those(&turn, idle, "nobody asks for it");
        }
    }

    /// Lets go the models that nobody has asked for in `idle`, for the reason `why`: their names, and the bytes that they
    /// held.
    pub fn rest_unused(&self, idle: Duration, why: &str) -> Vec<(String, u64)> {
        let mut turn = self.turn();
        turn.ledger.read(&self.now(), Instant::now());
        self.rest_those(&turn, idle, why)
    }

    /// Bytes of the models that nobody has asked for in `idle`; none while models come and go, for who asks does not wait.
    pub fn idle_bytes(&self, idle: Duration) -> Option<u64> {
        let turn = self.try_turn()?;
        let models = turn.ledger.idle(&self.now(), idle, Instant::now());
        Some(models.iter().map(|model| model.memory.bytes()).sum())
    }

    /// What is kept for the runs of all models, and no run uses, goes back to the system: bytes before and after, where
    /// the backend tells.
    pub fn shrink_arena(&self) -> Result<Option<(u64, u64)>, String> {
        let before = self.backend().arena_bytes();
        self.backend().shrink_arena()?;
        Ok(before.zip(self.backend().arena_bytes()))
    }

    fn rest_those(&self, turn: &Turn, idle: Duration, why: &str) -> Vec<(String, u64)> {
        let models = turn.ledger.idle(&self.now(), idle, Instant::now());
        let rest = |model: Arc<ServedModel>| {
            let held = (model.name.clone(), model.memory.bytes());
            self.rest(turn, model, why);
            held
        };
        models.into_iter().map(rest).collect()
    }

    /// Lets `model` go until it is asked for again: it finishes what it has begun.
    fn rest(&self, turn: &Turn, model: Arc<ServedModel>, why: &str) {
        tracing::info!(model = model.name, why, "model put to rest");
        let name = model.name.clone();
        let changes = turn.loaded_print(&name).zip(model.changes());
        let changes = changes.map(|(print, settings)| Changes { print, settings });
        let entry = Entry::Resting(Resting::new(&name, Some(model.task.name()), changes));
        drop(model);
        self.replace(&name, entry);
    }
}
