//! What connections share: the files as last read, the disk, and whether the server is pressed or
//! ending. Here the session's questions are answered, out of the directory and the disk.

use crate::auth::{Account, Accounts};
use crate::deliver::{Store, Target};
use crate::directory::Directory;
use crate::encoding::base64_encode;
use crate::net::stream::Socket;
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::smtp::policy::Policy;
use crate::smtp::reply::Refusal;
use crate::smtp::session::Host;
use ring::rand::{SecureRandom as _, SystemRandom};
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

pub(crate) struct World<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) store: &'a Store,
}

impl Accounts for World<'_> {
    fn account(&mut self, login: &str) -> Account {
        self.directory.account(login)
    }
}

impl Host for World<'_> {
    type Recipient = Vec<Arc<Target>>;

    fn recipient(
        &mut self,
        to: &ForwardPath,
        size: Option<u64>,
    ) -> Result<Self::Recipient, Refusal> {
        let targets = self.directory.resolve(to)?;
        for target in &targets {
            self.store.quota_check(target, size.unwrap_or(0))?;
        }
        Ok(targets)
    }

    fn room(&mut self, octets: u64) -> Result<(), Refusal> {
        self.store.room(self.directory.root(), octets)
    }

    fn vrfy(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        self.directory.vrfy(name)
    }

    fn expn(&mut self, name: &str) -> Result<Vec<String>, Refusal> {
        self.directory.expn(name)
    }

    fn may_send_as(&mut self, user: &str, from: &ReversePath) -> bool {
        self.directory.may_send_as(user, from)
    }

    fn nonce(&mut self) -> String {
        let mut octets = [0; 24];
        // Without randomness the challenge is empty, and no mechanism takes that.
        match SystemRandom::new().fill(&mut octets) {
            Ok(()) => base64_encode(&octets),
            Err(_) => String::new(),
        }
    }
}
