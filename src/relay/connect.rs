//! Opens a connection for a route: finds hosts, port and login.

use std::net::{IpAddr, SocketAddr};

use super::link::Link;
use super::route::{Route, RouteKind, TlsMode};
use super::schedule::Hop;
use super::sender::Relay;
use crate::client::{self, Connection, nonce};
use crate::net::dial::{self, Address, Unroutable};
use crate::smtp::client::{ClientConfig, ConnectionError, Outcome, Stage, Status, TlsUse, Verdict};

/// The port of exchangers.
const SMTP_PORT: u16 = 25;

/// Why a connection failed.
pub(super) enum NoConnection {
    /// The hop cannot be used now: all its mail must wait.
    Later(ConnectionError),
    /// The domain has no host for its mail.
    Never(Outcome),
    /// The mail waits until its user fetches it, or until there is a hop for it.
    Waits(Outcome),
}

impl Relay {
    /// Connects to the first host of a hop that answers.
    pub(super) fn connect(&self, hop: &Hop, thread: usize) -> Result<Link, NoConnection> {
        let gone = || ConnectionError::Lost(Stage::Connect, "no such hop".to_owned());
        let route = self.route(hop.route).ok_or_else(|| {
            let text = "No next hop takes mail for this domain";
            let outcome = Outcome::local(Verdict::Later, Status::new(4, 4, 4), text);
            NoConnection::Waits(outcome)
        })?;
        let hosts = self.hosts(route, &hop.domain)?;
        let clear = route.tls == TlsMode::Offered && self.is_clear(hop);
        let open = |host: &client::Destination| {
            if self.is_stopping() {
                return Err(gone());
            }
            let settings = self.client_settings(route, &host.host, clear);
            let settings = settings.map_err(ConnectionError::Auth)?;
            Connection::open(host, settings, &self.settings.tls, None)
        };
        let (connection, host) = first(hosts, gone(), open).map_err(NoConnection::Later)?;
        self.opened(hop, thread, connection.handle());
        Ok(Link {
            connection,
            host,
            used: 0,
        })
    }

    fn client_settings(
        &self,
        route: &Route,
        host: &str,
        clear: bool,
    ) -> Result<ClientConfig, String> {
        let (lmtp, login) = match &route.kind {
            RouteKind::Host {
                lmtp, port, user, ..
            } => {
                let login = self.settings.logins.find(host, *port, user.as_deref());
                if let (Some(user), None) = (user, login) {
                    return Err(format!("no password for {user} at {host} in --relay-auth"));
                }
                (*lmtp, login.cloned())
            }
            RouteKind::Socket(_) => (true, None),
            RouteKind::Mx | RouteKind::Atrn(_) => (false, None),
        };
        Ok(ClientConfig {
            lmtp,
            hostname: self.settings.hostname.clone(),
            tls: match route.tls {
                TlsMode::Required => TlsUse::Required,
                TlsMode::Offered if !clear => TlsUse::Offered,
                _ => TlsUse::Never,
            },
            login,
            nonce: nonce().map_err(|e| e.to_string())?,
        })
    }

    /// The hosts of a route, best first.
    fn hosts(&self, route: &Route, domain: &str) -> Result<Vec<client::Destination>, NoConnection> {
        let at = |host: &str, addresses: Vec<Address>| client::Destination {
            addresses,
            host: host.to_owned(),
            implicit_tls: route.tls == TlsMode::Implicit,
            verify: route.verifies(),
            proxy: false,
        };
        let tcp = |addresses: Vec<IpAddr>, port| -> Vec<Address> {
            addresses
                .into_iter()
                .map(|ip| Address::Tcp(SocketAddr::new(ip, port)))
                .collect()
        };
        match &route.kind {
            RouteKind::Socket(path) => Ok(vec![at("localhost", vec![Address::Unix(path.clone())])]),
            RouteKind::Host { host, port, .. } => match self.resolver.addresses(host) {
                Ok(found) => Ok(vec![at(host, tcp(found, *port))]),
                Err(e) => Err(NoConnection::Later(ConnectionError::Lost(
                    Stage::Connect,
                    format!("{host}: {e}"),
                ))),
            },
            RouteKind::Mx => {
                let own = |_: &str, addresses: &[IpAddr]| {
                    addresses.iter().any(|&ip| self.is_own(ip, SMTP_PORT))
                };
                let found = dial::exchangers(&self.resolver, domain, &own).map_err(unroutable)?;
                let hosts = found
                    .into_iter()
                    .map(|mx| at(&mx.host, tcp(mx.addresses, SMTP_PORT)));
                Ok(hosts.collect())
            }
            RouteKind::Atrn(user) => {
                let text = format!("Waits until {user} fetches it");
                let outcome = Outcome::local(Verdict::Later, Status::new(4, 4, 1), text);
                Err(NoConnection::Waits(outcome))
            }
        }
    }

    fn is_own(&self, address: IpAddr, port: u16) -> bool {
        self.settings.own.iter().any(|own| {
            let same = own.ip() == address || own.ip().is_unspecified() && dial::is_own(address);
            own.port() == port && same
        })
    }
}

/// Opens the first host that can be opened; one that refuses does not speak for the others (RFC 5321 §5.1).
///
/// # Errors
/// That of the last host, or `failure` without any.
fn first<T>(
    hosts: Vec<client::Destination>,
    mut failure: ConnectionError,
    mut open: impl FnMut(&client::Destination) -> Result<T, ConnectionError>,
) -> Result<(T, String), ConnectionError> {
    for host in hosts {
        match open(&host) {
            Ok(opened) => return Ok((opened, host.host)),
            Err(e) => failure = e,
        }
    }
    Err(failure)
}

fn unroutable(why: Unroutable) -> NoConnection {
    let status = match &why {
        Unroutable::NoSuchDomain => Status::new(5, 1, 2),
        Unroutable::NullMx => Status::new(5, 1, 10),
        Unroutable::Loop => Status::new(5, 4, 6),
        Unroutable::Later(text) => {
            return NoConnection::Later(ConnectionError::Lost(Stage::Connect, text.clone()));
        }
    };
    NoConnection::Never(Outcome::local(Verdict::Failed, status, why.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::smtp::client::Replies;

    #[test]
    fn the_next_exchanger_is_tried_after_a_refusal() {
        let host = |name: &str| client::Destination {
            addresses: Vec::new(),
            host: name.to_owned(),
            implicit_tls: false,
            verify: false,
            proxy: false,
        };
        let refused = |stage| {
            let reply = Replies::new().take(&mut &b"554 no\r\n"[..]);
            ConnectionError::Refused(stage, reply.unwrap().unwrap())
        };
        let all = ["greets", "says", "takes", "unused"].map(host);
        let none = || refused(Stage::Connect);
        let found = first(all.to_vec(), none(), |host| match host.host.as_str() {
            "greets" => Err(refused(Stage::Greeting)),
            "says" => Err(refused(Stage::Hello)),
            name => Ok(name.to_owned()),
        });
        assert_eq!(found, Ok(("takes".to_owned(), "takes".to_owned())));
        let last = first::<()>(all.to_vec(), none(), |_| Err(refused(Stage::Hello)));
        assert_eq!(last, Err(refused(Stage::Hello)));
        assert_eq!(first(Vec::new(), none(), |_| Ok(())), Err(none()));
    }

    #[test]
    fn statuses_of_domains_without_a_host() {
        for (why, status) in [
            (Unroutable::NoSuchDomain, Some("5.1.2")),
            (Unroutable::NullMx, Some("5.1.10")),
            (Unroutable::Loop, Some("5.4.6")),
            (Unroutable::Later("silence".to_owned()), None),
        ] {
            let never = match unroutable(why) {
                NoConnection::Never(outcome) => Some(outcome.status.to_string()),
                _ => None,
            };
            assert_eq!(never.as_deref(), status);
        }
    }
}
