//! The server's view of a connection: its socket, whether a message is arriving, and the current wait and its end.

use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::net::socket::Socket;

/// A connection, as the server sees it.
#[derive(Debug)]
pub struct Live {
    /// The socket.
    pub socket: Arc<Socket>,
    opened: Instant,
    /// True from the 354 or the first accepted chunk to the reply: at a shutdown the message may finish.
    busy: AtomicBool,
    /// True once the roles are reversed: at a shutdown the relay decides first.
    turned: AtomicBool,
    /// True while waiting for the client.
    waiting: AtomicBool,
    /// The end of the wait, in milliseconds after `opened`.
    until: AtomicUsize,
    /// The end of the wait under stress.
    until_stressed: AtomicUsize,
    /// True once the server has ended the wait.
    expired: AtomicBool,
}

const NEVER: usize = usize::MAX;

impl Live {
    /// A new connection.
    pub fn new(socket: Socket) -> Self {
        Self {
            socket: Arc::new(socket),
            opened: Instant::now(),
            busy: AtomicBool::new(false),
            turned: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            until: AtomicUsize::new(NEVER),
            until_stressed: AtomicUsize::new(NEVER),
            expired: AtomicBool::new(false),
        }
    }

    /// True while a message is arriving.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// Marks the start or end of a message. Check the server's `stopping` after this: then either the message is
    /// refused, or the shutdown waits for it.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::SeqCst);
    }

    /// True if the roles are reversed.
    pub fn is_turned(&self) -> bool {
        self.turned.load(Ordering::SeqCst)
    }

    /// Notes that the roles are reversed, for the rest of the connection.
    pub fn set_turned(&self) {
        self.turned.store(true, Ordering::SeqCst);
    }

    /// Begins a wait for the client, with two ends that its socket does not know: `until`, if any, and `stressed`,
    /// which counts under stress.
    pub fn begin_wait(&self, until: Option<Instant>, stressed: Instant) {
        let until = until.map_or(NEVER, |until| self.clock(until));
        self.until.store(until, Ordering::Relaxed);
        self.until_stressed
            .store(self.clock(stressed), Ordering::Relaxed);
        self.waiting.store(true, Ordering::Release);
    }

    /// Ends a wait for the client.
    pub fn end_wait(&self) {
        self.waiting.store(false, Ordering::Relaxed);
    }

    /// Ends the wait if its time is over; the connection is then [`Self::expired`].
    pub fn expire(&self, now: Instant, stress: bool) {
        if !self.waiting.load(Ordering::Acquire) {
            return;
        }
        let now = self.clock(now);
        let over = |end: &AtomicUsize| now >= end.load(Ordering::Relaxed);
        if over(&self.until) || stress && over(&self.until_stressed) {
            // A connection that is still here at the second look is blocked in a write.
            let how = match self.expired.swap(true, Ordering::SeqCst) {
                false => Shutdown::Read,
                true => Shutdown::Both,
            };
            self.socket.shutdown(how);
        }
    }

    /// True if a wait was ended by [`Self::expire`].
    pub fn expired(&self) -> bool {
        self.expired.load(Ordering::SeqCst)
    }

    fn clock(&self, at: Instant) -> usize {
        millis(at.saturating_duration_since(self.opened))
    }
}

fn millis(time: Duration) -> usize {
    usize::try_from(time.as_millis()).unwrap_or(NEVER)
}
