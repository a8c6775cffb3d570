//! What connections share: the files as last read, the disk, and whether the server is pressed or
//! ending. Here the files are read, at the start and again at SIGHUP.

use crate::auth::TOKEN_MECHANISMS;
use crate::clock;
use crate::config::Config;
use crate::deliver::Store;
use crate::directory::Directory;
use crate::greylist::Keeper;
use crate::metrics::Metrics;
use crate::net::tls::Identity;
use crate::net::url::Scheme;
use crate::oauth::Tokens;
use crate::relay::Relay;
use crate::smtp::policy::{Policy, Service};
use crate::throttle::Throttle;
use crate::values::Networks;
use rustls::ServerConfig;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

/// What all connections share.
pub struct ServerState {
    /// What was read from files, as it is now. [`Self::renew`] replaces it.
    snapshot: RwLock<Arc<Snapshot>>,
    /// How often it was replaced: connections look here and lock nothing.
    pub(crate) generation: AtomicUsize,
    /// The disk.
    pub store: Store,
    /// The wait for a client.
    pub timeout: Duration,
    /// Whether Received names the user (`--auth-header`).
    pub auth_header: bool,
    /// Who may say which client it speaks for.
    pub trust: Networks,
    /// What is counted.
    pub metrics: Metrics,
    /// What clients did lately.
    pub throttle: Throttle,
    /// Set while more than four fifths of the connections are in use.
    pub stress: AtomicBool,
    /// Where mail for elsewhere goes, where it may.
    pub relay: OnceLock<Arc<Relay>>,
    /// Who is put off at first, where anybody is.
    pub greylist: OnceLock<Arc<Keeper>>,
    /// Set once the server ends.
    pub stopping: AtomicBool,
}

/// What one reading of the files gave.
pub struct Snapshot {
    /// The mailboxes.
    pub directory: Directory,
    /// The keys that tokens are signed with.
    pub tokens: Option<Tokens>,
    /// The listeners' rules, by their number.
    pub listeners: Vec<ListenerRules>,
}

/// What holds at one listener.
pub struct ListenerRules {
    /// The rules.
    pub policy: Arc<Policy>,
    /// The certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether TLS begins with the first octet (RFC 8314 §3.3).
    pub implicit: bool,
    /// A PROXY header comes before everything else.
    pub proxy: bool,
}

impl ServerState {
    /// Nothing stops or presses yet.
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
            stress: AtomicBool::new(false),
            relay: OnceLock::new(),
            greylist: OnceLock::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// What the files say now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts what was read anew in place of what was there; transactions under way end with
    /// what they began with.
    pub fn renew(&self, snapshot: Arc<Snapshot>) {
        *self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner) = snapshot;
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// The wait for a client now.
    pub(crate) fn wait(&self) -> Duration {
        self.patience(self.timeout)
    }

    /// A wait as it is now: a tenth of it under stress.
    pub(crate) fn patience(&self, wait: Duration) -> Duration {
        if self.is_pressed() {
            pressed(wait)
        } else {
            wait
        }
    }

    /// Whether places are short.
    pub(crate) fn is_pressed(&self) -> bool {
        self.stress.load(Ordering::Relaxed)
    }
}

/// What a wait shrinks to under stress.
pub(crate) fn pressed(wait: Duration) -> Duration {
    wait / 10
}

/// Reads users, aliases, certificate and key: all of them or nothing.
pub(crate) fn load(config: &Config) -> Result<Snapshot, String> {
    let directory = Directory::load(&config.directory).map_err(|e| e.to_string())?;
    let tokens = config.oauth.as_ref().map(Tokens::load).transpose();
    let tokens = tokens.map_err(|e| e.to_string())?;
    let mut mechanisms = directory.mechanisms();
    if tokens.is_some() {
        mechanisms.extend(TOKEN_MECHANISMS);
    }
    let identity = match &config.tls {
        Some((chain, key)) => Some(Identity::load(chain, key)?),
        None => None,
    };
    if let Some(end) = identity.as_ref().and_then(Identity::not_after)
        && end < clock::utc_digits()
    {
        // Served all the same (F40): an old certificate is better than none to most clients.
        log::warn!("certificate expired at {end}Z");
    }
    let relay = config.relay.as_ref();
    let mut listeners = Vec::with_capacity(config.listen.len());
    for url in &config.listen {
        let tls = identity.as_ref().map(Identity::config).transpose()?;
        listeners.push(ListenerRules {
            policy: Arc::new(Policy {
                service: match url.scheme {
                    Scheme::Smtp | Scheme::Metrics => Service::Smtp,
                    Scheme::Submission | Scheme::Submissions => Service::Submission,
                    Scheme::Lmtp => Service::Lmtp,
                },
                starttls: tls.is_some(),
                mechanisms: mechanisms.clone(),
                // An MTA that hands over by LMTP reports itself what LMTP's replies tell, unless DSN is offered: where no
                // report can leave this host that is better.
                dsn: config.relay.is_some() || url.scheme != Scheme::Lmtp,
                etrn: config.relay.is_some(),
                atrn: relay.is_some_and(|relay| relay.fetching().next().is_some()),
                ..config.policy.clone()
            }),
            tls,
            implicit: url.scheme == Scheme::Submissions,
            proxy: url.proxy,
        });
    }
    Ok(Snapshot {
        directory,
        tokens,
        listeners,
    })
}

/// SIGHUP: a broken file keeps the previous ones, and the log says why (F39, F44).
pub(crate) fn reload(config: &Config, state: &ServerState) {
    match load(config) {
        Ok(snapshot) => {
            state.renew(Arc::new(snapshot));
            log::info!("reloaded");
        }
        Err(reason) => log::error!("reload failed, keeping the previous files: {reason}"),
    }
}
