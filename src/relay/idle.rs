//! The connections that wait for mail, by hop. New mail wakes one connection to its own hop and no other thread: the
//! latest to wait, whose memory is still cached, so that connections that are not needed can end.

use std::thread::{self, Thread};

use super::schedule::Hop;

/// The waiting threads and their hops, the latest last. One lock guards this and the schedule; a thread that was taken is
/// woken after it is released.
#[derive(Debug, Default)]
pub(super) struct IdleConnections(Vec<(Hop, Thread)>);

impl IdleConnections {
    /// Called when this thread begins to wait.
    pub(super) fn enter(&mut self, hop: &Hop) {
        self.0.push((hop.clone(), thread::current()));
    }

    /// Called when this thread no longer waits, whatever woke it.
    pub(super) fn leave(&mut self) {
        let own = thread::current().id();
        self.0.retain(|(_, other)| other.id() != own);
    }

    /// Takes a thread of the hop to wake; each is taken once.
    pub(super) fn take(&mut self, hop: &Hop) -> Option<Thread> {
        let place = self.0.iter().rposition(|(other, _)| other == hop)?;
        Some(self.0.remove(place).1)
    }

    /// Wakes all; each looks for itself.
    pub(super) fn wake_all(&mut self) {
        self.0.drain(..).for_each(|(_, idle)| idle.unpark());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
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
        let enter = |idle: &mut IdleConnections, hop: &Hop| {
            let enter = || {
                idle.enter(hop);
                thread::current().id()
            };
            thread::scope(|scope| scope.spawn(enter).join().unwrap())
        };
        let take = |idle: &mut IdleConnections, hop: &Hop| idle.take(hop).map(|idle| idle.id());
        assert_eq!(take(&mut idle, &a), None, "nobody waits");
        let first = enter(&mut idle, &a);
        idle.enter(&a);
        let last = enter(&mut idle, &a);
        let other = enter(&mut idle, &b);
        assert_eq!(take(&mut idle, &a), Some(last), "the latest first");
        idle.leave();
        assert_eq!(take(&mut idle, &a), Some(first), "this one has left");
        assert_eq!(take(&mut idle, &a), None);
        assert_eq!(take(&mut idle, &b), Some(other));
        idle.leave();
        idle.leave();
        assert!(idle.0.is_empty());
    }

    #[test]
    fn all_are_woken_at_once() {
        let mut idle = IdleConnections::default();
        idle.enter(&hop("a"));
        idle.enter(&hop("b"));
        idle.wake_all();
        // Without the wake-up this would wait for ever.
        thread::park();
        assert!(idle.0.is_empty());
    }
}
