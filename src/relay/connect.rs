//! Opens a connection for a route: finds hosts, port and login.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::link::Link;
use super::route::{Route, RouteKind, TlsMode};
use super::schedule::Hop;
use super::sender::Relay;
use crate::client::{self, Connection, nonce};
use crate::net::dial::{self, Address, Unroutable};
use crate::smtp::client::{ClientConfig, ConnectionError, Outcome, Stage, Status, TlsUse, Verdict};

/// The port of exchangers.
const SMTP_PORT: u16 = 25;

/// Time after which no further address is tried before the next try of the hop.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// Addresses that are tried all the same (RFC 5321 §5.1).
const LEAST_ADDRESSES: usize = 2;

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
        let addresses = hosts.iter().flat_map(by_address);
        let end = Instant::now() + PATIENCE;
        let found = first(addresses, end, gone(), open);
        let (connection, host) = found.map_err(NoConnection::Later)?;
        self.opened(hop, thread, connection.handle());
        Ok(Link {
            connection,
            host,
            used: 0,
            exposed: clear,
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
            unsigned: false,
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
            RouteKind::Host { host, port, .. } => match self.settings.resolver.addresses(host) {
                Ok(found) => Ok(vec![at(host, tcp(found, *port))]),
                Err(e) => Err(NoConnection::Later(ConnectionError::Lost(
                    Stage::LookUp,
                    format!("{host}: {e}"),
                ))),
            },
            RouteKind::Mx => {
                let own = |name: &str, addresses: &[IpAddr]| {
                    self.is_own_name(name) || addresses.iter().any(|&ip| self.is_own(ip, SMTP_PORT))
                };
                let found = dial::exchangers(self.settings.resolver, domain, &own);
                let found = found.map_err(unroutable)?;
                let hosts = found.into_iter().map(|mx| client::Destination {
                    unsigned: is_unsigned(&mx.host, domain),
                    ..at(&mx.host, tcp(mx.addresses, SMTP_PORT))
                });
                Ok(hosts.collect())
            }
            RouteKind::Atrn(user) => {
                let text = format!("Waits until {user} fetches it");
                let outcome = Outcome::local(Verdict::Later, Status::new(4, 4, 1), text);
                Err(NoConnection::Waits(outcome))
            }
        }
    }

    /// RFC 5321 §5.1: an exchanger may be this host by its name alone, as behind an address translation.
    fn is_own_name(&self, name: &str) -> bool {
        is_named(name, &self.settings.hostname, &self.settings.own)
    }

    fn is_own(&self, address: IpAddr, port: u16) -> bool {
        self.settings.own.iter().any(|own| {
            let same = own.ip() == address || own.ip().is_unspecified() && dial::is_own(address);
            own.port() == port && same
        })
    }
}

/// True if an exchanger has the name of this host, which takes mail of other hosts.
fn is_named(exchanger: &str, hostname: &str, own: &[SocketAddr]) -> bool {
    // One on loopback only is not what the name means: another server may have the other addresses.
    let takes = |own: &SocketAddr| own.port() == SMTP_PORT && !own.ip().is_loopback();
    own.iter().any(takes) && exchanger.eq_ignore_ascii_case(hostname)
}

/// True if an MX record names an exchanger: signatures of the DNS are not looked at, so that anybody may have made it.
fn is_unsigned(exchanger: &str, domain: &str) -> bool {
    !domain.starts_with('[') && !exchanger.eq_ignore_ascii_case(domain)
}

/// The addresses of a host, each by itself.
fn by_address(host: &client::Destination) -> impl Iterator<Item = client::Destination> {
    host.addresses.iter().map(|address| client::Destination {
        addresses: vec![address.clone()],
        ..host.clone()
    })
}

/// Opens the first address that can be opened; one that refuses does not speak for the others (RFC 5321 §5.1), but a
/// password is not tried at all of them. After `end` the rest is left.
///
/// # Errors
/// The first one of TLS, else that of the last address, or `failure` without any.
fn first<T>(
    hosts: impl Iterator<Item = client::Destination>,
    end: Instant,
    mut failure: ConnectionError,
    mut open: impl FnMut(&client::Destination) -> Result<T, ConnectionError>,
) -> Result<(T, String), ConnectionError> {
    for (tried, host) in hosts.enumerate() {
        if tried >= LEAST_ADDRESSES && end <= Instant::now() {
            break;
        }
        match open(&host) {
            Ok(opened) => return Ok((opened, host.host)),
            Err(e @ ConnectionError::Auth(_)) => return Err(e),
            // The next try may succeed in the clear where TLS failed, whatever was wrong with the others.
            Err(_) if failure.is_of_tls() => {}
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
            return NoConnection::Later(ConnectionError::Lost(Stage::LookUp, text.clone()));
        }
    };
    NoConnection::Never(Outcome::local(Verdict::Failed, status, why.to_string()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::smtp::client::Replies;

    fn host(name: &str) -> client::Destination {
        client::Destination {
            addresses: Vec::new(),
            host: name.to_owned(),
            implicit_tls: false,
            verify: false,
            unsigned: false,
            proxy: false,
        }
    }

    #[test]
    fn names_that_anybody_may_have_given() {
        assert!(is_unsigned("mx.one.test", "one.test"));
        assert!(!is_unsigned("one.test", "one.test") && !is_unsigned("::1", "[IPv6:::1]"));
    }

    #[test]
    fn the_next_exchanger_is_tried_after_a_refusal() {
        let refused = |stage| {
            let reply = Replies::new().take(&mut &b"554 no\r\n"[..]);
            ConnectionError::Refused(stage, reply.unwrap().unwrap())
        };
        let all = ["greets", "says", "takes", "unused"].map(host);
        let none = || refused(Stage::Connect);
        let end = Instant::now() + PATIENCE;
        let found = first(all.iter().cloned(), end, none(), |host| {
            match host.host.as_str() {
                "greets" => Err(refused(Stage::Greeting)),
                "says" => Err(refused(Stage::Hello)),
                name => Ok(name.to_owned()),
            }
        });
        assert_eq!(found, Ok(("takes".to_owned(), "takes".to_owned())));
        let last = first::<()>(all.iter().cloned(), end, none(), |_| {
            Err(refused(Stage::Hello))
        });
        assert_eq!(last, Err(refused(Stage::Hello)));
        assert_eq!(
            first(std::iter::empty(), end, none(), |_| Ok(())),
            Err(none())
        );
        let broken = ConnectionError::Tls("bad certificate".to_owned());
        let found = first::<()>(all.iter().cloned(), end, none(), |host| {
            Err(match host.host.as_str() {
                "says" => broken.clone(),
                _ => refused(Stage::Greeting),
            })
        });
        assert_eq!(found, Err(broken));
        // A wrong password is not tried at each of them, and silent ones do not hold a thread for hours.
        let tried = |end, failure: ConnectionError| {
            let mut tried = 0;
            let found = first::<()>(all.iter().cloned(), end, none(), |_| {
                tried += 1;
                Err(failure.clone())
            });
            assert_eq!(found, Err(failure));
            tried
        };
        assert_eq!(tried(end, ConnectionError::Auth("535".to_owned())), 1);
        assert_eq!(tried(end, refused(Stage::Hello)), 4);
        assert_eq!(tried(Instant::now(), refused(Stage::Hello)), 2);
    }

    #[test]
    fn each_address_of_a_host_is_tried() {
        let ip = |octet| Address::Tcp(([192, 0, 2, octet], 25).into());
        let all = client::Destination {
            addresses: vec![ip(1), ip(2)],
            ..host("two")
        };
        let each: Vec<_> = by_address(&all)
            .map(|one| (one.host, one.addresses))
            .collect();
        let two = || "two".to_owned();
        assert_eq!(each, [(two(), vec![ip(1)]), (two(), vec![ip(2)])]);
    }

    #[test]
    fn this_host_by_its_name() {
        let at = |port| SocketAddr::from(([192, 0, 2, 1], port));
        assert!(is_named("MX.test", "mx.test", &[at(2525), at(25)]));
        assert!(!is_named("mx2.test", "mx.test", &[at(25)]));
        // Without a listener on port 25 other hosts cannot send mail here.
        assert!(!is_named("mx.test", "mx.test", &[at(587)]));
        let loopback = SocketAddr::from(([127, 0, 0, 1], 25));
        assert!(!is_named("mx.test", "mx.test", &[loopback]));
        assert!(is_named("mx.test", "mx.test", &[loopback, at(25)]));
    }

    #[test]
    fn statuses_of_domains_without_a_host() {
        for (why, status) in [
            (Unroutable::NoSuchDomain, Some("5.1.2")),
            (Unroutable::NullMx, Some("5.1.10")),
            (Unroutable::Loop, Some("5.4.6")),
            (Unroutable::Later("silence".to_owned()), Some("4.4.3")),
        ] {
            let found = match unroutable(why) {
                NoConnection::Never(outcome) => Some(outcome.status.to_string()),
                NoConnection::Later(failure) => Some(failure.status().to_string()),
                NoConnection::Waits(_) => None,
            };
            assert_eq!(found.as_deref(), status);
        }
    }
}
