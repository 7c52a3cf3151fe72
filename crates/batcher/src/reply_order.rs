//! Ordered replies: answers leave in the order in which their requests were admitted.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

type SendReply = Box<dyn FnOnce() + std::marker::Send>;

/// Admitted entries that are not answered yet, with the answers that wait for earlier ones.
#[derive(Default)]
pub(crate) struct ReplyOrder(Mutex<BTreeMap<u64, Option<SendReply>>>);

/// One entry's place in the order. Dropping it lets the next one proceed.
pub(crate) struct OrderedReply {
    order: Arc<ReplyOrder>,
    number: u64,
}

impl fmt::Debug for OrderedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turn({})", self.number)
    }
}

impl ReplyOrder {
    /// Adds the entry with `number`; numbers are ascending.
    pub(crate) fn register_reply(self: &Arc<Self>, number: u64) -> OrderedReply {
        self.lock_waiting().insert(number, None);
        OrderedReply { order: Arc::clone(self), number }
    }

    fn lock_waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Option<SendReply>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends all answers that have no earlier entry: under the lock, so that none overtakes another.
    fn send_ready(waiting: &mut BTreeMap<u64, Option<SendReply>>) {
        while let Some(first) = waiting.first_entry().filter(|first| first.get().is_some()) {
            if let Some(send) = first.remove() {
                send();
            }
        }
    }
}

impl OrderedReply {
    /// Calls `send` when all earlier entries have been answered or dropped.
    pub(crate) fn send_in_order(self, send: impl FnOnce() + std::marker::Send + 'static) {
        self.order.lock_waiting().insert(self.number, Some(Box::new(send)));
    }
}

impl Drop for OrderedReply {
    fn drop(&mut self) {
        let mut waiting = self.order.lock_waiting();
        if waiting.get(&self.number).is_some_and(Option::is_none) {
            waiting.remove(&self.number);
        }
        ReplyOrder::send_ready(&mut waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_leave_in_order_and_dropped_ones_are_skipped() {
        let (order, log) = (Arc::new(ReplyOrder::default()), Arc::new(Mutex::new(Vec::new())));
        let say = |number: u64| {
            let log = Arc::clone(&log);
            move || log.lock().unwrap().push(number)
        };
        let said = || log.lock().unwrap().clone();
        let [first, second, third, fourth] = [1, 2, 3, 4].map(|number| order.register_reply(number));
        third.send_in_order(say(3));
        second.send_in_order(say(2));
        assert!(said().is_empty());
        drop(first);
        assert_eq!(said(), [2, 3]);
        fourth.send_in_order(say(4));
        assert_eq!(said(), [2, 3, 4]);
        assert!(order.lock_waiting().is_empty());
    }
}
