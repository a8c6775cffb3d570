//! The threads that send: one that watches the schedule, and one for each connection to a hop.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::idle::IdleConnections;
use super::link::Link;
use super::logins::Logins;
use super::route::{Route, RouteKind, Routes};
use super::schedule::{Hop, RetryPolicy, Schedule};
use crate::client::Handle;
use crate::clock;
use crate::deliver::{Room, Syncs, Target};
use crate::failure::Failure;
use crate::lock::lock;
use crate::net::client_tls::ClientTls;
use crate::net::dns::{Resolver, to_alabel};
use crate::queue::{Envelope, Queue};
use crate::smtp::reply::Reply;
use crate::values::Networks;

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(5);
/// Stack of a connection's thread, in octets: a TLS handshake needs much.
const STACK: usize = 256 * 1024;
/// How long a transaction after DATA may take at a shutdown.
const FAREWELL: Duration = Duration::from_secs(30);
/// Seconds by which a clock may be wrong before it counts as set.
const STEP: u64 = 60;
/// A clock that shows an earlier time was never set: 1 January 2020.
pub(super) const FIRST_TIME: u64 = 1_577_836_800;
/// Maximum times the clock was set forward that are remembered.
const MAX_STEPS: usize = 16;
/// Maximum threads that send, if there are the resources for them: with `mx:` each domain is a hop, and many may be
/// silent at the same time.
pub const MAX_THREADS: usize = 256;
/// Maximum sleep of the watching thread.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Delivers a report to a reverse-path, into a mailbox or the queue; `true` if its message had REQUIRETLS. After an
/// error it is tried again.
pub type Reporter = Box<dyn Fn(&str, &[u8], bool) -> Result<(), String> + Send + Sync>;

/// The settings of the relay.
pub struct RelayRules {
    /// The next hops.
    pub routes: Routes,
    /// Clients that may relay without a login.
    pub from: Networks,
    /// User names and passwords at next hops.
    pub logins: Logins,
    /// How often and how long to retry.
    pub retry_policy: RetryPolicy,
    /// The name of this host in EHLO and reports.
    pub hostname: String,
    /// The domain of addresses that have none.
    pub domain: String,
    /// Maximum threads that send.
    pub threads: usize,
    /// TLS as a client.
    pub tls: ClientTls,
    /// Looks up names.
    pub resolver: &'static Resolver,
    /// Where this host listens for SMTP.
    pub own: Vec<SocketAddr>,
}

/// The relay: its queue, its schedule and its threads.
pub struct Relay {
    pub(super) settings: RelayRules,
    pub(super) queue: Queue,
    pub(super) report: OnceLock<Reporter>,
    room: Room,
    state: Mutex<State>,
    pub(super) changed: Condvar,
    /// Held while envelopes are read on request.
    pub(super) search: Mutex<()>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) schedule: Schedule,
    pub(super) idle: IdleConnections,
    pub(super) stopping: bool,
    /// The last look at the clock: its time, that of the monotonic one, and the host's uptime.
    seen: Option<(u64, Instant, Option<u64>)>,
    /// When the clock was set forward, as it was before, and by how many seconds.
    steps: Vec<(u64, u64)>,
    /// No message is given up before this time, because the clock was set forward.
    pub(super) grace: u64,
    /// Threads that send.
    pub(super) running: usize,
    /// Open connections and their hops, by the number of their thread.
    pub(super) handles: HashMap<usize, (Hop, Handle)>,
    pub(super) threads: usize,
}

impl State {
    /// Closes all connections except those in the middle of a message.
    fn cut_idle(&self) {
        let handles = self.handles.values().map(|(_, handle)| handle);
        let idle = handles.filter(|handle| !handle.is_sending());
        idle.for_each(Handle::cut);
    }

    /// Follows a clock that was set: the waits stay as long as they were, and each hop is tried once more before its
    /// messages are given up.
    pub(super) fn look_at_clock(
        &mut self,
        now: u64,
        (at, up): (Instant, Option<u64>),
        policy: &RetryPolicy,
    ) {
        if let Some((then, since, up_then)) = self.seen.replace((now, at, up)) {
            let expected = then.saturating_add(at.saturating_duration_since(since).as_secs());
            if now.saturating_add(STEP) < expected {
                self.schedule.set_back(expected - now);
                self.undo_steps(expected - now);
            } else if expected.saturating_add(STEP) < now {
                self.grace = now.saturating_add(policy.retry.as_secs());
                let slept = up.zip(up_then).map(|(up, then)| up.saturating_sub(then));
                let expected = then.saturating_add(slept.unwrap_or(u64::MAX));
                if expected.saturating_add(STEP) < now {
                    self.steps.truncate(MAX_STEPS - 1);
                    self.steps.insert(0, (expected, now - expected));
                }
            }
        }
    }

    /// The clock was set back, so that steps forward were wrong.
    fn undo_steps(&mut self, mut seconds: u64) {
        for (_, forward) in &mut self.steps {
            let undone = seconds.min(*forward);
            *forward -= undone;
            seconds -= undone;
        }
        self.steps.retain(|(_, forward)| *forward > 0);
    }

    /// The time when a message was received by the present clock: since then it may have been set, as after a boot
    /// without a clock of the hardware.
    pub(super) fn received(&self, created: u64) -> u64 {
        let later = self.steps.iter().filter(|(before, _)| created <= *before);
        later.fold(created, |time, (_, forward)| time.saturating_add(*forward))
    }
}

impl Relay {
    /// Opens the queue and schedules everything in it.
    ///
    /// # Errors
    /// The queue cannot be used.
    pub fn open(settings: RelayRules, dir: &Path, syncs: Arc<Syncs>) -> Result<Self, Failure> {
        let relay = Self {
            queue: Queue::open(dir, syncs)?,
            settings,
            report: OnceLock::new(),
            room: Room::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
            search: Mutex::default(),
        };
        let ids = relay.queue.ids();
        let ids = ids.map_err(|e| Failure::System(format!("--queue: {}: {e}", dir.display())))?;
        let (mut untimed, now) = (0, clock::seconds());
        for id in ids {
            match relay.queue.read(&id) {
                Ok(envelope) => {
                    relay.add(&id, &envelope);
                    let created = Some(envelope.created).filter(|&created| created < FIRST_TIME);
                    untimed = untimed.max(created.unwrap_or(0));
                }
                // The file stays, and the other messages are sent.
                Err(e) => log::error!("queue id={id}: {e}"),
            }
        }
        // The clock was set between two runs, nobody knows when: the latest such mail has just come.
        if untimed > 0 && now >= FIRST_TIME {
            relay.lock().steps.push((untimed, now - untimed));
        }
        Ok(relay)
    }

    /// Checks that the queue's file system has room for `octets`.
    ///
    /// # Errors
    /// 452 4.3.1 if it has not.
    pub fn room(&self, octets: u64) -> Result<(), Reply> {
        self.room.check(self.queue.dir(), octets)
    }

    /// The queue.
    pub const fn queue(&self) -> &Queue {
        &self.queue
    }

    /// Sets how reports are delivered; once, before [`Self::run`].
    pub fn report_by(&self, reporter: Reporter) {
        let _ = self.report.set(reporter);
    }

    /// The hop for an address, if any.
    pub fn hop(&self, address: &str) -> Option<Hop> {
        let (_, domain) = address.rsplit_once('@')?;
        let route = self.settings.routes.find(domain)?;
        let own = matches!(self.route(route)?.kind, RouteKind::Mx);
        let domain = if own {
            to_alabel(domain)?
        } else {
            String::new()
        };
        Some(Hop {
            route,
            domain: domain.into(),
        })
    }

    /// The hop for an address in the queue. Addresses that no URL covers any more share one without a route, until a
    /// URL covers them or they are given up.
    pub(super) fn hop_or_none(&self, address: &str) -> Hop {
        self.hop(address).unwrap_or_else(|| Hop {
            route: usize::MAX,
            domain: "".into(),
        })
    }

    /// The clients that may relay without a login.
    pub const fn open_to(&self) -> &Networks {
        &self.settings.from
    }

    /// The delivery target of relayed mail: the queue, as a mailbox of the store.
    pub fn target(&self, address: &str) -> Option<Target> {
        self.hop(address)?;
        Some(Target {
            root: self.queue.dir().into(),
            maildir: self.queue.dir().to_owned(),
            may_create: false,
            folder: None,
            address: address.to_owned(),
            original: None,
            quota: None,
            owner: None,
        })
    }

    /// True if a target is the queue.
    pub fn is_queue(&self, target: &Target) -> bool {
        target.maildir == self.queue.dir()
    }

    pub(super) fn route(&self, number: usize) -> Option<&Route> {
        self.settings.routes.all().get(number)
    }

    /// Schedules a message that is in the queue.
    pub fn add(&self, id: &str, envelope: &Envelope) {
        let id: Arc<str> = id.into();
        // One entry a hop, the earliest: two would be two tries at the same time, of all recipients there.
        let mut hops: BTreeMap<Hop, u64> = BTreeMap::new();
        // A clock that was set back since must not make it wait for longer than ever.
        let latest = clock::seconds().saturating_add(self.settings.retry_policy.longest());
        for to in &envelope.recipients {
            let next = hops.entry(self.hop_or_none(&to.address)).or_insert(latest);
            *next = to.next.min(*next);
        }
        for (hop, next) in &hops {
            self.put_off(hop, &id, *next);
        }
    }

    /// Retries waiting mail now. Returns the number of messages.
    pub(super) fn retry_now(&self, wanted: impl Fn(&Hop, &str) -> bool) -> usize {
        let mut state = self.lock();
        let count = state.schedule.retry_now(wanted);
        state.idle.wake_all();
        self.changed.notify_all();
        count
    }

    /// Watches the schedule until [`Self::stop`].
    pub fn run(self: &Arc<Self>) {
        let mut state = self.lock();
        while !state.stopping {
            let now = clock::seconds();
            let at = (Instant::now(), clock::uptime());
            state.look_at_clock(now, at, &self.settings.retry_policy);
            let hop = match state.running < self.settings.threads {
                true => state.schedule.start(now, |hop| self.most(hop)),
                false => None,
            };
            if let Some(hop) = hop {
                state.running += 1;
                state.threads = state.threads.wrapping_add(1);
                let thread = state.threads;
                drop(state);
                self.spawn(hop, thread);
                state = self.lock();
                continue;
            }
            let next = state.schedule.next(|hop| self.most(hop));
            let wait = next.map_or(LONGEST_SLEEP, |next| {
                Duration::from_secs(next.saturating_sub(now).max(1))
            });
            let waited = self.changed.wait_timeout(state, wait.min(LONGEST_SLEEP));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Maximum connections of a hop. Mail for ATRN, or without a hop, has one thread, which gives up what has waited
    /// too long.
    fn most(&self, hop: &Hop) -> usize {
        match self.route(hop.route) {
            Some(route) if !matches!(route.kind, RouteKind::Atrn(_)) => route.connections,
            _ => 1,
        }
    }

    fn spawn(self: &Arc<Self>, hop: Hop, thread: usize) {
        let relay = Arc::clone(self);
        let own = hop.clone();
        let builder = std::thread::Builder::new().stack_size(STACK);
        if let Err(e) = builder.spawn(move || relay.send(&own, thread)) {
            log::warn!("no thread for a next hop: {e}");
            let mut state = self.lock();
            state.running -= 1;
            state.schedule.failed(
                &hop,
                clock::seconds(),
                &self.settings.retry_policy,
                0,
                false,
            );
            state.schedule.end(&hop);
        }
    }

    /// Closes every connection except those in the middle of a message, which get half a minute.
    pub fn stop(&self) {
        let deadline = Instant::now() + FAREWELL;
        let mut state = self.lock();
        state.stopping = true;
        state.idle.wake_all();
        self.changed.notify_all();
        state.cut_idle();
        while state.running > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.handles.values().for_each(|(_, handle)| handle.cut());
                return;
            }
            let waited = self
                .changed
                .wait_timeout(state, left.min(Duration::from_secs(1)));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            // A thread that was connecting may have its handle only now.
            state.cut_idle();
            if state.handles.is_empty() {
                return;
            }
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// One connection's thread: message after message, until none is due.
    pub(super) fn send(&self, hop: &Hop, thread: usize) {
        let mut link = None;
        let mut running = self.running(hop, thread);
        while let Some(id) = self.next_message(hop, link.is_some()) {
            running.id = Some(Arc::clone(&id));
            link = self.send_message(hop, &id, link.take(), thread);
            running.id = None;
            if let Some(Link { connection, .. }) = link.take_if(|link| link.is_used_up()) {
                connection.quit();
            }
            if link.is_none() {
                self.lock().handles.remove(&thread);
            }
        }
        if let Some(Link { connection, .. }) = link {
            connection.quit();
        }
    }

    /// The next message that is due; with an open connection it waits a little for one.
    fn next_message(&self, hop: &Hop, open: bool) -> Option<Arc<str>> {
        let deadline = Instant::now() + IDLE;
        let mut state = self.lock();
        loop {
            if state.stopping || !open && state.schedule.is_limited(hop, clock::seconds()) {
                return None;
            }
            if let Some(id) = state.schedule.take(hop, clock::seconds()) {
                return Some(id);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if !open || left.is_zero() {
                return None;
            }
            state.idle.enter(hop);
            drop(state);
            std::thread::park_timeout(left);
            state = self.lock();
            state.idle.leave();
        }
    }
}

/// A random number from 0 to 255, so that hops are not tried in step.
pub(super) fn chance() -> u8 {
    RandomState::new().hash_one(0).to_le_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_followed() {
        let policy = RetryPolicy {
            retry: Duration::from_secs(300),
            retry_for: Duration::from_secs(5 * 86_400),
        };
        let hop = Hop {
            route: 0,
            domain: "".into(),
        };
        let start = Instant::now();
        let mut state = State::default();
        state.schedule.add(&hop, &"1".into(), 2_000_300);
        let look = |state: &mut State, now: u64, at: u64| {
            let at = (start + Duration::from_secs(at), Some(at));
            state.look_at_clock(now, at, &policy);
            (state.schedule.next(|_| 1), state.grace)
        };
        assert_eq!(look(&mut state, 2_000_000, 0), (Some(2_000_300), 0));
        // The time that goes by, and small corrections of it.
        assert_eq!(look(&mut state, 2_000_060, 60), (Some(2_000_300), 0));
        assert_eq!(look(&mut state, 2_000_050, 61), (Some(2_000_300), 0));
        assert_eq!(look(&mut state, 1_000_051, 62), (Some(1_000_300), 0));
        assert_eq!(
            look(&mut state, 9_000_000, 63),
            (Some(1_000_300), 9_000_300)
        );
    }

    /// The age of a message is the time that went by, also while the host slept.
    #[test]
    fn the_age_of_mail_does_not_depend_on_the_clock() {
        let policy = RetryPolicy {
            retry: Duration::from_secs(300),
            retry_for: Duration::from_secs(5 * 86_400),
        };
        let start = Instant::now();
        let mut state = State::default();
        let mut look = |now: u64, at: u64, up: Option<u64>, received: [u64; 3]| {
            let at = (start + Duration::from_secs(at), up);
            state.look_at_clock(now, at, &policy);
            let found = [50, 150, 2_000_000].map(|created| state.received(created));
            assert_eq!(found, received, "{now}");
        };
        look(100, 0, Some(0), [50, 150, 2_000_000]);
        // A boot without a hardware clock, until the time is known.
        look(1_000_110, 10, Some(10), [1_000_050, 150, 2_000_000]);
        // The host slept; its clock was not set.
        look(1_900_110, 20, Some(900_010), [1_000_050, 150, 2_000_000]);
        // A step and its correction.
        look(
            2_900_110,
            20,
            Some(900_010),
            [2_000_050, 1_000_150, 2_000_000],
        );
        look(
            2_400_110,
            20,
            Some(900_010),
            [1_500_050, 500_150, 2_000_000],
        );
        look(1_900_110, 20, Some(900_010), [1_000_050, 150, 2_000_000]);
        // Without an uptime it may have slept.
        look(3_900_110, 30, None, [1_000_050, 150, 2_000_000]);
    }
}
