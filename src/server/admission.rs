//! Who may come in: the limits, the places they are counted by, and stress.

use crate::config::Config;
use crate::conn;
use crate::net::listen::{Accepted, Peer};
use crate::net::pool::Pool;
use crate::net::stream::Socket;
use crate::smtp::reply;
use crate::state::{Live, ServerState};
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a message may still take at a shutdown.
const GRACE: Duration = Duration::from_secs(30);

/// Connections under way.
pub(super) struct ConnLimits {
    inside: Mutex<Inside>,
    left: Condvar,
    max: usize,
    max_per_client: usize,
    state: Arc<ServerState>,
}

#[derive(Default)]
struct Inside {
    live: HashMap<u64, Arc<Live>>,
    clients: HashMap<IpAddr, usize>,
    number: u64,
}

/// A place among them; it is given up also where the connection panics.
struct Slot {
    limits: Arc<ConnLimits>,
    number: u64,
    ip: Option<IpAddr>,
}

impl ConnLimits {
    pub(super) fn new(config: &Config, state: &Arc<ServerState>) -> Self {
        Self {
            inside: Mutex::default(),
            left: Condvar::new(),
            max: config.max_connections,
            max_per_client: config.max_per_client,
            state: Arc::clone(state),
        }
    }

    /// Nothing panics under the lock, so that a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, unless the client has too many or there is none left. A Unix socket has no
    /// address to count by; its mode says who may use it.
    fn enter(self: &Arc<Self>, live: &Arc<Live>, ip: Option<IpAddr>) -> Result<Slot, reply::Reply> {
        let mut inside = self.lock();
        if let Some(ip) = ip {
            let count = inside.clients.entry(ip).or_default();
            if *count >= self.max_per_client {
                return Err(reply::TOO_MUCH);
            }
            *count += 1;
        }
        inside.number += 1;
        let number = inside.number;
        inside.live.insert(number, Arc::clone(live));
        let slot = Slot {
            limits: Arc::clone(self),
            number,
            ip,
        };
        let count = inside.live.len();
        drop(inside);
        self.update_stress(count);
        if count > self.max {
            return Err(reply::UNAVAILABLE);
        }
        Ok(slot)
    }

    /// Whether nobody is inside.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().live.is_empty()
    }

    /// More than four fifths in use: waits get shorter.
    fn update_stress(&self, count: usize) {
        let stress = count.saturating_mul(5) > self.max.saturating_mul(4);
        self.state.stress.store(stress, Ordering::Relaxed);
    }

    /// Idle connections hear 421 now; one within a message may finish it (F41, F42).
    pub(super) fn drain(&self) {
        let deadline = Instant::now() + GRACE;
        let mut inside = self.lock();
        for live in inside.live.values() {
            if !live.busy.load(Ordering::SeqCst) {
                live.socket.shutdown(Shutdown::Read);
            }
        }
        while !inside.live.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.left.wait_timeout(inside, left);
            inside = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inside = self.limits.lock();
        inside.live.remove(&self.number);
        if let Some(ip) = self.ip
            && let Some(count) = inside.clients.get_mut(&ip)
        {
            *count -= 1;
            if *count == 0 {
                inside.clients.remove(&ip);
            }
        }
        let count = inside.live.len();
        drop(inside);
        self.limits.update_stress(count);
        // Nobody waits for that before.
        if self.limits.state.stopping.load(Ordering::SeqCst) {
            self.limits.left.notify_all();
        }
    }
}

/// Where newcomers go: to a thread, or away.
pub(super) struct Admission {
    pub(super) limits: Arc<ConnLimits>,
    pub(super) pool: Pool,
    pub(super) state: Arc<ServerState>,
}

impl Admission {
    pub(super) fn admit(&self, listener: usize, accepted: Accepted) {
        let live = Arc::new(Live {
            socket: Arc::new(accepted.socket),
            busy: AtomicBool::new(false),
        });
        if accepted.overflow {
            return turn_away(&live.socket, &reply::UNAVAILABLE);
        }
        let ip = match accepted.peer {
            Peer::Tcp(address) => Some(address.ip()),
            Peer::Unix(_) => None,
        };
        let slot = match self.limits.enter(&live, ip) {
            Ok(slot) => slot,
            Err(refused) => return turn_away(&live.socket, &refused),
        };
        let (state, own) = (Arc::clone(&self.state), Arc::clone(&live));
        let job = move || {
            let _slot = slot;
            conn::serve(&state, &own, &accepted.peer, listener);
        };
        if self.pool.run(job).is_err() {
            turn_away(&live.socket, &reply::UNAVAILABLE);
        }
    }
}

/// One write, no worker, no wait. What the client has sent
/// already is not read, which on some systems costs it the reply; reading could block.
fn turn_away(socket: &Socket, reply: &reply::Reply) {
    let mut octets = Vec::new();
    reply.render(&mut octets);
    let _ = socket.write_now(&octets);
    socket.shutdown(Shutdown::Write);
}
