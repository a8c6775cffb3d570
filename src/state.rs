//! The state that connections share: the files as last read, the disk, stress and shutdown. The files are read here, at
//! the start and again at SIGHUP.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;

use crate::auth::{MECHANISMS, Mechanism, Secret};
use crate::clock;
use crate::config::Config;
use crate::deliver::Store;
use crate::directory::Directory;
use crate::greylist::Keeper;
use crate::metrics::Metrics;
use crate::net::tls::Certificate;
use crate::net::url::{ListenUrl, Scheme};
use crate::oauth::Tokens;
use crate::relay::Relay;
use crate::smtp::policy::{Policy, Service};
use crate::throttle::Throttle;
use crate::values::Networks;

/// The state that all connections share.
pub struct ServerState {
    /// The current snapshot of the files. [`Self::renew`] replaces it.
    snapshot: RwLock<Arc<Snapshot>>,
    /// Counts replacements, so that connections can check it without a lock.
    pub(crate) generation: AtomicUsize,
    /// The disk.
    pub store: Store,
    /// The timeout of clients.
    pub timeout: Duration,
    /// True if Received names the user (`--auth-header`).
    pub auth_header: bool,
    /// Peers that are trusted with PROXY and XCLIENT.
    pub trust: Networks,
    /// The metrics.
    pub metrics: Metrics,
    /// Recent logins and messages of clients.
    pub throttle: Throttle,
    /// The recipients of all current transactions, beyond a few of each.
    pub recipients: RecipientPool,
    /// True while more than four fifths of the connections are in use.
    pub stress: AtomicBool,
    /// The relay, if any.
    pub relay: OnceLock<Arc<Relay>>,
    /// The greylist, if any.
    pub greylist: OnceLock<Arc<Keeper>>,
    /// True once the server stops.
    pub stopping: AtomicBool,
}

/// Bounds the recipients that all connections hold in memory together.
pub struct RecipientPool {
    pub(crate) max: usize,
    pub(crate) taken: AtomicUsize,
}

impl RecipientPool {
    /// A pool of `max` recipients.
    pub const fn new(max: usize) -> Self {
        Self {
            max,
            taken: AtomicUsize::new(0),
        }
    }
}

/// The files as read at one time.
pub struct Snapshot {
    /// The mailboxes.
    pub directory: Directory,
    /// The keys of OAuth tokens.
    pub tokens: Option<Tokens>,
    /// The rules of listeners, by number.
    pub listeners: Vec<ListenerRules>,
}

/// The rules of one listener.
pub struct ListenerRules {
    /// The rules.
    pub policy: Arc<Policy>,
    /// The certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// True if TLS begins with the first octet (RFC 8314 §3.3).
    pub implicit: bool,
    /// True if connections begin with a PROXY header.
    pub proxy: bool,
}

impl ServerState {
    /// The initial state, neither stopping nor under stress.
    pub const fn new(
        snapshot: Arc<Snapshot>,
        store: Store,
        timeout: Duration,
        auth_header: bool,
        trust: Networks,
        metrics: Metrics,
        throttle: Throttle,
    ) -> Self {
        Self {
            snapshot: RwLock::new(snapshot),
            generation: AtomicUsize::new(0),
            store,
            timeout,
            auth_header,
            trust,
            metrics,
            throttle,
            recipients: RecipientPool::new(usize::MAX),
            stress: AtomicBool::new(false),
            relay: OnceLock::new(),
            greylist: OnceLock::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the snapshot; current transactions finish with the old one.
    pub fn renew(&self, snapshot: Arc<Snapshot>) {
        *self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner) = snapshot;
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// True while more than four fifths of the connections are in use.
    pub(crate) fn is_stressed(&self) -> bool {
        self.stress.load(Ordering::Relaxed)
    }
}

/// A timeout under stress.
pub(crate) fn under_stress(wait: Duration) -> Duration {
    wait / 10
}

/// Reads users, aliases, token keys, certificate and key: all of them or none.
pub(crate) fn load(config: &Config) -> Result<Snapshot, String> {
    let directory = Directory::load(&config.directory).map_err(|e| e.to_string())?;
    let tokens = config.oauth.as_ref().map(Tokens::load).transpose();
    let tokens = tokens.map_err(|e| e.to_string())?;
    let mut mechanisms = directory.mechanisms();
    if tokens.is_some() {
        let by_token = MECHANISMS.iter().filter(|m| m.secret() == Secret::Token);
        mechanisms.extend(by_token);
    }
    let identity = match &config.tls {
        Some((chain, key)) => Some(Certificate::load(chain, key)?),
        None => None,
    };
    if let Some([begin, end]) = identity.as_ref().and_then(Certificate::validity) {
        // Served all the same (F40): for most clients an expired certificate is better than none.
        let now = clock::utc_digits();
        if end < now {
            log::warn!("certificate expired at {end}Z");
        } else if now < begin {
            log::warn!("certificate not valid before {begin}Z");
        }
    }
    let rules = |url| {
        let tls = identity.as_ref().map(Certificate::config).transpose()?;
        Ok(ListenerRules::new(url, config, &mechanisms, tls))
    };
    let listeners = config
        .listen
        .iter()
        .map(rules)
        .collect::<Result<_, String>>()?;
    Ok(Snapshot {
        directory,
        tokens,
        listeners,
    })
}

impl ListenerRules {
    /// The rules of a listener, with these mechanisms and this certificate.
    fn new(
        url: &ListenUrl,
        config: &Config,
        mechanisms: &[Mechanism],
        tls: Option<Arc<ServerConfig>>,
    ) -> Self {
        let relay = config.relay.as_ref();
        let policy = Policy {
            service: match url.scheme {
                Scheme::Smtp | Scheme::Metrics => Service::Smtp,
                Scheme::Submission | Scheme::Submissions => Service::Submission,
                Scheme::Lmtp => Service::Lmtp,
            },
            starttls: tls.is_some(),
            mechanisms: mechanisms.to_vec(),
            // Unless DSN is offered, an MTA that delivers by LMTP sends reports itself; without a relay that is better.
            dsn: relay.is_some() || url.scheme != Scheme::Lmtp,
            etrn: relay.is_some(),
            atrn: relay.is_some_and(|relay| relay.fetching().next().is_some()),
            ..config.policy.clone()
        };
        Self {
            policy: Arc::new(policy),
            tls,
            implicit: url.scheme == Scheme::Submissions,
            proxy: url.proxy,
        }
    }
}

/// SIGHUP: after an error the previous files stay, and the log says why (F39, F44).
pub(crate) fn reload(config: &Config, state: &ServerState) {
    match load(config) {
        Ok(snapshot) => {
            let before = state.snapshot();
            snapshot.directory.keep_roots(&before.directory);
            state.renew(Arc::new(snapshot));
            log::info!("reloaded");
        }
        Err(reason) => log::error!("reload failed, keeping the previous files: {reason}"),
    }
}
