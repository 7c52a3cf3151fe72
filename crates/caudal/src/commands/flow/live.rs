//! `--live`: the steps of a run as a tree that fills in.

use std::{collections::HashMap, time::Duration};

use caudal_flow::{Entry, Event, Handle, Status, StepReport, What};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::{sync::broadcast, task::JoinHandle};

use super::say;

/// Steps that are shown at most: more are not read by anybody.
const MOST: usize = 500;

/// Shows the steps of a run while they run.
pub(super) fn show(handle: &Handle) -> JoinHandle<()> {
    let (entries, events) = handle.watch();
    // The log is held through a copy of the hold, which goes when the run is over.
    let log = handle.clone();
    tokio::spawn(follow(entries, events, log))
}

async fn follow(entries: Vec<Entry>, mut events: broadcast::Receiver<Event>, handle: Handle) {
    let mut tree = Tree { bars: MultiProgress::new(), shown: HashMap::new(), order: Vec::new(), entries };
    (0..tree.entries.len()).for_each(|place| tree.draw(place));
    loop {
        let event = match tokio::time::timeout(Duration::from_millis(200), events.recv()).await {
            Ok(Ok(event)) => event,
            Ok(Err(broadcast::error::RecvError::Lagged(_))) => continue,
            Ok(Err(broadcast::error::RecvError::Closed)) => return,
            Err(_) if handle.over() => return,
            Err(_) => continue,
        };
        let place = event.place.index();
        tree.learn(&handle, place);
        match event.what {
            What::Retried { error, wait } => tree.say(place, &format!("again in {wait:?}: {error}")),
            What::Said(part) => tree.say(place, part.trim()),
            What::Budget(usage) => tree.say(place, &format!("{} tokens, {:.4} USD", usage.tokens(), usage.dollars())),
            What::Started | What::Ended => tree.draw(place),
        }
    }
}

struct Tree {
    bars: MultiProgress,
    shown: HashMap<usize, ProgressBar>,
    /// What is shown, from top to bottom.
    order: Vec<usize>,
    entries: Vec<Entry>,
}

impl Tree {
    fn learn(&mut self, handle: &Handle, place: usize) {
        while self.entries.len() <= place {
            let Some(entry) = handle.entry_at(self.entries.len()) else { return };
            self.entries.push(entry);
        }
        if let Some(entry) = handle.entry_at(place) {
            self.entries[place] = entry;
        }
    }

    fn depth(&self, place: usize) -> usize {
        let parent = |place: &usize| {
            self.entries.get(*place).map(|entry| entry.parent.index()).filter(|place| *place < self.entries.len())
        };
        std::iter::successors(parent(&place), parent).count()
    }

    fn bar(&mut self, place: usize) -> Option<&ProgressBar> {
        if !self.shown.contains_key(&place) {
            if self.shown.len() >= MOST {
                return None;
            }
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template(&format!("{}{{spinner}} {{msg}}", "  ".repeat(self.depth(place))));
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            // Below the lowest one that is within the same step, or that step itself.
            let parent = self.entries[place].parent.index();
            let above = self.order.iter().rposition(|other| {
                std::iter::successors(Some(*other), |at| self.entries.get(*at).map(|entry| entry.parent.index()))
                    .any(|at| at == parent)
            });
            let bar = match above.and_then(|above| self.shown.get(&self.order[above])) {
                Some(above) => self.bars.insert_after(above, bar),
                None => self.bars.add(bar),
            };
            self.order.insert(above.map_or(self.order.len(), |above| above + 1), place);
            bar.enable_steady_tick(Duration::from_millis(100));
            self.shown.insert(place, bar);
        }
        self.shown.get(&place)
    }

    fn draw(&mut self, place: usize) {
        let Some(step) = StepReport::of(&self.entries, place) else { return };
        let Some(bar) = self.bar(place) else { return };
        if step.status == Status::Running {
            return bar.set_message(caudal_types::printable(&step.name).into_owned());
        }
        let why = step.error.map(|error| format!("  {}", error.message)).unwrap_or_default();
        let remembered = if step.cache_hit { "  remembered" } else { "" };
        let indent = bar.clone();
        indent.set_style(plain(self.depth(place)));
        let (sign, name, time) = (say::sign(step.status.name()), step.name, say::time(step.duration_ms));
        let words = format!("{sign} {name}  {time}{remembered}{why}");
        indent.finish_with_message(caudal_types::printable(&words).into_owned());
    }

    fn say(&mut self, place: usize, words: &str) {
        let Some(step) = StepReport::of(&self.entries, place) else { return };
        if let Some(bar) = self.bar(place) {
            bar.set_message(
                caudal_types::printable(&format!("{}  {}", step.name, caudal_types::shorten(words))).into_owned(),
            );
        }
    }
}

fn plain(depth: usize) -> ProgressStyle {
    let style = ProgressStyle::with_template(&format!("{}{{msg}}", "  ".repeat(depth)));
    style.unwrap_or_else(|_| ProgressStyle::default_spinner())
}
