//! Requests in progress and the stage of each, for `explain`.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use caudal_types::{Stage, Trace};

/// Groups of requests with a lock each, so that threads seldom meet.
const SHARDS: usize = 8;

/// The requests in progress.
#[derive(Debug, Default)]
pub(crate) struct Live {
    shards: [Mutex<Shard>; SHARDS],
    next: AtomicUsize,
}

#[derive(Debug, Default)]
struct Shard {
    traces: Vec<Option<Trace>>,
    free: Vec<usize>,
}

/// The place of a request among those in progress.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    shard: usize,
    index: usize,
}

impl Live {
    fn shard(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes up the request that `trace` belongs to.
    pub(crate) fn enter(&self, trace: &Trace) -> Place {
        let shard = self.next.fetch_add(1, Relaxed) % SHARDS;
        let mut requests = self.shard(shard);
        let index = match requests.free.pop() {
            Some(index) => index,
            None => {
                requests.traces.push(None);
                requests.traces.len() - 1
            }
        };
        requests.traces[index] = Some(trace.clone());
        Place { shard, index }
    }

    /// Lets go of the request at `place`.
    pub(crate) fn leave(&self, place: Place) {
        let mut requests = self.shard(place.shard);
        requests.traces[place.index] = None;
        requests.free.push(place.index);
    }

    /// How many requests are at each stage now, in the order of [`Stage::ALL`].
    pub(crate) fn stages(&self) -> [usize; Stage::ALL.len()] {
        let mut counts = [0; Stage::ALL.len()];
        for shard in 0..SHARDS {
            let requests = self.shard(shard);
            for stage in requests.traces.iter().flatten().filter_map(Trace::stage_in_progress) {
                counts[stage as usize] += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn live_requests_are_counted_by_their_stage() {
        let live = Live::default();
        let traces: Vec<Trace> = (0..20).map(|_| Trace::new(Instant::now())).collect();
        let places: Vec<Place> = traces.iter().map(|trace| live.enter(trace)).collect();
        traces[..5].iter().for_each(|trace| trace.enter(Stage::Store));
        let at = |stage: Stage| live.stages()[stage as usize];
        assert_eq!((at(Stage::Receive), at(Stage::Store)), (15, 5));
        for trace in &traces[15..] {
            trace.close();
        }
        assert_eq!((at(Stage::Receive), at(Stage::Store)), (10, 5), "what is only being sent is not in progress");
        places[..10].iter().for_each(|place| live.leave(*place));
        assert_eq!((at(Stage::Receive), at(Stage::Store)), (5, 0));
        live.enter(&traces[0]);
        let kept: usize = live.shards.iter().map(|shard| shard.lock().unwrap().traces.len()).sum();
        assert_eq!((at(Stage::Store), kept), (1, 20), "places that are free are taken again");
    }
}
