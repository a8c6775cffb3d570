//! The state of hops that all threads share: which have answered, failed or are claimed by ATRN, and the mail that
//! waits for them.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::schedule::Hop;
use super::sender::{Relay, State, chance};
use crate::client::Handle;
use crate::clock;
use crate::metrics::Waiting;
use crate::smtp::client::ConnectionError;

/// How long ATRN waits for a thread that has its mail.
const BUSY: Duration = Duration::from_secs(2);

impl Relay {
    /// Called when a connection to a hop is open.
    pub(super) fn opened(&self, hop: &Hop, thread: usize, handle: Handle) {
        let mut state = self.lock();
        state.handles.insert(thread, (hop.clone(), handle));
        state.schedule.answered(hop);
    }

    /// Called when a thread could not connect to a hop. If others have connections, the hop may allow no more: true,
    /// and there are no more for a while.
    pub(super) fn is_served(&self, hop: &Hop, thread: usize, failure: &ConnectionError) -> bool {
        let mut state = self.lock();
        let others = state.handles.iter().filter(|(own, _)| **own != thread);
        let open = others.filter(|(_, (other, _))| other == hop).count();
        if open > 0 {
            let wait = self.settings.retry_policy.wait(1, chance());
            let until = clock::seconds().saturating_add(wait);
            state.schedule.limit(hop, open, until);
            drop(state);
            self.log_failure(hop, open, wait, failure);
        }
        open > 0
    }

    /// Called when a hop did not answer: all its mail waits.
    pub(super) fn hop_failed(&self, hop: &Hop, failure: &ConnectionError) {
        let wait = self.hop_waits(hop, failure.is_of_tls());
        self.log_failure(hop, 0, wait, failure);
    }

    fn log_failure(&self, hop: &Hop, open: usize, wait: u64, failure: &ConnectionError) {
        let route = self.route(hop.route).map_or("", |route| &route.url);
        let domain = &hop.domain;
        log::warn!(
            "relay hop={route:?} domain={domain:?} open={open} wait={wait} why={:?}",
            failure.to_string()
        );
    }

    /// Defers all mail of a hop; `tls` is true if TLS was the reason. Returns the wait in seconds.
    pub(super) fn hop_waits(&self, hop: &Hop, tls: bool) -> u64 {
        let (now, policy) = (clock::seconds(), &self.settings.retry_policy);
        let mut state = self.lock();
        let until = state.schedule.failed(hop, now, policy, chance(), tls);
        until.saturating_sub(now)
    }

    /// True if a hop is tried without TLS now.
    pub(super) fn is_clear(&self, hop: &Hop) -> bool {
        self.lock().schedule.is_clear(hop, clock::seconds())
    }

    /// True if a message is given up.
    pub(super) fn is_over(&self, created: u64, now: u64) -> bool {
        let state = self.lock_by_the_clock();
        let policy = &self.settings.retry_policy;
        policy.is_over(state.received(created), now) && state.grace <= now
    }

    /// The state after a look at the clock, which may have been set since the watching thread looked.
    pub(super) fn lock_by_the_clock(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        let at = (Instant::now(), clock::uptime());
        state.look_at_clock(clock::seconds(), at, &self.settings.retry_policy);
        state
    }

    /// Schedules the next try of a message.
    pub(super) fn put_off(&self, hop: &Hop, id: &Arc<str>, next: u64) {
        let mut state = self.lock();
        state.schedule.add(hop, id, next);
        let is_due = next <= clock::seconds();
        let idle = is_due.then(|| state.idle.take(hop)).flatten();
        drop(state);
        match idle {
            Some(idle) => idle.unpark(),
            // One more connection may be opened for it, now or when it is due.
            None => self.changed.notify_all(),
        }
    }

    /// The waiting messages of a hop.
    pub(super) fn waiting(&self, hop: &Hop) -> Vec<Arc<str>> {
        self.lock().schedule.waiting(hop)
    }

    /// The mail that waits for each next hop, at `now`.
    pub fn lengths(&self, now: u64) -> Vec<Waiting> {
        let state = self.lock();
        let routes = self.settings.routes.all().iter().enumerate();
        let waiting = routes.map(|(number, route)| {
            let (messages, oldest) = state.schedule.length(number);
            let second = oldest.and_then(|id| id.split('.').next());
            let made = second.and_then(|second| second.parse().ok());
            Waiting {
                hop: route.url.clone(),
                messages,
                oldest: made.map_or(0, |made| now.saturating_sub(made)),
            }
        });
        waiting.collect()
    }

    /// Removes a message of a hop; true if it was there.
    pub(super) fn forget(&self, hop: &Hop, id: &str) -> bool {
        self.lock().schedule.remove(hop, id)
    }

    /// Claims hops for ATRN; false if any is claimed already, and at a shutdown.
    pub(super) fn claim(&self, hops: &[Hop]) -> bool {
        let mut state = self.lock();
        if state.stopping || !state.schedule.claim(hops) {
            return false;
        }
        // A thread that looks at a message has it for a moment; then it waits again.
        let busy = |state: &mut State| state.schedule.is_running(hops);
        let waited = self.changed.wait_timeout_while(state, BUSY, busy);
        drop(waited);
        true
    }

    /// Releases claimed hops.
    pub(super) fn release(&self, hops: &[Hop]) {
        self.lock().schedule.release(hops);
        self.changed.notify_all();
    }

    /// Takes the wanted messages of a hop, oldest first.
    pub(super) fn withdraw(&self, hop: &Hop, wanted: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        self.lock().schedule.withdraw(hop, wanted)
    }

    /// Registers a sending thread that was started elsewhere. Returns its number.
    pub(super) fn begin_thread(&self) -> usize {
        let mut state = self.lock();
        state.running += 1;
        state.threads = state.threads.wrapping_add(1);
        state.threads
    }

    /// A sending thread of a hop, which is removed when this is dropped.
    pub(super) const fn running<'a>(&'a self, hop: &'a Hop, thread: usize) -> Running<'a> {
        Running {
            relay: self,
            hop,
            thread,
            id: None,
        }
    }

    /// Removes a sending thread.
    pub(super) fn end_thread(&self, thread: usize) {
        let mut state = self.lock();
        state.handles.remove(&thread);
        state.running = state.running.saturating_sub(1);
        self.changed.notify_all();
    }
}

/// A thread that sends, until it ends. After a panic its message is tried again later.
pub(super) struct Running<'a> {
    relay: &'a Relay,
    hop: &'a Hop,
    thread: usize,
    /// The message in hand.
    pub(super) id: Option<Arc<str>>,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            let wait = self.relay.settings.retry_policy.longest();
            let next = clock::seconds().saturating_add(wait);
            self.relay.put_off(self.hop, id, next);
        }
        self.relay.lock().schedule.end(self.hop);
        self.relay.end_thread(self.thread);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::super::testing::relay;
    use super::*;
    use crate::testing::Scratch;

    /// Mail is not given up by a clock that was set since the watching thread looked at it, which may be a minute ago.
    #[test]
    fn mail_is_not_over_because_the_clock_was_set() {
        let dir = Scratch::new();
        let relay = relay(&dir, &[]);
        let policy = relay.settings.retry_policy;
        let (now, created) = (clock::seconds(), clock::seconds() - 10 * 86_400);
        assert!(relay.is_over(created, now));
        relay
            .lock()
            .look_at_clock(created, (Instant::now(), None), &policy);
        assert!(!relay.is_over(created, now));
        assert!(relay.is_over(created, now + 600), "after one more try");
    }

    /// A directory in the place of the envelope is an error like one without descriptors: nothing is wrong with a file.
    #[test]
    fn mail_that_cannot_be_read_now_is_tried_again() {
        let dir = Scratch::new();
        let relay = relay(&dir, &[]);
        let hop = relay.hop_or_none("x@far.test");
        let id: Arc<str> = "1600000000.M1P1Q1".into();
        let envelope = dir.0.join("queue/new").join(&*id);
        std::fs::create_dir(&envelope).unwrap();
        relay.send_message(&hop, &id, None, 0);
        assert_eq!(relay.waiting(&hop), [Arc::clone(&id)]);
        assert!(relay.forget(&hop, &id));
        std::fs::remove_dir(&envelope).unwrap();
        std::fs::write(&envelope, "damaged\n").unwrap();
        relay.send_message(&hop, &id, None, 0);
        std::fs::remove_file(&envelope).unwrap();
        relay.send_message(&hop, &id, None, 0);
        assert!(relay.waiting(&hop).is_empty());
        // A directory that is not in its place for a while has all its mail when it is back.
        std::fs::rename(dir.0.join("queue/new"), dir.0.join("queue/away")).unwrap();
        relay.send_message(&hop, &id, None, 0);
        assert_eq!(relay.waiting(&hop), [id]);
    }
}
