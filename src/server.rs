//! The server: settings made into listeners and shared state, the loop that accepts, and the
//! end in peace. What a connection says is `conn`'s.

use crate::conn::{self, Live, Shared};
use crate::deliver::{Store, Sync};
use crate::directory::Directory;
use crate::net::pool::Pool;
use crate::net::stream::Socket;
use crate::options::{Failure, Settings};
use crate::smtp::body::BareNewline;
use crate::smtp::reply;
use crate::smtp::session::Policy;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::signal::{SigSet, Signal};
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Shutdown, TcpListener, ToSocketAddrs as _};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Stack of a connection's thread, in octets. Only touched pages cost memory; the date library
/// reads the time zone on its first use and overflows 256 KiB in an unoptimized build.
const STACK: usize = 1024 * 1024;
/// How long a thread without work is kept.
const KEEP: Duration = Duration::from_secs(30);
/// How long a message may still take at a shutdown.
const GRACE: Duration = Duration::from_secs(30);
const WAKE: Token = Token(usize::MAX);

/// A configured server that has not bound yet.
pub struct Server {
    shared: Arc<Shared>,
    listen: Vec<String>,
    max_connections: usize,
    max_per_client: usize,
}

/// Connections under way.
#[derive(Default)]
struct Crowd {
    live: Mutex<HashMap<u64, (Arc<Live>, IpAddr)>>,
    count: AtomicU64,
}

impl Crowd {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, (Arc<Live>, IpAddr)>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves the crowd also where the connection panics.
struct Member(Arc<Crowd>, u64);

impl Drop for Member {
    fn drop(&mut self) {
        self.0.lock().remove(&self.1);
    }
}

impl Server {
    /// Makes sense of what was said.
    ///
    /// # Errors
    /// The option, what is wrong with it and what would be right.
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        let hostname = match settings.one("hostname").filter(|name| !name.is_empty()) {
            Some(name) => name.to_owned(),
            None => nix::unistd::gethostname()
                .ok()
                .and_then(|n| n.into_string().ok())
                .unwrap_or_else(|| "localhost".into()),
        };
        let mut domains: Vec<String> = settings
            .all("domain")
            .iter()
            .map(|d| d.to_lowercase())
            .collect();
        if domains.is_empty() {
            domains = vec![hostname.to_lowercase(), "localhost".into()];
        }
        let pattern = settings.one("maildir").unwrap_or_default().to_owned();
        if !pattern.contains("%u") {
            return Err(Failure::usage(format!(
                "--maildir: '{pattern}' has no %u; say mail/%d/%u, for example"
            )));
        }
        let sync = match settings.one("sync") {
            Some("none") => Sync::None,
            Some("full") => Sync::Full,
            other => return Err(wrong("sync", other, "full or none")),
        };
        let bare_newline = match settings.one("bare-newline") {
            Some("reject") => BareNewline::Reject,
            Some("normalize") => BareNewline::Normalize,
            other => return Err(wrong("bare-newline", other, "reject or normalize")),
        };
        let policy = Policy {
            hostname: hostname.clone(),
            max_size: size(settings, "max-size")?,
            max_recipients: count(settings, "max-recipients")?,
            max_errors: u32::try_from(count(settings, "max-errors")?).unwrap_or(u32::MAX),
            bare_newline,
        };
        let directory = Directory {
            domains,
            pattern,
            create: settings.flag("create"),
        };
        let listen = settings
            .all("listen")
            .iter()
            .map(|url| address(url))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            shared: Arc::new(Shared {
                policy: Arc::new(policy),
                directory,
                store: Store::new(&hostname, sync),
                timeout: duration(settings)?,
                stopping: AtomicBool::new(false),
            }),
            listen,
            max_connections: count(settings, "max-connections")?,
            max_per_client: count(settings, "max-per-client")?,
        })
    }

    /// What would be served, in words.
    pub fn describe(&self) -> String {
        let directory = &self.shared.directory;
        format!(
            "mail for {} goes to {}{}",
            directory.domains.join(", "),
            directory.pattern,
            if directory.create {
                ", made on first delivery"
            } else {
                ", where that directory exists"
            }
        )
    }

    /// Binds, serves and ends; SIGTERM or SIGINT ends it in peace, a second one at once.
    ///
    /// # Errors
    /// An address that cannot be bound (71).
    pub fn run(self) -> Result<(), Failure> {
        let system = |text: String| Failure { text, status: 71 };
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        // SIGXFSZ is blocked and never waited for: a write past the limit is then EFBIG (F71).
        let mut blocked = signals;
        blocked.add(Signal::SIGXFSZ);
        blocked
            .thread_block()
            .map_err(|e| system(format!("signals: {e}")))?;
        let directory = &self.shared.directory;
        if directory.create {
            let root = directory.root();
            std::fs::create_dir_all(&root)
                .map_err(|e| system(format!("{}: {e}", root.display())))?;
        }
        let mut poll = Poll::new().map_err(|e| system(format!("poll: {e}")))?;
        let mut listeners = Vec::new();
        for (at, wanted) in self.listen.iter().enumerate() {
            let bound = bind(wanted, &poll, Token(at));
            listeners.push(bound.map_err(|e| system(format!("smtp://{wanted}: {e}")))?);
        }
        log::info!("{}", self.describe());
        let waker = Waker::new(poll.registry(), WAKE).map_err(|e| system(format!("poll: {e}")))?;
        watch(signals, Arc::clone(&self.shared), waker)
            .map_err(|e| system(format!("threads: {e}")))?;
        let crowd = Arc::new(Crowd::default());
        let pool = Pool::new(self.max_connections, STACK, KEEP);
        let mut events = Events::with_capacity(64);
        while !self.shared.stopping.load(Ordering::SeqCst) {
            match poll.poll(&mut events, None) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(system(format!("poll: {e}"))),
                Ok(()) => {}
            }
            for listener in events
                .iter()
                .filter_map(|event| listeners.get(event.token().0))
            {
                self.accept(&listener.listener, &crowd, &pool);
            }
        }
        drop(listeners);
        drain(&crowd);
        Ok(())
    }

    /// Takes all that wait. An error of accept is logged and survived (F11).
    fn accept(&self, listener: &TcpListener, crowd: &Arc<Crowd>, pool: &Pool) {
        loop {
            match listener.accept() {
                Ok((socket, peer)) => {
                    let _ = socket.set_nodelay(true);
                    self.admit(Socket::Tcp(socket), peer.ip().to_canonical(), crowd, pool);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(e) => {
                    log::warn!("accept: {e}");
                    // Out of descriptors: without a pause the loop would spin until one is free.
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            if self.shared.stopping.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    fn admit(&self, socket: Socket, ip: IpAddr, crowd: &Arc<Crowd>, pool: &Pool) {
        let live = Arc::new(Live {
            socket: Arc::new(socket),
            busy: AtomicBool::new(false),
        });
        let number = crowd.count.fetch_add(1, Ordering::Relaxed);
        {
            let mut all = crowd.lock();
            if all.values().filter(|(_, other)| *other == ip).count() >= self.max_per_client {
                return turn_away(&live.socket, &reply::TOO_MUCH);
            }
            all.insert(number, (Arc::clone(&live), ip));
        }
        let (shared, member, own) = (
            Arc::clone(&self.shared),
            Member(Arc::clone(crowd), number),
            Arc::clone(&live),
        );
        let job = move || {
            let _member = member;
            let peer = if ip.is_ipv6() {
                format!("[IPv6:{ip}]")
            } else {
                format!("[{ip}]")
            };
            conn::serve(&shared, &own, &peer);
        };
        if pool.run(job).is_err() {
            turn_away(&live.socket, &reply::UNAVAILABLE);
        }
    }
}

/// One write, no worker, no wait: the socket's buffer is empty.
fn turn_away(socket: &Socket, reply: &reply::Reply) {
    let mut octets = Vec::new();
    reply.render(&mut octets);
    let _ = socket.write(&octets);
    socket.shutdown(Shutdown::Both);
}

/// A listener, and the handle of it that mio watches.
struct Bound {
    listener: TcpListener,
    _watched: mio::net::TcpListener,
}

fn bind(address: &str, poll: &Poll, token: Token) -> io::Result<Bound> {
    let addresses: Vec<_> = address.to_socket_addrs()?.collect();
    let listener = TcpListener::bind(addresses.as_slice())?;
    listener.set_nonblocking(true)?;
    let mut watched = mio::net::TcpListener::from_std(listener.try_clone()?);
    poll.registry()
        .register(&mut watched, token, Interest::READABLE)?;
    log::info!("listening on smtp://{}", listener.local_addr()?);
    Ok(Bound {
        listener,
        _watched: watched,
    })
}

/// Waits for signals in a thread: nothing runs in a handler (A18).
fn watch(signals: SigSet, shared: Arc<Shared>, waker: Waker) -> io::Result<()> {
    let wait = move || {
        let _ = signals.wait();
        shared.stopping.store(true, Ordering::SeqCst);
        if waker.wake().is_err() {
            std::process::exit(0);
        }
        let _ = signals.wait();
        std::process::exit(0);
    };
    std::thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(wait)
        .map(|_| ())
}

/// Idle connections hear 421 now; one within a message may finish it (F41, F42).
fn drain(crowd: &Crowd) {
    let deadline = Instant::now() + GRACE;
    loop {
        {
            let all = crowd.lock();
            if all.is_empty() || Instant::now() >= deadline {
                return;
            }
            for (live, _) in all.values() {
                if !live.busy.load(Ordering::SeqCst) {
                    live.socket.shutdown(Shutdown::Read);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wrong(name: &str, value: Option<&str>, right: &str) -> Failure {
    Failure::usage(format!(
        "--{name}: '{}' is wrong; say {right}",
        value.unwrap_or_default()
    ))
}

fn count(settings: &Settings, name: &str) -> Result<usize, Failure> {
    let value = settings.one(name);
    let number = value.and_then(|text| text.parse().ok()).filter(|&n| n > 0);
    number.ok_or_else(|| wrong(name, value, "a whole number above 0"))
}

/// A number with K, M or G behind it, powers of 1024.
fn size(settings: &Settings, name: &str) -> Result<u64, Failure> {
    let value = settings.one(name).unwrap_or_default();
    let (digits, unit) = match value.char_indices().last() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => {
            (value.get(..at), letter.to_ascii_uppercase())
        }
        _ => (Some(value), ' '),
    };
    let factor: Option<u64> = match unit {
        ' ' => Some(1),
        'K' => Some(1 << 10),
        'M' => Some(1 << 20),
        'G' => Some(1 << 30),
        _ => None,
    };
    let number = digits.and_then(|d| d.parse::<u64>().ok());
    let octets = number
        .zip(factor)
        .and_then(|(n, f)| n.checked_mul(f))
        .filter(|&n| n > 0);
    octets.ok_or_else(|| wrong(name, Some(value), "a size such as 50M"))
}

/// A number with s, m, h or d behind it.
fn duration(settings: &Settings) -> Result<Duration, Failure> {
    let value = settings.one("timeout").unwrap_or_default();
    let seconds = [("s", 1_u64), ("m", 60), ("h", 3_600), ("d", 86_400)]
        .into_iter()
        .find_map(|(unit, factor)| {
            value
                .strip_suffix(unit)?
                .parse::<u64>()
                .ok()?
                .checked_mul(factor)
        });
    let seconds = seconds.filter(|s| (1..=365 * 86_400).contains(s));
    seconds
        .map(Duration::from_secs)
        .ok_or_else(|| wrong("timeout", Some(value), "a duration such as 5m"))
}

/// `smtp://HOST:PORT` to `HOST:PORT`.
fn address(url: &str) -> Result<String, Failure> {
    let right = "smtp://HOST:PORT";
    let rest = url
        .strip_prefix("smtp://")
        .ok_or_else(|| wrong("listen", Some(url), right))?;
    let bare = rest
        .strip_prefix('[')
        .and_then(|r| r.split_once(']'))
        .map_or(rest, |(_, port)| port);
    match bare.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_err() => Err(wrong("listen", Some(url), right)),
        Some(("", port)) if !rest.starts_with('[') => Ok(format!("[::]:{port}")),
        Some(_) => Ok(rest.to_owned()),
        None if rest.is_empty() => Ok("[::]:25".to_owned()),
        None => Ok(format!("{rest}:25")),
    }
}
