//! Who may come in: the limits, the places they are counted by, and stress.

use crate::config::Config;
use crate::conn;
use crate::net::listen::{Accepted, Peer};
use crate::net::pool::Pool;
use crate::net::stream::Socket;
use crate::smtp::reply;
use crate::state::{Live, Shared};
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a message may still take at a shutdown.
const GRACE: Duration = Duration::from_secs(30);

/// Connections under way.
pub(super) struct Crowd {
    inside: Mutex<Inside>,
    left: Condvar,
    max: usize,
    max_per_client: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Inside {
    live: HashMap<u64, Arc<Live>>,
    clients: HashMap<IpAddr, usize>,
    number: u64,
}

/// A place among them; it is given up also where the connection panics.
struct Member {
    crowd: Arc<Crowd>,
    number: u64,
    ip: Option<IpAddr>,
}

impl Crowd {
    pub(super) fn new(config: &Config, shared: &Arc<Shared>) -> Self {
        Self {
            inside: Mutex::default(),
            left: Condvar::new(),
            max: config.max_connections,
            max_per_client: config.max_per_client,
            shared: Arc::clone(shared),
        }
    }

    /// Nothing panics under the lock, so that a poisoned one is still sound.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, unless the client has too many or there is none left. A Unix socket has no
    /// address to count by; its mode says who may use it.
    fn enter(
        self: &Arc<Self>,
        live: &Arc<Live>,
        ip: Option<IpAddr>,
    ) -> Result<Member, reply::Reply> {
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
        let member = Member {
            crowd: Arc::clone(self),
            number,
            ip,
        };
        let count = inside.live.len();
        drop(inside);
        self.press(count);
        if count > self.max {
            return Err(reply::UNAVAILABLE);
        }
        Ok(member)
    }

    /// Whether nobody is inside.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().live.is_empty()
    }

    /// More than four fifths in use: waits get shorter.
    fn press(&self, count: usize) {
        let crowded = count.saturating_mul(5) > self.max.saturating_mul(4);
        self.shared.crowded.store(crowded, Ordering::Relaxed);
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

impl Drop for Member {
    fn drop(&mut self) {
        let mut inside = self.crowd.lock();
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
        self.crowd.press(count);
        // Nobody waits for that before.
        if self.crowd.shared.stopping.load(Ordering::SeqCst) {
            self.crowd.left.notify_all();
        }
    }
}

/// Where newcomers go: to a thread, or away.
pub(super) struct Gate {
    pub(super) crowd: Arc<Crowd>,
    pub(super) pool: Pool,
    pub(super) shared: Arc<Shared>,
}

impl Gate {
    pub(super) fn admit(&self, port: usize, accepted: Accepted) {
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
        let member = match self.crowd.enter(&live, ip) {
            Ok(member) => member,
            Err(refused) => return turn_away(&live.socket, &refused),
        };
        let (shared, own) = (Arc::clone(&self.shared), Arc::clone(&live));
        let job = move || {
            let _member = member;
            conn::serve(&shared, &own, &accepted.peer, port);
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
