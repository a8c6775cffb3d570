//! The connections that wait for mail, by hop. New mail wakes one connection to its own hop and no other thread.

use std::collections::HashMap;
use std::sync::{Arc, Condvar};

use super::schedule::Hop;

/// The threads of one hop that wait.
#[derive(Debug, Default)]
struct Waiters {
    /// Threads that were not woken yet.
    waiting: usize,
    /// Threads that were woken and have not run since.
    woken: usize,
    wake: Arc<Condvar>,
}

/// The waiting threads by hop. One lock guards this and the schedule.
#[derive(Debug, Default)]
pub(super) struct IdleConnections(HashMap<Hop, Waiters>);

impl IdleConnections {
    /// Called when a thread begins to wait; it waits on the returned condition variable.
    pub(super) fn enter(&mut self, hop: &Hop) -> Arc<Condvar> {
        let waiters = self.0.entry(hop.clone()).or_default();
        waiters.waiting += 1;
        Arc::clone(&waiters.wake)
    }

    /// Called when a thread no longer waits, whatever woke it.
    pub(super) fn leave(&mut self, hop: &Hop) {
        let Some(waiters) = self.0.get_mut(hop) else {
            return;
        };
        if waiters.woken > 0 {
            waiters.woken -= 1;
        } else {
            waiters.waiting = waiters.waiting.saturating_sub(1);
        }
        if waiters.waiting + waiters.woken == 0 {
            self.0.remove(hop);
        }
    }

    /// Wakes a thread of the hop; false if none is left to wake.
    pub(super) fn wake(&mut self, hop: &Hop) -> bool {
        let Some(waiters) = self.0.get_mut(hop).filter(|waiters| waiters.waiting > 0) else {
            return false;
        };
        waiters.waiting -= 1;
        waiters.woken += 1;
        waiters.wake.notify_one();
        true
    }

    /// Wakes all; each looks for itself.
    pub(super) fn wake_all(&mut self) {
        for waiters in self.0.values_mut() {
            waiters.woken += std::mem::take(&mut waiters.waiting);
            waiters.wake.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(domain: &str) -> Hop {
        Hop {
            route: 0,
            domain: domain.into(),
        }
    }

    #[test]
    fn each_message_wakes_another_thread_of_its_hop() {
        let (a, b) = (hop("a"), hop("b"));
        let mut idle = IdleConnections::default();
        assert!(!idle.wake(&a), "nobody waits");
        idle.enter(&a);
        idle.enter(&a);
        idle.enter(&b);
        assert!(idle.wake(&a) && idle.wake(&a));
        assert!(!idle.wake(&a), "both have something to do already");
        assert!(idle.wake(&b));
        for one in [&a, &a, &b] {
            idle.leave(one);
        }
        assert!(idle.0.is_empty());
    }

    /// A thread whose time is over takes the wake-up of another one, which finds out by itself.
    #[test]
    fn a_wake_up_that_another_thread_took_is_not_counted_twice() {
        let a = hop("a");
        let mut idle = IdleConnections::default();
        idle.enter(&a);
        idle.enter(&a);
        assert!(idle.wake(&a));
        idle.leave(&a);
        assert!(idle.wake(&a), "one is still waiting");
        idle.leave(&a);
        assert!(idle.0.is_empty());
        idle.enter(&a);
        idle.wake_all();
        assert!(!idle.wake(&a));
        idle.leave(&a);
        assert!(idle.0.is_empty());
    }
}
