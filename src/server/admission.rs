//! Admission of connections: limits, slots and stress.

use std::collections::HashMap;
use std::net::{IpAddr, Shutdown};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::linger::Linger;
use crate::config::Config;
use crate::conn;
use crate::conn::client::Client;
use crate::conn::live::Live;
use crate::lock::lock;
use crate::maillog;
use crate::net::listen::Accepted;
use crate::net::pool::Pool;
use crate::smtp::reply::{self, Reply};
use crate::state::ServerState;

/// How long current messages may take at a shutdown.
const GRACE: Duration = Duration::from_secs(30);
/// How long threads and descriptors are taken to be scarce after there was none.
const SCARCITY: Duration = Duration::from_secs(10);
/// How long they then have to receive the 421.
const LAST_REPLY: Duration = Duration::from_secs(1);

/// Current connections, and their maximum.
pub(super) struct ConnLimits {
    connections: Mutex<Connections>,
    released: Condvar,
    max: usize,
    max_per_client: usize,
    state: Arc<ServerState>,
}

#[derive(Default)]
struct Connections {
    live: HashMap<usize, Arc<Live>>,
    /// The number of connections of each client.
    clients: HashMap<IpAddr, usize>,
    /// The number of the last connection.
    number: usize,
    /// When there was last no thread or descriptor for a connection.
    scarce: Option<Instant>,
}

impl Connections {
    /// Uncounts a connection of a client.
    fn forget(&mut self, client: IpAddr) {
        if let Some(count) = self.clients.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.clients.remove(&client);
            }
        }
    }
}

/// A slot for a connection, released even after a panic.
struct Slot {
    limits: Arc<ConnLimits>,
    number: usize,
    client: Option<IpAddr>,
}

impl ConnLimits {
    pub(super) fn new(config: &Config, state: &Arc<ServerState>) -> Self {
        Self {
            connections: Mutex::default(),
            released: Condvar::new(),
            max: config.max_connections,
            max_per_client: config.max_per_client,
            state: Arc::clone(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        lock(&self.connections)
    }

    /// Takes a slot, unless there is none left.
    fn take_slot(self: &Arc<Self>, live: &Arc<Live>) -> Result<Slot, Reply> {
        let mut all = self.lock();
        all.number = all.number.wrapping_add(1);
        let number = all.number;
        all.live.insert(number, Arc::clone(live));
        let slot = Slot {
            limits: Arc::clone(self),
            number,
            client: None,
        };
        let count = all.live.len();
        // Under the lock, so that no older count overwrites a newer one.
        self.update_stress(&all);
        drop(all);
        if count > self.max {
            return Err(reply::SERVER_FULL);
        }
        Ok(slot)
    }

    /// The number of connections.
    pub(super) fn count(&self) -> usize {
        self.lock().live.len()
    }

    /// True if there are no connections.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().live.is_empty()
    }

    /// Shortens timeouts while more than four fifths of the slots are in use, or no thread or descriptor is free.
    fn update_stress(&self, all: &Connections) {
        let full = all.live.len().saturating_mul(5) > self.max.saturating_mul(4);
        let scarce = all.scarce.is_some_and(|since| since.elapsed() < SCARCITY);
        self.state.stress.store(full || scarce, Ordering::Relaxed);
    }

    /// Notes that there was no thread or descriptor for a connection.
    fn set_scarce(&self) {
        let mut all = self.lock();
        all.scarce = Some(Instant::now());
        self.update_stress(&all);
    }

    /// Ends waits whose time is over: by the minimum rate of a message, or by stress. Returns true if another one may
    /// end soon.
    pub(super) fn expire(&self) -> bool {
        let all = self.lock();
        self.update_stress(&all);
        let stress = self.state.stress.load(Ordering::Relaxed);
        let now = Instant::now();
        for live in all.live.values() {
            live.expire(now, stress);
        }
        stress || all.live.values().any(|live| live.is_busy())
    }

    /// Idle connections get 421 now (F41), except those that the relay uses. Returns until when messages may finish
    /// (F42).
    pub(super) fn end_idle(&self) -> Instant {
        self.end_unless(Live::is_turned);
        Instant::now() + GRACE
    }

    fn end_unless(&self, spared: fn(&Live) -> bool) {
        let all = self.lock();
        for live in all.live.values().filter(|l| !l.is_busy() && !spared(l)) {
            live.socket.shutdown(Shutdown::Read);
        }
    }

    /// Waits for the end of all connections, and ends those that are left at the `deadline`. The relay has stopped.
    pub(super) fn drain(&self, deadline: Instant) {
        self.end_unless(|_| false);
        let left = deadline.saturating_duration_since(Instant::now());
        let all = self.wait_empty(self.lock(), left);
        for live in all.live.values() {
            live.set_busy(false);
            live.socket.shutdown(Shutdown::Read);
        }
        drop(self.wait_empty(all, LAST_REPLY));
    }

    fn wait_empty<'a>(
        &self,
        all: MutexGuard<'a, Connections>,
        time: Duration,
    ) -> MutexGuard<'a, Connections> {
        let occupied = |all: &mut Connections| !all.live.is_empty();
        let waited = self.released.wait_timeout_while(all, time, occupied);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Slot {
    /// Counts the connection for another client. Unix sockets are not counted: their mode controls access.
    fn claim(&mut self, client: Option<IpAddr>) -> Result<(), Reply> {
        let mut all = self.limits.lock();
        if let Some(before) = self.client.take() {
            all.forget(before);
        }
        let Some(client) = client else { return Ok(()) };
        let count = all.clients.entry(client).or_default();
        if *count >= self.limits.max_per_client {
            return Err(reply::TOO_MANY_FROM_CLIENT);
        }
        *count += 1;
        drop(all);
        self.client = Some(client);
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut all = self.limits.lock();
        all.live.remove(&self.number);
        if let Some(client) = self.client {
            all.forget(client);
        }
        self.limits.update_stress(&all);
        drop(all);
        // Only the shutdown waits for this.
        if self.limits.state.stopping.load(Ordering::SeqCst) {
            self.limits.released.notify_all();
        }
    }
}

/// Admits new connections to a thread, or refuses them.
pub(super) struct Admission {
    pub(super) limits: Arc<ConnLimits>,
    pub(super) pool: Pool,
    pub(super) state: Arc<ServerState>,
    pub(super) linger: Arc<Linger>,
    pub(super) config: Arc<Config>,
}

impl Admission {
    pub(super) fn admit(&self, listener: usize, accepted: Accepted) {
        let client = Client::new(&accepted.peer);
        let proxy = self.config.listen.get(listener).is_some_and(|l| l.proxy);
        if proxy && !client.is_in(&self.state.trust) {
            return maillog::not_served(client.log_name(), "not among --trust");
        }
        self.state.metrics.connection();
        let live = Arc::new(Live::new(accepted.socket));
        if accepted.overflow {
            self.limits.set_scarce();
            // The descriptor is the spare one, which is needed back at once.
            self.send(&live, &client, &reply::SERVER_FULL);
            let _ = live.socket.drop_input(64 * 1024);
            return;
        }
        let slot = self.limits.take_slot(&live).and_then(|mut slot| {
            if !proxy {
                slot.claim(client.counted())?;
            }
            Ok(slot)
        });
        let mut slot = match slot {
            Ok(slot) => slot,
            Err(refused) => return self.turn_away(&live, &client, &refused),
        };
        let (state, own, peer) = (Arc::clone(&self.state), Arc::clone(&live), client.clone());
        let job = move || {
            let mut claim = |client| slot.claim(client);
            conn::serve(&state, &own, peer, listener, &mut claim);
            slot
        };
        if self.pool.run(job).is_err() {
            self.limits.set_scarce();
            self.turn_away(&live, &client, &reply::SERVER_FULL);
        }
    }

    fn turn_away(&self, live: &Live, client: &Client, reply: &Reply) {
        self.send(live, client, reply);
        self.linger.add(Arc::clone(&live.socket));
    }

    /// One write, without a thread and without waiting.
    fn send(&self, live: &Live, client: &Client, reply: &Reply) {
        let mut octets = Vec::new();
        reply.render(&mut octets);
        let _ = live.socket.write_now(&octets);
        live.socket.shutdown(Shutdown::Write);
        self.state.metrics.refusal(reply.code());
        maillog::not_served(client.log_name(), &maillog::one_line(reply));
    }
}
