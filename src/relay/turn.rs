//! ATRN (RFC 2645): the mail of an `atrn:` hop is sent over its user's connection, with the roles reversed. Retry times
//! do not apply, and mail that is left when the connection ends keeps waiting.

use std::collections::HashSet;
use std::sync::Arc;

use super::link::Link;
use super::route::RouteKind;
use super::schedule::Hop;
use super::sender::Relay;
use crate::client::{self, Connection};
use crate::net::dns::to_alabel;
use crate::net::socket::Socket;
use crate::net::stream::Stream;
use crate::smtp::client::{Channel, ClientConfig, TlsUse};

/// Why the roles cannot be reversed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTurn {
    /// The user has no `atrn:` hop, not for a named domain, or is fetching mail already.
    Refused,
    /// No mail is waiting.
    NothingWaits,
}

/// A connection whose roles are reversed.
pub struct Turned {
    /// The stream, without pending output.
    pub stream: Stream,
    /// Its socket.
    pub socket: Arc<Socket>,
    /// True if it uses TLS.
    pub tls: bool,
    /// The peer, for the log and for reports.
    pub peer: String,
}

/// The mail of one hop to send; what is left is rescheduled when this is dropped.
struct Batch<'a> {
    relay: &'a Relay,
    hop: Hop,
    /// In reverse order.
    ids: Vec<Arc<str>>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            self.relay.wait_again(&self.hop, &id);
        }
    }
}

/// The claimed hops of a connection, released when dropped.
struct Claim<'a> {
    relay: &'a Relay,
    thread: usize,
    hops: &'a [Hop],
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.relay.release(self.hops);
        self.relay.end_thread(self.thread);
    }
}

impl Relay {
    /// Claims a user's hops for the mail of these domains, or for all of it if none is named.
    ///
    /// # Errors
    /// Why there is nothing to send.
    pub fn claim_turn(&self, user: &str, domains: &[&str]) -> Result<(), NoTurn> {
        let hops = self.fetched_by(user);
        let own = |domain: &&str| {
            let route = self.settings.routes.find(domain);
            route.is_some_and(|route| hops.iter().any(|hop| hop.route == route))
        };
        if hops.is_empty() || !domains.iter().all(own) || !self.claim(&hops) {
            return Err(NoTurn::Refused);
        }
        let names = names(domains);
        if hops.iter().all(|hop| self.wanted(hop, &names).is_empty()) {
            self.release(&hops);
            return Err(NoTurn::NothingWaits);
        }
        Ok(())
    }

    /// Sends the claimed mail, then QUIT.
    pub fn turn(&self, user: &str, domains: &[&str], turned: Turned) {
        let hops = self.fetched_by(user);
        let claim = Claim {
            relay: self,
            thread: self.begin_thread(),
            hops: &hops,
        };
        match self.take_over(turned) {
            Ok(link) => {
                let (handle, mut link) = (link.connection.handle(), Some(link));
                for hop in &hops {
                    self.opened(hop, claim.thread, handle.clone());
                    link = link.and_then(|link| self.hand_over(hop, &names(domains), link));
                }
                if let Some(link) = link {
                    link.connection.quit();
                }
            }
            Err(e) => log::warn!("ATRN user={user:?}: {e}"),
        }
    }

    /// The `atrn:` hops of a user.
    fn fetched_by(&self, user: &str) -> Vec<Hop> {
        let routes = self.settings.routes.all().iter().enumerate();
        let own = routes.filter(
            |(_, route)| matches!(&route.kind, RouteKind::Atrn(own) if own.eq_ignore_ascii_case(user)),
        );
        let hop = |(route, _)| Hop {
            route,
            domain: "".into(),
        };
        own.map(hop).collect()
    }

    /// The waiting messages of a hop with a recipient at one of these domains.
    fn wanted(&self, hop: &Hop, names: &[String]) -> HashSet<Arc<str>> {
        let ids = self.waiting(hop).into_iter();
        let is_wanted = |id: &Arc<str>| {
            let mut all = names.iter();
            names.is_empty() || all.any(|name| self.is_for(id, name, false))
        };
        ids.filter(is_wanted).collect()
    }

    /// A message that was not sent is rescheduled.
    fn wait_again(&self, hop: &Hop, id: &Arc<str>) {
        let envelope = match self.queue().read(id) {
            Ok(envelope) => envelope,
            Err(e) => return self.unreadable(hop, id, &e),
        };
        let own = self.recipients(&envelope, hop);
        if let Some(next) = own.iter().map(|to| to.next).min() {
            self.put_off(hop, id, next);
        }
    }

    fn take_over(&self, turned: Turned) -> Result<Link, String> {
        // The peer of a Unix socket has no name that a report could have.
        let host = match turned.peer.starts_with("unix") {
            true => "localhost".to_owned(),
            false => turned.peer,
        };
        let settings = ClientConfig {
            lmtp: false,
            hostname: self.settings.hostname.clone(),
            tls: TlsUse::Never,
            login: None,
            nonce: client::nonce().map_err(|e| e.to_string())?,
        };
        let channel = match turned.tls {
            // The user's host has authenticated by password, not by a certificate.
            true => Channel::Tls {
                exporter: None,
                verified: false,
            },
            false => Channel::Clear,
        };
        let destination = client::Destination {
            addresses: Vec::new(),
            host: host.clone(),
            implicit_tls: false,
            verify: false,
            unsigned: false,
            proxy: false,
        };
        let (stream, socket) = (turned.stream, turned.socket);
        let tls = &self.settings.tls;
        let connection = Connection::over(stream, socket, channel, settings, (&destination, tls));
        Ok(Link {
            connection: connection.map_err(|e| e.to_string())?,
            host,
            used: 0,
            exposed: false,
        })
    }

    /// Sends one message after another; returns the connection if it can still be used.
    fn hand_over(&self, hop: &Hop, names: &[String], link: Link) -> Option<Link> {
        let wanted = self.wanted(hop, names);
        let mut ids = self.withdraw(hop, |id| wanted.contains(id));
        ids.reverse();
        let mut batch = Batch {
            relay: self,
            hop: hop.clone(),
            ids,
        };
        let mut link = Some(link);
        while let Some(open) = link.take() {
            let goes_on = !self.is_stopping() && !open.is_full();
            let next = batch.ids.last().filter(|_| goes_on);
            let Some(id) = next.map(Arc::clone) else {
                return Some(open);
            };
            link = self.send_over(hop, &id, names, open);
            batch.ids.pop();
        }
        None
    }
}

/// The domains in the form that recipients' domains are compared with.
fn names(domains: &[&str]) -> Vec<String> {
    let lower = |domain: &&str| domain.to_lowercase();
    let name = |domain: &&str| to_alabel(domain).unwrap_or_else(|| lower(domain));
    domains.iter().map(name).collect()
}
