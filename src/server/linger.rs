//! Drops the input of refused connections for a moment, because closing with unread input would reset the connection
//! and lose the reply. One thread does it for all, so that the accept loop never waits.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::net::socket::Socket;

/// How long a socket is kept.
const TIME: Duration = Duration::from_secs(1);
/// Maximum octets read from a socket.
const OCTETS: usize = 1024 * 1024;
/// The polling interval.
const PAUSE: Duration = Duration::from_millis(20);

struct Lingering {
    socket: Arc<Socket>,
    until: Instant,
    left: usize,
}

/// The sockets that wait to be closed.
pub(super) struct Linger {
    kept: Mutex<VecDeque<Lingering>>,
    added: Condvar,
    most: usize,
}

impl Linger {
    /// Starts the thread, for at most `most` sockets: the oldest makes room for the next one.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(most: usize) -> std::io::Result<Arc<Self>> {
        let linger = Arc::new(Self {
            kept: Mutex::default(),
            added: Condvar::new(),
            most,
        });
        let own = Arc::clone(&linger);
        let builder = std::thread::Builder::new().stack_size(64 * 1024);
        builder.spawn(move || own.run()).map(|_| linger)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Lingering>> {
        lock(&self.kept)
    }

    /// Adds a socket whose writing side is already shut down.
    pub(super) fn add(&self, socket: Arc<Socket>) {
        let mut kept = self.lock();
        if kept.len() >= self.most {
            kept.pop_front();
        }
        kept.push_back(Lingering {
            socket,
            until: Instant::now() + TIME,
            left: OCTETS,
        });
        self.added.notify_one();
    }

    fn run(&self) {
        loop {
            let mut kept = self.lock();
            while kept.is_empty() {
                kept = self
                    .added
                    .wait(kept)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            let now = Instant::now();
            kept.retain_mut(|one| now < one.until && one.drain());
            drop(kept);
            std::thread::sleep(PAUSE);
        }
    }
}

impl Lingering {
    /// Drops pending input; false if there will be no more.
    fn drain(&mut self) -> bool {
        match self.socket.drop_input(self.left) {
            Ok(octets) => self.left -= octets.min(self.left),
            Err(_) => return false,
        }
        self.left > 0
    }
}
