//! Answers in the order in which their requests were admitted, whichever is ready first.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

type Send = Box<dyn FnOnce() + std::marker::Send>;

/// Who was admitted and has not answered yet; with the answer of who is ready and not first.
#[derive(Default)]
pub(crate) struct Order(Mutex<BTreeMap<u64, Option<Send>>>);

/// One's place in the order. Dropping it lets the next go ahead.
pub(crate) struct Turn {
    order: Arc<Order>,
    number: u64,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Turn({})", self.number)
    }
}

impl Order {
    /// The place of who has `number`; numbers come in ascending order.
    pub(crate) fn turn(self: &Arc<Self>, number: u64) -> Turn {
        self.lock().insert(number, None);
        Turn { order: Arc::clone(self), number }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Option<Send>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go all that are ready and have nobody before them: under the lock, so that none overtakes.
    fn let_go(waiting: &mut BTreeMap<u64, Option<Send>>) {
        while let Some(first) = waiting.first_entry().filter(|first| first.get().is_some()) {
            if let Some(send) = first.remove() {
                send();
            }
        }
    }
}

impl Turn {
    /// Calls `send` when all before it have answered or gone.
    pub(crate) fn answer(self, send: impl FnOnce() + std::marker::Send + 'static) {
        self.order.lock().insert(self.number, Some(Box::new(send)));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.order.lock();
        if waiting.get(&self.number).is_some_and(Option::is_none) {
            waiting.remove(&self.number);
        }
        Order::let_go(&mut waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_order_and_who_goes_holds_up_nobody() {
        let (order, log) = (Arc::new(Order::default()), Arc::new(Mutex::new(Vec::new())));
        let say = |number: u64| {
            let log = Arc::clone(&log);
            move || log.lock().unwrap().push(number)
        };
        let said = || log.lock().unwrap().clone();
        let [first, second, third, fourth] = [1, 2, 3, 4].map(|number| order.turn(number));
        third.answer(say(3));
        second.answer(say(2));
        assert!(said().is_empty());
        drop(first);
        assert_eq!(said(), [2, 3]);
        fourth.answer(say(4));
        assert_eq!(said(), [2, 3, 4]);
        assert!(order.lock().is_empty());
    }
}
