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
    /// When the wait for the client began, in milliseconds after `opened`; [`NEVER`] while there is none.
    since: AtomicUsize,
    /// When it ends at the latest, on the same clock.
    until: AtomicUsize,
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
            since: AtomicUsize::new(NEVER),
            until: AtomicUsize::new(NEVER),
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

    /// The wait for the client began at `since`, and with `patience` there is an end to it that its socket does not
    /// know of.
    pub fn begin_wait(&self, since: Instant, patience: Option<Duration>) {
        let until = patience.map_or(NEVER, |patience| self.clock(Instant::now() + patience));
        self.until.store(until, Ordering::Relaxed);
        self.since.store(self.clock(since), Ordering::Relaxed);
    }

    /// The client is not waited for any more.
    pub fn end_wait(&self) {
        self.since.store(NEVER, Ordering::Relaxed);
    }

    /// Ends the wait where it is past its end, or has lasted for `patience`; the connection finds itself
    /// [`Self::expired`].
    pub fn expire(&self, now: Instant, patience: Option<Duration>) {
        let (now, since) = (self.clock(now), self.since.load(Ordering::Relaxed));
        let patience = patience.map_or(NEVER, millis);
        if since == NEVER {
            return;
        }
        if now >= self.until.load(Ordering::Relaxed) || now.saturating_sub(since) >= patience {
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
