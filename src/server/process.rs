//! The process from its start to its end: files, listeners, privileges, signals, the loop that accepts connections, and
//! the graceful shutdown.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::Waker;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::geteuid;

use super::admission::{Admission, ConnLimits};
use super::budget::Budget;
use super::linger::Linger;
use super::scrape::Scrape;
use crate::auth::hashing;
use crate::clock;
use crate::config::Config;
use crate::conn;
use crate::deliver::Store;
use crate::failure::Failure;
use crate::greylist::Keeper;
use crate::log_queue;
use crate::metrics::Metrics;
use crate::net::listen::Listeners;
use crate::net::pool::Pool;
use crate::net::url::{BindTo, ListenUrl};
use crate::relay::{self, Relay};
use crate::state::{RecipientPool, ServerState, load, reload};
use crate::sys::inherited::InheritedSocket;
use crate::sys::notify::ServiceManager;
use crate::sys::privileges::drop_groups;
use crate::throttle::Throttle;

/// Stack of a connection's thread, in octets. Only touched pages cost memory: 12 KiB of an idle session (TLS handshakes
/// have a stack of their own). All tests, TLS handshakes included, pass with 64 KiB in an unoptimized build, which
/// needs more than a release does; this is four times that.
const STACK: usize = 256 * 1024;
/// How long an idle thread is kept.
const KEEP: Duration = Duration::from_secs(30);
/// How often waits are checked while one may have to be ended soon.
const TICK: Duration = Duration::from_secs(1);
/// How often a server with connections looks for unused directories.
const TIDY: Duration = Duration::from_secs(10);

/// A server that has read its files but not bound its listeners.
pub struct Server {
    /// Inherited sockets, by number.
    inherited: Vec<Option<InheritedSocket>>,
    /// `None` once the relay has it.
    relay: Option<relay::RelayRules>,
    pub(super) config: Arc<Config>,
    pub(super) state: Arc<ServerState>,
    /// Maximum refused connections that are read to their end.
    lingering: usize,
}

impl Server {
    /// Reads the files.
    ///
    /// # Errors
    /// The file, the line and what is wrong (78).
    pub fn new(mut config: Config, inherited: Vec<InheritedSocket>) -> Result<Self, Failure> {
        let senders = config.relay.as_ref().map_or(0, |_| relay::MAX_THREADS);
        let budget = Budget::of_process(config.max_connections, senders);
        config.max_connections = budget.connections;
        // LIMITS states it; RFC 5321 §4.5.3.1.8 asks for a hundred at least.
        let most = budget.recipients.max(100);
        config.policy.max_recipients = config.policy.max_recipients.min(most);
        hashing::set_cores(std::thread::available_parallelism().map_or(1, usize::from));
        let snapshot = load(&config).map_err(Failure::File)?;
        let relay = config.relay.as_ref();
        let sockets = inherited.iter().filter_map(InheritedSocket::place);
        let sockets: Vec<String> = sockets.collect();
        let hostname = config.policy.hostname.as_str();
        let domain = config
            .directory
            .domains
            .first()
            .map_or(hostname, String::as_str);
        let chroot = config.privileges.chroot.is_some();
        let own = (hostname, domain, chroot);
        let relay = relay.map(|relay| relay.load(own, &config.listen, &sockets));
        let mut relay = relay.transpose()?;
        if let Some(relay) = &mut relay {
            let account = |name: &str| snapshot.directory.account_name(name);
            relay.routes.name_users(account);
            relay.threads = budget.senders;
        }
        let store = Store::new(&config.policy.hostname, config.sync, budget.open);
        let store = store.with_held(budget.held).with_junk(config.junk.clone());
        let mut state = ServerState::new(
            Arc::new(snapshot),
            store,
            config.timeout,
            config.auth_header,
            config.trust.clone(),
            Metrics::new(!config.metrics.is_empty()),
            Throttle::new(config.max_rate),
        );
        state.recipients = RecipientPool::new(budget.recipients);
        Ok(Self {
            inherited: inherited.into_iter().map(Some).collect(),
            relay,
            config: Arc::new(config),
            state: Arc::new(state),
            lingering: budget.lingering,
        })
    }

    /// Drops supplementary groups if mail may be delivered with the rights of users, now or after a reload.
    fn prepare_owners(&self) {
        if geteuid().is_root() && self.config.directory.users.is_some() {
            drop_groups();
        }
        self.warn_of_owners();
    }

    /// Runs the server. SIGTERM or SIGINT shuts it down gracefully, a second one at once, and SIGHUP reloads the files.
    ///
    /// # Errors
    /// An address that cannot be bound (71).
    pub fn run(mut self) -> Result<(), Failure> {
        let system = Failure::System;
        let manager = Arc::new(ServiceManager::from_env());
        // Read the time zone now, with a large stack and before any chroot.
        let _ = clock::rfc5322_now();
        let config = Arc::clone(&self.config);
        let started = clock::seconds();
        let mut listeners = self.bind(&config.listen)?;
        let scraped = self.bind(&config.metrics)?;
        self.config.privileges.give_up()?;
        if self.config.privileges.chroot.is_some() {
            self.state.snapshot().directory.renew_root();
        }
        self.make_root().map_err(system)?;
        for line in self.describe().lines() {
            log::info!("{line}");
        }
        self.prepare_owners();
        let waker = listeners
            .waker()
            .map_err(|e| system(format!("poll: {e}")))?;
        self.watch(waker, Arc::clone(&manager))
            .map_err(|e| system(format!("threads: {e}")))?;
        let admission = self
            .admission(scraped, started)
            .map_err(|e| system(format!("threads: {e}")))?;
        let mut upkeep = Upkeep::default();
        let relay = self.start_relay()?;
        let greylist = self.start_greylist()?;
        manager.ready();
        while !self.state.stopping.load(Ordering::SeqCst) {
            let pause = upkeep.pause().into_iter().chain(manager.interval()).min();
            listeners
                .wait(pause, &mut |listener, accepted| {
                    admission.admit(listener, accepted)
                })
                .map_err(|e| system(format!("poll: {e}")))?;
            manager.watchdog();
            upkeep.run(&self.state, &admission.limits);
        }
        manager.stopping();
        drop(listeners);
        drain(relay.as_deref(), &admission.limits);
        if let Some(greylist) = greylist {
            greylist.save();
        }
        Ok(())
    }

    /// Sets up admission, and the thread for the metrics listeners.
    fn admission(&self, scraped: Listeners, started: u64) -> io::Result<Admission> {
        let limits = Arc::new(ConnLimits::new(&self.config, &self.state));
        if !self.config.metrics.is_empty() {
            let scrape = Scrape {
                state: Arc::clone(&self.state),
                limits: Arc::clone(&limits),
                started,
            };
            scrape.serve(scraped)?;
        }
        Ok(Admission {
            limits,
            pool: Pool::new(self.config.max_connections, STACK, KEEP),
            state: Arc::clone(&self.state),
            linger: Linger::start(self.lingering)?,
            config: Arc::clone(&self.config),
        })
    }

    /// Opens the queue and starts sending.
    fn start_relay(&mut self) -> Result<Option<Arc<Relay>>, Failure> {
        let (Some(settings), Some(config)) = (self.relay.take(), &self.config.relay) else {
            return Ok(None);
        };
        let syncs = self.state.store.syncs();
        let relay = Arc::new(Relay::open(settings, &config.dir, syncs)?);
        relay.report_by(conn::reporter(
            &self.state,
            &relay,
            &self.config.policy.hostname,
        ));
        let control = relay::control::serve(&relay);
        control.map_err(|e| Failure::System(format!("--queue: control socket: {e}")))?;
        let _ = self.state.relay.set(Arc::clone(&relay));
        let running = Arc::clone(&relay);
        let thread = std::thread::Builder::new().spawn(move || running.run());
        thread.map_err(|e| Failure::System(format!("threads: {e}")))?;
        Ok(Some(relay))
    }

    /// Opens the greylist with the user and the root directory of the running server.
    fn start_greylist(&self) -> Result<Option<Arc<Keeper>>, Failure> {
        let Some(settings) = &self.config.greylist else {
            return Ok(None);
        };
        let greylist = Arc::new(Keeper::open(settings)?);
        let started = greylist.start();
        started.map_err(|e| Failure::System(format!("threads: {e}")))?;
        let _ = self.state.greylist.set(Arc::clone(&greylist));
        Ok(Some(greylist))
    }

    fn bind(&mut self, urls: &[ListenUrl]) -> Result<Listeners, Failure> {
        let fault = |e: io::Error| Failure::System(format!("poll: {e}"));
        let mut listeners = Listeners::new().map_err(fault)?;
        for (listener, url) in urls.iter().enumerate() {
            let socket = match url.at {
                BindTo::Inherited(number) => self.inherited.get_mut(number).and_then(Option::take),
                _ => None,
            };
            let names = match socket {
                Some(socket) => listeners.add_inherited(url, listener, socket),
                None => listeners.add(url, listener),
            };
            for name in names.map_err(Failure::System)? {
                log::info!("listening on {name}");
            }
        }
        Ok(listeners)
    }

    /// Creates the fixed part of the pattern with `--create`, at the start and never later, so that an unmounted volume
    /// is not replaced by a shadow tree.
    fn make_root(&self) -> Result<(), String> {
        self.warn_of_root();
        let snapshot = self.state.snapshot();
        if !snapshot.directory.creates() {
            return Ok(());
        }
        let root = snapshot.directory.root();
        std::fs::create_dir_all(root).map_err(|e| format!("{}: {e}", root.display()))
    }

    /// Waits for signals in a thread: no code runs in a handler (A18).
    fn watch(&self, waker: Waker, manager: Arc<ServiceManager>) -> io::Result<()> {
        let (state, config) = (Arc::clone(&self.state), Arc::clone(&self.config));
        let signals = signals();
        let wait = move || {
            loop {
                match signals.wait() {
                    Ok(Signal::SIGHUP) => {
                        manager.reloading();
                        reload(&config, &state);
                        manager.ready();
                    }
                    Ok(_) if state.stopping.swap(true, Ordering::SeqCst) => exit(),
                    Ok(_) if waker.wake().is_err() => exit(),
                    Ok(_) | Err(_) => {}
                }
            }
        };
        std::thread::Builder::new().spawn(wait).map(|_| ())
    }
}

/// Ends all connections. Messages to next hops and those of clients have the same time to finish.
fn drain(relay: Option<&Relay>, limits: &ConnLimits) {
    let deadline = limits.end_idle();
    if let Some(relay) = relay {
        relay.stop();
    }
    limits.drain(deadline);
}

fn signals() -> SigSet {
    SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])
}

/// Blocks SIGHUP, which would otherwise kill a starting process. It is handled once the server runs.
///
/// # Errors
/// An error of the system.
pub fn block_reload() -> io::Result<()> {
    Ok(SigSet::from_iter([Signal::SIGHUP]).thread_block()?)
}

/// Blocks all signals that a server waits for, and some that are never waited for: SIGXFSZ, so that a write past the
/// limit is EFBIG (F71), and SIGUSR1 and SIGUSR2, which log rotation sends to other daemons. Must be called before any
/// thread is started.
///
/// # Errors
/// An error of the system.
pub fn block_signals() -> io::Result<()> {
    let mut blocked = signals();
    blocked.extend([Signal::SIGXFSZ, Signal::SIGUSR1, Signal::SIGUSR2]);
    Ok(blocked.thread_block()?)
}

fn exit() -> ! {
    log_queue::flush();
    std::process::exit(0)
}

/// Periodic work while there are connections. Without any the server sleeps.
#[derive(Default)]
struct Upkeep {
    due: Option<Instant>,
}

impl Upkeep {
    /// The time until the next work; `None` if there is nothing to do.
    fn pause(&self) -> Option<Duration> {
        let left = |due: Instant| due.saturating_duration_since(Instant::now());
        self.due.map(left)
    }

    /// Ends waits and closes unused directories, when due.
    fn run(&mut self, state: &ServerState, limits: &ConnLimits) {
        let now = Instant::now();
        let stress = state.stress.load(Ordering::Relaxed);
        let due = match self.due {
            Some(due) if stress => due.min(now + TICK),
            Some(due) => due,
            // Nothing was open before.
            None => return self.due = Some(now + if stress { TICK } else { TIDY }),
        };
        self.due = Some(due);
        if now < due {
            return;
        }
        let soon = limits.expire();
        let open = state.store.close_idle();
        self.due = match (soon, open || !limits.is_empty()) {
            (true, _) => Some(now + TICK),
            (false, true) => Some(now + TIDY),
            (false, false) => None,
        };
    }
}
