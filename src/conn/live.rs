//! What the server knows of a connection under way: its socket, whether a message is coming in, how long the client is
//! waited for, and whether that wait was ended.

use crate::net::socket::Socket;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A connection as the server sees it.
#[derive(Debug)]
pub struct Live {
    /// The socket.
    pub socket: Arc<Socket>,
    opened: Instant,
    /// Set from the 354 or the first accepted chunk to the reply: at a shutdown the message may finish.
    busy: AtomicBool,
    /// Whether the client is waited for.
    waiting: AtomicBool,
    /// When that ends at the latest, in milliseconds after `opened`.
    until: AtomicUsize,
    /// When it ends at the latest under stress.
    until_pressed: AtomicUsize,
    /// Set once the wait was ended from outside.
    expired: AtomicBool,
}

const NEVER: usize = usize::MAX;

impl Live {
    /// A connection that was just taken.
    pub fn new(socket: Socket) -> Self {
        Self {
            socket: Arc::new(socket),
            opened: Instant::now(),
            busy: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            until: AtomicUsize::new(NEVER),
            until_pressed: AtomicUsize::new(NEVER),
            expired: AtomicBool::new(false),
        }
    }

    /// Whether a message is coming in.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// A message begins or is over. Where the server's `stopping` is looked at after this, either the message is
    /// refused or the end of the server waits for it.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::SeqCst);
    }

    /// A wait for the client begins. Its socket does not know of these ends: `until`, where there is one, and `pressed`,
    /// which counts under stress.
    pub fn begin_wait(&self, until: Option<Instant>, pressed: Instant) {
        let until = until.map_or(NEVER, |until| self.clock(until));
        self.until.store(until, Ordering::Relaxed);
        self.until_pressed
            .store(self.clock(pressed), Ordering::Relaxed);
        self.waiting.store(true, Ordering::Release);
    }

    /// The client is not waited for any more.
    pub fn end_wait(&self) {
        self.waiting.store(false, Ordering::Relaxed);
    }

    /// Ends the wait where it is past its end; the connection finds itself [`Self::expired`].
    pub fn expire(&self, now: Instant, stress: bool) {
        if !self.waiting.load(Ordering::Acquire) {
            return;
        }
        let now = self.clock(now);
        let over = |end: &AtomicUsize| now >= end.load(Ordering::Relaxed);
        if over(&self.until) || stress && over(&self.until_pressed) {
            // One that is still there at the second look hangs in a write.
            let how = match self.expired.swap(true, Ordering::SeqCst) {
                false => Shutdown::Read,
                true => Shutdown::Both,
            };
            self.socket.shutdown(how);
        }
    }

    /// Whether a wait was ended by [`Self::expire`].
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
