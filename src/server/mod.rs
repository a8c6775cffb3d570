//! The server: files read into a site, the loop that accepts, who may come in, and the end in
//! peace. What a connection says is `conn`'s.

use crate::clock;
use crate::config::Config;
use crate::conn;
use crate::deliver::Store;
use crate::directory::Directory;
use crate::net::listen::{Accepted, Listeners, Peer};
use crate::net::pool::Pool;
use crate::net::stream::Socket;
use crate::net::tls::Identity;
use crate::net::url::Scheme;
use crate::options::Failure;
use crate::smtp::policy::{Policy, Service};
use crate::smtp::reply;
use crate::state::{Live, Port, Shared, Site};
use mio::Waker;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Shutdown};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Stack of a connection's thread, in octets. Only touched pages cost memory: 12 KiB of an idle
/// session (TLS handshakes have a stack of their own). All tests, TLS handshakes included, pass with 64 KiB in an
/// unoptimized build, which needs more than a release does; this is four times that.
const STACK: usize = 256 * 1024;
/// How long a thread without work is kept.
const KEEP: Duration = Duration::from_secs(30);
/// Descriptors of Maildirs kept open, where the system allows that many.
const OPEN: usize = 1_024;
/// Descriptors of a connection: its socket, a message's file, and one to spare.
const EACH: usize = 3;
/// Descriptors of everything else: listeners, files being read, the log.
const OTHERS: usize = 64;
/// How often a server that has connections looks for what it may close.
const TIDY: Duration = Duration::from_secs(10);
/// How long a message may still take at a shutdown.
const GRACE: Duration = Duration::from_secs(30);

/// A server that has read its files and not bound yet.
pub struct Server {
    config: Arc<Config>,
    shared: Arc<Shared>,
}

impl Server {
    /// Reads the files.
    ///
    /// # Errors
    /// The file, the line and what is wrong (78).
    pub fn new(config: Config) -> Result<Self, Failure> {
        let site = load(&config).map_err(|text| Failure { text, status: 78 })?;
        let open = descriptors(config.max_connections);
        let store = Store::new(&config.policy.hostname, config.sync, open);
        let shared = Shared::new(Arc::new(site), store, config.timeout, config.auth_header);
        Ok(Self {
            config: Arc::new(config),
            shared: Arc::new(shared),
        })
    }

    /// What would be served, in words, a sentence a line.
    pub fn describe(&self) -> String {
        let site = self.shared.site();
        let directory = &site.directory;
        let mut text = format!(
            "mail for {} goes to {}",
            directory.domains().join(", "),
            directory.pattern()
        );
        match (directory.users(), directory.creates()) {
            (Some(users), _) => text.push_str(&format!(", for {users} users")),
            (None, true) => text.push_str(", made on first delivery"),
            (None, false) => text.push_str(", where that directory exists"),
        }
        if let Some(aliases) = directory.aliases() {
            text.push_str(&format!(", with {aliases} aliases"));
        }
        if let Some((chain, _)) = &self.config.tls {
            text.push_str(&format!(
                "\nTLS with the certificate in {}",
                chain.display()
            ));
        }
        text
    }

    /// The listeners as they were asked for, a line each.
    pub fn listeners(&self) -> String {
        let lines: Vec<String> = self
            .config
            .listen
            .iter()
            .map(|url| format!("{url}\n"))
            .collect();
        lines.concat()
    }

    /// Binds, serves and ends; SIGTERM or SIGINT ends it in peace, a second one at once, and
    /// SIGHUP has the files read again.
    ///
    /// # Errors
    /// An address that cannot be bound (71).
    pub fn run(self) -> Result<(), Failure> {
        let system = |text: String| Failure { text, status: 71 };
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        // SIGXFSZ is blocked and never waited for: a write past the limit is then EFBIG (F71).
        let mut blocked = signals;
        blocked.add(Signal::SIGXFSZ);
        blocked
            .thread_block()
            .map_err(|e| system(format!("signals: {e}")))?;
        self.make_root().map_err(system)?;
        // The time zone is read at the first use: now, with a deep stack and all files in reach.
        let _ = clock::rfc5322_now();
        let mut listeners = Listeners::new().map_err(|e| system(format!("poll: {e}")))?;
        for (tag, url) in self.config.listen.iter().enumerate() {
            for name in listeners.add(url, tag).map_err(system)? {
                log::info!("listening on {name}");
            }
        }
        for line in self.describe().lines() {
            log::info!("{line}");
        }
        let waker = listeners
            .waker()
            .map_err(|e| system(format!("poll: {e}")))?;
        self.watch(signals, waker)
            .map_err(|e| system(format!("threads: {e}")))?;
        let gate = Gate {
            crowd: Arc::new(Crowd::new(&self.config, &self.shared)),
            pool: Pool::new(self.config.max_connections, STACK, KEEP),
            shared: Arc::clone(&self.shared),
        };
        // Without connections nothing is opened, and a server with nothing to do sleeps.
        let mut tidy: Option<Instant> = None;
        while !self.shared.stopping.load(Ordering::SeqCst) {
            let pause = tidy.map(|at| at.saturating_duration_since(Instant::now()));
            listeners
                .wait(pause, &mut |tag, accepted| gate.admit(tag, accepted))
                .map_err(|e| system(format!("poll: {e}")))?;
            let now = Instant::now();
            if tidy.is_none_or(|at| at <= now) {
                let open = tidy.is_none() || self.shared.store.close_idle();
                tidy = (open || !gate.crowd.is_empty()).then(|| now + TIDY);
            }
        }
        drop(listeners);
        gate.crowd.drain();
        Ok(())
    }

    /// The fixed part of the pattern is made at the start where any mailbox may be, and never
    /// later: a volume that is gone gets no shadow tree.
    fn make_root(&self) -> Result<(), String> {
        let site = self.shared.site();
        let root = site.directory.root();
        if !site.directory.creates() {
            if !root.is_dir() {
                log::warn!(
                    "{} is no directory: mail is answered 451 until it is",
                    root.display()
                );
            }
            return Ok(());
        }
        std::fs::create_dir_all(root).map_err(|e| format!("{}: {e}", root.display()))
    }

    /// Waits for signals in a thread: nothing runs in a handler (A18).
    fn watch(&self, signals: SigSet, waker: Waker) -> io::Result<()> {
        let (shared, config) = (Arc::clone(&self.shared), Arc::clone(&self.config));
        let wait = move || {
            loop {
                match signals.wait() {
                    Ok(Signal::SIGHUP) => reload(&config, &shared),
                    Ok(_) if shared.stopping.swap(true, Ordering::SeqCst) => std::process::exit(0),
                    Ok(_) if waker.wake().is_err() => std::process::exit(0),
                    Ok(_) | Err(_) => {}
                }
            }
        };
        std::thread::Builder::new().spawn(wait).map(|_| ())
    }
}

/// Raises the number of descriptors this process may have as far as it needs and may, and tells how many of them
/// Maildirs may take.
fn descriptors(max_connections: usize) -> usize {
    let wanted = max_connections.saturating_mul(EACH).saturating_add(OTHERS);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return 0;
    };
    let all = u64::try_from(wanted.saturating_add(OPEN)).unwrap_or(u64::MAX);
    let limit = if soft < all && setrlimit(Resource::RLIMIT_NOFILE, all.min(hard), hard).is_ok() {
        all.min(hard)
    } else {
        soft
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit < wanted {
        log::warn!(
            "{limit} open files are allowed, and {max_connections} connections may need {wanted}: beyond that \
            they are answered 421"
        );
    }
    limit.saturating_sub(wanted).min(OPEN)
}

/// Reads users, aliases, certificate and key: all of them or nothing.
fn load(config: &Config) -> Result<Site, String> {
    let directory = Directory::load(&config.directory).map_err(|e| e.to_string())?;
    let identity = match &config.tls {
        Some((chain, key)) => Some(Identity::load(chain, key)?),
        None => None,
    };
    if let Some(end) = identity.as_ref().and_then(Identity::not_after)
        && end < clock::utc_digits()
    {
        // Served all the same (F40): an old certificate is better than none to most clients.
        log::warn!("the certificate has run out: {end}Z");
    }
    let mut ports = Vec::with_capacity(config.listen.len());
    for url in &config.listen {
        let tls = identity.as_ref().map(Identity::config).transpose()?;
        ports.push(Port {
            policy: Arc::new(Policy {
                service: match url.scheme {
                    Scheme::Smtp => Service::Smtp,
                    Scheme::Submission | Scheme::Submissions => Service::Submission,
                    Scheme::Lmtp => Service::Lmtp,
                },
                starttls: tls.is_some(),
                mechanisms: directory.mechanisms(),
                ..config.policy.clone()
            }),
            tls,
            implicit: url.scheme == Scheme::Submissions,
        });
    }
    Ok(Site { directory, ports })
}

/// SIGHUP: a broken file leaves what is in force, and says why (F39, F44).
fn reload(config: &Config, shared: &Shared) {
    match load(config) {
        Ok(site) => {
            shared.renew(Arc::new(site));
            log::info!("files read again");
        }
        Err(reason) => log::error!("not read again, the old ones stay in force: {reason}"),
    }
}

/// Connections under way.
struct Crowd {
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
    fn new(config: &Config, shared: &Arc<Shared>) -> Self {
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
    fn is_empty(&self) -> bool {
        self.lock().live.is_empty()
    }

    /// More than four fifths in use: waits get shorter.
    fn press(&self, count: usize) {
        let crowded = count.saturating_mul(5) > self.max.saturating_mul(4);
        self.shared.crowded.store(crowded, Ordering::Relaxed);
    }

    /// Idle connections hear 421 now; one within a message may finish it (F41, F42).
    fn drain(&self) {
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
struct Gate {
    crowd: Arc<Crowd>,
    pool: Pool,
    shared: Arc<Shared>,
}

impl Gate {
    fn admit(&self, port: usize, accepted: Accepted) {
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
