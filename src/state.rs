//! What connections share: the files as last read, the disk, and whether the server is pressed or
//! ending. Here the files are read, at the start and again at SIGHUP.

use crate::clock;
use crate::config::Config;
use crate::deliver::Store;
use crate::directory::Directory;
use crate::net::stream::Socket;
use crate::net::tls::Identity;
use crate::net::url::Scheme;
use crate::smtp::policy::{Policy, Service};
use rustls::ServerConfig;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

/// What all connections share.
pub struct Shared {
    /// What was read from files, as it is now. [`Self::renew`] replaces it.
    site: RwLock<Arc<Site>>,
    /// How often it was replaced: connections look here and lock nothing.
    pub(crate) generation: AtomicU64,
    /// The disk.
    pub store: Store,
    /// The wait for a client.
    pub timeout: Duration,
    /// Whether Received names the user (`--auth-header`).
    pub auth_header: bool,
    /// Set while more than four fifths of the connections are in use.
    pub crowded: AtomicBool,
    /// Set once the server ends.
    pub stopping: AtomicBool,
}

/// What one reading of the files gave.
pub struct Site {
    /// The mailboxes.
    pub directory: Directory,
    /// The listeners' rules, by their number.
    pub ports: Vec<Port>,
}

/// What holds at one listener.
pub struct Port {
    /// The rules.
    pub policy: Arc<Policy>,
    /// The certificate.
    pub tls: Option<Arc<ServerConfig>>,
    /// Whether TLS begins with the first octet (RFC 8314 §3.3).
    pub implicit: bool,
}

impl Shared {
    /// Nothing stops or presses yet.
    pub const fn new(site: Arc<Site>, store: Store, timeout: Duration, auth_header: bool) -> Self {
        Self {
            site: RwLock::new(site),
            generation: AtomicU64::new(0),
            store,
            timeout,
            auth_header,
            crowded: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// What the files say now.
    pub fn site(&self) -> Arc<Site> {
        Arc::clone(&self.site.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts what was read anew in place of what was there; transactions under way end with
    /// what they began with.
    pub fn renew(&self, site: Arc<Site>) {
        *self.site.write().unwrap_or_else(PoisonError::into_inner) = site;
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// The wait for a client, a tenth of it under stress.
    pub(crate) fn wait(&self) -> Duration {
        if self.crowded.load(Ordering::Relaxed) {
            self.timeout / 10
        } else {
            self.timeout
        }
    }
}

/// What the server must know of a connection to end it in peace.
#[derive(Debug)]
pub struct Live {
    /// The socket.
    pub socket: Arc<Socket>,
    /// Set while a message comes in: it may finish.
    pub busy: AtomicBool,
}

/// Reads users, aliases, certificate and key: all of them or nothing.
pub(crate) fn load(config: &Config) -> Result<Site, String> {
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
pub(crate) fn reload(config: &Config, shared: &Shared) {
    match load(config) {
        Ok(site) => {
            shared.renew(Arc::new(site));
            log::info!("files read again");
        }
        Err(reason) => log::error!("not read again, the old ones stay in force: {reason}"),
    }
}
